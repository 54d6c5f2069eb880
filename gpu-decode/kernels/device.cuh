// What nvcc and the emulator (gpu-decode/emulator) spell differently.
#pragma once
#include <stdint.h>

#define FULL_WARP 0xffffffffu

#ifdef CMZ_EMU
#define DEVICE inline
// b where a bit of mask is set, else a.
DEVICE uint32_t bit_select(uint32_t a, uint32_t b, uint32_t mask) { return (a & ~mask) | (b & mask); }
// Bytes of b:a by the four low nibbles of selector, each 0 to 7.
DEVICE uint32_t byte_select(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector & 0xffff); }
DEVICE uint32_t keep_bits(uint32_t bits, uint32_t mask, uint32_t others) { return (bits & mask) | others; }
DEVICE void add_from_lane_below(uint32_t &sum, int distance) {
    const uint32_t other = __shfl_up_sync(FULL_WARP, sum, distance);
    if (emu_cur->lane >= (unsigned)distance) sum += other;
}
#else
#define DEVICE __device__ __forceinline__
#define CMZ_SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
// As PTX, because nvcc splits a bit select into two instructions, masks the selector of __byte_perm, and adds a select
// to each step of a scan.
DEVICE uint32_t bit_select(uint32_t a, uint32_t b, uint32_t mask) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xd8;" : "=r"(r) : "r"(a), "r"(b), "r"(mask));
    return r;
}
DEVICE uint32_t byte_select(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
    return r;
}
// The bits of a mask, with others added. In one instruction, which takes no two constants.
DEVICE uint32_t keep_bits(uint32_t bits, uint32_t mask, uint32_t others) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(bits), "r"(mask), "r"(others));
    return r;
}
DEVICE void add_from_lane_below(uint32_t &sum, int distance) {
    asm volatile("{ .reg .u32 other; .reg .pred inside;\n"
                 "shfl.sync.up.b32 other|inside, %0, %1, 0, 0xffffffff;\n"
                 "@inside add.u32 %0, %0, other; }"
                 : "+r"(sum)
                 : "r"(distance));
}
#endif

// Sum over the lanes below, and over all of them.
DEVICE uint32_t exclusive_sum(uint32_t value, uint32_t &total) {
    uint32_t sum = value;
#pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) add_from_lane_below(sum, distance);
    total = __shfl_sync(FULL_WARP, sum, 31);
    return sum - value;
}
