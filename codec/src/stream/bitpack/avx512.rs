//! Unpacking of symbols of up to eight bits on machines with AVX-512: 64 at a time, each by a shift of its own.

use std::arch::x86_64::*;

use super::GROUP;
use crate::stream::Width;

/// Symbols that are unpacked at a time.
const AT_ONCE: usize = 64;

/// Proof that the machine has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi");
        there.then_some(Self(()))
    }

    /// Unpacks as many whole 64 symbols as there are; gives back what is left of both.
    pub(super) fn unpack<'a, 'b>(
        self,
        stream: &'a [u8],
        width: Width,
        symbols: &'b mut [u8],
    ) -> (&'a [u8], &'b mut [u8]) {
        let bits = usize::from(width.bits());
        let (whole, rest) = symbols.as_chunks_mut::<AT_ONCE>();
        let (words, stream) = stream.split_at(whole.len() * GROUP * bits);
        // SAFETY: the features have been detected, or there would be no `Avx512`.
        unsafe { unpack(words, bits, whole) };
        (stream, rest)
    }
}

/// `stream` has `8 bits` bytes for each chunk of `symbols`; `bits` is 1 to 8.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack(stream: &[u8], bits: usize, symbols: &mut [[u8; AT_ONCE]]) {
    // Eight symbols are `bits` bytes: they go to a 64-bit word each, of which every byte takes the eight bits from its symbol on.
    let places: [u8; AT_ONCE] = std::array::from_fn(|i| (i / 8 * bits + i % 8) as u8);
    let shifts: [u8; AT_ONCE] = std::array::from_fn(|i| (i % 8 * bits) as u8);
    // SAFETY: both have 64 bytes.
    let (places, shifts) =
        unsafe { (_mm512_loadu_si512(places.as_ptr().cast()), _mm512_loadu_si512(shifts.as_ptr().cast())) };
    let (read, field) = (u64::MAX >> (AT_ONCE - 8 * bits), _mm512_set1_epi8((0xff_u8 >> (8 - bits)) as i8));
    for (bytes, symbols) in stream.chunks_exact(8 * bits).zip(symbols) {
        // SAFETY: as many bytes are read as the chunk has, and 64 are written.
        unsafe {
            let bytes = _mm512_maskz_loadu_epi8(read, bytes.as_ptr().cast());
            let eights = _mm512_permutexvar_epi8(places, bytes);
            let symbol = _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, eights), field);
            _mm512_storeu_si512(symbols.as_mut_ptr().cast(), symbol);
        }
    }
}
