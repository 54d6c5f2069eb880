//! What the kernel of the `rans` codec (`decode.cu`) is told of a stream.

use super::header::Parts;
use super::model::Model;
use crate::device::{DeviceForm, Tiles};
use crate::stream::{StreamError, Width};

/// Used symbols that the kernel has room for.
const MOST_SYMBOLS: usize = 256;

pub(super) fn form(stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
    let parts = Parts::of(stream, width)?;
    let log = parts.letters.symbols_log(width).unwrap_or_default();
    let mut model = Model::default();
    model.read(parts.table, parts.letters.width(width))?;
    let tiles = parts.tiles(symbols.div_ceil(1 << log), model.symbols.len())?;
    match model.symbols[..] {
        [] => Ok(None),
        [only] => Ok(Some(DeviceForm::Constant(only))),
        [..] if model.symbols.len() > MOST_SYMBOLS => Ok(None),
        [..] => {
            let entries = model.intervals().map(|(letter, _, start)| u32::from(letter) | start << 16);
            Ok(Some(DeviceForm::Tiled(Tiles {
                log: parts.tile.ilog2() as u8 + log as u8,
                ends_at: (stream.len() - tiles.payload.len() - tiles.ends_len()) as u32,
                payload_words: (tiles.payload.len() / 4) as u32,
                table: std::iter::once(log).chain(entries).collect(),
            })))
        }
    }
}
