// Y = W X for ternary W that stays compressed: its streams of symbols are read as they lie, and nothing is written but y. A thread block
// computes some rows of one stored block. Its warps take the tiles that these rows lie in, at most eight, a warp each:
//
//   tiles of the stream   |   t   |  t+1  |  t+2  |     8192 symbols each, from anywhere in a row to anywhere
//   rows of the CTA          | r | r+1| r+2| r+3|       tiles at the ends are read by the neighbours as well
//
// That is at most two tiles of eight read twice, in exchange for no partial sums in memory and no second pass. A row that is longer than seven
// tiles is taken in parts.
//
// Most symbols are 0 and cost nothing: a lane takes a codeword and adds up the few x that its other symbols stand at, which it finds in shared memory.
// Several vectors lie there side by side, as many as have room; for more of them the streams are read again.
//
// All sums are in single precision, fused, and in one order: the symbols of a word from its end, the words of a lane, lanes by a tree, the
// tiles of a row. The host states the bound that follows (gpu-decode/src/matvec/mod.rs).
#include <math.h>

#include "ternary.cuh"

// Symbols that lie in at most WARPS tiles wherever they begin.
constexpr uint32_t MOST_SYMBOLS = (WARPS - 1) << TERNARY_TILE_LOG;
constexpr uint32_t MOST_ROWS = 32, MOST_VECTORS = 4;
// Numbers of x in shared memory.
constexpr uint32_t SHARED_X = 8192;

// How a job's symbols are coded: in place of its join. As on the host.
enum SymbolCode : uint8_t { CODE_INDEXED = 0, CODE_TUNSTALL = 1, CODE_DICTIONARY = 2, CODE_TRITS = 3 };

// As on the host: matvec/ternary.rs.
struct TernaryProduct {
    Launch launch;        // image, jobs (a block each: begin..end are rows of it, and row 0 is row `out` of y) and status words
    const uint32_t *pairs; // of each row, two brain floats for each group
    const float *x;       // `batch` vectors of `columns`
    float *y;             // `batch` vectors of `rows`
    uint64_t by_group;    // for `divide`
    uint32_t rows, columns;
    uint32_t group;       // columns of one
    uint32_t groups;      // of a row
    uint32_t batch;
    uint32_t cta_rows;    // at most MOST_ROWS
    uint32_t block_ctas;  // CTAs of a block
    uint32_t spare;
};
static_assert(sizeof(TernaryProduct) == 112, "as on the host");

// Rows row..last of a block, columns begin..end of them.
struct Part {
    uint32_t row, last;
    uint32_t begin, end;
};

// Sums of the rows that lie in a tile, for VECTORS vectors. SHARED: x lies in shared memory, the vectors side by side.
template <int VECTORS, bool SHARED> struct RowSums {
    const TernaryProduct &product;
    const Job &job;
    const Part &part;
    const float *x;
    uint32_t vector;
    float *partial; // of this warp: VECTORS for each row, every WARPS times VECTORS
    uint32_t tile;               // its first symbol in the block; others are counted from there
    uint32_t row, begin, end;    // symbols begin..end are wanted of the row
    uint32_t origin;             // its column 0, modulo 2^32
    float least, greatest;       // of a row that is one group
    float sums[VECTORS];

    DEVICE RowSums(const TernaryProduct &product, const Job &job, const Part &part, const float *x, uint32_t vector, float *partial,
                   uint32_t tile)
        : product(product), job(job), part(part), x(x), vector(vector), partial(partial), tile(tile) {
        begin_row(max(part.row, tile / product.columns));
    }
    DEVICE void begin_row(uint32_t number) {
        // phase: rows, 2
        row = number;
        origin = row * product.columns - tile;
        begin = max(row * product.columns + part.begin, tile) - tile;
        end = origin + part.end;
        if (row < part.last && product.groups == 1) set_pair(0);
#pragma unroll
        for (int k = 0; k < VECTORS; k++) sums[k] = 0;
        // phase: end
    }
    DEVICE void set_pair(uint32_t group) {
        const uint32_t pair = __ldg(product.pairs + (job.out + row) * product.groups + group);
        least = __uint_as_float(pair << 16);
        greatest = __uint_as_float(pair & 0xffff0000u);
    }

    // Words of each lane, from symbols `at` on; those of all lanes are symbols first..last.
    template <uint32_t COUNT>
    DEVICE void add(const uint32_t (&at)[COUNT], const uint2 (&symbols)[COUNT], uint32_t first, uint32_t last) {
#pragma unroll 1
        while (row < part.last && last > begin) {
            const bool whole = first >= begin && last <= end;
#pragma unroll
            for (uint32_t i = 0; i < COUNT; i++) {
                uint2 inside = symbols[i];
                // phase: ends of rows, 1
                if (!whole) {
                    const uint2 behind = MaskForm::before(inside, begin > at[i] ? begin - at[i] : 0);
                    inside = MaskForm::before(inside, end > at[i] ? end - at[i] : 0);
                    inside = make_uint2(inside.x & ~behind.x, inside.y & ~behind.y);
                }
                // phase: end
                add_word(at[i] - origin, inside);
            }
            // phase: rows, 2
            if (last < end) return;
            put_sums();
            begin_row(row + 1);
            // phase: end
        }
    }
    // What was added of a row that goes on in the next tile.
    DEVICE void finish(uint32_t last) {
        if (row < part.last && last > begin) put_sums();
    }

    // The x of a word whose first symbol is of a column: see MaskForm.
    DEVICE void add_word(uint32_t column, uint2 symbols) {
        float parts[VECTORS] = {};
        // phase: symbols, 34/4
#pragma unroll 1
        while (symbols.x != 0) {
            const uint32_t i = 31 - __clz((int)symbols.x), bit = 1u << i;
            symbols.x ^= bit;
            // phase: several groups, 0, 0
            if (product.groups != 1) set_pair(divide(column + i, product.by_group));
            // phase: symbols, 34/4
            const float weight = symbols.y & bit ? greatest : least;
            float values[VECTORS];
            load(column + i, values);
#pragma unroll
            for (int k = 0; k < VECTORS; k++) parts[k] = fmaf(weight, values[k], parts[k]);
        }
        // phase: codewords, 4.25
#pragma unroll
        for (int k = 0; k < VECTORS; k++) sums[k] += parts[k];
        // phase: end
    }
    DEVICE void load(uint32_t column, float (&values)[VECTORS]) const {
        if (!SHARED) values[0] = __ldg(x + (uint64_t)vector * product.columns + column);
        else if (VECTORS == 1) values[0] = x[column];
        else if (VECTORS == 2) {
            const uint2 two = ((const uint2 *)x)[column];
            values[0] = __uint_as_float(two.x);
            values[VECTORS - 1] = __uint_as_float(two.y);
        } else {
            const uint4 four = ((const uint4 *)x)[column];
            const uint32_t bits[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int k = 0; k < VECTORS; k++) values[k] = __uint_as_float(bits[k]);
        }
    }
    DEVICE void put_sums() {
        // phase: sums, 1
#pragma unroll
        for (int k = 0; k < VECTORS; k++) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) sums[k] += __shfl_xor_sync(FULL_WARP, sums[k], distance);
            if ((threadIdx.x & 31) == 0) partial[(row - part.row) * WARPS * VECTORS + k] += sums[k];
        }
        // phase: end
    }
};

// What a thread block shares.
struct Shared {
    float *x;
    uint2 *words;    // Tunstall's
    uint32_t *table; // Tunstall's, or that of Trits
    float *partial;  // of each row, of each warp, of each vector
};

// Adds up what a tile has of the rows of a part.
template <int VECTORS, bool SHARED>
DEVICE uint32_t add_tile(const TernaryProduct &product, const Job &job, const Shared &shared, const Part &part, uint32_t vector,
                         uint32_t number) {
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = number << TERNARY_TILE_LOG;
    const uint32_t elements = min(job.elements - first, 1u << TERNARY_TILE_LOG);
    const uint32_t stop = min(elements, (part.last - 1) * product.columns + part.end - first);
    RowSums<VECTORS, SHARED> rows(product, job, part, SHARED ? shared.x : product.x, vector, shared.partial + warp * VECTORS, first);
    const auto add = [&](const auto &at, const auto &symbols, uint32_t begin, uint32_t end) { rows.add(at, symbols, begin, end); };
    const auto add_pairs = [&](const auto &at, const auto &pairs, uint32_t begin, uint32_t end) {
        const uint2 symbols[1] = {MaskForm::of_pairs(pairs[0])};
        rows.add(at, symbols, begin, end);
    };
    const auto words = [&](const auto &code) {
        const Tile tile = find_tile(product.launch, job, number);
        return tile.status == OK ? each_word(code, tile, lane, stop, add) : tile.status;
    };
    const auto granules = [&](auto symbols) { return each_granule(symbols, first, elements, lane, stop, add_pairs); };
    uint32_t status = BAD_LENGTH;
    switch (job.join) {
    case CODE_TUNSTALL: status = words(Tunstall<MaskForm>(shared.words, shared.table)); break;
    case CODE_DICTIONARY: status = words(Dictionary<MaskForm>{(const uint2 *)job.table}); break;
    case CODE_TRITS: status = granules(Trits(product.launch, job, (const uint16_t *)shared.table)); break;
    case CODE_INDEXED: status = granules(Pairs(product.launch, job)); break;
    }
    rows.finish(stop);
    return status;
}

// Copies vectors to shared memory.
template <int VECTORS> DEVICE void share_x(const TernaryProduct &product, uint32_t vector, float *x) {
    const float *const from = product.x + (uint64_t)vector * product.columns;
    // phase: x, 6
    if (VECTORS == 1 && product.columns % 4 == 0 && ((uint64_t)from & 15) == 0) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < product.columns / 4; i += THREADS) ((uint4 *)x)[i] = __ldg((const uint4 *)from + i);
        return;
    }
    // phase: several or ragged x, 0, 0
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < product.columns; i += THREADS) {
#pragma unroll
        for (int k = 0; k < VECTORS; k++) {
            // Vectors that there are not repeat the last one.
            const uint64_t v = min(vector + k, product.batch - 1);
            x[i * VECTORS + k] = __ldg(product.x + v * product.columns + i);
        }
    }
    // phase: end
}

template <int VECTORS, bool SHARED>
DEVICE uint32_t multiply(const TernaryProduct &product, const Job &job, const Shared &shared, uint32_t row, uint32_t rows) {
    const uint32_t warp = threadIdx.x >> 5;
    uint32_t status = OK;
#pragma unroll 1
    for (uint32_t vector = 0; vector < product.batch; vector += VECTORS) {
        // phase: vectors, 1
        for (uint32_t i = threadIdx.x; i < rows * WARPS * VECTORS; i += THREADS) shared.partial[i] = 0;
        if (SHARED) share_x<VECTORS>(product, vector, shared.x);
        // phase: vectors, 1
        __syncthreads();
#pragma unroll 1
        for (uint32_t begin = 0; begin < product.columns; begin += MOST_SYMBOLS) {
            const Part part = {row, row + rows, begin, min(product.columns, begin + MOST_SYMBOLS)};
            const uint32_t first = row * product.columns + begin, last = (part.last - 1) * product.columns + part.end - 1;
            const uint32_t tile = (first >> TERNARY_TILE_LOG) + warp;
            if (tile <= last >> TERNARY_TILE_LOG) {
                status = max(status, add_tile<VECTORS, SHARED>(product, job, shared, part, vector, tile));
            }
        }
        // phase: last sums, 1/8, 1/8
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < rows * VECTORS; i += THREADS) {
            const uint32_t r = i / VECTORS, k = i % VECTORS;
            float sum = 0;
#pragma unroll
            for (uint32_t w = 0; w < WARPS; w++) sum += shared.partial[(r * WARPS + w) * VECTORS + k];
            if (vector + k < product.batch) product.y[(uint64_t)(vector + k) * product.rows + job.out + row + r] = sum;
        }
        __syncthreads();
        // phase: end
    }
    return status;
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) cmz_ternary_matvec(const TernaryProduct product) {
    CMZ_SHARED_ARRAY(float, x, SHARED_X);
    CMZ_SHARED_ARRAY(uint2, words, TunstallTable::CODEWORDS);
    CMZ_SHARED_ARRAY(uint32_t, table, TunstallTable::WORDS);
    CMZ_SHARED_ARRAY(float, partial, WARPS * MOST_ROWS * MOST_VECTORS);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 8192
    // cases: CODE_TUNSTALL
    // phase: setup
    const uint32_t block = blockIdx.x / product.block_ctas;
    constexpr uint32_t JOB_WORDS = sizeof(Job) / 4;
    if (threadIdx.x < JOB_WORDS) ((uint32_t *)jobs)[threadIdx.x] = __ldg((const uint32_t *)(product.launch.jobs + block) + threadIdx.x);
    const Job &job = *jobs;
    const Shared shared = {x, words, table, partial};
    __syncthreads();
    const uint32_t row = job.begin + blockIdx.x % product.block_ctas * product.cta_rows; // of the block
    if (row >= job.end) return;
    if (job.join == CODE_TUNSTALL) {
        TunstallTable::load(product.launch, job, table);
        __syncthreads();
        TunstallTable::make_words<MaskForm>(table, words);
    } else if (job.join == CODE_TRITS) {
        ((uint16_t *)table)[threadIdx.x] = (uint16_t)Trits::digits(threadIdx.x);
    }
    __syncthreads();
    const uint32_t rows = min(job.end - row, product.cta_rows);
    uint32_t status = BAD_LENGTH;
    if (planes_fit(job, threadIdx.x & 31)) {
        // phase: several vectors, 0, 0
        if (product.columns > SHARED_X) status = multiply<1, false>(product, job, shared, row, rows);
        else if (product.batch > 2 && product.columns <= SHARED_X / 4) status = multiply<4, true>(product, job, shared, row, rows);
        else if (product.batch > 1 && product.columns <= SHARED_X / 2) status = multiply<2, true>(product, job, shared, row, rows);
        // phase: end
        else status = multiply<1, true>(product, job, shared, row, rows);
    }
    if ((threadIdx.x & 31) == 0) report(product.launch, job, status);
}
