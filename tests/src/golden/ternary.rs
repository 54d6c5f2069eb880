//! Files with `ternary` tensors, whose symbols are stored by the codecs for ternary symbols alone.

use cmz_codec::encoding::ternary::{BY_ROW, GROUPED};
use cmz_codec::registry::STREAMS;
use cmz_codec::safetensors::Entry;
use cmz_codec::stream::{StreamCodec, Width};
use cmz_codec::{Code, encoding::Encoding};
use serde_json::{Value, json};

use super::Found::Read;
use super::{Good, Refused};
use crate::cmz::{Storage, decoded, write};
use crate::inputs::{Rng, f32_weights};
use crate::raw_file::RawFile;
use crate::source::Source;

/// Elements of a row.
const ROW: usize = 130;

/// Whether a codec takes symbols of two bits alone.
pub(super) fn is_ternary(codec: &dyn StreamCodec) -> bool {
    (1..=16).all(|bits| codec.supports(Width::new(bits)) == (bits == 2))
}

/// BF16 weights, most of them 0, the others the two numbers of their row.
fn weights(seed: u64, rows: usize, zeros: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let element = |rng: &mut Rng, row: usize| match (rng.bits() % 1000 < zeros, rng.below(2)) {
        (true, _) => 0u16,
        (false, 0) => 0xbf00 + row as u16,
        (false, _) => 0x3e80 + 3 * row as u16,
    };
    (0..rows * ROW).flat_map(|i| element(&mut rng, i / ROW).to_le_bytes()).collect()
}

/// One file for each codec: more than a tile, symbols that are about equally common, and few.
pub(super) fn good() -> Vec<Good> {
    let shape = |rows: usize| [rows as u64, ROW as u64];
    let source = Source::new()
        .tensor("by row", "BF16", &shape(80), weights(61, 80, 880))
        .tensor("grouped", "F32", &[11, 40], f32_weights(62, 440))
        .tensor("one row", "BF16", &[ROW as u64], weights(63, 1, 0))
        .build();
    let codecs = STREAMS.iter().map(|entry| entry.codec).filter(|&codec| is_ternary(codec));
    let mut cases: Vec<Good> = codecs
        .map(|codec| {
            let storage = |e: &Entry| {
                let encoding: &dyn Encoding = if e.name == "grouped" { &GROUPED } else { &BY_ROW };
                Storage::of(encoding, &e.dtype, &[codec.name(), "raw"], 10_400)
            };
            let bytes = write(&source, storage).expect("a sound file");
            let about = format!("Stream codec `{}`, in encoding `ternary`.", codec.name());
            let source = decoded(&source, &storage).expect("a sound file");
            Good::new(&format!("stream-{}", codec.name()), &about, bytes, source)
        })
        .collect();
    let source = packed();
    let source = decoded(&source, &of_rans).expect("a sound file");
    let about = "Stream codec `rans` of letters that are four symbols each.";
    cases.push(Good::new("stream-rans-packed", about, packed_file().build(), source));
    cases
}

fn of_rans(entry: &Entry) -> Storage {
    Storage::of(&BY_ROW, &entry.dtype, &["rans"], 1 << 16)
}

/// A tensor of so many symbols that packing them pays; the last letter has two of them.
fn packed() -> Vec<u8> {
    Source::new().tensor("t", "BF16", &[345, ROW as u64], weights(65, 345, 400)).build()
}

fn packed_file() -> RawFile {
    let mut file = RawFile::parse(&write(&packed(), of_rans).expect("a sound file"));
    assert_eq!(file.data(0).streams[0].1[1], 1, "the symbols are packed");
    file
}

/// A file of a `ternary` tensor and of another one.
fn file_of(codec: &str) -> RawFile {
    let source = Source::new()
        .tensor("new", "BF16", &[40, ROW as u64], weights(64, 40, 850))
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
        .build();
    let storage = |entry: &Entry| match entry.name.as_str() {
        "new" => Storage::of(&BY_ROW, "BF16", &[codec], 40 * ROW as u64),
        _ => Storage::raw("U8", 64),
    };
    RawFile::parse(&write(&source, storage).expect("a sound file"))
}

fn stream(codec: &str, name: &str, about: &str, change: impl FnOnce(&mut Vec<u8>)) -> Refused {
    let mut file = file_of(codec);
    change(&mut file.data(0).streams[0].1);
    Refused::new(&format!("bad-stream-{codec}-{name}"), about, Read(Code::BadStream), file.build())
}

fn params(name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Refused {
    let mut file = file_of("trits");
    file.edit_tensor(0, |tensor| change(&mut tensor["encoding"]["params"]));
    Refused::new(&format!("bad-ternary-{name}"), about, Read(Code::Malformed), file.build())
}

pub(super) fn bad() -> Vec<Refused> {
    let mut cases = Vec::new();
    for codec in STREAMS.iter().map(|entry| entry.codec).filter(|&codec| is_ternary(codec)) {
        let name = codec.name();
        cases.extend([
            stream(name, "cut", &format!("A `{name}` stream without its last byte."), |s| s.truncate(s.len() - 1)),
            stream(name, "long", &format!("A `{name}` stream with 16 zeros behind it."), |s| s.extend([0; 16])),
            stream(name, "empty", &format!("A `{name}` stream of no bytes."), Vec::clear),
            stream(name, "form", "A form that there is not.", |s| s[0] = 2),
            stream(name, "reserved", "A reserved byte that is not zero.", |s| s[3] = 1),
        ]);
    }
    let packed = |name: &str, about, change: fn(&mut Vec<u8>)| {
        let mut file = packed_file();
        change(&mut file.data(0).streams[0].1);
        Refused::new(&format!("bad-stream-rans-{name}"), about, Read(Code::BadStream), file.build())
    };
    let symbols = |s: &mut Vec<u8>| *s = [&[1, 0, 0, 0][..], &[0xff; 1300]].concat();
    cases.extend([
        stream("tunstall", "frequencies", "Frequencies that leave none for the symbol 0.", |s| s[1..3].fill(128)),
        stream("tunstall", "codeword", "A codeword that stands for nothing.", |s| s[40..43].fill(0xff)),
        stream("trits", "byte", "A byte above those of five ternary symbols.", |s| s[20] = 243),
        stream("trits", "symbol", "Symbols 3 in an encoding of ternary ones.", symbols),
        packed("letters", "Letters that are neither symbols nor bytes of them.", |s| s[1] = 2),
        packed("letters-alike", "Letters of several symbols that are all alike.", |s| {
            *s = vec![17, 1, 3, 0, 1, 1, 0, 0, 0, 0, 0, 0]
        }),
        params("group", "A group that is one number.", |params| params["group"] = json!(128)),
        params("group-zero", "Groups of no rows.", |params| params["group"] = json!([0, 128])),
        params("group-three", "Groups of three dimensions.", |params| params["group"] = json!([1, 1, 1])),
        params("no-params", "An encoding without the parameter that it needs.", |params| *params = json!({})),
    ]);
    cases
}
