//! Bits a weight of the stream codecs that take ternary symbols, as a function of how many are zeros, and their speeds on one core; and how small
//! QMoE's own format is.
//! `cargo run --release -p cmz-benches --bin ternary`
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmz_benches::{Random, begin_safetensors};
use cmz_codec::array::{StoredArray, StoredComponent};
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{CompressOptions, compress};
use cmz_codec::encoding::{Array, Element, plain::Plain, ternary::BY_ROW};
use cmz_codec::io::IoMode;
use cmz_codec::registry::{STREAMS, stream_by_name};
use cmz_codec::stream::{Level, StreamCodec, Width, dictionary};
use cmz_codec::{Archive, Scratch};
use cmz_format::{BlockHeader, BlockKind, Dtype, block_header_len};
use cmz_quantize::plan::Plan;

/// Symbols of an array: those of a block.
const SYMBOLS: usize = 512 << 10;
const WIDTH: Width = Width::new(2);
/// Weights of a row.
const ROW: usize = 4096;
/// Rows of a matrix in a file: 64 MB of BF16.
const FILE_ROWS: usize = 8192;
/// Zeros of a thousand.
const ZEROS: [u64; 12] = [333, 500, 600, 700, 800, 850, 857, 886, 900, 920, 950, 980];
/// Those at which speeds are taken.
const TIMED: u64 = 886;

fn main() {
    let codecs: Vec<&'static dyn StreamCodec> = STREAMS
        .iter()
        .map(|entry| entry.codec)
        .filter(|codec| codec.supports(WIDTH) && codec.name() != "raw")
        .collect();
    let mut scratch = Scratch::new();
    print_rates(&codecs, &mut scratch);
    print_speeds(&codecs, &mut scratch);
    print_weights(&codecs, &mut scratch);
    print_files();
    print_qmoe();
}

/// Independent symbols, `zeros` of a thousand 0, and as many 1 as 2.
fn symbols(zeros: u64) -> Vec<u8> {
    let mut random = Random::new(zeros);
    (0..SYMBOLS).map(|_| symbol(&mut random, zeros)).collect()
}

fn symbol(random: &mut Random, zeros: u64) -> u8 {
    let r = random.next_u64() >> 20;
    if (r >> 1) % 1000 < zeros { 0 } else { 1 + (r & 1) as u8 }
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

/// Whole blocks of BF16 weights: symbols decoded and joined.
fn print_weights(codecs: &[&'static dyn StreamCodec], scratch: &mut Scratch) {
    println!("\n| codec | BF16 weights decoded, GB/s |\n|---|---|");
    let symbols = symbols(TIMED);
    let weight = |(i, &symbol): (usize, &u8)| match symbol {
        0 => [0, 0],
        1 => [(i / ROW) as u8, 0xbc],
        _ => [(i / ROW) as u8, 0x3c],
    };
    let weights: Vec<u8> = symbols.iter().enumerate().flat_map(weight).collect();
    let array = Array::new(Element::Dtype(Dtype::BF16), weights.len(), ROW);
    for &codec in codecs {
        let numbers = || {
            let raw = StoredComponent::Stream(vec![stream_by_name("raw").expect("a codec of the registry")]);
            StoredComponent::Encoded(StoredArray::new(&Plain, vec![raw]))
        };
        let stored = StoredArray::new(&BY_ROW, vec![StoredComponent::Stream(vec![codec]), numbers(), numbers()]);
        let block = stored.encode_block(array, &weights, Level::Max, scratch);
        let header = BlockHeader {
            kind: BlockKind::Data,
            ordinal: 0,
            owner: 0,
            payload_distance: block_header_len(block.streams.len()) as u32,
            stored_len: block.payload.len() as u32,
            decoded_len: block.decoded_len,
            crc_stored: block.crc_stored,
            crc_decoded: block.crc_decoded,
            streams: block.streams,
        };
        let mut decoded = vec![0; weights.len()];
        let time = fastest(|| {
            stored.decode_block(array, &header, &block.payload, scratch, &mut decoded).expect("the block is whole");
        });
        assert!(decoded == weights, "{}: other weights", codec.name());
        println!("| {} | {:.2} |", codec.name(), weights.len() as f64 / time.as_secs_f64() / 1e9);
    }
}

/// Whole files: their size, and reading them by [`Archive::read_into`] with the checksums of what is stored verified, one thread.
fn print_files() {
    println!(
        "\n| file of one matrix of {FILE_ROWS} x {ROW} | bits a weight, everything included | read and decoded, GB/s of BF16 |\n|---|---|---|"
    );
    let folder = std::env::temp_dir().join(format!("cmz-ternary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (source, target) = (folder.join("source.safetensors"), folder.join("file.cmz"));
    for (zeros, codec) in [TIMED, 857]
        .into_iter()
        .flat_map(|zeros| ["tunstall", "rans", "dictionary", "trits", "bitpack"].map(|codec| (zeros, codec)))
    {
        let mut random = Random::new(zeros);
        let weight = |i: usize| match symbol(&mut random, zeros) {
            0 => [0, 0],
            1 => [(i / ROW) as u8, 0xbc],
            _ => [(i / ROW) as u8, 0x3c],
        };
        let weights: Vec<u8> = (0..FILE_ROWS * ROW).flat_map(weight).collect();
        let shape = [FILE_ROWS as u64, ROW as u64];
        let mut file =
            begin_safetensors(&source, [("w", "BF16", &shape[..], weights.len())].into_iter()).expect("a file");
        file.write_all(&weights).and_then(|()| file.flush()).expect("a file");
        let options = CompressOptions {
            encode: EncodeOptions::default(),
            threads: 2,
            io: IoMode::Auto,
            replace: true,
            verify: true,
            bases: Vec::new(),
            quantizer: Some(Arc::new(Plan::of_recipe(&format!("ternary:codec={codec}"), &[]).expect("a recipe"))),
        };
        let len = compress(&source, &target, &options, &()).expect("a conversion").len;
        let archive = Archive::open(&target).expect("a file");
        let mut decoded = vec![0; weights.len()];
        let time = fastest(|| archive.read_into("w", &mut decoded, 1).expect("a tensor"));
        assert!(decoded == weights, "{codec}: other weights");
        let (bits, rate) =
            (8.0 * len as f64 / (FILE_ROWS * ROW) as f64, weights.len() as f64 / time.as_secs_f64() / 1e9);
        println!(
            "| {:.1} % zeros, entropy {:.3}, `{codec}` | {bits:.3} | {rate:.2} |",
            zeros as f64 / 10.0,
            entropy(zeros)
        );
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
}

/// What QMoE's own format makes of matrices of its largest model, which it reports as 21.1 times (arXiv 2310.16795, section 5.2).
fn print_qmoe() {
    println!("\n| matrix, 88.5 % zeros | QMoE's rows, 64 bits a row included: times smaller than BF16 |\n|---|---|");
    let mut random = Random::new(885);
    let ratios = [(2080, 6144), (6144, 2080)].map(|(rows, width): (usize, usize)| {
        let mut codewords = Vec::new();
        for _ in 0..rows {
            let row: Vec<u8> = (0..width).map(|_| symbol(&mut random, 885)).collect();
            dictionary::encode_row(&row, &mut codewords).expect("the symbols are ternary");
        }
        let ratio = (16 * rows * width) as f64 / (16 * codewords.len() + 64 * rows) as f64;
        println!("| {rows} × {width} | {ratio:.2} |");
        ratio
    });
    println!("| mean | {:.2} |", (ratios[0] + ratios[1]) / 2.0);
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
