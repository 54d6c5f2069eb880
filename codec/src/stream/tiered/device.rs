//! What the kernel of the `tiered` codec (`decode.cu`) is told of a stream.

use super::{Decoder, NAMED, PREFIX, Path, TIERS, TILE};
use crate::device::{DeviceForm, Tiles};
use crate::stream::{StreamError, Width};

pub(super) fn form(stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
    Decoder::new(Path::best(), stream, width, symbols)?;
    let payload_at = PREFIX + 4 * (symbols.div_ceil(TILE) + 1);
    Ok(Some(DeviceForm::Tiled(Tiles {
        log: TILE.ilog2() as u8,
        ends_at: PREFIX as u32,
        payload_words: ((stream.len() - payload_at) / 4) as u32,
        table: stream[..NAMED]
            .chunks(NAMED / TIERS)
            .map(|named| u32::from_le_bytes([named[0], named[1], named[2], 0]))
            .collect(),
    })))
}
