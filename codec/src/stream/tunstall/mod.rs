//! `tunstall`: ternary symbols in codewords of ten bits. See `SPEC.md` in this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width, ternary};
use crate::Scratch;
use crate::device::DeviceForm;

mod code;
mod decode;
mod encode;
mod naive;

/// Bits of a codeword.
const CODEWORD_BITS: u32 = 10;
const CODEWORDS: usize = 1 << CODEWORD_BITS;
/// Symbols that a codeword stands for, at most.
const LONGEST: usize = 32;
/// Frequencies add up to two to this power.
const SCALE_BITS: u32 = 8;

const UNUSED: StreamError = StreamError::Invalid("a codeword that stands for nothing");

/// The `tunstall` stream codec.
#[derive(Debug)]
pub struct Tunstall;

impl StreamCodec for Tunstall {
    fn id(&self) -> u16 {
        6
    }

    fn name(&self) -> &'static str {
        "tunstall"
    }

    fn supports(&self, width: Width) -> bool {
        width == ternary::WIDTH
    }

    fn encode(&self, symbols: &[u8], _: Width, _: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        encode::encode(symbols, scratch, out);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        let mut code = code::Code::default();
        code.fit(code::frequencies(histogram.counts())).ok()?;
        let bits = code.codewords(histogram.total()) * u64::from(CODEWORD_BITS);
        // An end and a word half full for each tile, and one in front.
        let tiles = histogram.total().div_ceil(ternary::TILE as u64);
        Some(ternary::estimate(histogram, bits / 8 + 6 * tiles + 4))
    }

    fn decode(&self, stream: &[u8], _: Width, scratch: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        decode::decode(stream, scratch, symbols)
    }

    fn device_form(&self, stream: &[u8], _: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        ternary::device_form(stream, symbols, |frequencies, code| {
            let mut table = code::Code::default();
            table.fit(frequencies)?;
            Ok(ternary::Tiles::of(code, symbols)?.on_device(table.on_device()))
        })
    }

    fn decode_naive(&self, stream: &[u8], _: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Tunstall);
        laws::check_ternary(&Tunstall);
    }

    #[test]
    fn the_example_of_the_page() {
        let stream = [0, 15, 15, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x56, 0x24, 0, 0];
        let mut symbols = [9; 10];
        Tunstall.decode(&stream, ternary::WIDTH, &mut Scratch::new(), &mut symbols).unwrap();
        assert_eq!(symbols, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn both_ways_make_the_same_words() {
        for frequencies in [[1, 1], [64, 64], [15, 14], [254, 1], [1, 254], [85, 85], [3, 40], [7, 7]] {
            let mut code = code::Code::default();
            code.fit(frequencies).unwrap();
            let [f1, f2] = frequencies.map(u64::from);
            let words = naive::words([256 - f1 - f2, f1, f2]);
            assert_eq!(words.len(), CODEWORDS - 1);
            assert!(code.words().eq(words.iter().map(Vec::as_slice).chain([&[][..]])), "{frequencies:?}");
        }
    }

    /// No word begins another one, and the words are complete.
    #[test]
    fn words_are_the_leaves_of_a_tree() {
        let mut code = code::Code::default();
        code.fit([15, 14]).unwrap();
        let mut words: Vec<&[u8]> = code.words().filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| !pair[1].starts_with(pair[0])));
        let kraft: f64 = words.iter().map(|word| 3f64.powi(-(word.len() as i32))).sum();
        assert!((kraft - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bad_frequencies_and_codewords_are_refused() {
        let mut stream = Vec::new();
        let symbols = laws::ternary(886, 20_000, 1);
        Tunstall.encode(&symbols, ternary::WIDTH, Level::Fast, &mut Scratch::new(), &mut stream);
        let decode = |stream: &[u8]| {
            let mut scratch = Scratch::new();
            laws::agree(&Tunstall, stream, ternary::WIDTH, &mut scratch, symbols.len(), "damaged")
        };
        assert!(decode(&stream).is_ok());
        for (ones, twos) in [(0, 1), (1, 0), (128, 128), (255, 255)] {
            let mut changed = stream.clone();
            changed[1..3].copy_from_slice(&[ones, twos]);
            assert!(decode(&changed).is_err());
        }
        // In the middle of the first tile, and at its end.
        for at in [40, 600] {
            let mut changed = stream.clone();
            changed[at..at + 3].fill(0xff);
            assert!(decode(&changed).is_err());
        }
    }

    #[test]
    fn estimates_are_near() {
        // Frequencies are 256ths, which tells where nearly all symbols are 0.
        for (per_mille, parts) in [(400, 50), (600, 50), (857, 50), (886, 50), (950, 40), (1000, 12)] {
            let symbols = laws::ternary(per_mille, 1 << 18, 3);
            let mut stream = Vec::new();
            Tunstall.encode(&symbols, ternary::WIDTH, Level::Fast, &mut Scratch::new(), &mut stream);
            let estimate = Tunstall.estimate(&Histogram::of(&symbols, ternary::WIDTH)).unwrap();
            let difference = estimate.abs_diff(stream.len() as u64);
            assert!(difference < stream.len() as u64 / parts, "{per_mille}: {estimate}, {}", stream.len());
        }
    }

    /// What experts below one bit a weight need: the rates of the zeros that QMoE reports (arXiv 2310.16795, table 4).
    #[test]
    fn rates_are_below_one_bit() {
        for (per_mille, most) in [(886, 0.675), (857, 0.785)] {
            let symbols = laws::ternary(per_mille, 1 << 19, 5);
            let mut stream = Vec::new();
            Tunstall.encode(&symbols, ternary::WIDTH, Level::Fast, &mut Scratch::new(), &mut stream);
            let rate = (8 * stream.len()) as f64 / symbols.len() as f64;
            assert!(rate <= most, "{per_mille}: {rate}");
        }
    }
}
