//! Codewords to symbols: the words are put together as fields of two bits, one behind the other, which are then unpacked.

use super::CODEWORDS;
use super::table::DICTIONARY;
use crate::stream::ternary::WIDTH;
use crate::stream::{StreamError, bitpack};

/// Symbols that are unpacked at a time.
const CHUNK: usize = 8192;
/// Symbols in a byte.
const OF_BYTE: usize = 4;
/// Bytes of a word and of what is left of the byte before it.
const WORD_LEN: usize = 8;

/// Decodes as many codewords as `symbols` needs; gives their number, and the symbols of the last one that lie behind the end, two bits each.
pub(super) fn decode(
    mut codewords: impl Iterator<Item = u16>,
    symbols: &mut [u8],
) -> Result<(usize, u64), StreamError> {
    let entries: &[u64; CODEWORDS] = DICTIONARY.entries[..].try_into().expect("a codeword has 16 bits");
    let mut packed = [0; CHUNK / OF_BYTE + WORD_LEN];
    let (mut taken, mut behind, mut filled) = (0, 0u64, 0);
    for chunk in symbols.chunks_mut(CHUNK) {
        // What the chunk before had too much is whole symbols of this one.
        packed[..WORD_LEN].copy_from_slice(&behind.to_le_bytes());
        let mut at = filled / OF_BYTE;
        let mut bits = 2 * (filled % OF_BYTE);
        let mut ahead = behind >> (8 * at);
        while filled < chunk.len() {
            let entry = entries[usize::from(codewords.next().ok_or(StreamError::Length)?)];
            let len = 2 * (entry & 15) as usize;
            ahead |= entry >> 8 << bits;
            packed[at..at + WORD_LEN].copy_from_slice(&ahead.to_le_bytes());
            bits += 2 * len;
            at += bits / 8;
            ahead >>= bits / 8 * 8;
            bits %= 8;
            filled += len;
            taken += 1;
        }
        bitpack::unpack(&packed, WIDTH, chunk);
        filled -= chunk.len();
        let end = chunk.len() / OF_BYTE;
        let left = packed[end..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        behind = left >> (2 * (chunk.len() % OF_BYTE)) & !(u64::MAX << (2 * filled));
    }
    Ok((taken, behind))
}
