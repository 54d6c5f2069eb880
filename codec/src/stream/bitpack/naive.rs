//! The slow, obvious decoder of the `bitpack` codec: bit by bit.

use crate::stream::{StreamError, Width};

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let bits = usize::from(width.bits());
    let n = symbols.len() / width.bytes();
    if !symbols.len().is_multiple_of(width.bytes()) || stream.len() as u128 != (n as u128 * bits as u128).div_ceil(8) {
        return Err(StreamError::Length);
    }
    let bit = |j: usize| u16::from(stream[j / 8] >> (j % 8) & 1);
    for (i, symbol) in symbols.chunks_exact_mut(width.bytes()).enumerate() {
        let value = (0..bits).fold(0, |value, b| value | bit(i * bits + b) << b);
        symbol.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
    }
    if (n * bits..8 * stream.len()).any(|j| bit(j) != 0) {
        return Err(StreamError::Invalid("bits behind the last symbol are not zero"));
    }
    Ok(())
}
