// y = W x for one vector: see matvec.cuh.
#include "matvec.cuh"

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 8) cmz_matvec(const Product product) {
    CMZ_SHARED_ARRAY(float, partial, PRODUCT_WARPS * PRODUCT_ROWS);
    // elements: 1024
    // cases: LINEAR_HALF, 4
    multiply_any<1>(product, partial);
}
