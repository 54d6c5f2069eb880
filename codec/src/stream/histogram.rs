//! How often each symbol occurs, and what that says about the sizes of streams.

use std::cmp::Reverse;

use super::Width;
use super::counter::Counter;

/// Fractional bits of the logarithms here.
pub(super) const FRACTION: u32 = 16;

/// Counts of the symbols of an array. Everything computed from them is in integers, so
/// that choices based on it are the same on every machine.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    width: Width,
    distinct: u64,
    entropy_bits: u64,
}

impl Histogram {
    /// Counts symbols.
    #[must_use]
    pub fn of(symbols: &[u8], width: Width) -> Self {
        let counts = Counter::default().count(symbols, width).to_vec();
        let total = (symbols.len() / width.bytes()) as u64;
        let log_total = log2(total);
        let used = || counts.iter().map(|&count| u64::from(count)).filter(|&count| count > 0);
        let entropy_bits = used().map(|count| count * (log_total - log2(count))).sum::<u64>() >> FRACTION;
        Self { distinct: used().count() as u64, counts, total, width, entropy_bits }
    }

    /// Number of symbols.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Width of the symbols.
    #[must_use]
    pub fn width(&self) -> Width {
        self.width
    }

    /// Number of different symbols.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// How often each of the `2^width` symbols occurs.
    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The `n` largest counts, largest first.
    #[must_use]
    pub fn largest(&self, n: usize) -> Vec<u32> {
        let mut counts: Vec<u32> = self.counts.iter().copied().filter(|&count| count > 0).collect();
        if n < counts.len() {
            counts.select_nth_unstable_by_key(n, |&count| Reverse(count));
            counts.truncate(n);
        }
        counts.sort_unstable_by_key(|&count| Reverse(count));
        counts
    }

    /// Order-0 entropy of the whole array, in bits: what no code that treats the symbols
    /// alike and alone can go below.
    #[must_use]
    pub fn entropy_bits(&self) -> u64 {
        self.entropy_bits
    }

    /// The histogram that an array `factor` times as long would have if this one is a sample
    /// of it.
    #[must_use]
    pub fn scaled(mut self, factor: u32) -> Self {
        // A sample's entropy is too low by half a symbol's worth for each symbol in it
        // (G. A. Miller, 1955); log2(e) / 2 is 0.7213.
        let bias = self.distinct * 7213 / 10_000;
        self.entropy_bits = (self.entropy_bits + bias) * u64::from(factor);
        self.counts.iter_mut().for_each(|count| *count = count.saturating_mul(factor));
        self.total *= u64::from(factor);
        self
    }
}

/// Fractional bits of numbers that are looked up, the first of which is [`LOGARITHMS`]' index.
const INDEX_BITS: u32 = 8;

/// Logarithms to base 2 of 1 to 2, with [`FRACTION`] fractional bits.
static LOGARITHMS: [u32; (1 << INDEX_BITS) + 1] = logarithms();

const fn logarithms() -> [u32; (1 << INDEX_BITS) + 1] {
    let mut table = [0; (1 << INDEX_BITS) + 1];
    let mut i = 0;
    while i < 1 << INDEX_BITS {
        // Repeated squaring, of a number with 31 fractional bits.
        let mut mantissa = ((1 << INDEX_BITS) + i as u64) << (31 - INDEX_BITS);
        let mut bits = 0;
        while bits <= FRACTION {
            mantissa = (mantissa * mantissa) >> 31;
            let bit = mantissa >> 32;
            table[i] = table[i] << 1 | bit as u32;
            mantissa >>= bit;
            bits += 1;
        }
        table[i] = (table[i] + 1) >> 1;
        i += 1;
    }
    table[i] = 1 << FRACTION;
    table
}

/// Logarithm to base 2 of a positive number below 2^48, with [`FRACTION`] fractional bits, by
/// interpolation; 0 for 0.
pub(super) fn log2(n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let whole = n.ilog2();
    let fraction = ((n << (63 - whole)) << 1) >> (64 - INDEX_BITS - FRACTION);
    let (index, between) = ((fraction >> FRACTION) as usize, fraction & ((1 << FRACTION) - 1));
    let (low, high) = (u64::from(LOGARITHMS[index]), u64::from(LOGARITHMS[index + 1]));
    (u64::from(whole) << FRACTION) + low + (((high - low) * between) >> FRACTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_the_last_bits() {
        for n in (1..5000).chain([65_535, 1 << 20, 123_456_789, u64::from(u32::MAX)]) {
            let exact = (n as f64).log2() * f64::from(1 << FRACTION);
            assert!((exact - log2(n) as f64).abs() < 3.0, "{n}");
        }
    }

    #[test]
    fn the_largest_counts_come_first() {
        let histogram = Histogram::of(b"abbcccddddd", Width::BYTE);
        assert_eq!(histogram.largest(2), [5, 3]);
        assert_eq!(histogram.largest(9), [5, 3, 2, 1]);
        assert!(histogram.largest(0).is_empty());
    }

    #[test]
    fn entropy_of_known_arrays() {
        assert_eq!(Histogram::of(&[7; 1000], Width::BYTE).entropy_bits(), 0);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(Histogram::of(&all, Width::BYTE).entropy_bits(), 2048);
        assert_eq!(Histogram::of(&[], Width::BYTE).entropy_bits(), 0);
    }
}
