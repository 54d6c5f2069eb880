//! Frequencies that add up to [`SCALE`]: from counts, to bytes and back.

use super::{SCALE, SCALE_BITS};
use crate::stream::histogram::{FRACTION, log2};
use crate::stream::symbol_set::{self, put_varint, take_varint};
use crate::stream::{StreamError, Width};

/// The symbols that occur, ascending, and how often out of [`SCALE`].
#[derive(Default)]
pub(super) struct Model {
    pub(super) symbols: Vec<u16>,
    /// Of each of `symbols`, at least 1. Empty if there are fewer than two symbols.
    pub(super) frequencies: Vec<u32>,
}

impl Model {
    /// The model for an array with these counts.
    pub(super) fn fit(&mut self, counts: &[u32]) {
        self.symbols.clear();
        self.symbols.reserve(counts.len());
        self.symbols.extend((0..=u16::MAX).zip(counts).filter(|&(_, &count)| count > 0).map(|(symbol, _)| symbol));
        self.frequencies.clear();
        self.frequencies.reserve(counts.len());
        if self.symbols.len() >= 2 {
            let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
            let scaled = |count: u32| (u64::from(count) * u64::from(SCALE) / total).max(1) as u32;
            self.frequencies.extend(counts.iter().filter(|&&count| count > 0).map(|&count| scaled(count)));
            self.balance(counts);
        }
    }

    /// Changes frequencies, one by one, where it costs least, until they add up.
    ///
    /// One more for a symbol of count `c` and frequency `f` saves about `c / (f + 1/2)`;
    /// the comparisons are exact, and the lower symbol wins a tie.
    fn balance(&mut self, counts: &[u32]) {
        let frequencies = &mut self.frequencies;
        let weight = |i: usize| 2 * u64::from(counts[usize::from(self.symbols[i])]);
        let mut sum: u32 = frequencies.iter().sum();
        while sum < SCALE {
            let gain = |f: &[u32], i: usize| (weight(i), u64::from(2 * f[i] + 1));
            let best = (1..frequencies.len()).fold(0, |best, i| {
                let ((a, b), (c, d)) = (gain(frequencies, best), gain(frequencies, i));
                if c * b > a * d { i } else { best }
            });
            frequencies[best] += 1;
            sum += 1;
        }
        while sum > SCALE {
            let loss = |f: &[u32], i: usize| (weight(i), u64::from(2 * f[i] - 1));
            let candidates = (0..frequencies.len()).filter(|&i| frequencies[i] > 1);
            let best = candidates.reduce(|best, i| {
                let ((a, b), (c, d)) = (loss(frequencies, best), loss(frequencies, i));
                if c * b < a * d { i } else { best }
            });
            // A sum above the scale has a frequency above 1: there are at most SCALE symbols.
            let Some(best) = best else { break };
            frequencies[best] -= 1;
            sum -= 1;
        }
    }

    /// What the table and an array with these counts take, without its states: in bits, with [`FRACTION`] fractional ones.
    pub(super) fn cost(&self, counts: &[u32]) -> u64 {
        let mut table = Vec::new();
        self.put(counts, &mut table);
        let bits = self.intervals().map(|(symbol, frequency, _)| {
            u64::from(counts[usize::from(symbol)]) * ((u64::from(SCALE_BITS) << FRACTION) - log2(frequency.into()))
        });
        ((8 * table.len() as u64) << FRACTION) + bits.sum::<u64>()
    }

    /// Appends the table to `out`.
    pub(super) fn put(&self, counts: &[u32], out: &mut Vec<u8>) {
        symbol_set::put(counts, out);
        for &frequency in &self.frequencies {
            put_varint(frequency as usize - 1, out);
        }
    }

    /// Reads a table that fills `bytes`.
    pub(super) fn read(&mut self, mut bytes: &[u8], width: Width) -> Result<(), StreamError> {
        symbol_set::take(&mut bytes, width, &mut self.symbols)?;
        self.frequencies.clear();
        self.frequencies.reserve(1 << width.bits());
        if self.symbols.len() >= 2 {
            for _ in 0..self.symbols.len() {
                self.frequencies.push(take_varint(&mut bytes)? as u32 + 1);
            }
            if self.frequencies.iter().sum::<u32>() != SCALE {
                return Err(StreamError::Invalid("the frequencies do not add up"));
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(StreamError::Invalid("bytes behind the table of frequencies")) }
    }

    /// Each symbol's number, frequency and the sum of the frequencies before it.
    pub(super) fn intervals(&self) -> impl Iterator<Item = (u16, u32, u32)> + '_ {
        let starts = self.frequencies.iter().scan(0, |end, &frequency| {
            *end += frequency;
            Some(*end - frequency)
        });
        self.symbols.iter().zip(&self.frequencies).zip(starts).map(|((&s, &f), start)| (s, f, start))
    }
}
