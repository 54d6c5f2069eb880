// Codes times the scales of their groups: the steps of SPEC.md, each rounded as it says. The first plane is the codes, the others
// are scales, and zero points or biases. A warp decodes a tile of 4096 elements, a lane 8 at a time; where these are of one
// group whose numbers are finite, all results of single precision are numbers, and nothing is checked element by element. That no code or zero point has
// bits above its width is seen to by who made it: the host, or the kernel of its codec.
#include "groups.cuh"

// What is done with a code before or after it is multiplied.
enum Shift : uint8_t { MIDDLE = 0, ZERO_POINT = 1, BIAS = 2, ZERO = 3 };

// What each step is rounded to.
enum Steps : uint8_t { SINGLE_STEPS = 0, HALF_STEPS = 1 };

// The job's table. As on the host: parameters.rs.
struct Affine {
    Groups groups;
    uint32_t count; // of groups
    uint8_t element, scale; // FloatKind
    uint8_t shift;          // Shift
    uint8_t bits : 4;
    uint8_t half : 4; // Steps
};
static_assert(sizeof(Affine) == 48, "as on the host");

// A code c with 2^23 + c as single precision has it, from which 2^23 + z is taken exactly: c - z without a conversion.
constexpr uint32_t MAGIC = 0x4b000000;

template <bool HALF> DEVICE float rounded(float x) { return HALF ? round_to_half(x) : x; }

template <bool HALF> struct Group {
    float magic;       // 2^23 + what is taken from a code exactly
    float minus, bias; // what is added before and after: -0 where nothing is, which changes no number, not even -0
    float scale;

    DEVICE float value(uint32_t code) const {
        const float difference = rounded<HALF>(add_rounded(__uint_as_float(MAGIC | code) - magic, minus));
        return rounded<HALF>(add_rounded(rounded<HALF>(multiply_rounded(difference, scale)), bias));
    }
    DEVICE bool finite() const { return is_finite(scale) && is_finite(bias) && is_finite(minus); }
};

struct AffineTile {
    const Launch &launch;
    const Job &job;
    const Affine &affine;

    DEVICE bool fits() const {
        return plane_fits(job.first, job.elements) && plane_fits(job.others[0], affine.count) &&
               plane_fits(job.others[1], affine.count);
    }

    template <bool HALF> DEVICE float number(const Plane &plane, uint32_t i) const {
        return rounded<HALF>(load_float(address(launch, plane), affine.scale, i));
    }

    template <bool HALF> DEVICE Group<HALF> group_at(uint32_t i) const {
        uint32_t zero = 0;
        Group<HALF> group = {0, -0.0f, -0.0f, number<HALF>(job.others[0], i)};
        switch (affine.shift) {
        case MIDDLE: zero = 1u << (affine.bits - 1); break;
        case ZERO_POINT: zero = Codes(launch, job.others[1]).element(i); break;
        case BIAS: group.bias = number<HALF>(job.others[1], i); break;
        case ZERO: group.minus = -number<HALF>(job.others[1], i); break;
        default: break;
        }
        group.magic = __uint_as_float(MAGIC | zero);
        return group;
    }

    DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (affine.element) {
        case FLOAT_F16: return decode_as<FLOAT_F16>(first, elements, lane);
        case FLOAT_BF16: return decode_as<FLOAT_BF16>(first, elements, lane);
        case FLOAT_F32: return decode_as<FLOAT_F32>(first, elements, lane);
        }
    }

    template <uint8_t KIND> DEVICE void decode_as(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (affine.half) {
        case SINGLE_STEPS: return decode_by<KIND, false>(first, elements, lane);
        case HALF_STEPS: return decode_by<KIND, true>(first, elements, lane);
        default: return;
        }
    }

    template <uint8_t KIND, bool HALF> DEVICE void decode_by(uint32_t first, uint32_t elements, uint32_t lane) const {
        const Codes codes(launch, job.first);
        const FloatWriter writer(launch, job, KIND);
        const uint32_t mask = codes.mask();
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            uint2 symbols = codes.granule(element / GRANULE, count);
            GroupWalk walk(affine.groups, element);
            const bool one = count == GRANULE && walk.granule_in_group() && writer.whole(element);
            if (one) {
                const Group<HALF> group = group_at<HALF>(walk.group);
                if (HALF || group.finite()) {
                    uint32_t bits[GRANULE];
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) {
                        const float x = group.value(symbols.x & mask);
                        bits[j] = HALF ? float_bits(x, KIND) : KIND == FLOAT_F16 ? to_half(x) : KIND == FLOAT_BF16 ? to_bf16(x) : __float_as_uint(x);
                        codes.next(symbols);
                    }
                    writer.granule(element, bits);
                    continue;
                }
            }
            // phase: element by element, 0, 0
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                writer.element(element + j, float_bits(group_at<HALF>(walk.group).value(symbols.x & mask), KIND));
                codes.next(symbols);
                if (j + 1 < count) walk.next();
            }
            // phase: main, 16
        }
        // phase: end
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 4) cmz_affine(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(Affine, parameters, 1);
    // elements: 4096
    // cases: FLOAT_BF16, MIDDLE, SINGLE_STEPS
    assemble<AffineTile>(launch, jobs, parameters);
}
