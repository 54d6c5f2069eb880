// CRC-32 of decoded bytes (SPEC.md §1.4), one thread block a job: `out` and `elements` say which bytes, `table` what their
// checksum must be. Each thread sums a run of the bytes; a sum is moved over the bytes behind it by multiplying with a power of x
// (M. Adler, crc32_combine of zlib).
#include "job.cuh"

constexpr uint32_t POLYNOMIAL = 0xEDB88320u; // reflected: bit 31 is x^0

// a times b modulo the polynomial.
DEVICE uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
#pragma unroll 1
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

// x to the power of 8 n.
DEVICE uint32_t power(uint32_t n) {
    uint32_t result = 1u << 31, square = 1u << 23;
#pragma unroll 1
    for (; n != 0; n >>= 1) {
        if (n & 1) result = multiply(result, square);
        square = multiply(square, square);
    }
    return result;
}

extern "C" __global__ void __launch_bounds__(THREADS) cmz_crc32(const Launch launch) {
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    CMZ_SHARED_ARRAY(uint32_t, table, 256);
    CMZ_SHARED_ARRAY(uint32_t, sum, 1);
    load_job(launch, jobs);
    uint32_t entry = threadIdx.x;
    for (int bit = 0; bit < 8; bit++) entry = entry & 1 ? entry >> 1 ^ POLYNOMIAL : entry >> 1;
    table[threadIdx.x] = entry;
    if (threadIdx.x == 0) *sum = 0;
    __syncthreads();
    const Job &job = *jobs;
    const uint8_t *bytes = out_address(launch, job);
    const uint32_t share = (job.elements + THREADS - 1) / THREADS;
    const uint32_t begin = min(threadIdx.x * share, job.elements), end = min(begin + share, job.elements);
    // The first thread carries the initial value.
    uint32_t crc = threadIdx.x == 0 ? ~0u : 0;
#pragma unroll 1
    for (uint32_t i = begin; i < end; i++) crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
    atomicXor(sum, multiply(crc, power(job.elements - end)));
    __syncthreads();
    if (threadIdx.x == 0) report(launch, job, ~*sum == (uint32_t)job.table ? OK : BAD_CHECKSUM);
}
