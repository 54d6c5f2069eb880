//! The `rans` encoder on AVX-512: sixteen lanes a register, several tiles at a time.
//!
//! States are divided by frequencies in single precision, rounded towards zero: the
//! quotient is below 2^20, so it is right or one too small, which the remainder shows.

use std::arch::x86_64::*;

use super::encode::{Cursor, SIDE_BY_SIDE};
use super::{GRANULE, GROUP, LANES, SCALE, SCALE_BITS};
use crate::stream::Width;

const TO_ZERO: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;

/// Proof that the machine has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("popcnt");
        there.then_some(Self(()))
    }

    /// Encodes whole groups of four tiles, of which some may be shorter or empty.
    pub(super) fn encode(
        self,
        table: &[u32],
        tiles: [&[u8]; SIDE_BY_SIDE],
        width: Width,
        cursors: &mut [Cursor; SIDE_BY_SIDE],
        words: &mut [Vec<u16>; SIDE_BY_SIDE],
    ) {
        let [a, b, c, d] = tiles;
        let [ca, cb, cc, cd] = cursors;
        let [wa, wb, wc, wd] = words;
        if a.len() == d.len() {
            self.groups_of(table, [a, b, c, d], width, [ca, cb, cc, cd], [wa, wb, wc, wd]);
            return;
        }
        for (tile, cursor, words) in [(a, ca, wa), (b, cb, wb), (c, cc, wc), (d, cd, wd)] {
            self.groups_of(table, [tile], width, [cursor], [words]);
        }
    }

    fn groups_of<const N: usize>(
        self,
        table: &[u32],
        tiles: [&[u8]; N],
        width: Width,
        cursors: [&mut Cursor; N],
        words: [&mut [u16]; N],
    ) {
        // SAFETY: the features have been detected, or there would be no `Avx512`.
        unsafe {
            if width.bytes() == 1 {
                encode_groups::<N, false>(table, tiles, cursors, words);
            } else {
                encode_groups::<N, true>(table, tiles, cursors, words);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
fn encode_groups<const N: usize, const WIDE: bool>(
    table: &[u32],
    tiles: [&[u8]; N],
    cursors: [&mut Cursor; N],
    words: [&mut [u16]; N],
) {
    let group_len = if WIDE { 2 * GROUP } else { GROUP };
    let groups = tiles[0].len() / group_len;
    assert!(tiles.iter().all(|tile| tile.len() == groups * group_len));
    assert!(table.len() == if WIDE { SCALE as usize } else { 256 });
    let mut states = [[_mm512_setzero_si512(); 2]; N];
    let mut at = [0; N];
    for i in 0..N {
        // A symbol takes one word at most.
        assert!(cursors[i].at <= words[i].len() && cursors[i].at >= groups * GROUP);
        at[i] = cursors[i].at;
        // SAFETY: the states are 32 words, two registers.
        states[i] = unsafe {
            let states = cursors[i].states.as_ptr();
            [_mm512_loadu_si512(states.cast()), _mm512_loadu_si512(states.add(LANES / 2).cast())]
        };
    }
    for group in (0..groups).rev() {
        let mut symbols = [[[_mm512_setzero_si512(); 4]; 2]; N];
        for i in 0..N {
            for half in 0..2 {
                let part = &tiles[i][group * group_len + half * group_len / 2..][..group_len / 2];
                symbols[i][half] = load::<WIDE>(part);
            }
        }
        for k in (0..GRANULE).rev() {
            let (part, shift) = if WIDE { (k / 2, k % 2 * 16) } else { (k / 4, k % 4 * 8) };
            let mask = if WIDE { SCALE as i32 - 1 } else { 0xff };
            for half in [1, 0] {
                for i in 0..N {
                    let index = _mm512_srlv_epi32(symbols[i][half][part], _mm512_set1_epi32(shift as i32));
                    let index = _mm512_and_si512(index, _mm512_set1_epi32(mask));
                    // SAFETY: indices are masked to the table's length; a symbol takes one
                    // word at most, and there are words for all symbols below `at`.
                    unsafe { step(table, index, &mut states[i][half], words[i], &mut at[i]) };
                }
            }
        }
    }
    for i in 0..N {
        cursors[i].at = at[i];
        // SAFETY: as above.
        unsafe {
            let place = cursors[i].states.as_mut_ptr();
            _mm512_storeu_si512(place.cast(), states[i][0]);
            _mm512_storeu_si512(place.add(LANES / 2).cast(), states[i][1]);
        }
    }
}

/// Encodes a symbol of sixteen lanes.
///
/// # Safety
/// `index` is inside `table`; `at` is at least 16 and at most the length of `words`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt")]
unsafe fn step(table: &[u32], index: __m512i, state: &mut __m512i, words: &mut [u16], at: &mut usize) {
    // SAFETY: the caller vouches for the indices.
    let e = unsafe { _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast()) };
    let frequency = _mm512_and_si512(e, _mm512_set1_epi32(0xffff));
    let start = _mm512_srli_epi32::<16>(e);
    let x = *state;
    let full = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32::<{ 32 - SCALE_BITS }>(frequency));
    let count = full.count_ones();
    *at -= count as usize;
    let low = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x));
    // SAFETY: as many words as lanes are full, at most 16, below the old `at`.
    unsafe {
        let place = words.as_mut_ptr().add(*at).cast();
        _mm256_mask_storeu_epi16(place, ((1u32 << count) - 1) as u16, low);
    }
    let x = _mm512_mask_srli_epi32::<16>(x, full, x);
    let quotient =
        _mm512_div_round_ps::<TO_ZERO>(_mm512_cvt_roundepu32_ps::<TO_ZERO>(x), _mm512_cvtepi32_ps(frequency));
    let quotient = _mm512_cvttps_epi32(quotient);
    let rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
    let small = _mm512_cmpge_epu32_mask(rest, frequency);
    let quotient = _mm512_mask_add_epi32(quotient, small, quotient, _mm512_set1_epi32(1));
    let rest = _mm512_mask_sub_epi32(rest, small, rest, frequency);
    *state = _mm512_add_epi32(_mm512_slli_epi32::<SCALE_BITS>(quotient), _mm512_add_epi32(rest, start));
}

/// Loads sixteen granules; four, or two, consecutive symbols of each lane a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load<const WIDE: bool>(part: &[u8]) -> [__m512i; 4] {
    assert!(part.len() == if WIDE { 256 } else { 128 });
    // SAFETY: the part has 128 or 256 bytes.
    let register = |i: usize| unsafe { _mm512_loadu_si512(part.as_ptr().add(64 * i).cast()) };
    if !WIDE {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        let (a, b) = (register(0), register(1));
        let zero = _mm512_setzero_si512();
        return [_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b), zero, zero];
    }
    let first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    let last = _mm512_add_epi32(first, _mm512_set1_epi32(2));
    let (a, b, c, d) = (register(0), register(1), register(2), register(3));
    let (ab01, ab23) = (_mm512_permutex2var_epi32(a, first, b), _mm512_permutex2var_epi32(a, last, b));
    let (cd01, cd23) = (_mm512_permutex2var_epi32(c, first, d), _mm512_permutex2var_epi32(c, last, d));
    [
        _mm512_shuffle_i64x2::<0x44>(ab01, cd01),
        _mm512_shuffle_i64x2::<0xee>(ab01, cd01),
        _mm512_shuffle_i64x2::<0x44>(ab23, cd23),
        _mm512_shuffle_i64x2::<0xee>(ab23, cd23),
    ]
}
