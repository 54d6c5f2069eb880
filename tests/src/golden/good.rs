//! Files that must be read.

use cmz_codec::encoding::{Array, Element};
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::safetensors::Entry;
use cmz_codec::stream::Width;
use cmz_format::Dtype;

use super::Good;
use super::ternary::is_ternary;
use crate::cmz::{Storage, decoded, write, write_without_source};
use crate::inputs::{Rng, bf16_weights, f32_weights, skewed};
use crate::raw_file::RawFile;
use crate::source::{Source, file_of};

/// How a golden file's tensors are stored unless it is about something else.
fn usual(entry: &Entry) -> Storage {
    match Dtype::from_name(&entry.dtype) {
        Some(Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64) => {
            Storage::new("float_planes", &entry.dtype, &["tiered", "zstd", "raw"], 512)
        }
        _ => Storage::new("plain", &entry.dtype, &["zstd", "raw"], 512),
    }
}

fn raw(entry: &Entry) -> Storage {
    Storage::raw(&entry.dtype, 64)
}

fn case(name: &str, about: &str, source: &Source, storage: impl Fn(&Entry) -> Storage) -> Good {
    of_bytes(name, about, source.build(), storage)
}

fn of_bytes(name: &str, about: &str, source: Vec<u8>, storage: impl Fn(&Entry) -> Storage) -> Good {
    let bytes = write(&source, storage).expect("a sound file");
    Good::new(name, about, bytes, source)
}

pub(super) fn cases() -> Vec<Good> {
    let mut cases = shapes();
    cases.extend(sources());
    cases.extend(storages());
    cases.extend(by_dtype());
    cases.extend(by_codec());
    cases.extend(by_encoding());
    cases
}

fn shapes() -> Vec<Good> {
    let mut many = Source::new();
    for i in 0..200u64 {
        many = many.tensor(&format!("layers.{i}.bias"), "F32", &[i % 3], vec![i as u8; (i % 3 * 4) as usize]);
    }
    let deep = Source::new().tensor("deep", "U8", &[1; 64], [7]);
    vec![
        case("no-tensors", "No tensor at all.", &Source::new(), usual),
        case("metadata-only", "Metadata and no tensor.", &Source::new().metadata("format", "pt"), usual),
        case(
            "rank-0",
            "A tensor without dimensions.",
            &Source::new().tensor("scale", "F32", &[], 1.5f32.to_le_bytes()),
            raw,
        ),
        case("rank-64", "As many dimensions as the format has.", &deep, raw),
        case("empty-tensor", "Tensors without elements, between others.", &empty_tensors(), usual),
        case(
            "odd-tail",
            "The last block is shorter, and ends inside a tile and inside a byte of a bit plane.",
            &odd(),
            usual,
        ),
        case("many-tensors", "200 tensors: the manifest is compressed.", &many, raw),
    ]
}

fn empty_tensors() -> Source {
    Source::new()
        .tensor("first", "BF16", &[0], [])
        .tensor("full", "I32", &[2], [1, 0, 0, 0, 2, 0, 0, 0])
        .tensor("wide", "F64", &[4, 0, 7], [])
        .tensor("last", "BOOL", &[0, 0], [])
}

fn odd() -> Source {
    Source::new().tensor("weight", "BF16", &[1031], bf16_weights(1, 1031)).tensor(
        "mask",
        "BOOL",
        &[7],
        [1, 0, 1, 1, 0, 0, 1],
    )
}

fn sources() -> Vec<Good> {
    let weight = bf16_weights(2, 96);
    let spaced = Source::new().tensor("w", "BF16", &[96], &weight);
    let gaps = Source::new().gap(b"gap").tensor("a", "U8", &[3], b"abc").gap(&[0; 100]).tensor("b", "U8", &[2], b"de");
    let unicode =
        Source::new().metadata("名前", "モデル\u{1F980}").metadata("", "empty key\n\t\"\\").metadata("format", "pt");
    let named = Source::new().tensor("", "U8", &[1], [1]).tensor("\u{202e}evil\u{0}\n", "U8", &[1], [2]).tensor(
        "é/…",
        "U8",
        &[1],
        [3],
    );
    let odd_json = b"{ \"b\":{\"shape\":[2],\"data_offsets\":[1,3],\"dtype\":\"U8\"},\r\n\t\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]} }";
    vec![
        case("gaps", "Bytes between the tensors that belong to none.", &gaps, raw),
        case("trailing-bytes", "Bytes behind the last tensor.", &spaced.clone().gap(b"trailing"), usual),
        case(
            "header-order",
            "The header lists the tensors in another order than the file.",
            &gaps.clone().reversed(),
            raw,
        ),
        case(
            "literal-zstd",
            "A header of 20,000 bytes, mostly spaces: the literal block is compressed.",
            &spaced.clone().header_len(20_000),
            usual,
        ),
        case(
            "header-640",
            "A header of 640 bytes, whose length field looks like the start of a pickle.",
            &spaced.header_len(640),
            usual,
        ),
        case(
            "metadata-unicode",
            "Metadata in several scripts, with an empty key and control characters.",
            &unicode,
            usual,
        ),
        case("names", "Tensor names that are empty, or hold control and formatting characters.", &named, raw),
        of_bytes("header-json", "JSON with unusual white space and order of keys.", file_of(odd_json, b"abc"), raw),
        without_source(),
    ]
}

fn without_source() -> Good {
    let source =
        Source::new().tensor("a", "BF16", &[96], bf16_weights(3, 96)).tensor("b", "I8", &[5], [1, 2, 3, 4, 5]).build();
    let bytes = write_without_source(&source, usual).expect("a sound file");
    let about = "Tensors that come from no file: there is nothing to restore but them.";
    Good::new("no-source", about, bytes, source)
}

fn storages() -> Vec<Good> {
    let small = Source::new().tensor("raw", "F32", &[5, 20], f32_weights(4, 100));
    let large = Source::new().tensor("raw", "U8", &[70_001], Rng::new(5).bytes(70_001));
    let opaque = Source::new().tensor("new", "F2_E1M0", &[4, 9], [0xA5; 9]).tensor("old", "U8", &[1], [1]);
    let multi = Source::new().tensor("w", "BF16", &[64, 100], bf16_weights(6, 6400));
    vec![
        case("run-small", "A raw tensor of several blocks in one contiguous run.", &small, |e| {
            Storage::raw(&e.dtype, 32)
        }),
        case("run-page", "A raw tensor large enough to start on a page.", &large, |e| Storage::raw(&e.dtype, 16_384)),
        case("blocks", "A compressed tensor of several blocks.", &multi, |e| {
            Storage::new("float_planes", &e.dtype, &["tiered", "raw"], 1000)
        }),
        case("dtype-unknown", "An element type that no version knows is kept as bytes.", &opaque, |e| {
            Storage::new("plain", &e.dtype, &["zstd", "raw"], 512)
        }),
        nested(),
        optional_feature(),
        floats(),
        real_slice(),
    ]
}

/// The data of a `plain` array stored as a `plain` array in turn.
fn nested() -> Good {
    let source = Source::new().tensor("w", "U8", &[300], skewed(7, 300)).build();
    let mut case = of_bytes("nested-encoding", "A component that is an encoded array in turn.", source, |e| {
        Storage::new("plain", &e.dtype, &["zstd"], 512)
    });
    let mut file = RawFile::parse(&case.bytes);
    file.edit_tensor(0, |tensor| {
        let inner = tensor["encoding"].clone();
        tensor["encoding"]["components"]["data"] = inner;
    });
    case.bytes = file.build();
    case
}

fn optional_feature() -> Good {
    let source = Source::new().tensor("w", "U8", &[3], [1, 2, 3]).build();
    let mut case = of_bytes("optional-feature", "An optional feature that no version knows is ignored.", source, raw);
    let mut file = RawFile::parse(&case.bytes);
    file.header[24 + 7] = 0x80;
    case.bytes = file.build();
    case
}

/// NaNs with payloads, infinities, zeros and subnormals of four types.
fn floats() -> Good {
    let half = |patterns: &[u16]| patterns.iter().flat_map(|p| p.to_le_bytes()).collect::<Vec<u8>>();
    let bf16 = half(&[0x7fc0, 0x7f81, 0xffff, 0xff80, 0x7f80, 0x8000, 0, 0x0001, 0x807f, 0x7f7f]);
    let f16 = half(&[0x7e00, 0x7c01, 0xffff, 0xfc00, 0x7c00, 0x8000, 0, 0x0001, 0x83ff, 0x7bff]);
    let f32: Vec<u8> = [0x7fc0_0000u32, 0x7f80_0001, 0xffff_ffff, 0x8000_0000, 1, 0x807f_ffff]
        .iter()
        .flat_map(|p| p.to_le_bytes())
        .collect();
    let f64: Vec<u8> = [0x7ff8_0000_0000_0000u64, 0x7ff0_0000_0000_0001, u64::MAX, 1 << 63, 1]
        .iter()
        .flat_map(|p| p.to_le_bytes())
        .collect();
    let source = Source::new()
        .tensor("bf16", "BF16", &[10], bf16)
        .tensor("f16", "F16", &[10], f16)
        .tensor("f32", "F32", &[6], f32)
        .tensor("f64", "F64", &[5], f64);
    case("float-patterns", "NaN payloads, infinities, negative zeros and subnormals.", &source, |e| {
        Storage::new("float_planes", &e.dtype, &["zstd", "tiered", "raw"], 512)
    })
}

/// The first rows of a trained layer.
fn real_slice() -> Good {
    let path = crate::data_dir().join("minilm-layer0-bf16.safetensors");
    let file = std::fs::read(path).expect("the real weights are in the repository");
    let header = cmz_codec::safetensors::Header::read(&file).expect("a sound file");
    let mut source = Source::new().metadata("model", "all-MiniLM-L6-v2, rows of encoder layer 0");
    for entry in header.tensors.iter().filter(|entry| entry.shape.len() == 2).take(3) {
        let bytes = &file[entry.range.start as usize..][..8 * 2 * entry.shape[1] as usize];
        source = source.tensor(&entry.name, &entry.dtype, &[8, entry.shape[1]], bytes);
    }
    case("real-bf16", "Rows of three matrices of a trained model.", &source, |e| {
        Storage::new("float_planes", &e.dtype, &["tiered", "raw"], 4096)
    })
}

/// One file for each element type: a tensor with all kinds of bits.
fn by_dtype() -> Vec<Good> {
    let make = |dtype: Dtype| {
        let elements = 200;
        let bytes = skewed(dtype.bits(), dtype.byte_len(elements).expect("whole bytes") as usize);
        let source = Source::new().tensor("t", dtype.name(), &[10, 20], bytes);
        let name = format!("dtype-{}", dtype.name().to_lowercase().replace('_', "-"));
        case(&name, &format!("Element type {}.", dtype.name()), &source, usual)
    };
    Dtype::ALL.iter().map(|&dtype| make(dtype)).collect()
}

/// One file for each stream codec, in the first encoding with a stream that it can code.
fn by_codec() -> Vec<Good> {
    let mut cases = Vec::new();
    for codec in STREAMS.iter().map(|entry| entry.codec).filter(|&codec| !is_ternary(codec)) {
        let bytes = skewed(u64::from(codec.id()), 5000);
        let source = Source::new().tensor("t", "U8", &[50, 100], &bytes).tensor("h", "F16", &[2500], &bytes);
        let bytewise = codec.supports(Width::BYTE);
        cases.push(case(
            &format!("stream-{}", codec.name()),
            &format!("Stream codec `{}`.", codec.name()),
            &source,
            |e| match e.dtype.as_str() {
                "U8" if bytewise => Storage::new("plain", "U8", &[codec.name()], 4500),
                "U8" => Storage::raw("U8", 4500),
                other => Storage::new("float_planes", other, &[codec.name()], 2000),
            },
        ));
    }
    cases
}

/// One file for each encoding, with every element type that it has a rule for, and with all
/// its variants.
fn by_encoding() -> Vec<Good> {
    let mut cases = Vec::new();
    for entry in ENCODINGS {
        let mut source = Source::new();
        for dtype in Dtype::ALL {
            if entry.encoding.components(Array::vector(Element::Dtype(*dtype), 0)).is_some() {
                let bytes = skewed(100 + dtype.bits(), dtype.byte_len(40).expect("whole bytes") as usize);
                source = source.tensor(dtype.name(), dtype.name(), &[5, 8], bytes);
                for i in 1..entry.variants.len() {
                    let bytes = f32_weights(i as u64, 40 * dtype.bits() as usize / 32);
                    source = source.tensor(&format!("{dtype}, variant {i}"), dtype.name(), &[5, 8], bytes);
                }
            }
        }
        let name = entry.encoding.name();
        let about = format!("Encoding `{name}` of every element type that it is defined for.");
        let storage = |e: &Entry| {
            let variant = e.name.rsplit_once(' ').and_then(|(_, i)| i.parse().ok()).unwrap_or(0usize);
            Storage::of(entry.variants[variant], &e.dtype, &["tiered", "zstd", "raw"], 32)
        };
        let mut case = case(&format!("encoding-{name}"), &about, &source, storage);
        case.source = decoded(&case.source, &storage).expect("a sound file");
        cases.push(case);
    }
    cases
}
