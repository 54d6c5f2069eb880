// y = W x for quantized W, read as it is stored: codes, and two numbers for each group of a row. A thread block computes 4 rows for
// BATCH vectors; its lanes take granules of 8 columns in turn, so that codes and x are read in whole lines, and each x is used for
// all 4 rows. All sums are in single precision and in one order: 8 products of a granule, the granules of a lane, lanes by a
// tree, warps. See gpu-decode/src/matvec/mod.rs for the bound on the error that follows.
//
// Linear codes c stand for s (c - m) + t, with m the middle of the codes' range, so the sum over a granule is
// s (sum of (c - m) x) + t (sum of x). A code is turned into a number where it lies in its word: as bits of a mantissa of 23 it is 2^p c, and x is
// multiplied by 2^-p before, which all rows share. So a weight costs a mask, a subtraction and a multiplication. Codes of a codebook stand for
// s e, with e an entry of a table, which is looked up in shared memory where a row has one table. Where entries are vectors, a lane takes an
// index at a time instead of a granule: its sum is s (e · x), with e in the cache.
//
// Outliers are added in the end: columns and values of each row, taken in turn by the threads. Where the columns of the codes are in another order
// than those of x, x is gathered.
#pragma once
#include <math.h>

#include "groups.cuh"

constexpr uint32_t PRODUCT_THREADS = 128, PRODUCT_WARPS = PRODUCT_THREADS / 32, PRODUCT_ROWS = 4;

// What codes and the numbers of their groups are. As on the host: matvec/mod.rs.
enum Weights : uint32_t {
    LINEAR = 0,      // s and t in single precision
    LINEAR_HALF = 1, // s and z in half precision: t = s (m - z)
    TERNARY_BF16 = 2, // symbols 0, 1, 2 stand for 0 and the two numbers, brain floats
    ROW_TABLES = 3,  // s in single precision, and a table for each row
    TABLES = 4,      // s in single precision, and the number of a table
    VECTOR_TABLES = 5,   // the same, of entries that are vectors
};

// What codes are.
enum Meaning : int { LINEAR_CODES = 0, HALF_CODES = 1, TERNARY_CODES = 2, ROW_INDICES = 3, INDICES = 4, VECTOR_INDICES = 5 };

struct Product {
    const uint8_t *codes;  // of each row, packed, on a multiple of 8 bytes
    const uint8_t *pairs;  // of each row, one for each group
    const float *x;        // `batch` vectors of `columns`
    float *y;              // `batch` vectors of `rows`
    uint64_t by_group;     // for `divide`
    uint64_t code_row;     // bytes, a multiple of 8
    uint32_t rows, columns;
    uint32_t group;        // codes of one
    uint32_t groups;       // of a row
    uint32_t batch;
    uint32_t bits;         // of a code
    uint32_t weights;      // Weights
    uint32_t dim;          // columns of a code
    const float *tables;   // each of 2^bits entries of `dim` numbers
    const uint32_t *row_tables; // ROW_TABLES: the number of each row's table
    const uint32_t *starts; // of each row's outliers, and behind the last; null if there are none
    const uint2 *outliers; // column of x, and value as bits of single precision
    const uint16_t *order; // for each column the column of x; null if the same
};
static_assert(sizeof(Product) == 120, "as on the host");

struct Pair {
    float a, b; // b of TABLES and VECTOR_TABLES: the bits of the table's number
};

template <int MEANING> DEVICE uint32_t pair_bytes() {
    return MEANING == LINEAR_CODES || MEANING == INDICES || MEANING == VECTOR_INDICES ? 8 : 4;
}

// The numbers of a group of a row, whose pairs begin at `pairs`.
template <int MEANING> DEVICE Pair load_pair(const uint8_t *pairs, uint32_t group, float middle) {
    if (MEANING == ROW_INDICES) return {__ldg((const float *)pairs + group), 0};
    if (pair_bytes<MEANING>() == 8) {
        const uint2 bits = __ldg((const uint2 *)pairs + group);
        return {__uint_as_float(bits.x), __uint_as_float(bits.y)};
    }
    const uint32_t bits = __ldg((const uint32_t *)pairs + group);
    if (MEANING == TERNARY_CODES) return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
    const float s = from_half(bits & 0xffff), z = from_half(bits >> 16);
    return {s, s * (middle - z)};
}

// The codes of a granule. BITS is their width, 0 if it is known only now.
template <int BITS> struct Granule {
    // Codes side by side that lie in a mantissa.
    static constexpr int SIDE = BITS == 0 ? 1 : 23 / (BITS == 0 ? 1 : BITS);
    uint2 symbols;
    uint32_t stride, mask;

    DEVICE Granule(const uint8_t *row, uint32_t g, uint32_t bits) : stride(bits), mask((1u << bits) - 1) {
        if (BITS == 2) symbols = make_uint2(__ldg((const uint16_t *)row + g), 0);
        else if (BITS == 4) symbols = make_uint2(__ldg((const uint32_t *)row + g), 0);
        else if (BITS == 8) symbols = __ldg((const uint2 *)row + g);
        else symbols = Codes(row, BITS == 0 ? bits : BITS).granule(g, GRANULE);
    }
    // Code j: all are asked for in order, as the symbols move where their width is not known.
    DEVICE uint32_t code(int j) {
        if (BITS != 0) return (j * BITS < 32 ? symbols.x >> (j * BITS & 31) : symbols.y >> (j * BITS & 31)) & ((1u << BITS) - 1);
        const uint32_t code = symbols.x & mask;
        symbols.x = __funnelshift_r(symbols.x, symbols.y, stride);
        symbols.y >>= stride;
        return code;
    }
    // 2 to the power of `place(j)` times code j less `middle`, which is the middle of the codes' range. As `code`.
    DEVICE float moved(int j, float middle) {
        if (BITS == 0) return __uint_as_float(MANTISSA | code(j)) - (0x1p23f + middle);
        // Codes of 8 bits do not run from one word into the other, and others have but one.
        const int first = j / SIDE * SIDE * BITS;
        const uint32_t word = (first < 32 ? symbols.x : symbols.y) >> (first & 31);
        const uint32_t inside = ((1u << BITS) - 1) << place(j), half = (1u << BITS >> 1) << place(j);
        return __uint_as_float(keep_bits(word, inside, MANTISSA)) - __uint_as_float(MANTISSA | half);
    }
    static DEVICE int place(int j) { return j % SIDE * BITS; }
    // 2^23, with room for bits.
    static constexpr uint32_t MANTISSA = 0x4b000000;
};

// Products with one granule of a row, added to `sums`.
template <int BITS, int MEANING, int BATCH> struct GranuleProduct {
    static constexpr bool LINEAR_ONES = MEANING == LINEAR_CODES || MEANING == HALF_CODES;
    const float (&x)[BATCH][GRANULE]; // of linear codes, divided by 2 to the power of their place
    const float (&totals)[BATCH];     // of x
    float (&sums)[BATCH];
    float middle;
    const float *table; // of the row, in shared memory, or all of them

    // Of elements from..to, which are of one group.
    template <bool WHOLE> DEVICE void add(Granule<BITS> granule, Pair pair, uint32_t from, uint32_t to) const {
        float a[BATCH], b[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) a[k] = b[k] = 0;
        const float *const entries = MEANING == INDICES ? table + ((uint64_t)__float_as_uint(pair.b) << granule.stride) : table;
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) {
            const bool inside = WHOLE || (j >= from && j < to);
            if (MEANING == TERNARY_CODES) {
                const uint32_t code = granule.code(j);
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    if (inside && (code & 1)) a[k] += x[k][j];
                    if (inside && (code & 2)) b[k] += x[k][j];
                }
            } else if (!LINEAR_ONES) {
                const uint32_t code = granule.code(j);
                const float entry = MEANING == INDICES ? __ldg(entries + code) : entries[code];
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    if (inside) a[k] = fmaf(entry, x[k][j], a[k]);
                }
            } else {
                const float c = granule.moved(j, middle);
                const float power = (float)(1u << Granule<BITS>::place(j));
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    if (inside) a[k] = fmaf(c, x[k][j], a[k]);
                    if (!WHOLE && inside) b[k] += power * x[k][j];
                }
            }
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const float rest = LINEAR_ONES && WHOLE ? totals[k] : b[k];
            sums[k] = fmaf(pair.a, a[k], LINEAR_ONES || MEANING == TERNARY_CODES ? fmaf(pair.b, rest, sums[k]) : sums[k]);
        }
    }
};

// Eight numbers of x from column on, in the order of the codes, 0 behind the end.
DEVICE void load_x(const float *x, const uint16_t *order, uint32_t column, uint32_t columns, float (&values)[GRANULE]) {
    if (order) {
        // phase: gathered, 0, 0
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) values[j] = column + j < columns ? __ldg(x + __ldg(order + column + j)) : 0;
        // phase: main, 1
        return;
    }
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

// Copies the tables of the thread block's rows, where each has one.
template <int BITS> DEVICE void load_tables(const Product &product, float *tables) {
    const uint32_t bits = BITS == 0 ? product.bits : BITS, first_row = blockIdx.x * PRODUCT_ROWS;
    for (uint32_t i = threadIdx.x; i < PRODUCT_ROWS << bits; i += PRODUCT_THREADS) {
        const uint32_t row = min(first_row + (i >> bits), product.rows - 1), entry = i & ((1u << bits) - 1);
        tables[i] = __ldg(product.tables + ((uint64_t)__ldg(product.row_tables + row) << bits) + entry);
    }
    __syncthreads();
}

// Products of four rows whose codes stand for vectors, added to `sums`.
template <int BATCH>
DEVICE void add_vectors(const Product &product, const uint8_t *const (&codes)[PRODUCT_ROWS],
                        const uint8_t *const (&pairs)[PRODUCT_ROWS], uint32_t first, float (&sums)[PRODUCT_ROWS][BATCH]) {
    // phase: vectors, 1
#pragma unroll 1
    for (uint32_t v = threadIdx.x; v * product.dim < product.columns; v += PRODUCT_THREADS) {
        const uint32_t column = v * product.dim, count = min(product.dim, product.columns - column);
        const uint32_t group = divide(v, product.by_group);
        const float *entries[PRODUCT_ROWS];
        float scales[PRODUCT_ROWS], parts[PRODUCT_ROWS][BATCH] = {};
#pragma unroll
        for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
            const Pair pair = load_pair<VECTOR_INDICES>(pairs[r], group, 0);
            const uint64_t entry = ((uint64_t)__float_as_uint(pair.b) << product.bits) + Codes(codes[r], product.bits).element(v);
            entries[r] = product.tables + entry * product.dim;
            scales[r] = pair.a;
        }
        // phase: elements of vectors, 8
#pragma unroll 1
        for (uint32_t j = 0; j < count; j++) {
            const uint32_t at = product.order ? __ldg(product.order + column + j) : column + j;
            float x[BATCH];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                // Vectors that there are not repeat the last one.
                x[k] = __ldg(product.x + (uint64_t)min(first + k, product.batch - 1) * product.columns + at);
            }
#pragma unroll
            for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
                const float e = __ldg(entries[r] + j);
#pragma unroll
                for (int k = 0; k < BATCH; k++) parts[r][k] = fmaf(e, x[k], parts[r][k]);
            }
        }
        // phase: vectors, 1
#pragma unroll
        for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
#pragma unroll
            for (int k = 0; k < BATCH; k++) sums[r][k] = fmaf(scales[r], parts[r][k], sums[r][k]);
        }
    }
    // phase: end
}

// Products of four rows with granules of codes, added to `sums`.
template <int BITS, int MEANING, int BATCH>
DEVICE void add_granules(const Product &product, const uint8_t *const (&codes)[PRODUCT_ROWS],
                         const uint8_t *const (&pairs)[PRODUCT_ROWS], uint32_t first, float (&sums)[PRODUCT_ROWS][BATCH],
                         const float *tables) {
    const float middle = (float)(1u << product.bits >> 1);
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
            load_x(product.x + (uint64_t)vector * product.columns, product.order, column, product.columns, x[k]);
            totals[k] = 0;
#pragma unroll
            for (uint32_t j = 0; j < GRANULE; j++) {
                totals[k] += x[k][j];
                if (MEANING == LINEAR_CODES || MEANING == HALF_CODES) x[k][j] *= 1.0f / (float)(1u << Granule<BITS>::place(j));
            }
        }
#pragma unroll
        for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
            const Granule<BITS> granule(codes[r], g, product.bits);
            const float *const table = MEANING == ROW_INDICES ? tables + (r << (BITS == 0 ? product.bits : BITS)) : product.tables;
            const GranuleProduct<BITS, MEANING, BATCH> products = {x, totals, sums[r], middle, table};
            if (left >= GRANULE || group + 1 == product.groups) {
                products.template add<true>(granule, load_pair<MEANING>(pairs[r], group, middle), 0, GRANULE);
                continue;
            }
            // phase: parts of groups, 0, 0
#pragma unroll 1
            for (uint32_t from = 0, to = left, i = group; from < GRANULE && i < product.groups; i++) {
                products.template add<false>(granule, load_pair<MEANING>(pairs[r], i, middle), from, to);
                from = to;
                to = min(to + product.group, GRANULE);
            }
            // phase: main, 1
        }
    }
}

template <int BITS, int MEANING, int BATCH> DEVICE void multiply(const Product &product, float *partial, float *tables) {
    if (MEANING == ROW_INDICES) load_tables<BITS>(product, tables);
    const uint32_t first_row = blockIdx.x * PRODUCT_ROWS, first = blockIdx.y * BATCH;
    float sums[PRODUCT_ROWS][BATCH] = {};
    const uint8_t *codes[PRODUCT_ROWS], *pairs[PRODUCT_ROWS];
    // Rows that there are not repeat the last one.
#pragma unroll
    for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
        const uint64_t row = min(first_row + r, product.rows - 1);
        codes[r] = product.codes + row * product.code_row;
        pairs[r] = product.pairs + row * product.groups * pair_bytes<MEANING>();
    }
    if (MEANING == VECTOR_INDICES) add_vectors<BATCH>(product, codes, pairs, first, sums);
    else add_granules<BITS, MEANING, BATCH>(product, codes, pairs, first, sums, tables);
    if (product.starts) {
        // phase: outliers, 0, 0
#pragma unroll
        for (uint32_t r = 0; r < PRODUCT_ROWS; r++) {
            const uint32_t row = min(first_row + r, product.rows - 1), end = __ldg(product.starts + row + 1);
#pragma unroll 1
            for (uint32_t i = __ldg(product.starts + row) + threadIdx.x; i < end; i += PRODUCT_THREADS) {
                const uint2 outlier = __ldg(product.outliers + i);
#pragma unroll
                for (int k = 0; k < BATCH; k++) {
                    const uint32_t vector = min(first + k, product.batch - 1);
                    const float x = __ldg(product.x + (uint64_t)vector * product.columns + outlier.x);
                    sums[r][k] = fmaf(__uint_as_float(outlier.y), x, sums[r][k]);
                }
            }
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

template <int MEANING, int BATCH> DEVICE void multiply_linear(const Product &product, float *partial) {
    switch (product.bits) {
    case 2: return multiply<2, MEANING, BATCH>(product, partial, nullptr);
    case 3: return multiply<3, MEANING, BATCH>(product, partial, nullptr);
    case 4: return multiply<4, MEANING, BATCH>(product, partial, nullptr);
    case 8: return multiply<8, MEANING, BATCH>(product, partial, nullptr);
    // phase: other widths, 0, 0
    default: return multiply<0, MEANING, BATCH>(product, partial, nullptr);
    }
    // phase: end
}

template <int BATCH> DEVICE void multiply_any(const Product &product, float *partial) {
    switch (product.weights) {
    case LINEAR: return multiply_linear<LINEAR_CODES, BATCH>(product, partial);
    case LINEAR_HALF: return multiply_linear<HALF_CODES, BATCH>(product, partial);
    case TERNARY_BF16: return multiply<2, TERNARY_CODES, BATCH>(product, partial, nullptr);
    }
}

// Of codebooks: kernels of their own, as shared memory and registers are.
template <int BATCH> DEVICE void multiply_indices(const Product &product, float *partial, float *tables) {
    if (product.weights == ROW_TABLES && product.bits == 4) return multiply<4, ROW_INDICES, BATCH>(product, partial, tables);
    // phase: others, 0, 0
    if (product.weights == VECTOR_TABLES) return multiply<0, VECTOR_INDICES, BATCH>(product, partial, tables);
    if (product.weights == ROW_TABLES) return multiply<0, ROW_INDICES, BATCH>(product, partial, tables);
    multiply<0, INDICES, BATCH>(product, partial, tables);
    // phase: end
}
