//! `tiered`: nested bit planes for bytes of which a few values are common. See
//! `SPEC.md` in this folder.

use super::{Level, StreamCodec, StreamError, Width};
use crate::Scratch;

mod encode;
mod naive;

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

    fn encode(&self, symbols: &[u8], _: Width, _: Level, _: &mut Scratch, out: &mut Vec<u8>) {
        encode::encode(symbols, out);
    }

    fn decode(&self, stream: &[u8], width: Width, _: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
        self.decode_naive(stream, width, symbols)
    }

    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        naive::decode(stream, width, symbols)
    }
}
