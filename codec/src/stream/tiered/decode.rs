//! Decoder of the `tiered` codec: what a stream must look like, around the kernels.

use super::kernel::{Buffers, Kernel, PLANE_SLACK, Path, Planes, STEP, TierBuffer};
use super::{NAMED, PREFIX, TIERS, TILE};
use crate::stream::{StreamError, Width};

/// A stream whose prefix is valid. Tiles are checked as they are decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    kernel: &'static dyn Kernel,
    named: &'a [u8; NAMED],
    /// Little-endian ends of the tiles, in words.
    ends: &'a [[u8; 4]],
    payload: &'a [u8],
    width: Width,
}

/// What [`Decoder::lower_tiers`] leaves to do.
struct TopTier<'b> {
    planes: Planes<'b>,
    below: &'b TierBuffer,
    /// Free to be written.
    spare: &'b mut TierBuffer,
}

impl<'a> Decoder<'a> {
    /// Reads the prefix of the stream of `len` symbols.
    pub(crate) fn new(path: Path, stream: &'a [u8], width: Width, len: usize) -> Result<Self, StreamError> {
        let tiles = len.div_ceil(TILE);
        let (ends, payload) =
            stream.get(PREFIX..).and_then(|rest| rest.split_at_checked(4 * (tiles + 1))).ok_or(StreamError::Length)?;
        let (ends, _) = ends.as_chunks::<4>();
        let named = stream.first_chunk::<NAMED>().ok_or(StreamError::Length)?;
        if (0..NAMED).any(|i| named[..i].contains(&named[i])) {
            return Err(StreamError::Invalid("a symbol is named twice"));
        }
        if stream[NAMED..PREFIX] != [0; 4] {
            return Err(StreamError::Invalid("reserved bytes are not zero"));
        }
        let decoder = Self { kernel: path.kernel(), named, ends, payload, width };
        if decoder.end(0) != 0 || decoder.end(tiles) != payload.len() {
            return Err(StreamError::Length);
        }
        Ok(decoder)
    }

    /// Decodes all tiles.
    pub(super) fn all(&self, buffers: &mut Buffers, symbols: &mut [u8]) -> Result<(), StreamError> {
        for (t, tile) in symbols.chunks_mut(TILE).enumerate() {
            self.tile(t, buffers, tile)?;
        }
        self.check_width(symbols)
    }

    /// Decodes tile `t` into `symbols`, which is as long as the tile. Symbols may have
    /// bits above the width: [`Self::check_width`] is the caller's to call.
    pub(crate) fn tile(&self, t: usize, buffers: &mut Buffers, symbols: &mut [u8]) -> Result<(), StreamError> {
        let len = symbols.len();
        let top = self.lower_tiers(t, len, buffers)?;
        if len.is_multiple_of(STEP) {
            self.kernel.decode_tier(top.planes, self.names(0), top.below, symbols);
        } else {
            self.kernel.decode_tier(top.planes, self.names(0), top.below, top.spare);
            symbols.copy_from_slice(&top.spare[..len]);
        }
        Ok(())
    }

    /// Decodes the whole tile `t` of exponents and joins it to BF16 elements.
    pub(crate) fn tile_bf16(
        &self,
        t: usize,
        buffers: &mut Buffers,
        sign_mantissa: &[u8; TILE],
        data: &mut [u8; 2 * TILE],
    ) -> Result<(), StreamError> {
        let top = self.lower_tiers(t, TILE, buffers)?;
        self.kernel.decode_bf16(top.planes, self.names(0), top.below, sign_mantissa, data);
        Ok(())
    }

    /// Fails if a symbol has bits above the stream's width.
    pub(crate) fn check_width(&self, symbols: &[u8]) -> Result<(), StreamError> {
        let bits = self.width.bits();
        if bits < 8 && symbols.iter().fold(0, |all, s| all | s) >> bits != 0 {
            return Err(StreamError::Invalid("a symbol has bits above its width"));
        }
        Ok(())
    }

    /// Checks tile `t` and decodes its tiers 3, 2 and 1.
    fn lower_tiers<'b>(&self, t: usize, elements: usize, buffers: &'b mut Buffers) -> Result<TopTier<'b>, StreamError>
    where
        'a: 'b,
    {
        let (start, end) = (self.end(t), self.end(t + 1));
        let tile = self.payload.get(start..end).ok_or(StreamError::Length)?;
        let (counts, rest) = self.check(tile, elements)?;
        let [even, odd] = &mut buffers.tiers;
        even[..rest.len()].copy_from_slice(rest);
        // Kernels read whole words of a plane: the last tile has nothing behind it.
        let tile: &'b [u8] = match self.payload.get(start..end + PLANE_SLACK) {
            Some(tile) => tile,
            None => {
                buffers.tile[..tile.len()].copy_from_slice(tile);
                &buffers.tile
            }
        };
        let mut at = [0; TIERS];
        for k in 1..TIERS {
            at[k] = at[k - 1] + 2 * counts[k - 1].div_ceil(8);
        }
        let (mut below, mut spare) = (even, odd);
        for k in (1..TIERS).rev() {
            if counts[k] != 0 {
                self.kernel.decode_tier(Planes::new(&tile[at[k]..], counts[k]), self.names(k), below, spare);
                (below, spare) = (spare, below);
            }
        }
        Ok(TopTier { planes: Planes::new(tile, elements), below, spare })
    }

    /// Elements of each tier of a tile, and its rest, if the tile is as it must be.
    fn check<'t>(&self, tile: &'t [u8], mut elements: usize) -> Result<([usize; TIERS], &'t [u8]), StreamError> {
        let mut counts = [0; TIERS];
        let mut behind = tile;
        for count in &mut counts {
            *count = elements;
            let plane_len = elements.div_ceil(8);
            let (planes, tail) = behind.split_at_checked(2 * plane_len).ok_or(StreamError::Length)?;
            let (low, high) = planes.split_at(plane_len);
            let spare = |plane: &[u8]| !elements.is_multiple_of(8) && plane[plane_len - 1] >> (elements % 8) != 0;
            if spare(low) || spare(high) {
                return Err(StreamError::Invalid("bits behind the last element are not zero"));
            }
            elements = self.kernel.escapes(low, high);
            behind = tail;
        }
        let used = tile.len() - behind.len() + elements;
        if tile.len() != used.next_multiple_of(4) {
            return Err(StreamError::Length);
        }
        let (rest, padding) = behind.split_at_checked(elements).ok_or(StreamError::Length)?;
        if padding.iter().any(|&b| b != 0) {
            return Err(StreamError::Invalid("padding is not zero"));
        }
        Ok((counts, rest))
    }

    /// Symbols of tier `k`.
    fn names(&self, k: usize) -> [u8; 3] {
        [self.named[3 * k], self.named[3 * k + 1], self.named[3 * k + 2]]
    }

    /// End of tile `t - 1`, in bytes of the payload.
    fn end(&self, t: usize) -> usize {
        usize::try_from(4 * u64::from(u32::from_le_bytes(self.ends[t]))).unwrap_or(usize::MAX)
    }
}
