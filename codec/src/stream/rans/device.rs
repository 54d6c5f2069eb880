//! What the kernel of the `rans` codec (`decode.cu`) is told of a stream.

use super::header::{Parts, tile_count};
use super::model::Model;
use crate::device::{DeviceForm, Tiles};
use crate::stream::{StreamError, Width};

/// Used symbols that the kernel has room for.
const MOST_SYMBOLS: usize = 256;

pub(super) fn form(stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
    let parts = Parts::of(stream)?;
    let mut model = Model::default();
    model.read(parts.table, width)?;
    let count = tile_count(symbols, parts.tile, model.symbols.len())?;
    let tiles = parts.tiles(count)?;
    match model.symbols[..] {
        [] => Ok(None),
        [only] => Ok(Some(DeviceForm::Constant(only))),
        [..] if model.symbols.len() > MOST_SYMBOLS => Ok(None),
        [..] => Ok(Some(DeviceForm::Tiled(Tiles {
            log: parts.tile.ilog2() as u8,
            ends_at: (stream.len() - tiles.payload.len() - 4 * (count + 1)) as u32,
            payload_words: (tiles.payload.len() / 4) as u32,
            table: model.intervals().map(|(symbol, _, start)| u32::from(symbol) | start << 16).collect(),
        }))),
    }
}
