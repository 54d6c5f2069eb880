//! `dictionary`: ternary symbols in codewords of 16 bits, by the dictionary of QMoE. See `SPEC.md` in this folder.

use super::ternary::{self, Form, TILE, Tiles};
use super::{Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

mod naive;
mod rows;
mod table;
mod words;

pub use rows::{check_row, decode_row, decode_row_naive, encode_row};
use table::DICTIONARY;

/// Sequences that have a codeword: all of 16 bits.
const CODEWORDS: usize = 1 << 16;
/// Pairs of ternary symbols.
const PAIRS: usize = 9;
const RESERVED: StreamError = StreamError::Invalid("reserved bytes are not zero");

/// The dictionary in the form that the kernel takes, which is the same for every stream: of each codeword the number of pairs in the
/// lowest byte, and from there on the symbols, two bits each.
#[must_use]
pub fn device_table() -> &'static [u64] {
    &DICTIONARY.entries
}

/// The `dictionary` stream codec.
#[derive(Debug)]
pub struct Dictionary;

impl StreamCodec for Dictionary {
    fn id(&self) -> u16 {
        7
    }

    fn name(&self) -> &'static str {
        "dictionary"
    }

    fn supports(&self, width: Width) -> bool {
        width == ternary::WIDTH
    }

    fn encode(&self, symbols: &[u8], _: Width, _: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        scratch.with::<Vec<u16>, _>(|codewords, _| {
            ternary::encode(symbols, [0, 0], out, |out| {
                ternary::put_tiles(symbols, out, |tile, out| {
                    codewords.clear();
                    let encoded = encode_row(tile, codewords);
                    debug_assert!(encoded.is_ok(), "only ternary symbols are coded");
                    out.extend(codewords.iter().flat_map(|codeword| codeword.to_le_bytes()));
                });
            });
        });
    }

    fn decode(&self, stream: &[u8], _: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        match Form::of(stream)? {
            Form::Packed(code) => ternary::unpack(code, symbols),
            Form::Coded([0, 0], code) => {
                let tiles = Tiles::of(code, symbols.len())?;
                symbols.chunks_mut(TILE).enumerate().try_for_each(|(t, tile)| decode_tile(tiles.tile(t)?, tile))
            }
            Form::Coded(..) => Err(RESERVED),
        }
    }

    fn device_form(&self, stream: &[u8], _: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        ternary::device_form(stream, symbols, |params, code| match params {
            [0, 0] => Ok(Tiles::of(code, symbols)?.on_device(Vec::new())),
            _ => Err(RESERVED),
        })
    }

    fn decode_naive(&self, stream: &[u8], _: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, symbols)
    }
}

fn decode_tile(bytes: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let (codewords, _) = bytes.as_chunks::<2>();
    let (taken, behind) = words::decode(codewords.iter().map(|&codeword| u16::from_le_bytes(codeword)), symbols)?;
    if behind != 0 {
        return Err(StreamError::Invalid("symbols behind the end are not zero"));
    }
    ternary::check_padding(&bytes[2 * taken..])
}

#[cfg(test)]
mod tests;
