// Symbols to 0 and the two numbers of their groups (SPEC.md). The first plane is the symbols, the others minima and maxima, which are
// brain floats. A warp decodes a tile of 4096 elements, a lane 8 at a time.
#include "groups.cuh"

// The job's table. As on the host: tables.rs.
struct Ternary {
    Groups groups;
    uint32_t count;  // of groups
    uint8_t element; // FloatKind
    uint8_t spare[3];
};
static_assert(sizeof(Ternary) == 48, "as on the host");

struct TernaryTile {
    const Launch &launch;
    const Job &job;
    const Ternary &ternary;
    uint32_t found; // symbols 3

    DEVICE TernaryTile(const Launch &launch, const Job &job, const Ternary &ternary)
        : launch(launch), job(job), ternary(ternary), found(0) {}

    DEVICE bool fits() const {
        return plane_fits(job.first, job.elements) && plane_fits(job.others[0], ternary.count) &&
               plane_fits(job.others[1], ternary.count);
    }

    // The bits of a group's number in the elements' type.
    template <uint8_t KIND> DEVICE uint32_t number(const Plane &plane, uint32_t group) const {
        const uint32_t bits = __ldg((const uint16_t *)address(launch, plane) + group);
        switch (KIND) {
        case FLOAT_F16: return float_bits(__uint_as_float(bits << 16), FLOAT_F16);
        case FLOAT_BF16: return bits;
        default: return bits << 16;
        }
    }

    // A number with the bits of `minimum` where the symbol is 1, of `maximum` where it is 2.
    DEVICE uint32_t choose(uint32_t symbol, uint32_t minimum, uint32_t maximum) {
        const uint32_t low = symbol & 1, high = symbol >> 1;
        found |= low & high;
        return (minimum & (0 - low)) | (maximum & (0 - high));
    }

    template <uint8_t KIND> DEVICE void decode(uint32_t first, uint32_t elements, uint32_t lane) {
        const Codes codes(launch, job.first);
        const FloatWriter writer(launch, job, KIND);
        const uint32_t mask = codes.mask();
        // phase: main, 16
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < elements; i += GROUP) {
            const uint32_t element = first + i, count = min(elements - i, GRANULE);
            uint2 symbols = codes.granule(element / GRANULE, count);
            GroupWalk walk(ternary.groups, element);
            if (count == GRANULE && walk.granule_in_group() && writer.whole(element)) {
                const uint32_t minimum = number<KIND>(job.others[0], walk.group), maximum = number<KIND>(job.others[1], walk.group);
                uint32_t bits[GRANULE];
#pragma unroll
                for (uint32_t j = 0; j < GRANULE; j++) {
                    bits[j] = choose(symbols.x & mask, minimum, maximum);
                    codes.next(symbols);
                }
                writer.granule(element, bits);
                continue;
            }
            // phase: element by element, 0, 0
#pragma unroll 1
            for (uint32_t j = 0; j < count; j++) {
                const uint32_t minimum = number<KIND>(job.others[0], walk.group), maximum = number<KIND>(job.others[1], walk.group);
                writer.element(element + j, choose(symbols.x & mask, minimum, maximum));
                codes.next(symbols);
                if (j + 1 < count) walk.next();
            }
            // phase: main, 16
        }
        // phase: end
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) cmz_ternary(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(Ternary, parameters, 1);
    // elements: 4096
    // cases: FLOAT_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    load_parameters(launch, job, parameters);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, tile = span.tile + (threadIdx.x >> 5);
    const uint32_t first = tile << job.tile_log;
    if (first >= job.elements) return;
    const uint32_t elements = min(job.elements - first, 1u << job.tile_log);
    TernaryTile ternary(launch, job, *parameters);
    uint32_t status = BAD_LENGTH;
    if (ternary.fits()) {
        switch (parameters->element) {
        case FLOAT_F16: ternary.decode<FLOAT_F16>(first, elements, lane); break;
        case FLOAT_BF16: ternary.decode<FLOAT_BF16>(first, elements, lane); break;
        case FLOAT_F32: ternary.decode<FLOAT_F32>(first, elements, lane); break;
        default: break;
        }
        status = __any_sync(FULL_WARP, ternary.found != 0) ? BAD_SYMBOL : OK;
    }
    if (lane == 0) report(launch, job, status);
    // phase: end
}
