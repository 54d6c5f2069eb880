// Codes that can be read at any index, and the groups that they lie in: what the kernels of quantized arrays share. A granule is 8
// consecutive elements, which one lane decodes at a time.
#pragma once
#include "floats.cuh"
#include "job.cuh"

// Divides n < 2^32 - 1 by d, for `reciprocal` = (2^64 - 1) / d, rounded down: with n + 1 instead of n the product is never too small,
// and too large by less than what would matter.
DEVICE uint32_t divide(uint32_t n, uint64_t reciprocal) {
    const uint64_t low = (uint64_t)(n + 1) * (uint32_t)reciprocal, high = (uint64_t)(n + 1) * (uint32_t)(reciprocal >> 32);
    return (uint32_t)((high + (low >> 32)) >> 32);
}

// Walks over elements of an array, in order.
struct GroupWalk {
    const Groups &groups;
    uint32_t band, row, column, group_row, group, in_group;

    DEVICE GroupWalk(const Groups &groups, uint32_t element) : groups(groups) {
        row = divide(element, groups.by_row);
        column = element - row * groups.row;
        begin_row();
    }
    DEVICE void begin_row() {
        band = row;
        // phase: groups of several rows, 0, 0
        if (groups.rows != 1) band = divide(row, groups.by_rows);
        // phase: end
        uint32_t g = 0;
        if (groups.of_row != 1) g = divide(column, groups.by_columns);
        in_group = column - g * groups.columns;
        group = band * groups.of_row + g;
    }
    // Whether this element and the 7 behind it are of one group and one row.
    DEVICE bool granule_in_group() const {
        return column + GRANULE <= groups.row && in_group + GRANULE <= groups.columns;
    }
    DEVICE void next() {
        if (++column == groups.row) {
            column = 0;
            row++;
            begin_row();
        } else if (++in_group == groups.columns) {
            in_group = 0;
            group++;
        }
    }
};

// Symbols of at most 8 bits, packed, one to a byte, or all the same.
struct Codes {
    const uint8_t *data;
    uint32_t stride, constant;

    DEVICE Codes(const Launch &launch, const Plane &plane)
        : data(address(launch, plane)), stride(plane.stride), constant(plane.constant) {}
    DEVICE Codes(const uint8_t *data, uint32_t stride) : data(data), stride(stride), constant(0) {}

    DEVICE uint32_t mask() const { return stride == 0 ? 0xff : (1u << stride) - 1; }

    // The first `count` symbols of granule g, the first one lowest, `stride` bits each. Reads the words that hold them.
    DEVICE uint2 granule(uint32_t g, uint32_t count) const {
        if (stride == 0) return make_uint2(constant, 0);
        const uint64_t at = (uint64_t)g * stride;
        const uint32_t shift = 8 * (at & 3), bits = shift + ((count * stride + 7) & ~7u);
        const uint32_t *words = (const uint32_t *)(data + (at & ~3ull));
        const uint32_t w0 = __ldg(words), w1 = bits > 32 ? __ldg(words + 1) : 0, w2 = bits > 64 ? __ldg(words + 2) : 0;
        return make_uint2(__funnelshift_r(w0, w1, shift), __funnelshift_r(w1, w2, shift));
    }
    // Moves the next symbol of a granule to the lowest bits.
    DEVICE void next(uint2 &symbols) const {
        symbols.x = __funnelshift_r(symbols.x, symbols.y, stride);
        symbols.y >>= stride;
    }
    DEVICE uint32_t element(uint32_t i) const {
        if (stride == 0) return constant;
        const uint64_t bit = (uint64_t)i * stride;
        const uint8_t *const at = data + (bit >> 3);
        const uint32_t shift = bit & 7, high = shift + stride > 8 ? __ldg(at + 1) : 0;
        return (__ldg(at) | high << 8) >> shift & mask();
    }
};

// Whether a plane of `elements` symbols or numbers is as long as it says.
DEVICE bool plane_fits(const Plane &plane, uint64_t elements) { return elements * plane.stride <= (uint64_t)plane.length * 8; }

// Writes elements of a type of 8, 16 or 32 bits.
struct FloatWriter {
    uint8_t *out;
    uint32_t begin, end; // of the elements that are wanted
    uint8_t kind;
    bool aligned;

    DEVICE FloatWriter(const Launch &launch, const Job &job, uint8_t kind)
        : out(out_address(launch, job)), begin(job.begin), end(job.end), kind(kind), aligned(((uint64_t)out & 15) == 0) {}

    DEVICE bool whole(uint32_t element) const { return aligned && element >= begin && element + GRANULE <= end; }

    // Eight elements from `element` on, as bits of their type.
    DEVICE void granule(uint32_t element, const uint32_t (&bits)[GRANULE]) const {
        if (kind == FLOAT_F32) {
            uint4 *const to = (uint4 *)(out + 4 * (uint64_t)element);
            __stcs(to, make_uint4(bits[0], bits[1], bits[2], bits[3]));
            __stcs(to + 1, make_uint4(bits[4], bits[5], bits[6], bits[7]));
        } else if (float_bytes(kind) == 1) {
            const uint32_t low = byte_select(bits[0], bits[1], 0x5140), high = byte_select(bits[2], bits[3], 0x5140);
            const uint32_t low2 = byte_select(bits[4], bits[5], 0x5140), high2 = byte_select(bits[6], bits[7], 0x5140);
            __stcs((uint2 *)(out + element), make_uint2(byte_select(low, high, 0x5410), byte_select(low2, high2, 0x5410)));
        } else {
            __stcs((uint4 *)(out + 2 * (uint64_t)element),
                   make_uint4(byte_select(bits[0], bits[1], 0x5410), byte_select(bits[2], bits[3], 0x5410),
                              byte_select(bits[4], bits[5], 0x5410), byte_select(bits[6], bits[7], 0x5410)));
        }
    }
    // One element, if it is wanted.
    DEVICE void element(uint32_t element, uint32_t bits) const {
        if (element < begin || element >= end) return;
        uint8_t *const to = out + (uint64_t)float_bytes(kind) * element;
#pragma unroll 1
        for (uint32_t i = 0; i < float_bytes(kind); i++) to[i] = (uint8_t)(bits >> 8 * i);
    }
};

// Copies a structure of parameters from the job's table; the caller synchronises before and after.
template <class T> DEVICE void load_parameters(const Launch &launch, const Job &job, T *parameters) {
    constexpr uint32_t WORDS = sizeof(T) / 4;
    if (threadIdx.x < WORDS) {
        ((uint32_t *)parameters)[threadIdx.x] = __ldg((const uint32_t *)(launch.image + job.table) + threadIdx.x);
    }
}

// Decodes the tile of a warp of an array that is put together from planes. An Array is made of launch, job and parameters:
//
//   fits()                         whether its planes are as long as its elements need
//   decode(first, elements, lane)  writes these elements
template <class Array, class Parameters> DEVICE void assemble(const Launch &launch, Job *jobs, Parameters *parameters) {
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    load_parameters(launch, job, parameters);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, first = (span.tile + (threadIdx.x >> 5)) << job.tile_log;
    if (first >= job.elements) return;
    const Array array{launch, job, *parameters};
    if (array.fits()) array.decode(first, min(job.elements - first, 1u << job.tile_log), lane);
    else if (lane == 0) report(launch, job, BAD_LENGTH);
    // phase: end
}
