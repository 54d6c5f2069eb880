//! Symbols to elements.

use half::{bf16, f16};

use super::Float;
use super::groups::Groups;
use crate::stream::StreamError;

/// Puts elements together, `numbers` being the minima and the maxima of the groups.
pub(super) fn join(
    float: Float,
    groups: Groups,
    symbols: &[u8],
    numbers: [&[u8]; 2],
    data: &mut [u8],
) -> Result<(), StreamError> {
    let numbers = numbers.map(|numbers| numbers.as_chunks::<2>().0);
    for (group, range) in groups.runs() {
        let symbols = &symbols[range.clone()];
        if symbols.iter().fold(0, |threes, symbol| threes | symbol & symbol >> 1) != 0 {
            return Err(StreamError::Invalid("a symbol that is not ternary"));
        }
        let pair = numbers.map(|numbers| u16::from_le_bytes(numbers[group]));
        let place = &mut data[range.start * float.len()..range.end * float.len()];
        match float {
            Float::BF16 => fill_16(symbols, pair, place),
            Float::F16 => fill_16(symbols, pair.map(half_precision), place),
            Float::F32 => fill_32(symbols, pair.map(|bits| u32::from(bits) << 16), place),
        }
    }
    Ok(())
}

/// The bits of the nearest number of half precision.
fn half_precision(bits: u16) -> u16 {
    let number = bf16::from_bits(bits);
    if number.is_nan() { 0x7e00 } else { f16::from_f32(number.to_f32()).to_bits() }
}

/// The first number where a symbol is 1, the second one where it is 2. Masks instead of a look-up: this is done for many
/// elements at once.
macro_rules! fill {
    ($name:ident, $bits:ty) => {
        fn $name(symbols: &[u8], [minimum, maximum]: [$bits; 2], data: &mut [u8]) {
            for (element, &symbol) in data.as_chunks_mut().0.iter_mut().zip(symbols) {
                let (is_minimum, is_maximum) = (<$bits>::from(symbol & 1), <$bits>::from(symbol >> 1));
                *element = (minimum & is_minimum.wrapping_neg() | maximum & is_maximum.wrapping_neg()).to_le_bytes();
            }
        }
    };
}

fill!(fill_16, u16);
fill!(fill_32, u32);
