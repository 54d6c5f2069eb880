//! Encoder of the `huffman` codec.

use super::code::{Code, Packages};
use super::{GRANULE, GROUP, LANES, LENGTH_BITS, LENGTHS_LEN, SLACK, TILE};
use crate::Scratch;
use crate::stream::Width;
use crate::stream::counter::Counter;

/// Tables, reused from stream to stream.
#[derive(Default)]
struct Encoder {
    counter: Counter,
    code: Code,
    packages: Packages,
    /// By symbol: code, and its length above it.
    codes: Vec<u32>,
}

/// Longest stream of a lane, in bytes, with room for whole words.
const LANE_ROOM: usize = TILE / LANES * super::LONGEST / 8 + 8;

/// Appends the stream for `symbols` to `out`.
pub(super) fn encode(symbols: &[u8], width: Width, scratch: &mut Scratch, out: &mut Vec<u8>) {
    scratch.with::<Encoder, _>(|encoder, _| encoder.encode(symbols, width, out));
}

impl Encoder {
    fn encode(&mut self, symbols: &[u8], width: Width, out: &mut Vec<u8>) {
        let counts = self.counter.count(symbols, width);
        self.code.fit(counts, &mut self.packages);
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.code.put(counts, out);
        let table_len = (out.len() - start - 4) as u16;
        out[start..start + 2].copy_from_slice(&table_len.to_le_bytes());
        out.resize(start + (out.len() - start).next_multiple_of(4), 0);

        let tiles = if self.code.symbols.len() < 2 { 0 } else { symbols.len().div_ceil(TILE) };
        let ends = out.len();
        out.resize(ends + 4 * (tiles + 1), 0);
        let payload = out.len();
        if tiles > 0 {
            self.codes.resize(256, 0);
            for (symbol, code, length) in self.code.codes() {
                self.codes[usize::from(symbol)] = u32::from(code) | u32::from(length) << 16;
            }
            for (t, tile) in symbols.chunks(TILE).enumerate() {
                encode_tile(&self.codes, tile, payload, out);
                let end = ((out.len() - payload) / 4) as u32;
                out[ends + 4 * (t + 1)..][..4].copy_from_slice(&end.to_le_bytes());
            }
        }
        out.extend_from_slice(&[0; SLACK]);
    }
}

fn encode_tile(codes: &[u32], tile: &[u8], payload: usize, out: &mut Vec<u8>) {
    let Ok(codes) = <&[u32; 256]>::try_from(codes) else { return };
    let start = out.len();
    out.resize(start + LENGTHS_LEN, 0);
    for lane in 0..LANES {
        let mut bits = [0; LANE_ROOM];
        let len = encode_lane(codes, tile, lane, &mut bits);
        out.extend_from_slice(&bits[..len]);
        let bit = lane * LENGTH_BITS;
        let word = ((len as u16) << (bit % 8)).to_le_bytes();
        out[start + bit / 8] |= word[0];
        out[start + bit / 8 + 1] |= word[1];
    }
    out.resize(payload + (out.len() - payload).next_multiple_of(4), 0);
}

/// Writes the stream of one lane; gives its length in bytes.
fn encode_lane(codes: &[u32; 256], tile: &[u8], lane: usize, bits: &mut [u8; LANE_ROOM]) -> usize {
    let (mut word, mut filled, mut at) = (0u64, 0, 0);
    let mut put = |four: &[u8]| {
        // Four codes have 44 bits, and 7 may be left from before.
        for &symbol in four {
            let code = codes[usize::from(symbol)];
            word |= u64::from(code & 0xffff) << filled;
            filled += code >> 16;
        }
        if let Some(place) = bits[at..].first_chunk_mut() {
            *place = word.to_le_bytes();
        }
        at += filled as usize / 8;
        word >>= filled & 0x38;
        filled %= 8;
    };
    let (groups, last) = tile.as_chunks::<GROUP>();
    for group in groups {
        let granule: &[u8; GRANULE] = &group.as_chunks().0[lane];
        let (a, b) = granule.split_at(4);
        if let (Ok(a), Ok(b)) = (<&[u8; 4]>::try_from(a), <&[u8; 4]>::try_from(b)) {
            put(a);
            put(b);
        }
    }
    let granule = last.get(lane * GRANULE..).unwrap_or_default();
    for part in granule[..granule.len().min(GRANULE)].chunks(4) {
        put(part);
    }
    at + usize::from(filled > 0)
}
