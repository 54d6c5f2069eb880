//! Groups: the rectangles of an array whose elements share numbers, and the walk over an array that
//! has those numbers at hand.

use std::ops::Range;

use super::number::{Float, Number, with_number};
use super::{Array, Element};
use crate::device::DeviceGroups;
use crate::stream::Width;

/// Rows and columns of a group, at most: more than any block has.
pub(super) const MAX_GROUP: u32 = 1 << 24;

/// Elements of a tile, at most.
pub(super) const TILE: usize = 256;

/// The numbers of a tile's columns, one for each.
pub(super) type Columns = [f32; TILE];

/// An array in rows and groups. Where a group holds whole rows, the rows are taken as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    len: usize,
    row: usize,
    /// Of a group.
    rows: usize,
    /// Of a group.
    columns: usize,
    /// Groups side by side.
    across: usize,
    /// Row length of the arrays that have a number for each group.
    numbers_row: usize,
}

/// The columns of a row of groups that are joined at once.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    /// Number of the row of groups.
    group_row: usize,
    columns: Range<usize>,
}

impl Grid {
    /// The groups of `[rows, columns]` of `len` elements in rows of `row`.
    pub(super) fn new([rows, columns]: [u32; 2], len: usize, row: usize) -> Self {
        let row = row.min(len).max(1);
        let (rows, columns) = (rows as usize, columns as usize);
        if columns < row {
            let across = row.div_ceil(columns);
            return Self { len, row, rows, columns, across, numbers_row: across };
        }
        let columns = rows.saturating_mul(row);
        let row = len.max(1);
        Self { len, row, rows: 1, columns, across: row.div_ceil(columns), numbers_row: 1 }
    }

    /// Number of groups.
    pub(super) fn count(&self) -> usize {
        self.len.div_ceil(self.row).div_ceil(self.rows) * self.across
    }

    /// The same for a device; `None` if there are too many elements for one.
    pub(super) fn on_device(&self) -> Option<DeviceGroups> {
        let number = |n: usize| u32::try_from(n).ok();
        let columns = number(self.columns.min(self.row))?;
        Some(DeviceGroups { row: number(self.row)?, rows: number(self.rows)?, columns })
    }

    /// The array with a number for each group.
    pub(super) fn floats(&self, float: Float) -> Array {
        Array::new(Element::Dtype(float.dtype()), self.count() * float.len(), self.numbers_row)
    }

    /// The array with a symbol for each group.
    pub(super) fn symbols(&self, width: Width) -> Array {
        Array::of_symbols(width, self.count()).in_rows(self.numbers_row)
    }

    /// All tiles, which together have every element once.
    pub(super) fn tiles(self) -> impl Iterator<Item = Tile> {
        let group_rows = self.len.div_ceil(self.row).div_ceil(self.rows);
        (0..group_rows).flat_map(move |group_row| {
            (0..self.row)
                .step_by(TILE)
                .map(move |start| Tile { group_row, columns: start..(start + TILE).min(self.row) })
        })
    }

    /// The elements of each row of a tile.
    pub(super) fn runs(&self, tile: &Tile) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        self.rows_of(tile.group_row, tile.columns.clone())
    }

    /// The elements of each row of group `i`.
    pub(super) fn members(&self, i: usize) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        let start = i % self.across * self.columns;
        self.rows_of(i / self.across, start..(start + self.columns).min(self.row))
    }

    fn rows_of(&self, group_row: usize, columns: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
        let Self { len, row, rows, .. } = *self;
        let starts = (group_row * rows..(group_row + 1) * rows).map(move |i| i * row).take_while(move |&i| i < len);
        starts.map(move |start| (start + columns.start).min(len)..(start + columns.end).min(len))
    }

    /// Writes the number of each column of a tile.
    #[inline(always)]
    pub(super) fn spread<T: Number>(&self, tile: &Tile, numbers: &[u8], out: &mut Columns) {
        let numbers = &T::of(numbers)[tile.group_row * self.across..];
        let Range { start, end } = tile.columns;
        if self.columns == 1 {
            out.iter_mut().zip(&numbers[start..end]).for_each(|(x, &number)| *x = T::to_f32(number));
            return;
        }
        let (mut column, mut group) = (start, start / self.columns);
        while column < end {
            let next = ((group + 1) * self.columns).min(end);
            out[column - start..next - start].fill(T::to_f32(numbers[group]));
            (column, group) = (next, group + 1);
        }
    }

    /// As [`Self::spread`], of numbers of a type that is known only now.
    pub(super) fn spread_floats(&self, tile: &Tile, float: Float, numbers: &[u8], out: &mut Columns) {
        with_number!(float, T => self.spread::<T>(tile, numbers, out));
    }
}
