//! Files whose index breaks a rule: manifest, block table, layout, source.

use cmz_codec::Code;
use serde_json::{Value, json};

use super::Found::{Open, Verify};
use super::Refused;
use super::bad_blocks::base;
use crate::raw_file::{RawFile, field, put32};

fn case(name: &str, about: &str, code: Code, change: impl FnOnce(&mut RawFile)) -> Refused {
    let mut file = base();
    change(&mut file);
    Refused::new(&format!("bad-{name}"), about, Open(code), file.build())
}

/// A case about the manifest's text.
fn text(name: &str, about: &str, change: impl FnOnce(String) -> String) -> Refused {
    case(name, about, Code::Malformed, |f| {
        let text = change(f.manifest_text());
        f.set_manifest(text);
    })
}

/// A case about the description of the first tensor, in manifest and descriptor alike.
fn tensor(name: &str, about: &str, change: impl FnOnce(&mut Value)) -> Refused {
    case(name, about, Code::Malformed, |f| f.edit_tensor(0, change))
}

pub(super) fn cases() -> Vec<Refused> {
    let mut cases = manifest_block();
    cases.extend(manifest_text());
    cases.extend(tensors());
    cases.extend(source());
    cases.extend(table_block());
    cases.extend(layout());
    cases
}

fn manifest_block() -> Vec<Refused> {
    let bomb = |f: &mut RawFile, len: usize| {
        let spaces = vec![b' '; len];
        let packed = zstd::bulk::compress(&spaces, 19).expect("zstd compresses spaces");
        f.manifest.set_section(1, packed, &spaces);
    };
    vec![
        case(
            "manifest-flip",
            "A flipped bit of the manifest with its checksums put right: the root digest shows it.",
            Code::Digest,
            |f| {
                f.trailer_patches.push((24, blake3::hash(b"what the writer wrote").as_bytes().to_vec()));
            },
        ),
        case(
            "manifest-checksum",
            "The manifest does not match the checksum of its stored bytes.",
            Code::StoredChecksum,
            |f| {
                f.manifest.header_patches.push((field::CRC_STORED, vec![1, 2, 3, 4]));
            },
        ),
        case(
            "manifest-decoded-checksum",
            "The manifest does not match the checksum of its decoded bytes.",
            Code::DecodedChecksum,
            |f| {
                f.manifest.header_patches.push((field::CRC_DECODED, vec![1, 2, 3, 4]));
            },
        ),
        case("manifest-header-checksum", "The manifest's block header is damaged.", Code::Malformed, |f| {
            f.index_patches.push((44, vec![0; 4]))
        }),
        case("manifest-magic", "There is no block where the manifest should be.", Code::Malformed, |f| {
            f.index_patches.push((0, vec![0; 4]))
        }),
        case("manifest-kind", "The manifest block is of another kind.", Code::Malformed, |f| {
            f.manifest.header[field::KIND] = 1
        }),
        case("manifest-owner", "The manifest block has an owner.", Code::Malformed, |f| {
            put32(&mut f.manifest.header, field::OWNER, 1)
        }),
        case("manifest-two-streams", "The manifest consists of two streams.", Code::Malformed, |f| {
            f.manifest.streams.push((0, b"{}".to_vec()))
        }),
        case("manifest-no-stream", "The manifest has no stream.", Code::Malformed, |f| f.manifest.streams.clear()),
        case("manifest-padding", "The padding behind the manifest is not zero.", Code::Padding, |f| {
            let mut text = f.manifest_text();
            text.extend(std::iter::repeat_n(' ', 64 - text.len() % 64 + 32));
            f.set_manifest(&text);
            f.index_patches.push((64 + text.len() + 5, vec![1]));
        }),
        case("manifest-codec", "The manifest is stored with a codec for tensors.", Code::UnknownCodec, |f| {
            f.manifest.streams[0].0 = 2
        }),
        case("manifest-bomb", "A manifest of 300 MB in a hundred bytes.", Code::Limit, |f| {
            bomb(f, 1 << 20);
            put32(&mut f.manifest.header, field::DECODED_LEN, 300 << 20);
        }),
        case("manifest-spaces", "A manifest of a megabyte of spaces.", Code::Malformed, |f| bomb(f, 1 << 20)),
        case("manifest-size-small", "The manifest decodes to more than its header says.", Code::BadStream, |f| {
            bomb(f, 1 << 20);
            put32(&mut f.manifest.header, field::DECODED_LEN, 1000);
        }),
        case("manifest-size-large", "The manifest decodes to less than its header says.", Code::BadStream, |f| {
            bomb(f, 1 << 16);
            put32(&mut f.manifest.header, field::DECODED_LEN, 200 << 20);
        }),
        case("manifest-size-raw", "A manifest stored as it is claims to decode to more.", Code::BadStream, |f| {
            put32(&mut f.manifest.header, field::DECODED_LEN, 200 << 20);
        }),
        case("manifest-zstd-cut", "The manifest's zstd frame is cut short.", Code::BadStream, |f| {
            bomb(f, 1 << 16);
            let _ = f.manifest.streams[0].1.pop();
        }),
    ]
}

fn manifest_text() -> Vec<Refused> {
    vec![
        text("manifest-empty", "An empty manifest.", |_| String::new()),
        text("manifest-cut", "The manifest's JSON stops in the middle.", |text| text[..text.len() / 2].to_owned()),
        text("manifest-two-values", "Something behind the manifest's JSON.", |text| text + "{}"),
        text("manifest-array", "The manifest is an array of the right values.", |_| r#"["g",null,{},[]]"#.to_owned()),
        text("manifest-no-tensors", "The manifest does not list the tensors.", |_| r#"{"generator":"x"}"#.to_owned()),
        text("manifest-key-twice", "A key of the manifest occurs twice.", |text| {
            text.replacen('{', r#"{"generator":"other","#, 1)
        }),
        text("manifest-metadata-key-twice", "A key of the metadata occurs twice.", |text| {
            text.replacen(r#""metadata":{"#, r#""metadata":{"format":"other","#, 1)
        }),
        text("manifest-component-twice", "A component of a tensor occurs twice.", |text| {
            text.replacen(r#""components":{"#, r#""components":{"exponent":["raw"],"#, 1)
        }),
        text("manifest-param-twice", "A parameter of an encoding occurs twice.", |text| {
            text.replacen(r#","components""#, r#","params":{"a":1,"a":2},"components""#, 1)
        }),
        text("manifest-metadata-number", "A value of the metadata is not text.", |text| {
            text.replacen(r#""pt""#, "7", 1)
        }),
        text("manifest-depth", "Arrays nested 100,000 deep.", |text| {
            let deep = "[".repeat(100_000) + &"]".repeat(100_000);
            text.replacen(r#","components""#, &format!(r#","params":{{"a":{deep}}},"components""#), 1)
        }),
        text("manifest-fraction", "A dimension that is not a whole number.", |text| {
            text.replacen(r#""shape":[16,8]"#, r#""shape":[16.5,8]"#, 1)
        }),
        text("manifest-negative", "A negative dimension.", |text| {
            text.replacen(r#""shape":[16,8]"#, r#""shape":[16,-8]"#, 1)
        }),
        case("manifest-not-utf8", "The manifest is not UTF-8.", Code::Malformed, |f| {
            let mut bytes = f.manifest_text().into_bytes();
            let at = bytes.iter().position(|&b| b == b'c').expect("a letter");
            bytes[at] = 0xff;
            f.set_manifest(bytes);
        }),
    ]
}

fn tensors() -> Vec<Refused> {
    vec![
        case("tensor-name-twice", "Two tensors have the same name.", Code::Malformed, |f| {
            f.edit_tensor(1, |t| t["name"] = json!("a"))
        }),
        case("tensor-name-long", "A name of 70,000 bytes.", Code::Limit, |f| {
            f.edit_tensor(0, |t| t["name"] = json!("x".repeat(70_000)))
        }),
        tensor("tensor-shape-overflow", "The product of the shape does not fit 64 bits.", |t| {
            t["shape"] = json!([1u64 << 33, 1u64 << 33])
        }),
        tensor("tensor-bytes-overflow", "The product of the shape fits 64 bits, its bytes do not.", |t| {
            t["shape"] = json!([1u64 << 62])
        }),
        tensor("tensor-shape-large", "The shape needs a terabyte, the blocks hold 256 bytes.", |t| {
            t["shape"] = json!([1u64 << 39])
        }),
        tensor("tensor-shape-small", "The shape needs less than the blocks hold.", |t| t["shape"] = json!([15, 8])),
        tensor("tensor-shape-zero", "The shape is empty, the blocks are not.", |t| t["shape"] = json!([0, 8])),
        tensor("tensor-rank", "65 dimensions.", |t| t["shape"] = json!(vec![1; 65])),
        tensor("tensor-dtype-width", "The element type is wider than the blocks hold.", |t| t["dtype"] = json!("F64")),
        tensor("tensor-odd-bits", "An odd number of 4-bit elements.", |t| {
            t["dtype"] = json!("F4");
            t["shape"] = json!([513]);
        }),
        tensor("tensor-block-zero", "Blocks of no elements.", |t| t["block_elements"] = json!(0)),
        tensor("tensor-block-large", "Blocks of more than 16 MiB.", |t| t["block_elements"] = json!((8 << 20) + 1)),
        tensor("tensor-block-overflow", "Blocks of more bits than 64 bits count.", |t| {
            t["block_elements"] = json!(u64::MAX)
        }),
        tensor("tensor-block-length", "Blocks of another length than the tensor's description says.", |t| {
            t["block_elements"] = json!(128)
        }),
        tensor("tensor-no-codec", "A component without any codec.", |t| {
            t["encoding"]["components"]["exponent"] = json!([])
        }),
        tensor("tensor-component-text", "A component that is neither a list nor an encoding.", |t| {
            t["encoding"]["components"]["exponent"] = json!("raw");
        }),
        tensor("tensor-streams", "33 component streams.", |t| {
            for i in 0..33 {
                t["encoding"]["components"][format!("c{i}")] = json!(["raw"]);
            }
        }),
        tensor("tensor-depth", "Encodings nested nine deep.", |t| {
            for _ in 0..8 {
                let inner = t["encoding"].clone();
                t["encoding"] = json!({"name": "plain", "components": {"data": inner}});
            }
        }),
        case("tensors-more", "The manifest names a tensor that has no blocks.", Code::Malformed, |f| {
            f.edit_manifest(|m| {
                let mut more = m["tensors"][2].clone();
                more["name"] = json!("more");
                m["tensors"].as_array_mut().expect("an array").push(more);
            });
        }),
        case("tensors-fewer", "The blocks of a tensor that the manifest does not name.", Code::Malformed, |f| {
            f.edit_manifest(|m| drop(m["tensors"].as_array_mut().expect("an array").pop()));
        }),
    ]
}

fn source() -> Vec<Refused> {
    let source = |name, about, change: fn(&mut Value)| {
        case(name, about, Code::Malformed, |f| f.edit_manifest(|m| change(&mut m["source"])))
    };
    let mut cases = vec![
        source("source-len", "The source's length is not that of its pieces.", |s| s["len"] = json!(1)),
        source("source-len-overflow", "A source longer than any file.", |s| s["len"] = json!(u64::MAX)),
        source("source-sha256-short", "A SHA-256 of 63 digits.", |s| s["sha256"] = json!("0".repeat(63))),
        source("source-sha256-upper", "A SHA-256 in capital letters.", |s| s["sha256"] = json!("A".repeat(64))),
        text("source-null", "The source is null instead of missing.", |text| {
            let mut value: Value = serde_json::from_str(&text).expect("JSON");
            value["source"] = Value::Null;
            value.to_string()
        }),
        case("source-missing", "Literal bytes of no source.", Code::Malformed, |f| {
            f.edit_manifest(|m| drop(m.as_object_mut().expect("an object").remove("source")));
        }),
    ];
    let mut wrong = base();
    wrong.edit_manifest(|m| m["source"]["sha256"] = json!("0".repeat(64)));
    let about = "The SHA-256 is not that of the source.";
    cases.push(Refused::new("bad-source-sha256", about, Verify(Code::Digest), wrong.build()));
    cases
}

fn table_block() -> Vec<Refused> {
    let record = |name, about, block: usize, at: usize, bytes: &'static [u8]| {
        case(name, about, Code::Malformed, move |f| f.blocks[block].record_patches.push((at, bytes.to_vec())))
    };
    vec![
        case("table-checksum", "The block table does not match its checksum.", Code::StoredChecksum, |f| {
            f.table.header_patches.push((field::CRC_STORED, vec![1, 2, 3, 4]));
            f.table.header_patches.push((field::CRC_DECODED, vec![1, 2, 3, 4]));
        }),
        case("table-two-checksums", "Stored and decoded block table have different checksums.", Code::Malformed, |f| {
            f.table.header_patches.push((field::CRC_DECODED, vec![1, 2, 3, 4]));
        }),
        case("table-kind", "The table block is of another kind.", Code::Malformed, |f| f.table.header[field::KIND] = 5),
        case("table-codec", "The block table is compressed.", Code::Malformed, |f| f.table.streams[0].0 = 1),
        case("table-part", "The block table ends inside a record.", Code::Malformed, |f| f.more_records = vec![0; 20]),
        case("table-empty", "The block table is empty, the file is not.", Code::Malformed, |f| {
            f.blocks.iter_mut().for_each(|block| block.unlisted = true);
        }),
        case("table-missing", "A record is missing.", Code::Malformed, |f| f.blocks[2].unlisted = true),
        case("table-missing-last", "The last record is missing.", Code::Malformed, |f| {
            f.blocks.last_mut().expect("a block").unlisted = true;
        }),
        case("table-more", "A record of a block that does not exist.", Code::Malformed, |f| {
            let len = f.build().len() as u64;
            f.more_records = [&len.to_le_bytes()[..], &64u32.to_le_bytes(), &[0; 16], &[1, 1, 0, 0]].concat();
        }),
        record("table-kind-zero", "A block of kind 0.", 1, 28, &[0]),
        record("table-kind-unknown", "A block of kind 99.", 1, 28, &[99]),
        record("table-kind-manifest", "The block table lists a manifest.", 1, 28, &[5]),
        record("table-kind-table", "The block table lists a block table.", 1, 28, &[6]),
        record("table-kind-data", "Data before any description.", 1, 28, &[4]),
        record("table-kind-shared", "Shared components without a description.", 0, 28, &[3]),
        record("table-streams", "33 streams in a record.", 2, 29, &[33]),
        record("table-reserved", "A reserved byte of a record is not zero.", 2, 30, &[1]),
        record(
            "table-offset-overflow",
            "An offset at the end of 64 bits.",
            2,
            0,
            &[0xc0, 255, 255, 255, 255, 255, 255, 255],
        ),
        record("table-offset-outside", "An offset behind the end of the file.", 2, 0, &[0, 0, 0, 0, 1]),
        record("table-offset-overlap", "A block that overlaps the one before it.", 2, 0, &[0x40, 0]),
        record("table-offset-unaligned", "An offset that is no multiple of 64.", 1, 0, &[0x81]),
        record("table-distance-short", "A payload inside its header.", 2, 8, &[0, 0]),
        record("table-distance-long", "A payload far behind its header.", 2, 8, &[0, 0, 1]),
        record("table-stored-len", "A payload of 4 GiB.", 2, 12, &[255, 255, 255, 255]),
        record("table-decoded-len", "A block that decodes to 4 GiB.", 2, 16, &[255, 255, 255, 255]),
        record("table-literal-len", "A literal block that decodes to 1 GiB.", 0, 16, &[0, 0, 0, 0x40]),
    ]
}

fn layout() -> Vec<Refused> {
    vec![
        case("layout-gap", "64 zeros between two blocks.", Code::Malformed, |f| f.blocks[2].gap = vec![0; 64]),
        case("layout-hidden", "Bytes between two blocks that no block owns.", Code::Malformed, |f| {
            f.blocks[2].gap = vec![b'x'; 64]
        }),
        case("layout-gap-manifest", "64 zeros before the manifest.", Code::Malformed, |f| f.gap = vec![0; 64]),
        case(
            "layout-hidden-block",
            "A sound block before the manifest that the table does not list.",
            Code::Malformed,
            |f| {
                let mut hidden = f.blocks[0].clone();
                (hidden.unlisted, hidden.run) = (true, 1000);
                f.blocks.push(hidden);
            },
        ),
        case("layout-swapped", "Two descriptors stand in another order than the tensors.", Code::Malformed, |f| {
            f.edit_manifest(|m| m["tensors"].as_array_mut().expect("an array").swap(0, 2));
        }),
        case(
            "layout-run-split",
            "A contiguous tensor whose payloads do not follow each other.",
            Code::Malformed,
            |f| {
                let at = f.find(2, 1);
                for (i, block) in f.blocks[at + 1..at + 3].iter_mut().enumerate() {
                    block.run = 1000 + i;
                }
            },
        ),
        case("layout-run-compressed", "A run of blocks of a tensor that is not contiguous.", Code::Malformed, |f| {
            f.edit_tensor(1, |t| t["encoding"]["components"]["data"] = json!(["zstd", "raw"]));
        }),
        case(
            "layout-run-unaligned",
            "A contiguous tensor of 64 KiB that does not start on a page.",
            Code::Malformed,
            |f| {
                let at = f.find(2, 1);
                f.blocks.remove(at + 2);
                let big = vec![7; 1 << 16];
                f.blocks[at + 1].set_section(0, big.clone(), &big);
                f.edit_tensor(1, |t| {
                    t["shape"] = json!([1 << 14]);
                    t["block_elements"] = json!(1 << 14);
                });
            },
        ),
        case("layout-run-kinds", "A literal block inside a contiguous run.", Code::Malformed, |f| {
            let at = f.find(2, 1);
            f.blocks[at + 2].header[field::KIND] = 1;
        }),
    ]
}
