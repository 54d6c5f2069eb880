//! How often each symbol occurs, and what that says about the sizes of streams.

use super::Width;
use super::counter::Counter;

/// Fractional bits of the logarithms here.
const FRACTION: u32 = 16;

/// Counts of the symbols of an array. Everything computed from them is in integers, so
/// that choices based on it are the same on every machine.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    width: Width,
    /// What the entropy of a sample lacks, in bits.
    bias: u64,
}

impl Histogram {
    /// Counts symbols.
    #[must_use]
    pub fn of(symbols: &[u8], width: Width) -> Self {
        let counts = Counter::default().count(symbols, width).to_vec();
        Self { counts, total: (symbols.len() / width.bytes()) as u64, width, bias: 0 }
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
        self.counts.iter().filter(|&&count| count > 0).count() as u64
    }

    /// The counts, largest first.
    #[must_use]
    pub fn descending(&self) -> Vec<u32> {
        let mut counts = self.counts.clone();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    /// Order-0 entropy of the whole array, in bits: what no code that treats the symbols
    /// alike and alone can go below.
    #[must_use]
    pub fn entropy_bits(&self) -> u64 {
        let log_total = log2(self.total);
        let used = self.counts.iter().map(|&count| u64::from(count)).filter(|&count| count > 0);
        (used.map(|count| count * (log_total - log2(count))).sum::<u64>() >> FRACTION) + self.bias
    }

    /// The histogram that an array `factor` times as long would have if this one is a sample
    /// of it.
    #[must_use]
    pub fn scaled(mut self, factor: u32) -> Self {
        // A sample's entropy is too low by half a symbol's worth for each symbol in it
        // (G. A. Miller, 1955); log2(e) / 2 is 0.7213.
        self.bias = self.distinct() * u64::from(factor) * 7213 / 10_000;
        self.counts.iter_mut().for_each(|count| *count = count.saturating_mul(factor));
        self.total *= u64::from(factor);
        self
    }
}

/// Logarithm to base 2 of a positive number below 2^32, with [`FRACTION`] fractional bits, by
/// repeated squaring.
fn log2(n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let whole = n.ilog2();
    // The mantissa, 1 to 2, with 31 fractional bits.
    let mut mantissa = if whole <= 31 { n << (31 - whole) } else { n >> (whole - 31) };
    let mut log = u64::from(whole);
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 31;
        let bit = mantissa >> 32;
        mantissa >>= bit;
        log = log << 1 | bit;
    }
    log
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
    fn entropy_of_known_arrays() {
        assert_eq!(Histogram::of(&[7; 1000], Width::BYTE).entropy_bits(), 0);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(Histogram::of(&all, Width::BYTE).entropy_bits(), 2048);
        assert_eq!(Histogram::of(&[], Width::BYTE).entropy_bits(), 0);
    }
}
