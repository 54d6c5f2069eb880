// Indices to the entries of their groups' tables (SPEC.md). The first plane is the indices, the others the tables, or alphas and
// biases. A warp decodes a tile of 4096 elements, a lane 8 at a time. Entries are put together in shared memory first, in the
// elements' type, where all of the block have room there; else each is made when it is met.
#include "groups.cuh"

// Where entries come from.
enum Form : uint8_t { TABLE = 0, BINARY = 1 };

// The job's table. As on the host: parameters.rs.
struct Codebook {
    Groups groups;           // of indices
    uint64_t by_row, by_dim; // for `divide`
    uint32_t row;            // elements of a row
    uint32_t vectors_row;    // indices of a row
    uint32_t dim;            // elements of an entry
    uint32_t vectors;        // indices
    uint32_t count;          // of groups
    uint32_t numbers;        // of tables, or alphas
    uint8_t element, table;  // FloatKind
    uint8_t bits;            // of an index
    uint8_t form;            // Form
    uint32_t entries;        // numbers of all entries
};
static_assert(sizeof(Codebook) == 88, "as on the host");

// Numbers of entries that have room in shared memory.
constexpr uint32_t SHARED_ENTRIES = 1024;

// Walks over elements, in order, and the indices that they belong to.
struct VectorWalk {
    const Codebook &codebook;
    uint32_t left, within, vector; // elements left of the row, number within the entry, index
    GroupWalk walk;

    static DEVICE uint32_t row_of(const Codebook &codebook, uint32_t element) { return divide(element, codebook.by_row); }
    static DEVICE uint32_t vector_of(const Codebook &codebook, uint32_t row, uint32_t column) {
        return row * codebook.vectors_row + divide(column, codebook.by_dim);
    }
    DEVICE VectorWalk(const Codebook &codebook, uint32_t element, uint32_t row)
        : VectorWalk(codebook, element - row * codebook.row, vector_of(codebook, row, element - row * codebook.row), row) {}
    DEVICE VectorWalk(const Codebook &codebook, uint32_t column, uint32_t vector, uint32_t row)
        : codebook(codebook), left(codebook.row - column),
          within(column - (vector - row * codebook.vectors_row) * codebook.dim), vector(vector), walk(codebook.groups, vector) {}
    DEVICE void next() {
        within++;
        if (--left == 0) left = codebook.row;
        else if (within < codebook.dim) return;
        within = 0;
        vector++;
        walk.next();
    }
};

struct CodebookTile {
    const Launch &launch;
    const Job &job;
    const Codebook &codebook;
    uint32_t *entries; // in shared memory

    DEVICE bool fits() const {
        return plane_fits(job.first, codebook.vectors) && plane_fits(job.others[0], codebook.numbers) &&
               (codebook.form == TABLE || plane_fits(job.others[1], codebook.count));
    }
    DEVICE bool shared() const { return codebook.entries <= SHARED_ENTRIES; }

    // Number i of all entries, those of a group behind each other.
    DEVICE float number(uint32_t i) const {
        const uint8_t *const numbers = address(launch, job.others[0]);
        if (codebook.form == TABLE) return load_number(numbers, codebook.table, i);
        const uint32_t group = i >> codebook.bits, at = group * codebook.bits;
        float sum = 0;
#pragma unroll 1
        for (uint32_t bit = 0; bit < codebook.bits; bit++) {
            const float alpha = load_number(numbers, codebook.table, at + bit), term = i >> bit & 1 ? alpha : -alpha;
            sum = bit == 0 ? term : add_rounded(sum, term);
        }
        return add_rounded(sum, load_number(address(launch, job.others[1]), codebook.table, group));
    }
    DEVICE void share() const {
        for (uint32_t i = threadIdx.x; i < codebook.entries; i += THREADS) entries[i] = number_bits(number(i), codebook.element);
    }
    template <bool SHARED> DEVICE uint32_t bits_of(uint32_t i) const {
        return SHARED ? entries[i] : number_bits(number(i), codebook.element);
    }

    template <bool SHARED> DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) const {
        const Codes codes(launch, job.first);
        const FloatWriter writer(launch, job, codebook.element);
        const uint32_t mask = (1u << codebook.bits) - 1;
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            if (codebook.dim == 1 && count == GRANULE && writer.whole(element)) {
                const GroupWalk walk(codebook.groups, element);
                if (walk.granule_in_group()) {
                    uint2 symbols = codes.granule(element / GRANULE, GRANULE);
                    uint32_t bits[GRANULE];
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) {
                        bits[j] = bits_of<SHARED>((walk.group << codebook.bits) + (symbols.x & mask));
                        codes.next(symbols);
                    }
                    writer.granule(element, bits);
                    continue;
                }
            }
            // phase: element by element, 0, 0
            VectorWalk walk(codebook, element, VectorWalk::row_of(codebook, element));
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                const uint32_t entry = (walk.walk.group << codebook.bits) + (codes.element(walk.vector) & mask);
                writer.element(element + j, bits_of<SHARED>(entry * codebook.dim + walk.within));
                if (j + 1 < count) walk.next();
            }
            // phase: main, 16
        }
        // phase: end
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_codebook(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(Codebook, parameters, 1);
    CMZ_SHARED_ARRAY(uint32_t, entries, SHARED_ENTRIES);
    // elements: 4096
    // cases: FLOAT_F16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    load_parameters(launch, job, parameters);
    __syncthreads();
    const CodebookTile looked_up{launch, job, *parameters, entries};
    const bool fits = looked_up.fits();
    if (fits && looked_up.shared()) looked_up.share();
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, tile = span.tile + (threadIdx.x >> 5);
    const uint32_t first = tile << job.tile_log;
    if (first >= job.elements) return;
    const uint32_t elements = min(job.elements - first, 1u << job.tile_log);
    if (!fits) {
        if (lane == 0) report(launch, job, BAD_LENGTH);
        return;
    }
    if (looked_up.shared()) {
        looked_up.decode<true>(first, elements, lane);
    } else {
        // phase: large tables, 0, 0
        looked_up.decode<false>(first, elements, lane);
    }
    // phase: end
}
