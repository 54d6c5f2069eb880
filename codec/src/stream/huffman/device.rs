//! What the kernel of the `huffman` codec (`decode.cu`) is told of a stream.

use super::code::Code;
use super::header::{Tiles, table};
use super::{LONGEST, SLACK, TILE};
use crate::device::{self, DeviceForm};
use crate::stream::{StreamError, Width};

pub(super) fn form(stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
    let (table, rest) = table(stream)?;
    let mut code = Code::default();
    code.read(table, width)?;
    if (symbols == 0) != code.symbols.is_empty() {
        return Err(StreamError::Length);
    }
    let count = if code.symbols.len() < 2 { 0 } else { symbols.div_ceil(TILE) };
    let tiles = Tiles::of(rest, count)?;
    match code.symbols[..] {
        [] => Ok(None),
        [only] => Ok(Some(DeviceForm::Constant(only))),
        [..] => Ok(Some(DeviceForm::Tiled(device::Tiles {
            log: TILE.ilog2() as u8,
            ends_at: (stream.len() - tiles.payload.len() - 4 * (count + 1)) as u32,
            payload_words: ((tiles.payload.len() - SLACK) / 4) as u32,
            table: device_table(&code),
        }))),
    }
}

/// In the order of the codes: symbol, length in the second byte, and in the high half the first word of [`LONGEST`]
/// bits that begins with the code.
fn device_table(code: &Code) -> Vec<u32> {
    let entry = |(symbol, reversed, length): (u16, u16, u8)| {
        u32::from(symbol) | u32::from(length) << 8 | u32::from(reversed.reverse_bits() >> (16 - LONGEST)) << 16
    };
    let mut table: Vec<u32> = code.codes().map(entry).collect();
    table.sort_unstable_by_key(|entry| entry >> 16);
    table
}
