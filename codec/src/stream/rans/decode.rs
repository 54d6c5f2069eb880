//! Decoder of the `rans` codec: the tables, the choice of a path, and the path for
//! every machine.

use super::header::{Letters, Parts, Tiles, symbol_count};
use super::model::Model;
use super::{GRANULE, GROUP, LANES, LOWER, SCALE, SCALE_BITS, STATES_LEN};
use crate::Scratch;
use crate::stream::{StreamError, Width, bitpack};

#[cfg(target_arch = "x86_64")]
use super::simd::{self, Packed};
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A way to decode on this machine. All of them give the same symbols and refuse the same streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable,
}

/// Every path that this machine has, the fastest first.
pub(super) fn paths() -> impl Iterator<Item = Path> {
    #[cfg(target_arch = "x86_64")]
    let simd = Avx512::new().map(Path::Avx512).into_iter().chain(Avx2::new().map(Path::Avx2));
    #[cfg(not(target_arch = "x86_64"))]
    let simd = std::iter::empty();
    simd.chain([Path::Portable])
}

/// The tables of one stream, reused from stream to stream.
#[derive(Default)]
pub(super) struct Tables {
    model: Model,
    slots: Slots,
    #[cfg(target_arch = "x86_64")]
    packed: Packed,
}

/// What each value of a state's low bits means.
#[derive(Default)]
pub(super) struct Slots {
    /// Frequency, and above it in the word the place inside the symbol's interval.
    steps: Vec<u32>,
    symbols: Vec<u16>,
}

impl Slots {
    fn fill(&mut self, model: &Model) {
        self.steps.resize(SCALE as usize, 0);
        self.symbols.resize(SCALE as usize, 0);
        for (symbol, frequency, start) in model.intervals() {
            let interval = start as usize..(start + frequency) as usize;
            self.symbols[interval.clone()].fill(symbol);
            for (place, step) in (0..).zip(&mut self.steps[interval]) {
                *step = frequency | place << 16;
            }
        }
    }
}

/// A tile in the middle of being decoded.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub(super) states: [u32; LANES],
    /// The next word, in bytes of the payload.
    pub(super) at: usize,
    /// The tile's end, in bytes of the payload.
    end: usize,
}

impl Cursor {
    /// The start of tile `t`.
    pub(super) fn of(tiles: &Tiles<'_>, t: usize) -> Result<Self, StreamError> {
        let range = tiles.range(t)?;
        let (states, _) = tiles.payload[range.clone()].as_chunks::<4>();
        let states: [u32; LANES] = std::array::from_fn(|lane| u32::from_le_bytes(states[lane]));
        if states.iter().any(|&state| state < LOWER) {
            return Err(StreamError::Invalid("a state is too small"));
        }
        Ok(Self { states, at: range.start + STATES_LEN, end: range.end })
    }

    /// Fails unless the tile has ended as an encoder ends it.
    pub(super) fn finish(&self, payload: &[u8]) -> Result<(), StreamError> {
        if self.states != [LOWER; LANES] {
            return Err(StreamError::Invalid("a state does not end where it began"));
        }
        match self.end.checked_sub(self.at) {
            Some(0) => Ok(()),
            Some(2) if payload[self.at..self.end] == [0, 0] => Ok(()),
            Some(2) => Err(StreamError::Invalid("padding is not zero")),
            _ => Err(StreamError::Length),
        }
    }
}

/// Decodes `stream` into `symbols`.
pub(super) fn decode(
    stream: &[u8],
    width: Width,
    scratch: &mut Scratch,
    symbols: &mut [u8],
) -> Result<(), StreamError> {
    let path = paths().next().unwrap_or(Path::Portable);
    decode_with(scratch, stream, width, symbols, path)
}

/// Decodes on a stated path.
pub(super) fn decode_with(
    scratch: &mut Scratch,
    stream: &[u8],
    width: Width,
    symbols: &mut [u8],
    path: Path,
) -> Result<(), StreamError> {
    let parts = Parts::of(stream, width)?;
    scratch.with(|tables, scratch| match parts.letters {
        Letters::Symbols => decode_letters(tables, parts, width, symbols, path),
        Letters::Packed => {
            let mut letters = scratch.buffer((symbols.len() * usize::from(width.bits())).div_ceil(8));
            let result = decode_letters(tables, parts, Width::BYTE, &mut letters, path)
                .and_then(|()| bitpack::Decoder::new(&letters, width, symbols.len()))
                .map(|packed| packed.unpack(0, symbols));
            scratch.recycle(letters);
            result
        }
    })
}

/// Decodes letters of a width.
fn decode_letters(
    tables: &mut Tables,
    parts: Parts<'_>,
    width: Width,
    symbols: &mut [u8],
    path: Path,
) -> Result<(), StreamError> {
    let n = symbol_count(symbols.len(), width)?;
    tables.model.read(parts.table, width)?;
    let tiles = parts.tiles(n, tables.model.symbols.len())?;
    if let [only] = tables.model.symbols[..] {
        fill(only, width, symbols);
        return Ok(());
    }
    if n == 0 {
        return Ok(());
    }
    tables.slots.fill(&tables.model);
    #[cfg(target_arch = "x86_64")]
    if !matches!(path, Path::Portable) && tables.packed.fill(&tables.model, width) {
        let Tables { slots, packed, .. } = tables;
        match path {
            Path::Avx512(avx512) => return simd::decode(avx512, packed, slots, &tiles, parts.tile, width, symbols),
            Path::Avx2(avx2) => return simd::decode(avx2, packed, slots, &tiles, parts.tile, width, symbols),
            Path::Portable => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let Path::Portable = path;
    for (t, tile) in symbols.chunks_mut(parts.tile * width.bytes()).enumerate() {
        let mut cursor = Cursor::of(&tiles, t)?;
        decode_tail(&tables.slots, tiles.payload, &mut cursor, width, tile);
        cursor.finish(tiles.payload)?;
    }
    Ok(())
}

fn fill(symbol: u16, width: Width, symbols: &mut [u8]) {
    if width.bytes() == 1 {
        symbols.fill(symbol as u8);
    } else {
        symbols.as_chunks_mut().0.fill(symbol.to_le_bytes());
    }
}

/// Decodes what is left of a tile, from the start of a group on, into `rest`.
pub(super) fn decode_tail(slots: &Slots, payload: &[u8], cursor: &mut Cursor, width: Width, rest: &mut [u8]) {
    if width.bytes() == 1 {
        decode_tail_of(slots, payload, cursor, rest.as_chunks_mut().0, |symbol| [symbol as u8]);
    } else {
        decode_tail_of(slots, payload, cursor, rest.as_chunks_mut().0, u16::to_le_bytes);
    }
}

fn decode_tail_of<T: Copy>(
    slots: &Slots,
    payload: &[u8],
    cursor: &mut Cursor,
    rest: &mut [T],
    put: impl Fn(u16) -> T + Copy,
) {
    let (Ok(steps), Ok(symbols)) = (slots.steps[..].try_into(), slots.symbols[..].try_into()) else { return };
    let slots = (steps, symbols);
    for group in rest.chunks_mut(GROUP) {
        let ahead = payload.get(cursor.at..).unwrap_or_default();
        let mut copy = [0; 2 * GROUP];
        let words = ahead.first_chunk().unwrap_or_else(|| {
            copy[..ahead.len()].copy_from_slice(ahead);
            &copy
        });
        let (Ok(words), mut used) = (words.as_chunks().0.try_into(), 0) else { return };
        for k in 0..GRANULE {
            if let Ok(group) = <&mut [T; GROUP]>::try_from(&mut *group) {
                for (lane, state) in cursor.states.iter_mut().enumerate() {
                    group[lane * GRANULE + k] = put(step(slots, words, &mut used, state));
                }
            } else {
                for (granule, state) in group.chunks_mut(GRANULE).zip(&mut cursor.states) {
                    if let Some(place) = granule.get_mut(k) {
                        *place = put(step(slots, words, &mut used, state));
                    }
                }
            }
        }
        cursor.at += 2 * used;
    }
}

/// Decodes one symbol of one lane. A group has at most as many words as symbols; those behind the
/// payload are zero, and that the tile is too short then shows in [`Cursor::finish`].
#[inline(always)]
fn step(
    (steps, symbols): (&[u32; SCALE as usize], &[u16; SCALE as usize]),
    words: &[[u8; 2]; GROUP],
    used: &mut usize,
    state: &mut u32,
) -> u16 {
    let slot = (*state % SCALE) as usize;
    let step = steps[slot];
    let x = (step & 0xffff) * (*state >> SCALE_BITS) + (step >> 16);
    let word = u32::from(u16::from_le_bytes(words[*used % GROUP]));
    // Nobody foresees which states need a word: no branch.
    let short = u32::from(x < LOWER);
    *state = x << (16 * short) | word & short.wrapping_neg();
    *used += short as usize;
    symbols[slot]
}
