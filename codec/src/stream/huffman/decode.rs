//! Decoder of the `huffman` codec: several symbols a look-up, several lanes by turns.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::bmi2::Bmi2;
use super::code::Code;
use super::header::{Tiles, table};
use super::{GRANULE, GROUP, LANES, LONGEST, TILE, lane_symbols};
use crate::Scratch;
use crate::stream::{StreamError, Width};

/// Entries of the table: one for each value of the next bits.
const SLOTS: usize = 1 << LONGEST;
/// Symbols of an entry, at most.
const MOST: usize = 6;
/// Lanes that are decoded side by side, which hides the latency of the look-ups.
pub(super) const SIDE_BY_SIDE: usize = 8;
/// Look-ups for one load of bits: 64 − 7 bits hold five times the longest code.
const LOOK_UPS: usize = 5;
/// Room for what the look-ups of one load may write, whose places take eight bits.
const LOOK_UPS_ROOM: usize = 256 + 8;
/// Room for a lane's symbols.
pub(super) const LANE_ROOM: usize = TILE / LANES + LOOK_UPS_ROOM;

/// The tables and buffers of one stream, reused from stream to stream.
#[derive(Default)]
pub(super) struct Decoder {
    code: Code,
    /// For each value of the next bits: how many of them are whole codes in the lowest
    /// byte, of how many symbols in the next, and up to six symbols above.
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
    scratch.with::<Decoder, _>(|decoder, _| decoder.decode(stream, width, symbols, true))
}

impl Decoder {
    /// Decodes with the best instructions there are, or with those of every machine.
    pub(super) fn decode(
        &mut self,
        stream: &[u8],
        width: Width,
        symbols: &mut [u8],
        native: bool,
    ) -> Result<(), StreamError> {
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
            self.decode_tile(&tiles, t, tile, native)?;
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
            self.slots[slot] = entry << 16 | (count as u64) << 8 | used as u64;
        }
        self.lanes.resize(LANES * LANE_ROOM, 0);
    }

    fn decode_tile(&mut self, tiles: &Tiles<'_>, t: usize, tile: &mut [u8], native: bool) -> Result<(), StreamError> {
        let ranges = tiles.lanes(t)?;
        let (Ok(slots), Ok(first)) = (self.slots[..].try_into(), self.first[..].try_into()) else {
            return Err(StreamError::Length);
        };
        let tables = Lookup { slots, first };
        let lanes = self.lanes.as_chunks_mut::<LANE_ROOM>().0.as_chunks_mut::<SIDE_BY_SIDE>().0;
        for (part, (lanes, ranges)) in lanes.iter_mut().zip(ranges.as_chunks::<SIDE_BY_SIDE>().0).enumerate() {
            let counts = std::array::from_fn(|i| lane_symbols(tile.len(), part * SIDE_BY_SIDE + i));
            #[cfg(target_arch = "x86_64")]
            if native && let Some(bmi2) = Bmi2::new() {
                bmi2.decode_lanes(&tables, tiles.payload, ranges, counts, lanes)?;
                continue;
            }
            let _ = native;
            tables.decode_lanes(tiles.payload, ranges, counts, lanes)?;
        }
        let lanes = self.lanes.as_chunks::<LANE_ROOM>().0;
        interleave(lanes, tile);
        Ok(())
    }
}

/// Puts the granules of the lanes in their places.
fn interleave(lanes: &[[u8; LANE_ROOM]], tile: &mut [u8]) {
    let (groups, last) = tile.as_chunks_mut::<GROUP>();
    let at = groups.len() * GRANULE;
    for (g, group) in groups.iter_mut().enumerate() {
        // The mask is for the compiler: a lane has 64 granules.
        let at = g % (TILE / GROUP) * GRANULE;
        for (granule, lane) in group.as_chunks_mut::<GRANULE>().0.iter_mut().zip(lanes) {
            granule.copy_from_slice(&lane[at..at + GRANULE]);
        }
    }
    for (granule, lane) in last.chunks_mut(GRANULE).zip(lanes) {
        granule.copy_from_slice(&lane[at..][..granule.len()]);
    }
}

/// The tables, with their lengths known.
pub(super) struct Lookup<'a> {
    slots: &'a [u64; SLOTS],
    first: &'a [u16; SLOTS],
}

/// Lanes in the middle of being decoded.
struct Lanes<'a> {
    payload: &'a [u8],
    /// How many symbols each has.
    counts: [usize; SIDE_BY_SIDE],
    /// How many are decoded.
    done: [usize; SIDE_BY_SIDE],
    /// Where the next code begins, in bits of the payload.
    bits: [usize; SIDE_BY_SIDE],
}

impl Lanes<'_> {
    /// The next bits of a lane, at least 57 of them. There are zeros behind the payload;
    /// what comes behind those is of no matter, as the lane is then too long.
    #[inline(always)]
    fn next_bits(&self, lane: usize) -> u64 {
        let bit = self.bits[lane];
        let at = (bit / 8).min(self.payload.len().saturating_sub(8));
        match self.payload.get(at..).and_then(<[u8]>::first_chunk) {
            Some(&word) => u64::from_le_bytes(word) >> (bit % 8),
            None => 0,
        }
    }

    /// Whether every lane has `symbols` symbols left.
    #[inline(always)]
    fn all_have(&self, symbols: usize) -> bool {
        (0..SIDE_BY_SIDE).all(|i| self.done[i] + symbols <= self.counts[i])
    }
}

impl Lookup<'_> {
    /// Decodes lanes of which each has its number of symbols and its place in `payload`.
    #[inline(always)]
    pub(super) fn decode_lanes(
        &self,
        payload: &[u8],
        ranges: &[Range<usize>; SIDE_BY_SIDE],
        counts: [usize; SIDE_BY_SIDE],
        outs: &mut [[u8; LANE_ROOM]; SIDE_BY_SIDE],
    ) -> Result<(), StreamError> {
        let bits = std::array::from_fn(|i| 8 * ranges[i].start);
        let mut lanes = Lanes { payload, counts, done: [0; SIDE_BY_SIDE], bits };
        while lanes.all_have(LOOK_UPS * MOST) {
            for (i, out) in outs.iter_mut().enumerate() {
                self.look_up_several(&mut lanes, i, out);
            }
        }
        self.decode_ends(&mut lanes, outs);
        for (bit, range) in lanes.bits.iter().zip(ranges) {
            check_end(payload, *bit, range.end)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn look_up_several(&self, lanes: &mut Lanes<'_>, lane: usize, out: &mut [u8; LANE_ROOM]) {
        let mut word = lanes.next_bits(lane);
        let Some(out) = out[lanes.done[lane]..].first_chunk_mut::<LOOK_UPS_ROOM>() else { return };
        // Bits in the low byte, symbols above: neither sum leaves its byte.
        let mut sum = 0;
        for _ in 0..LOOK_UPS {
            let entry = self.slots[word as usize % SLOTS];
            store(entry, sum >> 8 & 0xff, out);
            word >>= entry & 63;
            sum += entry as usize & 0xffff;
        }
        lanes.bits[lane] += sum & 0xff;
        lanes.done[lane] += sum >> 8;
    }

    /// Decodes the last symbols, still all lanes by turns: a lane that must not move on
    /// decodes in vain, without a branch.
    #[inline(always)]
    fn decode_ends(&self, lanes: &mut Lanes<'_>, outs: &mut [[u8; LANE_ROOM]; SIDE_BY_SIDE]) {
        while (0..SIDE_BY_SIDE).any(|i| lanes.done[i] + MOST <= lanes.counts[i]) {
            for (i, out) in outs.iter_mut().enumerate() {
                let entry = self.slots[lanes.next_bits(i) as usize % SLOTS];
                store(entry, lanes.done[i], out);
                let taken = if lanes.done[i] + MOST <= lanes.counts[i] { entry as usize } else { 0 };
                lanes.bits[i] += taken & 0xff;
                lanes.done[i] += taken >> 8 & 0xff;
            }
        }
        for _ in 1..MOST {
            for (i, out) in outs.iter_mut().enumerate() {
                let first = self.first[lanes.next_bits(i) as usize % SLOTS];
                let there = lanes.done[i] < lanes.counts[i];
                out[lanes.done[i] % LANE_ROOM] = first as u8;
                lanes.bits[i] += if there { usize::from(first >> 8) } else { 0 };
                lanes.done[i] += usize::from(there);
            }
        }
    }
}

/// Stores the symbols of an entry, and bytes behind them that are written over later.
#[inline(always)]
fn store(entry: u64, at: usize, out: &mut [u8]) {
    if let Some(place) = out[at..].first_chunk_mut() {
        *place = (entry >> 16).to_le_bytes();
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
