//! `trits`: five ternary symbols to a byte. See `SPEC.md` in this folder.

use super::ternary::{self, Form};
use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::{DeviceForm, Tiles};

mod naive;

/// Symbols in a byte.
const DIGITS: usize = 5;
/// The greatest byte, plus one.
const BYTES: u8 = 243;

const RESERVED: StreamError = StreamError::Invalid("reserved bytes are not zero");

/// The digits of each byte.
static SYMBOLS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < BYTES as usize {
        let (mut rest, mut digit) = (byte, 0);
        while digit < DIGITS {
            table[byte][digit] = (rest % 3) as u8;
            rest /= 3;
            digit += 1;
        }
        byte += 1;
    }
    table
};

/// The `trits` stream codec.
#[derive(Debug)]
pub struct Trits;

impl StreamCodec for Trits {
    fn id(&self) -> u16 {
        8
    }

    fn name(&self) -> &'static str {
        "trits"
    }

    fn supports(&self, width: Width) -> bool {
        width == ternary::WIDTH
    }

    fn encode(&self, symbols: &[u8], _: Width, _: Level, _: &mut Scratch, out: &mut Vec<u8>) {
        ternary::encode(symbols, [0, 0], out, |out| {
            let byte = |five: &[u8]| five.iter().rev().fold(0, |byte, symbol| 3 * byte + symbol);
            let (fives, rest) = symbols.as_chunks::<DIGITS>();
            out.extend(fives.iter().map(|five| byte(five)));
            out.extend((!rest.is_empty()).then(|| byte(rest)));
        });
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        Some(ternary::estimate(histogram, histogram.total().div_ceil(DIGITS as u64)))
    }

    fn decode(&self, stream: &[u8], _: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        match Form::of(stream)? {
            Form::Packed(code) => ternary::unpack(code, symbols),
            Form::Coded([0, 0], code) => decode(code, symbols),
            Form::Coded(..) => Err(RESERVED),
        }
    }

    fn device_form(&self, stream: &[u8], _: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        ternary::device_form(stream, symbols, |params, code| {
            if params != [0, 0] {
                return Err(RESERVED);
            }
            check_ends(code, symbols)?;
            Ok(Tiles {
                log: ternary::TILE.ilog2() as u8,
                ends_at: ternary::PREFIX as u32,
                payload_words: 0,
                table: Vec::new(),
            })
        })
    }

    fn decode_naive(&self, stream: &[u8], _: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, symbols)
    }
}

/// Fails unless the code has as many bytes as its symbols need, and the last one no symbols behind them.
fn check_ends(code: &[u8], symbols: usize) -> Result<(), StreamError> {
    if code.len() != symbols.div_ceil(DIGITS) {
        return Err(StreamError::Length);
    }
    let Some(&last) = code.last() else { return Ok(()) };
    let there = symbols - DIGITS * (code.len() - 1);
    ternary::copy_end(&SYMBOLS[usize::from(last)][..DIGITS], &mut [0; DIGITS][..there]).map(|_| ())
}

fn decode(code: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
    if code.len() != symbols.len().div_ceil(DIGITS) {
        return Err(StreamError::Length);
    }
    // All bytes are looked at, many at a time.
    if code.iter().fold(0, |most, &byte| byte.max(most)) >= BYTES {
        return Err(StreamError::Invalid("not five ternary symbols"));
    }
    // Eight bytes are stored for five: the next ones are written over the others.
    let whole = symbols.len().saturating_sub(8) / DIGITS;
    for (i, &byte) in code[..whole].iter().enumerate() {
        if let Some(place) = symbols[DIGITS * i..].first_chunk_mut() {
            *place = SYMBOLS[usize::from(byte)];
        }
    }
    for (&byte, place) in code[whole..].iter().zip(symbols[DIGITS * whole..].chunks_mut(DIGITS)) {
        ternary::copy_end(&SYMBOLS[usize::from(byte)][..DIGITS], place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws;

    #[test]
    fn keeps_the_laws() {
        laws::check(&Trits);
        laws::check_ternary(&Trits);
    }

    #[test]
    fn every_byte_stands_for_its_digits() {
        for byte in 0..=u8::MAX {
            let mut symbols = [0; DIGITS];
            let stream = [0, 0, 0, 0, byte];
            let decoded = Trits.decode(&stream, ternary::WIDTH, &mut Scratch::new(), &mut symbols);
            assert_eq!(decoded.is_ok(), byte < BYTES);
            if byte < BYTES {
                assert_eq!(symbols.iter().rev().fold(0, |value, symbol| 3 * value + symbol), byte);
            }
        }
    }

    #[test]
    fn the_example_of_the_page() {
        let stream = [0, 0, 0, 0, 0x0b, 0x07];
        let mut symbols = [9; 7];
        Trits.decode(&stream, ternary::WIDTH, &mut Scratch::new(), &mut symbols).unwrap();
        assert_eq!(symbols, [2, 0, 1, 0, 0, 1, 2]);
        // Of six symbols the last byte is 1: 7 has a symbol behind the end.
        assert!(Trits.decode(&stream, ternary::WIDTH, &mut Scratch::new(), &mut symbols[..6]).is_err());
    }
}
