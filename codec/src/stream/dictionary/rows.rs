//! Rows of QMoE: codewords for each row of a matrix, without tiles (arXiv 2310.16795, section 4.2).

use super::naive::WORDS;
use super::table::DICTIONARY;
use super::words;
use crate::stream::StreamError;

/// Appends the codewords of a row of ternary symbols, 0 to 2: the longest sequence of the dictionary, one after the other. Where the row has an
/// odd number of symbols, a 0 follows it.
///
/// # Errors
/// If a symbol is not 0, 1 or 2; some codewords may then have been appended.
pub fn encode_row(symbols: &[u8], codewords: &mut Vec<u16>) -> Result<(), StreamError> {
    let (mut children, mut codeword) = (&DICTIONARY.first, None);
    for pair in symbols.chunks(2) {
        let (first, second) = (pair[0], pair.get(1).copied().unwrap_or(0));
        if first > 2 || second > 2 {
            return Err(StreamError::Invalid("a symbol that is not ternary"));
        }
        let pair = usize::from(first + 3 * second);
        let mut next = children[pair];
        // Codeword 0 is a sequence of one pair: it makes no other one longer.
        if let Some(codeword) = codeword
            && next == 0
        {
            codewords.push(codeword);
            next = DICTIONARY.first[pair];
        }
        codeword = Some(next);
        children = &DICTIONARY.longer[usize::from(next)];
    }
    codewords.extend(codeword);
    Ok(())
}

/// Checks that codewords are those of a row of so many symbols.
///
/// # Errors
/// As [`decode_row`].
pub fn check_row(codewords: &[u16], symbols: usize) -> Result<(), StreamError> {
    let len = |codeword: &u16| 2 * (DICTIONARY.entries[usize::from(*codeword)] & 15) as usize;
    let Some((last, others)) = codewords.split_last() else {
        return if symbols == 0 { Ok(()) } else { Err(StreamError::Length) };
    };
    let before: usize = others.iter().map(len).sum();
    if before < symbols && symbols <= before + len(last) { Ok(()) } else { Err(StreamError::Length) }
}

/// Decodes the codewords of a row, one after the other, by the slow list of sequences.
///
/// # Errors
/// As [`decode_row`].
pub fn decode_row_naive(codewords: &[u16], symbols: &mut [u8]) -> Result<(), StreamError> {
    let mut done = 0;
    for codeword in codewords {
        for (i, &symbol) in WORDS[usize::from(*codeword)].iter().enumerate() {
            match symbols.get_mut(done) {
                Some(place) => *place = symbol,
                None if i == 0 => return Err(StreamError::Length),
                None => break,
            }
            done += 1;
        }
    }
    if done == symbols.len() { Ok(()) } else { Err(StreamError::Length) }
}

/// Decodes the codewords of a row into exactly `symbols`. Of the last codeword, symbols behind the row are passed over.
///
/// # Errors
/// If the codewords stand for fewer symbols, or if there is one more than the row needs.
pub fn decode_row(codewords: &[u16], symbols: &mut [u8]) -> Result<(), StreamError> {
    let (taken, _) = words::decode(codewords.iter().copied(), symbols)?;
    if taken == codewords.len() { Ok(()) } else { Err(StreamError::Length) }
}
