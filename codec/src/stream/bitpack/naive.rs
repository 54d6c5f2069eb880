//! The slow, obvious decoder of the `bitpack` codec: bit by bit.

use bitvec::order::Lsb0;
use bitvec::view::BitView;

use crate::stream::{StreamError, Width};

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
    let bits = usize::from(width.bits());
    let n = symbols.len() / width.bytes();
    if !symbols.len().is_multiple_of(width.bytes()) || stream.len() as u128 != (n as u128 * bits as u128).div_ceil(8) {
        return Err(StreamError::Length);
    }
    let (codes, spare) = stream.view_bits::<Lsb0>().split_at(n * bits);
    for (i, symbol) in symbols.chunks_exact_mut(width.bytes()).enumerate() {
        let value = codes[i * bits..][..bits].iter_ones().fold(0u16, |value, b| value | 1 << b);
        symbol.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
    }
    if spare.any() {
        return Err(StreamError::Invalid("bits behind the last symbol are not zero"));
    }
    Ok(())
}
