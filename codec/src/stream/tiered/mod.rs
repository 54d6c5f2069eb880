//! `tiered`: nested bit planes for bytes of which a few values are common. See
//! `SPEC.md` in this folder.
//!
//! The format's work is done by a `Kernel`, tile by tile and tier by tier; everything
//! around it (what a stream must look like, which bytes are whose) is safe code shared by
//! all of them. [`paths`] lists the kernels that this machine can run.

use super::{Histogram, Level, StreamCodec, StreamError, Width};
use crate::Scratch;
use crate::device::DeviceForm;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod decode;
mod device;
mod encode;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod feature_kernel;
mod kernel;
mod naive;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;
pub(crate) use kernel::Buffers;
pub use kernel::{Path, paths};

/// Symbols in a tile.
pub const TILE: usize = 4096;
/// Tiers of bit planes.
pub const TIERS: usize = 4;
/// Symbols that the tiers name.
pub const NAMED: usize = 3 * TIERS;
/// Bytes of a stream before the tile ends.
const PREFIX: usize = 16;

/// The `tiered` stream codec.
#[derive(Debug)]
pub struct Tiered;

impl StreamCodec for Tiered {
    fn id(&self) -> u16 {
        2
    }

    fn name(&self) -> &'static str {
        "tiered"
    }

    fn supports(&self, width: Width) -> bool {
        width.bits() <= 8
    }

    fn encode(&self, symbols: &[u8], _: Width, _: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        Path::best().encode(symbols, scratch, out);
    }

    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        let counts = histogram.largest(NAMED);
        let mut elements = histogram.total();
        let mut bits = 32 * elements.div_ceil(TILE as u64) + 8 * PREFIX as u64;
        for tier in 0..TIERS {
            bits += 2 * elements;
            elements -= counts.iter().skip(3 * tier).take(3).map(|&count| u64::from(count)).sum::<u64>();
        }
        Some((bits + 8 * elements) / 8)
    }

    fn decode(
        &self,
        stream: &[u8],
        width: Width,
        scratch: &mut Scratch,
        symbols: &mut [u8],
    ) -> Result<(), StreamError> {
        Path::best().decode(stream, width, scratch, symbols)
    }

    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        device::form(stream, width, symbols)
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, width, symbols)
    }
}
