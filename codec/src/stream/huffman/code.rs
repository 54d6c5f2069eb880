//! Lengths of codes: from counts, to bytes and back; and the codes that they stand for.

use super::LONGEST;
use crate::stream::symbol_set::{self, take_byte};
use crate::stream::{StreamError, Width};

/// The used symbols, ascending, and the lengths of their codes in bits.
#[derive(Default)]
pub(super) struct Code {
    pub(super) symbols: Vec<u16>,
    /// Empty if there are fewer than two symbols.
    pub(super) lengths: Vec<u8>,
}

/// An item of package-merge: its weight, and which item of its list it is.
type Item = (u64, u16);

/// Buffers of [`Code::fit`].
#[derive(Default)]
pub(super) struct Packages {
    /// The used symbols by ascending count.
    leaves: Vec<Item>,
    /// The lists, from the longest codes on, and where each begins.
    items: Vec<Item>,
    starts: Vec<usize>,
}

/// The number of an item that is a package of two items of the list before.
const PACKAGE: u16 = u16::MAX;

impl Code {
    /// An optimal code of at most [`LONGEST`] bits for an array with these counts.
    pub(super) fn fit(&mut self, counts: &[u32], packages: &mut Packages) {
        self.symbols.clear();
        self.symbols.reserve(counts.len());
        self.symbols.extend((0..=u16::MAX).zip(counts).filter(|&(_, &count)| count > 0).map(|(symbol, _)| symbol));
        self.lengths.clear();
        self.lengths.reserve(counts.len());
        let m = self.symbols.len();
        if m < 2 {
            return;
        }
        self.lengths.resize(m, 0);
        packages.leaves.clear();
        packages.leaves.reserve(counts.len());
        packages.items.clear();
        packages.items.reserve(2 * LONGEST * counts.len());
        let weight = |symbol: &u16| u64::from(counts[usize::from(*symbol)]);
        packages.leaves.extend(self.symbols.iter().map(weight).zip(0..));
        packages.leaves.sort_unstable();
        packages.merge();
        // The cheapest 2m - 2 items of the last list; each of them that is a leaf, and each
        // leaf inside a package, makes its symbol's code one bit longer.
        let mut taken = 2 * m - 2;
        for list in (0..packages.starts.len()).rev() {
            let start = packages.starts[list];
            let items = &packages.items[start..start + taken];
            let leaves = items.iter().filter(|item| item.1 != PACKAGE);
            leaves.for_each(|item| self.lengths[usize::from(item.1)] += 1);
            taken = 2 * items.iter().filter(|item| item.1 == PACKAGE).count();
        }
    }

    /// Appends the table to `out`.
    pub(super) fn put(&self, counts: &[u32], out: &mut Vec<u8>) {
        symbol_set::put(counts, out);
        out.extend(self.lengths.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4));
    }

    /// Reads a table that fills `bytes`.
    pub(super) fn read(&mut self, mut bytes: &[u8], width: Width) -> Result<(), StreamError> {
        symbol_set::take(&mut bytes, width, &mut self.symbols)?;
        self.lengths.clear();
        self.lengths.reserve((1 << width.bits()) + 1);
        let m = self.symbols.len();
        if m >= 2 {
            for _ in 0..m.div_ceil(2) {
                let pair = take_byte(&mut bytes)?;
                self.lengths.extend([pair & 15, pair >> 4]);
            }
            let spare = self.lengths[m..].iter().any(|&length| length != 0);
            self.lengths.truncate(m);
            if spare || self.lengths.iter().any(|length| !(1..=LONGEST as u8).contains(length)) {
                return Err(StreamError::Invalid("not the length of a code"));
            }
            if self.lengths.iter().map(|length| 1 << (LONGEST - usize::from(*length))).sum::<usize>() != 1 << LONGEST {
                return Err(StreamError::Invalid("the code is not complete"));
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(StreamError::Invalid("bytes behind the table of lengths")) }
    }

    /// Each symbol with its code, reversed so that the first bit is the lowest, and its length.
    pub(super) fn codes(&self) -> impl Iterator<Item = (u16, u16, u8)> + '_ {
        let mut next = [0u16; LONGEST + 2];
        for &length in &self.lengths {
            next[usize::from(length) + 1] += 1;
        }
        let mut code = 0;
        for first in &mut next[1..] {
            code = (code + *first) << 1;
            *first = code;
        }
        self.symbols.iter().zip(&self.lengths).map(move |(&symbol, &length)| {
            let code = &mut next[usize::from(length)];
            *code += 1;
            (symbol, (*code - 1).reverse_bits() >> (16 - length), length)
        })
    }
}

impl Packages {
    /// Builds the lists: each is the leaves merged with the pairs of the list before.
    fn merge(&mut self) {
        self.items.clear();
        self.starts.clear();
        let mut previous = 0..0;
        for _ in 0..LONGEST {
            let start = self.items.len();
            let mut leaves = self.leaves.iter().copied().peekable();
            for pair in previous.clone().step_by(2).take(previous.len() / 2) {
                let weight = self.items[pair].0 + self.items[pair + 1].0;
                while let Some(leaf) = leaves.next_if(|leaf| leaf.0 <= weight) {
                    self.items.push(leaf);
                }
                self.items.push((weight, PACKAGE));
            }
            self.items.extend(leaves);
            self.starts.push(start);
            previous = start..self.items.len();
        }
    }
}
