//! The loop of all solvers: columns from left to right, each one's rounding errors passed on to those after it (Frantar et al.,
//! "GPTQ", 2023, Algorithm 1).
//!
//! Within a row every weight is lowered by `error · c` for one column after the other, each time a product and a difference of
//! single precision. Blocks, tiles and bands are how the work is laid out for caches; none of them changes an operation or the
//! order of two of them, so results are those of the plain loop, bit for bit.

use std::ops::Range;

use cmz_format::{Code, Error, Result};

use super::factor::Factor;

/// Columns of a block: what they do to columns after the block is done when the block is complete.
const BLOCK: usize = 128;
/// Columns of a tile, whose sums are kept in registers.
const TILE: usize = 16;

/// Some rows of a matrix, columns in solving order.
pub(super) struct Band {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) weights: Vec<f32>,
}

impl Band {
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.weights[row * self.columns..][..self.columns]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.weights[row * self.columns..][..self.columns]
    }
}

/// What a solver does to the columns that the sweep comes to.
pub(super) trait Steps {
    /// A group of columns begins; nothing is left to be passed on to them.
    fn begin(&mut self, band: &Band, columns: Range<usize>);

    /// Rounds a weight. Returns what it will decode to.
    fn round(&mut self, row: usize, column: usize, weight: f32) -> f32;
}

/// Goes through a band, in groups of `group` columns.
///
/// # Errors
/// [`Code::BadSource`] if weights do not stay finite, which only a Hessian that is no sum of squares makes them.
pub(super) fn sweep(factor: &Factor, group: usize, band: &mut Band, steps: &mut impl Steps) -> Result<()> {
    let columns = band.columns;
    let mut errors = vec![0.0; band.rows * BLOCK];
    for block in blocks(columns, group) {
        for part in split(block.clone(), group) {
            if part.start % group == 0 {
                let end = columns.min(part.start.saturating_add(group));
                steps.begin(band, part.start..end);
            }
            for (row, errors) in errors.chunks_exact_mut(BLOCK).enumerate() {
                let weights = &mut band.row_mut(row)[..block.end];
                for column in part.clone() {
                    let (head, rest) = weights.split_at_mut(column + 1);
                    let error = (head[column] - steps.round(row, column, head[column])) / factor.diagonal[column];
                    errors[column - block.start] = error;
                    if let Some(upper) = &factor.upper {
                        let upper = &upper[column * columns..][..block.end][column + 1..];
                        rest.iter_mut().zip(upper).for_each(|(weight, c)| *weight -= error * c);
                    }
                }
            }
        }
        if let Some(upper) = &factor.upper {
            pass_on(band, &errors, upper, block);
        }
    }
    if band.weights.iter().all(|weight| weight.is_finite()) {
        return Ok(());
    }
    let message = "errors that are passed on grow without bounds";
    Err(Error::new(Code::BadSource, message).with_help("use more damping, or collect the statistics again"))
}

/// The blocks of `columns` columns: no group lies in more than one, unless it is longer than a block.
fn blocks(columns: usize, group: usize) -> impl Iterator<Item = Range<usize>> {
    let group = group.min(columns.max(1));
    let whole = if group <= BLOCK { BLOCK / group * group } else { group };
    split(0..columns, whole).flat_map(|range| {
        let ends = range.end;
        range.step_by(BLOCK).map(move |start| start..ends.min(start + BLOCK))
    })
}

/// `range` cut at the multiples of `len`.
fn split(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let part = start..range.end.min((start / len + 1).saturating_mul(len));
        start = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// Passes the errors of a block on to all columns after it.
fn pass_on(band: &mut Band, errors: &[f32], upper: &[f32], block: Range<usize>) {
    let columns = band.columns;
    let mut tile = [[0.0; TILE]; BLOCK];
    for start in (block.end..columns).step_by(TILE) {
        let len = TILE.min(columns - start);
        for (c, row) in tile.iter_mut().zip(upper.chunks_exact(columns).skip(block.start).take(block.len())) {
            c[..len].copy_from_slice(&row[start..][..len]);
        }
        let tile = &tile[..block.len()];
        let mut rows = band.weights.chunks_exact_mut(columns).map(|row| &mut row[start..][..len]);
        let mut errors = errors.chunks_exact(BLOCK);
        // Two rows at once read the tile half as often, and fit into the registers of any machine.
        while let (Some(first), Some(errors_first)) = (rows.next(), errors.next()) {
            match (rows.next(), errors.next()) {
                (Some(second), Some(errors_second)) => lower([first, second], [errors_first, errors_second], tile),
                _ => lower([first], [errors_first], tile),
            }
        }
    }
}

/// Lowers the weights of `N` rows by their errors times a tile.
fn lower<const N: usize>(rows: [&mut [f32]; N], errors: [&[f32]; N], tile: &[[f32; TILE]]) {
    let mut sums = [[0.0; TILE]; N];
    for (sum, row) in sums.iter_mut().zip(&rows) {
        sum[..row.len()].copy_from_slice(row);
    }
    for (i, c) in tile.iter().enumerate() {
        for (sum, errors) in sums.iter_mut().zip(&errors) {
            let error = errors[i];
            sum.iter_mut().zip(c).for_each(|(sum, c)| *sum -= error * c);
        }
    }
    for (sum, row) in sums.iter().zip(rows) {
        row.copy_from_slice(&sum[..row.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_whole_groups() {
        for (columns, group) in
            [(1, 1), (384, 16), (384, 48), (390, 100), (1000, 128), (1000, 300), (300, usize::MAX), (7, 9)]
        {
            let blocks: Vec<Range<usize>> = blocks(columns, group).collect();
            assert_eq!(blocks.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..columns).collect::<Vec<_>>());
            for block in blocks {
                assert!(block.len() <= BLOCK);
                let ends_in_group = block.end % group != 0 && block.end != columns;
                assert!(!ends_in_group || group > BLOCK, "{block:?} cuts a group of {group}");
                assert!(block.start % group == 0 || group > BLOCK);
            }
        }
    }
}
