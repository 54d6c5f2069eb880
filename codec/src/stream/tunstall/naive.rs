//! The slow, obvious decoder of the `tunstall` codec: the list of words as the page makes it, and bit by bit.

use bitvec::field::BitField;
use bitvec::order::Lsb0;
use bitvec::view::BitView;

use crate::stream::StreamError;
use crate::stream::ternary::{self, Form, TILE, Tiles};

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let (frequencies, code) = match Form::of(stream)? {
        Form::Packed(code) => return ternary::unpack_naive(code, symbols),
        Form::Coded(frequencies, code) => (frequencies, code),
    };
    let [f1, f2] = frequencies.map(u64::from);
    if f1 == 0 || f2 == 0 || f1 + f2 > 255 {
        return Err(StreamError::Invalid("not the frequencies of three symbols"));
    }
    let words = words([256 - f1 - f2, f1, f2]);
    let tiles = Tiles::of(code, symbols.len())?;
    for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
        decode_tile(&words, tiles.tile(t)?, tile)?;
    }
    Ok(())
}

/// The words by codeword.
pub(super) fn words(frequencies: [u64; 3]) -> Vec<Vec<u8>> {
    let mut list = vec![(1u64 << 32, Vec::new())];
    for _ in 0..511 {
        let mut heaviest: Option<usize> = None;
        for (place, (weight, word)) in list.iter().enumerate() {
            if word.len() < 32 && heaviest.is_none_or(|other| list[other].0 < *weight) {
                heaviest = Some(place);
            }
        }
        let Some(place) = heaviest else { break };
        let (weight, word) = list[place].clone();
        let longer = |symbol: u8| (weight * frequencies[usize::from(symbol)] / 256, [&word[..], &[symbol]].concat());
        list[place] = longer(0);
        list.extend([longer(1), longer(2)]);
    }
    list.into_iter().map(|(_, word)| word).collect()
}

fn decode_tile(words: &[Vec<u8>], bytes: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let bits = bytes.view_bits::<Lsb0>();
    let (mut at, mut decoded) = (0, Vec::new());
    while decoded.len() < symbols.len() {
        let codeword = bits.get(at..at + 10).ok_or(StreamError::Length)?.load_le::<usize>();
        decoded.extend_from_slice(words.get(codeword).ok_or(super::UNUSED)?);
        at += 10;
    }
    let (inside, behind) = decoded.split_at(symbols.len());
    symbols.copy_from_slice(inside);
    if behind.iter().any(|&symbol| symbol != 0) {
        return Err(StreamError::Invalid("symbols behind the end are not zero"));
    }
    if bits.len() != at.next_multiple_of(32) {
        return Err(StreamError::Length);
    }
    if bits[at..].any() {
        return Err(StreamError::Invalid("padding is not zero"));
    }
    Ok(())
}
