//! Rows: parts of a matrix, experts of a stack of experts.

use std::ops::Range;

use cmz_format::{Code, Error, Result};

use super::Archive;
use crate::pipeline;

impl Archive {
    /// Reads rows, that is, indices of the first dimension: rows of a matrix, or experts of a
    /// stack of experts. Only the blocks that hold them are read and decoded.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor, it has no such rows or a row
    /// does not end on a byte; otherwise as [`Self::read_into`].
    pub fn read_rows(&self, name: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        let tensor = self.find(name)?;
        let range = self.row_bytes(tensor, rows).map_err(|e| self.in_file(e).in_tensor(name))?;
        self.read_range(tensor, range)
    }

    /// Where rows lie in the decoded tensor, in bytes.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there are no such rows, or they do not end on whole bytes.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn row_bytes(&self, tensor: usize, rows: Range<u64>) -> Result<Range<u64>> {
        let invalid = |why: String| Error::new(Code::InvalidArgument, why);
        let shape = &self.tensors()[tensor].shape;
        let Some(&count) = shape.first() else {
            return Err(invalid("a tensor without dimensions has no rows".to_owned()));
        };
        if rows.start > rows.end || rows.end > count {
            return Err(invalid(format!("rows {}..{} of {count}", rows.start, rows.end)));
        }
        let len = self.index.tensor_len(tensor);
        if count == 0 || len == 0 {
            return Ok(0..0);
        }
        if !len.is_multiple_of(count) {
            return Err(invalid("the rows of this tensor do not end on whole bytes".to_owned()));
        }
        let row = len / count;
        Ok(row * rows.start..row * rows.end)
    }

    /// Reads rows of several tensors, each told by the tensor's number, on `threads` threads: the experts that a batch
    /// is routed to, whether they are rows of a stack or tensors of their own.
    ///
    /// # Errors
    /// As [`Self::read_rows`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read_each(&self, rows: &[(usize, Range<u64>)], threads: usize) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::with_capacity(rows.len());
        pipeline::ordered(
            threads.min(rows.len()),
            rows.iter(),
            |(tensor, rows), _| {
                let range = self.row_bytes(*tensor, rows.clone());
                let range = range.map_err(|e| self.in_file(e).in_tensor(&self.tensors()[*tensor].name))?;
                self.read_range(*tensor, range)
            },
            |bytes| {
                all.push(bytes);
                Ok(())
            },
        )?;
        Ok(all)
    }
}
