//! The slow, obvious decoder of the `dictionary` codec: the list of sequences as the page makes it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::LazyLock;

use crate::stream::StreamError;
use crate::stream::ternary::{self, Form, TILE, Tiles};

/// The symbols of each codeword.
pub(super) static WORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(words);

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let code = match Form::of(stream)? {
        Form::Packed(code) => return ternary::unpack_naive(code, symbols),
        Form::Coded([0, 0], code) => code,
        Form::Coded(..) => return Err(StreamError::Invalid("reserved bytes are not zero")),
    };
    let tiles = Tiles::of(code, symbols.len())?;
    for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
        decode_tile(tiles.tile(t)?, tile)?;
    }
    Ok(())
}

fn decode_tile(bytes: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let mut codewords = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let (mut decoded, mut used) = (Vec::new(), 0usize);
    while decoded.len() < symbols.len() {
        let codeword = codewords.next().ok_or(StreamError::Length)?;
        decoded.extend_from_slice(&WORDS[usize::from(codeword)]);
        used += 2;
    }
    let (inside, behind) = decoded.split_at(symbols.len());
    symbols.copy_from_slice(inside);
    if behind.iter().any(|&symbol| symbol != 0) || bytes[used..].iter().any(|&byte| byte != 0) {
        return Err(StreamError::Invalid("what lies behind the end is not zero"));
    }
    if bytes.len() == used.next_multiple_of(4) { Ok(()) } else { Err(StreamError::Length) }
}

fn words() -> Vec<Vec<u8>> {
    let rest = (1.0 - 0.885) / 2.0;
    let p: [f64; 3] = [0.885, rest, rest];
    // Positive numbers compare as their bits do.
    let mut candidates = BinaryHeap::from([(1f64.to_bits(), Reverse(Vec::new()))]);
    let mut words = Vec::new();
    while words.len() < 1 << 16
        && let Some((probability, Reverse(pairs))) = candidates.pop()
    {
        if !pairs.is_empty() {
            words.push(pairs.iter().flat_map(|pair: &u8| [pair % 3, pair / 3]).collect());
        }
        if pairs.len() == 14 {
            continue;
        }
        for a in 0..3u8 {
            for b in 0..3u8 {
                let longer = [&pairs[..], &[3 * a + b]].concat();
                let probability = f64::from_bits(probability) * (p[usize::from(a)] * p[usize::from(b)]);
                candidates.push((probability.to_bits(), Reverse(longer)));
            }
        }
    }
    words
}
