//! Bits a weight of the stream codecs that take ternary symbols, as a function of how many are zeros, and their speeds on one core.
//! `cargo run --release -p cmz-benches --bin ternary`
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use cmz_benches::Random;
use cmz_codec::Scratch;
use cmz_codec::registry::STREAMS;
use cmz_codec::stream::{Level, StreamCodec, Width};

/// Symbols of an array: those of a block.
const SYMBOLS: usize = 512 << 10;
const WIDTH: Width = Width::new(2);
/// Zeros of a thousand.
const ZEROS: [u64; 12] = [333, 500, 600, 700, 800, 850, 857, 886, 900, 920, 950, 980];
/// Those at which speeds are taken.
const TIMED: u64 = 886;

fn main() {
    let codecs: Vec<&dyn StreamCodec> =
        STREAMS.iter().map(|entry| entry.codec).filter(|codec| codec.supports(WIDTH)).collect();
    let mut scratch = Scratch::new();
    print_rates(&codecs, &mut scratch);
    print_speeds(&codecs, &mut scratch);
}

/// Independent symbols, `zeros` of a thousand 0, and as many 1 as 2.
fn symbols(zeros: u64) -> Vec<u8> {
    let mut random = Random::new(zeros);
    (0..SYMBOLS)
        .map(|_| {
            let r = random.next_u64() >> 20;
            if (r >> 1) % 1000 < zeros { 0 } else { 1 + (r & 1) as u8 }
        })
        .collect()
}

/// Entropy of a symbol, in bits.
fn entropy(zeros: u64) -> f64 {
    let p = zeros as f64 / 1000.0;
    -p * p.log2() - (1.0 - p) * ((1.0 - p) / 2.0).log2()
}

fn print_rates(codecs: &[&dyn StreamCodec], scratch: &mut Scratch) {
    let names: Vec<&str> = codecs.iter().map(|codec| codec.name()).collect();
    println!("| zeros | entropy | {} |", names.join(" | "));
    println!("|---|---|{}", "---|".repeat(codecs.len()));
    for zeros in ZEROS {
        let symbols = symbols(zeros);
        print!("| {:.1} % | {:.3} |", zeros as f64 / 10.0, entropy(zeros));
        for codec in codecs {
            let stream = encode(*codec, &symbols, scratch);
            print!(" {:.3} |", (8 * stream.len()) as f64 / symbols.len() as f64);
        }
        println!();
    }
}

fn encode(codec: &dyn StreamCodec, symbols: &[u8], scratch: &mut Scratch) -> Vec<u8> {
    let mut stream = Vec::new();
    codec.encode(symbols, WIDTH, Level::Max, scratch, &mut stream);
    let mut decoded = vec![0; symbols.len()];
    codec.decode(&stream, WIDTH, scratch, &mut decoded).expect("the stream is whole");
    assert!(decoded == symbols, "{}: other symbols", codec.name());
    stream
}

fn print_speeds(codecs: &[&dyn StreamCodec], scratch: &mut Scratch) {
    println!("\n| codec | decode, billion weights/s | encode |\n|---|---|---|");
    let symbols = symbols(TIMED);
    for codec in codecs {
        let mut stream = encode(*codec, &symbols, scratch);
        let mut decoded = vec![0; symbols.len()];
        let decode = fastest(|| {
            codec.decode(&stream, WIDTH, scratch, &mut decoded).expect("the stream is whole");
        });
        let encode = fastest(|| {
            stream.clear();
            codec.encode(&symbols, WIDTH, Level::Max, scratch, &mut stream);
        });
        let rate = |time: Duration| SYMBOLS as f64 / time.as_secs_f64() / 1e9;
        println!("| {} | {:.2} | {:.2} |", codec.name(), rate(decode), rate(encode));
    }
}

/// The shortest time that `work` takes, of as many runs as a fifth of a second has, ten at least.
fn fastest(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut least = Duration::MAX;
    let mut runs = 0;
    while runs < 10 || start.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed());
        runs += 1;
    }
    least
}
