//! The AVX2 kernel: plane bits become byte masks, and escapes are moved by byte shuffles
//! of eight elements, looked up by their plane byte.

use std::arch::x86_64::*;

use super::TILE;
use super::feature_kernel::feature_kernel;
use super::kernel::{Kernel, PlaneWords, Planes, STEP, TierBuffer};
use super::portable::{self, valid};
use super::tables::{COMPRESS, EXPAND};
use crate::prefetch::{self, LINE};

/// The AVX2 kernel; a value exists only on machines that can run it.
#[derive(Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn new() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        there.then_some(Self(()))
    }
}

feature_kernel!(Avx2, "avx2");

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn escapes(low: &[u8], high: &[u8]) -> usize {
    portable::escapes(low, high)
}

/// Elements in a register: half a step.
const HALF: usize = STEP / 2;

/// Byte `i` is 0xff where bit `i` is set.
#[target_feature(enable = "avx2")]
#[inline]
fn byte_mask(bits: u32) -> __m256i {
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let source = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), source);
    _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
}

/// Decodes halves of steps one after the other.
struct Tier<'a> {
    low: *const u32,
    high: *const u32,
    below: &'a TierBuffer,
    /// Escapes of the halves so far.
    rank: usize,
    zero: __m256i,
    /// What symbols 1 and 2 differ in from symbol 0.
    differences: [__m256i; 2],
}

impl<'a> Tier<'a> {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(planes: Planes<'a>, [zero, one, two]: [u8; 3], below: &'a TierBuffer) -> Self {
        let (low, high) = planes.split();
        Self {
            low: low.as_ptr().cast(),
            high: high.as_ptr().cast(),
            below,
            rank: 0,
            zero: _mm256_set1_epi8(zero as i8),
            differences: [_mm256_set1_epi8((zero ^ one) as i8), _mm256_set1_epi8((zero ^ two) as i8)],
        }
    }

    /// Decodes half step `i`.
    ///
    /// # Safety
    /// Halves are decoded in ascending order, each once, and `i < 2 * planes.steps()`.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    #[inline]
    unsafe fn half(&mut self, i: usize) -> __m256i {
        // SAFETY: `Planes` holds `8 * steps()` bytes from the start of either plane.
        let (low, high) = unsafe { (self.low.add(i).read_unaligned(), self.high.add(i).read_unaligned()) };
        let escapes = low & high;
        // SAFETY: the `i <= 127` halves before this one had at most `HALF` escapes each, and
        // the buffer is one step longer than a tile.
        let escaped = unsafe { expand(self.below.as_ptr().add(self.rank), escapes) };
        self.rank += escapes.count_ones() as usize;
        let (low, high) = (byte_mask(low), byte_mask(high));
        let common = _mm256_xor_si256(self.zero, _mm256_and_si256(low, self.differences[0]));
        let common = _mm256_xor_si256(common, _mm256_and_si256(high, self.differences[1]));
        _mm256_or_si256(_mm256_andnot_si256(_mm256_and_si256(low, high), common), escaped)
    }
}

/// Moves the bytes at `from` to where bits of `at` are set; the others are zero.
///
/// # Safety
/// [`HALF`] bytes at `from` may be read.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
#[inline]
unsafe fn expand(from: *const u8, at: u32) -> __m256i {
    // SAFETY: a quarter reads 8 bytes behind at most 24.
    unsafe {
        let rank = |below: u32| (at & below).count_ones() as usize;
        let low = expand16(from, from.add(rank(0xff)), at as u16);
        let high = expand16(from.add(rank(0xffff)), from.add(rank(0xff_ffff)), (at >> 16) as u16);
        _mm256_set_m128i(high, low)
    }
}

/// Moves the bytes at `first` and `second` to where bits of the low and the high byte of `at` are set.
///
/// # Safety
/// Eight bytes at either may be read.
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
#[inline]
unsafe fn expand16(first: *const u8, second: *const u8, at: u16) -> __m128i {
    let [low, high] = at.to_le_bytes().map(|bits| EXPAND[usize::from(bits)]);
    let places = _mm_set_epi64x((high | 0x0808_0808_0808_0808) as i64, low as i64);
    // SAFETY: the caller vouches for eight bytes at both.
    let (first, second) = unsafe { (_mm_loadl_epi64(first.cast()), _mm_loadl_epi64(second.cast())) };
    _mm_shuffle_epi8(_mm_unpacklo_epi64(first, second), places)
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn decode_tier(planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]) {
    let (out, _) = out[..planes.steps() * STEP].as_chunks_mut::<HALF>();
    let mut tier = Tier::new(planes, named, below);
    for (i, out) in out.iter_mut().enumerate() {
        // SAFETY: `out` has two chunks for each step; the store is as long as a chunk.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), tier.half(i)) };
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn decode_bf16(
    planes: Planes<'_>,
    named: [u8; 3],
    below: &TierBuffer,
    sign_mantissa: &[u8; TILE],
    out: &mut [u8; 2 * TILE],
) {
    assert_eq!(planes.elements(), TILE, "not a whole tile");
    let top = _mm256_set1_epi8(-128);
    let (sign_mantissa, _) = sign_mantissa.as_chunks::<HALF>();
    let (out, _) = out.as_chunks_mut::<{ 2 * HALF }>();
    let mut tier = Tier::new(planes, named, below);
    for (i, (sign_mantissa, out)) in sign_mantissa.iter().zip(out).enumerate() {
        prefetch::read(sign_mantissa, TILE);
        prefetch::write(out, 2 * TILE);
        // SAFETY: a whole tile has as many halves as `sign_mantissa` has chunks, and the
        // load is as long as a chunk.
        let (exponent, rest) = unsafe { (tier.half(i), _mm256_loadu_si256(sign_mantissa.as_ptr().cast())) };
        let (low, high) = trade_tops(rest, exponent, top);
        let (a, b) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
        // SAFETY: `out` is two registers long.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(a, b));
            _mm256_storeu_si256(out.as_mut_ptr().add(HALF).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
        }
    }
}

/// `low` and `high` with each other's top bits.
#[target_feature(enable = "avx2")]
#[inline]
fn trade_tops(low: __m256i, high: __m256i, top: __m256i) -> (__m256i, __m256i) {
    let trade = _mm256_and_si256(_mm256_xor_si256(low, high), top);
    (_mm256_xor_si256(low, trade), _mm256_xor_si256(high, trade))
}

/// Which of the symbols of a step are `name`.
#[target_feature(enable = "avx2")]
#[inline]
fn equal([low, high]: [__m256i; 2], name: __m256i) -> u64 {
    let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, name)) as u32;
    let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, name)) as u32;
    u64::from(low) | u64::from(high) << 32
}

/// Codes steps of a tier one after the other.
struct Coder<'a> {
    named: [__m256i; 3],
    planes: &'a mut PlaneWords,
    escaped: &'a mut TierBuffer,
    /// Escapes of the steps so far.
    rank: usize,
}

impl<'a> Coder<'a> {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new([zero, one, two]: [u8; 3], planes: &'a mut PlaneWords, escaped: &'a mut TierBuffer) -> Self {
        let named = [_mm256_set1_epi8(zero as i8), _mm256_set1_epi8(one as i8), _mm256_set1_epi8(two as i8)];
        Self { named, planes, escaped, rank: 0 }
    }

    /// Codes step `i`, of which the elements in `valid` are there.
    ///
    /// # Safety
    /// Steps are coded in ascending order, each once.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    #[inline]
    unsafe fn step(&mut self, i: usize, symbols: [__m256i; 2], valid: u64) {
        // Closures would be called by `array::map`, which lacks the features to inline them.
        let [zero, one, two] = self.named;
        let (is_zero, is_one, is_two) = (equal(symbols, zero), equal(symbols, one), equal(symbols, two));
        let escape = !(is_zero | is_one | is_two) & valid;
        self.planes.low[i] = is_one & valid | escape;
        self.planes.high[i] = is_two & valid | escape;
        let [a, b] = symbols;
        let quarters = [
            _mm256_castsi256_si128(a),
            _mm256_extracti128_si256::<1>(a),
            _mm256_castsi256_si128(b),
            _mm256_extracti128_si256::<1>(b),
        ];
        for (q, quarter) in quarters.into_iter().enumerate() {
            for (half, eight) in [quarter, _mm_unpackhi_epi64(quarter, quarter)].into_iter().enumerate() {
                let bits = (escape >> (16 * q + 8 * half)) as u8;
                let places = _mm_set_epi64x(0, COMPRESS[usize::from(bits)] as i64);
                // SAFETY: indexing `planes` has checked that `i < 64`; there are at most as many
                // escapes before these eight elements as elements, and the buffer holds a tile.
                unsafe {
                    let to = self.escaped.as_mut_ptr().add(self.rank);
                    _mm_storel_epi64(to.cast(), _mm_shuffle_epi8(eight, places));
                }
                self.rank += bits.count_ones() as usize;
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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
        // SAFETY: a chunk is two registers long; steps ascend.
        unsafe {
            let from = symbols.as_ptr();
            let symbols = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(HALF).cast())];
            coder.step(i, symbols, valid(elements - STEP * i));
        }
    }
    coder.rank
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
fn encode_bf16(
    data: &[u8; 2 * TILE],
    named: [u8; 3],
    planes: &mut PlaneWords,
    escaped: &mut TierBuffer,
    sign_mantissa: &mut [u8; TILE],
) -> usize {
    let top = _mm256_set1_epi8(-128);
    let low_bytes = _mm256_set1_epi16(0xff);
    let (data, _) = data.as_chunks::<{ 2 * STEP }>();
    let (sign_mantissa, _) = sign_mantissa.as_chunks_mut::<STEP>();
    let mut coder = Coder::new(named, planes, escaped);
    for (i, (data, rest)) in data.iter().zip(sign_mantissa).enumerate() {
        prefetch::read(data, 2 * TILE);
        prefetch::read(data, 2 * TILE + LINE);
        let mut exponents = [_mm256_setzero_si256(); 2];
        for (half, exponent) in exponents.iter_mut().enumerate() {
            // SAFETY: a chunk of `data` is four registers long.
            let (a, b) = unsafe {
                let from = data.as_ptr().add(2 * HALF * half);
                (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(HALF).cast()))
            };
            // Packing works in lanes of 128 bits: put their halves in order behind it.
            let low = _mm256_packus_epi16(_mm256_and_si256(a, low_bytes), _mm256_and_si256(b, low_bytes));
            let high = _mm256_packus_epi16(_mm256_srli_epi16::<8>(a), _mm256_srli_epi16::<8>(b));
            let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(low);
            let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(high);
            let (low, high) = trade_tops(low, high, top);
            // SAFETY: a chunk of `rest` is two registers long.
            unsafe { _mm256_storeu_si256(rest.as_mut_ptr().add(HALF * half).cast(), low) };
            *exponent = high;
        }
        // SAFETY: steps ascend.
        unsafe { coder.step(i, exponents, u64::MAX) };
    }
    coder.rank
}
