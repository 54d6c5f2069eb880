//! What a stream has in front of its tiles, and what its letters are.

use std::ops::Range;

use super::TILE_LOG;
use crate::stream::{StreamError, Width};

/// Bytes before the table.
pub(super) const PREFIX: usize = 4;

/// What the states code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Letters {
    /// The symbols themselves.
    Symbols = 0,
    /// Bytes of packed symbols: as `bitpack` has them.
    Packed = 1,
}

impl Letters {
    /// How many symbols a letter has, as a power of two; `None` if symbols of this width are not packed.
    pub(super) fn symbols_log(self, width: Width) -> Option<u32> {
        match (self, width.bits()) {
            (Self::Symbols, _) => Some(0),
            (Self::Packed, 1) => Some(3),
            (Self::Packed, 2) => Some(2),
            (Self::Packed, 4) => Some(1),
            (Self::Packed, _) => None,
        }
    }

    /// The width of letters of symbols of a width.
    pub(super) fn width(self, symbols: Width) -> Width {
        match self {
            Self::Symbols => symbols,
            Self::Packed => Width::BYTE,
        }
    }
}

/// The parts of a stream.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) letters: Letters,
    /// Letters in a tile.
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
    /// Takes the front of the `stream` of symbols of a width apart.
    pub(super) fn of(stream: &'a [u8], width: Width) -> Result<Self, StreamError> {
        let (&[tile_log, letters, low, high], rest) =
            stream.split_first_chunk::<PREFIX>().ok_or(StreamError::Length)?;
        if !TILE_LOG.contains(&tile_log) {
            return Err(StreamError::Invalid("not a size of tiles"));
        }
        let letters = match letters {
            0 => Letters::Symbols,
            1 if Letters::Packed.symbols_log(width).is_some() => Letters::Packed,
            _ => return Err(StreamError::Invalid("not letters of symbols of this width")),
        };
        let table_len = usize::from(u16::from_le_bytes([low, high]));
        let (table, rest) = rest.split_at_checked(table_len).ok_or(StreamError::Length)?;
        Ok(Self { letters, tile: 1 << tile_log, table, rest })
    }

    /// Finds the tiles of `n` letters, of which `distinct` are different.
    pub(super) fn tiles(self, n: usize, distinct: usize) -> Result<Tiles<'a>, StreamError> {
        let count = match (n, distinct) {
            _ if self.letters == Letters::Packed && distinct < 2 => {
                return Err(StreamError::Invalid("packed symbols that are all alike"));
            }
            (0, 0) => 0,
            (0, _) | (_, 0) => return Err(StreamError::Length),
            // The table says everything.
            (_, 1) => 0,
            _ => n.div_ceil(self.tile),
        };
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
    /// Bytes of the list of ends.
    pub(super) fn ends_len(&self) -> usize {
        self.ends.len()
    }

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

/// Number of symbols in `byte_len` bytes.
pub(super) fn symbol_count(byte_len: usize, width: Width) -> Result<usize, StreamError> {
    if byte_len.is_multiple_of(width.bytes()) { Ok(byte_len / width.bytes()) } else { Err(StreamError::Length) }
}
