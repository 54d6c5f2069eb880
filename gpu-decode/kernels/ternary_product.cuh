// Y = W X for ternary W that stays compressed: its streams of symbols are read as they lie, and no decoded weight leaves the
// multiprocessor. A thread block computes some rows of one stored block. Its warps decode the tiles that these rows lie in, at most
// eight, into one window of shared memory (ternary.cuh); then each warp takes a *unit*, ROWS rows and a share of their columns.
//
//   tiles of the stream   |   t   |  t+1  |  t+2  |     8192 symbols each, from anywhere in a row to anywhere
//   rows of the CTA          | r | r+1| r+2| r+3|       tiles at the ends are decoded by the neighbours as well
//
// That is at most two tiles of eight decoded twice, in exchange for no partial sums in memory and no second pass. A row that is
// longer than seven tiles is taken in parts.
//
// All sums are in single precision, fused, and in one order: the 8 columns of a granule, the granules of a lane (every 32nd of
// the unit's share, in every part of the row), lanes by a tree, then parts and shares of a row. The host states the bound that follows
// (gpu-decode/src/matvec/ternary.rs).
#pragma once
#include "matvec.cuh"
#include "ternary.cuh"

constexpr uint32_t UNIT_ROWS = 4, MOST_VECTORS = 16;
// Symbols that lie in at most WARPS tiles wherever they begin.
constexpr uint32_t MOST_SYMBOLS = (WARPS - 1) << TERNARY_TILE_LOG;

// How a job's symbols are coded: in place of its join. As on the host.
enum SymbolCode : uint8_t { CODE_INDEXED = 0, CODE_TUNSTALL = 1, CODE_DICTIONARY = 2, CODE_TRITS = 3 };

// As on the host: matvec/ternary.rs.
struct TernaryProduct {
    Launch launch;       // image, jobs (a block each: begin..end are rows of it, and row 0 is row `out` of y) and status words
    const uint8_t *pairs; // of each row, two brain floats for each group
    const float *x;      // `batch` vectors of `columns`
    float *y;            // `batch` vectors of `rows`
    uint64_t by_group;   // for `divide`
    uint32_t rows, columns;
    uint32_t group;      // columns of one
    uint32_t groups;     // of a row
    uint32_t batch;
    uint32_t cta_rows;   // 1, or UNIT_ROWS times 1, 2, 4 or 8
    uint32_t block_ctas; // CTAs of a block
    uint32_t spare;
};
static_assert(sizeof(TernaryProduct) == 112, "as on the host");

// Two-bit symbols that can be read at any index, to a window.
DEVICE uint32_t copy_window(const Launch &launch, const Job &job, const Tile &tile, uint32_t lane, uint32_t *window) {
    const Codes codes(launch, job.first);
    const uint32_t mask = codes.mask();
    uint32_t found = 0;
#pragma unroll 1
    for (uint32_t i = lane * GRANULE; i < tile.elements; i += GROUP) {
        uint2 symbols = codes.granule((tile.first + i) / GRANULE, min(tile.elements - i, GRANULE));
        uint32_t packed = 0;
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) {
            const uint32_t symbol = i + j < tile.elements ? symbols.x & mask : 0;
            found |= symbol > 2;
            packed |= (symbol & 3) << 2 * j;
            codes.next(symbols);
        }
        ((uint16_t *)window)[i / GRANULE] = (uint16_t)packed;
    }
    __syncwarp();
    return __any_sync(FULL_WARP, found != 0) ? BAD_SYMBOL : OK;
}

// Rows `row..row + rows` of a block, of which the window holds columns begin..end.
struct Part {
    const uint32_t *window;
    uint32_t origin;     // symbol of the block that the window begins with
    uint32_t row, rows;
    uint32_t begin, end; // columns
};

// Sums of the products of a warp's unit, to or with `partial`: a row's shares side by side, MOST_VECTORS for each.
template <uint32_t ROWS, int VECTORS>
DEVICE void add_products(const TernaryProduct &product, const Job &job, const Part &part, float *partial) {
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const uint32_t shares = WARPS * ROWS / product.cta_rows, first = warp / shares * ROWS, share = warp % shares;
    if (first >= part.rows) return;
#pragma unroll 1
    for (uint32_t vector = 0; vector < product.batch; vector += VECTORS) {
        float sums[ROWS][VECTORS] = {};
        // phase: products, 8
#pragma unroll 1
        for (uint32_t column = part.begin + (share * 32 + lane) * GRANULE; column < part.end; column += shares * 32 * GRANULE) {
            const uint32_t count = min(part.end - column, GRANULE);
            uint32_t symbols[ROWS];
            uint4 halves[ROWS]; // weights as brain floats
            uint64_t pairs[ROWS];
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++) {
                // Rows that there are not repeat the last one.
                const uint32_t row = part.row + min(first + r, part.rows - 1);
                const uint32_t at = row * product.columns + column - part.origin, shift = 2 * (at & 15);
                const uint32_t *const words = part.window + (at >> 4);
                symbols[r] = __funnelshift_r(words[0], shift + 2 * count > 32 ? words[1] : 0, shift);
                pairs[r] = (job.out + row) * product.groups;
                halves[r] = make_uint4(0, 0, 0, 0);
            }
            // A group at a time, which mostly is one.
#pragma unroll 1
            for (uint32_t group = divide(column, product.by_group), from = 0; from < count; group++) {
                const uint32_t to = min((group + 1) * product.group - column, count);
                const uint32_t inside = (1u << 2 * to) - (1u << 2 * from);
#pragma unroll
                for (uint32_t r = 0; r < ROWS; r++) {
                    const uint32_t numbers = __ldg((const uint32_t *)product.pairs + pairs[r] + group);
                    const uint2 bytes = spread_pairs(symbols[r] & inside);
                    const uint32_t low = ternary_selectors(bytes.x), high = ternary_selectors(bytes.y);
                    halves[r].x |= byte_select(numbers, 0, low);
                    halves[r].y |= byte_select(numbers, 0, low >> 16);
                    halves[r].z |= byte_select(numbers, 0, high);
                    halves[r].w |= byte_select(numbers, 0, high >> 16);
                }
                from = to;
            }
            float weights[ROWS][GRANULE];
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++) {
                const uint32_t pair[4] = {halves[r].x, halves[r].y, halves[r].z, halves[r].w};
#pragma unroll
                for (uint32_t j = 0; j < GRANULE; j++) {
                    weights[r][j] = __uint_as_float(j % 2 == 0 ? pair[j / 2] << 16 : pair[j / 2] & 0xffff0000u);
                }
            }
#pragma unroll
            for (int k = 0; k < VECTORS; k++) {
                // And so do vectors.
                const uint64_t v = min(vector + k, product.batch - 1);
                float x[GRANULE];
                load_x(product.x + v * product.columns, nullptr, column, product.columns, x);
#pragma unroll
                for (uint32_t r = 0; r < ROWS; r++) {
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) sums[r][k] = fmaf(weights[r][j], x[j], sums[r][k]);
                }
            }
        }
        // phase: sums, 1
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
#pragma unroll
            for (int k = 0; k < VECTORS; k++) {
#pragma unroll
                for (int distance = 16; distance > 0; distance /= 2) {
                    sums[r][k] += __shfl_xor_sync(FULL_WARP, sums[r][k], distance);
                }
                float *const to = partial + ((first + r) * shares + share) * MOST_VECTORS + vector + k;
                if (lane == 0 && vector + k < product.batch) *to = part.begin == 0 ? sums[r][k] : *to + sums[r][k];
            }
        }
        // phase: end
    }
}

DEVICE uint32_t fill(const Launch &launch, const Job &job, uint32_t number, const uint32_t *table, const uint2 *words,
                     uint32_t *window) {
    const uint32_t lane = threadIdx.x & 31, first = number << TERNARY_TILE_LOG;
    const Tile by_index = {nullptr, 0, first, min(job.elements - first, 1u << TERNARY_TILE_LOG), OK};
    switch (job.join) {
    case CODE_TUNSTALL:
    case CODE_DICTIONARY: {
        const Tile tile = find_tile(launch, job, number);
        if (tile.status != OK) return tile.status;
        // phase: dictionary, 0, 0
        if (job.join == CODE_DICTIONARY) return fill_window(Dictionary{(const uint2 *)job.table}, tile, lane, window);
        // phase: end
        return fill_window(Tunstall{words, (const uint8_t *)(table + Tunstall::CODEWORDS / 4)}, tile, lane, window);
    }
    case CODE_TRITS: return Trits::fill_window(launch, job, by_index, (const uint16_t *)table, lane, window);
    default: return copy_window(launch, job, by_index, lane, window);
    }
}

// What a thread block shares.
struct ProductTables {
    uint32_t *window;   // of all warps
    uint2 *words;       // Tunstall's
    uint32_t *table;    // Tunstall's, or that of Trits
    float *partial;     // of all units
    Job *job;
};

#define PRODUCT_TABLES(tables) \
    CMZ_SHARED_ARRAY(uint32_t, window, WARPS * WINDOW_WORDS); \
    CMZ_SHARED_ARRAY(uint2, words, Tunstall::CODEWORDS); \
    CMZ_SHARED_ARRAY(uint32_t, table, Tunstall::TABLE_WORDS); \
    CMZ_SHARED_ARRAY(float, partial, WARPS * UNIT_ROWS * MOST_VECTORS); \
    CMZ_SHARED_ARRAY(Job, jobs, 1); \
    const ProductTables tables = {window, words, table, partial, jobs}

template <int VECTORS> DEVICE void multiply_compressed(const TernaryProduct &product, const ProductTables &tables) {
    // phase: setup
    const uint32_t block = blockIdx.x / product.block_ctas, warp = threadIdx.x >> 5;
    constexpr uint32_t JOB_WORDS = sizeof(Job) / 4;
    if (threadIdx.x < JOB_WORDS) {
        ((uint32_t *)tables.job)[threadIdx.x] = __ldg((const uint32_t *)(product.launch.jobs + block) + threadIdx.x);
    }
    const Job &job = *tables.job;
    uint32_t *const table = tables.table;
    __syncthreads();
    const uint32_t row = job.begin + blockIdx.x % product.block_ctas * product.cta_rows; // of the block
    if (row >= job.end) return;
    if (job.join == CODE_TUNSTALL) {
        Tunstall::load_table(product.launch, job, table);
        __syncthreads();
        Tunstall::make_words(table, tables.words);
    } else if (job.join == CODE_TRITS) {
        ((uint16_t *)table)[threadIdx.x] = (uint16_t)Trits::digits(threadIdx.x);
    }
    __syncthreads();
    const uint32_t rows = min(job.end - row, product.cta_rows);
    uint32_t status = planes_fit(job, threadIdx.x & 31) ? OK : BAD_LENGTH;
    // phase: parts, 1
#pragma unroll 1
    for (uint32_t begin = 0; begin < product.columns; begin += MOST_SYMBOLS) {
        const uint32_t end = min(product.columns, begin + MOST_SYMBOLS);
        const uint32_t first = row * product.columns + begin, last = (row + rows - 1) * product.columns + end - 1;
        const uint32_t tile = (first >> TERNARY_TILE_LOG) + warp;
        if (status == OK && tile <= last >> TERNARY_TILE_LOG) {
            status = fill(product.launch, job, tile, table, tables.words, tables.window + warp * WINDOW_WORDS);
        }
        __syncthreads();
        const Part part = {tables.window, first >> TERNARY_TILE_LOG << TERNARY_TILE_LOG, row, rows, begin, end};
        if (product.cta_rows >= UNIT_ROWS) add_products<UNIT_ROWS, VECTORS>(product, job, part, tables.partial);
        // phase: long rows, 0, 0
        else add_products<1, VECTORS>(product, job, part, tables.partial);
        // phase: parts, 1
        __syncthreads();
    }
    // phase: last sums, 1
    const uint32_t unit_rows = product.cta_rows >= UNIT_ROWS ? UNIT_ROWS : 1, shares = WARPS * unit_rows / product.cta_rows;
    for (uint32_t i = threadIdx.x; i < rows * product.batch; i += THREADS) {
        const uint32_t r = i % rows, k = i / rows;
        float sum = 0;
        for (uint32_t share = 0; share < shares; share++) sum += tables.partial[(r * shares + share) * MOST_VECTORS + k];
        product.y[(uint64_t)k * product.rows + job.out + row + r] = sum;
    }
    if ((threadIdx.x & 31) == 0) report(product.launch, job, status);
    // phase: end
}
