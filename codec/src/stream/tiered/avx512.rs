//! The AVX-512 kernel: a plane word is a mask register, and escapes are moved by byte
//! expansion and compression (VBMI2: Ice Lake, Zen 4 and later).

use std::arch::x86_64::*;

use super::TILE;
use super::feature_kernel::feature_kernel;
use super::kernel::{Kernel, PlaneWords, Planes, STEP, TierBuffer};
use super::portable::valid;
use crate::prefetch::{self, LINE};

/// The AVX-512 kernel; a value exists only on machines that can run it.
#[derive(Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn new() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        there.then_some(Self(()))
    }
}

feature_kernel!(Avx512, "avx512");

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vpopcntdq")]
fn escapes(low: &[u8], high: &[u8]) -> usize {
    let mut sum = _mm512_setzero_si512();
    for (low, high) in low.chunks(STEP).zip(high.chunks(STEP)) {
        let there = valid(low.len().min(high.len()));
        // SAFETY: a masked load touches only the bytes whose mask bit is set, and both
        // chunks have that many.
        let (low, high) = unsafe {
            (_mm512_maskz_loadu_epi8(there, low.as_ptr().cast()), _mm512_maskz_loadu_epi8(there, high.as_ptr().cast()))
        };
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_and_si512(low, high)));
    }
    _mm512_reduce_add_epi64(sum) as usize
}

/// Decodes steps of a tier one after the other.
struct Tier<'a> {
    low: *const u64,
    high: *const u64,
    below: &'a TierBuffer,
    /// Escapes of the steps so far.
    rank: usize,
    named: [__m512i; 3],
}

impl<'a> Tier<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    fn new(planes: Planes<'a>, named: [u8; 3], below: &'a TierBuffer) -> Self {
        let (low, high) = planes.split();
        let [zero, one, two] = named;
        let named = [_mm512_set1_epi8(zero as i8), _mm512_set1_epi8(one as i8), _mm512_set1_epi8(two as i8)];
        Self { low: low.as_ptr().cast(), high: high.as_ptr().cast(), below, rank: 0, named }
    }

    /// Decodes step `i`.
    ///
    /// # Safety
    /// Steps are decoded in ascending order, each once, and `i < planes.steps()`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
    #[inline]
    unsafe fn step(&mut self, i: usize) -> __m512i {
        // SAFETY: `Planes` holds `8 * steps()` bytes from the start of either plane.
        let (low, high) = unsafe { (self.low.add(i).read_unaligned(), self.high.add(i).read_unaligned()) };
        // SAFETY: the `i <= 63` steps before this one had at most `STEP` escapes each, and
        // the buffer is one step longer than a tile.
        let next = unsafe { _mm512_loadu_si512(self.below.as_ptr().add(self.rank).cast()) };
        self.rank += (low & high).count_ones() as usize;
        let [zero, one, two] = self.named;
        let common = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(zero, low, one), high, two);
        _mm512_mask_expand_epi8(common, low & high, next)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
fn decode_tier(planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]) {
    let steps = planes.steps();
    let (out, _) = out[..steps * STEP].as_chunks_mut::<STEP>();
    let mut tier = Tier::new(planes, named, below);
    for (i, out) in out.iter_mut().enumerate() {
        // SAFETY: `out` has one chunk for each step; the store is as long as a chunk.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), tier.step(i)) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
fn decode_bf16(
    planes: Planes<'_>,
    named: [u8; 3],
    below: &TierBuffer,
    sign_mantissa: &[u8; TILE],
    out: &mut [u8; 2 * TILE],
) {
    assert_eq!(planes.elements(), TILE, "not a whole tile");
    let top = _mm512_set1_epi8(-128);
    let first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    let second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    let (sign_mantissa, _) = sign_mantissa.as_chunks::<STEP>();
    let (out, _) = out.as_chunks_mut::<{ 2 * STEP }>();
    let mut tier = Tier::new(planes, named, below);
    for (i, (sign_mantissa, out)) in sign_mantissa.iter().zip(out).enumerate() {
        prefetch::read(sign_mantissa, TILE);
        prefetch::write(out, 2 * TILE);
        prefetch::write(out, 2 * TILE + LINE);
        // SAFETY: a whole tile has as many steps as `sign_mantissa` has chunks, and the
        // load is as long as a chunk.
        let (exponent, rest) = unsafe { (tier.step(i), _mm512_loadu_si512(sign_mantissa.as_ptr().cast())) };
        // 0xca takes bits of the second operand where the first has ones, of the third elsewhere.
        let high = _mm512_ternarylogic_epi64::<0xca>(top, rest, exponent);
        let low = _mm512_ternarylogic_epi64::<0xca>(top, exponent, rest);
        let (a, b) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
        // SAFETY: `out` is two registers long.
        unsafe {
            _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutex2var_epi64(a, first, b));
            _mm512_storeu_si512(out.as_mut_ptr().add(STEP).cast(), _mm512_permutex2var_epi64(a, second, b));
        }
    }
}

/// Codes steps of a tier one after the other.
struct Coder<'a> {
    named: [__m512i; 3],
    planes: &'a mut PlaneWords,
    escaped: &'a mut TierBuffer,
    /// Escapes of the steps so far.
    rank: usize,
}

impl<'a> Coder<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    fn new(named: [u8; 3], planes: &'a mut PlaneWords, escaped: &'a mut TierBuffer) -> Self {
        let [zero, one, two] = named;
        let named = [_mm512_set1_epi8(zero as i8), _mm512_set1_epi8(one as i8), _mm512_set1_epi8(two as i8)];
        Self { named, planes, escaped, rank: 0 }
    }

    /// Codes step `i`, of which the elements in `valid` are there.
    ///
    /// # Safety
    /// Steps are coded in ascending order, each once.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
    #[inline]
    unsafe fn step(&mut self, i: usize, symbols: __m512i, valid: u64) {
        let [zero, one, two] = self.named;
        let is_zero = _mm512_cmpeq_epi8_mask(symbols, zero);
        let (is_one, is_two) = (_mm512_cmpeq_epi8_mask(symbols, one), _mm512_cmpeq_epi8_mask(symbols, two));
        let escape = !(is_zero | is_one | is_two) & valid;
        self.planes.low[i] = is_one & valid | escape;
        self.planes.high[i] = is_two & valid | escape;
        // SAFETY: indexing `planes` has checked that `i < 64`; the `i` steps before this one
        // had at most `STEP` escapes each, and the buffer is one step longer than a tile.
        unsafe {
            let to = self.escaped.as_mut_ptr().add(self.rank);
            _mm512_storeu_si512(to.cast(), _mm512_maskz_compress_epi8(escape, symbols));
        }
        self.rank += escape.count_ones() as usize;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
fn encode_tier(
    symbols: &[u8],
    elements: usize,
    named: [u8; 3],
    planes: &mut PlaneWords,
    escaped: &mut TierBuffer,
) -> usize {
    let (symbols, _) = symbols[..elements.next_multiple_of(STEP)].as_chunks::<STEP>();
    let mut coder = Coder::new(named, planes, escaped);
    for (i, symbols) in symbols.iter().enumerate() {
        // SAFETY: the load is as long as a chunk; steps ascend.
        unsafe { coder.step(i, _mm512_loadu_si512(symbols.as_ptr().cast()), valid(elements - STEP * i)) };
    }
    coder.rank
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
fn encode_bf16(
    data: &[u8; 2 * TILE],
    named: [u8; 3],
    planes: &mut PlaneWords,
    escaped: &mut TierBuffer,
    sign_mantissa: &mut [u8; TILE],
) -> usize {
    let top = _mm512_set1_epi8(-128);
    let low_bytes = _mm512_set1_epi16(0xff);
    let in_order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    let (data, _) = data.as_chunks::<{ 2 * STEP }>();
    let (sign_mantissa, _) = sign_mantissa.as_chunks_mut::<STEP>();
    let mut coder = Coder::new(named, planes, escaped);
    for (i, (data, sign_mantissa)) in data.iter().zip(sign_mantissa).enumerate() {
        prefetch::read(data, 2 * TILE);
        prefetch::read(data, 2 * TILE + LINE);
        // SAFETY: `data` is two registers long.
        let (a, b) =
            unsafe { (_mm512_loadu_si512(data.as_ptr().cast()), _mm512_loadu_si512(data.as_ptr().add(STEP).cast())) };
        // Packing works in lanes of 128 bits: put their halves in order behind it.
        let low = _mm512_packus_epi16(_mm512_and_si512(a, low_bytes), _mm512_and_si512(b, low_bytes));
        let high = _mm512_packus_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b));
        let (low, high) = (_mm512_permutexvar_epi64(in_order, low), _mm512_permutexvar_epi64(in_order, high));
        let exponent = _mm512_ternarylogic_epi64::<0xca>(top, low, high);
        // SAFETY: the store is as long as a chunk; steps ascend.
        unsafe {
            let rest = _mm512_ternarylogic_epi64::<0xca>(top, high, low);
            _mm512_storeu_si512(sign_mantissa.as_mut_ptr().cast(), rest);
            coder.step(i, exponent, u64::MAX);
        }
    }
    coder.rank
}
