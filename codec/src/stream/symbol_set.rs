//! The set of symbols that occur in an array, as the entropy codecs store it, and
//! the small integers that their tables are made of.
//!
//! Bytes: `varint R`, the number of runs, then for each run `varint gap`, the number of
//! unused symbols in front of it, and `varint len - 1`. Only the first gap may be 0.
//!
//! A varint is one byte below 192, or two: `192 + (v - 192) / 256`, `(v - 192) % 256`.

use super::{StreamError, Width};

/// Largest value of a varint of one byte, plus one.
const ONE_BYTE: usize = 192;
const BAD: StreamError = StreamError::Invalid("the table of symbols is damaged");

/// Appends `value`, which is less than 16,576.
pub(super) fn put_varint(value: usize, out: &mut Vec<u8>) {
    if let Some(rest) = value.checked_sub(ONE_BYTE) {
        out.extend_from_slice(&[(ONE_BYTE + rest / 256) as u8, rest as u8]);
    } else {
        out.push(value as u8);
    }
}

/// Takes a value from the front of `bytes`.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<usize, StreamError> {
    let first = usize::from(take_byte(bytes)?);
    match first.checked_sub(ONE_BYTE) {
        Some(high) => Ok(ONE_BYTE + 256 * high + usize::from(take_byte(bytes)?)),
        None => Ok(first),
    }
}

pub(super) fn take_byte(bytes: &mut &[u8]) -> Result<u8, StreamError> {
    let (&first, rest) = bytes.split_first().ok_or(BAD)?;
    *bytes = rest;
    Ok(first)
}

/// Appends the set of the symbols whose count is not zero.
pub(super) fn put(counts: &[u32], out: &mut Vec<u8>) {
    let runs = || counts.chunk_by(|&a, &b| (a == 0) == (b == 0));
    put_varint(runs().filter(|run| run[0] != 0).count(), out);
    let mut gap = 0;
    for run in runs() {
        if run[0] == 0 {
            gap = run.len();
        } else {
            put_varint(gap, out);
            put_varint(run.len() - 1, out);
        }
    }
}

/// Takes a set from the front of `bytes`, into `symbols`, ascending. There is then room for
/// all symbols, so that the next set does not allocate.
pub(super) fn take(bytes: &mut &[u8], width: Width, symbols: &mut Vec<u16>) -> Result<(), StreamError> {
    symbols.clear();
    symbols.reserve(1 << width.bits());
    let runs = take_varint(bytes)?;
    let mut next = 0;
    for run in 0..runs {
        let gap = take_varint(bytes)?;
        let len = take_varint(bytes)? + 1;
        if run > 0 && gap == 0 || next + gap + len > 1 << width.bits() {
            return Err(BAD);
        }
        symbols.extend((next + gap..next + gap + len).map(|symbol| symbol as u16));
        next += gap + len;
    }
    Ok(())
}
