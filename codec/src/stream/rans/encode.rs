//! Encoder of the `rans` codec.

use super::header::Letters;
use super::model::Model;
use super::{GRANULE, GROUP, LANES, LOWER, SCALE, SCALE_BITS, STATES_LEN};
use crate::Scratch;
use crate::stream::counter::{Counter, value};
use crate::stream::{Level, Width, bitpack};

#[cfg(target_arch = "x86_64")]
use super::avx512_encode::Avx512;

/// Tiles that are encoded side by side.
pub(super) const SIDE_BY_SIDE: usize = 4;
/// Letters of packed symbols may cost one part in so many more than the symbols.
const PACKING_COST: u64 = 64;
/// Fixed point of the reciprocals. States are below `frequency << 20` where they are
/// divided, which makes the quotients exact and the products fit 64 bits.
const RECIPROCAL_BITS: u32 = 44;

/// What encoding a symbol takes.
#[derive(Clone, Copy, Default)]
struct Step {
    reciprocal: u64,
    frequency: u32,
    start: u32,
}

/// Tables and buffers, reused from stream to stream.
#[derive(Default)]
pub(super) struct Encoder {
    counter: Counter,
    model: Model,
    /// By symbol.
    steps: Vec<Step>,
    /// By symbol: frequency, and above it the sum of the frequencies before.
    packed: Vec<u32>,
    /// Words of each of the tiles side by side, written from the back.
    words: [Vec<u16>; SIDE_BY_SIDE],
}

/// A tile in the middle of being encoded.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub(super) states: [u32; LANES],
    /// The word last written.
    pub(super) at: usize,
}

/// Appends the stream for `symbols` to `out`, with the widest instructions there are or without any.
pub(super) fn encode_with(
    symbols: &[u8],
    width: Width,
    level: Level,
    scratch: &mut Scratch,
    simd: bool,
    out: &mut Vec<u8>,
) {
    scratch.with::<Encoder, _>(|encoder, scratch| {
        if Letters::Packed.symbols_log(width).is_some() {
            let mut letters = scratch.buffer(0);
            bitpack::append(symbols, width, &mut letters);
            let pays = encoder.packing_pays(&letters, width, symbols.len());
            if pays {
                encoder.encode(&letters, Letters::Packed, width, level, simd, out);
            }
            scratch.recycle(letters);
            if pays {
                return;
            }
        }
        encoder.encode(symbols, Letters::Symbols, width, level, simd, out);
    });
}

impl Encoder {
    /// Whether packed letters are decoded so much faster than `n` symbols of a width that they are worth what they cost.
    fn packing_pays(&mut self, letters: &[u8], width: Width, n: usize) -> bool {
        let counts = self.counter.count(letters, Width::BYTE);
        let of_letter = 8 / width.bits();
        let mut of_symbols = [0; 16];
        let of_symbols = &mut of_symbols[..1 << width.bits()];
        for (letter, &count) in counts.iter().enumerate() {
            for i in 0..of_letter {
                of_symbols[letter >> (i * width.bits()) & ((1 << width.bits()) - 1)] += count;
            }
        }
        // The last letter is filled up with zeros.
        of_symbols[0] -= (letters.len() * usize::from(of_letter) - n) as u32;
        self.model.fit(counts);
        let distinct = self.model.symbols.len();
        let packed = self.model.cost(counts);
        self.model.fit(of_symbols);
        let plain = self.model.cost(of_symbols);
        distinct >= 2 && packed <= plain + plain / PACKING_COST
    }

    /// Appends the stream of letters of symbols of a width.
    fn encode(&mut self, symbols: &[u8], letters: Letters, width: Width, level: Level, simd: bool, out: &mut Vec<u8>) {
        let log = letters.symbols_log(width).unwrap_or_default() as u8;
        let width = letters.width(width);
        let tile_log = match (level, letters) {
            (Level::Fast, Letters::Symbols) => 14,
            (Level::Fast, Letters::Packed) => 13,
            (Level::Max, _) if width.bytes() == 1 => 17 - log,
            (Level::Max, _) => 16,
        };
        let counts = self.counter.count(symbols, width);
        self.model.fit(counts);
        let start = out.len();
        out.extend_from_slice(&[tile_log, letters as u8, 0, 0]);
        self.model.put(counts, out);
        let table_len = (out.len() - start - 4) as u16;
        out[start + 2..start + 4].copy_from_slice(&table_len.to_le_bytes());
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);

        let tile = 1 << tile_log;
        let distinct = self.model.symbols.len();
        let tiles = if distinct < 2 { 0 } else { (symbols.len() / width.bytes()).div_ceil(tile) };
        let ends = out.len();
        out.resize(ends + 4 * (tiles + 1), 0);
        if tiles > 0 {
            self.fill_tables(width);
            self.encode_tiles(symbols, width, tile, simd, ends, out);
        }
    }

    fn fill_tables(&mut self, width: Width) {
        let size = if width.bytes() == 1 { 256 } else { SCALE as usize };
        self.steps.resize(size, Step::default());
        self.packed.resize(size, 0);
        for (symbol, frequency, start) in self.model.intervals() {
            let reciprocal = (1u64 << RECIPROCAL_BITS).div_ceil(u64::from(frequency));
            self.steps[usize::from(symbol)] = Step { reciprocal, frequency, start };
            self.packed[usize::from(symbol)] = frequency | start << 16;
        }
    }

    fn encode_tiles(&mut self, symbols: &[u8], width: Width, tile: usize, simd: bool, ends: usize, out: &mut Vec<u8>) {
        // One word more than there are symbols: the place that is written to in vain.
        let words_len = tile.min(symbols.len() / width.bytes()) + 1;
        for words in &mut self.words {
            words.resize(words_len.max(words.len()), 0);
        }
        let payload = out.len();
        let mut t = 0;
        for run in symbols.chunks(SIDE_BY_SIDE * tile * width.bytes()) {
            let mut parts = run.chunks(tile * width.bytes());
            let tiles: [&[u8]; SIDE_BY_SIDE] = std::array::from_fn(|_| parts.next().unwrap_or_default());
            let cursors = self.encode_run(tiles, width, simd);
            for ((cursor, words), _) in cursors.iter().zip(&self.words).zip(tiles.iter().filter(|t| !t.is_empty())) {
                append(cursor, words, payload, out);
                t += 1;
                let end = ((out.len() - payload) / 4) as u32;
                out[ends + 4 * t..][..4].copy_from_slice(&end.to_le_bytes());
            }
        }
    }

    fn encode_run(&mut self, mut tiles: [&[u8]; SIDE_BY_SIDE], width: Width, simd: bool) -> [Cursor; SIDE_BY_SIDE] {
        let mut cursors = std::array::from_fn(|i| Cursor { states: [LOWER; LANES], at: self.words[i].len() });
        #[cfg(target_arch = "x86_64")]
        if simd && let Some(avx512) = Avx512::new() {
            // Encoding goes backwards: what is no whole group comes first.
            let group_len = GROUP * width.bytes();
            for ((tile, cursor), words) in tiles.iter_mut().zip(&mut cursors).zip(&mut self.words) {
                let (groups, rest) = tile.split_at(tile.len() / group_len * group_len);
                encode_part(&self.steps, rest, width, cursor, words);
                *tile = groups;
            }
            avx512.encode(&self.packed, tiles, width, &mut cursors, &mut self.words);
            return cursors;
        }
        let _ = simd;
        for ((tile, cursor), words) in tiles.iter_mut().zip(&mut cursors).zip(&mut self.words) {
            encode_part(&self.steps, tile, width, cursor, words);
        }
        cursors
    }
}

/// Appends a tile.
fn append(cursor: &Cursor, words: &[u16], payload: usize, out: &mut Vec<u8>) {
    let words = &words[cursor.at..];
    let start = out.len();
    out.resize(payload + (start - payload + STATES_LEN + 2 * words.len()).next_multiple_of(4), 0);
    let (states, rest) = out[start..].split_at_mut(STATES_LEN);
    for (place, state) in states.as_chunks_mut().0.iter_mut().zip(cursor.states) {
        *place = state.to_le_bytes();
    }
    for (place, word) in rest.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
}

/// Encodes symbols that begin a group, from the last to the first.
fn encode_part(steps: &[Step], part: &[u8], width: Width, cursor: &mut Cursor, words: &mut [u16]) {
    // A copy stays in a register.
    let mut at = cursor.at;
    for group in part.chunks(GROUP * width.bytes()).rev() {
        for k in (0..GRANULE).rev() {
            for (granule, state) in group.chunks(GRANULE * width.bytes()).zip(&mut cursor.states).rev() {
                if let Some(symbol) = granule.get(k * width.bytes()..(k + 1) * width.bytes()) {
                    encode_symbol(&steps[usize::from(value(symbol))], state, &mut at, words);
                }
            }
        }
    }
    cursor.at = at;
}

#[inline(always)]
fn encode_symbol(step: &Step, state: &mut u32, at: &mut usize, words: &mut [u16]) {
    let x = *state;
    let full = x >= step.frequency << (32 - SCALE_BITS);
    words[*at - 1] = x as u16;
    *at -= usize::from(full);
    let x = if full { x >> 16 } else { x };
    let quotient = ((u64::from(x) * step.reciprocal) >> RECIPROCAL_BITS) as u32;
    *state = x + step.start + quotient * (SCALE - step.frequency);
}
