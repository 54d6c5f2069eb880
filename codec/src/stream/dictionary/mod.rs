//! `dictionary`: ternary symbols in codewords of 16 bits, by the dictionary of QMoE. See `SPEC.md` in this folder.

use super::ternary::{self, Form, TILE, Tiles};
use super::{Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

mod naive;
mod rows;
mod table;

pub use rows::{check_row, decode_row, decode_row_naive, encode_row};
use table::DICTIONARY;

/// Sequences that have a codeword: all of 16 bits.
const CODEWORDS: usize = 1 << 16;
/// Pairs of ternary symbols.
const PAIRS: usize = 9;
/// Symbols that a codeword stands for, at most, and some zeros.
const ROOM: usize = 32;
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
    let (mut read, mut done) = (0, 0);
    while let (Some(&codeword), Some(room)) = (codewords.get(read), symbols[done..].first_chunk_mut()) {
        let word = expand(u16::from_le_bytes(codeword));
        // The zeros behind the word are written over by the next one.
        *room = word.symbols;
        done += word.len;
        read += 1;
    }
    while done < symbols.len() {
        let codeword = *codewords.get(read).ok_or(StreamError::Length)?;
        let word = expand(u16::from_le_bytes(codeword));
        done += ternary::copy_end(&word.symbols[..word.len], &mut symbols[done..])?;
        read += 1;
    }
    ternary::check_padding(&bytes[2 * read..])
}

/// What a codeword stands for.
struct Symbols {
    /// The symbols, and zeros.
    symbols: [u8; ROOM],
    /// Their number: at least 2.
    len: usize,
}

fn expand(codeword: u16) -> Symbols {
    let entry = DICTIONARY.entries[usize::from(codeword)];
    let mut symbols = [0; ROOM];
    for (i, eight) in symbols.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *eight = spread(entry >> 8 >> (16 * i)).to_le_bytes();
    }
    Symbols { symbols, len: 2 * (entry & 15) as usize }
}

/// The lowest eight fields of two bits, in a byte each.
fn spread(fields: u64) -> u64 {
    let halves = fields & 0xffff;
    let quarters = (halves | halves << 24) & 0x00ff_0000_00ff;
    let eighths = (quarters | quarters << 12) & 0x000f_000f_000f_000f;
    (eighths | eighths << 6) & 0x0303_0303_0303_0303
}

#[cfg(test)]
mod tests;
