// Codewords of 16 bits, looked up in the dictionary (SPEC.md). That is the same for all streams, and too large for shared memory: it lies once in
// the memory of the device, at the address that the job's table is.
#include "ternary.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) cmz_dictionary(const Launch launch) {
    CMZ_SHARED_ARRAY(uint32_t, windows, WARPS * WINDOW_WORDS);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 8192
    // cases: JOIN_TERNARY_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, number = span.tile + warp;
    if (number << job.tile_log >= job.elements) return;
    uint32_t *const window = windows + warp * WINDOW_WORDS;
    const Tile tile = find_tile(launch, job, number);
    uint32_t status = planes_fit(job, lane) ? tile.status : BAD_LENGTH;
    if (status == OK) status = fill_window(Dictionary<PairForm>{(const uint2 *)job.table}, tile, lane, window);
    if (status == OK) status = WindowTile{launch, job, tile, lane, window}.join();
    if (lane == 0) report(launch, job, status);
    // phase: end
}
