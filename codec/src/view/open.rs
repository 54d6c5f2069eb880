//! A view with its parts in memory.

use std::ops::Range;

use cmz_format::{Code, Error, Result, View};

use super::number::{self, Float};
use super::{Decoder, Layout, Parts, Spec};
use crate::{Scratch, pipeline};

/// Elements that are decoded at a time.
const CHUNK: usize = 1 << 18;

/// A view whose parts have been read and checked: rows of it can be decoded in any order, from several threads at once.
#[derive(Debug)]
pub struct OpenView {
    decoder: Box<dyn Decoder>,
    float: Float,
    /// Rows in all: the product of all dimensions but the last.
    rows: usize,
    columns: usize,
    /// Size of the first dimension.
    first: u64,
}

impl OpenView {
    /// Binds a layout to the bytes of a view's parts.
    ///
    /// # Errors
    /// As [`Layout::open`].
    pub fn new(layout: &dyn Layout, view: &View, spec: &Spec<'_>, parts: Parts) -> Result<Self> {
        layout.check(spec)?;
        let (float, dims) = (spec.float()?, spec.dims()?);
        let decoder = layout.open(spec, parts)?;
        let first = view.shape.first().copied().unwrap_or(0);
        Ok(Self { decoder, float, rows: dims.stack * dims.rows, columns: dims.columns, first })
    }

    /// Length of the whole view, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.rows * self.row_len()
    }

    fn row_len(&self) -> usize {
        self.columns * self.float.len()
    }

    /// The elements of rows, that is, of indices of the first dimension.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there are no such rows.
    pub fn read_rows(&self, rows: Range<u64>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.for_each_piece(rows, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(out)
    }

    /// Hands out the elements of rows in order, about a megabyte at a time.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there are no such rows, or what `consume` returns.
    pub fn for_each_piece(&self, rows: Range<u64>, mut consume: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut at, end) = self.lines(&rows)?;
        let step = self.step();
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        while at < end && self.columns > 0 {
            let next = end.min(at + step);
            values.resize((next - at) * self.columns, 0.0);
            bytes.resize((next - at) * self.row_len(), 0);
            self.decoder.decode(at..next, &mut values);
            number::round(self.float, &values, &mut bytes);
            consume(&bytes)?;
            at = next;
        }
        Ok(())
    }

    /// Fills `out` with the elements of rows, on `threads` threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there are no such rows, or `out` has another length than they have.
    pub fn read_rows_into(&self, rows: Range<u64>, out: &mut [u8], threads: usize) -> Result<()> {
        let (first, end) = self.lines(&rows)?;
        let len = (end - first) * self.row_len();
        if out.len() != len {
            let why = format!("the buffer has {} bytes, the rows {len}", out.len());
            return Err(Error::new(Code::InvalidArgument, why));
        }
        let (step, row_len) = (self.step(), self.row_len().max(1));
        let pieces = out.chunks_mut(step * row_len).zip((first..).step_by(step));
        let work = |(bytes, at): (&mut [u8], usize), _: &mut Scratch| {
            let lines = bytes.len() / row_len;
            let mut values = vec![0.0; lines * self.columns];
            self.decoder.decode(at..at + lines, &mut values);
            number::round(self.float, &values, bytes);
            Ok(())
        };
        pipeline::ordered(threads.min(len.div_ceil(step * row_len)), pieces, work, Ok)
    }

    /// The rows of the matrix that rows of the view are, from and to.
    fn lines(&self, rows: &Range<u64>) -> Result<(usize, usize)> {
        if rows.start > rows.end || rows.end > self.first {
            let why = format!("rows {}..{} of {}", rows.start, rows.end, self.first);
            return Err(Error::new(Code::InvalidArgument, why));
        }
        let rows_of_each = (self.rows as u64).checked_div(self.first).unwrap_or(0);
        Ok(((rows.start * rows_of_each) as usize, (rows.end * rows_of_each) as usize))
    }

    /// Rows of the matrix that are decoded at a time.
    fn step(&self) -> usize {
        (CHUNK / self.columns.max(1)).max(1)
    }

    /// The whole view by the slow decoder that every other one is compared with.
    #[must_use]
    pub fn read_naive(&self) -> Vec<u8> {
        let places = (0..self.rows).flat_map(|row| (0..self.columns).map(move |column| (row, column)));
        let values: Vec<f32> = places.map(|(row, column)| self.decoder.decode_naive(row, column)).collect();
        let mut bytes = vec![0; self.byte_len()];
        number::round(self.float, &values, &mut bytes);
        bytes
    }
}
