//! Asking memory for what the next tile reads and writes. A decoder follows four or more
//! streams at once, and the machine's own prefetching then comes too late: on AVX-512 BF16
//! decodes from memory at 6.6–6.8 instead of 4.6–5.2 GB/s with these hints and encodes a
//! tenth faster (MiniLM, three runs of each in turn). AVX2 gains a twentieth; F32 and the
//! portable path, which wait for other things, nothing that shows. Where whole components lie
//! decoded and elements only have to be written, hints to write are worth more: BENCHMARKS.md,
//! ternary weights.

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Elements that loops write between two hints.
pub(crate) const PIECE: usize = 256;

/// Asks for the line `distance` bytes behind the start of `bytes`, to read it. The line may
/// lie outside of `bytes` and of anything else.
#[inline(always)]
pub(crate) fn read(bytes: &[u8], distance: usize) {
    let line = bytes.as_ptr().wrapping_add(distance);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address does no harm; every x86-64 has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch of any address does no harm.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

/// Asks for every line of `bytes`, to read it.
#[inline(always)]
pub(crate) fn all(bytes: &[u8]) {
    (0..bytes.len()).step_by(LINE).for_each(|at| read(bytes, at));
    read(bytes, bytes.len().saturating_sub(1));
}

/// Asks for memory a little behind `elements`, to write it: for as many lines as they have. Whoever writes a long array
/// piece by piece asks with each; stores that miss do not go ahead of one another as loads do.
#[inline(always)]
pub(crate) fn write_behind<T>(elements: &[T]) {
    /// Any distance from 256 bytes to 8 KiB does as well.
    const DISTANCE: usize = 2048;
    (0..size_of_val(elements)).step_by(LINE).for_each(|at| write(elements, DISTANCE + at));
}

/// As [`read`], to write it.
#[inline(always)]
pub(crate) fn write<T>(elements: &[T], distance: usize) {
    let line = elements.as_ptr().cast::<u8>().wrapping_add(distance);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address does no harm; every x86-64 has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(line.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch of any address does no harm.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}
