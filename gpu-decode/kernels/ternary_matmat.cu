// Y = W X for vectors by fours, and ternary W that stays compressed: see ternary_product.cuh.
#include "ternary_product.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 2) cmz_ternary_matmat(const TernaryProduct product) {
    PRODUCT_TABLES(tables);
    // elements: 8192
    // cases: CODE_TUNSTALL
    multiply_compressed<4>(product, tables);
}
