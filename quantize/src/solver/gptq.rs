//! GPTQ (Frantar et al., ICLR 2023) onto any grid.

use std::ops::Range;

use cmz_codec::pipeline;
use cmz_format::Result;

use super::sweep::{Band, Steps, sweep};
use super::{BAND_ROWS, Solver, invalid, to_matrix};
use crate::Matrix;

/// What weights are rounded to: codes, whose values are those of a group.
pub trait Grid: Sync {
    /// What is stored of a group of weights of one row besides their codes: its scale, its zero point.
    type Group: Clone + Send + Sync;

    /// Chooses a group for these weights.
    fn fit(&self, weights: &[f32]) -> Self::Group;

    /// The code for a weight.
    fn code(&self, group: &Self::Group, weight: f32) -> u8;

    /// What a code decodes to. It should be exactly that, or the solver makes up for other errors than there are; it must be finite.
    fn value(&self, group: &Self::Group, code: u8) -> f32;
}

/// When a group is fitted, and which columns are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Groups are runs of columns in solving order, each fitted when the solver comes to it, to weights that already make up for
    /// the errors before them. With [`Order::Activation`](super::Order) the result's columns are stored in solving order.
    Compensated,
    /// Groups are runs of columns of the matrix, fitted to its weights as they were. Columns are stored as in the matrix,
    /// whatever the order of solving.
    Static,
}

/// A matrix on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Gptq<G> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Columns of a group, which divides each row; the last one of a row may be shorter.
    pub group: usize,
    /// A code for each weight, row by row, columns in stored order.
    pub codes: Vec<u8>,
    /// ⌈`columns` / `group`⌉ groups of each row, row by row.
    pub groups: Vec<G>,
    /// `order[i]` is the column of the matrix that is stored as column `i`; `None` if that is column `i`.
    pub order: Option<Vec<u32>>,
}

impl Solver {
    /// Rounds weights to a grid, in groups of `group` columns (at least one; all of them are one group if they are not more).
    ///
    /// With [`Statistics::identity`](super::Statistics::identity) it rounds to nearest.
    ///
    /// # Errors
    /// [`InvalidArgument`](cmz_format::Code::InvalidArgument) if `weights` has not the columns of the statistics, if a weight is not
    /// finite, or if `group` is 0.
    pub fn gptq<G: Grid>(&self, weights: &Matrix, grid: &G, group: usize, fit: Fit) -> Result<Gptq<G::Group>> {
        self.check(weights)?;
        if group == 0 {
            return Err(invalid("groups of no columns".into(), "give at least one"));
        }
        let (rows, columns) = (weights.rows(), weights.columns());
        let group = group.min(columns.max(1));
        let mut codes = Vec::with_capacity(rows * columns);
        let mut groups = Vec::with_capacity(rows * columns.div_ceil(group));
        let solve = |first: usize| self.gptq_band(weights, grid, group, fit, first..rows.min(first + BAND_ROWS));
        pipeline::ordered(
            self.options.threads,
            (0..rows).step_by(BAND_ROWS),
            |first, _| solve(first),
            |(band_codes, band_groups)| {
                codes.extend(band_codes);
                groups.extend(band_groups);
                Ok(())
            },
        )?;
        let order = if fit == Fit::Static { None } else { self.stored_order() };
        Ok(Gptq { rows, columns, group, codes, groups, order })
    }

    /// Codes and groups of some rows.
    fn gptq_band<G: Grid>(
        &self,
        weights: &Matrix,
        grid: &G,
        group: usize,
        fit: Fit,
        rows: Range<usize>,
    ) -> Result<(Vec<u8>, Vec<G::Group>)> {
        let mut band = self.band(weights, rows.start, rows.len());
        let columns = band.columns;
        let codes = vec![0; rows.len() * columns];
        // The stored column of each column that is solved.
        let stored: Vec<usize> = match fit {
            Fit::Compensated => (0..columns).collect(),
            Fit::Static => self.order.iter().map(|&column| column as usize).collect(),
        };
        let mut groups = vec![None; rows.len() * columns.div_ceil(group)];
        if fit == Fit::Static {
            let mut row_weights = vec![0.0; columns];
            for (row, groups) in groups.chunks_exact_mut(columns.div_ceil(group).max(1)).enumerate() {
                stored.iter().zip(band.row(row)).for_each(|(&column, &weight)| row_weights[column] = weight);
                groups.iter_mut().zip(row_weights.chunks(group)).for_each(|(fitted, w)| *fitted = Some(grid.fit(w)));
            }
        }
        let mut rounding = Rounding { grid, group, fit, columns, stored, codes, groups };
        sweep(&self.factor, group, &mut band, &mut rounding)?;
        Ok((rounding.codes, rounding.groups.into_iter().flatten().collect()))
    }
}

struct Rounding<'a, G: Grid> {
    grid: &'a G,
    group: usize,
    fit: Fit,
    columns: usize,
    stored: Vec<usize>,
    codes: Vec<u8>,
    groups: Vec<Option<G::Group>>,
}

impl<G: Grid> Steps for Rounding<'_, G> {
    fn begin(&mut self, band: &Band, columns: Range<usize>) {
        if self.fit == Fit::Compensated {
            let per_row = self.columns.div_ceil(self.group);
            for row in 0..band.rows {
                let fitted = self.grid.fit(&band.row(row)[columns.clone()]);
                self.groups[row * per_row + columns.start / self.group] = Some(fitted);
            }
        }
    }

    fn round(&mut self, row: usize, column: usize, weight: f32) -> f32 {
        let column = self.stored[column];
        let at = row * self.columns.div_ceil(self.group) + column / self.group;
        let group = self.groups[at].as_ref().expect("groups are fitted before their columns are rounded");
        let code = self.grid.code(group, weight);
        self.codes[row * self.columns + column] = code;
        self.grid.value(group, code)
    }
}

impl<T> Gptq<T> {
    /// The weights that the codes decode to, columns as in the matrix that was solved.
    ///
    /// # Panics
    /// If the fields do not go together.
    #[must_use]
    pub fn decode(&self, grid: &impl Grid<Group = T>) -> Matrix {
        let per_row = self.columns.div_ceil(self.group);
        let value = |(at, &code): (usize, &u8)| {
            let (row, column) = (at / self.columns, at % self.columns);
            grid.value(&self.groups[row * per_row + column / self.group], code)
        };
        let stored: Vec<f32> = self.codes.iter().enumerate().map(value).collect();
        to_matrix(self.rows, self.columns, &stored, self.order.as_deref())
    }
}
