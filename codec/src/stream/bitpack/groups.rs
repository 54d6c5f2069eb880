//! Packing and unpacking of groups of eight symbols, in 64-bit words.
//!
//! A word holds four or eight fields of `W` bits, dense, or in the symbols' own bytes.
//! Halving steps turn the one form into the other: the upper half of the fields of
//! each part moves to, or from, the middle of the part, for all parts at once.

use super::GROUP;
#[cfg(target_arch = "x86_64")]
use super::{avx512::Avx512, bmi2::Bmi2};
use crate::stream::Width;

/// A way to move the fields of a word.
pub(super) trait Fields: Copy {
    /// Moves dense fields of `W` bits apart, to one field every 8 or 16 bits.
    fn spread<const W: u32>(self, v: u64) -> u64;

    /// The inverse of [`Self::spread`].
    fn squeeze<const W: u32>(self, v: u64) -> u64;
}

/// The way for every machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

/// Calls `$f::<W>` with the width as a constant.
macro_rules! with_width {
    ($width:expr, $f:ident($($arg:expr),*)) => {
        match $width.bits() {
            1 => $f::<1, _>($($arg),*),
            2 => $f::<2, _>($($arg),*),
            3 => $f::<3, _>($($arg),*),
            4 => $f::<4, _>($($arg),*),
            5 => $f::<5, _>($($arg),*),
            6 => $f::<6, _>($($arg),*),
            7 => $f::<7, _>($($arg),*),
            8 => $f::<8, _>($($arg),*),
            9 => $f::<9, _>($($arg),*),
            10 => $f::<10, _>($($arg),*),
            11 => $f::<11, _>($($arg),*),
            12 => $f::<12, _>($($arg),*),
            13 => $f::<13, _>($($arg),*),
            14 => $f::<14, _>($($arg),*),
            15 => $f::<15, _>($($arg),*),
            _ => $f::<16, _>($($arg),*),
        }
    };
}

/// Unpacks as many symbols as there are from the start of `stream`, which is long enough.
pub(super) fn unpack(stream: &[u8], width: Width, symbols: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    let (stream, symbols) = match Avx512::new() {
        Some(avx512) if width.bytes() == 1 => avx512.unpack(stream, width, symbols),
        _ => (stream, symbols),
    };
    #[cfg(target_arch = "x86_64")]
    if let Some(bmi2) = Bmi2::new() {
        bmi2.unpack(stream, width, symbols);
        return;
    }
    unpack_with(Portable, stream, width, symbols);
}

/// Packs `symbols` into `stream`, which has exactly the length for them.
pub(super) fn pack(symbols: &[u8], width: Width, stream: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(bmi2) = Bmi2::new() {
        bmi2.pack(symbols, width, stream);
        return;
    }
    pack_with(Portable, symbols, width, stream);
}

/// [`unpack`] by a stated way.
#[inline(always)]
pub(super) fn unpack_with(fields: impl Fields, stream: &[u8], width: Width, symbols: &mut [u8]) {
    with_width!(width, unpack_width(fields, stream, symbols));
}

/// [`pack`] by a stated way.
#[inline(always)]
pub(super) fn pack_with(fields: impl Fields, symbols: &[u8], width: Width, stream: &mut [u8]) {
    with_width!(width, pack_width(fields, symbols, stream));
}

/// The lowest `bits` bits of every `part` bits.
const fn mask(part: u32, bits: u32) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < 64 {
        mask |= (u64::MAX >> (64 - bits)) << at;
        at += part;
    }
    mask
}

/// The places of fields of `W` bits, one every 8 or 16 bits.
pub(super) const fn places<const W: u32>() -> u64 {
    mask(if W <= 8 { 8 } else { 16 }, W)
}

impl Fields for Portable {
    #[inline(always)]
    fn spread<const W: u32>(self, v: u64) -> u64 {
        let eights = W <= 8;
        let mut v = v;
        let mut part = 64;
        while part > if eights { 8 } else { 16 } {
            let half = part / 2;
            // Bits that the fields of half a part take.
            let dense = W * half / if eights { 8 } else { 16 };
            v = v & mask(part, dense) | (v >> dense & mask(part, dense)) << half;
            part = half;
        }
        v
    }

    #[inline(always)]
    fn squeeze<const W: u32>(self, v: u64) -> u64 {
        let eights = W <= 8;
        let mut half = if eights { 8 } else { 16 };
        let mut v = v & mask(half, W);
        while half < 64 {
            let dense = W * half / if eights { 8 } else { 16 };
            v = v & mask(2 * half, dense) | (v >> half & mask(2 * half, dense)) << dense;
            half *= 2;
        }
        v
    }
}

/// The little-endian word at `at`; bytes behind the end of `bytes` count as zero.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    if let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        return u64::from_le_bytes(*chunk);
    }
    let mut chunk = [0; 8];
    let tail = bytes.get(at..).unwrap_or_default();
    chunk[..tail.len()].copy_from_slice(tail);
    u64::from_le_bytes(chunk)
}

#[inline(always)]
fn unpack_group<const W: u32, F: Fields>(fields: F, stream: &[u8], at: usize) -> [u64; 2] {
    if W <= 8 {
        [fields.spread::<W>(word(stream, at)), 0]
    } else {
        // Four symbols have 4 W bits, which end on a byte or in the middle of one.
        let high = at + 4 * W as usize / 8;
        [fields.spread::<W>(word(stream, at)), fields.spread::<W>(word(stream, high) >> (4 * W % 8))]
    }
}

#[inline(always)]
fn unpack_width<const W: u32, F: Fields>(fields: F, stream: &[u8], symbols: &mut [u8]) {
    let group_len = if W <= 8 { GROUP } else { 2 * GROUP };
    let mut groups = symbols.chunks_exact_mut(group_len);
    let mut at = 0;
    for group in &mut groups {
        let [low, high] = unpack_group::<W, F>(fields, stream, at);
        group[..8].copy_from_slice(&low.to_le_bytes());
        if W > 8 {
            group[8..].copy_from_slice(&high.to_le_bytes());
        }
        at += W as usize;
    }
    let rest = groups.into_remainder();
    let [low, high] = unpack_group::<W, F>(fields, stream, at);
    let bytes = u128::from(low) | u128::from(high) << 64;
    rest.copy_from_slice(&bytes.to_le_bytes()[..rest.len()]);
}

#[inline(always)]
fn pack_group<const W: u32, F: Fields>(fields: F, group: &[u8]) -> u128 {
    let low = u128::from(fields.squeeze::<W>(word(group, 0)));
    if W <= 8 { low } else { low | u128::from(fields.squeeze::<W>(word(group, 8))) << (4 * W) }
}

#[inline(always)]
fn pack_width<const W: u32, F: Fields>(fields: F, symbols: &[u8], stream: &mut [u8]) {
    let group_len = if W <= 8 { GROUP } else { 2 * GROUP };
    let word_len = group_len;
    let mut at = 0;
    for group in symbols.chunks(group_len) {
        let bytes = pack_group::<W, F>(fields, group).to_le_bytes();
        // Whole words are quicker to store than W bytes; what they write too much is
        // written over by the next group.
        if let Some(place) = stream.get_mut(at..at + word_len) {
            place.copy_from_slice(&bytes[..word_len]);
        } else {
            let place = &mut stream[at..];
            let len = place.len().min(W as usize);
            place[..len].copy_from_slice(&bytes[..len]);
        }
        at += W as usize;
    }
}
