// Attention of one token to `positions` cached ones, one thread block a head, one thread a dimension of it. Every sum is taken in
// one order.
#include <math.h>

#include "device.cuh"

constexpr uint32_t HEAD = 64;             // dimensions of a head
constexpr uint32_t MOST_POSITIONS = 1024; // of the cache

// query and out hold `width` floats; row p of keys and values is that of position p.
extern "C" __global__ void __launch_bounds__(HEAD)
    example_attention(const float *query, const float *keys, const float *values, float *out, uint32_t positions, uint32_t width) {
    CMZ_SHARED_ARRAY(float, weight, MOST_POSITIONS);
    const uint32_t head = blockIdx.x * HEAD;
    for (uint32_t p = threadIdx.x; p < positions; p += HEAD) {
        float score = 0;
        for (uint32_t i = 0; i < HEAD; i++) score = fmaf(query[head + i], keys[(uint64_t)p * width + head + i], score);
        weight[p] = score * 0.125f; // 1 / sqrt(HEAD)
    }
    __syncthreads();
    float most = weight[0];
    for (uint32_t p = 1; p < positions; p++) most = fmaxf(most, weight[p]);
    float total = 0, sum = 0;
    for (uint32_t p = 0; p < positions; p++) {
        const float e = expf(weight[p] - most);
        total += e;
        sum = fmaf(e, values[(uint64_t)p * width + head + threadIdx.x], sum);
    }
    out[head + threadIdx.x] = sum / total;
}
