//! `bitpack`: symbols of a few bits, one behind the other. See `SPEC.md` in this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

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
        let start = out.len();
        out.resize(start + stream_len(symbols.len() / width.bytes(), width), 0);
        groups::pack(symbols, width, &mut out[start..]);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        Some((histogram.total() * u64::from(histogram.width().bits())).div_ceil(8))
    }

    fn decode(&self, stream: &[u8], width: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        check(stream, width, symbols.len())?;
        groups::unpack(stream, width, symbols);
        Ok(())
    }

    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        check(stream, width, symbols * width.bytes())?;
        Ok(Some(DeviceForm::Indexed { stride: width.bits() }))
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, width, symbols)
    }
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
    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Bitpack);
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
