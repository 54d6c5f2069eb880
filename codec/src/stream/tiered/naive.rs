//! The slow, obvious decoder of the `tiered` codec: the oracle of every other one.

use bitvec::order::Lsb0;
use bitvec::view::BitView;

use super::{NAMED, PREFIX, TIERS, TILE};
use crate::stream::{StreamError, Width};

const INVALID: fn(&'static str) -> StreamError = StreamError::Invalid;

/// Decodes `stream` into `symbols`, tile by tile.
pub(super) fn decode(stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let tiles = symbols.len().div_ceil(TILE);
    let payload_start = PREFIX + 4 * (tiles + 1);
    let (Some(named), Some(payload)) = (stream.first_chunk::<NAMED>(), stream.get(payload_start..)) else {
        return Err(StreamError::Length);
    };
    if (0..NAMED).any(|i| named[..i].contains(&named[i])) {
        return Err(INVALID("a symbol is named twice"));
    }
    if stream[NAMED..PREFIX] != [0; 4] {
        return Err(INVALID("reserved bytes are not zero"));
    }
    let end = |t: usize| {
        let at = PREFIX + 4 * t;
        u32::from_le_bytes([stream[at], stream[at + 1], stream[at + 2], stream[at + 3]]) as usize * 4
    };
    if end(0) != 0 || end(tiles) != payload.len() {
        return Err(StreamError::Length);
    }
    for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
        let bytes = payload.get(end(t)..end(t + 1)).ok_or(StreamError::Length)?;
        decode_tile(bytes, named, tile)?;
    }
    if symbols.iter().any(|&s| u32::from(s) >> width.bits() != 0) {
        return Err(INVALID("a symbol has bits above its width"));
    }
    Ok(())
}

fn decode_tile(bytes: &[u8], named: &[u8; NAMED], tile: &mut [u8]) -> Result<(), StreamError> {
    // Codes of the elements of each tier; the escapes of one tier are the elements of the next.
    let mut codes: Vec<Vec<u8>> = Vec::new();
    let mut rest = bytes;
    let mut elements = tile.len();
    for _ in 0..TIERS {
        let plane_len = elements.div_ceil(8);
        if rest.len() < 2 * plane_len {
            return Err(StreamError::Length);
        }
        let (low, tail) = rest.split_at(plane_len);
        let (high, tail) = tail.split_at(plane_len);
        let (low, low_spare) = low.view_bits::<Lsb0>().split_at(elements);
        let (high, high_spare) = high.view_bits::<Lsb0>().split_at(elements);
        if low_spare.any() || high_spare.any() {
            return Err(INVALID("bits behind the last element are not zero"));
        }
        codes.push(low.iter().by_vals().zip(high).map(|(low, high)| u8::from(low) | u8::from(*high) << 1).collect());
        elements = codes.last().map_or(0, |c| c.iter().filter(|&&code| code == 3).count());
        rest = tail;
    }
    let used = bytes.len() - rest.len() + elements;
    if bytes.len() != used.next_multiple_of(4) {
        return Err(StreamError::Length);
    }
    let (last, padding) = rest.split_at_checked(elements).ok_or(StreamError::Length)?;
    if padding.iter().any(|&b| b != 0) {
        return Err(INVALID("padding is not zero"));
    }
    let mut escaped = last.to_vec();
    for (tier, codes) in codes.iter().enumerate().rev() {
        let mut escapes = escaped.into_iter();
        escaped = codes
            .iter()
            .map(|&code| match code {
                3 => escapes.next().unwrap_or(0),
                _ => named[3 * tier + usize::from(code)],
            })
            .collect();
    }
    tile.copy_from_slice(&escaped);
    Ok(())
}
