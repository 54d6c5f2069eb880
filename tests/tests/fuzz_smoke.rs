//! The fuzz targets on golden files, mutated golden files and random bytes: a few seconds
//! of what a fuzzer does for longer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cmz_tests::fuzz::{TARGETS, seeds};
use cmz_tests::inputs::Rng;

/// Time for each target: three seconds, or `CMZ_FUZZ_SECONDS`.
fn time() -> Duration {
    let seconds = std::env::var("CMZ_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
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
    assert!(seeds.len() > 5);
    seeds.iter().for_each(|seed| body(seed));
    let mut rng = Rng::new(name.len() as u64);
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < time() {
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

#[test]
fn torch_file() {
    smoke("torch_file");
}

#[test]
fn quantized() {
    smoke("quantized");
}

#[test]
fn views() {
    smoke("views");
}

#[test]
fn qmoe_arrays() {
    smoke("qmoe_arrays");
}

#[test]
#[ignore = "fuzz/smoke.sh runs it before fuzzing"]
fn write_seeds() {
    for (target, _) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds(target).into_iter().enumerate() {
            fs::write(folder.join(number.to_string()), seed).unwrap();
        }
    }
}
