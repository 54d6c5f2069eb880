//! The slow, obvious decoder of the `rans` codec: the oracle of every other one.

use super::header::{Letters, Parts, symbol_count};
use super::model::Model;
use super::{GRANULE, LANES, LOWER, SCALE, SCALE_BITS};
use crate::stream::bitpack::Bitpack;
use crate::stream::{StreamCodec, StreamError, Width};

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let parts = Parts::of(stream, width)?;
    match parts.letters {
        Letters::Symbols => decode_letters(parts, width, symbols),
        Letters::Packed => {
            let mut letters = vec![0; (symbols.len() * usize::from(width.bits())).div_ceil(8)];
            decode_letters(parts, Width::BYTE, &mut letters)?;
            Bitpack.decode_naive(&letters, width, symbols)
        }
    }
}

/// Decodes letters of a width, tile by tile.
fn decode_letters(parts: Parts<'_>, width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let n = symbol_count(symbols.len(), width)?;
    let mut model = Model::default();
    model.read(parts.table, width)?;
    let tiles = parts.tiles(n, model.symbols.len())?;
    if let [only] = model.symbols[..] {
        symbols.chunks_exact_mut(width.bytes()).for_each(|symbol| put(only, symbol));
        return Ok(());
    }
    let slots: Vec<_> = model.intervals().flat_map(|interval| vec![interval; interval.1 as usize]).collect();
    for (t, tile) in symbols.chunks_mut(parts.tile * width.bytes()).enumerate() {
        decode_tile(&tiles.payload[tiles.range(t)?], &slots, width, tile)?;
    }
    Ok(())
}

fn decode_tile(bytes: &[u8], slots: &[(u16, u32, u32)], width: Width, tile: &mut [u8]) -> Result<(), StreamError> {
    let (states, words) = bytes.split_at(4 * LANES);
    let mut states: Vec<u32> =
        states.chunks_exact(4).map(|state| u32::from_le_bytes([state[0], state[1], state[2], state[3]])).collect();
    let mut words = words.chunks_exact(2).map(|word| u32::from(u16::from_le_bytes([word[0], word[1]])));
    if states.iter().any(|&state| state < LOWER) {
        return Err(StreamError::Invalid("a state is too small"));
    }
    let n = tile.len() / width.bytes();
    for group in (0..n).step_by(LANES * GRANULE) {
        for k in 0..GRANULE {
            for (lane, state) in states.iter_mut().enumerate() {
                let i = group + lane * GRANULE + k;
                if i >= n {
                    continue;
                }
                let slot = *state % SCALE;
                let (symbol, frequency, start) = slots[slot as usize];
                put(symbol, &mut tile[i * width.bytes()..][..width.bytes()]);
                *state = frequency * (*state >> SCALE_BITS) + slot - start;
                if *state < LOWER {
                    *state = *state << 16 | words.next().ok_or(StreamError::Length)?;
                }
            }
        }
    }
    if states.iter().any(|&state| state != LOWER) {
        return Err(StreamError::Invalid("a state does not end where it began"));
    }
    // One word of padding, where the words would not end on a multiple of four bytes.
    match (words.next(), words.next()) {
        (None, _) => Ok(()),
        (Some(0), None) => Ok(()),
        (Some(_), None) => Err(StreamError::Invalid("padding is not zero")),
        _ => Err(StreamError::Length),
    }
}

fn put(value: u16, symbol: &mut [u8]) {
    symbol.copy_from_slice(&value.to_le_bytes()[..symbol.len()]);
}
