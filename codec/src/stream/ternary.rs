//! What the codecs of ternary symbols share. They code arrays of the symbols 0, 1 and 2; one that holds a 3,
//! or that is smaller so, is packed instead.
//!
//! Bytes: the form (0 coded, 1 packed), two parameters of the code, a zero; then the code, or a stream of `bitpack`.

use super::bitpack::{self, Bitpack};
use super::{Histogram, StreamCodec, StreamError, Width};
use crate::device::{self, DeviceForm};

/// Width of ternary symbols.
pub(super) const WIDTH: Width = Width::new(2);
/// Symbols in a tile, of the codes that have tiles.
pub(super) const TILE: usize = 8192;
/// Bytes in front of the code.
pub(super) const PREFIX: usize = 4;

const CODED: u8 = 0;
const PACKED: u8 = 1;

/// The forms of a stream.
pub(super) enum Form<'a> {
    /// The parameters of the code, and the code.
    Coded([u8; 2], &'a [u8]),
    /// A stream of `bitpack`.
    Packed(&'a [u8]),
}

impl<'a> Form<'a> {
    /// Takes the prefix off `stream`.
    pub(super) fn of(stream: &'a [u8]) -> Result<Self, StreamError> {
        let (prefix, rest) = stream.split_first_chunk::<PREFIX>().ok_or(StreamError::Length)?;
        match *prefix {
            [CODED, a, b, 0] => Ok(Self::Coded([a, b], rest)),
            [PACKED, 0, 0, 0] => Ok(Self::Packed(rest)),
            _ => Err(StreamError::Invalid("not a form of ternary symbols")),
        }
    }
}

/// Appends the stream of `symbols`, whose code `put` appends.
pub(super) fn encode(symbols: &[u8], params: [u8; 2], out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    if symbols.iter().all(|&symbol| symbol < 3) {
        out.extend_from_slice(&[CODED, params[0], params[1], 0]);
        put(out);
        if out.len() - start <= PREFIX + symbols.len().div_ceil(4) {
            return;
        }
        out.truncate(start);
    }
    out.extend_from_slice(&[PACKED, 0, 0, 0]);
    bitpack::append(symbols, WIDTH, out);
}

/// Length of a stream, in bytes, if its code has `coded` bytes.
pub(super) fn estimate(histogram: &Histogram, coded: u64) -> u64 {
    let packed = histogram.total().div_ceil(4);
    PREFIX as u64 + if histogram.counts()[3] == 0 { coded.min(packed) } else { packed }
}

/// Decodes the packed form.
pub(super) fn unpack(code: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    bitpack::Decoder::new(code, WIDTH, symbols.len())?.unpack(0, symbols);
    Ok(())
}

/// Decodes the packed form bit by bit.
pub(super) fn unpack_naive(code: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    Bitpack.decode_naive(code, WIDTH, symbols)
}

/// How a device reads a stream of `symbols` symbols: where they are packed, or else by the tiles that `coded` makes of
/// the code and its parameters.
pub(super) fn device_form(
    stream: &[u8],
    symbols: usize,
    coded: impl FnOnce([u8; 2], &[u8]) -> Result<device::Tiles, StreamError>,
) -> Result<Option<DeviceForm>, StreamError> {
    Ok(Some(match Form::of(stream)? {
        Form::Packed(code) => {
            bitpack::Decoder::new(code, WIDTH, symbols)?;
            DeviceForm::Indexed { begin: PREFIX as u32, stride: WIDTH.bits() }
        }
        Form::Coded(params, code) => DeviceForm::Tiled(coded(params, code)?),
    }))
}

/// A code in tiles: `end[0..=T]`, in words of 32 bits, and the tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    ends: &'a [[u8; 4]],
    payload: &'a [u8],
}

impl<'a> Tiles<'a> {
    /// Finds the tiles of an array of `len` symbols.
    pub(super) fn of(code: &'a [u8], len: usize) -> Result<Self, StreamError> {
        let count = len.div_ceil(TILE);
        let (ends, payload) = code.split_at_checked(4 * (count + 1)).ok_or(StreamError::Length)?;
        let tiles = Self { ends: ends.as_chunks().0, payload };
        if tiles.end(0) != 0 || tiles.end(count) != payload.len() {
            return Err(StreamError::Length);
        }
        Ok(tiles)
    }

    /// The bytes of tile `t`.
    pub(super) fn tile(&self, t: usize) -> Result<&'a [u8], StreamError> {
        self.payload.get(self.end(t)..self.end(t + 1)).ok_or(StreamError::Length)
    }

    /// What a device is told of them, besides the code's table.
    pub(super) fn on_device(&self, table: Vec<u32>) -> device::Tiles {
        let payload_words = (self.payload.len() / 4) as u32;
        device::Tiles { log: TILE.ilog2() as u8, ends_at: PREFIX as u32, payload_words, table }
    }

    fn end(&self, t: usize) -> usize {
        (u32::from_le_bytes(self.ends[t]) as usize).saturating_mul(4)
    }
}

/// Appends a code in tiles, each of which `put` appends.
pub(super) fn put_tiles(symbols: &[u8], out: &mut Vec<u8>, mut put: impl FnMut(&[u8], &mut Vec<u8>)) {
    let ends = out.len();
    let payload = ends + 4 * (symbols.len().div_ceil(TILE) + 1);
    out.resize(payload, 0);
    for (t, tile) in symbols.chunks(TILE).enumerate() {
        put(tile, out);
        out.resize(payload + (out.len() - payload).next_multiple_of(4), 0);
        let end = ((out.len() - payload) / 4) as u32;
        out[ends + 4 * (t + 1)..][..4].copy_from_slice(&end.to_le_bytes());
    }
}

/// Fails unless `rest`, what a tile holds behind its last codeword, is padding to a word.
pub(super) fn check_padding(rest: &[u8]) -> Result<(), StreamError> {
    if rest.len() > 3 {
        return Err(StreamError::Length);
    }
    if rest.iter().any(|&byte| byte != 0) {
        return Err(StreamError::Invalid("padding is not zero"));
    }
    Ok(())
}

/// Copies the symbols of a codeword to the front of `place`, and gives their number. Those behind
/// the end of `place` are zeros, or the stream is damaged.
pub(super) fn copy_end(symbols: &[u8], place: &mut [u8]) -> Result<usize, StreamError> {
    let (inside, behind) = symbols.split_at(symbols.len().min(place.len()));
    if behind.iter().any(|&symbol| symbol != 0) {
        return Err(StreamError::Invalid("symbols behind the end are not zero"));
    }
    place[..inside.len()].copy_from_slice(inside);
    Ok(inside.len())
}
