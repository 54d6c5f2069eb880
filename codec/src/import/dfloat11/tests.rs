//! Checkpoints made by the generator, whole and damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Result};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::generator::{
    Stored, code_of, compressed, config, elements, encode, group, group_with, limited, luts, safetensors, tensors_of,
};
use super::{Checkpoint, naive};
use crate::Archive;
use crate::convert::{CompressOptions, DecompressOptions, compress_source, decompress};
use crate::import::{Original, Restored};
use crate::io::{IoMode, ReadAt};

const LAYER: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

/// A folder with a checkpoint in it and, outside of it, the header of the original.
struct Made {
    folder: TempDir,
}

impl Made {
    fn new(original: &[u8], tensors: &[Stored], config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("df11")).unwrap();
        let made = Self { folder };
        let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
        made.write("original.safetensors", &original[..header]);
        made.write("df11/config.json", config.as_bytes());
        made.write("df11/model.safetensors", &safetensors(None, tensors));
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn restore(&self) -> Result<(Vec<Restored>, Vec<String>)> {
        let original = Original::read(&self.path("original.safetensors"))?;
        Checkpoint::open(&self.path("df11"), None)?.restore(&[original])
    }

    /// All bytes of the restored file.
    fn bytes(&self) -> Result<Vec<u8>> {
        let restored = self.restore()?.0.remove(0);
        let mut bytes = vec![0; restored.byte_len() as usize];
        restored.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    #[track_caller]
    fn fails(&self, code: Code, tensor: &str, words: &str) {
        let error = self.bytes().map(drop).unwrap_err();
        let tensor = Some(tensor).filter(|tensor| !tensor.is_empty());
        assert_eq!((error.code(), error.tensor()), (code, tensor), "{error}");
        assert!(error.message().contains(words) && error.file().is_some(), "{error:?}");
    }
}

fn real() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/minilm-layer0-bf16.safetensors");
    std::fs::read(path).unwrap()
}

/// The real weights, compressed.
fn real_made() -> Made {
    let original = real();
    let tensors = compressed(&tensors_of(&original), &[("encoder.layer.0", &LAYER)]);
    Made::new(&original, &tensors, &config(json!({r"encoder\.layer\.\d+": LAYER})))
}

fn matrix(name: &str, elements: &[u16]) -> Stored {
    let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    Stored { name: name.to_owned(), dtype: "BF16", shape: vec![elements.len() as u64], bytes }
}

/// Two matrices in a group `m`, one that is a group itself, and an extra.
fn small() -> (Vec<u8>, Vec<Stored>, String) {
    let numbers = |seed: u32, len: u32| -> Vec<u16> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed) >> 16).map(|n| (n as u16 & 0x80ff) | 0x3e00).collect()
    };
    let tensors = [
        matrix("m.a.weight", &numbers(1, 700)),
        matrix("m.b.weight", &numbers(2, 300)),
        matrix("lm_head.weight", &numbers(3, 200)),
        matrix("norm.weight", &numbers(4, 9)),
    ];
    let made = compressed(&tensors, &[("m", &["a", "b"]), ("lm_head", &[])]);
    (safetensors(None, &tensors), made, config(json!({"m": ["a", "b"], "lm_head": [], "none": ["x"]})))
}

fn small_made(change: impl FnOnce(&mut Vec<Stored>)) -> Made {
    let (original, mut tensors, config) = small();
    change(&mut tensors);
    Made::new(&original, &tensors, &config)
}

fn change(name: &str, change: impl FnOnce(&mut Stored)) -> Made {
    small_made(|tensors| change(tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()))
}

fn with_bytes(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Made {
    change(name, |tensor| {
        edit(&mut tensor.bytes);
        if tensor.shape.len() == 1 && tensor.dtype == "U8" {
            tensor.shape[0] = tensor.bytes.len() as u64;
        }
    })
}

#[test]
fn real_weights_come_back_through_a_cmz_file() {
    let (made, original) = (real_made(), real());
    let (files, notes) = made.restore().unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    for threads in [1, 3] {
        let (cmz, back) = (made.path("m.cmz"), made.path("back.safetensors"));
        let options = CompressOptions {
            encode: Default::default(),
            threads,
            replace: true,
            verify: true,
            io: IoMode::Auto,
            bases: Vec::new(),
            quantizer: None,
        };
        compress_source(&files[0], &cmz, &options, &()).unwrap();
        let archive = Archive::open(&cmz).unwrap();
        decompress(&archive, &back, &DecompressOptions { threads, replace: true }, &()).unwrap();
        assert!(std::fs::read(back).unwrap() == original);
    }
}

#[test]
fn a_small_checkpoint_comes_back() {
    assert_eq!(small_made(|_| {}).bytes().unwrap(), small().0);
}

#[test]
fn any_part_can_be_read() {
    let (made, original) = (real_made(), real());
    let restored = made.restore().unwrap().0.remove(0);
    let len = original.len();
    let mut offset = 1;
    for i in 0..200 {
        let start = offset % len;
        let mut part = vec![0; (offset % 90_000).min(len - start)];
        restored.read_at(start as u64, &mut part).unwrap();
        assert!(part == original[start..start + part.len()], "{i}");
        offset = offset * 48_271 % 2_147_483_647;
    }
    assert_eq!(restored.read_at(len as u64, &mut [0]).unwrap_err().code(), Code::Truncated);
    assert!(restored.read_at(u64::MAX, &mut [0]).is_err());
}

/// Compares the reader with the oracle and both with the elements.
fn round_trip(tensors: Vec<Stored>, elements: &[u16]) {
    let part = |name: &str| &tensors.iter().find(|tensor| tensor.name.ends_with(name)).unwrap().bytes;
    assert!(naive::decode(part("luts"), part("encoded_exponent"), part("sign_mantissa")) == elements);
    let original = safetensors(None, &[matrix("m.weight", elements)]);
    let made = Made::new(&original, &tensors, &config(json!({"m": []})));
    assert!(made.bytes().unwrap() == original);
}

fn with_exponents(exponents: impl IntoIterator<Item = u8>) -> Vec<u16> {
    let other = |i: usize| (i as u16).wrapping_mul(40_503) & 0x807f;
    exponents.into_iter().enumerate().map(|(i, exponent)| u16::from(exponent) << 7 | other(i)).collect()
}

#[test]
fn one_symbol_around_the_edges_of_blocks() {
    // One bit each: 32768 codes begin in a block.
    for n in [1, 7, 8, 9, 63, 64, 65, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537] {
        for exponent in [0, 127, 239] {
            let elements = with_exponents(std::iter::repeat_n(exponent, n));
            round_trip(group("m", &[&elements]), &elements);
        }
    }
}

/// Codes of all lengths up to 32 bits.
fn long_code() -> super::generator::Code {
    let (mut a, mut b) = (1u64, 1u64);
    let fibonacci = (100..140).map(|symbol| {
        (a, b) = (b, a + b);
        (symbol, a)
    });
    limited(&fibonacci.collect::<BTreeMap<i32, u64>>())
}

#[test]
fn codes_of_every_length() {
    let code = long_code();
    let longest = code.values().map(|&(bits, _)| bits).max();
    assert!(longest == Some(32) && luts(&code).len() > 4 * 256, "{longest:?}");
    let elements = with_exponents((0..9000u32).map(|i| 100 + (i * i / 7 % 40) as u8));
    round_trip(group_with(&code, "m", &[&elements]), &elements);
}

#[test]
fn a_code_may_end_in_a_block_where_none_begins() {
    // 32 bits each, but for one: so the last code of 1024 lies across the edge.
    let code = long_code();
    let symbol = |wanted: u32| *code.iter().find(|&(&s, &(bits, _))| s >= 0 && bits == wanted).unwrap().0 as u8;
    let mut edges = 0;
    for first in [1, 2, 3, 9, 17, 24, 31, 32] {
        for n in 1022..1027 {
            let exponents = std::iter::once(symbol(first)).chain(std::iter::repeat_n(symbol(32), n));
            let elements = with_exponents(exponents);
            let encoded = encode(&elements.iter().map(|e| (e >> 7) as u8).collect::<Vec<_>>(), &code);
            edges += usize::from(encoded.positions.len() == encoded.stream.len().div_ceil(4096));
            round_trip(group_with(&code, "m", &[&elements]), &elements);
        }
    }
    assert!(edges > 0, "no stream ends in a block where no code begins");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_elements_come_back(
        palette in prop::collection::vec(0u8..240, 1..40),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20_000),
    ) {
        // The smaller of two: skewed.
        let exponents = picks.iter().map(|(a, b)| palette[a.index(palette.len()).min(b.index(palette.len()))]);
        let elements = with_exponents(exponents);
        round_trip(group("m", &[&elements]), &elements);
    }
}

#[test]
fn the_header_is_built_where_the_original_differs() {
    let (_, mut tensors, config) = small();
    tensors.push(matrix("buffer \"quoted\"", &[1, 2, 3]));
    let original: Vec<Stored> = tensors_of(&small().0)
        .into_iter()
        .map(|tensor| Stored { bytes: [tensor.bytes.clone(), tensor.bytes].concat(), dtype: "F32", ..tensor })
        .collect();
    // The extra of a matrix's length stays BF16.
    let original = safetensors(Some(json!({"format": "pt"})), &original);
    let made = Made::new(&original, &tensors, &config);
    let (files, notes) = made.restore().unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    let bytes = made.bytes().unwrap();
    assert_eq!(bytes.len() as u64, files[0].byte_len());
    let header = crate::safetensors::Header::read(&bytes).unwrap();
    assert_eq!(header.metadata["format"], "pt");
    assert_eq!(header.len % 8, 0);
    let names: Vec<_> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["m.a.weight", "m.b.weight", "lm_head.weight", "norm.weight", "buffer \"quoted\""]);
    assert!(header.tensors.iter().all(|tensor| tensor.dtype == "BF16"));
    let expected = tensors_of(&small().0);
    for (entry, tensor) in header.tensors.iter().zip(&expected) {
        assert_eq!(bytes[entry.range.start as usize..entry.range.end as usize], tensor.bytes, "{}", entry.name);
    }
}

#[test]
fn tensors_may_lie_in_several_files() {
    let (original, tensors, config) = small();
    let made = Made::new(&original, &tensors[..5], &config);
    made.write("df11/b.safetensors", &safetensors(None, &tensors[5..]));
    assert_eq!(made.bytes().unwrap(), original);
    made.write("df11/c.safetensors", &safetensors(None, &tensors[5..6]));
    made.fails(Code::BadSource, &tensors[5].name, "is in");
}

#[test]
fn damaged_tables_are_refused() {
    let luts = "m.luts";
    let fails = |made: Made, tensor: &str, words: &str| made.fails(Code::BadSource, tensor, words);
    fails(with_bytes(luts, |bytes| bytes[0] = 240), luts, "points to table");
    fails(with_bytes(luts, |bytes| bytes[3] = 255), luts, "points to table 1 of 1");
    fails(with_bytes(luts, |bytes| bytes[256 + 124] = 33), luts, "33 bits");
    fails(with_bytes(luts, |bytes| bytes[256 + 240] = 3), luts, "the exponent 240");
    let stream = "m.encoded_exponent";
    fails(with_bytes(luts, |bytes| bytes[256..512].fill(0)), stream, "no code begins");
    fails(with_bytes(luts, |bytes| bytes[256..512].fill(9)), luts, "the exponent 240");
    fails(with_bytes(luts, |bytes| bytes[256..496].fill(9)), stream, "no code begins");
    fails(with_bytes(luts, |bytes| bytes[256..496].fill(32)), stream, "no code begins");
    let rows = |rows: usize| {
        change(luts, |tensor| {
            tensor.bytes.resize(256 * rows, 0);
            tensor.shape = vec![rows as u64, 256];
        })
    };
    for n in [0, 1, 19, 300] {
        rows(n).fails(Code::BadSource, luts, "");
    }
    fails(change(luts, |tensor| tensor.shape = vec![256, 2]), luts, "shape");
    fails(change(luts, |tensor| tensor.shape = vec![512]), luts, "dimensions");
    for name in ["encoded_exponent", "sign_mantissa", "gaps", "output_positions"] {
        let name = format!("m.{name}");
        fails(change(&name, |tensor| tensor.dtype = "I8"), &name, "not U8");
    }
}

#[test]
fn a_table_that_points_to_itself_ends() {
    let code = long_code();
    let elements = with_exponents((0..500u32).map(|i| 100 + (i % 40) as u8));
    let mut tensors = group_with(&code, "m", &[&elements]);
    let luts = &mut tensors.iter_mut().find(|tensor| tensor.name == "m.luts").unwrap().bytes;
    luts[256..512].fill(255);
    let original = safetensors(None, &[matrix("m.weight", &elements)]);
    let made = Made::new(&original, &tensors, &config(json!({"m": []})));
    made.fails(Code::BadSource, "m.encoded_exponent", "no code begins");
}

#[test]
fn damaged_positions_are_refused() {
    let positions = "m.output_positions";
    let fails = |edit: &dyn Fn(&mut Vec<u8>), words: &str| {
        with_bytes(positions, |bytes| edit(bytes)).fails(Code::BadSource, positions, words);
    };
    fails(&|bytes| bytes[0] = 1, "from 1");
    fails(&|bytes| bytes[4] ^= 1, "not from 0");
    fails(&|bytes| bytes.truncate(4), "it has 4 bytes");
    fails(&|bytes| bytes.truncate(7), "it has 7 bytes");
    fails(&|bytes| bytes.clear(), "it has 0 bytes");
    fails(&|bytes| bytes.extend([0; 4]), "it has 12 bytes");
    // More than a block.
    let elements = with_exponents((0..40_000u32).map(|i| 100 + (i * i % 7) as u8));
    let original = safetensors(None, &[matrix("m.weight", &elements)]);
    let made = |edit: &dyn Fn(&mut Vec<u32>)| {
        let mut tensors = group("m", &[&elements]);
        let bytes = &mut tensors.iter_mut().find(|tensor| tensor.name == positions).unwrap().bytes;
        let mut numbers: Vec<u32> = bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
        assert!(numbers.len() > 3);
        edit(&mut numbers);
        *bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Made::new(&original, &tensors, &config(json!({"m": []})))
    };
    made(&|numbers| numbers.swap(1, 2)).fails(Code::BadSource, positions, "block 1 cannot have");
    made(&|numbers| numbers[1] = 0).fails(Code::BadSource, positions, "block 0 cannot have");
    made(&|numbers| numbers[1] += 1).fails(Code::BadSource, "m.encoded_exponent", "as many codes");
    made(&|numbers| numbers[1] -= 1).fails(Code::BadSource, "m.encoded_exponent", "as many codes");
    let last = elements.len() as u32;
    made(&|numbers| numbers[1..].fill(last)).fails(Code::BadSource, positions, "block 0 cannot have");
}

#[test]
fn damaged_streams_are_refused() {
    let fails = |made: Made, tensor: &str, words: &str| made.fails(Code::BadSource, tensor, words);
    let (stream, gaps, others) = ("m.encoded_exponent", "m.gaps", "m.sign_mantissa");
    fails(with_bytes(gaps, |bytes| bytes.truncate(319)), gaps, "not 320");
    fails(with_bytes(gaps, |bytes| bytes[0] ^= 8), stream, "gap");
    fails(with_bytes(gaps, |bytes| bytes[1] ^= 8), stream, "gap");
    fails(with_bytes(stream, |bytes| bytes.push(0)), stream, "its codes end");
    fails(with_bytes(stream, |bytes| bytes.truncate(bytes.len() - 1)), stream, "");
    fails(with_bytes(stream, |bytes| bytes.resize(5000, 0)), gaps, "not 320");
    fails(with_bytes(stream, |bytes| bytes.fill(0xff)), stream, "");
    fails(with_bytes(stream, Vec::clear), gaps, "");
    fails(with_bytes(others, |bytes| bytes.truncate(bytes.len() - 1)), "m.output_positions", "999 elements");
}

#[test]
fn groups_must_be_whole_and_named() {
    let (original, tensors, good) = small();
    for missing in tensors.iter().filter(|tensor| tensor.name.starts_with("m.")) {
        let rest: Vec<Stored> = tensors.iter().filter(|tensor| tensor.name != missing.name).cloned().collect();
        Made::new(&original, &rest, &good).fails(Code::BadSource, &missing.name, "is missing");
    }
    // One matrix needs no positions of splits.
    let rest: Vec<Stored> = tensors.iter().filter(|t| t.name != "lm_head.split_positions").cloned().collect();
    assert_eq!(Made::new(&original, &rest, &good).bytes().unwrap(), original);

    let with = |patterns| Made::new(&original, &tensors, &config(patterns));
    with(json!({"m": ["a", "b"]})).fails(Code::BadSource, "lm_head.encoded_exponent", "no pattern");
    with(json!({"mm?": ["a", "b"], "m|lm_head": []})).fails(Code::BadSource, "m", "different things");
    with(json!({"m(": ["a", "b"], "lm_head": []})).fails(Code::BadSource, "", "cannot be read");
    with(json!({"m)|(x": ["a", "b"], "lm_head": []})).fails(Code::BadSource, "", "cannot be read");
    with(json!({"": ["a", "b"], "lm_head": []})).fails(Code::BadSource, "m.encoded_exponent", "no pattern");
    with(json!({"m": ["a"], "lm_head": []})).fails(Code::BadSource, "m.split_positions", "2 matrices");
    with(json!({"m": ["a", "a"], "lm_head": []})).fails(Code::BadSource, "m.a.weight", "two groups");
    with(json!({"m": ["a", "c"], "lm_head": []})).fails(Code::BadSource, "m.b.weight", "does not");
    with(json!({"m": ["b", "a"], "lm_head": []})).fails(Code::BadSource, "m.a.weight", "300 elements");
    assert_eq!(with(json!({"m": ["a", "b"], "m?": ["a", "b"], "lm_.*": []})).bytes().unwrap(), original);

    let splits = "m.split_positions";
    with_bytes(splits, |bytes| bytes[7] = 0x80).fails(Code::BadSource, splits, "goes from");
    with_bytes(splits, |bytes| bytes[1] = 0x80).fails(Code::BadSource, splits, "goes from");
    with_bytes(splits, |bytes| bytes[0] ^= 1).fails(Code::BadSource, "m.a.weight", "the original's shape");
    change("norm.weight", |tensor| tensor.shape = vec![3, 3]).fails(Code::BadSource, "norm.weight", "its shape is");
    small_made(|tensors| tensors.push(matrix("m.a.weight", &[1]))).fails(Code::BadSource, "m.a.weight", "both");
}

#[test]
fn the_original_must_name_every_matrix_once() {
    let (_, tensors, config) = small();
    let mut fewer = tensors_of(&small().0);
    fewer.remove(0);
    Made::new(&safetensors(None, &fewer), &tensors, &config).fails(Code::BadSource, "m.a.weight", "does not name");
    let mut more = tensors_of(&small().0);
    more.push(matrix("x", &[1]));
    Made::new(&safetensors(None, &more), &tensors, &config).fails(Code::BadSource, "x", "but the checkpoint does not");
    let made = small_made(|_| {});
    let original = || Original::read(&made.path("original.safetensors")).unwrap();
    let twice = Checkpoint::open(&made.path("df11"), None).unwrap().restore(&[original(), original()]);
    assert_eq!(twice.unwrap_err().code(), Code::BadSource);
}

#[test]
fn unknown_versions_and_pickles_are_refused() {
    let with = |from: &str, to: &str| {
        let (original, tensors, config) = small();
        assert!(config.contains(from));
        Made::new(&original, &tensors, &config.replace(from, to))
    };
    for version in ["0.2.0", "0.3.1", "0.3.2"] {
        with("0.5.0", version).bytes().unwrap();
    }
    for version in ["0.1.0", "0.6.0", "1.0", ""] {
        with("0.5.0", version).fails(Code::Version, "", "is not known");
    }
    with("[512]", "512").bytes().unwrap();
    with("[512]", "[256]").fails(Code::BadSource, "", "threads a block");
    with("\"bytes_per_thread\":8", "\"bytes_per_thread\":4").fails(Code::BadSource, "", "bytes a thread");
    with("dfloat11_config", "quantization_config").fails(Code::BadSource, "", "dfloat11_config");
    with("{", "").fails(Code::BadSource, "", "the configuration");

    let made = small_made(|_| {});
    let open = |name: &str, config: Option<&str>| -> Error {
        Checkpoint::open(&made.path(name), config.map(|name| made.path(name)).as_deref()).unwrap_err()
    };
    std::fs::rename(made.path("df11/config.json"), made.path("df11/other.json")).unwrap();
    assert_eq!(open("df11", None).code(), Code::BadSource);
    assert!(Checkpoint::open(&made.path("df11/model.safetensors"), Some(&made.path("df11/other.json"))).is_ok());
    let alone: serde_json::Value = serde_json::from_str(&small().2).unwrap();
    made.write("alone.json", alone["dfloat11_config"].to_string().as_bytes());
    assert!(Checkpoint::open(&made.path("df11"), Some(&made.path("alone.json"))).is_ok());

    made.write("model.pkl", b"\x80\x02}");
    assert_eq!(open("model.pkl", None).code(), Code::NotWeights);
    std::fs::rename(made.path("df11/model.safetensors"), made.path("df11/model.pkl")).unwrap();
    let error = open("df11", Some("df11/other.json"));
    assert!(error.code() == Code::NotWeights && error.message().contains("0.1"), "{error}");
    std::fs::remove_file(made.path("df11/model.pkl")).unwrap();
    assert_eq!(open("df11", Some("df11/other.json")).code(), Code::NotWeights);
    assert_eq!(open("missing", None).code(), Code::Io);
}

#[test]
fn cut_files_are_errors() {
    let made = small_made(|_| {});
    let whole = std::fs::read(made.path("df11/model.safetensors")).unwrap();
    for len in (0..whole.len()).step_by(97) {
        made.write("df11/model.safetensors", &whole[..len]);
        assert_eq!(made.bytes().unwrap_err().code(), Code::Truncated, "{len}");
    }
    made.write("df11/model.safetensors", &whole);
    let header = std::fs::read(made.path("original.safetensors")).unwrap();
    for len in 0..header.len() {
        made.write("original.safetensors", &header[..len]);
        assert_eq!(made.bytes().unwrap_err().code(), Code::Truncated, "{len}");
    }
}

/// Damage gives an error or other numbers, never a panic.
#[test]
fn no_damage_panics() {
    let made = small_made(|_| {});
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut errors, runs) = (0, 4000);
    for run in 0..runs {
        let name = if run % 8 == 0 { "df11/config.json" } else { "df11/model.safetensors" };
        let whole = std::fs::read(made.path(name)).unwrap();
        let mut bytes = whole.clone();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = next(256) as u8,
                2 => bytes[at] = 0xff,
                _ => bytes[at] = 0,
            }
        }
        made.write(name, &bytes);
        errors += usize::from(made.bytes().is_err());
        made.write(name, &whole);
    }
    assert!(errors > runs / 4 && errors < runs, "{errors} errors of {runs}");
}

#[test]
fn codes_are_those_of_the_package() {
    // Counts 5, 2, 1 and the end: dahuffman gives 1, 01, 001 and 000.
    let code = code_of(&[7, 7, 7, 7, 7, 9, 9, 8]);
    assert_eq!(code.into_iter().collect::<Vec<_>>(), [(-1, (3, 0)), (7, (1, 1)), (8, (3, 1)), (9, (2, 1))]);
    assert_eq!(elements(&[0x80, 0x3f]), [0x3f80]);
}
