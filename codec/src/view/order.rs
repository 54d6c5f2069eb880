//! Matrices whose columns are stored in another order.

use cmz_format::Result;

use super::malformed;

/// An order of columns.
#[derive(Debug)]
pub(super) struct Order {
    columns: Vec<usize>,
    stored: Vec<usize>,
}

impl Order {
    /// The order in which stored column `i` is the column `order[i]` of the view.
    pub(super) fn new(order: Vec<usize>) -> Result<Self> {
        let columns = order.len();
        let mut stored = vec![usize::MAX; columns];
        for (place, &column) in order.iter().enumerate() {
            match stored.get_mut(column) {
                Some(found) if *found == usize::MAX => *found = place,
                _ => {
                    let why = format!("column {column} of {columns} twice, or out of range, in the order");
                    return Err(malformed(why));
                }
            }
        }
        Ok(Self { columns: order, stored })
    }

    /// Columns where they are.
    pub(super) fn as_stored(columns: usize) -> Self {
        Self { columns: (0..columns).collect(), stored: (0..columns).collect() }
    }

    /// The column of the view that each stored one is.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Where a column of the view is stored.
    pub(super) fn stored(&self, column: usize) -> usize {
        self.stored[column]
    }
}
