//! `huffman`: canonical prefix codes in 32 lanes. See `SPEC.md` in this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

#[cfg(target_arch = "x86_64")]
mod bmi2;
mod code;
mod decode;
mod device;
mod encode;
mod header;
mod naive;

/// Longest code, in bits.
const LONGEST: usize = 11;
/// Symbols in a tile.
const TILE: usize = 16_384;
/// Bit streams of a tile.
const LANES: usize = 32;
/// Consecutive symbols that belong to one lane.
const GRANULE: usize = 8;
/// Symbols in a group: a granule for each lane.
const GROUP: usize = LANES * GRANULE;
/// Bits of a lane's length in bytes.
const LENGTH_BITS: usize = 10;
/// Bytes of the lane lengths of a tile.
const LENGTHS_LEN: usize = LANES * LENGTH_BITS / 8;
/// Zeros behind the payload, so that a decoder may read whole words.
const SLACK: usize = 8;

/// The `huffman` stream codec.
#[derive(Debug)]
pub struct Huffman;

impl StreamCodec for Huffman {
    fn id(&self) -> u16 {
        4
    }

    fn name(&self) -> &'static str {
        "huffman"
    }

    fn supports(&self, width: Width) -> bool {
        width.bits() <= 8
    }

    fn encode(&self, symbols: &[u8], width: Width, _: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        encode::encode(symbols, width, scratch, out);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        // Huffman codes lose a few hundredths of a bit to whole lengths, and have one at least.
        let bits = (histogram.entropy_bits() + histogram.total() / 24).max(histogram.total());
        Some(bits / 8 + histogram.total() / 400 + 64)
    }

    fn decode(
        &self,
        stream: &[u8],
        width: Width,
        scratch: &mut Scratch,
        symbols: &mut [u8],
    ) -> Result<(), StreamError> {
        decode::decode(stream, width, scratch, symbols)
    }

    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        device::form(stream, width, symbols)
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, width, symbols)
    }
}

/// How many of the first `n` symbols of a tile belong to `lane`.
fn lane_symbols(n: usize, lane: usize) -> usize {
    n / GROUP * GRANULE + (n % GROUP).saturating_sub(lane * GRANULE).min(GRANULE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Huffman);
    }

    /// The codec with the instructions of every machine.
    #[derive(Debug)]
    struct Portable;

    impl StreamCodec for Portable {
        fn id(&self) -> u16 {
            Huffman.id()
        }

        fn name(&self) -> &'static str {
            "huffman, portable"
        }

        fn supports(&self, width: Width) -> bool {
            Huffman.supports(width)
        }

        fn encode(&self, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
            Huffman.encode(symbols, width, level, scratch, out);
        }

        fn decode(
            &self,
            stream: &[u8],
            width: Width,
            scratch: &mut Scratch,
            symbols: &mut [u8],
        ) -> Result<(), StreamError> {
            scratch.with::<decode::Decoder, _>(|decoder, _| decoder.decode(stream, width, symbols, false))
        }

        fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
            Huffman.decode_naive(stream, width, symbols)
        }
    }

    #[test]
    fn the_portable_path_keeps_the_laws() {
        laws::check(&Portable);
    }

    #[test]
    fn encodes_an_example() {
        // Symbols 3, 4, 9 with codes 10, 0, 11; lane 0 has the symbols 4 3 9 4.
        let mut stream = vec![7, 0, 0, 0, 2, 3, 1, 4, 0, 0x12, 0x02, 0, 0, 0, 0, 0, 11, 0, 0, 0, 1];
        stream.resize(16 + 4 + 40, 0);
        stream.extend_from_slice(&[0b0001_1010, 0, 0, 0]);
        stream.extend_from_slice(&[0; 8]);
        let mut encoded = Vec::new();
        Huffman.encode(&[4, 3, 9, 4], Width::new(4), Level::Fast, &mut Scratch::new(), &mut encoded);
        assert_eq!(encoded, stream);
    }

    #[test]
    fn a_constant_array_costs_twenty_bytes() {
        let mut stream = Vec::new();
        Huffman.encode(&[7; 1 << 19], Width::BYTE, Level::Max, &mut Scratch::new(), &mut stream);
        assert_eq!(stream, [3, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// Fibonacci counts, whose unlimited code would have 24 bits.
    #[test]
    fn skewed_counts_keep_the_limit() {
        let (mut symbols, mut a, mut b) = (Vec::new(), 1, 1);
        for symbol in 0..25 {
            symbols.extend(std::iter::repeat_n(symbol, a));
            (a, b) = (b, a + b);
        }
        let mut stream = Vec::new();
        Huffman.encode(&symbols, Width::new(5), Level::Fast, &mut Scratch::new(), &mut stream);
        let mut decoded = vec![0; symbols.len()];
        Huffman.decode(&stream, Width::new(5), &mut Scratch::new(), &mut decoded).unwrap();
        assert!(decoded == symbols);
    }
}
