//! The `rans` decoder on AVX2: eight lanes a register, four registers a tile.
//!
//! What AVX-512 expands by a mask is permuted here, by a table of the 256 masks. Ranks of symbols of two
//! bytes are looked up one by one.

use std::arch::x86_64::*;

use super::decode::Cursor;
use super::simd::{GROUP_READS, Kernel, Packed};
use super::{GRANULE, GROUP, LANES, SCALE, SCALE_BITS};

/// Lanes of a register.
const WIDE: usize = 8;
/// Registers of a tile.
const PARTS: usize = LANES / WIDE;

/// Byte `i` is the number of bits of the index below bit `i`: which of the next words lane `i` takes.
static RANKS: [u64; 256] = ranks();

const fn ranks() -> [u64; 256] {
    let mut table = [0; 256];
    let mut mask = 0usize;
    while mask < 256 {
        let mut lane = 1;
        while lane < WIDE {
            table[mask] |= ((mask & ((1 << lane) - 1)).count_ones() as u64) << (8 * lane);
            lane += 1;
        }
        mask += 1;
    }
    table
}

/// Proof that the machine has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")).then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    fn decode_groups<const N: usize>(
        self,
        packed: &Packed,
        payload: &[u8],
        cursors: &mut [&mut Cursor; N],
        outs: &mut [&mut [u8]; N],
        groups: usize,
        wide: bool,
    ) -> usize {
        // SAFETY: the features have been detected, or there would be no `Avx2`.
        unsafe { decode_groups(packed, payload, cursors, outs, groups, wide) }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_groups<const N: usize>(
    packed: &Packed,
    payload: &[u8],
    cursors: &mut [&mut Cursor; N],
    outs: &mut [&mut [u8]; N],
    groups: usize,
    wide: bool,
) -> usize {
    let group_len = if wide { 2 * GROUP } else { GROUP };
    assert!(packed.slots.len() == SCALE as usize);
    assert!(outs.iter().all(|out| out.len() >= groups * group_len));
    let mut states = [[_mm256_setzero_si256(); PARTS]; N];
    let mut at = [0; N];
    for i in 0..N {
        for (part, lanes) in states[i].iter_mut().zip(cursors[i].states.as_chunks::<WIDE>().0) {
            // SAFETY: eight states are a register.
            *part = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
        }
        at[i] = cursors[i].at;
    }
    let mut done = 0;
    while done < groups && at.iter().all(|&at| at + GROUP_READS <= payload.len()) {
        let mut symbols = [[[_mm256_setzero_si256(); 2]; PARTS]; N];
        for k in 0..GRANULE {
            for part in 0..PARTS {
                for i in 0..N {
                    // SAFETY: a group takes at most two bytes a symbol and begins `GROUP_READS`
                    // before the payload's end; the table has all slots.
                    let e = unsafe { step(&packed.slots, payload, &mut states[i][part], &mut at[i]) };
                    let four = &mut symbols[i][part][k / 4];
                    // Symbols enter from above, so that the first of four ends lowest.
                    *four = _mm256_or_si256(_mm256_srli_epi32::<8>(*four), _mm256_slli_epi32::<24>(e));
                }
            }
        }
        for i in 0..N {
            let out = &mut outs[i][done * group_len..][..group_len];
            if wide {
                let mut ranks = [0; GROUP];
                store(&symbols[i], &mut ranks);
                look_up(packed, &ranks, out);
            } else if let Ok(out) = out.try_into() {
                store(&symbols[i], out);
            }
        }
        done += 1;
    }
    for i in 0..N {
        for (part, lanes) in states[i].iter().zip(cursors[i].states.as_chunks_mut::<WIDE>().0) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), *part) };
        }
        cursors[i].at = at[i];
    }
    done
}

/// Decodes a symbol of eight lanes: advances the states, gives the slots.
///
/// # Safety
/// `slots` has `SCALE` entries; 16 bytes of `payload` can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn step(slots: &[u32], payload: &[u8], state: &mut __m256i, at: &mut usize) -> __m256i {
    let mask = _mm256_set1_epi32(SCALE as i32 - 1);
    let x = *state;
    // SAFETY: indices are below `SCALE`, the length of the table.
    let e = unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), _mm256_and_si256(x, mask)) };
    let frequency = _mm256_srli_epi32::<20>(e);
    let place = _mm256_and_si256(_mm256_srli_epi32::<8>(e), mask);
    let x = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32::<{ SCALE_BITS as i32 }>(x)), place);
    // Below 2^16: nothing in the upper half.
    let short = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(x), _mm256_setzero_si256());
    let lanes = _mm256_movemask_ps(_mm256_castsi256_ps(short)) as usize;
    // SAFETY: the caller has checked that the payload goes on for 16 bytes.
    let words = unsafe { _mm_loadu_si128(payload.as_ptr().add(*at).cast()) };
    let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(RANKS[lanes] as i64));
    let words = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(words), order);
    *at += 2 * lanes.count_ones() as usize;
    let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(x), words);
    *state = _mm256_blendv_epi8(x, refilled, short);
    e
}

/// Stores eight symbols of each lane, lane by lane.
#[inline]
#[target_feature(enable = "avx2")]
fn store(symbols: &[[__m256i; 2]; PARTS], out: &mut [u8; GROUP]) {
    for (&[first, last], out) in symbols.iter().zip(out.as_chunks_mut::<{ WIDE * GRANULE }>().0) {
        let (a, b) = (_mm256_unpacklo_epi32(first, last), _mm256_unpackhi_epi32(first, last));
        // SAFETY: a part of the output is two registers long.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(a, b));
            _mm256_storeu_si256(out.as_mut_ptr().add(32).cast(), _mm256_permute2x128_si256::<0x31>(a, b));
        }
    }
}

/// The symbols of two bytes that have these ranks.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(packed: &Packed, ranks: &[u8; GROUP], out: &mut [u8]) {
    let Ok(symbols) = <&[u16; 256]>::try_from(&packed.symbols[..]) else { return };
    for (&rank, out) in ranks.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = symbols[usize::from(rank)].to_le_bytes();
    }
}
