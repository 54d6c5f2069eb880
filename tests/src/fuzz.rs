//! The bodies of the fuzz targets: no input may make any of them panic. They are here so
//! that they also run as an ordinary test, without a fuzzer.

use cmz_codec::encoding::{Array, Element, Encoding};
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::safetensors::Header;
use cmz_codec::stream::{Level, StreamCodec, Width};
use cmz_codec::{Archive, Code, ErrorKind, OpenOptions, Scratch};
use cmz_format::{Dtype, Item, Limits, Parser, Step};

use crate::check::source_of;
use crate::cmz::{Storage, write};
use crate::raw_file::fix_checksums;

mod imports;
mod seeds;

pub use imports::{join, qmoe_arrays, quantized, torch_file, views};
pub use seeds::seeds;

/// A fuzz target.
pub type Body = fn(&[u8]);

/// Every fuzz target with its name, which is that of its file in `fuzz/fuzz_targets`.
pub const TARGETS: &[(&str, Body)] = &[
    ("open", open),
    ("open_fixed", open_fixed),
    ("stream_decode", stream_decode),
    ("round_trip", round_trip),
    ("encodings", encodings),
    ("safetensors", safetensors),
    ("torch_file", torch_file),
    ("quantized", quantized),
    ("views", views),
    ("qmoe_arrays", qmoe_arrays),
];

/// Decoded bytes that a target reads at most, so that it stays fast.
const MOST: u64 = 32 << 20;
/// Symbols of one stream, at most.
const MOST_SYMBOLS: usize = 1 << 15;

/// Opens the input as a file, reads everything in it, and parses it front to back.
pub fn open(data: &[u8]) {
    parse_in_pieces(data);
    let limits = Limits { manifest_len: 1 << 22, ..Limits::default() };
    let options = OpenOptions { limits, ..OpenOptions::default() };
    let Ok(archive) = Archive::from_reader(Box::new(data.to_vec()), options) else { return };
    let total: u64 = archive.index().table().iter().map(|record| u64::from(record.decoded_len)).sum();
    if total > MOST {
        return;
    }
    for (i, tensor) in archive.tensors().iter().enumerate() {
        let whole = archive.read(&tensor.name);
        if let (Ok(whole), Ok(Some(slice))) = (&whole, archive.slice(&tensor.name)) {
            assert!(whole == slice, "a slice shows what a read gives");
        }
        if let (Ok(whole), Ok(rows)) = (&whole, archive.read_rows(&tensor.name, 0..1)) {
            assert!(whole.starts_with(&rows), "rows are part of the tensor");
        }
        assert_eq!(whole.is_ok(), archive.for_each_block([i], 1, |_| Ok(())).is_ok());
    }
    let _ = source_of(&archive);
}

/// Parses the input whole and in pieces of 100 bytes: the same items and the same error.
fn parse_in_pieces(data: &[u8]) {
    let whole = parse(data, data.len().max(1));
    if data.len() < 1 << 16 {
        assert_eq!(whole, parse(data, 100), "any chunking gives the same result");
    }
}

/// Number of items, and the code and offset of the error.
fn parse(data: &[u8], piece: usize) -> (usize, Option<(Code, Option<u64>)>) {
    let mut parser = Parser::new(Limits::default());
    let (mut start, mut end, mut items) = (0, 0, 0);
    loop {
        match parser.parse(&data[start..end], end == data.len()) {
            Ok(Step::Parsed { item: Item::End, .. }) => return (items, None),
            Ok(Step::Parsed { consumed, .. }) => {
                start += consumed;
                items += 1;
            }
            Ok(Step::NeedMore(_)) => {
                assert!(end < data.len(), "a parser at the end of its input asks for no more");
                end = (end + piece).min(data.len());
            }
            Err(e) => return (items, Some((e.code(), e.offset()))),
        }
    }
}

/// As [`open`], after every checksum and digest has been put right.
pub fn open_fixed(data: &[u8]) {
    let mut file = data.to_vec();
    fix_checksums(&mut file);
    open(&file);
}

/// Codec, width, number of symbols and the rest of an input.
fn codec_input(data: &[u8]) -> Option<(&'static dyn StreamCodec, Width, usize, &[u8])> {
    let [codec, width, low, high, rest @ ..] = data else { return None };
    let codec = STREAMS[usize::from(*codec) % STREAMS.len()].codec;
    let width = Width::new(width % 16 + 1);
    let len = usize::from(u16::from_le_bytes([*low, *high])) % MOST_SYMBOLS;
    codec.supports(width).then_some((codec, width, len, rest))
}

/// Decodes the input as a stream: the decoders agree whether it is one, and of what.
pub fn stream_decode(data: &[u8]) {
    let Some((codec, width, len, stream)) = codec_input(data) else { return };
    compare_decoders(codec, stream, width, len);
}

/// Decodes a stream in both ways and returns what it holds, if it is one.
pub fn compare_decoders(codec: &dyn StreamCodec, stream: &[u8], width: Width, len: usize) -> Option<Vec<u8>> {
    let mut fast = vec![0xAA; len * width.bytes()];
    let mut naive = vec![0x55; len * width.bytes()];
    let found = codec.decode(stream, width, &mut Scratch::new(), &mut fast);
    let expected = codec.decode_naive(stream, width, &mut naive);
    assert_eq!(found.is_ok(), expected.is_ok(), "{codec:?}, {width:?}, {len}: {found:?}, naive {expected:?}");
    if found.is_err() {
        return None;
    }
    assert!(fast == naive, "{codec:?}, {width:?}, {len}: the decoders differ");
    let spare = |symbol: &[u8]| symbol.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b)) >> width.bits() != 0;
    assert!(!fast.chunks(width.bytes()).any(spare), "{codec:?}, {width:?}: bits above the width");
    Some(fast)
}

/// Encodes the input's symbols and decodes them again.
pub fn round_trip(data: &[u8]) {
    let Some((codec, width, seed, rest)) = codec_input(data) else { return };
    let mask = (1u32 << width.bits()) - 1;
    let symbols: Vec<u8> = rest
        .chunks_exact(width.bytes())
        .take(MOST_SYMBOLS)
        .flat_map(|s| {
            let symbol = s.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b)) & mask;
            symbol.to_le_bytes()[..width.bytes()].to_vec()
        })
        .collect();
    let level = if seed % 2 == 0 { Level::Fast } else { Level::Max };
    let mut stream = vec![0xEE; 3];
    codec.encode(&symbols, width, level, &mut Scratch::new(), &mut stream);
    assert_eq!(stream[..3], [0xEE; 3], "an encoder appends");
    let decoded = compare_decoders(codec, &stream[3..], width, symbols.len() / width.bytes());
    assert!(decoded.is_some_and(|decoded| decoded == symbols), "{codec:?}, {width:?}: not what was encoded");
}

/// Takes the input apart by an encoding and joins it again, and reads it as an encoding's
/// parameters.
pub fn encodings(data: &[u8]) {
    let [entry, variant, dtype, rest @ ..] = data else { return };
    let entry = &ENCODINGS[usize::from(*entry) % ENCODINGS.len()];
    if let Ok(params) = serde_json::from_slice(rest)
        && let Ok(Some(encoding)) = entry.encoding.with_params(&params)
    {
        assert_eq!(encoding.params(), params, "{encoding:?} states the parameters that it was made with");
    }
    let encoding = entry.variants[usize::from(*variant) % entry.variants.len()];
    let element = Element::Dtype(Dtype::ALL[usize::from(*dtype) % Dtype::ALL.len()]);
    let array = Array::new(element, rest.len(), usize::from(*variant));
    let Some(components) = encoding.components(array) else { return };
    join_anything(encoding, array, rest);
    let mut parts: Vec<Vec<u8>> = components.iter().map(|component| vec![0xA5; component.array.byte_len]).collect();
    encoding.split(array, rest, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let (mut joined, mut again) = (vec![0xAA; rest.len()], vec![0x55; rest.len()]);
    encoding.join(array, &slices, &mut joined).expect("sound components");
    encoding.join(array, &slices, &mut again).expect("sound components");
    assert!(joined == again, "{encoding:?}, {element:?}: not all is written");
    assert!(!encoding.is_exact() || joined == rest, "{encoding:?}, {element:?}: not what was taken apart");
}

/// Puts an array together from components that hold the input again and again, unless they are refused.
fn join_anything(encoding: &dyn Encoding, array: Array, data: &[u8]) {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for number in 0..encoding.components(array).map_or(0, |components| components.len()) {
        let before: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let Ok(component) = encoding.component_array(array, number, &before) else { return };
        let mask = match component.element {
            Element::Symbol(width) if width.bits() < 8 => u8::MAX >> (8 - width.bits()),
            _ => u8::MAX,
        };
        parts.push(data.iter().skip(number).cycle().take(component.byte_len).map(|byte| byte & mask).collect());
        // There is nothing to repeat.
        parts[number].resize(component.byte_len, 0);
    }
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let (mut joined, mut again) = (vec![0xAA; data.len()], vec![0x55; data.len()]);
    let results = [encoding.join(array, &slices, &mut joined), encoding.join(array, &slices, &mut again)];
    assert!(results[0] == results[1] && (results[0].is_err() || joined == again), "{encoding:?}: not all is written");
}

/// Parses the input as a safetensors file and, if it is one, converts it there and back.
pub fn safetensors(data: &[u8]) {
    let Ok(header) = Header::read(&data.to_vec()) else { return };
    let last = header.tensors.iter().map(|tensor| tensor.range.end).max().unwrap_or(header.len);
    assert!(last <= data.len() as u64, "tensors lie inside the file");
    let stored = write(data, |entry| match entry.range.start % 2 {
        0 => Storage::raw(&entry.dtype, 1 << 10),
        _ => Storage::new("plain", &entry.dtype, &["zstd", "raw"], 1 << 10),
    });
    match stored {
        Ok(file) => {
            let restored = crate::check::open_bytes(&file).and_then(|archive| source_of(&archive));
            assert!(restored.expect("a file just written") == data, "the source is restored");
        }
        // More dimensions or longer names than the format has.
        Err(e) => assert!(matches!(e.kind(), ErrorKind::InvalidArgument | ErrorKind::Refused), "{e}"),
    }
}
