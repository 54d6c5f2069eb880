//! The slow, obvious decoder of the `huffman` codec: bit by bit.

use std::collections::HashMap;

use bitvec::order::Lsb0;
use bitvec::view::BitView;

use super::code::Code;
use super::header::{Tiles, table};
use super::{GRANULE, LANES, TILE};
use crate::stream::{StreamError, Width};

/// Symbols by code and its length.
type Codes = HashMap<(u16, u8), u8>;

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let (table, rest) = table(stream)?;
    let mut code = Code::default();
    code.read(table, width)?;
    if symbols.is_empty() != code.symbols.is_empty() {
        return Err(StreamError::Length);
    }
    if let [only] = code.symbols[..] {
        Tiles::of(rest, 0)?;
        symbols.fill(only as u8);
        return Ok(());
    }
    let codes: Codes = code.codes().map(|(symbol, code, length)| ((code, length), symbol as u8)).collect();
    let tiles = Tiles::of(rest, symbols.len().div_ceil(TILE))?;
    for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
        for (lane, range) in tiles.lanes(t)?.into_iter().enumerate() {
            decode_lane(&tiles.payload[range], &codes, lane, tile)?;
        }
    }
    Ok(())
}

fn decode_lane(bytes: &[u8], codes: &Codes, lane: usize, tile: &mut [u8]) -> Result<(), StreamError> {
    let mut bits = bytes.view_bits::<Lsb0>().iter().by_vals();
    let mut used = 0;
    for (_, symbol) in tile.iter_mut().enumerate().filter(|(i, _)| i / GRANULE % LANES == lane) {
        let (mut word, mut length) = (0, 0);
        *symbol = loop {
            word |= u16::from(bits.next().ok_or(StreamError::Length)?) << length;
            length += 1;
            if let Some(&symbol) = codes.get(&(word, length)) {
                break symbol;
            }
        };
        used += usize::from(length);
    }
    if bytes.len() != used.div_ceil(8) {
        return Err(StreamError::Length);
    }
    if bits.any(|bit| bit) {
        return Err(StreamError::Invalid("bits behind the last code are not zero"));
    }
    Ok(())
}
