// y = W x for quantized W, read as it is stored: codes, and two numbers for each group of a row. A thread block computes 4 rows for
// BATCH vectors; its lanes take granules of 8 columns in turn, so that codes and x are read in whole lines, and each x is used for
// all 4 rows. All sums are in single precision and in one order: 8 products of a granule, the granules of a lane, lanes by a
// tree, warps. See gpu-decode/src/matvec.rs for the bound on the error that follows.
//
// Linear codes c stand for s (c - m) + t, with m the middle of the codes' range, so the sum over a granule is
// s (sum of (c - m) x) + t (sum of x): two operations for each weight and vector, none of them a conversion.
#pragma once
#include <math.h>

#include "groups.cuh"

constexpr uint32_t PRODUCT_THREADS = 128, PRODUCT_WARPS = PRODUCT_THREADS / 32, PRODUCT_ROWS = 4;

// What codes and the numbers of their groups are. As on the host: matvec.rs.
enum Weights : uint32_t {
    LINEAR = 0,      // s and t in single precision
    LINEAR_HALF = 1, // s and z in half precision: t = s (m - z)
    TERNARY_BF16 = 2, // symbols 0, 1, 2 stand for 0 and the two numbers, brain floats
};

struct Product {
    const uint8_t *codes;  // of each row, packed, on a multiple of 4 bytes
    const uint8_t *pairs;  // of each row, one for each group
    const float *x;        // `batch` vectors of `columns`
    float *y;              // `batch` vectors of `rows`
    uint64_t by_group;     // for `divide`
    uint64_t code_row;     // bytes
    uint32_t rows, columns;
    uint32_t group;        // columns of one
    uint32_t groups;       // of a row
    uint32_t batch;
    uint32_t bits;         // of a code
    uint32_t weights;      // Weights
    uint32_t spare;
};
static_assert(sizeof(Product) == 80, "as on the host");

struct Pair {
    float a, b;
};

template <Weights KIND> DEVICE Pair load_pair(const Product &product, uint32_t row, uint32_t group) {
    const uint64_t i = (uint64_t)row * product.groups + group;
    if (KIND == LINEAR) {
        const uint2 bits = __ldg((const uint2 *)product.pairs + i);
        return {__uint_as_float(bits.x), __uint_as_float(bits.y)};
    }
    const uint32_t bits = __ldg((const uint32_t *)product.pairs + i);
    if (KIND == TERNARY_BF16) return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
    const float s = from_half(bits & 0xffff), z = from_half(bits >> 16);
    return {s, s * ((float)(1u << product.bits >> 1) - z)};
}

// Products with one granule of a row, added to `sums`.
template <Weights KIND, int BATCH> struct GranuleProduct {
    const float (&x)[BATCH][GRANULE];
    const float (&totals)[BATCH]; // of x
    float (&sums)[BATCH];
    uint32_t mask, stride;
    float middle; // 2^23 + m

    // Of elements from..to, which are of one group.
    template <bool WHOLE> DEVICE void add(uint2 symbols, Pair pair, uint32_t from, uint32_t to) const {
        float a[BATCH], b[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) a[k] = b[k] = 0;
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) {
            const uint32_t code = symbols.x & mask;
            const bool inside = WHOLE || (j >= from && j < to);
            if (KIND == TERNARY_BF16) {
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    if (inside && (code & 1)) a[k] += x[k][j];
                    if (inside && (code & 2)) b[k] += x[k][j];
                }
            } else {
                const float c = __uint_as_float(0x4b000000 | code) - middle;
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    if (inside) a[k] = fmaf(c, x[k][j], a[k]);
                    if (!WHOLE && inside) b[k] += x[k][j];
                }
            }
            symbols.x = __funnelshift_r(symbols.x, symbols.y, stride);
            symbols.y >>= stride;
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const float rest = KIND != TERNARY_BF16 && WHOLE ? totals[k] : b[k];
            sums[k] = fmaf(pair.a, a[k], fmaf(pair.b, rest, sums[k]));
        }
    }
};

// Eight numbers of x from column on, 0 behind the end.
DEVICE void load_x(const float *x, uint32_t column, uint32_t columns, float (&values)[GRANULE]) {
    if (column + GRANULE <= columns && ((uint64_t)(x + column) & 15) == 0) {
        const uint4 low = __ldg((const uint4 *)(x + column)), high = __ldg((const uint4 *)(x + column) + 1);
        const uint32_t bits[GRANULE] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) values[j] = __uint_as_float(bits[j]);
        return;
    }
    // phase: ragged, 0, 0
#pragma unroll
    for (uint32_t j = 0; j < GRANULE; j++) values[j] = column + j < columns ? __ldg(x + column + j) : 0;
    // phase: main, 1
}

template <Weights KIND, int BATCH> DEVICE void multiply(const Product &product, float *partial) {
    const uint32_t first_row = blockIdx.x * PRODUCT_ROWS, first = blockIdx.y * BATCH;
    float sums[PRODUCT_ROWS][BATCH] = {};
    const uint32_t mask = (1u << product.bits) - 1;
    const float middle = __uint_as_float(0x4b000000 | (1u << product.bits >> 1));
    // phase: main, 1
#pragma unroll 1
    for (uint32_t g = threadIdx.x; g * GRANULE < product.columns; g += PRODUCT_THREADS) {
        const uint32_t column = g * GRANULE, group = divide(column, product.by_group);
        const uint32_t left = (group + 1) * product.group - column; // of the group, at least 1
        float x[BATCH][GRANULE], totals[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            // Vectors that there are not repeat the last one.
            const uint32_t vector = min(first + k, product.batch - 1);
            load_x(product.x + (uint64_t)vector * product.columns, column, product.columns, x[k]);
            totals[k] = 0;
#pragma unroll
            for (uint32_t j = 0; j < GRANULE; j++) totals[k] += x[k][j];
        }
#pragma unroll
        for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
            const uint32_t row = min(first_row + r, product.rows - 1);
            const Codes codes(product.codes + row * product.code_row, product.bits);
            const uint2 symbols = codes.granule(g, GRANULE);
            const GranuleProduct<KIND, BATCH> granule = {x, totals, sums[r], mask, product.bits, middle};
            if (left >= GRANULE || group + 1 == product.groups) {
                granule.template add<true>(symbols, load_pair<KIND>(product, row, group), 0, GRANULE);
                continue;
            }
            // phase: parts of groups, 0, 0
#pragma unroll 1
            for (uint32_t from = 0, to = left, i = group; from < GRANULE && i < product.groups; i++) {
                granule.template add<false>(symbols, load_pair<KIND>(product, row, i), from, to);
                from = to;
                to = min(to + product.group, GRANULE);
            }
            // phase: main, 1
        }
    }
    // phase: sums, 1
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) {
                sums[r][k] += __shfl_xor_sync(FULL_WARP, sums[r][k], distance);
            }
            if (lane == 0) partial[(warp * PRODUCT_ROWS + r) * BATCH + k] = sums[r][k];
        }
    }
    __syncthreads();
    const uint32_t r = threadIdx.x / BATCH, k = threadIdx.x % BATCH;
    if (r < PRODUCT_ROWS && first_row + r < product.rows && first + k < product.batch) {
        float sum = 0;
        for (uint32_t w = 0; w < PRODUCT_WARPS; w++) sum += partial[(w * PRODUCT_ROWS + r) * BATCH + k];
        product.y[(uint64_t)(first + k) * product.rows + first_row + r] = sum;
    }
    // phase: end
}

template <int BATCH> DEVICE void multiply_any(const Product &product, float *partial) {
    switch (product.weights) {
    case LINEAR: return multiply<LINEAR, BATCH>(product, partial);
    case LINEAR_HALF: return multiply<LINEAR_HALF, BATCH>(product, partial);
    case TERNARY_BF16: return multiply<TERNARY_BF16, BATCH>(product, partial);
    default: return;
    }
}
