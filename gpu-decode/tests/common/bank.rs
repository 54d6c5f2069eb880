//! The files that the decoders are tried on.

use std::collections::BTreeMap;

use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::CompressOptions;
use cmz_codec::encoding::float_planes::FloatPlanes;
use cmz_codec::encoding::ternary::{BY_ROW, GROUPED};
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::stream::rans::Rans;
use cmz_codec::stream::{Level, StreamCodec as _};
use cmz_format::{Component, Dtype, Encoding};
use cmz_tests::cmz::{Storage, write_at};
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, skewed};
use cmz_tests::raw_file::RawFile;
use cmz_tests::source::Source;
use serde_json::Map;

/// A `.cmz` file and what it is.
pub(crate) type File = (String, Vec<u8>);

/// Element types of every join, and of none.
const DTYPES: [Dtype; 9] = [
    Dtype::BF16,
    Dtype::F16,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::I32,
];

/// Whether a stream of `rans` is of letters of several symbols each.
fn is_packed((codec, stream): &(u16, Vec<u8>)) -> bool {
    *codec == Rans.id() && stream[1] == 1
}

/// Matrices of symbols of one, two and four bits that `rans` packs: blocks that end in a letter.
pub(crate) fn packed() -> Vec<File> {
    let of_bits = |bits: u8| {
        let params = format!(r#"{{"bits":{bits},"form":"symmetric","group":[1,64],"scale":"F16","arithmetic":"F32"}}"#);
        affine(&params, "rans", &[("scales", plain("raw"))])
    };
    let of_ternary = Storage::of(&BY_ROW, "BF16", &["rans"], 1).encoding;
    let of_bytes = Storage::of(&FloatPlanes, "F8_E4M3", &["rans"], 1).encoding;
    let mut files = Vec::new();
    for (what, encoding, dtype) in [
        ("codes of one bit", of_bits(1), Dtype::BF16),
        ("codes of two bits", of_bits(2), Dtype::F16),
        ("codes of four bits", of_bits(4), Dtype::F32),
        ("ternary", of_ternary.clone(), Dtype::BF16),
        ("ternary", of_ternary.clone(), Dtype::F16),
        ("ternary", of_ternary, Dtype::F32),
        ("exponents", of_bytes, Dtype::F8_E4M3),
    ] {
        for level in [Level::Fast, Level::Max] {
            // One bit needs more symbols for the table to be worth its length.
            let (columns, rows, block_rows) =
                if what == "codes of one bit" { (1201, 301, 261) } else { (667, 150, 121) };
            let elements = rows * columns;
            let bytes =
                if what == "ternary" { ternary_weights(dtype, 5, elements, 30) } else { weights(dtype, 5, elements) };
            let source = Source::new().tensor("w", dtype.name(), &[rows as u64, columns as u64], bytes).build();
            let storage = |_: &cmz_codec::safetensors::Entry| Storage {
                encoding: encoding.clone(),
                block_elements: (block_rows * columns) as u64,
            };
            let file = write_at(level, &source, storage).expect("a sound file");
            let raw = RawFile::parse(&file);
            let block = raw.blocks.iter().find(|block| block.header[4] == 4).expect("a data block");
            assert!(block.streams.iter().any(is_packed), "{what} of {dtype} at {level:?} are not packed");
            files.push((format!("{what} of {dtype}, packed, {level:?}"), file));
        }
    }
    files
}

/// Elements that look like weights: of the exponents, few are common; all else is noise.
pub(crate) fn weights(dtype: Dtype, seed: u64, elements: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let len = dtype.byte_len(elements as u64).unwrap() as usize;
    let mut bytes = rng.bytes(len);
    let (size, exponent_bits) = match dtype {
        Dtype::BF16 => (2, 8),
        Dtype::F16 => (2, 5),
        Dtype::F32 | Dtype::C64 => (4, 8),
        Dtype::F64 => (8, 11),
        Dtype::F8_E5M2 => (1, 5),
        Dtype::F8_E4M3 => (1, 4),
        _ => return skewed(seed, len),
    };
    for element in bytes.chunks_exact_mut(size) {
        let mut value = [0; 8];
        value[..size].copy_from_slice(element);
        let shift = 8 * size - 1 - exponent_bits;
        let mask = ((1u64 << exponent_bits) - 1) << shift;
        let exponent =
            (1 << (exponent_bits - 1)) - 2 - u64::from(rng.bits().trailing_zeros()).min(1 << (exponent_bits - 2));
        let value = u64::from_le_bytes(value) & !mask | exponent << shift;
        element.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    bytes
}

/// Tensors of one type: weights of several blocks, noise, constants, and lengths round a granule, a group and a tile.
fn tensors(dtype: Dtype) -> Vec<u8> {
    let mut source = Source::new();
    let mut add = |name: &str, elements: usize, bytes: Vec<u8>| {
        source = std::mem::take(&mut source).tensor(name, dtype.name(), &[elements as u64], bytes);
    };
    let len = |elements| dtype.byte_len(elements as u64).unwrap() as usize;
    add("weights", 37_001, weights(dtype, 1, 37_001));
    add("noise", 5000, Rng::new(2).bytes(len(5000)));
    add("zeros", 4500, vec![0; len(4500)]);
    add("ones", 300, vec![0xff; len(300)]);
    add("none", 0, Vec::new());
    for elements in [1, 7, 8, 9, 255, 257, 4095, 4096, 4104] {
        add(&format!("{elements}"), elements, weights(dtype, elements as u64, elements));
    }
    source.build()
}

/// Every element type by every encoding over every stream codec, in blocks of 20,000 elements.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    for dtype in DTYPES {
        let source = tensors(dtype);
        for encoding in ENCODINGS.iter().flat_map(|entry| entry.variants) {
            let array = cmz_codec::encoding::Array::vector(cmz_codec::encoding::Element::Dtype(dtype), 0);
            if encoding.components(array).is_none() {
                continue;
            }
            for codec in STREAMS.iter().map(|entry| entry.codec.name()) {
                let levels = if codec == "rans" { &[Level::Fast, Level::Max][..] } else { &[Level::Fast] };
                for &level in levels {
                    let storage =
                        |entry: &cmz_codec::safetensors::Entry| Storage::of(*encoding, &entry.dtype, &[codec], 20_000);
                    let file = write_at(level, &source, storage).expect("a sound file");
                    files.push((format!("{dtype} by {encoding:?} over {codec}, {level:?}"), file));
                }
            }
        }
    }
    files
}

/// Compresses as a user would.
fn compress(source: &[u8], level: Level) -> Vec<u8> {
    let encode = EncodeOptions { level, codec: None };
    Folder::new().compress("file.cmz", source, &CompressOptions { encode, ..options(2) }).expect("a sound source")
}

/// Parts of a real model.
pub(crate) fn real() -> Vec<File> {
    let mut files = Vec::new();
    for name in ["minilm-layer0-bf16", "minilm-layer3-attention-f16", "minilm-layer5-attention-f32"] {
        let source = std::fs::read(cmz_tests::data_dir().join(format!("{name}.safetensors"))).expect("test data");
        for level in [Level::Fast, Level::Max] {
            files.push((format!("{name} at {level:?}"), compress(&source, level)));
        }
    }
    files
}

/// Matrices of several blocks whose rows end anywhere in a tile.
pub(crate) fn matrices() -> Vec<File> {
    let mut files = Vec::new();
    for codec in ["raw", "tiered", "huffman", "rans"] {
        let mut source = Source::new();
        for dtype in [Dtype::BF16, Dtype::F32, Dtype::F16, Dtype::F8_E4M3, Dtype::I32] {
            let bytes = weights(dtype, 5, 40 * 333);
            source = source.tensor(dtype.name(), dtype.name(), &[40, 333], bytes);
        }
        let storage = |entry: &cmz_codec::safetensors::Entry| {
            let encoding = if entry.dtype == "I32" { "plain" } else { "float_planes" };
            Storage::new(encoding, &entry.dtype, &[codec, "bitpack", "raw"], 15 * 333)
        };
        let file = write_at(Level::Fast, &source.build(), storage).expect("a sound file");
        files.push((format!("matrices over {codec}"), file));
    }
    for (codec, ternary) in [("tunstall", &BY_ROW), ("dictionary", &GROUPED), ("trits", &BY_ROW), ("rans", &GROUPED)] {
        let mut source = Source::new();
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
            // Tiles of 8192 symbols end in rows.
            source = source.tensor(dtype.name(), dtype.name(), &[40, 333], ternary_weights(dtype, 5, 40 * 333, 30));
        }
        let storage =
            |entry: &cmz_codec::safetensors::Entry| Storage::of(ternary, &entry.dtype, &[codec, "raw"], 29 * 333);
        let file = write_at(Level::Fast, &source.build(), storage).expect("a sound file");
        files.push((format!("ternary matrices over {codec}"), file));
    }
    files
}

/// Weights of which so many of 256 become each number that is not 0.
pub(crate) fn ternary_weights(dtype: Dtype, seed: u64, elements: usize, of_256: u8) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let weight = |bits: u8| {
        if bits < of_256 {
            -0.75f32
        } else if bits >= 255 - of_256 {
            1.5
        } else {
            0.0
        }
    };
    let bytes = rng.bytes(elements).into_iter().map(weight);
    match dtype {
        Dtype::BF16 => bytes.flat_map(|weight| half::bf16::from_f32(weight).to_le_bytes()).collect(),
        Dtype::F16 => bytes.flat_map(|weight| half::f16::from_f32(weight).to_le_bytes()).collect(),
        _ => bytes.flat_map(f32::to_le_bytes).collect(),
    }
}

/// Layers of two tensors each.
pub(crate) fn layers() -> Vec<u8> {
    let mut source = Source::new();
    for layer in 0..5u64 {
        let (up, down) =
            (weights(Dtype::BF16, layer, 96 * 64), weights(Dtype::BF16, layer + 9, 64 * (90 + layer as usize)));
        source = source.tensor(&format!("layers.{layer}.up"), "BF16", &[96, 64], up).tensor(
            &format!("layers.{layer}.down"),
            "BF16",
            &[64, 90 + layer],
            down,
        );
    }
    compress(&source.build(), Level::Fast)
}

/// An affine encoding's manifest entry, with codes by `codec` and its numbers as stated.
pub(crate) fn affine(params: &str, codec: &str, numbers: &[(&str, Component)]) -> Encoding {
    let mut components: BTreeMap<String, Component> =
        numbers.iter().map(|(name, component)| ((*name).to_owned(), component.clone())).collect();
    components.insert("codes".to_owned(), Component::Stream(vec![codec.to_owned(), "raw".to_owned()]));
    let params = serde_json::from_str(params).expect("parameters");
    Encoding { name: "affine".to_owned(), params, components }
}

/// Numbers as they lie in memory, by `codec`.
pub(crate) fn plain(codec: &str) -> Component {
    let components = [("data".to_owned(), Component::Stream(vec![codec.to_owned()]))].into();
    Component::Encoded(Encoding { name: "plain".to_owned(), params: Map::new(), components })
}

pub(crate) fn float_planes(codec: &str) -> Component {
    let components =
        ["exponent", "sign_mantissa"].map(|name| (name.to_owned(), Component::Stream(vec![codec.to_owned()]))).into();
    Component::Encoded(Encoding { name: "float_planes".to_owned(), params: Map::new(), components })
}

/// SpQR's encoding: groups of 16 columns, whose scales and zeros are of groups of 16 rows.
pub(crate) fn two_levels(codes: &str) -> Encoding {
    let second = r#"{"bits":3,"form":"zero","group":[16,1],"scale":"F16","arithmetic":"F16"}"#;
    let second = Component::Encoded(affine(second, codes, &[("scales", plain("raw")), ("zeros", plain("raw"))]));
    let first = r#"{"bits":3,"form":"zero","group":[1,16],"scale":"F16","arithmetic":"F16"}"#;
    affine(first, codes, &[("scales", second.clone()), ("zeros", second)])
}

/// Matrices whose elements are put together from arrays that are put together in turn, and whose rows are no whole groups.
pub(crate) fn nested() -> Vec<File> {
    let mut files = Vec::new();
    for (codes, numbers) in [("bitpack", "raw"), ("rans", "huffman"), ("huffman", "rans"), ("raw", "zstd")] {
        let symbols = Component::Stream(vec![codes.to_owned(), "raw".to_owned()]);
        let of_scales = affine(
            r#"{"bits":3,"form":"bias","group":[3,16],"scale":"F32","arithmetic":"F32"}"#,
            codes,
            &[("scales", plain(numbers)), ("biases", plain(numbers))],
        );
        let of_biases = affine(
            r#"{"bits":5,"form":"zero_point","group":[16,1],"scale":"F16","arithmetic":"F16"}"#,
            codes,
            &[("scales", plain(numbers)), ("zero_points", symbols)],
        );
        let encoding = affine(
            r#"{"bits":3,"form":"bias","group":[1,16],"scale":"BF16","arithmetic":"F32"}"#,
            codes,
            &[("scales", Component::Encoded(of_scales)), ("biases", Component::Encoded(of_biases))],
        );
        for (what, encoding) in [("affine numbers", encoding), ("two levels", two_levels(codes))] {
            let mut source = Source::new();
            for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
                source = source.tensor(dtype.name(), dtype.name(), &[61, 333], weights(dtype, 5, 61 * 333));
            }
            let storage =
                |_: &cmz_codec::safetensors::Entry| Storage { encoding: encoding.clone(), block_elements: 15 * 333 };
            let file = write_at(Level::Fast, &source.build(), storage).expect("a sound file");
            files.push((format!("{what} over {codes} and {numbers}"), file));
        }
    }
    files
}

/// Affine elements whose scales and biases are of every sign and exponent, not numbers among them.
pub(crate) fn special_numbers() -> Vec<File> {
    let mut files = Vec::new();
    let forms = [
        ("symmetric", &["scales"][..]),
        ("zero_point", &["scales"]),
        ("zero", &["scales", "zeros"]),
        ("bias", &["scales", "biases"]),
    ];
    for ((form, others), arithmetic) in forms.into_iter().flat_map(|form| ["F32", "F16"].map(|a| (form, a))) {
        for kind in ["F16", "BF16", "F32"] {
            let zeros = ("zero_points", Component::Stream(vec!["bitpack".to_owned()]));
            let mut components: Vec<_> = others.iter().map(|&name| (name, plain("raw"))).collect();
            components.extend((form == "zero_point").then_some(zeros));
            let params =
                format!(r#"{{"bits":4,"form":"{form}","group":[1,8],"scale":"{kind}","arithmetic":"{arithmetic}"}}"#);
            let encoding = affine(&params, "bitpack", &components);
            for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
                let elements = 1 << 19;
                let source = Source::new().tensor(
                    "w",
                    dtype.name(),
                    &[elements],
                    vec![0; dtype.byte_len(elements).unwrap() as usize],
                );
                let storage = |_: &cmz_codec::safetensors::Entry| Storage {
                    encoding: encoding.clone(),
                    block_elements: elements,
                };
                let file = write_at(Level::Fast, &source.build(), storage).expect("a sound file");
                let mut raw = RawFile::parse(&file);
                let block = raw.blocks.iter_mut().find(|block| block.header[4] == 4).expect("a data block");
                for (number, (_, stream)) in block.streams.iter_mut().enumerate() {
                    // Codes and zero points are noise; of the numbers each has another order.
                    let mut rng = Rng::new(number as u64);
                    let step = [1, 1, 7919][number];
                    let numbers = number >= 1 && stream.len() >= 1 << 17;
                    match (numbers, kind) {
                        (false, _) => *stream = rng.bytes(stream.len()),
                        (true, "F32") => stream.as_chunks_mut().0.iter_mut().enumerate().for_each(|(i, number)| {
                            let pattern = (i * step % (1 << 16)) as u32;
                            *number = (pattern << 16 | (pattern * 40_503) & 0xffff).to_le_bytes();
                        }),
                        (true, _) => stream.as_chunks_mut().0.iter_mut().enumerate().for_each(|(i, number)| {
                            *number = ((i * step) as u16).to_le_bytes();
                        }),
                    }
                }
                files.push((format!("{dtype}, {form}, scales of {kind}, steps of {arithmetic}"), raw.build()));
            }
        }
    }
    files
}

/// Files of one block whose streams have been changed, with all checksums right.
pub(crate) fn damaged() -> Vec<File> {
    let mut files = Vec::new();
    let mut rng = Rng::new(11);
    for (dtype, encoding, codec) in [
        (Dtype::BF16, "float_planes", "tiered"),
        (Dtype::F16, "float_planes", "tiered"),
        (Dtype::BF16, "float_planes", "huffman"),
        (Dtype::F8_E4M3, "float_planes", "huffman"),
        (Dtype::BF16, "float_joint", "rans"),
        (Dtype::F32, "float_planes", "rans"),
        (Dtype::F16, "float_planes", "bitpack"),
        (Dtype::BF16, "ternary", "tunstall"),
        (Dtype::F32, "ternary", "dictionary"),
        (Dtype::F16, "ternary", "trits"),
        (Dtype::BF16, "ternary", "bitpack"),
        (Dtype::F16, "ternary", "rans"),
    ] {
        let elements = if (encoding, codec) == ("ternary", "rans") { 90_001 } else { 17_000 };
        let bytes =
            if encoding == "ternary" { ternary_weights(dtype, 3, elements, 30) } else { weights(dtype, 3, elements) };
        let source = Source::new().tensor("w", dtype.name(), &[elements as u64], bytes).build();
        let storage = |entry: &cmz_codec::safetensors::Entry| Storage::new(encoding, &entry.dtype, &[codec], 1 << 16);
        let file = write_at(Level::Fast, &source, storage).expect("a sound file");
        for number in 0..24 {
            let mut raw = RawFile::parse(&file);
            let block = raw.blocks.iter_mut().find(|block| block.header[4] == 4).expect("a data block");
            let stream = &mut block.streams[number % 8 / 6].1;
            // Most changes somewhere, some in the tables in front.
            let reach = if number % 3 == 0 { stream.len().min(200) } else { stream.len() };
            for _ in 0..1 + number % 4 {
                let at = rng.below(reach);
                stream[at] ^= 1 << rng.below(8);
            }
            files.push((format!("{dtype} by {encoding} over {codec}, damage {number}"), raw.build()));
        }
    }
    files.push(("a packed letter with symbols behind the end".to_owned(), letter_behind_the_end()));
    files
}

/// A block of symbols with the stream of one more symbol, which is not 0.
fn letter_behind_the_end() -> Vec<u8> {
    let [wanted, other] = [90_001, 90_002].map(|elements: usize| {
        let mut bytes = ternary_weights(Dtype::BF16, 3, elements, 30);
        bytes.splice(2 * elements - 2.., 1.5f32.to_bits().to_le_bytes()[2..].iter().copied());
        let source = Source::new().tensor("w", "BF16", &[elements as u64], bytes).build();
        let storage = |entry: &cmz_codec::safetensors::Entry| Storage::of(&BY_ROW, &entry.dtype, &["rans"], 1 << 17);
        RawFile::parse(&write_at(Level::Fast, &source, storage).expect("a sound file"))
    });
    let mut file = wanted;
    let of = |file: &RawFile| file.blocks.iter().position(|block| block.header[4] == 4).expect("a data block");
    let (to, from) = (of(&file), of(&other));
    assert!(is_packed(&other.blocks[from].streams[0]));
    file.blocks[to].streams[0] = other.blocks[from].streams[0].clone();
    file.build()
}

/// A file whose block decodes to bytes with another checksum than its header says.
pub(crate) fn wrong_decoded_checksum() -> Vec<u8> {
    let source = Source::new().tensor("w", "BF16", &[5000], weights(Dtype::BF16, 3, 5000)).build();
    let storage =
        |entry: &cmz_codec::safetensors::Entry| Storage::new("float_planes", &entry.dtype, &["tiered"], 1 << 16);
    let file = write_at(Level::Fast, &source, storage).expect("a sound file");
    let mut raw = RawFile::parse(&file);
    let block = raw.blocks.iter_mut().find(|block| block.header[4] == 4).expect("a data block");
    block.header[cmz_tests::raw_file::field::CRC_DECODED] ^= 1;
    raw.build()
}
