//! Every path against the naive decoder, over one bank of inputs.

use proptest::prelude::*;

use super::{NAMED, PREFIX, TILE, Tiered, naive, paths};
use crate::Scratch;
use crate::stream::{StreamError, Width};

/// A small generator: tests want many bytes, not good ones.
fn noise(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

/// Symbols of which each is as common as the one before divided by `1 + shape / 8`.
fn geometric(len: usize, seed: u64, shape: u32) -> Vec<u8> {
    let mut next = noise(seed);
    (0..len).map(|_| (0..255).take_while(|_| next() % 64 < 8 * shape).count() as u8 ^ 0x5a).collect()
}

/// What the bank holds for one length.
fn bank(len: usize) -> Vec<Vec<u8>> {
    let mut next = noise(len as u64);
    vec![
        vec![7; len],
        (0..len).map(|i| (i % 3) as u8).collect(),
        (0..len).map(|i| (i % 13) as u8).collect(),
        (0..len).map(|_| next() as u8).collect(),
        geometric(len, 1, 3),
        geometric(len, 2, 6),
        // The rest is long: the tail of tiles is nothing but bytes.
        (0..len).map(|i| if i < len / 2 { (i % 12) as u8 } else { 100 + (i % 100) as u8 }).collect(),
    ]
}

/// Decodes on every path into a window of `len` bytes that nothing may be written
/// outside of, and compares with the naive decoder.
fn agree(stream: &[u8], width: Width, len: usize) -> Result<Vec<u8>, StreamError> {
    let mut expected = vec![0; len];
    let verdict = naive::decode(stream, width, &mut expected);
    let mut scratch = Scratch::new();
    for path in paths() {
        for margin in [0, 1, 13] {
            let mut window = vec![0xee; len + 2 * margin];
            let result = path.decode(stream, width, &mut scratch, &mut window[margin..margin + len]);
            assert_eq!(result, verdict, "{}", path.name());
            assert!(window[..margin].iter().chain(&window[margin + len..]).all(|&b| b == 0xee), "{}", path.name());
            if verdict.is_ok() {
                assert!(window[margin..margin + len] == expected, "{}, {len} symbols", path.name());
            }
        }
    }
    verdict.map(|()| expected)
}

/// The stream of `symbols`, which must be the same on every path.
fn encode(symbols: &[u8]) -> Vec<u8> {
    let mut scratch = Scratch::new();
    let mut streams = paths().map(|path| {
        let mut out = vec![1, 2, 3];
        path.encode(symbols, &mut scratch, &mut out);
        assert_eq!(out[..3], [1, 2, 3]);
        (path.name(), out.split_off(3))
    });
    let (_, first) = streams.next().unwrap();
    for (name, stream) in streams {
        assert!(stream == first, "{name}, {} symbols", symbols.len());
    }
    first
}

/// A stream of one tile with these symbols, made without the encoder's table.
fn one_tile(named: [u8; NAMED], tile: &[u8]) -> Vec<u8> {
    let words = (tile.len() / 4) as u32;
    [&named[..], &[0; 4], &[0; 4], &words.to_le_bytes(), tile].concat()
}

#[test]
fn round_trips_of_every_ragged_length() {
    let lengths = (0..=200).chain((200..9000).step_by(97)).chain([4095, 4096, 4097, 8191, 8192, 8193]);
    for len in lengths {
        for symbols in bank(len) {
            assert!(agree(&encode(&symbols), Width::BYTE, len).as_ref() == Ok(&symbols), "{len} symbols");
        }
    }
}

#[test]
fn round_trips_of_sampled_arrays() {
    for symbols in bank(100_001) {
        assert!(agree(&encode(&symbols), Width::BYTE, symbols.len()) == Ok(symbols));
    }
}

#[test]
fn a_symbol_that_the_sample_misses_is_kept() {
    let mut symbols = vec![9; 1 << 17];
    for i in (0..symbols.len()).step_by(1013) {
        symbols[i] = (i % 251) as u8;
    }
    assert!(agree(&encode(&symbols), Width::BYTE, symbols.len()) == Ok(symbols));
}

#[test]
fn all_pairs_of_plane_bytes() {
    let named = std::array::from_fn(|i| 200 + i as u8);
    for low in 0..=255u8 {
        for high in 0..=255u8 {
            let escapes = (low & high).count_ones() as usize;
            // Tier 1 names its second symbol for every escape.
            let mut tile = vec![low, high];
            if escapes != 0 {
                tile.extend([(1u16 << escapes).wrapping_sub(1) as u8, 0]);
            }
            tile.resize(tile.len().next_multiple_of(4), 0);
            let symbols = agree(&one_tile(named, &tile), Width::BYTE, 8).unwrap();
            let expected = [0, 1, 2, 4].map(|i| named[i]);
            for (i, symbol) in symbols.into_iter().enumerate() {
                assert_eq!(symbol, expected[usize::from(low >> i & 1 | (high >> i & 1) << 1)]);
            }
        }
    }
}

#[test]
fn damaged_streams_meet_the_same_verdict() {
    let mut next = noise(99);
    for len in [1, 5, 64, 300, 4096, 4500, 9001] {
        for symbols in bank(len) {
            let good = encode(&symbols);
            for _ in 0..60 {
                let mut stream = good.clone();
                for _ in 0..1 + next() % 3 {
                    let at = next() as usize % stream.len();
                    stream[at] ^= 1 << (next() % 8);
                }
                let _ = agree(&stream, Width::BYTE, len);
                let _ = agree(&good[..next() as usize % good.len()], Width::BYTE, len);
            }
            let _ = agree(&[&good[..], &[0; 4]].concat(), Width::BYTE, len);
            let _ = agree(&good, Width::new(3), len);
            let _ = agree(&good, Width::BYTE, len + 1);
            let _ = agree(&good, Width::BYTE, len - 1);
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let symbols = geometric(5000, 3, 4);
    let stream = encode(&symbols);
    for cut in 0..stream.len() {
        assert!(agree(&stream[..cut], Width::BYTE, symbols.len()).is_err(), "cut at {cut}");
    }
}

#[test]
fn tile_ends_must_ascend_to_the_payloads_end() {
    let symbols = geometric(3 * TILE, 4, 4);
    let good = encode(&symbols);
    for (t, value) in [(0, 1), (1, 0), (1, u32::MAX), (2, 1), (2, u32::MAX / 2), (3, 0), (3, u32::MAX)] {
        let mut stream = good.clone();
        stream[PREFIX + 4 * t..][..4].copy_from_slice(&u32::to_le_bytes(value));
        assert!(agree(&stream, Width::BYTE, symbols.len()).is_err(), "end[{t}] = {value}");
    }
}

#[test]
fn narrow_symbols() {
    for bits in 1..=8 {
        let symbols: Vec<u8> = geometric(5000, 5, 5).iter().map(|s| (s ^ 0x5a) & (0xff >> (8 - bits))).collect();
        assert!(agree(&encode(&symbols), Width::new(bits), symbols.len()) == Ok(symbols));
    }
    assert!(agree(&encode(&[8]), Width::new(3), 1).is_err());
}

#[test]
fn registered_decoder_is_one_of_the_paths() {
    use crate::stream::{Level, StreamCodec};
    let (symbols, mut scratch, mut out) = (geometric(5000, 6, 4), Scratch::new(), Vec::new());
    Tiered.encode(&symbols, Width::BYTE, Level::Fast, &mut scratch, &mut out);
    assert_eq!(out, encode(&symbols));
    let mut decoded = vec![0; symbols.len()];
    Tiered.decode(&out, Width::BYTE, &mut scratch, &mut decoded).unwrap();
    assert_eq!(decoded, symbols);
    assert_eq!(paths().last().map(|path| path.name()), Some("portable"));
}

/// A payload that often gets past the checks: planes of one tile with the lengths right.
fn plausible_tile() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (1..=TILE, any::<u64>(), 0..=8u32).prop_map(|(len, seed, density)| {
        let mut next = noise(seed);
        let mut bits = |n: usize| {
            let mut plane = vec![0u8; n.div_ceil(8)];
            for i in (0..n).filter(|_| next() % 8 < density) {
                plane[i / 8] |= 1 << (i % 8);
            }
            plane
        };
        let (mut tile, mut elements) = (Vec::new(), len);
        for _ in 0..super::TIERS {
            let (low, high) = (bits(elements), bits(elements));
            elements = low.iter().zip(&high).map(|(l, h)| (l & h).count_ones() as usize).sum();
            tile.extend([low, high].concat());
        }
        tile.extend(bits(8 * elements));
        tile.resize(tile.len().next_multiple_of(4), 0);
        (len, tile)
    })
}

proptest! {
    #[test]
    fn random_symbols(symbols in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(agree(&encode(&symbols), Width::BYTE, symbols.len()) == Ok(symbols));
    }

    #[test]
    fn random_streams(stream in prop::collection::vec(any::<u8>(), 0..400), len in 0..300usize) {
        let _ = agree(&stream, Width::BYTE, len);
    }

    #[test]
    fn plausible_streams((len, tile) in plausible_tile(), flips in prop::collection::vec(any::<(u16, u8)>(), 0..2)) {
        let mut stream = one_tile(std::array::from_fn(|i| i as u8), &tile);
        prop_assert!(agree(&stream, Width::BYTE, len).is_ok());
        for (at, flip) in flips {
            let at = usize::from(at) % stream.len();
            stream[at] ^= flip;
        }
        let _ = agree(&stream, Width::BYTE, len);
    }
}
