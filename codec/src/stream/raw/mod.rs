//! `raw`: symbols as they lie in memory. See `SPEC.md` in this folder.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

/// The `raw` stream codec.
#[derive(Debug)]
pub struct Raw;

impl StreamCodec for Raw {
    fn id(&self) -> u16 {
        cmz_format::codec_id::RAW
    }

    fn name(&self) -> &'static str {
        "raw"
    }

    fn supports(&self, _: Width) -> bool {
        true
    }

    fn encode(&self, symbols: &[u8], _: Width, _: Level, _: &mut Scratch, out: &mut Vec<u8>) {
        out.extend_from_slice(symbols);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        Some(histogram.total() * histogram.width().bytes() as u64)
    }

    fn decode(&self, stream: &[u8], width: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        self.decode_naive(stream, width, symbols)
    }

    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        if stream.len() != symbols * width.bytes() {
            return Err(StreamError::Length);
        }
        check_width(stream, width)?;
        Ok(Some(DeviceForm::Indexed { begin: 0, stride: 8 * width.bytes() as u8 }))
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        if stream.len() != symbols.len() {
            return Err(StreamError::Length);
        }
        check_width(stream, width)?;
        symbols.copy_from_slice(stream);
        Ok(())
    }
}

/// Fails if a symbol has bits above its width.
fn check_width(symbols: &[u8], width: Width) -> Result<(), StreamError> {
    let spare = match width.bits() {
        8 | 16 => return Ok(()),
        bits @ ..8 => symbols.iter().any(|&s| s >> bits != 0),
        bits => symbols.chunks_exact(2).any(|s| s[1] >> (bits - 8) != 0),
    };
    if spare { Err(StreamError::Invalid("a symbol has bits above its width")) } else { Ok(()) }
}
