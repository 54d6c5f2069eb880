//! The `rans` decoder on AVX-512: sixteen lanes a register.
//!
//! A tile's 32 states are two registers, and each symbol is one dependent chain of
//! gather, multiplication and refill of about fifty cycles. Four tiles give eight such
//! chains, enough to keep the gathers, which are the bottleneck, always busy.
//!
//! Ranks of symbols of two bytes are looked up in registers, 64 at a time.

use std::arch::x86_64::*;

use super::decode::Cursor;
use super::simd::{GROUP_READS, Kernel, Packed};
use super::{GRANULE, GROUP, LANES, LOWER, SCALE, SCALE_BITS};

/// Proof that the machine has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("popcnt");
        there.then_some(Self(()))
    }
}

impl Kernel for Avx512 {
    fn decode_groups<const N: usize>(
        self,
        packed: &Packed,
        payload: &[u8],
        cursors: &mut [&mut Cursor; N],
        outs: &mut [&mut [u8]; N],
        groups: usize,
        wide: bool,
    ) -> usize {
        // SAFETY: the features have been detected, or there would be no `Avx512`.
        unsafe {
            if wide {
                decode_groups::<N, true>(packed, payload, cursors, outs, groups)
            } else {
                decode_groups::<N, false>(packed, payload, cursors, outs, groups)
            }
        }
    }
}

/// Decodes `groups` groups of `N` tiles, or fewer if the payload may end before that.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn decode_groups<const N: usize, const WIDE: bool>(
    packed: &Packed,
    payload: &[u8],
    cursors: &mut [&mut Cursor; N],
    outs: &mut [&mut [u8]; N],
    groups: usize,
) -> usize {
    let group_len = if WIDE { 2 * GROUP } else { GROUP };
    assert!(packed.slots.len() == SCALE as usize && packed.low.len() == 256 && packed.high.len() == 256);
    assert!(outs.iter().all(|out| out.len() >= groups * group_len));
    let ranks = Ranks::load(packed);
    let mut states = [[_mm512_setzero_si512(); 2]; N];
    let mut at = [0; N];
    for i in 0..N {
        // SAFETY: the states are 32 words, two registers.
        states[i] = unsafe {
            let states = cursors[i].states.as_ptr();
            [_mm512_loadu_si512(states.cast()), _mm512_loadu_si512(states.add(LANES / 2).cast())]
        };
        at[i] = cursors[i].at;
    }
    let mut done = 0;
    while done < groups && at.iter().all(|&at| at + GROUP_READS <= payload.len()) {
        let mut symbols = [[[_mm512_setzero_si512(); 2]; 2]; N];
        for k in 0..GRANULE {
            for i in 0..N {
                for half in 0..2 {
                    // SAFETY: a group takes at most `GROUP_WORDS` bytes and begins
                    // `GROUP_READS` before the payload's end; the table has all slots.
                    let e = unsafe { step(&packed.slots, payload, &mut states[i][half], &mut at[i]) };
                    let four = &mut symbols[i][half][k / 4];
                    // Symbols enter from above, so that the first of four ends lowest.
                    *four = _mm512_shrdi_epi32::<8>(*four, e);
                }
            }
        }
        for i in 0..N {
            for (half, &pair) in symbols[i].iter().enumerate() {
                let place = done * group_len + half * group_len / 2;
                // SAFETY: the outputs have room for `groups` groups.
                unsafe { store::<WIDE>(pair, &ranks, outs[i].as_mut_ptr().add(place)) };
            }
        }
        done += 1;
    }
    for i in 0..N {
        // SAFETY: as above.
        unsafe {
            let place = cursors[i].states.as_mut_ptr();
            _mm512_storeu_si512(place.cast(), states[i][0]);
            _mm512_storeu_si512(place.add(LANES / 2).cast(), states[i][1]);
        }
        cursors[i].at = at[i];
    }
    done
}

/// Decodes a symbol of sixteen lanes: advances the states, gives the slots.
///
/// # Safety
/// `slots` has `SCALE` entries; 32 bytes of `payload` can be read at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn step(slots: &[u32], payload: &[u8], state: &mut __m512i, at: &mut usize) -> __m512i {
    let mask = _mm512_set1_epi32(SCALE as i32 - 1);
    let x = *state;
    // SAFETY: indices are below `SCALE`, the length of the table.
    let e = unsafe { _mm512_i32gather_epi32::<4>(_mm512_and_si512(x, mask), slots.as_ptr().cast()) };
    let frequency = _mm512_srli_epi32::<20>(e);
    let place = _mm512_and_si512(_mm512_srli_epi32::<8>(e), mask);
    let x = _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32::<SCALE_BITS>(x)), place);
    let short = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(LOWER as i32));
    // SAFETY: the caller has checked that the payload goes on for 32 bytes.
    let words = unsafe { _mm256_loadu_si256(payload.as_ptr().add(*at).cast()) };
    let words = _mm512_maskz_expand_epi32(short, _mm512_cvtepu16_epi32(words));
    *at += 2 * short.count_ones() as usize;
    *state = _mm512_mask_or_epi32(x, short, _mm512_slli_epi32::<16>(x), words);
    e
}

/// The bytes of the symbols by rank.
struct Ranks {
    low: [__m512i; 4],
    high: [__m512i; 4],
}

impl Ranks {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(packed: &Packed) -> Self {
        let load = |bytes: &[u8]| {
            std::array::from_fn(|i| {
                let part = &bytes[64 * i..64 * i + 64];
                // SAFETY: the part has 64 bytes.
                unsafe { _mm512_loadu_si512(part.as_ptr().cast()) }
            })
        };
        Self { low: load(&packed.low), high: load(&packed.high) }
    }
}

/// The bytes of `table` at 64 indices.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up(table: &[__m512i; 4], indices: __m512i) -> __m512i {
    let first = _mm512_permutex2var_epi8(table[0], indices, table[1]);
    let second = _mm512_permutex2var_epi8(table[2], indices, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(indices), first, second)
}

/// Stores eight symbols of each of sixteen lanes, lane by lane.
///
/// # Safety
/// `place` has room for 128 symbols.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
unsafe fn store<const WIDE: bool>([first, last]: [__m512i; 2], ranks: &Ranks, place: *mut u8) {
    if !WIDE {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        // SAFETY: 128 bytes.
        unsafe {
            _mm512_storeu_si512(place.cast(), _mm512_permutex2var_epi32(first, low, last));
            _mm512_storeu_si512(place.add(64).cast(), _mm512_permutex2var_epi32(first, high, last));
        }
        return;
    }
    // Granules 0 4 1 5 2 6 3 7, so that interleaving bytes within quarters leaves them in order.
    let low = _mm512_setr_epi32(0, 16, 4, 20, 1, 17, 5, 21, 2, 18, 6, 22, 3, 19, 7, 23);
    let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (i, order) in [low, high].into_iter().enumerate() {
        let indices = _mm512_permutex2var_epi32(first, order, last);
        let (low, high) = (look_up(&ranks.low, indices), look_up(&ranks.high, indices));
        // SAFETY: 256 bytes, 128 of them at each turn.
        unsafe {
            let place = place.add(128 * i);
            _mm512_storeu_si512(place.cast(), _mm512_unpacklo_epi8(low, high));
            _mm512_storeu_si512(place.add(64).cast(), _mm512_unpackhi_epi8(low, high));
        }
    }
}
