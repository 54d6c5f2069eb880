// Y = W X for vectors by fours: see matvec.cuh.
#include "matvec.cuh"

constexpr int VECTORS = 4;

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) cmz_matmat(const Product product) {
    CMZ_SHARED_ARRAY(float, partial, PRODUCT_WARPS * PRODUCT_ROWS * VECTORS);
    // elements: 1024
    // cases: LINEAR_HALF, 4
    multiply_any<VECTORS>(product, partial);
}
