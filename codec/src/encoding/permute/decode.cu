// Columns to their places (SPEC.md). The first plane is the array; the job's table says of each column where it comes from, which the host has
// worked out of the order, and checked. A warp decodes a tile of 4096 elements, a lane 8 at a time: it gathers, as elements side
// by side can be written at once, and those of a row are read from few lines.
#include "groups.cuh"

// The job's table; where each column comes from follows, 16 bits each. As on the host: parameters.rs.
struct Permute {
    uint64_t by_row;      // for `divide`
    uint32_t row;         // elements of a row
    uint32_t element_len; // bytes
};
static_assert(sizeof(Permute) == 16, "as on the host");

// An element of any length as words.
DEVICE uint2 load_element(const uint8_t *array, uint32_t i, uint32_t len) {
    switch (len) {
    case 1: return make_uint2(__ldg(array + i), 0);
    case 2: return make_uint2(__ldg((const uint16_t *)array + i), 0);
    case 4: return make_uint2(__ldg((const uint32_t *)array + i), 0);
    default: return __ldg((const uint2 *)array + i);
    }
}

struct PermuteTile {
    const Launch &launch;
    const Job &job;
    const Permute &permute;

    DEVICE bool fits() const { return plane_fits(job.first, job.elements); }

    DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (permute.element_len) {
        case 1: return decode_as<1>(first, elements, lane);
        case 2: return decode_as<2>(first, elements, lane);
        case 4: return decode_as<4>(first, elements, lane);
        case 8: return decode_as<8>(first, elements, lane);
        }
    }

    template <uint32_t LEN> DEVICE void decode_as(uint32_t first, uint32_t elements, uint32_t lane) const {
        const uint8_t *const array = address(launch, job.first);
        const uint16_t *const sources = (const uint16_t *)(launch.image + job.table + sizeof(Permute));
        const FloatWriter writer(launch, job, LEN == 1 ? FLOAT_E4M3 : LEN == 2 ? FLOAT_F16 : FLOAT_F32);
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            uint32_t start = divide(element, permute.by_row) * permute.row, column = element - start;
            if (count == GRANULE && column + GRANULE <= permute.row && writer.whole(element)) {
                uint2 found[GRANULE];
#pragma unroll
                for (uint32_t j = 0; j < GRANULE; j++) found[j] = load_element(array, start + __ldg(sources + column + j), LEN);
                uint32_t words[GRANULE];
                if (LEN < 8) {
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) words[j] = found[j].x;
                    writer.granule(element, words);
                } else {
#pragma unroll
                    for (uint32_t half = 0; half < 2; half++) {
#pragma unroll
                        for (uint32_t j = 0; j < GRANULE; j++) words[j] = j & 1 ? found[4 * half + j / 2].y : found[4 * half + j / 2].x;
                        writer.granule(2 * element + GRANULE * half, words);
                    }
                }
                continue;
            }
            // phase: element by element, 0, 0
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                if (element + j >= job.begin && element + j < job.end) {
                    const uint8_t *const from = array + (uint64_t)LEN * (start + __ldg(sources + column));
                    uint8_t *const to = writer.out + (uint64_t)LEN * (element + j);
#pragma unroll 1
                    for (uint32_t k = 0; k < LEN; k++) to[k] = __ldg(from + k);
                }
                if (++column == permute.row) {
                    column = 0;
                    start += permute.row;
                }
            }
            // phase: main, 16
        }
        // phase: end
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_permute(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(Permute, parameters, 1);
    // elements: 4096
    // cases: 2
    assemble<PermuteTile>(launch, jobs, parameters);
}
