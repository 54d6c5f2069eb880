//! Which elements of a block belong to one group.

use std::ops::Range;

/// The groups of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// Elements of the block.
    elements: usize,
    /// Elements of a whole row.
    row: usize,
    /// Rows of a group.
    rows: usize,
    /// Columns of a group.
    columns: usize,
}

impl Groups {
    /// The groups of `elements` elements in rows of `row`.
    pub(super) fn new(elements: usize, row: usize, [rows, columns]: [u32; 2]) -> Self {
        Self { elements, row: row.min(elements).max(1), rows: rows as usize, columns: columns as usize }
    }

    /// How many there are.
    pub(super) fn count(self) -> usize {
        let band = self.row.saturating_mul(self.rows);
        let Some(last) = self.elements.checked_sub(1) else { return 0 };
        let of_last = self.elements - last / band * band;
        last / band * self.across() + of_last.min(self.row).div_ceil(self.columns)
    }

    /// Groups that a row has a part in.
    fn across(self) -> usize {
        self.row.div_ceil(self.columns)
    }

    /// The part that each group has in each row, in the order of the elements: the group's number, and its elements.
    pub(super) fn runs(self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let row_count = self.elements.div_ceil(self.row);
        (0..row_count).flat_map(move |row| {
            let all = row * self.row..((row + 1) * self.row).min(self.elements);
            let first = row / self.rows * self.across();
            (0..all.len().div_ceil(self.columns)).map(move |i| {
                let start = all.start + i * self.columns;
                (first + i, start..(start + self.columns).min(all.end))
            })
        })
    }
}
