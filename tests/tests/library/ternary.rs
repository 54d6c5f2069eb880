//! How small files of ternary weights are, everything included.

use cmz_codec::encoding::ternary::BY_ROW;
use cmz_codec::stream::Level;
use cmz_tests::check::open_bytes;
use cmz_tests::cmz::{Storage, write_at};
use cmz_tests::inputs::Rng;
use cmz_tests::source::Source;

const ROWS: usize = 1024;
const ROW: usize = 4096;

/// BF16 weights of which so many of a thousand are 0, and the others one of their row's two numbers.
fn weights(zeros: u64) -> Vec<u8> {
    let mut rng = Rng::new(zeros);
    let numbers: Vec<u16> = (0..ROWS).map(|_| 0x3c00 | rng.bits() as u16 & 0x1ff).collect();
    let mut weight = |i: usize| match (rng.bits() % 1000 < zeros, rng.below(2)) {
        (true, _) => 0,
        (false, sign) => numbers[i / ROW] | (sign as u16) << 15,
    };
    (0..ROWS * ROW).flat_map(|i| weight(i).to_le_bytes()).collect()
}

/// Bits a weight of a file that holds one matrix, which comes back.
fn rate(weights: &[u8], codec: &str) -> f64 {
    let source = Source::new().tensor("expert", "BF16", &[ROWS as u64, ROW as u64], weights).build();
    let storage = |_: &_| Storage::of(&BY_ROW, "BF16", &[codec, "raw"], 512 << 10);
    let file = write_at(Level::Max, &source, storage).unwrap();
    assert!(open_bytes(&file).unwrap().read("expert").unwrap() == weights);
    8.0 * file.len() as f64 / (ROWS * ROW) as f64
}

/// The rates of zeros that QMoE reports (arXiv 2310.16795, table 4), with a minimum and a maximum for each row of 4096, block headers, checksums,
/// manifest and source.
#[test]
fn experts_are_below_one_bit_a_weight() {
    for (zeros, entropy, most) in [(886, 0.626, 0.70), (857, 0.735, 0.80)] {
        let weights = weights(zeros);
        let tunstall = rate(&weights, "tunstall");
        assert!(tunstall <= most, "{zeros}: {tunstall}");
        let rans = rate(&weights, "rans");
        let numbers = 32.0 / ROW as f64;
        assert!(rans <= entropy + numbers + 0.02, "{zeros}: {rans}");
        assert!(rans < tunstall && tunstall < rate(&weights, "dictionary"));
    }
}

/// Weights that are about equally common take five to a byte.
#[test]
fn trits_take_little_more_than_their_name() {
    let rate = rate(&weights(333), "trits");
    assert!((1.6..1.62).contains(&rate), "{rate}");
}
