//! What a stream has around the bit streams of its lanes.

use std::ops::Range;

use super::{LANES, LENGTH_BITS, LENGTHS_LEN, SLACK};
use crate::stream::StreamError;

/// Bytes before the table.
const PREFIX: usize = 4;

/// The tiles of a stream.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    ends: &'a [u8],
    /// The payload and the zeros behind it.
    pub(super) payload: &'a [u8],
}

/// Takes the table off the front of `stream`; gives the bytes behind its padding, too.
pub(super) fn table(stream: &[u8]) -> Result<(&[u8], &[u8]), StreamError> {
    let (&[low, high, zero, other], rest) = stream.split_first_chunk::<PREFIX>().ok_or(StreamError::Length)?;
    let table_len = usize::from(u16::from_le_bytes([low, high]));
    let (table, rest) = rest.split_at_checked(table_len).ok_or(StreamError::Length)?;
    let padding = table_len.next_multiple_of(4) - table_len;
    let (zeros, rest) = rest.split_at_checked(padding).ok_or(StreamError::Length)?;
    if zeros.iter().chain([&zero, &other]).any(|&byte| byte != 0) {
        return Err(StreamError::Invalid("padding is not zero"));
    }
    Ok((table, rest))
}

impl<'a> Tiles<'a> {
    /// Finds `count` tiles in what follows the table.
    pub(super) fn of(rest: &'a [u8], count: usize) -> Result<Self, StreamError> {
        let (ends, payload) = rest.split_at_checked(4 * (count + 1)).ok_or(StreamError::Length)?;
        let tiles = Self { ends, payload };
        if tiles.end(0) != 0 || payload.len().checked_sub(SLACK) != Some(tiles.end(count)) {
            return Err(StreamError::Length);
        }
        if payload[payload.len() - SLACK..] != [0; SLACK] {
            return Err(StreamError::Invalid("padding is not zero"));
        }
        Ok(tiles)
    }

    fn end(&self, t: usize) -> usize {
        let end = &self.ends[4 * t..][..4];
        (u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize).saturating_mul(4)
    }

    /// Where the lanes of tile `t` lie in the payload, in bytes.
    pub(super) fn lanes(&self, t: usize) -> Result<[Range<usize>; LANES], StreamError> {
        let range = self.end(t)..self.end(t + 1);
        let bytes = self.payload.get(range.clone()).ok_or(StreamError::Length)?;
        let lengths = bytes.first_chunk::<LENGTHS_LEN>().ok_or(StreamError::Length)?;
        let mut at = range.start + LENGTHS_LEN;
        let lanes = std::array::from_fn(|lane| {
            let bit = lane * LENGTH_BITS;
            let word = u16::from_le_bytes([lengths[bit / 8], lengths[bit / 8 + 1]]);
            let start = at;
            at += usize::from(word >> (bit % 8) & ((1 << LENGTH_BITS) - 1));
            start..at
        });
        if at.next_multiple_of(4) != range.end {
            return Err(StreamError::Length);
        }
        if self.payload[at..range.end].iter().any(|&byte| byte != 0) {
            return Err(StreamError::Invalid("padding is not zero"));
        }
        Ok(lanes)
    }
}
