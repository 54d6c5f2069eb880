//! The worked example of SPEC.md is a file, and it says what the text says.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cmz_format::{
    BlockKind, Component, EncodedBlock, Encoding, Header, Index, Item, PlannedSegment, Source, StreamEntry, Tensor,
    Writer, crc32, unpack_section,
};
use sha2::{Digest, Sha256};

const SAFETENSORS_HEADER: &str = concat!(
    r#"{"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"#,
    r#""b":{"dtype":"U8","shape":[5],"data_offsets":[8,13]}}"#,
    "    "
);
/// 1.0, −0.5, 3.140625, −0.0.
const A: [u8; 8] = [0x80, 0x3f, 0x00, 0xbf, 0x49, 0x40, 0x00, 0x80];
const B: [u8; 5] = [1, 2, 3, 4, 5];
const FINGERPRINT: [u8; 16] = *b"example of SPEC.";

/// The source: a safetensors file of two tensors.
fn source_file() -> Vec<u8> {
    let mut file = (SAFETENSORS_HEADER.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(SAFETENSORS_HEADER.as_bytes());
    file.extend_from_slice(&A);
    file.extend_from_slice(&B);
    file
}

fn tensor(name: &str, dtype: &str, shape: &[u64], block_elements: u64, encoding: Encoding) -> Tensor {
    Tensor { name: name.into(), dtype: dtype.into(), shape: shape.into(), block_elements, encoding }
}

fn tensors() -> [Tensor; 2] {
    let codecs = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
    let planes = [("exponent", codecs(&["raw", "tiered"])), ("sign_mantissa", codecs(&["raw"]))];
    [
        tensor("a", "BF16", &[2, 2], 4, Encoding::of_streams("float_planes", planes)),
        tensor("b", "U8", &[5], 3, Encoding::of_streams("plain", [("data", codecs(&["raw"]))])),
    ]
}

/// The example as this crate writes it.
fn written() -> Vec<u8> {
    let [a, b] = tensors();
    let source_bytes = source_file();
    let literal = &source_bytes[..source_bytes.len() - 13];
    let plan = vec![
        PlannedSegment::Literal(literal.len() as u64),
        PlannedSegment::Tensor { tensor: a, byte_len: 8, shared: false },
        PlannedSegment::Tensor { tensor: b, byte_len: 5, shared: false },
    ];
    let source = Source {
        kind: "safetensors".into(),
        len: source_bytes.len() as u64,
        sha256: hex(&Sha256::digest(&source_bytes)),
    };
    let header = Header { optional_features: 0, fingerprint: FINGERPRINT };
    let mut writer = Writer::new(Vec::new(), &header, plan).unwrap();
    writer.literal(literal).unwrap();
    writer.descriptor().unwrap();
    let mut planes = EncodedBlock { decoded_len: 8, crc_decoded: crc32(&A), ..Default::default() };
    planes.payload = A.chunks(2).map(|v| v[1] & 0x7f | v[0] & 0x80).collect();
    planes.payload.resize(16, 0);
    planes.payload.extend(A.chunks(2).map(|v| v[1] & 0x80 | v[0] & 0x7f));
    planes.crc_stored = crc32(&planes.payload);
    planes.streams.push(StreamEntry { codec: 0, len: 4 });
    planes.streams.push(StreamEntry { codec: 0, len: 4 });
    writer.data(&planes).unwrap();
    writer.descriptor().unwrap();
    writer.contiguous(&[crc32(&B[..3]), crc32(&B[3..])]).unwrap();
    writer.payload(&B[..3]).unwrap();
    writer.payload(&B[3..]).unwrap();
    writer.finish("example", Some(source), BTreeMap::from([("license".into(), "MIT".into())])).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

/// The bytes of all `hex` listings of the text, whose offsets must be right.
fn example() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut inside = false;
    for line in include_str!("../SPEC.md").lines() {
        if line.starts_with("```") {
            inside = line == "```hex";
        } else if inside {
            let (offset, digits) = line.split_once("  ").unwrap();
            assert_eq!(usize::from_str_radix(offset, 16).unwrap(), bytes.len(), "offset of the line {line}");
            bytes.extend(digits.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()));
        }
    }
    bytes
}

/// Decodes the streams of the two encodings that the example uses.
fn decode(tensor: &Tensor, streams: &[&[u8]]) -> Vec<u8> {
    match tensor.encoding.name.as_str() {
        "plain" => streams[0].to_vec(),
        "float_planes" => std::iter::zip(streams[0], streams[1])
            .flat_map(|(e, s)| [e & 0x80 | s & 0x7f, s & 0x80 | e & 0x7f])
            .collect(),
        other => panic!("{other}"),
    }
}

/// The literal bytes and each tensor's bytes.
fn contents(file: &[u8], index: &Index) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut source, mut tensors) = (Vec::new(), Vec::<Vec<u8>>::new());
    common::parse_all(file, |item| {
        let Item::Payload { header, bytes, .. } = item else { return Ok(()) };
        let streams = header.split(bytes)?;
        let decoded = match header.kind {
            BlockKind::Literal | BlockKind::Descriptor => {
                unpack_section(header.streams[0].codec, streams[0], header.decoded_len)?
            }
            BlockKind::Data => decode(&index.tensors()[tensors.len() - 1], &streams),
            _ => return Ok(()),
        };
        header.check_decoded(&decoded)?;
        match header.kind {
            BlockKind::Descriptor => tensors.push(Vec::new()),
            BlockKind::Literal => source.extend(decoded),
            _ => {
                source.extend(&decoded);
                tensors.last_mut().unwrap().extend(decoded);
            }
        }
        Ok(())
    })
    .unwrap();
    (source, tensors)
}

#[test]
fn the_example_decodes_to_what_the_text_says() {
    let file = example();
    let index = common::verify(&file).unwrap();
    assert_eq!(index.header().fingerprint, FINGERPRINT);
    assert_eq!(index.tensors(), &tensors());
    assert!(
        index.tensors().iter().all(|t| matches!(t.encoding.components.values().next(), Some(Component::Stream(_))))
    );
    assert_eq!(index.manifest().metadata["license"], "MIT");
    let (restored, tensors) = contents(&file, &index);
    assert_eq!(tensors, [A.to_vec(), B.to_vec()]);

    let source = index.manifest().source.as_ref().unwrap();
    assert_eq!(restored, source_file());
    assert_eq!(source.sha256, hex(&Sha256::digest(&restored)));
}

/// Not the bytes: another version of zstd may pack the JSON differently.
#[test]
fn the_writer_still_writes_the_example() {
    let (text, written) = (example(), written());
    let (a, b) = (common::open(&text).unwrap(), common::open(&written).unwrap());
    assert_eq!((a.header(), a.manifest()), (b.header(), b.manifest()));
    let decoded = |index: &Index| {
        index.table().iter().map(|r| (r.kind, r.streams, r.decoded_len, r.crc_decoded)).collect::<Vec<_>>()
    };
    assert_eq!(decoded(&a), decoded(&b));
}

/// Prints the listings for SPEC.md, one for each item.
#[test]
#[ignore = "run with --ignored --nocapture to print the listings"]
fn print_the_example() {
    let file = written();
    let mut at = 0;
    common::parse_all(&file, |item| {
        let (title, len) = match &item {
            Item::Header(_) => ("File header".to_owned(), 64),
            Item::Block { header, .. } => (format!("{header:?}"), header.header_len()),
            Item::Payload { header, bytes, .. } => {
                let mut title = format!("Payload of {:?} {}.", header.kind, header.ordinal);
                if header.streams.len() == 1 {
                    let text = unpack_section(header.streams[0].codec, bytes, header.decoded_len)?;
                    write!(title, " Decoded: `{}`", String::from_utf8_lossy(&text)).unwrap();
                }
                (title, bytes.len())
            }
            Item::Padding => ("Padding".to_owned(), 64 - at % 64),
            Item::Trailer(_) => ("Trailer".to_owned(), 64),
            Item::End => return Ok(()),
        };
        println!("{title}\n\n```hex");
        for (i, line) in file[at..at + len].chunks(16).enumerate() {
            let digits: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
            println!("{:06x}  {}", at + 16 * i, digits.join(" "));
        }
        println!("```\n");
        at += len;
        Ok(())
    })
    .unwrap();
}
