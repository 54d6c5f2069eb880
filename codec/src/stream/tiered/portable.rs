//! The kernel that runs everywhere: eight elements at a time in a 64-bit word.

use super::TILE;
use super::kernel::{Kernel, PlaneWords, Planes, STEP, TierBuffer};
use crate::prefetch::{self, LINE};

/// The portable kernel.
#[derive(Debug)]
pub(super) struct Portable;

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = ONES << 7;

/// Byte `j` is 0xff where bit `j` of the index is set.
static SPREAD: [u64; 256] = spread();
/// How bytes are moved to where bits of the index are set.
static EXPANSIONS: [Expansion; 256] = expansions();

/// Three steps, each of which moves some bytes twice as far as the one behind it (H. S. Warren,
/// Hacker's Delight, 7-5).
#[derive(Clone, Copy)]
struct Expansion {
    /// Bytes that a step of four, two and one bytes moves here.
    moved: [u64; 3],
    /// Bits of the index that are set.
    count: usize,
}

impl Kernel for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn escapes(&self, low: &[u8], high: &[u8]) -> usize {
        escapes(low, high)
    }

    fn decode_tier(&self, planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]) {
        let groups = planes.elements().div_ceil(8);
        let (low, high) = planes.split();
        let (out, _) = out[..planes.steps() * STEP].as_chunks_mut::<8>();
        let [zero, one, two] = named.map(|s| ONES * u64::from(s));
        let mut below = &below[..];
        for ((&l, &h), out) in low.iter().zip(high).zip(out).take(groups) {
            let (low, high) = (SPREAD[usize::from(l)], SPREAD[usize::from(h)]);
            let both = low & high;
            let common = zero ^ (low & (zero ^ one)) ^ (high & (zero ^ two));
            let expansion = &EXPANSIONS[usize::from(l & h)];
            let escaped = expansion.of(below.first_chunk().map_or(0, |&first| u64::from_le_bytes(first)));
            *out = (common & !both | escaped & both).to_le_bytes();
            below = &below[expansion.count..];
        }
    }

    fn decode_bf16(
        &self,
        planes: Planes<'_>,
        named: [u8; 3],
        below: &TierBuffer,
        sign_mantissa: &[u8; TILE],
        out: &mut [u8; 2 * TILE],
    ) {
        assert_eq!(planes.elements(), TILE, "not a whole tile");
        for at in (0..TILE).step_by(LINE) {
            prefetch::read(sign_mantissa, TILE + at);
            prefetch::write(out, 2 * (TILE + at));
            prefetch::write(out, 2 * (TILE + at) + LINE);
        }
        let mut exponent = [0; TILE];
        self.decode_tier(planes, named, below, &mut exponent);
        let (out, _) = out.as_chunks_mut::<2>();
        for ((out, &e), &s) in out.iter_mut().zip(&exponent).zip(sign_mantissa) {
            *out = [e & 0x80 | s & 0x7f, s & 0x80 | e & 0x7f];
        }
    }

    fn encode_tier(
        &self,
        symbols: &[u8],
        elements: usize,
        named: [u8; 3],
        planes: &mut PlaneWords,
        escaped: &mut TierBuffer,
    ) -> usize {
        let steps = elements.div_ceil(STEP);
        let (symbols, _) = symbols[..steps * STEP].as_chunks::<STEP>();
        let named = named.map(|s| ONES * u64::from(s));
        let mut count = 0;
        for (i, step) in symbols.iter().enumerate() {
            let valid = valid(elements - STEP * i);
            let (mut low, mut high) = (0, 0);
            for (j, group) in step.as_chunks::<8>().0.iter().enumerate() {
                let [is_zero, is_one, is_two] = named.map(|name| equal_bytes(u64::from_le_bytes(*group), name));
                let escape = !(is_zero | is_one | is_two) & TOPS;
                low |= top_bits(is_one | escape) << (8 * j);
                high |= top_bits(is_two | escape) << (8 * j);
            }
            (low, high) = (low & valid, high & valid);
            (planes.low[i], planes.high[i]) = (low, high);
            count += compress(step, low & high, &mut escaped[count..]);
        }
        count
    }

    fn encode_bf16(
        &self,
        data: &[u8; 2 * TILE],
        named: [u8; 3],
        planes: &mut PlaneWords,
        escaped: &mut TierBuffer,
        sign_mantissa: &mut [u8; TILE],
    ) -> usize {
        let mut exponent = [0; TILE];
        let (data, _) = data.as_chunks::<2>();
        for ((&[low, high], e), s) in data.iter().zip(&mut exponent).zip(sign_mantissa) {
            *e = high & 0x7f | low & 0x80;
            *s = high & 0x80 | low & 0x7f;
        }
        self.encode_tier(&exponent, TILE, named, planes, escaped)
    }
}

/// Bits that are set in both planes.
#[inline(always)]
pub(super) fn escapes(low: &[u8], high: &[u8]) -> usize {
    let ((low, low_tail), (high, high_tail)) = (low.as_chunks::<8>(), high.as_chunks::<8>());
    let words = low.iter().zip(high).map(|(l, h)| (u64::from_le_bytes(*l) & u64::from_le_bytes(*h)).count_ones());
    let bytes = low_tail.iter().zip(high_tail).map(|(l, h)| (l & h).count_ones());
    words.sum::<u32>() as usize + bytes.sum::<u32>() as usize
}

/// The bits of a plane word that belong to elements, if `elements` are left.
#[inline(always)]
pub(super) fn valid(elements: usize) -> u64 {
    if elements >= STEP { u64::MAX } else { (1 << elements) - 1 }
}

impl Expansion {
    /// The first bytes of `v`, moved to their places; anything elsewhere.
    #[inline(always)]
    fn of(&self, v: u64) -> u64 {
        let [fours, twos, ones] = self.moved;
        let v = v & !fours | v << 32 & fours;
        let v = v & !twos | v << 16 & twos;
        v & !ones | v << 8 & ones
    }

    /// The bytes of `v` moved back, if all others are zero.
    #[inline(always)]
    fn undo(&self, v: u64) -> u64 {
        let [fours, twos, ones] = self.moved;
        let v = v & !ones | (v & ones) >> 8;
        let v = v & !twos | (v & twos) >> 16;
        v & !fours | (v & fours) >> 32
    }
}

/// Writes the bytes of `step` where bits of `at` are set; returns how many.
#[inline(always)]
fn compress(step: &[u8; STEP], at: u64, out: &mut [u8]) -> usize {
    let out = &mut out[..STEP];
    let mut count = 0;
    for (group, bits) in step.as_chunks::<8>().0.iter().zip(at.to_le_bytes()) {
        let expansion = &EXPANSIONS[usize::from(bits)];
        let packed = expansion.undo(u64::from_le_bytes(*group) & SPREAD[usize::from(bits)]);
        out[count..count + 8].copy_from_slice(&packed.to_le_bytes());
        count += expansion.count;
    }
    count
}

/// The top bits of the bytes that are equal in `a` and `b`.
#[inline(always)]
fn equal_bytes(a: u64, b: u64) -> u64 {
    let x = a ^ b;
    !(((x & !TOPS) + !TOPS) | x) & TOPS
}

/// The top bits of all bytes, in one byte.
#[inline(always)]
fn top_bits(x: u64) -> u64 {
    (x >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

const fn spread() -> [u64; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut j = 0;
        while j < 8 {
            if i >> j & 1 != 0 {
                table[i] |= 0xff << (8 * j);
            }
            j += 1;
        }
        i += 1;
    }
    table
}

const fn expansions() -> [Expansion; 256] {
    let mut table = [Expansion { moved: [0; 3], count: 0 }; 256];
    let mut i = 0;
    while i < 256 {
        table[i].count = (i as u8).count_ones() as usize;
        // Of compression, whose steps undo those of expansion in the other order: bits that are
        // left, and how far each of them has to go, by the zeros below it.
        let mut left = i as u8;
        let mut zeros = !(i as u8) << 1;
        let mut step = 0;
        while step < 3 {
            let odd = zeros ^ zeros << 1;
            let odd = odd ^ odd << 2;
            let odd = odd ^ odd << 4;
            let moved = odd & left;
            table[i].moved[2 - step] = SPREAD[moved as usize];
            left = left ^ moved | moved >> (1 << step);
            zeros &= !odd;
            step += 1;
        }
        i += 1;
    }
    table
}
