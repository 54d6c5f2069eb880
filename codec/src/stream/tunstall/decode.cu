// Codewords of ten bits (SPEC.md). The words are made once for a thread block, in shared memory, of a table of 2 KiB that comes with
// every stream: the words themselves would be 9 KiB, for a stream of about 80 that decodes to 2 MiB.
#include "ternary.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) cmz_tunstall(const Launch launch) {
    CMZ_SHARED_ARRAY(uint32_t, windows, WARPS * WINDOW_WORDS);
    CMZ_SHARED_ARRAY(uint2, words, TunstallTable::CODEWORDS);
    CMZ_SHARED_ARRAY(uint32_t, table, TunstallTable::WORDS);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 8192
    // cases: JOIN_TERNARY_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    TunstallTable::load(launch, job, table);
    __syncthreads();
    TunstallTable::make_words<PairForm>(table, words);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, number = span.tile + warp;
    if (number << job.tile_log >= job.elements) return;
    uint32_t *const window = windows + warp * WINDOW_WORDS;
    const Tile tile = find_tile(launch, job, number);
    uint32_t status = planes_fit(job, lane) ? tile.status : BAD_LENGTH;
    const Tunstall<PairForm> code(words, table);
    if (status == OK) status = fill_window(code, tile, lane, window);
    if (status == OK) status = WindowTile{launch, job, tile, lane, window}.join();
    if (lane == 0) report(launch, job, status);
    // phase: end
}
