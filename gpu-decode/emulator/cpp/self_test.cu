// Kernels of the emulator's own tests: some are right in every order, each of the others has one planted bug.

constexpr unsigned FULL = 0xffffffffu;

// ---- right -----------------------------------------------------------------------------------------------------------

// Exclusive prefix sums of 256 counts a CTA, and the total of all CTAs: shuffles, shared memory, a barrier, atomics.
extern "C" __global__ void self_scan(const uint32_t *in, uint32_t *out, uint32_t *total) {
    CMZ_SHARED_ARRAY(uint32_t, warp_sums, 8);
    const uint32_t thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const uint32_t value = in[blockIdx.x * 256 + thread];
    uint32_t sum = value;
    for (int distance = 1; distance < 32; distance <<= 1) {
        const uint32_t other = __shfl_up_sync(FULL, sum, distance);
        if (lane >= static_cast<uint32_t>(distance)) sum += other;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    uint32_t before = 0;
    for (uint32_t i = 0; i < warp; i++) before += warp_sums[i];
    out[blockIdx.x * 256 + thread] = before + sum - value;
    if (thread == 255) atomicAdd(total, before + sum);
}

// 16 words for each of 32 threads: what every warp primitive gives.
extern "C" __global__ void self_warp(uint32_t *out) {
    const uint32_t lane = threadIdx.x;
    uint32_t *o = out + 16 * lane;
    o[0] = __ballot_sync(FULL, lane % 3 == 0);
    o[1] = __any_sync(FULL, lane == 7);
    o[2] = __all_sync(FULL, lane < 31);
    o[3] = __shfl_sync(FULL, lane * 10, lane + 1, 8);
    o[4] = __shfl_down_sync(FULL, lane * 10, 3, 16);
    o[5] = __shfl_xor_sync(FULL, lane * 10, 5);
    o[6] = __match_any_sync(FULL, lane / 4);
    int all_equal = 0;
    o[7] = __match_all_sync(FULL, 42u, &all_equal) + (all_equal == 1);
    o[8] = __reduce_add_sync(FULL, lane);
    o[9] = __reduce_min_sync(FULL, lane + 3) << 16 | __reduce_max_sync(FULL, lane);
    o[10] = __reduce_xor_sync(FULL, 1u << lane) ^ __reduce_and_sync(FULL, ~(1u << lane)) ^ __reduce_or_sync(FULL, lane);
    o[11] = static_cast<uint32_t>(__shfl_sync(FULL, (1ull << 40) + lane, 9) >> 32) + __shfl_sync(FULL, 2ull + lane, 9);
    // A diverged warp: its halves, and then quarters, are in collectives of their own.
    if (lane < 16) {
        o[12] = __ballot_sync(0x0000ffffu, lane & 1);
        o[13] = lane < 8 ? __shfl_sync(0x000000ffu, lane, 7) : __reduce_add_sync(0x0000ff00u, 1);
    } else {
        o[12] = __reduce_add_sync(0xffff0000u, lane);
        __syncwarp(0xffff0000u);
        o[13] = 99;
    }
    o[14] = __ballot_sync(FULL, 1);
    o[15] = __shfl_up_sync(FULL, lane, 1);
}

// Reductions at block barriers; threads that leave early no longer count.
extern "C" __global__ void self_barriers(uint32_t *out) {
    const uint32_t thread = threadIdx.y * blockDim.x + threadIdx.x;
    const uint32_t count = __syncthreads_count(thread % 5 == 0);
    const uint32_t both = __syncthreads_and(thread != 77) << 1 | __syncthreads_or(thread == 77);
    if (thread >= 64) return;
    out[thread] = count << 16 | both << 8 | __syncthreads_count(1);
}

// Each CTA's last thread waits for a flag that its first thread sets: needs __nanosleep to let others run.
extern "C" __global__ void self_spin(uint32_t *flags, uint32_t *out) {
    if (threadIdx.x == 0) atomicExch(&flags[blockIdx.x], 1u);
    if (threadIdx.x == blockDim.x - 1) {
        while (atomicAdd(&flags[blockIdx.x], 0u) == 0) __nanosleep(20);
        out[blockIdx.x] = 1;
    }
}

// One thread a CTA: every atomic, on the same words from all CTAs.
extern "C" __global__ void self_atomics(uint32_t *words) {
    const uint32_t cta = blockIdx.x;
    atomicAdd(&words[0], cta);
    atomicMax(&words[1], cta);
    atomicMin(&words[2], cta);
    atomicOr(&words[3], 1u << (cta & 31));
    atomicXor(&words[4], 1u << (cta & 31));
    atomicAnd(&words[5], ~(1u << (cta & 15)));
    uint32_t old = atomicAdd(&words[6], 0u);
    for (uint32_t seen = ~old; seen != old;) {
        seen = old;
        old = atomicCAS(&words[6], seen, seen + 2);
    }
}

// Reverses 64 words of a CTA in dynamic shared memory, filled by cp.async in two groups.
extern "C" __global__ void self_stage(const uint4 *in, uint32_t *out) {
    CMZ_DYN_SHARED(uint32_t, staged);
    const uint32_t thread = threadIdx.x;
    const uint4 *source = in + 16 * blockIdx.x;
    if (thread < 8) emu_cp_async(&staged[4 * thread], &source[thread], 16);
    emu_cp_commit();
    if (thread < 8) emu_cp_async(&staged[32 + 4 * thread], &source[8 + thread], 16);
    emu_cp_commit();
    emu_cp_wait(1);
    __syncthreads();
    if (thread < 32) out[64 * blockIdx.x + 63 - thread] = staged[thread];
    emu_cp_wait(0);
    __syncthreads();
    if (thread < 32) out[64 * blockIdx.x + 31 - thread] = staged[32 + thread];
}

// out[i] = 3 in[i] + bias: for tests of the driver.
extern "C" __global__ void self_scale(const uint32_t *in, uint32_t *out, uint64_t count, uint8_t bias) {
    const uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) out[i] = 3 * in[i] + bias;
}

// Integer intrinsics of (a, b), for comparison with the same in Rust.
extern "C" __global__ void self_integers(uint32_t a, uint32_t b, uint32_t *out) {
    out[0] = __popc(a) | __clz(static_cast<int>(a)) << 8 | __ffs(static_cast<int>(a)) << 16;
    out[1] = __brev(a);
    out[2] = __umulhi(a, b);
    out[3] = __byte_perm(a, b, 0x7250);
    out[4] = __byte_perm(a, b, 0x8a1f);
    out[5] = __funnelshift_l(a, b, b);
    out[6] = __funnelshift_r(a, b, b);
    out[7] = __funnelshift_lc(a, b, b & 63);
    out[8] = __funnelshift_rc(a, b, b & 63);
}

// ---- planted bugs ---------------------------------------------------------------------------------------------------------

// Half of the threads go to another barrier than the rest.
extern "C" __global__ void self_bug_divergent_barrier(uint32_t *out) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncwarp();
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void self_bug_half_warp_shuffle(uint32_t *out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(FULL, threadIdx.x, 0);
    __syncwarp();
}

extern "C" __global__ void self_bug_source_outside_mask(uint32_t *out) {
    if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, threadIdx.x, 9);
}

extern "C" __global__ void self_bug_lane_outside_mask(uint32_t *out) {
    out[threadIdx.x] = __ballot_sync(0xffffu, 1);
}

extern "C" __global__ void self_bug_exited_lane(uint32_t *out) {
    if (threadIdx.x == 0) return;
    __syncthreads();
    out[threadIdx.x] = __ballot_sync(FULL, 1);
}

extern "C" __global__ void self_bug_mixed_operations(uint32_t *out) {
    out[threadIdx.x] = threadIdx.x < 16 ? __ballot_sync(FULL, 1) : __reduce_add_sync(FULL, 1);
}

extern "C" __global__ void self_bug_mixed_barriers(uint32_t *out) {
    out[threadIdx.x] = threadIdx.x < 16 ? __syncthreads_count(1) : __syncthreads_or(1);
}

extern "C" __global__ void self_bug_active_mask(uint32_t *out) { out[threadIdx.x] = __activemask(); }

extern "C" __global__ void self_bug_copy_never_waited_for(const uint4 *in, uint32_t *out) {
    CMZ_SHARED_ARRAY(uint32_t, staged, 128);
    emu_cp_async(&staged[4 * threadIdx.x], &in[threadIdx.x], 16);
    emu_cp_commit();
    out[threadIdx.x] = staged[4 * threadIdx.x];
}

extern "C" __global__ void self_bug_misaligned_copy(const uint32_t *in, uint32_t *out) {
    CMZ_SHARED_ARRAY(uint32_t, staged, 8);
    emu_cp_async(staged, in + 1, 16);
    emu_cp_wait(0);
    out[threadIdx.x] = staged[0];
}

extern "C" __global__ void self_bug_no_dynamic_shared(uint32_t *out) {
    CMZ_DYN_SHARED(uint32_t, words);
    out[threadIdx.x] = words[threadIdx.x];
}

// Reads what another warp wrote, without a barrier: right in some orders only, and a race to ThreadSanitizer in all.
extern "C" __global__ void self_bug_missing_barrier(uint32_t *out) {
    CMZ_SHARED_ARRAY(uint32_t, words, 64);
    words[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = words[63 - threadIdx.x];
}

// One word beyond shared memory: AddressSanitizer.
extern "C" __global__ void self_bug_shared_overflow(uint32_t *out) {
    CMZ_SHARED_ARRAY(uint32_t, words, 33);
    words[threadIdx.x + 2] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = words[2];
}

// A load that x86 permits and a GPU does not: UndefinedBehaviorSanitizer.
extern "C" __global__ void self_bug_misaligned_load(const uint8_t *in, uint32_t *out) {
    out[threadIdx.x] = *reinterpret_cast<const uint32_t *>(in + 4 * threadIdx.x + 1);
}

EMU_KERNEL(self_scan)
EMU_KERNEL(self_warp)
EMU_KERNEL(self_barriers)
EMU_KERNEL(self_spin)
EMU_KERNEL(self_atomics)
EMU_KERNEL(self_stage)
EMU_KERNEL(self_scale)
EMU_KERNEL(self_integers)
EMU_KERNEL(self_bug_divergent_barrier)
EMU_KERNEL(self_bug_half_warp_shuffle)
EMU_KERNEL(self_bug_source_outside_mask)
EMU_KERNEL(self_bug_lane_outside_mask)
EMU_KERNEL(self_bug_exited_lane)
EMU_KERNEL(self_bug_mixed_operations)
EMU_KERNEL(self_bug_mixed_barriers)
EMU_KERNEL(self_bug_active_mask)
EMU_KERNEL(self_bug_copy_never_waited_for)
EMU_KERNEL(self_bug_misaligned_copy)
EMU_KERNEL(self_bug_no_dynamic_shared)
EMU_KERNEL(self_bug_missing_barrier)
EMU_KERNEL(self_bug_shared_overflow)
EMU_KERNEL(self_bug_misaligned_load)
