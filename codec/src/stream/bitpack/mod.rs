//! `bitpack`: symbols of a few bits, one behind the other. See `SPEC.md` in this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bmi2;
mod groups;
mod naive;

/// Symbols in a group: the smallest number that ends on a byte whatever the width.
const GROUP: usize = 8;

/// The `bitpack` stream codec.
#[derive(Debug)]
pub struct Bitpack;

impl StreamCodec for Bitpack {
    fn id(&self) -> u16 {
        3
    }

    fn name(&self) -> &'static str {
        "bitpack"
    }

    fn supports(&self, _: Width) -> bool {
        true
    }

    fn encode(&self, symbols: &[u8], width: Width, _: Level, _: &mut Scratch, out: &mut Vec<u8>) {
        append(symbols, width, out);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        Some((histogram.total() * u64::from(histogram.width().bits())).div_ceil(8))
    }

    fn decode(&self, stream: &[u8], width: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        Decoder::new(stream, width, symbols.len())?.unpack(0, symbols);
        Ok(())
    }

    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        check(stream, width, symbols * width.bytes())?;
        Ok(Some(DeviceForm::Indexed { begin: 0, stride: width.bits() }))
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, width, symbols)
    }
}

/// A stream whose length is right for its symbols.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    stream: &'a [u8],
    width: Width,
}

impl<'a> Decoder<'a> {
    /// Checks the stream of `byte_len` bytes of symbols.
    pub(crate) fn new(stream: &'a [u8], width: Width, byte_len: usize) -> Result<Self, StreamError> {
        check(stream, width, byte_len)?;
        Ok(Self { stream, width })
    }

    /// Unpacks the symbols from number `start`, a multiple of eight, on.
    ///
    /// # Panics
    /// If `start` is behind the end.
    pub(crate) fn unpack(&self, start: usize, symbols: &mut [u8]) {
        let at = start / GROUP * usize::from(self.width.bits());
        unpack(&self.stream[at..], self.width, symbols);
    }
}

/// Unpacks as many symbols as there are from the start of `stream`.
///
/// # Panics
/// If `stream` is too short.
pub(crate) fn unpack(stream: &[u8], width: Width, symbols: &mut [u8]) {
    assert!(stream.len() >= stream_len(symbols.len() / width.bytes(), width), "a stream of so many symbols");
    groups::unpack(stream, width, symbols);
}

/// Appends the code of `symbols` to `out`. Multiples of eight symbols may be appended one by one.
pub(crate) fn append(symbols: &[u8], width: Width, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + stream_len(symbols.len() / width.bytes(), width), 0);
    groups::pack(symbols, width, &mut out[start..]);
}

/// Length of the stream of `n` symbols, in bytes.
fn stream_len(n: usize, width: Width) -> usize {
    let bits = usize::from(width.bits());
    n / GROUP * bits + (n % GROUP * bits).div_ceil(8)
}

/// Fails unless `stream` has the length for `byte_len` bytes of symbols and zeros behind the last.
fn check(stream: &[u8], width: Width, byte_len: usize) -> Result<(), StreamError> {
    let n = byte_len / width.bytes();
    if !byte_len.is_multiple_of(width.bytes()) || stream.len() != stream_len(n, width) {
        return Err(StreamError::Length);
    }
    let used = n % GROUP * usize::from(width.bits()) % 8;
    match stream.last() {
        Some(&last) if used != 0 && last >> used != 0 => {
            Err(StreamError::Invalid("bits behind the last symbol are not zero"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Bitpack);
    }

    /// The codec by a stated way to move fields.
    #[derive(Debug)]
    struct By<F>(F);

    impl<F: groups::Fields + fmt::Debug + Send + Sync> StreamCodec for By<F> {
        fn id(&self) -> u16 {
            Bitpack.id()
        }

        fn name(&self) -> &'static str {
            "bitpack by a stated way"
        }

        fn supports(&self, width: Width) -> bool {
            Bitpack.supports(width)
        }

        fn encode(&self, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
            let start = out.len();
            out.resize(start + stream_len(symbols.len() / width.bytes(), width), 0);
            groups::pack_with(self.0, symbols, width, &mut out[start..]);
            let mut other = Vec::new();
            Bitpack.encode(symbols, width, level, scratch, &mut other);
            assert!(out[start..] == other, "the bytes depend on the machine");
        }

        fn decode(&self, stream: &[u8], width: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
            check(stream, width, symbols.len())?;
            groups::unpack_with(self.0, stream, width, symbols);
            Ok(())
        }

        fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
            Bitpack.decode_naive(stream, width, symbols)
        }
    }

    #[test]
    fn every_way_keeps_the_laws() {
        laws::check(&By(groups::Portable));
        #[cfg(target_arch = "x86_64")]
        if let Some(bmi2) = bmi2::Bmi2::new() {
            laws::check(&By(bmi2));
        }
    }

    #[test]
    fn parts_are_unpacked_as_the_whole() {
        let mut random = laws::Random(3);
        for width in (1..=16).map(Width::new) {
            let symbols: Vec<u8> = (0..999)
                .flat_map(|_| (random.next() as u16 >> (16 - width.bits())).to_le_bytes()[..width.bytes()].to_vec())
                .collect();
            let mut stream = Vec::new();
            for part in symbols.chunks(64 * width.bytes()) {
                append(part, width, &mut stream);
            }
            let decoder = Decoder::new(&stream, width, symbols.len()).unwrap();
            let mut decoded = vec![0xa5; symbols.len()];
            for (i, part) in decoded.chunks_mut(128 * width.bytes()).enumerate() {
                decoder.unpack(128 * i, part);
            }
            assert_eq!(decoded, symbols, "{width:?}");
        }
    }

    #[test]
    fn decodes_the_example_of_the_specification() {
        let mut symbols = [0; 9];
        let stream = [0xd1, 0x58, 0x1f, 0x01];
        Bitpack.decode(&stream, Width::new(3), &mut Scratch::new(), &mut symbols).unwrap();
        assert_eq!(symbols, [1, 2, 3, 4, 5, 6, 7, 0, 1]);
    }

    #[test]
    fn refuses_spare_bits_and_odd_lengths() {
        let decode = |stream: &[u8], bits, len| {
            let width = Width::new(bits);
            let fast = Bitpack.decode(stream, width, &mut Scratch::new(), &mut vec![0; len]);
            assert_eq!(fast, Bitpack.decode_naive(stream, width, &mut vec![0; len]));
            fast
        };
        assert!(decode(&[0xff, 0x01], 3, 3).is_ok());
        assert!(decode(&[0xff, 0x02], 3, 3).is_err());
        assert_eq!(decode(&[0, 0], 9, 1), Err(StreamError::Length));
        assert_eq!(decode(&[0, 0, 0], 3, 3), Err(StreamError::Length));
    }
}
