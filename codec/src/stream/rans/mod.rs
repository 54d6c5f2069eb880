//! `rans`: range asymmetric numeral systems, 32 states side by side. See `SPEC.md` in
//! this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

mod decode;
mod device;
mod encode;
mod header;
mod model;
mod naive;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_encode;
#[cfg(target_arch = "x86_64")]
mod simd;

/// Bits of a probability: frequencies add up to `SCALE`.
const SCALE_BITS: u32 = 12;
const SCALE: u32 = 1 << SCALE_BITS;
/// States of a tile.
const LANES: usize = 32;
/// Consecutive letters that belong to one lane.
const GRANULE: usize = 8;
/// Letters in a group: a granule for each lane.
const GROUP: usize = LANES * GRANULE;
/// A state is never less than this between symbols, and exactly this at the end.
const LOWER: u32 = 1 << 16;
/// Bytes of a tile's states.
const STATES_LEN: usize = 4 * LANES;
/// Letters in a tile are two to the power of one of these.
const TILE_LOG: std::ops::RangeInclusive<u8> = 12..=20;

/// The `rans` stream codec.
#[derive(Debug)]
pub struct Rans;

impl StreamCodec for Rans {
    fn id(&self) -> u16 {
        5
    }

    fn name(&self) -> &'static str {
        "rans"
    }

    fn supports(&self, width: Width) -> bool {
        u32::from(width.bits()) <= SCALE_BITS
    }

    fn encode(&self, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        encode::encode_with(symbols, width, level, scratch, true, out);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        // States and offsets of tiles; a run, a gap and a frequency for each symbol at most.
        let tiles = histogram.total() / 400;
        Some(histogram.entropy_bits() / 8 + tiles + 2 * histogram.distinct() + 8)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Rans);
    }

    /// The codec encoding without vector instructions and decoding on a stated path.
    #[derive(Debug)]
    struct On(decode::Path);

    impl StreamCodec for On {
        fn id(&self) -> u16 {
            Rans.id()
        }

        fn name(&self) -> &'static str {
            "rans on a path"
        }

        fn supports(&self, width: Width) -> bool {
            Rans.supports(width)
        }

        fn encode(&self, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
            let start = out.len();
            encode::encode_with(symbols, width, level, scratch, false, out);
            let mut other = Vec::new();
            Rans.encode(symbols, width, level, scratch, &mut other);
            assert!(out[start..] == other, "the bytes depend on the machine");
        }

        fn decode(
            &self,
            stream: &[u8],
            width: Width,
            scratch: &mut Scratch,
            symbols: &mut [u8],
        ) -> Result<(), StreamError> {
            decode::decode_with(scratch, stream, width, symbols, self.0)
        }

        fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
            Rans.decode_naive(stream, width, symbols)
        }
    }

    #[test]
    fn every_path_keeps_the_laws() {
        decode::paths().for_each(|path| laws::check(&On(path)));
    }

    #[test]
    fn a_constant_array_costs_twelve_bytes() {
        let mut stream = Vec::new();
        Rans.encode(&[7; 1 << 19], Width::BYTE, Level::Max, &mut Scratch::new(), &mut stream);
        assert_eq!(stream, [17, 0, 3, 0, 1, 7, 0, 0, 0, 0, 0, 0]);
    }

    /// The laws' arrays of narrow symbols are packed where that pays, which it does here: for every number of symbols in the last letter.
    #[test]
    fn packed_symbols_keep_the_laws() {
        let mut random = laws::Random(11);
        let mut scratch = Scratch::new();
        for bits in [1, 2, 4] {
            let width = Width::new(bits);
            let enough = 400_000 / usize::from(bits);
            for len in (enough..enough + 17).chain([4 * enough + 1]) {
                let symbols: Vec<u8> = (0..len)
                    .map(|_| random.next())
                    .map(|r| if r.is_multiple_of(2) { ((r >> 32) as u8 % 5) & ((1 << bits) - 1) } else { 0 })
                    .collect();
                let mut stream = Vec::new();
                Rans.encode(&symbols, width, Level::Fast, &mut scratch, &mut stream);
                assert_eq!(stream[1], header::Letters::Packed as u8, "{len} of {bits} bits");
                for damages in 0..3 {
                    let what = format!("{len} of {bits} bits, {damages}");
                    let damaged = if damages == 0 { stream.clone() } else { laws::damage(&stream, &mut random) };
                    for path in decode::paths() {
                        let result = laws::agree(&On(path), &damaged, width, &mut scratch, len, &what);
                        assert!(damages > 0 || result.is_ok(), "{what}, {path:?}");
                    }
                    // Other numbers of symbols need as many letters, but what is behind the last one is not zero.
                    let _ = laws::agree(&Rans, &damaged, width, &mut scratch, len - 1, &what);
                }
            }
        }
    }

    #[test]
    fn symbols_that_follow_a_rule_are_not_packed() {
        let symbols: Vec<u8> = (0..8192).map(|i| 1 + (i % 4 == 0) as u8).collect();
        let mut stream = Vec::new();
        Rans.encode(&symbols, Width::new(2), Level::Max, &mut Scratch::new(), &mut stream);
        assert_eq!(stream[1], header::Letters::Symbols as u8, "there would be one letter");
    }

    /// Several tiles side by side, a short last one, and the end of the payload.
    #[test]
    fn many_tiles_keep_the_laws() {
        let mut random = laws::Random(7);
        let mut scratch = Scratch::new();
        for (tiles, width) in [(4, 8), (5, 10), (7, 8), (9, 10), (6, 12)].map(|(t, w)| (t, Width::new(w))) {
            let len = (tiles << 14) + random.below(1 << 14);
            let symbols: Vec<u8> = (0..len)
                .flat_map(|_| {
                    ((random.next() as u32 | 1 << 9).trailing_zeros() * 3).to_le_bytes()[..width.bytes()].to_vec()
                })
                .collect();
            let mut stream = Vec::new();
            Rans.encode(&symbols, width, Level::Fast, &mut scratch, &mut stream);
            for damages in 0..12 {
                let what = format!("{tiles} tiles, {damages}");
                let damaged = if damages == 0 { stream.clone() } else { laws::damage(&stream, &mut random) };
                for path in decode::paths() {
                    let result = laws::agree(&On(path), &damaged, width, &mut scratch, symbols.len(), &what);
                    assert!(damages > 0 || result.is_ok(), "{path:?}");
                }
            }
        }
    }
}
