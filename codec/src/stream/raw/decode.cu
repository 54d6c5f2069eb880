// Joins a component that can be read at any index (raw, packed, or all the same) with the others. A warp joins a tile of
// 4096 elements.
#include "join.cuh"

// Symbol i of a plane, of any width.
DEVICE uint32_t plane_symbol(const Plane &plane, const uint8_t *data, uint32_t i) {
    if (plane.stride == 0) return plane.constant;
    if (plane.stride == 8) return data[i];
    if (plane.stride == 16) return data[2 * (uint64_t)i] | data[2 * (uint64_t)i + 1] << 8;
    // At most 15 bits, in at most three bytes.
    const uint64_t bit = (uint64_t)i * plane.stride;
    const uint8_t *at = data + (bit >> 3);
    const uint32_t shift = bit & 7, last = shift + plane.stride;
    uint32_t bits = at[0];
    if (last > 8) bits |= at[1] << 8;
    if (last > 16) bits |= at[2] << 16;
    return bits >> shift & ((1u << plane.stride) - 1);
}

// The first `count` symbols of granule g, as a join takes them.
template <bool WIDE> DEVICE uint4 plane_granule(const Plane &plane, const uint8_t *data, uint32_t g, uint32_t count) {
    if (!WIDE && plane.stride == 8 && count == GRANULE) {
        const uint2 bytes = __ldg((const uint2 *)data + g);
        return make_uint4(bytes.x, bytes.y, 0, 0);
    }
    // phase: two bits, 0, 0
    if (!WIDE && plane.stride == 2 && count == GRANULE) {
        const uint2 bytes = spread_pairs(__ldg((const uint16_t *)data + g));
        return make_uint4(bytes.x, bytes.y, 0, 0);
    }
    // phase: packed, 0, 0
    uint64_t low = 0, high = 0;
#pragma unroll 1
    for (uint32_t j = 0; j < count; j++) {
        const uint64_t symbol = plane_symbol(plane, data, g * GRANULE + j);
        if (!WIDE) low |= symbol << 8 * j;
        else if (j < 4) low |= symbol << 16 * j;
        else high |= symbol << 16 * (j - 4);
    }
    return make_uint4((uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32));
    // phase: end
}

struct DirectTile {
    const Launch &launch;
    const Job &job;
    Tile tile;
    uint32_t lane;

    template <class Join> DEVICE uint32_t run() const {
        Join join(launch, job);
        const uint8_t *data = address(launch, job.first);
        const bool vector = whole(launch, job, tile);
        // phase: main, 16/4
#pragma unroll 4
        for (uint32_t i = lane * GRANULE; i < tile.elements; i += GROUP) {
            const uint32_t g = (tile.first + i) / GRANULE, count = min(tile.elements - i, GRANULE);
            const uint4 symbols = plane_granule<Join::WIDE>(job.first, data, g, count);
            if (vector && count == GRANULE) put_granule(join, g, symbols);
            // phase: part of a granule, 0, 0
            else put_elements(join, job, g, symbols, count);
        }
        // phase: end
        return __any_sync(FULL_WARP, join.found != 0) ? BAD_SYMBOL : OK;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_direct(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 4096
    // cases: JOIN_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, tile = span.tile + (threadIdx.x >> 5);
    const uint32_t first = tile << job.tile_log;
    if (first >= job.elements) return;
    const uint32_t elements = min(job.elements - first, 1u << job.tile_log);
    uint32_t status = BAD_LENGTH;
    if (planes_fit(job, lane)) {
        status = with_join(job.join, DirectTile{launch, job, Tile{nullptr, 0, first, elements, OK}, lane});
    }
    if (lane == 0) report(launch, job, status);
    // phase: end
}
