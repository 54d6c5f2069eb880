//! Decoder of the `huffman` codec: several symbols a look-up, several lanes by turns.

use std::ops::Range;

use super::code::Code;
use super::header::{Tiles, table};
use super::{GRANULE, LANES, LONGEST, TILE, lane_symbols};
use crate::Scratch;
use crate::stream::{StreamError, Width};

/// Entries of the table: one for each value of the next bits.
const SLOTS: usize = 1 << LONGEST;
/// Symbols of an entry, at most.
const MOST: usize = 6;
/// Lanes that are decoded side by side, which hides the latency of the look-ups.
const SIDE_BY_SIDE: usize = 4;
/// Look-ups for one load of bits: 64 − 7 bits hold five times the longest code.
const LOOK_UPS: usize = 5;
/// Room for a lane's symbols, and for what a look-up writes too many.
const LANE_ROOM: usize = TILE / LANES + 8;

/// The tables and buffers of one stream, reused from stream to stream.
#[derive(Default)]
struct Decoder {
    code: Code,
    /// For each value of the next bits: up to six symbols that they begin with, from the
    /// lowest byte on; their number in bits 48 to 55; the bits that they take above.
    slots: Vec<u64>,
    /// For each value of the next bits: the first symbol, and the bits it takes above.
    first: Vec<u16>,
    /// The lanes of a tile.
    lanes: Vec<u8>,
}

/// Decodes `stream` into `symbols`.
pub(super) fn decode(
    stream: &[u8],
    width: Width,
    scratch: &mut Scratch,
    symbols: &mut [u8],
) -> Result<(), StreamError> {
    let mut decoder = scratch.take::<Decoder>();
    let result = decoder.decode(stream, width, symbols);
    scratch.put(decoder);
    result
}

impl Decoder {
    fn decode(&mut self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        let (table, rest) = table(stream)?;
        self.code.read(table, width)?;
        if symbols.is_empty() != self.code.symbols.is_empty() {
            return Err(StreamError::Length);
        }
        if let [only] = self.code.symbols[..] {
            Tiles::of(rest, 0)?;
            symbols.fill(only as u8);
            return Ok(());
        }
        let tiles = Tiles::of(rest, symbols.len().div_ceil(TILE))?;
        if !symbols.is_empty() {
            self.fill();
        }
        for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
            self.decode_tile(&tiles, t, tile)?;
        }
        Ok(())
    }

    fn fill(&mut self) {
        self.first.resize(SLOTS, 0);
        for (symbol, code, length) in self.code.codes() {
            for slot in (usize::from(code)..SLOTS).step_by(1 << length) {
                self.first[slot] = symbol | u16::from(length) << 8;
            }
        }
        self.slots.resize(SLOTS, 0);
        // Symbols follow one another as long as their codes lie inside the bits.
        for slot in 0..SLOTS {
            let (mut entry, mut count, mut used) = (0, 0, 0);
            while count < MOST {
                let first = u64::from(self.first[slot >> used]);
                let length = (first >> 8) as usize;
                if used + length > LONGEST {
                    break;
                }
                entry |= (first & 0xff) << (8 * count);
                used += length;
                count += 1;
            }
            self.slots[slot] = entry | (count as u64) << 48 | (used as u64) << 56;
        }
        self.lanes.resize(LANES * LANE_ROOM, 0);
    }

    fn decode_tile(&mut self, tiles: &Tiles<'_>, t: usize, tile: &mut [u8]) -> Result<(), StreamError> {
        let ranges = tiles.lanes(t)?;
        let (Ok(slots), Ok(first)) = (self.slots[..].try_into(), self.first[..].try_into()) else {
            return Err(StreamError::Length);
        };
        let tables = Lookup { slots, first };
        let lanes = self.lanes.as_chunks_mut::<LANE_ROOM>().0.as_chunks_mut::<SIDE_BY_SIDE>().0;
        for (quad, (lanes, ranges)) in lanes.iter_mut().zip(ranges.as_chunks::<SIDE_BY_SIDE>().0).enumerate() {
            let counts = std::array::from_fn(|i| lane_symbols(tile.len(), quad * SIDE_BY_SIDE + i));
            tables.decode_lanes(tiles.payload, ranges, counts, lanes)?;
        }
        let lanes = self.lanes.as_chunks::<LANE_ROOM>().0;
        for (g, group) in tile.chunks_mut(super::GROUP).enumerate() {
            for (granule, lane) in group.chunks_mut(GRANULE).zip(lanes) {
                if let Ok(granule) = <&mut [u8; GRANULE]>::try_from(&mut *granule) {
                    granule.copy_from_slice(&lane[g * GRANULE..(g + 1) * GRANULE]);
                } else {
                    granule.copy_from_slice(&lane[g * GRANULE..][..granule.len()]);
                }
            }
        }
        Ok(())
    }
}

/// The tables, with their lengths known.
struct Lookup<'a> {
    slots: &'a [u64; SLOTS],
    first: &'a [u16; SLOTS],
}

/// The bits of `payload` from `bit` on, at least 57 of them, and zeros or any bits
/// behind the end.
#[inline(always)]
fn bits_at(payload: &[u8], bit: usize) -> u64 {
    let at = (bit / 8).min(payload.len().saturating_sub(8));
    match payload.get(at..).and_then(<[u8]>::first_chunk) {
        Some(&word) => u64::from_le_bytes(word) >> (bit % 8),
        None => 0,
    }
}

impl Lookup<'_> {
    /// Decodes lanes of which each has its number of symbols and its place in `payload`.
    fn decode_lanes(
        &self,
        payload: &[u8],
        ranges: &[Range<usize>; SIDE_BY_SIDE],
        counts: [usize; SIDE_BY_SIDE],
        outs: &mut [[u8; LANE_ROOM]; SIDE_BY_SIDE],
    ) -> Result<(), StreamError> {
        let mut bits: [usize; SIDE_BY_SIDE] = std::array::from_fn(|i| 8 * ranges[i].start);
        let mut done = [0; SIDE_BY_SIDE];
        let near = |done: &[usize; SIDE_BY_SIDE]| (0..SIDE_BY_SIDE).all(|i| done[i] + LOOK_UPS * MOST <= counts[i]);
        while near(&done) {
            for i in 0..SIDE_BY_SIDE {
                let mut word = bits_at(payload, bits[i]);
                for _ in 0..LOOK_UPS {
                    self.look_up(&mut word, &mut bits[i], &mut done[i], &mut outs[i]);
                }
            }
        }
        for i in 0..SIDE_BY_SIDE {
            while done[i] + MOST <= counts[i] {
                let mut word = bits_at(payload, bits[i]);
                self.look_up(&mut word, &mut bits[i], &mut done[i], &mut outs[i]);
            }
            while done[i] < counts[i] {
                let first = self.first[bits_at(payload, bits[i]) as usize % SLOTS];
                outs[i][done[i]] = first as u8;
                bits[i] += usize::from(first >> 8);
                done[i] += 1;
            }
            check_end(payload, bits[i], ranges[i].end)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn look_up(&self, word: &mut u64, bit: &mut usize, done: &mut usize, out: &mut [u8; LANE_ROOM]) {
        let entry = self.slots[*word as usize % SLOTS];
        // The two bytes behind the symbols are written over later.
        if let Some(place) = out[*done..].first_chunk_mut::<8>() {
            *place = entry.to_le_bytes();
        }
        *word >>= entry >> 56;
        *bit += (entry >> 56) as usize;
        *done += (entry >> 48 & 0xff) as usize;
    }
}

/// Fails unless a lane whose codes end before `bit` ends with the byte before `end`.
fn check_end(payload: &[u8], bit: usize, end: usize) -> Result<(), StreamError> {
    if bit.div_ceil(8) != end {
        return Err(StreamError::Length);
    }
    if !bit.is_multiple_of(8) && payload[end - 1] >> (bit % 8) != 0 {
        return Err(StreamError::Invalid("bits behind the last code are not zero"));
    }
    Ok(())
}
