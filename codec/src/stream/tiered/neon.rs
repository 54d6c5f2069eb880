//! The NEON kernel: as on AVX2, plane bits become byte masks and escapes are moved by
//! byte shuffles of eight elements, looked up by their plane byte.

use std::arch::aarch64::*;

use super::TILE;
use super::feature_kernel::feature_kernel;
use super::kernel::{Kernel, PlaneWords, Planes, STEP, TierBuffer};
use super::portable::{self, valid};
use super::tables::{COMPRESS, EXPAND};
use crate::prefetch::{self, LINE};

/// The NEON kernel; a value exists only on machines that can run it.
#[derive(Debug)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

feature_kernel!(Neon, "neon");

#[target_feature(enable = "neon")]
fn escapes(low: &[u8], high: &[u8]) -> usize {
    portable::escapes(low, high)
}

/// Elements in a register: a quarter of a step.
const QUARTER: usize = STEP / 4;

/// Byte `i` holds bit `i % 8` alone.
#[target_feature(enable = "neon")]
#[inline]
fn bit_of_byte() -> uint8x16_t {
    vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201))
}

/// Byte `i` is 0xff where bit `i` is set.
#[target_feature(enable = "neon")]
#[inline]
fn byte_mask([low, high]: [u8; 2]) -> uint8x16_t {
    vtstq_u8(vcombine_u8(vdup_n_u8(low), vdup_n_u8(high)), bit_of_byte())
}

/// Bit `i` is set where byte `i` of a mask is 0xff.
#[target_feature(enable = "neon")]
#[inline]
fn bit_mask(mask: uint8x16_t) -> u64 {
    let bits = vandq_u8(mask, bit_of_byte());
    u64::from(vaddv_u8(vget_low_u8(bits))) | u64::from(vaddv_u8(vget_high_u8(bits))) << 8
}

/// Decodes quarters of steps one after the other.
struct Tier<'a> {
    low: &'a [[u8; 2]],
    high: &'a [[u8; 2]],
    below: &'a TierBuffer,
    /// Escapes of the quarters so far.
    rank: usize,
    named: [uint8x16_t; 3],
}

impl<'a> Tier<'a> {
    #[target_feature(enable = "neon")]
    #[inline]
    fn new(planes: Planes<'a>, [zero, one, two]: [u8; 3], below: &'a TierBuffer) -> Self {
        let (low, high) = planes.split();
        let named = [vdupq_n_u8(zero), vdupq_n_u8(one), vdupq_n_u8(two)];
        Self { low: low.as_chunks().0, high: high.as_chunks().0, below, rank: 0, named }
    }

    /// Decodes quarter step `i`.
    ///
    /// # Safety
    /// Quarters are decoded in ascending order, each once, and `i < 4 * planes.steps()`.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn quarter(&mut self, i: usize) -> uint8x16_t {
        let (low, high) = (self.low[i], self.high[i]);
        let [a, b] = [low[0] & high[0], low[1] & high[1]];
        // SAFETY: the `i <= 255` quarters before this one had at most `QUARTER` escapes each,
        // and the buffer is one step longer than a tile; each table entry has eight bytes.
        let (bytes, places) = unsafe {
            let first = self.below.as_ptr().add(self.rank);
            let second = first.add(a.count_ones() as usize);
            (vcombine_u8(vld1_u8(first), vld1_u8(second)), [EXPAND[usize::from(a)], EXPAND[usize::from(b)]])
        };
        self.rank += (a.count_ones() + b.count_ones()) as usize;
        let places = vcombine_u8(vcreate_u8(places[0]), vcreate_u8(places[1] | 0x0808_0808_0808_0808));
        let escaped = vqtbl1q_u8(bytes, places);
        let (low, high) = (byte_mask(low), byte_mask(high));
        let [zero, one, two] = self.named;
        let common = vbslq_u8(high, two, vbslq_u8(low, one, zero));
        vbslq_u8(vandq_u8(low, high), escaped, common)
    }
}

#[target_feature(enable = "neon")]
fn decode_tier(planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]) {
    let (out, _) = out[..planes.steps() * STEP].as_chunks_mut::<QUARTER>();
    let mut tier = Tier::new(planes, named, below);
    for (i, out) in out.iter_mut().enumerate() {
        // SAFETY: `out` has four chunks for each step; the store is as long as a chunk.
        unsafe { vst1q_u8(out.as_mut_ptr(), tier.quarter(i)) };
    }
}

#[target_feature(enable = "neon")]
fn decode_bf16(
    planes: Planes<'_>,
    named: [u8; 3],
    below: &TierBuffer,
    sign_mantissa: &[u8; TILE],
    out: &mut [u8; 2 * TILE],
) {
    assert_eq!(planes.elements(), TILE, "not a whole tile");
    let top = vdupq_n_u8(0x80);
    let (sign_mantissa, _) = sign_mantissa.as_chunks::<QUARTER>();
    let (out, _) = out.as_chunks_mut::<{ 2 * QUARTER }>();
    let mut tier = Tier::new(planes, named, below);
    for (i, (sign_mantissa, out)) in sign_mantissa.iter().zip(out).enumerate() {
        // Two quarters write a line, four read one.
        if i % 2 == 0 {
            prefetch::write(out, 2 * TILE);
        }
        if i % 4 == 0 {
            prefetch::read(sign_mantissa, TILE);
        }
        // SAFETY: a whole tile has as many quarters as `sign_mantissa` has chunks; the load
        // is as long as a chunk and the store, which interleaves, as long as two.
        unsafe {
            let (exponent, rest) = (tier.quarter(i), vld1q_u8(sign_mantissa.as_ptr()));
            let bytes = uint8x16x2_t(vbslq_u8(top, exponent, rest), vbslq_u8(top, rest, exponent));
            vst2q_u8(out.as_mut_ptr(), bytes);
        }
    }
}

/// Codes steps of a tier one after the other.
struct Coder<'a> {
    named: [uint8x16_t; 3],
    planes: &'a mut PlaneWords,
    escaped: &'a mut TierBuffer,
    /// Escapes of the steps so far.
    rank: usize,
}

impl<'a> Coder<'a> {
    #[target_feature(enable = "neon")]
    #[inline]
    fn new([zero, one, two]: [u8; 3], planes: &'a mut PlaneWords, escaped: &'a mut TierBuffer) -> Self {
        Self { named: [vdupq_n_u8(zero), vdupq_n_u8(one), vdupq_n_u8(two)], planes, escaped, rank: 0 }
    }

    /// Codes step `i`, of which the elements in `valid` are there.
    ///
    /// # Safety
    /// Steps are coded in ascending order, each once.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn step(&mut self, i: usize, symbols: [uint8x16_t; 4], valid: u64) {
        let (mut is_one, mut is_two, mut named) = (0, 0, 0);
        for (q, &quarter) in symbols.iter().enumerate() {
            let [zero, one, two] = self.named;
            let (zero, one, two) = (vceqq_u8(quarter, zero), vceqq_u8(quarter, one), vceqq_u8(quarter, two));
            is_one |= bit_mask(one) << (QUARTER * q);
            is_two |= bit_mask(two) << (QUARTER * q);
            named |= bit_mask(vorrq_u8(zero, vorrq_u8(one, two))) << (QUARTER * q);
        }
        let escape = !named & valid;
        self.planes.low[i] = is_one & valid | escape;
        self.planes.high[i] = is_two & valid | escape;
        for (q, quarter) in symbols.into_iter().enumerate() {
            for (half, eight) in [vget_low_u8(quarter), vget_high_u8(quarter)].into_iter().enumerate() {
                let bits = (escape >> (QUARTER * q + 8 * half)) as u8;
                let packed = vtbl1_u8(eight, vcreate_u8(COMPRESS[usize::from(bits)]));
                // SAFETY: indexing `planes` has checked that `i < 64`; there are at most as many
                // escapes before these eight elements as elements, and the buffer holds a tile.
                unsafe { vst1_u8(self.escaped.as_mut_ptr().add(self.rank), packed) };
                self.rank += bits.count_ones() as usize;
            }
        }
    }
}

#[target_feature(enable = "neon")]
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
        // SAFETY: a chunk is four registers long; steps ascend.
        unsafe {
            let symbols = [0, 1, 2, 3].map(|q| vld1q_u8(symbols.as_ptr().add(QUARTER * q)));
            coder.step(i, symbols, valid(elements - STEP * i));
        }
    }
    coder.rank
}

#[target_feature(enable = "neon")]
fn encode_bf16(
    data: &[u8; 2 * TILE],
    named: [u8; 3],
    planes: &mut PlaneWords,
    escaped: &mut TierBuffer,
    sign_mantissa: &mut [u8; TILE],
) -> usize {
    let top = vdupq_n_u8(0x80);
    let (data, _) = data.as_chunks::<{ 2 * STEP }>();
    let (sign_mantissa, _) = sign_mantissa.as_chunks_mut::<STEP>();
    let mut coder = Coder::new(named, planes, escaped);
    for (i, (data, rest)) in data.iter().zip(sign_mantissa).enumerate() {
        prefetch::read(data, 2 * TILE);
        prefetch::read(data, 2 * TILE + LINE);
        let mut exponents = [vdupq_n_u8(0); 4];
        for (q, exponent) in exponents.iter_mut().enumerate() {
            // SAFETY: `data` holds four pairs of registers and `rest` four registers.
            unsafe {
                let uint8x16x2_t(low, high) = vld2q_u8(data.as_ptr().add(2 * QUARTER * q));
                vst1q_u8(rest.as_mut_ptr().add(QUARTER * q), vbslq_u8(top, high, low));
                *exponent = vbslq_u8(top, low, high);
            }
        }
        // SAFETY: steps ascend.
        unsafe { coder.step(i, exponents, u64::MAX) };
    }
    coder.rank
}
