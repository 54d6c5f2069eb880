//! Elements to symbols: what is nearer to the group's least or greatest weight than to 0 becomes that (arXiv 2310.16795, section 3.1).

use crate::encoding::groups::Grid;
use crate::encoding::number::Float;

/// The greatest number of type BF16, and of those that type F16 has.
const MAX: f32 = f32::from_bits(0x7f7f_0000);
const MAX_F16: f32 = 65_280.0;

/// Takes elements apart; `numbers` become the minima and the maxima of the groups.
pub(super) fn split(element: Float, grid: Grid, data: &[u8], symbols: &mut [u8], mut numbers: [&mut [u8]; 2]) {
    let most = if element == Float::F16 { MAX_F16 } else { MAX };
    for group in 0..grid.count() {
        // What is not a number is passed over, and so becomes 0.
        let weights = grid.members(group).flatten().map(|i| element.get(data, i));
        let extremes = weights.fold([0f32; 2], |[low, high], weight| [low.min(weight), high.max(weight)]);
        let mut put = |which: usize| {
            let finite = extremes[which].clamp(-most, most) + 0.0;
            Float::BF16.put(numbers[which], group, finite) / 2.0
        };
        let (low, high) = (put(0), put(1));
        for i in grid.members(group).flatten() {
            let weight = element.get(data, i);
            symbols[i] = if weight > high { 2 } else { u8::from(weight < low) };
        }
    }
}
