// Y = W X for vectors by fours and a matrix of codebooks: see matvec.cuh.
#include "matvec.cuh"

constexpr int VECTORS = 4;

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) cmz_matmat_tables(const Product product) {
    CMZ_SHARED_ARRAY(float, partial, PRODUCT_WARPS * PRODUCT_ROWS * VECTORS);
    CMZ_SHARED_ARRAY(float, tables, PRODUCT_ROWS * 256);
    // elements: 1024
    // cases: ROW_TABLES, 4
    multiply_indices<VECTORS>(product, partial, tables);
}
