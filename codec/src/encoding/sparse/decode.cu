// Values to their places (SPEC.md), in an array that an earlier step has put into the output: its base, or zeros. The first plane is the
// index: a bitmap, distances or positions; the other one the values. A warp takes 4096 bits, some pieces of rows or some runs; the
// host has counted the values before each tile of bits or piece, so that all of them are independent, and has checked what is
// told by the number of values. The lanes of a warp share a bitmap's words, or 32 distances of a piece; a lane has a run for itself.
#include "groups.cuh"

enum Mode : uint8_t { REPLACE = 0, ADD = 1, ADD_HALF = 2 };
enum Index : uint8_t { BITMAP = 0, ROWS = 1, N_OF_M = 2 };

// The job's table; what the host has counted follows. As on the host: parameters.rs. A unit is an element, a piece of a row or a run.
struct Sparse {
    uint64_t by_units;       // for `divide`
    uint32_t row;            // elements of a row
    uint32_t units_of_row;
    uint32_t unit;           // elements of a unit
    uint32_t elements;
    uint32_t begin, end;     // elements that are wanted
    uint32_t count;          // of values
    uint32_t of_row;         // values of a row: N_OF_M
    uint32_t of_unit;        // values of a unit, at most: N_OF_M
    uint8_t element, values; // FloatKind
    uint8_t mode;            // Mode
    uint8_t index;           // Index
};
static_assert(sizeof(Sparse) == 48, "as on the host");

// Symbols of up to 16 bits.
struct WideCodes {
    const uint32_t *words;
    uint32_t stride, constant;

    DEVICE WideCodes(const Launch &launch, const Plane &plane)
        : words((const uint32_t *)address(launch, plane)), stride(plane.stride), constant(plane.constant) {}
    DEVICE uint32_t element(uint32_t i) const {
        if (stride == 0) return constant;
        const uint64_t bit = (uint64_t)i * stride;
        const uint32_t shift = bit & 31, low = __ldg(words + (bit >> 5));
        const uint32_t high = shift + stride > 32 ? __ldg(words + (bit >> 5) + 1) : 0;
        return __funnelshift_r(low, high, shift) & ((1u << stride) - 1);
    }
};

// A piece of a row, or a run.
struct Unit {
    uint32_t row, number, start, end;

    DEVICE Unit(const Sparse &sparse, uint32_t i) {
        row = divide(i, sparse.by_units);
        number = i - row * sparse.units_of_row;
        start = row * sparse.row + number * sparse.unit;
        end = min(min(start + sparse.unit, (row + 1) * sparse.row), sparse.elements);
    }
};

struct SparseTile {
    const Launch &launch;
    const Job &job;
    const Sparse &sparse;
    const uint32_t *told;
    uint32_t status;

    DEVICE SparseTile(const Launch &launch, const Job &job, const Sparse &sparse)
        : launch(launch), job(job), sparse(sparse),
          told((const uint32_t *)(launch.image + job.table + sizeof(Sparse))), status(OK) {}

    DEVICE bool fits() const {
        const uint32_t symbols = sparse.index == BITMAP ? (sparse.elements + 7) / 8 : sparse.count;
        return plane_fits(job.first, symbols) && plane_fits(job.others[0], sparse.count);
    }

    // Value k to its place.
    DEVICE void put(uint32_t place, uint32_t k) {
        if (k >= sparse.count) {
            status = BAD_LENGTH;
            return;
        }
        if (place < sparse.begin || place >= sparse.end) return;
        float x = load_number(address(launch, job.others[0]), sparse.values, k);
        uint8_t *const at = out_address(launch, job) + (uint64_t)float_bytes(sparse.element) * place;
        if (sparse.mode != REPLACE) {
            uint32_t bits = 0;
#pragma unroll 1
            for (uint32_t i = 0; i < float_bytes(sparse.element); i++) bits |= (uint32_t)at[i] << 8 * i;
            const float base = number_of(bits, sparse.element);
            x = sparse.mode == ADD ? add_rounded(base, x)
                                   : round_to_half(add_rounded(round_to_half(base), round_to_half(x)));
        }
        const uint32_t bits = number_bits(x, sparse.element);
#pragma unroll 1
        for (uint32_t i = 0; i < float_bytes(sparse.element); i++) at[i] = (uint8_t)(bits >> 8 * i);
    }

    // Word i of the bitmap, without what is behind the last element.
    DEVICE uint32_t word(uint32_t i) const {
        if ((uint64_t)i * 32 >= sparse.elements) return 0;
        const uint32_t left = sparse.elements - i * 32;
        const uint32_t bits = job.first.stride == 0 ? job.first.constant * 0x01010101u
                                                    : __ldg((const uint32_t *)address(launch, job.first) + i);
        return left < 32 ? bits & ((1u << left) - 1) : bits;
    }

    DEVICE void bitmap(uint32_t tile, uint32_t lane) {
        constexpr uint32_t WORDS = 4;
        const uint32_t first = tile * (32 * WORDS) + lane * WORDS;
        uint32_t words[WORDS], mine = 0, total;
#pragma unroll
        for (uint32_t j = 0; j < WORDS; j++) mine += __popc(words[j] = word(first + j));
        uint32_t k = __ldg(told + tile) + exclusive_sum(mine, total);
#pragma unroll
        for (uint32_t j = 0; j < WORDS; j++) {
            // phase: values, 0.32
#pragma unroll 1
            for (uint32_t bits = words[j]; bits != 0; bits &= bits - 1) put((first + j) * 32 + __ffs(bits) - 1, k++);
            // phase: bitmap, 1
        }
    }

    DEVICE void rows(uint32_t begin, uint32_t end, uint32_t lane) {
        const WideCodes deltas(launch, job.first);
#pragma unroll 1
        for (uint32_t i = begin; i < end; i++) {
            const Unit piece(sparse, i);
            const uint32_t last = __ldg(told + i + 1);
            uint32_t next = piece.start;
#pragma unroll 1
            for (uint32_t from = __ldg(told + i); from < last; from += 32) {
                const uint32_t k = from + lane, step = k < last ? deltas.element(k) + 1 : 0;
                uint32_t total;
                const uint32_t behind = next + exclusive_sum(step, total) + step;
                if (step != 0 && behind > piece.end) status = BAD_PLACE;
                else if (step != 0) put(behind - 1, k);
                next += total;
            }
        }
    }

    DEVICE void runs(uint32_t begin, uint32_t end, uint32_t lane) {
        const Codes positions(launch, job.first);
#pragma unroll 1
        for (uint32_t i = begin + lane; i < end; i += 32) {
            const Unit run(sparse, i);
            const uint32_t first = run.row * sparse.of_row + run.number * sparse.of_unit, length = run.end - run.start;
            uint32_t next = 0;
#pragma unroll 1
            for (uint32_t j = 0; j < min(sparse.of_unit, length); j++) {
                const uint32_t position = positions.element(first + j);
                if (position < next || position >= length) {
                    status = BAD_PLACE;
                    break;
                }
                put(run.start + position, first + j);
                next = position + 1;
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_sparse(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(Sparse, parameters, 1);
    // elements: 4096
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    load_parameters(launch, job, parameters);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, tile = span.tile + (threadIdx.x >> 5);
    const uint32_t begin = tile << job.tile_log;
    if (begin >= job.elements) return;
    const uint32_t end = begin + min(job.elements - begin, 1u << job.tile_log);
    SparseTile sparse(launch, job, *parameters);
    if (!sparse.fits()) {
        sparse.status = BAD_LENGTH;
    } else if (parameters->index == BITMAP) {
        // phase: bitmap, 1
        sparse.bitmap(tile, lane);
    } else if (parameters->index == ROWS) {
        // phase: rows, 0, 0
        sparse.rows(begin, end, lane);
    } else {
        // phase: runs, 0, 0
        sparse.runs(begin, end, lane);
    }
    // phase: end
    report(launch, job, sparse.status);
}
