//! How much of an array has been there before: a cheap look at what codecs that copy could gain.

use std::ops::RangeInclusive;

/// Windows are remembered at multiples of one number and looked for at multiples of the other, both odd,
/// so that they do not keep step with elements. As
/// they have no divisor in common, one place in `REMEMBERED * LOOKED_FOR` shows a repeat,
/// however far it is from what it repeats.
const REMEMBERED: usize = 9;
const LOOKED_FOR: usize = 7;
/// Bits of a place in the table.
const TABLE_BITS: u32 = 12;
/// Bytes of the shortest and of the longest window.
pub(crate) const WINDOWS: RangeInclusive<u64> = 4..=8;

/// About how many of the bytes begin a window that the first 64 KiB hold elsewhere, too. Windows
/// are of `window` bytes, one of [`WINDOWS`].
pub(crate) fn repeated_bytes(bytes: &[u8], window: u64) -> u64 {
    let unused = 64 - 8 * window;
    let bytes = &bytes[..bytes.len().min(1 << 16)];
    let eights = bytes.windows(8);
    let window = |at: usize| word(&bytes[at..at + 8]) << unused;
    let place = |window: u64| (window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS)) as usize;
    // Whatever a place holds, an empty one too, is a place of the array to compare with.
    let mut table = [0u16; 1 << TABLE_BITS];
    for at in (0..eights.len()).step_by(REMEMBERED) {
        table[place(window(at))] = at as u16;
    }
    let is_elsewhere = |&at: &usize| {
        let other = usize::from(table[place(window(at))]);
        other != at && window(other) == window(at)
    };
    let found = (0..eights.len()).step_by(LOOKED_FOR).filter(is_elsewhere).count();
    ((REMEMBERED * LOOKED_FOR * found) as u64).min(bytes.len() as u64)
}

fn word(eight: &[u8]) -> u64 {
    eight.first_chunk().map_or(0, |&eight| u64::from_le_bytes(eight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws::Random;

    #[test]
    fn noise_has_no_repeats_and_copies_have_whatever_their_distance() {
        let mut random = Random(5);
        let noise: Vec<u8> = (0..8192).map(|_| random.next() as u8).collect();
        assert_eq!(repeated_bytes(&noise, 4), 0);
        for distance in [100, 384, 1000, 1001, 2880, 4096] {
            let copies: Vec<u8> = noise[..distance].iter().copied().cycle().take(8192).collect();
            assert!(repeated_bytes(&copies, 5) as usize > (8192 - distance) * 3 / 4, "{distance}");
        }
        // A quarter of it repeats another quarter.
        let mut partly = noise;
        partly.copy_within(1001..3049, 5000);
        assert!((2048..=8192).contains(&repeated_bytes(&partly, 8)));
    }

    #[test]
    fn integers_that_count_repeat_their_upper_bytes() {
        let integers: Vec<u8> = (0..1024u64).flat_map(u64::to_le_bytes).collect();
        assert!(repeated_bytes(&integers, 4) > 4096);
    }

    #[test]
    fn arrays_of_any_length_are_looked_at() {
        for len in 0..40 {
            let found = repeated_bytes(&vec![7; len], 8);
            assert!(found <= len as u64 && (found > 0 || len < 17), "{len}: {found}");
        }
    }
}
