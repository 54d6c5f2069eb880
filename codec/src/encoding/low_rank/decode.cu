// A product of two thin matrices on top of an array: the steps of SPEC.md, each rounded on its own. The first plane is the base, the
// others are the factors. A warp decodes a tile of 4096 elements, a lane 8 at a time; the warps of a thread block mostly take the same
// columns of rows side by side, so that they find the right factor in the cache.
#include "groups.cuh"

// The job's table. As on the host: parameters.rs.
struct LowRank {
    uint64_t by_row;          // for `divide`
    uint32_t row;             // elements of a row
    uint32_t rows;
    uint32_t rank;
    uint8_t element, factors; // FloatKind
    uint16_t spare;
};
static_assert(sizeof(LowRank) == 24, "as on the host");

struct LowRankTile {
    const Launch &launch;
    const Job &job;
    const LowRank &product;

    DEVICE bool fits() const {
        return plane_fits(job.first, job.elements) && plane_fits(job.others[0], (uint64_t)product.rows * product.rank) &&
               plane_fits(job.others[1], (uint64_t)product.rank * product.row);
    }

    DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (product.element) {
        case FLOAT_F16: return decode_as<FLOAT_F16>(first, elements, lane);
        case FLOAT_BF16: return decode_as<FLOAT_BF16>(first, elements, lane);
        case FLOAT_F32: return decode_as<FLOAT_F32>(first, elements, lane);
        }
    }

    template <uint8_t KIND> DEVICE void decode_as(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (product.factors) {
        case FLOAT_F16: return decode_by<KIND, FLOAT_F16>(first, elements, lane);
        case FLOAT_BF16: return decode_by<KIND, FLOAT_BF16>(first, elements, lane);
        case FLOAT_F32: return decode_by<KIND, FLOAT_F32>(first, elements, lane);
        default: return;
        }
    }

    template <uint8_t KIND, uint8_t FACTORS> DEVICE void decode_by(uint32_t first, uint32_t elements, uint32_t lane) const {
        const uint8_t *const base = address(launch, job.first), *const left = address(launch, job.others[0]);
        const uint8_t *const right = address(launch, job.others[1]);
        const FloatWriter writer(launch, job, KIND);
        const bool aligned = product.row % GRANULE == 0;
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            uint32_t row = divide(element, product.by_row), column = element - row * product.row;
            if (count == GRANULE && column + GRANULE <= product.row && writer.whole(element)) {
                float sums[GRANULE];
                load_eight<KIND>(base, element / GRANULE, sums);
                // phase: factors, 256
#pragma unroll 1
                for (uint32_t k = 0; k < product.rank; k++) {
                    const float factor = load_float(left, FACTORS, row * product.rank + k);
                    float x[GRANULE];
                    load_factors<FACTORS>(right, k * product.row + column, aligned, x);
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) sums[j] = add_rounded(sums[j], multiply_rounded(factor, x[j]));
                }
                // phase: main, 16
                uint32_t bits[GRANULE];
#pragma unroll
                for (uint32_t j = 0; j < GRANULE; j++) bits[j] = float_bits(sums[j], KIND);
                writer.granule(element, bits);
                continue;
            }
            // phase: element by element, 0, 0
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                if (element + j >= job.begin && element + j < job.end) {
                    float sum = load_float(base, KIND, element + j);
#pragma unroll 1
                    for (uint32_t k = 0; k < product.rank; k++) {
                        const float factor = load_float(left, FACTORS, row * product.rank + k);
                        const float x = load_float(right, FACTORS, k * product.row + column);
                        sum = add_rounded(sum, multiply_rounded(factor, x));
                    }
                    writer.element(element + j, float_bits(sum, KIND));
                }
                if (++column == product.row) {
                    column = 0;
                    row++;
                }
            }
            // phase: main, 16
        }
        // phase: end
    }

    // Eight numbers of the right factor from `at` on.
    template <uint8_t FACTORS>
    static DEVICE void load_factors(const uint8_t *right, uint32_t at, bool aligned, float (&x)[GRANULE]) {
        if (aligned) return load_eight<FACTORS>(right, at / GRANULE, x);
        // phase: ragged rows, 0, 0
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) x[j] = load_float(right, FACTORS, at + j);
        // phase: factors, 256
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_low_rank(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(LowRank, parameters, 1);
    // elements: 4096
    // cases: FLOAT_BF16
    assemble<LowRankTile>(launch, jobs, parameters);
}
