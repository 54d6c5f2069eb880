//! Where the values of a block are.

use arrayvec::ArrayVec;

use super::{Index, SIXTEEN};
use crate::encoding::{Array, Element};
use crate::stream::{StreamError, Width};

/// Columns of a piece of a row, at most: a count and a distance within it fit 16 bits.
pub(super) const PIECE: usize = 1 << 15;

const UNSOUND: StreamError = StreamError::Invalid("the positions of a run do not ascend within it");

/// The places of an array that values can be at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) index: Index,
    pub(super) elements: usize,
    pub(super) row: usize,
}

impl Places {
    pub(super) fn new(index: Index, elements: usize, row: usize) -> Self {
        Self { index, elements, row: row.min(elements).max(1) }
    }

    /// The component arrays that tell the places, as short as they can be.
    pub(super) fn components(&self) -> ArrayVec<(&'static str, Array), 2> {
        match self.index {
            Index::Bitmap => {
                let bytes = Array::vector(Element::Symbol(Width::BYTE), self.elements.div_ceil(8));
                [("bitmap", bytes)].into_iter().collect()
            }
            Index::Rows => {
                let pieces = self.runs_of(PIECE).count();
                let counts = Array::of_symbols(SIXTEEN, pieces).in_rows(self.row.div_ceil(PIECE));
                [("counts", counts), ("deltas", self.deltas(0))].into_iter().collect()
            }
            Index::NOfM { m, .. } => {
                let width = Width::new((m - 1).ilog2() as u8 + 1);
                [("positions", Array::of_symbols(width, self.least()))].into_iter().collect()
            }
        }
    }

    /// As [`Self::components`], as long as they can be.
    pub(super) fn longest_components(&self) -> ArrayVec<(&'static str, Array), 2> {
        let longest = |(name, array)| (name, if name == "deltas" { self.deltas(self.most()) } else { array });
        self.components().into_iter().map(longest).collect()
    }

    /// The array with `count` distances.
    pub(super) fn deltas(&self, count: usize) -> Array {
        Array::of_symbols(SIXTEEN, count)
    }

    /// Number of values that there are in any case.
    pub(super) fn least(&self) -> usize {
        match self.index {
            Index::Bitmap | Index::Rows => 0,
            Index::NOfM { n, m } => {
                let (n, m) = (usize::from(n), usize::from(m));
                let of_row = |len: usize| len / m * n + (len % m).min(n);
                self.elements / self.row * of_row(self.row) + of_row(self.elements % self.row)
            }
        }
    }

    /// Number of values that there are at most.
    pub(super) fn most(&self) -> usize {
        match self.index {
            Index::Bitmap | Index::Rows => self.elements,
            Index::NOfM { .. } => self.least(),
        }
    }

    /// Number of values, by the first of the component arrays.
    pub(super) fn count(&self, index: &[u8]) -> Result<usize, StreamError> {
        match self.index {
            Index::Bitmap => {
                let spare = index.len() * 8 - self.elements;
                if spare > 0 && index[index.len() - 1].leading_zeros() < spare as u32 {
                    return Err(StreamError::Invalid("a bit is set behind the last element"));
                }
                // By words, since many machines count by a sequence of instructions, whatever the width.
                let (words, rest) = index.as_chunks();
                let words = words.iter().map(|&word| u64::from_le_bytes(word).count_ones());
                Ok(words.chain(rest.iter().map(|byte| byte.count_ones())).map(|count| count as usize).sum())
            }
            Index::Rows => self.runs_of(PIECE).zip(counts(index)).try_fold(0, |sum, (piece, count)| {
                if count > piece.len() {
                    return Err(StreamError::Invalid("a row has more values than elements"));
                }
                Ok(sum + count)
            }),
            Index::NOfM { .. } => Ok(self.least()),
        }
    }

    /// Hands out every place, in order: as many as [`Self::count`] says, unless there is an error.
    #[inline(always)]
    pub(super) fn for_each(&self, index: &[&[u8]], mut visit: impl FnMut(usize)) -> Result<(), StreamError> {
        match self.index {
            Index::Bitmap => {
                self.count(index[0])?;
                for (i, bytes) in index[0].chunks(8).enumerate() {
                    let mut word = [0; 8];
                    word[..bytes.len()].copy_from_slice(bytes);
                    let mut word = u64::from_le_bytes(word);
                    while word != 0 {
                        visit(64 * i + word.trailing_zeros() as usize);
                        word &= word - 1;
                    }
                }
            }
            Index::Rows => {
                let mut deltas = counts(index[1]);
                for (piece, count) in self.runs_of(PIECE).zip(counts(index[0])) {
                    let mut next = piece.start;
                    for delta in deltas.by_ref().take(count) {
                        let place = next + delta;
                        if place >= piece.end {
                            return Err(StreamError::Invalid("a value is behind the end of its row"));
                        }
                        visit(place);
                        next = place + 1;
                    }
                }
            }
            // The common numbers as constants, so that their loops are unrolled.
            Index::NOfM { n: 2, m: 4 } => self.for_each_of_runs(2, 4, index[0], visit)?,
            Index::NOfM { n: 1, m: 2 } => self.for_each_of_runs(1, 2, index[0], visit)?,
            Index::NOfM { n: 4, m: 8 } => self.for_each_of_runs(4, 8, index[0], visit)?,
            Index::NOfM { n, m } => self.for_each_of_runs(n.into(), m.into(), index[0], visit)?,
        }
        Ok(())
    }

    /// Fills all elements, with values at the places and zeros elsewhere, writing each run at once; `None` if it does not pay.
    pub(super) fn fill<B: Copy + Default>(
        &self,
        positions: &[u8],
        values: &[B],
        elements: &mut [B],
    ) -> Option<Result<(), StreamError>> {
        match self.index {
            Index::NOfM { n: 2, m: 4 } => Some(self.fill_runs(2, 4, positions, values, elements)),
            Index::NOfM { n: 1, m: 2 } => Some(self.fill_runs(1, 2, positions, values, elements)),
            Index::NOfM { n: 4, m: 8 } => Some(self.fill_runs(4, 8, positions, values, elements)),
            _ => None,
        }
    }

    #[inline(always)]
    fn fill_runs<B: Copy + Default>(
        &self,
        n: usize,
        m: usize,
        mut positions: &[u8],
        mut values: &[B],
        elements: &mut [B],
    ) -> Result<(), StreamError> {
        if positions.len() != self.least() || values.len() != self.least() {
            return Err(StreamError::Length);
        }
        let mut sound = true;
        for row in elements.chunks_mut(self.row) {
            let (runs, last) = row.split_at_mut(row.len() / m * m);
            let count = runs.len() / m * n + n.min(last.len());
            let (of_row, values_of_row);
            (of_row, positions) = positions.split_at(count);
            (values_of_row, values) = values.split_at(count);
            let whole = runs.chunks_exact_mut(m).zip(of_row.chunks_exact(n)).zip(values_of_row.chunks_exact(n));
            for ((run, positions), values) in whole {
                sound &= fill_run(run, positions, values);
            }
            let first = runs.len() / m * n;
            sound &= fill_run(last, &of_row[first..], &values_of_row[first..]);
        }
        if sound { Ok(()) } else { Err(UNSOUND) }
    }

    /// Hands out the `n` places of each run of `m` elements.
    #[inline(always)]
    fn for_each_of_runs(
        &self,
        n: usize,
        m: usize,
        positions: &[u8],
        mut visit: impl FnMut(usize),
    ) -> Result<(), StreamError> {
        let (mut rest, mut sound) = (positions, true);
        for row in (0..self.elements).step_by(self.row) {
            let whole = (self.elements - row).min(self.row) / m;
            let (of_whole, others) = rest.split_at_checked(whole * n).ok_or(StreamError::Length)?;
            for (i, positions) in of_whole.chunks_exact(n).enumerate() {
                sound &= visit_run(row + i * m, m, positions, &mut visit);
            }
            let last = row + whole * m;
            let len = self.elements.min(row + self.row) - last;
            let (of_last, others) = others.split_at_checked(n.min(len)).ok_or(StreamError::Length)?;
            sound &= visit_run(last, len, of_last, &mut visit);
            rest = others;
        }
        if sound { Ok(()) } else { Err(UNSOUND) }
    }

    /// Writes the positions of the elements of greatest magnitude in each run, and hands them out.
    pub(super) fn choose(&self, positions: &mut [u8], magnitude: impl Fn(usize) -> f32, mut visit: impl FnMut(usize)) {
        let Index::NOfM { n, m } = self.index else { return };
        let mut rest = positions.iter_mut();
        for run in self.runs_of(m.into()) {
            let mut places: Vec<usize> = run.clone().collect();
            places.sort_by(|&a, &b| magnitude(b).total_cmp(&magnitude(a)));
            places.truncate(n.into());
            places.sort_unstable();
            for (place, position) in places.into_iter().zip(rest.by_ref()) {
                *position = (place - run.start) as u8;
                visit(place);
            }
        }
    }

    /// The rows, cut into runs of `len` elements from the beginning of each.
    pub(super) fn runs_of(&self, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let Self { elements, row, .. } = *self;
        (0..elements).step_by(row).flat_map(move |start| {
            let end = (start + row).min(elements);
            (start..end).step_by(len).map(move |start| start..(start + len).min(end))
        })
    }
}

/// Hands out the places of a run of `len` elements that begins at `start`; false if they do not ascend within it. Then
/// those that are handed out lie within it all the same.
#[inline(always)]
fn visit_run(start: usize, len: usize, positions: &[u8], visit: &mut impl FnMut(usize)) -> bool {
    let (mut next, mut sound) = (0, true);
    for &position in positions {
        let position = usize::from(position);
        sound &= position >= next && position < len;
        visit(start + position.min(len - 1));
        next = position + 1;
    }
    sound
}

/// Fills a run; false if the positions do not ascend within it.
#[inline(always)]
fn fill_run<B: Copy + Default>(run: &mut [B], positions: &[u8], values: &[B]) -> bool {
    run.fill(B::default());
    let mut values = values.iter();
    visit_run(0, run.len(), positions, &mut |i| {
        if let Some(&value) = values.next() {
            run[i] = value;
        }
    })
}

/// Symbols of 16 bits.
pub(super) fn counts(symbols: &[u8]) -> impl Iterator<Item = usize> {
    symbols.as_chunks().0.iter().map(|&symbol| u16::from_le_bytes(symbol).into())
}
