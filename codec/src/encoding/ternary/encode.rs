//! Elements to symbols: what is nearer to the group's least or greatest weight than to 0 becomes that (arXiv 2310.16795, section 3.1).

use half::bf16;

use super::Float;
use super::groups::Groups;

/// Takes elements apart; `numbers` become the minima and the maxima of the groups.
pub(super) fn split(float: Float, groups: Groups, data: &[u8], symbols: &mut [u8], numbers: [&mut [u8]; 2]) {
    let mut extremes = vec![[0f32; 2]; groups.count()];
    for (group, range) in groups.runs() {
        // What is not a number is passed over, and so becomes 0.
        extremes[group] = range.fold(extremes[group], |[low, high], i| {
            let weight = float.get(data, i);
            [low.min(weight), high.max(weight)]
        });
    }
    for extremes in &mut extremes {
        *extremes = extremes.map(|x| nearest(float, x));
    }
    for (group, range) in groups.runs() {
        let [low, high] = extremes[group];
        for i in range {
            let weight = float.get(data, i);
            symbols[i] = if weight > high / 2.0 { 2 } else { u8::from(weight < low / 2.0) };
        }
    }
    for (numbers, which) in numbers.into_iter().zip([0, 1]) {
        for (number, extremes) in numbers.as_chunks_mut().0.iter_mut().zip(&extremes) {
            *number = bf16::from_f32(extremes[which]).to_le_bytes();
        }
    }
}

/// The nearest number of type BF16 that is finite in the elements' type, too; +0 for a zero.
fn nearest(float: Float, x: f32) -> f32 {
    let most = if float == Float::F16 { MAX_F16 } else { bf16::MAX.to_f32() };
    bf16::from_f32(x.clamp(-most, most)).to_f32() + 0.0
}

/// The greatest number of type BF16 that type F16 has.
const MAX_F16: f32 = 65_280.0;
