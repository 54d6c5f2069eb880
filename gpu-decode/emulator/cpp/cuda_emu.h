// CUDA C++ kernels on the CPU, for tests. What a kernel sees of CUDA is declared here; a kernel source is compiled
// as C++17 behind this header:
//
//     #include "cuda_emu.h"
//     #include "decode.cu"
//     EMU_KERNEL(cmz_tiered)
//
// One OS thread runs one CTA at a time, and every CUDA thread of it is a fiber on that OS thread (engine.cpp).
// Not covered: tensor cores, TMA and mbarrier, clusters, cooperative groups, textures, floating-point intrinsics.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define CMZ_EMU 1

// ---- the language -----------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__ static
// One OS thread runs one CTA, so a thread-local variable is shared by the CTA and by nobody else. Sanitizers do
// not see accesses beyond it; CMZ_SHARED_ARRAY below is the form they do see.
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};
struct alignas(4) ushort2 {
    unsigned short x, y;
};
struct alignas(8) ushort4 {
    unsigned short x, y, z, w;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline uchar4 make_uchar4(uint8_t x, uint8_t y, uint8_t z, uint8_t w) { return {x, y, z, w}; }
static inline ushort2 make_ushort2(uint16_t x, uint16_t y) { return {x, y}; }
static inline ushort4 make_ushort4(uint16_t x, uint16_t y, uint16_t z, uint16_t w) { return {x, y, z, w}; }

// ---- the engine (engine.cpp, launch.cpp) --------------------------------------------------------------------------

extern "C" {
// What a CUDA thread knows of itself.
struct EmuThread {
    uint3 thread_index;
    uint3 block_index;
    unsigned lane;
    unsigned warp;
};
struct EmuLaunch {
    dim3 grid;
    dim3 block;
    unsigned shared_bytes;
};
extern __thread EmuThread *emu_cur;
extern __thread const EmuLaunch *emu_current_launch;

enum EmuOperation {
    EMU_SYNCWARP = 1,
    EMU_BALLOT,
    EMU_SHUFFLE,
    EMU_MATCH_ANY,
    EMU_MATCH_ALL,
    EMU_ADD,
    EMU_MIN,
    EMU_MAX,
    EMU_AND,
    EMU_OR,
    EMU_XOR
};
enum EmuReduction { EMU_PLAIN = 0, EMU_COUNT, EMU_ALL, EMU_ANY };

uint64_t emu_collective(int operation, uint32_t mask, uint64_t value, uint32_t source_lane);
uint32_t emu_syncthreads(int reduction, uint32_t predicate);
void *emu_shared(const void *tag, size_t bytes, size_t alignment);
void *emu_dynamic_shared();
void emu_cp_async(void *shared, const void *global, unsigned bytes);
void emu_cp_commit();
void emu_cp_wait(unsigned groups_left);
void emu_yield();
[[noreturn]] void emu_fail(const char *message);

typedef void (*EmuEntry)(void **arguments);
void emu_register(const char *name, EmuEntry entry, unsigned parameters, const unsigned *sizes);
}

#define threadIdx (emu_cur->thread_index)
#define blockIdx (emu_cur->block_index)
#define blockDim (emu_current_launch->block)
#define gridDim (emu_current_launch->grid)
#define warpSize 32

// Shared memory as kernels should declare it: a heap block here, so that AddressSanitizer sees its bounds, and
// poisoned before each CTA.
#define CMZ_SHARED_ARRAY(T, name, n)   \
    static const char name##_tag = 0;  \
    T *const name = static_cast<T *>(emu_shared(&name##_tag, sizeof(T) * (n), alignof(T) > 16 ? alignof(T) : 16))
#define CMZ_DYN_SHARED(T, name) T *const name = static_cast<T *>(emu_dynamic_shared())

// ---- barriers, votes, shuffles ------------------------------------------------------------------------------------

static inline void __syncthreads() { emu_syncthreads(EMU_PLAIN, 0); }
static inline int __syncthreads_count(int p) { return static_cast<int>(emu_syncthreads(EMU_COUNT, p != 0)); }
static inline int __syncthreads_and(int p) { return static_cast<int>(emu_syncthreads(EMU_ALL, p != 0)); }
static inline int __syncthreads_or(int p) { return static_cast<int>(emu_syncthreads(EMU_ANY, p != 0)); }

static inline void __syncwarp(unsigned mask = 0xffffffffu) { emu_collective(EMU_SYNCWARP, mask, 0, 0); }
static inline unsigned __ballot_sync(unsigned mask, int p) {
    return static_cast<unsigned>(emu_collective(EMU_BALLOT, mask, p != 0, 0));
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }
static inline unsigned __activemask() {
    emu_fail("__activemask() depends on timing: pass an explicit mask");
}

namespace emu {
template <class T> inline uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "at most 64 bits travel between lanes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return bits;
}
template <class T> inline T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof(T));
    return value;
}
template <class T> inline T shuffle(unsigned mask, T value, unsigned source_lane) {
    return from_bits<T>(emu_collective(EMU_SHUFFLE, mask, to_bits(value), source_lane));
}
// First lane of this lane's segment of `width` lanes.
static inline unsigned segment(int width) { return emu_cur->lane & ~(static_cast<unsigned>(width) - 1); }
}  // namespace emu

template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return emu::shuffle(mask, value, emu::segment(width) | (static_cast<unsigned>(source) & (width - 1)));
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emu_cur->lane;
    return emu::shuffle(mask, value, lane - emu::segment(width) >= delta ? lane - delta : lane);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = emu_cur->lane;
    const bool inside = lane - emu::segment(width) + delta < static_cast<unsigned>(width);
    return emu::shuffle(mask, value, inside ? lane + delta : lane);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const unsigned lane = emu_cur->lane;
    const unsigned partner = lane ^ static_cast<unsigned>(bits);
    // Lanes of later segments are out of reach; those of earlier ones are not (CUDA programming guide).
    const bool beyond = (partner & ~(static_cast<unsigned>(width) - 1)) > emu::segment(width);
    return emu::shuffle(mask, value, beyond ? lane : partner);
}
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
    return static_cast<unsigned>(emu_collective(EMU_MATCH_ANY, mask, emu::to_bits(value), 0));
}
template <class T> inline unsigned __match_all_sync(unsigned mask, T value, int *all) {
    const unsigned lanes = static_cast<unsigned>(emu_collective(EMU_MATCH_ALL, mask, emu::to_bits(value), 0));
    *all = lanes != 0;
    return lanes;
}

#define EMU_REDUCE(name, operation)                                                   \
    static inline unsigned name(unsigned mask, unsigned value) {                      \
        return static_cast<unsigned>(emu_collective(operation, mask, value, 0));      \
    }
EMU_REDUCE(__reduce_add_sync, EMU_ADD)
EMU_REDUCE(__reduce_min_sync, EMU_MIN)
EMU_REDUCE(__reduce_max_sync, EMU_MAX)
EMU_REDUCE(__reduce_and_sync, EMU_AND)
EMU_REDUCE(__reduce_or_sync, EMU_OR)
EMU_REDUCE(__reduce_xor_sync, EMU_XOR)
#undef EMU_REDUCE

// ---- integer intrinsics --------------------------------------------------------------------------------------------

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= ((x >> i) & 1u) << (31 - i);
    return reversed;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selectors) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned selector = selectors >> (4 * i) & 0xf;
        unsigned byte = bytes >> (8 * (selector & 7)) & 0xff;
        if (selector & 8) byte = byte & 0x80 ? 0xff : 0;  // replicates the sign
        result |= byte << (8 * i);
    }
    return result;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift) {
    shift &= 31;
    return shift ? hi << shift | lo >> (32 - shift) : hi;
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift) {
    shift &= 31;
    return shift ? hi << (32 - shift) | lo >> shift : lo;
}
static inline unsigned __funnelshift_lc(unsigned lo, unsigned hi, unsigned shift) {
    return shift >= 32 ? lo : __funnelshift_l(lo, hi, shift);
}
static inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned shift) {
    return shift >= 32 ? hi : __funnelshift_r(lo, hi, shift);
}
static inline float __uint_as_float(unsigned x) { return emu::from_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(emu::to_bits(x)); }
template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T value) { *p = value; }
template <class T> inline void __stcg(T *p, T value) { *p = value; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

// ---- atomics: CTAs run on different OS threads ------------------------------------------------------------------------

#define EMU_ATOMIC(name, builtin)                                        \
    template <class T, class U> inline T name(T *p, U value) {           \
        return builtin(p, static_cast<T>(value), __ATOMIC_RELAXED);      \
    }
EMU_ATOMIC(atomicAdd, __atomic_fetch_add)
EMU_ATOMIC(atomicSub, __atomic_fetch_sub)
EMU_ATOMIC(atomicAnd, __atomic_fetch_and)
EMU_ATOMIC(atomicOr, __atomic_fetch_or)
EMU_ATOMIC(atomicXor, __atomic_fetch_xor)
EMU_ATOMIC(atomicExch, __atomic_exchange_n)
#undef EMU_ATOMIC

template <class T, class U, class V> inline T atomicCAS(T *p, U compare, V value) {
    T expected = static_cast<T>(compare);
    __atomic_compare_exchange_n(p, &expected, static_cast<T>(value), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <class T, class U> inline T atomicMax(T *p, U value) {
    const T wanted = static_cast<T>(value);
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < wanted && !__atomic_compare_exchange_n(p, &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
template <class T, class U> inline T atomicMin(T *p, U value) {
    const T wanted = static_cast<T>(value);
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (wanted < old && !__atomic_compare_exchange_n(p, &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
// A loop that waits for another thread must call it: fibers are not preempted.
static inline void __nanosleep(unsigned) { emu_yield(); }
static inline void __threadfence() { __sync_synchronize(); }
static inline void __threadfence_block() { __sync_synchronize(); }

// ---- registration: unpacks cuLaunchKernel's void ** ---------------------------------------------------------------------

namespace emu {
template <class Function> struct Signature;
template <class... Parameters> struct Signature<void (*)(Parameters...)> {
    static constexpr unsigned count = sizeof...(Parameters);
    static const unsigned *sizes() {
        static const unsigned bytes[] = {static_cast<unsigned>(sizeof(Parameters))..., 0};
        return bytes;
    }
    template <void (*kernel)(Parameters...)> static void entry(void **arguments) {
        call<kernel>(arguments, std::index_sequence_for<Parameters...>());
    }
    template <void (*kernel)(Parameters...), size_t... index>
    static void call([[maybe_unused]] void **arguments, std::index_sequence<index...>) {
        kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<Parameters>> *>(arguments[index])...);
    }
};
}  // namespace emu

#define EMU_KERNEL(kernel)                                                                                  \
    static const bool emu_registered_##kernel = [] {                                                        \
        typedef emu::Signature<decltype(&kernel)> Signature;                                                \
        emu_register(#kernel, &Signature::template entry<&kernel>, Signature::count, Signature::sizes());   \
        return true;                                                                                        \
    }();
