// Five symbols to a byte (SPEC.md), which is found by index. A warp decodes 8192 symbols, a lane 8 at a time.
#include "ternary.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) cmz_trits(const Launch launch) {
    CMZ_SHARED_ARRAY(uint32_t, windows, WARPS * WINDOW_WORDS);
    CMZ_SHARED_ARRAY(uint16_t, table, THREADS);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 8192
    // cases: JOIN_TERNARY_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    table[threadIdx.x] = (uint16_t)Trits::digits(threadIdx.x);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = (span.tile + warp) << job.tile_log;
    if (first >= job.elements) return;
    uint32_t *const window = windows + warp * WINDOW_WORDS;
    const Tile tile = {nullptr, 0, first, min(job.elements - first, 1u << job.tile_log), OK};
    uint32_t status = planes_fit(job, lane) ? OK : BAD_LENGTH;
    if (status == OK) status = Trits(launch, job, table).fill_window(tile, lane, window);
    if (status == OK) status = WindowTile{launch, job, tile, lane, window}.join();
    if (lane == 0) report(launch, job, status);
    // phase: end
}
