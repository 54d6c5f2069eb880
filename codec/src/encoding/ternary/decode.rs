//! Symbols to elements.

use crate::encoding::groups::Grid;
use crate::encoding::number::{Bf16, F16, Float, Number};
use crate::encoding::versions::versioned;
use crate::prefetch::{self, PIECE};

versioned! {
    /// Puts elements together, `numbers` being the minima and the maxima of the groups. `threes` is not 0 after that if there is a symbol 3.
    join(element: Float, grid: Grid, symbols: &[u8], numbers: [&[u8]; 2], data: &mut [u8], threes: &mut u8) is join_loops
}

#[inline(always)]
fn join_loops(element: Float, grid: Grid, symbols: &[u8], numbers: [&[u8]; 2], data: &mut [u8], threes: &mut u8) {
    for group in 0..grid.count() {
        let pair = numbers.map(|numbers| Bf16::of(numbers)[group]);
        for run in grid.members(group) {
            let symbols = &symbols[run.clone()];
            *threes = symbols.iter().fold(*threes, |threes, symbol| threes | symbol & symbol >> 1);
            let place = &mut data[run.start * element.len()..run.end * element.len()];
            match element {
                Float::F32 => fill_32(symbols, pair.map(|[low, high]| [0, 0, low, high]), place),
                Float::F16 => fill_16(symbols, pair.map(|number| F16::from_f32(Bf16::to_f32(number))), place),
                _ => fill_16(symbols, pair, place),
            }
        }
    }
}

/// Defines a function that writes the first number where a symbol is 1 and the second one where it is 2. Masks instead of
/// a look-up: this is done for many elements at once.
macro_rules! fill {
    ($name:ident, $bits:ty, $len:literal) => {
        #[inline(always)]
        fn $name(symbols: &[u8], numbers: [[u8; $len]; 2], data: &mut [u8]) {
            let [minimum, maximum] = numbers.map(<$bits>::from_le_bytes);
            for (data, symbols) in data.chunks_mut(PIECE * $len).zip(symbols.chunks(PIECE)) {
                prefetch::write_behind(data);
                for (element, &symbol) in data.as_chunks_mut().0.iter_mut().zip(symbols) {
                    let (is_minimum, is_maximum) = (<$bits>::from(symbol & 1), <$bits>::from(symbol >> 1));
                    *element =
                        (minimum & is_minimum.wrapping_neg() | maximum & is_maximum.wrapping_neg()).to_le_bytes();
                }
            }
        }
    };
}

fill!(fill_16, u16, 2);
fill!(fill_32, u32, 4);
