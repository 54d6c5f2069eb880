//! Tensors, or parts of them, into memory of the caller.

use std::iter;

use cmz_format::{Code, Error, Result};

use super::Archive;
use crate::pipeline;

/// Bytes of a tensor that are to be read, and where they go.
#[derive(Debug)]
pub struct TensorPart<'a> {
    /// Number of the tensor.
    pub tensor: usize,
    /// Where the bytes begin in the decoded tensor, in bytes.
    pub start: u64,
    /// Their place; as many are read as it holds.
    pub bytes: &'a mut [u8],
}

impl Archive {
    /// Reads parts of tensors on `threads` threads, which go on from one part to the next, so that a thousand small tensors
    /// keep all of them at work. Only the blocks that hold the parts are read and decoded.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if a tensor is shorter; otherwise as [`Self::read_into`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read_parts(&self, parts: Vec<TensorPart<'_>>, threads: usize) -> Result<()> {
        let mut count = 0;
        for part in &parts {
            let (end, len) = (part.start.saturating_add(part.bytes.len() as u64), self.index.tensor_len(part.tensor));
            if end > len {
                return Err(Error::new(Code::InvalidArgument, format!("bytes {}..{end} of {len}", part.start))
                    .in_tensor(&self.tensors()[part.tensor].name));
            }
            count += part.bytes.len().div_ceil(self.block_len(part.tensor) as usize);
        }
        pipeline::ordered(
            threads.min(count),
            parts.into_iter().flat_map(|part| self.by_blocks(part)),
            |part, scratch| self.read_range_into(part.tensor, part.start, scratch, part.bytes),
            Ok,
        )
    }

    /// A part, cut where blocks begin.
    fn by_blocks<'a>(&self, part: TensorPart<'a>) -> impl Iterator<Item = TensorPart<'a>> + use<'a> {
        let TensorPart { tensor, start, bytes } = part;
        let block_len = self.block_len(tensor);
        let first = (block_len - start % block_len).min(bytes.len() as u64);
        let (head, rest) = bytes.split_at_mut(first as usize);
        let head = Some(head).filter(|head| !head.is_empty());
        let starts = iter::once(start).chain((start + first..).step_by(block_len as usize));
        let pieces = head.into_iter().chain(rest.chunks_mut(block_len as usize));
        starts.zip(pieces).map(move |(start, bytes)| TensorPart { tensor, start, bytes })
    }
}
