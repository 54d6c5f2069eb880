//! Weight matrices in single precision.

use std::ops::Range;

use cmz_format::Dtype;

/// A matrix of `rows` × `columns`, row by row: a layer's outputs × its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// A matrix of elements in row order.
    ///
    /// # Panics
    /// If there are not `rows` × `columns` of them.
    #[must_use]
    pub fn new(rows: usize, columns: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * columns, "elements of a matrix of {rows} by {columns}");
        Self { rows, columns, data }
    }

    /// A matrix of little-endian elements of type `F16`, `BF16` or `F32`; `None` for other types.
    ///
    /// # Panics
    /// If `bytes` are not `rows` × `columns` elements.
    #[must_use]
    pub fn from_bytes(dtype: Dtype, rows: usize, columns: usize, bytes: &[u8]) -> Option<Self> {
        let pairs = || bytes.as_chunks().0.iter().copied();
        let data = match dtype {
            Dtype::F16 => pairs().map(|pair| half::f16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|pair| half::bf16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
            _ => return None,
        };
        Some(Self::new(rows, columns, data))
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// The elements of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..][..self.columns]
    }

    /// The elements of one row, to change.
    #[must_use]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.columns..][..self.columns]
    }

    /// Some rows.
    ///
    /// # Panics
    /// If there are no such rows.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> Self {
        let data = self.data[rows.start * self.columns..rows.end * self.columns].to_vec();
        Self { rows: rows.len(), columns: self.columns, data }
    }

    /// All elements, row by row.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}
