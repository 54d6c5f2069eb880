// y = W x for one vector and a matrix of codebooks: see matvec.cuh.
#include "matvec.cuh"

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) cmz_matvec_tables(const Product product) {
    CMZ_SHARED_ARRAY(float, partial, PRODUCT_WARPS * PRODUCT_ROWS);
    CMZ_SHARED_ARRAY(float, tables, PRODUCT_ROWS * 256);
    // elements: 1024
    // cases: ROW_TABLES, 4
    multiply_indices<1>(product, partial, tables);
}
