//! The dictionary: sequences of pairs by codeword, and codewords by sequence.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::LazyLock;

use super::{CODEWORDS, PAIRS};

/// Probability of the symbol 0 that the dictionary is made for.
const ZEROS: f64 = 0.885;
/// Pairs of a sequence, at most.
const MOST_PAIRS: u32 = 14;
/// Pairs by falling probability, ascending among equals.
const ORDER: [u8; PAIRS] = [0, 1, 2, 3, 6, 4, 5, 7, 8];
/// Bits of a pair in a sequence, which is written from the highest bit on: each pair plus one, and zeros. So sequences compare as integers.
const PAIR_BITS: u32 = 4;

/// The dictionary, made when it is first needed.
pub(super) static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(Dictionary::new);

/// The dictionary.
pub(super) struct Dictionary {
    /// Of each codeword the number of pairs in the lowest byte, and from there on the symbols, two bits each.
    pub(super) entries: Vec<u64>,
    /// The codewords of the sequences of one pair.
    pub(super) first: [u16; PAIRS],
    /// The codeword of a codeword's sequence and one more pair; 0 if there is none.
    pub(super) longer: Vec<[u16; PAIRS]>,
}

/// A sequence that may get a codeword.
struct Candidate {
    probability: f64,
    /// The sequence.
    pairs: u64,
    /// Probability of the sequence without its last pair.
    shorter_probability: f64,
    /// Its codeword, if it is not empty.
    shorter: Option<u16>,
    /// Place of the last pair in [`ORDER`].
    rank: usize,
}

/// The probabilities of the pairs.
fn probabilities() -> [f64; PAIRS] {
    let rest = (1.0 - ZEROS) / 2.0;
    let symbols = [ZEROS, rest, rest];
    std::array::from_fn(|pair| symbols[pair / 3] * symbols[pair % 3])
}

impl Dictionary {
    fn new() -> Self {
        let probabilities = probabilities();
        let longer = |shorter: Option<u16>, pairs: u64, probability: f64, rank: usize| Candidate {
            probability: probability * probabilities[usize::from(ORDER[rank])],
            pairs: with_pair(pairs, ORDER[rank]),
            shorter_probability: probability,
            shorter,
            rank,
        };
        let mut made =
            Self { entries: Vec::with_capacity(CODEWORDS), first: [0; PAIRS], longer: vec![[0; PAIRS]; CODEWORDS] };
        // Of the sequences that differ in their last pair alone, only the most probable one is a candidate: the others follow it.
        let mut candidates = BinaryHeap::from([longer(None, 0, 1.0, 0)]);
        while let Some(candidate) = candidates.pop()
            && made.entries.len() < CODEWORDS
        {
            let codeword = made.entries.len() as u16;
            let from = candidate.shorter.map_or(&mut made.first, |shorter| &mut made.longer[usize::from(shorter)]);
            from[usize::from(ORDER[candidate.rank])] = codeword;
            made.entries.push(entry(candidate.pairs));
            if candidate.rank + 1 < PAIRS {
                let Candidate { pairs, shorter, shorter_probability, rank, .. } = candidate;
                candidates.push(longer(shorter, without_last(pairs), shorter_probability, rank + 1));
            }
            if len(candidate.pairs) < MOST_PAIRS {
                candidates.push(longer(Some(codeword), candidate.pairs, candidate.probability, 0));
            }
        }
        made
    }
}

/// Number of pairs in a sequence.
fn len(pairs: u64) -> u32 {
    (u64::BITS - pairs.trailing_zeros()).div_ceil(PAIR_BITS) % (u64::BITS / PAIR_BITS + 1)
}

fn with_pair(pairs: u64, pair: u8) -> u64 {
    pairs | u64::from(pair + 1) << (u64::BITS - PAIR_BITS * (len(pairs) + 1))
}

fn without_last(pairs: u64) -> u64 {
    let keep = PAIR_BITS * (len(pairs) - 1);
    pairs & !u64::MAX.checked_shr(keep).unwrap_or(0)
}

fn entry(pairs: u64) -> u64 {
    let symbols = (0..len(pairs)).fold(0, |symbols, i| {
        let pair = (pairs >> (u64::BITS - PAIR_BITS * (i + 1)) & 15) - 1;
        symbols | (pair % 3 + 4 * (pair / 3)) << (8 + 4 * i)
    });
    symbols | u64::from(len(pairs))
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.probability.total_cmp(&other.probability).then(other.pairs.cmp(&self.pairs))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// The table of QMoE's decoder, `sub1.py` of IST-DASLab/qmoe at 9110baa.
    #[test]
    fn the_dictionary_is_that_of_qmoe() {
        let mut table = Vec::new();
        for entry in &DICTIONARY.entries {
            for symbols in [entry >> 8, entry >> 36] {
                let word = (symbols as u32 & ((1 << 28) - 1)) << 4 | (entry & 15) as u32;
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
        let digest: String = Sha256::digest(&table).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "c09862c453fe122634070a475357ff81a679aff65829d84a56f806c02a54ed45");
    }
}
