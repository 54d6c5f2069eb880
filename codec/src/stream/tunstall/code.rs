//! The words of the code, made of how often the symbols occur.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{CODEWORD_BITS, CODEWORDS, LONGEST, SCALE_BITS};
use crate::stream::StreamError;

/// Weight of the empty word.
const WHOLE: u64 = 1 << 32;

/// A code, kept from stream to stream: neighbours often have the same.
#[derive(Default)]
pub(super) struct Code {
    frequencies: [u8; 2],
    /// The symbols of each codeword, and zeros.
    words: Vec<[u8; LONGEST]>,
    /// Their numbers: 0 for the codeword that stands for nothing.
    lengths: Vec<u8>,
    weights: Vec<u64>,
    /// Words that may get longer, heaviest first.
    open: BinaryHeap<(u64, Reverse<u16>)>,
    /// The sum of the weights of all words that got longer.
    inner: u64,
    /// The words that got longer, in this order: place, and length before in the bits from 10 on.
    splits: Vec<u16>,
}

/// How often the symbols 1 and 2 occur, of 256 symbols, for an array with these counts.
pub(super) fn frequencies(counts: &[u32]) -> [u8; 2] {
    let [zeros, ones, twos] = [0, 1, 2].map(|symbol| u64::from(counts[symbol]));
    let total = (zeros + ones + twos).max(1);
    let scaled = |count: u64| ((count << SCALE_BITS) + total / 2) / total;
    let ones = scaled(ones).clamp(1, 254);
    let twos = scaled(twos).clamp(1, 255 - ones);
    [ones as u8, twos as u8]
}

impl Code {
    /// Makes the code for these frequencies of the symbols 1 and 2.
    pub(super) fn fit(&mut self, frequencies: [u8; 2]) -> Result<(), StreamError> {
        let [ones, twos] = frequencies.map(u64::from);
        if ones == 0 || twos == 0 || ones + twos >= 1 << SCALE_BITS {
            return Err(StreamError::Invalid("not the frequencies of three symbols"));
        }
        if frequencies == self.frequencies {
            return Ok(());
        }
        self.frequencies = frequencies;
        let of_256 = [(1 << SCALE_BITS) - ones - twos, ones, twos];
        self.words.clear();
        self.lengths.clear();
        self.weights.clear();
        self.open.clear();
        self.inner = 0;
        self.splits.clear();
        self.push([0; LONGEST], 0, WHOLE);
        for _ in 0..CODEWORDS / 2 - 1 {
            self.split(of_256);
        }
        self.words.push([0; LONGEST]);
        self.lengths.push(0);
        Ok(())
    }

    /// Makes three words of the heaviest one.
    fn split(&mut self, of_256: [u64; 3]) {
        let Some((weight, Reverse(place))) = self.open.pop() else { return };
        let place = usize::from(place);
        let (word, length) = (self.words[place], self.lengths[place]);
        let [zero, one, two] = of_256.map(|frequency| (weight * frequency) >> SCALE_BITS);
        self.inner += weight;
        self.splits.push(place as u16 | u16::from(length) << CODEWORD_BITS);
        self.lengths[place] = length + 1;
        self.weights[place] = zero;
        self.reopen(place);
        for (symbol, weight) in [(1, one), (2, two)] {
            let mut longer = word;
            longer[usize::from(length)] = symbol;
            self.push(longer, length + 1, weight);
        }
    }

    fn push(&mut self, word: [u8; LONGEST], length: u8, weight: u64) {
        self.words.push(word);
        self.lengths.push(length);
        self.weights.push(weight);
        self.reopen(self.words.len() - 1);
    }

    fn reopen(&mut self, place: usize) {
        if usize::from(self.lengths[place]) < LONGEST {
            self.open.push((self.weights[place], Reverse(place as u16)));
        }
    }

    /// About how many codewords an array of `total` symbols takes that has these frequencies.
    pub(super) fn codewords(&self, total: u64) -> u64 {
        // The mean length of a word is the weight of all that got longer, over the whole.
        (u128::from(total) * u128::from(WHOLE) / u128::from(self.inner.max(1))) as u64
    }

    /// The words with their lengths, by codeword.
    pub(super) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.words.iter().zip(&self.lengths).map(|(word, &length)| &word[..usize::from(length)])
    }

    /// What a device makes the words of (`decode.cu`): the splits, a half of a word each, then the words' lengths, a byte each.
    pub(super) fn on_device(&self) -> Vec<u32> {
        let mut splits = self.splits.clone();
        splits.resize(CODEWORDS / 2, 0);
        let halves = splits.as_chunks().0.iter().map(|&[low, high]| u32::from(low) | u32::from(high) << 16);
        halves.chain(self.lengths.as_chunks().0.iter().map(|&lengths| u32::from_le_bytes(lengths))).collect()
    }

    /// The tables of a decoder: the symbols of each codeword, and their number.
    pub(super) fn tables(&self) -> Option<(&[[u8; LONGEST]; CODEWORDS], &[u8; CODEWORDS])> {
        Some((self.words.first_chunk()?, self.lengths.first_chunk()?))
    }
}
