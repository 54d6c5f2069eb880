// y = W x, with BF16 weights and sums in F32: one thread block a row. What a transformer layer does round its products is done here
// too: RMS norm of x before, a gate (relu(W x) times G x) or the residual after. Each sum is taken in one order, that of the
// thread's columns and then of a tree, so equal weights give equal bits.
#include <math.h>

#include "device.cuh"

constexpr uint32_t MATVEC_THREADS = 128;

DEVICE float from_bf16(uint16_t bits) { return __uint_as_float((uint32_t)bits << 16); }

// Sum over the threads of the block, for all of them.
DEVICE float block_sum(float value, float *sums) {
    __syncthreads();
    sums[threadIdx.x] = value;
    for (uint32_t half = MATVEC_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

// norm (columns), gate (as weights) and residual (rows) may be null.
extern "C" __global__ void __launch_bounds__(MATVEC_THREADS)
    example_matvec(const uint16_t *weights, const uint16_t *gate, const uint16_t *norm, const float *x, const float *residual,
                   float *y, uint32_t columns) {
    CMZ_SHARED_ARRAY(float, sums, MATVEC_THREADS);
    const uint64_t row = (uint64_t)blockIdx.x * columns;
    float squares = 0, product = 0, gated = 0;
    for (uint32_t i = threadIdx.x; i < columns; i += MATVEC_THREADS) {
        const float value = norm ? x[i] * from_bf16(norm[i]) : x[i];
        squares = fmaf(x[i], x[i], squares);
        product = fmaf(from_bf16(weights[row + i]), value, product);
        if (gate) gated = fmaf(from_bf16(gate[row + i]), value, gated);
    }
    float result = block_sum(product, sums);
    // The norm's factor is the same for all columns, so it comes after the sum.
    const float scale = norm ? 1 / sqrtf(block_sum(squares, sums) / (float)columns + 1e-5f) : 1;
    result *= scale;
    if (gate) result = fmaxf(result, 0) * (block_sum(gated, sums) * scale);
    if (residual) result += residual[blockIdx.x];
    if (threadIdx.x == 0) y[blockIdx.x] = result;
}
