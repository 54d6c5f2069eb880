// Values times the scales of their groups, or divided by them (SPEC.md). The first plane is the values, the other one scales. A warp
// decodes a tile of 4096 elements, a lane 8 at a time.
#include "groups.cuh"

// What is done with a scale.
enum Sense : uint8_t { MULTIPLY = 0, DIVIDE = 1 };

// The job's table. As on the host: parameters.rs.
struct BlockScale {
    Groups groups;
    uint32_t count;                 // of groups
    uint8_t element, values, scale; // FloatKind
    uint8_t sense;                  // Sense
};
static_assert(sizeof(BlockScale) == 48, "as on the host");

struct BlockScaleTile {
    const Launch &launch;
    const Job &job;
    const BlockScale &scheme;

    DEVICE bool fits() const { return plane_fits(job.first, job.elements) && plane_fits(job.others[0], scheme.count); }

    DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) const {
        switch (scheme.element) {
        case FLOAT_F16: return decode_as<FLOAT_F16>(first, elements, lane);
        case FLOAT_BF16: return decode_as<FLOAT_BF16>(first, elements, lane);
        case FLOAT_F32: return decode_as<FLOAT_F32>(first, elements, lane);
        }
    }

    template <uint8_t KIND> DEVICE void decode_as(uint32_t first, uint32_t elements, uint32_t lane) const {
        const uint8_t *const values = address(launch, job.first), *const scales = address(launch, job.others[0]);
        const FloatWriter writer(launch, job, KIND);
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            GroupWalk walk(scheme.groups, element);
            if (count == GRANULE && walk.granule_in_group() && writer.whole(element)) {
                const float scale = load_number(scales, scheme.scale, walk.group);
                float x[GRANULE];
                load_eight(values, scheme.values, element / GRANULE, x);
                uint32_t bits[GRANULE];
                switch (scheme.sense) {
                case MULTIPLY:
#pragma unroll
                    for (uint32_t j = 0; j < GRANULE; j++) bits[j] = float_bits(multiply_rounded(x[j], scale), KIND);
                    break;
                default:
#pragma unroll 1
                    for (uint32_t j = 0; j < GRANULE; j++) writer.element(element + j, one(values, scale, element + j, KIND));
                    continue;
                }
                writer.granule(element, bits);
                continue;
            }
            // phase: element by element, 0, 0
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                const float scale = load_number(scales, scheme.scale, walk.group);
                writer.element(element + j, one(values, scale, element + j, KIND));
                if (j + 1 < count) walk.next();
            }
            // phase: main, 16
        }
        // phase: end
    }

    // The bits of one element.
    DEVICE uint32_t one(const uint8_t *values, float scale, uint32_t i, uint8_t kind) const {
        const float value = load_number(values, scheme.values, i);
        return float_bits(scheme.sense == DIVIDE ? divide_rounded(value, scale) : multiply_rounded(value, scale), kind);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_block_scale(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(BlockScale, parameters, 1);
    // elements: 4096
    // cases: FLOAT_BF16, FLOAT_F16, FLOAT_E8M0, MULTIPLY
    assemble<BlockScaleTile>(launch, jobs, parameters);
}
