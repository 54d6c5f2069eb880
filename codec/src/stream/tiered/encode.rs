//! Encoder of the `tiered` codec.

use std::cmp::Reverse;
use std::ops::Range;

use super::kernel::{Buffers, Kernel, Path, STEP};
use super::{NAMED, PREFIX, TIERS, TILE};

/// Symbols of longer arrays are counted in so many runs, of so many symbols; shorter
/// arrays are counted whole.
const RUNS: usize = 512;
const RUN: usize = 64;
/// Runs that memory is asked for before their turn: they are too far apart for the machine
/// to see them coming.
const AHEAD: usize = 16;

/// Writes one stream, tile by tile.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    kernel: &'static dyn Kernel,
    named: [u8; NAMED],
    out: &'a mut Vec<u8>,
    /// Where the next tile's end goes.
    end: usize,
    payload: usize,
}

impl<'a> Encoder<'a> {
    /// Begins the stream of `len` symbols behind `out`; `run` gives the symbols in a range, and
    /// `prefetch` asks for the memory they are in.
    pub(crate) fn new<I: Iterator<Item = u8>>(
        path: Path,
        len: usize,
        run: impl Fn(Range<usize>) -> I,
        prefetch: impl Fn(Range<usize>),
        out: &'a mut Vec<u8>,
    ) -> Self {
        let named = commonest(len, run, prefetch);
        out.extend_from_slice(&named);
        out.extend_from_slice(&[0; PREFIX - NAMED]);
        let end = out.len() + 4;
        out.resize(end + 4 * len.div_ceil(TILE), 0);
        let payload = out.len();
        Self { kernel: path.kernel(), named, out, end, payload }
    }

    /// Appends the next tile.
    pub(crate) fn tile(&mut self, symbols: &[u8], buffers: &mut Buffers) {
        let [even, odd] = &mut buffers.tiers;
        let (elements, named) = (symbols.len(), self.names(0));
        let escapes = if elements.is_multiple_of(STEP) {
            self.kernel.encode_tier(symbols, elements, named, &mut buffers.planes, odd)
        } else {
            even[..elements].copy_from_slice(symbols);
            self.kernel.encode_tier(even, elements, named, &mut buffers.planes, odd)
        };
        self.finish_tile(elements, escapes, buffers);
    }

    /// Splits a whole tile of BF16 elements and appends the tile of their exponents.
    pub(crate) fn tile_bf16(&mut self, data: &[u8; 2 * TILE], buffers: &mut Buffers, sign_mantissa: &mut [u8; TILE]) {
        let [_, odd] = &mut buffers.tiers;
        let escapes = self.kernel.encode_bf16(data, self.names(0), &mut buffers.planes, odd, sign_mantissa);
        self.finish_tile(TILE, escapes, buffers);
    }

    /// Appends a tile of which tier 0 is in the planes and tier 1 in the odd buffer.
    fn finish_tile(&mut self, mut elements: usize, mut escapes: usize, buffers: &mut Buffers) {
        let Buffers { tiers: [even, odd], tile, planes } = buffers;
        let (mut from, mut to) = (odd, even);
        let mut at = 0;
        for k in 1..=TIERS {
            for plane in [&planes.low, &planes.high] {
                let words = &mut tile[at..][..8 * elements.div_ceil(STEP)];
                for (bytes, word) in words.as_chunks_mut::<8>().0.iter_mut().zip(plane) {
                    *bytes = word.to_le_bytes();
                }
                at += elements.div_ceil(8);
            }
            elements = escapes;
            if k < TIERS {
                escapes = self.kernel.encode_tier(from, elements, self.names(k), planes, to);
                (from, to) = (to, from);
            }
        }
        tile[at..][..elements].copy_from_slice(&from[..elements]);
        at += elements;
        tile[at..at.next_multiple_of(4)].fill(0);
        self.out.extend_from_slice(&tile[..at.next_multiple_of(4)]);
        let end = ((self.out.len() - self.payload) / 4) as u32;
        self.out[self.end..][..4].copy_from_slice(&end.to_le_bytes());
        self.end += 4;
    }

    /// Symbols of tier `k`.
    fn names(&self, k: usize) -> [u8; 3] {
        [self.named[3 * k], self.named[3 * k + 1], self.named[3 * k + 2]]
    }
}

/// The twelve commonest symbols of a sample, by descending count, the smaller value
/// first among equals.
fn commonest<I: Iterator<Item = u8>>(
    len: usize,
    run: impl Fn(Range<usize>) -> I,
    prefetch: impl Fn(Range<usize>),
) -> [u8; NAMED] {
    // Four tables: equal symbols in a row do not wait for each other's count.
    let mut counts = [[0u32; 256]; 4];
    let mut ahead = sample(len).skip(1);
    ahead.by_ref().take(AHEAD).for_each(&prefetch);
    for range in sample(len) {
        ahead.next().into_iter().for_each(&prefetch);
        for (i, symbol) in run(range).enumerate() {
            counts[i % 4][usize::from(symbol)] += 1;
        }
    }
    let total = |symbol: u8| counts.iter().map(|table| table[usize::from(symbol)]).sum::<u32>();
    let mut order: [(Reverse<u32>, u8); 256] = std::array::from_fn(|i| (Reverse(total(i as u8)), i as u8));
    order.sort_unstable();
    std::array::from_fn(|i| order[i].1)
}

/// The ranges of an array of `len` symbols that are counted. Runs lie at hashed places,
/// so that they do not keep step with the columns of a matrix.
fn sample(len: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = len <= RUNS * RUN;
    let period = len / RUNS;
    let runs = (0..if whole { 0 } else { RUNS }).map(move |i| {
        let hash = u64::from((i as u32).wrapping_mul(0x9e37_79b1));
        let start = period * i + ((hash * (period - RUN + 1) as u64) >> 32) as usize;
        start..start + RUN
    });
    runs.chain(whole.then_some(0..len))
}
