//! What a stream has in front of its tiles.

use std::ops::Range;

use super::TILE_LOG;
use crate::stream::{StreamError, Width};

/// Bytes before the table.
pub(super) const PREFIX: usize = 4;

/// The parts of a stream.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Symbols in a tile.
    pub(super) tile: usize,
    pub(super) table: &'a [u8],
    /// Zeros between table and ends, the ends, the payload.
    rest: &'a [u8],
}

/// The tiles of a stream.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    ends: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes the front of `stream` apart.
    pub(super) fn of(stream: &'a [u8]) -> Result<Self, StreamError> {
        let (&[tile_log, reserved, low, high], rest) =
            stream.split_first_chunk::<PREFIX>().ok_or(StreamError::Length)?;
        if !TILE_LOG.contains(&tile_log) || reserved != 0 {
            return Err(StreamError::Invalid("not a size of tiles"));
        }
        let table_len = usize::from(u16::from_le_bytes([low, high]));
        let (table, rest) = rest.split_at_checked(table_len).ok_or(StreamError::Length)?;
        Ok(Self { tile: 1 << tile_log, table, rest })
    }

    /// Finds the ends of `count` tiles and their payload.
    pub(super) fn tiles(self, count: usize) -> Result<Tiles<'a>, StreamError> {
        let padding = self.table.len().next_multiple_of(4) - self.table.len();
        let (zeros, rest) = self.rest.split_at_checked(padding).ok_or(StreamError::Length)?;
        let (ends, payload) = rest.split_at_checked(4 * (count + 1)).ok_or(StreamError::Length)?;
        let tiles = Tiles { ends, payload };
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(StreamError::Invalid("padding is not zero"));
        }
        if tiles.end(0) != 0 || tiles.end(count) != payload.len() {
            return Err(StreamError::Length);
        }
        Ok(tiles)
    }
}

impl Tiles<'_> {
    /// Where tile `t - 1` ends and tile `t` begins, in bytes of the payload.
    fn end(&self, t: usize) -> usize {
        let end = &self.ends[4 * t..][..4];
        (u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize).saturating_mul(4)
    }

    /// Where tile `t` lies in the payload, in bytes.
    pub(super) fn range(&self, t: usize) -> Result<Range<usize>, StreamError> {
        let range = self.end(t)..self.end(t + 1);
        if self.payload.get(range.clone()).is_some_and(|tile| tile.len() >= super::STATES_LEN) {
            Ok(range)
        } else {
            Err(StreamError::Length)
        }
    }
}

/// Number of tiles with a payload: none where the table says everything.
pub(super) fn tile_count(n: usize, tile: usize, distinct: usize) -> Result<usize, StreamError> {
    match (n, distinct) {
        (0, 0) => Ok(0),
        (0, _) | (_, 0) => Err(StreamError::Length),
        (_, 1) => Ok(0),
        _ => Ok(n.div_ceil(tile)),
    }
}

/// Number of symbols in `byte_len` bytes.
pub(super) fn symbol_count(byte_len: usize, width: Width) -> Result<usize, StreamError> {
    if byte_len.is_multiple_of(width.bytes()) { Ok(byte_len / width.bytes()) } else { Err(StreamError::Length) }
}
