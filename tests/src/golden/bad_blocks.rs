//! Files with a block that breaks a rule or contradicts the index.

use cmz_codec::Code;
use serde_json::json;

use super::Found::{Open, Read, Verify};
use super::{Found, Refused};
use crate::cmz::{Storage, write};
use crate::inputs::{bf16_weights, f32_weights};
use crate::raw_file::{RawBlock, RawFile, field, put32};
use crate::source::Source;

/// The file that the bad ones are made from. Blocks: 0 the source's header, 1 descriptor
/// of `a`, 2 and 3 its data in two streams each, 4 descriptor of `b`, 5 and 6 its run,
/// 7 descriptor of the empty `c`, 8 descriptor of `h`, 9 its data in three streams,
/// 10 the source's trailing bytes.
pub(super) fn base() -> RawFile {
    let source = Source::new()
        .metadata("format", "pt")
        .tensor("a", "BF16", &[16, 8], bf16_weights(11, 128))
        .tensor("b", "F32", &[10], f32_weights(12, 10))
        .tensor("c", "I64", &[0], [])
        .tensor("h", "F16", &[40], bf16_weights(13, 40))
        .gap(b"trailing");
    let storage = |entry: &cmz_codec::safetensors::Entry| match entry.name.as_str() {
        "a" => Storage::new("float_planes", "BF16", &["tiered", "raw"], 64),
        "h" => Storage::new("float_planes", "F16", &["tiered", "raw"], 64),
        _ => Storage::raw(&entry.dtype, 8),
    };
    RawFile::parse(&write(&source.build(), storage).expect("a sound file"))
}

fn case(name: &str, about: &str, found: Found, change: impl FnOnce(&mut RawFile)) -> Refused {
    let mut file = base();
    change(&mut file);
    Refused::new(&format!("bad-{name}"), about, found, file.build())
}

/// A case that changes the built file and mends nothing.
fn damage(name: &str, about: &str, found: Found, change: impl FnOnce(&RawFile, &mut Vec<u8>)) -> Refused {
    let file = base();
    let mut bytes = file.build();
    change(&file, &mut bytes);
    Refused::new(&format!("bad-{name}"), about, found, bytes)
}

/// Where a data block's header begins: block headers of `a` are the only ones with two streams.
fn position(file: &[u8], kind: u8, n: usize) -> usize {
    let starts = (64..file.len()).step_by(64);
    let headers = starts.filter(|&at| &file[at..at + 4] == b"\xC5BLK" && file[at + field::KIND] == kind);
    headers.into_iter().nth(n).expect("such a block")
}

pub(super) fn cases() -> Vec<Refused> {
    let mut cases = headers();
    cases.extend(places());
    cases.extend(payloads());
    cases.extend(descriptors());
    cases.extend(literals());
    cases.extend(paddings());
    cases.extend(resolutions());
    cases
}

/// A case that changes bytes of the first data block's header; the record stays as it was.
fn header(name: &str, about: &str, code: Code, at: usize, bytes: &[u8]) -> Refused {
    case(name, about, Read(code), |f| f.data(0).header_patches.push((at, bytes.to_vec())))
}

fn headers() -> Vec<Refused> {
    vec![
        damage(
            "block-header-checksum",
            "A block header does not match its checksum.",
            Read(Code::Malformed),
            |_, bytes| {
                let at = position(bytes, 4, 0);
                bytes[at + 44] ^= 1;
            },
        ),
        header("block-magic", "There is no block header where the table says.", Code::Malformed, 0, b"BLK!"),
        header("block-kind", "A block header of an unknown kind.", Code::Malformed, field::KIND, &[7]),
        header(
            "block-other-kind",
            "A block header of another kind than the table says.",
            Code::Disagreement,
            field::KIND,
            &[3],
        ),
        header(
            "block-reserved",
            "A reserved byte of a block header is not zero.",
            Code::Padding,
            field::RESERVED,
            &[1],
        ),
        header("block-reserved-end", "A reserved byte behind the lengths is not zero.", Code::Padding, 40, &[1]),
        header(
            "block-entry-reserved",
            "A reserved byte of a stream entry is not zero.",
            Code::Padding,
            field::ENTRIES + 2,
            &[1],
        ),
        header("block-streams-33", "A block header with 33 streams.", Code::Malformed, field::STREAMS, &[33]),
        header("block-ordinal", "A block with the number of another one.", Code::Disagreement, field::ORDINAL, &[1]),
        header("block-owner", "A block of another tensor.", Code::Disagreement, field::OWNER, &[0, 0, 0, 0]),
        header(
            "block-distance",
            "Header and table put the payload at different places.",
            Code::Disagreement,
            field::DISTANCE,
            &[128],
        ),
        header(
            "block-decoded-len",
            "Header and table differ in the decoded length.",
            Code::Disagreement,
            field::DECODED_LEN,
            &[127],
        ),
        header(
            "block-crc-decoded",
            "Header and table differ in a checksum.",
            Code::Disagreement,
            field::CRC_DECODED,
            &[0, 1, 2, 3],
        ),
    ]
}

fn places() -> Vec<Refused> {
    vec![
        header(
            "block-stream-short",
            "The streams do not fill the payload.",
            Code::Malformed,
            field::ENTRIES + 4,
            &[1, 0],
        ),
        header(
            "block-stream-long",
            "The streams are longer than the payload.",
            Code::Malformed,
            field::ENTRIES + 4,
            &[255, 255],
        ),
        header(
            "block-stream-overflow",
            "The lengths of the streams overflow 32 bits.",
            Code::Malformed,
            field::ENTRIES + 4,
            &[255; 4],
        ),
        case("block-swapped", "Two blocks of one tensor in each other's place.", Read(Code::Disagreement), |f| {
            let ordinals = [f.data(1).header.clone(), f.data(0).header.clone()];
            let [second, first] = ordinals.map(|header| header[field::ORDINAL]);
            f.data(0).header[field::ORDINAL] = second;
            f.data(1).header[field::ORDINAL] = first;
        }),
    ]
}

fn payloads() -> Vec<Refused> {
    vec![
        damage("payload-flip", "A flipped bit of a compressed block.", Read(Code::StoredChecksum), |_, bytes| {
            let at = position(bytes, 4, 1);
            bytes[at + 64 + 9] ^= 0x20;
        }),
        damage("payload-flip-raw", "A flipped bit of a raw tensor.", Read(Code::StoredChecksum), |_, bytes| {
            let at = position(bytes, 4, 2);
            bytes[at + 128 + 9] ^= 0x20;
        }),
        damage("payload-zeros", "A payload that never reached the disk.", Read(Code::StoredChecksum), |_, bytes| {
            let at = position(bytes, 4, 0);
            bytes[at + 64..at + 128].fill(0);
        }),
        case(
            "payload-decoded-checksum",
            "A block decodes to other bytes than were encoded.",
            Verify(Code::DecodedChecksum),
            |f| {
                f.data(0).patch(field::CRC_DECODED, 0x1234_5678);
            },
        ),
        case(
            "payload-shared",
            "A block of shared components, of which the encoding has none.",
            Read(Code::Malformed),
            |f| {
                let mut shared =
                    RawBlock { header: f.blocks[1].header.clone(), run: usize::MAX, ..RawBlock::default() };
                shared.header[field::KIND] = 3;
                put32(&mut shared.header, field::DECODED_LEN, 0);
                put32(&mut shared.header, field::CRC_DECODED, 0);
                f.blocks.insert(2, shared);
            },
        ),
        case(
            "payload-stream-missing",
            "A block with one stream, its encoding needs two.",
            Read(Code::Malformed),
            |f| {
                let _ = f.data(0).streams.pop();
            },
        ),
        case(
            "payload-stream-more",
            "A block with three streams, its encoding needs two.",
            Read(Code::Malformed),
            |f| {
                f.data(0).streams.push((0, vec![0; 64]));
            },
        ),
        case("payload-no-stream", "A block without streams.", Read(Code::Malformed), |f| f.data(0).streams.clear()),
        case(
            "payload-undeclared",
            "A stream of a codec that the manifest does not name.",
            Read(Code::Malformed),
            |f| {
                f.data(0).streams[0] = (1, zstd::bulk::compress(&[1; 64], 3).expect("zstd compresses"));
            },
        ),
        case("payload-stream-padding", "The bytes between two streams are not zero.", Read(Code::Padding), |f| {
            let block = f.data(4);
            assert!(block.streams[..2].iter().any(|(_, stream)| stream.len() % 16 != 0), "there is a gap to fill");
            block.filler = 9;
        }),
        case(
            "payload-unit-mantissa",
            "A stream of symbols that is stored raw has bits above its width.",
            Read(Code::BadStream),
            |f| {
                let last = f.data(4);
                last.streams[0] = (0, vec![0xff; 40]);
            },
        ),
    ]
}

fn descriptors() -> Vec<Refused> {
    vec![
        case("descriptor-differs", "A tensor's descriptor and the manifest differ.", Verify(Code::Disagreement), |f| {
            f.edit_manifest(|m| m["tensors"][2]["dtype"] = json!("U64"));
        }),
        case("descriptor-owner", "A descriptor with another tensor's owner.", Verify(Code::Disagreement), |f| {
            let at = f.find(2, 2);
            put32(&mut f.blocks[at].header, field::OWNER, 1);
        }),
        case("descriptor-ordinal", "A descriptor with an ordinal.", Verify(Code::Malformed), |f| {
            let at = f.find(2, 2);
            put32(&mut f.blocks[at].header, field::ORDINAL, 1);
        }),
        case("descriptor-json", "A descriptor that is no JSON.", Verify(Code::Malformed), |f| {
            let at = f.find(2, 0);
            f.blocks[at].set_section(0, b"not JSON".to_vec(), b"not JSON");
        }),
        case("descriptor-no-stream", "A descriptor without a stream.", Open(Code::Malformed), |f| {
            let at = f.find(2, 0);
            f.blocks[at].streams.clear();
        }),
        case(
            "descriptor-checksum",
            "A descriptor does not match the checksum of its decoded bytes.",
            Verify(Code::DecodedChecksum),
            |f| {
                let at = f.find(2, 0);
                f.blocks[at].patch(field::CRC_DECODED, 1);
            },
        ),
        damage("descriptor-flip", "A flipped bit of a descriptor.", Verify(Code::StoredChecksum), |_, bytes| {
            let at = position(bytes, 2, 1);
            bytes[at + 70] ^= 1;
        }),
        damage("descriptor-zeros", "A descriptor that never reached the disk.", Verify(Code::Malformed), |_, bytes| {
            let at = position(bytes, 2, 2);
            bytes[at..at + 64].fill(0);
        }),
    ]
}

fn literals() -> Vec<Refused> {
    vec![
        damage("literal-flip", "A flipped bit of the source's header.", Read(Code::StoredChecksum), |_, bytes| {
            let at = position(bytes, 1, 0);
            bytes[at + 70] ^= 1;
        }),
        case(
            "literal-checksum",
            "A literal block does not match the checksum of its decoded bytes.",
            Read(Code::DecodedChecksum),
            |f| {
                f.blocks[0].patch(field::CRC_DECODED, 1);
            },
        ),
        case(
            "literal-ordinal",
            "The second literal block has the number of the first.",
            Read(Code::Disagreement),
            |f| {
                let at = f.find(1, 1);
                put32(&mut f.blocks[at].header, field::ORDINAL, 0);
            },
        ),
        case("literal-owner", "A literal block with an owner.", Read(Code::Disagreement), |f| {
            put32(&mut f.blocks[0].header, field::OWNER, 5);
        }),
        case("literal-codec", "A literal block of a codec for tensors.", Read(Code::UnknownCodec), |f| {
            f.blocks[0].streams[0].0 = 2;
        }),
        case("literal-bomb", "A literal block of a gigabyte in a few bytes.", Open(Code::Malformed), |f| {
            let packed = zstd::bulk::compress(&vec![0; 1 << 16], 19).expect("zstd compresses zeros");
            f.blocks[0].streams[0] = (1, packed);
            f.blocks[0].patch(field::DECODED_LEN, 1 << 30);
        }),
        case("literal-size", "A literal block that decodes to less than it says.", Read(Code::BadStream), |f| {
            let len = f.blocks[0].streams[0].1.len();
            let packed = zstd::bulk::compress(&vec![0; len - 1], 19).expect("zstd compresses zeros");
            f.blocks[0].streams[0] = (1, packed);
        }),
    ]
}

fn paddings() -> Vec<Refused> {
    vec![
        damage("padding-block", "The padding behind a block is not zero.", Verify(Code::Padding), |_, bytes| {
            let at = position(bytes, 2, 0);
            bytes[at - 1] = 1;
        }),
        damage("padding-run", "The padding behind a contiguous run is not zero.", Verify(Code::Padding), |_, bytes| {
            let at = position(bytes, 2, 2);
            bytes[at - 1] = 0x80;
        }),
        damage(
            "padding-manifest",
            "The padding before the manifest is not zero.",
            Verify(Code::Padding),
            |_, bytes| {
                let at = position(bytes, 5, 0);
                bytes[at - 1] = 1;
            },
        ),
    ]
}

fn resolutions() -> Vec<Refused> {
    let tensor = |name, about, change: fn(&mut serde_json::Value)| {
        case(name, about, Read(Code::Malformed), |f| f.edit_tensor(0, change))
    };
    vec![
        tensor("encoding-component-missing", "A component of the encoding is missing.", |t| {
            drop(t["encoding"]["components"].as_object_mut().expect("an object").remove("exponent"));
        }),
        tensor("encoding-component-other", "A component that the encoding does not have.", |t| {
            t["encoding"]["components"]["sign"] = json!(["raw"]);
        }),
        tensor("encoding-dtype", "An encoding of floats for integers.", |t| t["dtype"] = json!("I16")),
        case("codec-width", "A codec for bytes in the place of symbols of 5 bits.", Read(Code::Malformed), |f| {
            f.edit_tensor(3, |t| t["encoding"]["components"]["exponent"] = json!(["zstd", "raw"]));
            let stream = zstd::bulk::compress(&[0xff; 40], 3).expect("zstd compresses");
            f.data(4).streams[0] = (1, stream);
        }),
    ]
}
