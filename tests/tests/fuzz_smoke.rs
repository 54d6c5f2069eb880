//! The fuzz targets on golden files, mutated golden files and random bytes: a few seconds
//! of what a fuzzer does for longer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use cmz_codec::Scratch;
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::stream::{Level, Width};
use cmz_format::Dtype;
use cmz_tests::fuzz::TARGETS;
use cmz_tests::golden;
use cmz_tests::inputs::{Rng, skewed};

/// Time for each target.
const TIME: Duration = Duration::from_secs(3);

/// Inputs to begin with: what each target makes something of.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "open" | "open_fixed" => {
            golden::files().into_iter().map(|(_, bytes)| bytes).filter(|b| b.len() < 20_000).collect()
        }
        "safetensors" => golden::good().iter().map(|case| case.source.clone()).filter(|b| b.len() < 20_000).collect(),
        "encodings" => encodings(),
        _ => streams(),
    }
}

/// Streams of every codec with the four bytes that say which and of how many symbols.
fn streams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (i, entry) in STREAMS.iter().enumerate() {
        for bits in 1..=16u8 {
            let width = Width::new(bits);
            for len in [0usize, 5, 300] {
                if !entry.codec.supports(width) {
                    continue;
                }
                let mut symbols = skewed(u64::from(bits), len * width.bytes());
                symbols.iter_mut().for_each(|symbol| *symbol &= 1);
                let mut seed = vec![i as u8, bits - 1, len as u8, (len >> 8) as u8];
                entry.codec.encode(&symbols, width, Level::Fast, &mut Scratch::new(), &mut seed);
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// Parameters and elements of every encoding, with the three bytes that say which it is and
/// of which elements.
fn encodings() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (i, entry) in ENCODINGS.iter().enumerate() {
        for (variant, encoding) in entry.variants.iter().enumerate() {
            for dtype in 0..Dtype::ALL.len() {
                let head = [i as u8, variant as u8, dtype as u8];
                seeds.push([&head[..], &serde_json::to_vec(&encoding.params()).unwrap()].concat());
                seeds.push([&head[..], &skewed(dtype as u64, 480)].concat());
            }
        }
    }
    seeds
}

fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(input.len().max(1));
        match rng.below(9) {
            0 => input.truncate(at),
            1 => input.extend_from_slice(&other[rng.below(other.len().max(1)).min(other.len())..]),
            2 if at + 8 <= input.len() => {
                let value = [0, 1, 64, 1 << 31, u64::from(u32::MAX), u64::MAX, rng.bits()][rng.below(7)];
                let len = [1, 2, 4, 8][rng.below(4)];
                input[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
            }
            3 => {
                let from = rng.below(other.len().max(1));
                for (a, b) in input.iter_mut().skip(at).zip(other.iter().skip(from)).take(64) {
                    *a = *b;
                }
            }
            // Digits in JSON become other digits.
            4 => {
                if let Some(digit) = input.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + rng.below(10) as u8;
                }
            }
            _ if !input.is_empty() => input[at] ^= 1 << rng.below(8),
            _ => input.push(rng.bits() as u8),
        }
    }
}

fn smoke(name: &str) {
    let (_, body) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let seeds = seeds(name);
    assert!(seeds.len() > 10);
    seeds.iter().for_each(|seed| body(seed));
    let mut rng = Rng::new(name.len() as u64);
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        let mut input = seeds[rng.below(seeds.len())].clone();
        mutate(&mut input, &seeds[rng.below(seeds.len())], &mut rng);
        body(&input);
        let len = rng.below(200);
        body(&rng.bytes(len));
        runs += 2;
    }
    println!("{name}: {} seeds, {runs} runs", seeds.len());
}

#[test]
fn open() {
    smoke("open");
}

#[test]
fn open_fixed() {
    smoke("open_fixed");
}

#[test]
fn stream_decode() {
    smoke("stream_decode");
}

#[test]
fn round_trip() {
    smoke("round_trip");
}

#[test]
fn encodings_split_and_join() {
    smoke("encodings");
}

#[test]
fn safetensors() {
    smoke("safetensors");
}
