//! The slow, obvious decoder of the `trits` codec: by division.

use super::ternary::{self, Form};
use super::{BYTES, DIGITS};
use crate::stream::StreamError;

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    let code = match Form::of(stream)? {
        Form::Packed(code) => return ternary::unpack_naive(code, symbols),
        Form::Coded([0, 0], code) => code,
        Form::Coded(..) => return Err(StreamError::Invalid("reserved bytes are not zero")),
    };
    if code.len() != symbols.len().div_ceil(DIGITS) {
        return Err(StreamError::Length);
    }
    for (&byte, place) in code.iter().zip(symbols.chunks_mut(DIGITS)) {
        if byte >= BYTES {
            return Err(StreamError::Invalid("not five ternary symbols"));
        }
        let mut rest = byte;
        for symbol in place {
            *symbol = rest % 3;
            rest /= 3;
        }
        if rest != 0 {
            return Err(StreamError::Invalid("symbols behind the end are not zero"));
        }
    }
    Ok(())
}
