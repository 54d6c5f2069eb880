//! What decoders with vector instructions share: the tables, and which groups of which tiles are
//! decoded side by side.
//!
//! The table has one 32-bit word a slot, so a symbol has eight bits in it: alphabets of
//! more than 256 used symbols are left to the portable path. Wider symbols are decoded
//! as their rank among the used ones, and looked up a group at a time.

use super::decode::{Cursor, Slots, decode_tail};
use super::header::Tiles;
use super::model::Model;
use super::{GROUP, SCALE};
use crate::stream::{StreamError, Width};

/// Tiles that are decoded side by side.
const SIDE_BY_SIDE: usize = 4;
/// Bytes of words that one group can take, at most.
const GROUP_WORDS: usize = 2 * GROUP;
/// Bytes of words that a group may read: the last lanes read whole registers.
pub(super) const GROUP_READS: usize = GROUP_WORDS + 32;

/// The instructions of a machine that decode groups.
pub(super) trait Kernel: Copy {
    /// Decodes `groups` groups of `N` tiles, or fewer if the payload may end before that; returns how
    /// many.
    fn decode_groups<const N: usize>(
        self,
        packed: &Packed,
        payload: &[u8],
        cursors: &mut [&mut Cursor; N],
        outs: &mut [&mut [u8]; N],
        groups: usize,
        wide: bool,
    ) -> usize;
}

/// The tables of one stream, in the form that the registers want.
#[derive(Default)]
pub(super) struct Packed {
    /// For each slot: symbol or rank, 8 bits; place in the interval, 12; frequency, 12.
    pub(super) slots: Vec<u32>,
    /// Low and high bytes of the symbols by rank, for symbols of two bytes.
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
    /// The symbols by rank.
    pub(super) symbols: Vec<u16>,
}

impl Packed {
    /// Fills the tables; `false` if the model has too many symbols for them.
    pub(super) fn fill(&mut self, model: &Model, width: Width) -> bool {
        if model.symbols.len() > 256 {
            return false;
        }
        self.slots.resize(SCALE as usize, 0);
        for (rank, (symbol, frequency, start)) in (0..).zip(model.intervals()) {
            let id = if width.bytes() == 1 { u32::from(symbol) } else { rank };
            let interval = start as usize..(start + frequency) as usize;
            for (place, slot) in (0..).zip(&mut self.slots[interval]) {
                *slot = id | place << 8 | frequency << 20;
            }
        }
        for (bytes, shift) in [(&mut self.low, 0), (&mut self.high, 8)] {
            bytes.clear();
            bytes.extend(model.symbols.iter().map(|symbol| (symbol >> shift) as u8));
            bytes.resize(256, 0);
        }
        self.symbols.clone_from(&model.symbols);
        self.symbols.resize(256, 0);
        true
    }
}

/// Decodes all tiles.
pub(super) fn decode(
    kernel: impl Kernel,
    packed: &Packed,
    slots: &Slots,
    tiles: &Tiles<'_>,
    tile: usize,
    width: Width,
    symbols: &mut [u8],
) -> Result<(), StreamError> {
    let mut t = 0;
    for run in symbols.chunks_mut(SIDE_BY_SIDE * tile * width.bytes()) {
        let mut parts = run.chunks_mut(tile * width.bytes());
        let mut next = || parts.next().unwrap_or_default();
        let outs: [&mut [u8]; SIDE_BY_SIDE] = [next(), next(), next(), next()];
        let present = outs.iter().filter(|out| !out.is_empty()).count();
        let mut cursors = [Cursor::of(tiles, t)?; SIDE_BY_SIDE];
        for (i, cursor) in cursors[..present].iter_mut().enumerate() {
            *cursor = Cursor::of(tiles, t + i)?;
        }
        t += present;
        let ends = decode_run(kernel, packed, tiles.payload, &mut cursors, outs, width);
        for (cursor, rest) in cursors.iter_mut().zip(ends).take(present) {
            decode_tail(slots, tiles.payload, cursor, width, rest);
            cursor.finish(tiles.payload)?;
        }
    }
    Ok(())
}

/// Decodes whole groups of up to four tiles; gives back what is left of each.
fn decode_run<'a>(
    kernel: impl Kernel,
    packed: &Packed,
    payload: &[u8],
    cursors: &mut [Cursor; SIDE_BY_SIDE],
    outs: [&'a mut [u8]; SIDE_BY_SIDE],
    width: Width,
) -> [&'a mut [u8]; SIDE_BY_SIDE] {
    let wide = width.bytes() == 2;
    let [a, b, c, d] = outs;
    // The tiles of a run are equally long, but for the last one and absent ones.
    let [[a, b], [c, d]] = {
        let [x, y, z, w] = cursors;
        let four = [&mut *x, y, z, w];
        let rests = groups_of(kernel, packed, payload, four, [a, b, c, d], wide);
        let [a, b, c, d] = rests;
        let [x, y, z, w] = cursors;
        [
            groups_of(kernel, packed, payload, [x, y], [a, b], wide),
            groups_of(kernel, packed, payload, [z, w], [c, d], wide),
        ]
    };
    let mut rests = [a, b, c, d];
    for (cursor, rest) in cursors.iter_mut().zip(&mut rests) {
        let [left] = groups_of(kernel, packed, payload, [cursor], [std::mem::take(rest)], wide);
        let [left] = last_groups(kernel, packed, payload, cursor, left, wide);
        *rest = left;
    }
    rests
}

/// Decodes whole groups at the end of the payload, where reading whole registers
/// would read behind it, from a copy.
fn last_groups<'a>(
    kernel: impl Kernel,
    packed: &Packed,
    payload: &[u8],
    cursor: &mut Cursor,
    out: &'a mut [u8],
    wide: bool,
) -> [&'a mut [u8]; 1] {
    let mut copy = [0; 2 * GROUP_READS];
    let words = payload.get(cursor.at..).unwrap_or_default();
    if words.len() >= GROUP_READS {
        return [out];
    }
    copy[..words.len()].copy_from_slice(words);
    let at = std::mem::take(&mut cursor.at);
    let rest = groups_of(kernel, packed, &copy, [&mut *cursor], [out], wide);
    cursor.at += at;
    rest
}

fn groups_of<'a, const N: usize>(
    kernel: impl Kernel,
    packed: &Packed,
    payload: &[u8],
    cursors: [&mut Cursor; N],
    outs: [&'a mut [u8]; N],
    wide: bool,
) -> [&'a mut [u8]; N] {
    let group_len = if wide { 2 * GROUP } else { GROUP };
    let groups = outs.iter().map(|out| out.len() / group_len).min().unwrap_or(0);
    let mut cursors = cursors;
    let mut outs = outs;
    let done = kernel.decode_groups(packed, payload, &mut cursors, &mut outs, groups, wide);
    outs.map(|out| &mut out[done * group_len..])
}
