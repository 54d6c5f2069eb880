//! Files that lie with sound checksums, and every error code that the container raises.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;

use cmz_format::{
    Code, EncodedBlock, Header, Limits, Parser, PlannedSegment, Result, Step, StreamList, Tensor, Writer, crc32,
    unpack_section,
};
use common::{HEADER, Parts, codes, open, open_with, parse_all, planned, small_plan, tensor, verify, write_file};
use proptest::prelude::*;

fn parts() -> Parts {
    Parts::of(&write_file(&small_plan()))
}

/// Code of the error from the end of the file.
fn code(parts: &Parts) -> Code {
    open(&parts.file()).expect_err("a file that must be refused").code()
}

fn code_of<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn parts_make_a_sound_file_again() {
    verify(&parts().file()).unwrap();
}

#[test]
fn lying_file_headers() {
    let with = |at, value: &[u8]| {
        let mut parts = parts();
        put(&mut parts.header, at, value);
        let found = codes(&parts.file());
        assert_eq!(found.0, found.1);
        found.0
    };
    assert_eq!(with(0, b"version https://git-lfs.github.com/spec/v1"), Some(Code::NotCmz));
    assert_eq!(with(4, b"\n"), Some(Code::NotCmz));
    assert_eq!(with(8, &[1]), Some(Code::Version));
    assert_eq!(with(10, &[2]), Some(Code::Version));
    assert_eq!(with(12, &[1]), Some(Code::Padding));
    assert_eq!(with(16, &[0x20]), Some(Code::Feature));
    assert_eq!(with(23, &[0x80]), Some(Code::Feature));
    assert_eq!(with(24, &[0xff; 8]), None, "optional features are ignored");
    assert_eq!(with(59, &[1]), Some(Code::Padding));
}

#[test]
fn lying_trailers() {
    let with = |at, value: &[u8]| {
        let mut file = write_file(&small_plan());
        let start = file.len() - 64;
        put(&mut file[start..], at, value);
        common::mend(&mut file[start..], 16);
        codes(&file)
    };
    assert_eq!(with(24, &[7; 32]), (Some(Code::Digest), Some(Code::Digest)));
    assert_eq!(with(20, &[1]), (Some(Code::Padding), Some(Code::Padding)));
    for offset in [0u64, 1, 63, 1 << 40, u64::MAX, u64::MAX - 63] {
        for at in [0, 8] {
            let (index, parser) = with(at, &offset.to_le_bytes());
            assert_eq!((index, parser), (Some(Code::Malformed), Some(Code::Malformed)), "{offset} at {at}");
        }
    }
    let (index, parser) = with(0, &64u64.to_le_bytes());
    assert_eq!((index, parser), (Some(Code::Digest), Some(Code::Disagreement)));
}

#[test]
fn lying_block_tables() {
    let with = |record: usize, at: usize, value: &[u8]| {
        let mut parts = parts();
        put(&mut parts.records[record], at, value);
        code(&parts)
    };
    for record in 0..parts().records.len() {
        for offset in [0u64, 64, 65, 1 << 32, 1 << 63, u64::MAX - 63, u64::MAX] {
            if (record, offset) != (0, 64) {
                assert_eq!(with(record, 0, &offset.to_le_bytes()), Code::Malformed, "record {record}, offset {offset}");
            }
        }
        for distance in [0u32, 63, 1 << 20, u32::MAX] {
            assert_eq!(with(record, 8, &distance.to_le_bytes()), Code::Malformed);
        }
        for len in [u32::MAX, (32 << 20) + 1, 5000] {
            assert_eq!(with(record, 12, &len.to_le_bytes()), Code::Malformed, "stored length");
        }
        assert_eq!(with(record, 16, &u32::MAX.to_le_bytes()), Code::Malformed, "decoded length");
        for kind in [0, 5, 6, 7, 255] {
            assert_eq!(with(record, 28, &[kind]), Code::Malformed);
        }
        assert_eq!(with(record, 29, &[33]), Code::Malformed, "streams");
        assert_eq!(with(record, 30, &[1]), Code::Malformed, "reserved");
        let mut fewer = parts();
        fewer.records.remove(record);
        assert_eq!(code(&fewer), Code::Malformed);
        let mut twice = parts();
        twice.records.insert(record, twice.records[record]);
        assert_eq!(code(&twice), Code::Malformed, "overlapping blocks");
    }
    let mut none = parts();
    none.records.clear();
    assert_eq!(code(&none), Code::Malformed);
}

/// A record that lies where only the file can tell is found by whoever reads the block.
#[test]
fn table_and_headers_that_disagree() {
    for record in 0..parts().records.len() {
        for at in [20, 24] {
            let mut parts = parts();
            // A contiguous block has equal checksums in either record.
            parts.records[record][at] ^= 1;
            let file = parts.file();
            if open(&file).is_ok() {
                assert_eq!(code_of(verify(&file)), Code::Disagreement);
            }
            assert_eq!(codes(&file).1, Some(Code::Disagreement));
        }
    }
}

#[test]
fn headers_that_lie_about_their_place() {
    let offsets: Vec<u64> = open(&parts().file()).unwrap().table().iter().map(|r| r.offset).collect();
    let index = open(&parts().file()).unwrap();
    for &offset in &offsets {
        let with = |at: usize, value: u8| {
            let file = parts().with_block(offset, |block| block[at] ^= value).file();
            codes(&file).1.expect("the parser sees it")
        };
        assert_eq!(with(4, 8), Code::Malformed, "kind");
        assert_eq!(with(6, 1), Code::Padding);
        assert_eq!(with(8, 1), Code::Malformed, "ordinal");
        assert_eq!(with(16, 0x40), Code::Malformed, "payload distance");
        assert_eq!(with(20, 1), Code::Malformed, "stored length");
        assert_eq!(with(27, 0x10), Code::Malformed, "decoded length");
        assert_eq!(with(36, 1), Code::Padding);
        assert_eq!(with(50, 1), Code::Padding);
        let crc = with(28, 1);
        assert!(crc == Code::StoredChecksum || crc == Code::Malformed, "{crc:?}");
        // The owner of a tensor without blocks is for the index to check.
        let file = parts().with_block(offset, |block| block[12] ^= 1).file();
        let owner = code_of(verify(&file));
        assert!(owner == Code::Malformed || owner == Code::Disagreement, "{owner:?}");
    }
    // The same through the index.
    let file = parts().file();
    for (i, &offset) in offsets.iter().enumerate() {
        let header = cmz_format::BlockHeader::parse(&file[offset as usize..], offset).unwrap();
        index.check_header(i, &header).unwrap();
        for wrong in [
            cmz_format::BlockHeader { owner: header.owner ^ 1, ..header },
            cmz_format::BlockHeader { ordinal: header.ordinal + 1, ..header },
            cmz_format::BlockHeader { crc_stored: header.crc_stored ^ 1, ..header },
        ] {
            assert_eq!(code_of(index.check_header(i, &wrong)), Code::Disagreement);
        }
    }
}

/// Both readers judge a layout alike: the same lie in header and record.
#[test]
fn both_readers_judge_a_layout_alike() {
    let table = open(&parts().file()).unwrap().table().to_vec();
    // Offset in the header, offset in the record, size.
    let fields = [(4, 28, 1), (16, 8, 4), (24, 16, 4)];
    for (i, record) in table.iter().enumerate() {
        for (in_header, in_record, size) in fields {
            for flip in (0..8 * size).map(|bit| 1u32 << bit) {
                let mut parts = parts().with_block(record.offset, |block| {
                    let field = &mut block[in_header..in_header + size];
                    std::iter::zip(field, flip.to_le_bytes()).for_each(|(b, f)| *b ^= f);
                });
                let field = &mut parts.records[i][in_record..in_record + size];
                std::iter::zip(field, flip.to_le_bytes()).for_each(|(b, f)| *b ^= f);
                let (index, parser) = codes(&parts.file());
                // The front sees no manifest, so the lengths that a shape implies are for the end to check.
                assert!(index.is_some() || parser.is_none(), "record {i}, field {in_record}, flip {flip:#x}");
                if in_record == 8 {
                    // The front may take a header of the run for the payload.
                    assert!(index == Some(Code::Malformed) && parser.is_some(), "{index:?}, {parser:?}");
                }
            }
        }
    }
}

/// A header of a run that reaches into the first payload, where the offset left is less than it.
#[test]
fn a_run_header_that_covers_its_payload() {
    let header = |ordinal: u32, distance: u32, streams: usize| {
        let mut list = StreamList::default();
        (0..streams).for_each(|_| list.push(cmz_format::StreamEntry { codec: 0, len: 0 }));
        let mut bytes = Vec::new();
        cmz_format::BlockHeader {
            kind: cmz_format::BlockKind::Data,
            ordinal,
            owner: crc32(b"run"),
            payload_distance: distance,
            stored_len: 0,
            decoded_len: 1,
            crc_stored: 0,
            crc_decoded: 0,
            streams: list,
        }
        .write(&mut bytes);
        bytes
    };
    let mut file = HEADER.to_bytes().to_vec();
    for tail in [vec![header(0, 128, 1), header(1, 64, 1)], vec![header(0, 128, 0), header(1, 128, 3)]] {
        file.truncate(64);
        let mut descriptor = parts().body[128..].to_vec();
        let end = descriptor.windows(4).skip(1).position(|w| w == cmz_format::BLOCK_MAGIC).unwrap() + 1;
        descriptor.truncate(end);
        let owner = crc32(b"run");
        put(&mut descriptor, 12, &owner.to_le_bytes());
        common::mend(&mut descriptor[..64], 44);
        file.extend(&descriptor);
        tail.iter().for_each(|bytes| file.extend(bytes));
        file.resize(file.len() + 256, 0);
        assert_eq!(codes(&file).1, Some(Code::Malformed));
    }
}

#[test]
fn payloads_and_padding_that_changed() {
    let sound = write_file(&small_plan());
    let index = open(&sound).unwrap();
    for record in index.table() {
        let mut file = sound.clone();
        file[record.payload_offset() as usize] ^= 1;
        assert_eq!(codes(&file), (None, Some(Code::StoredChecksum)));
        let end = record.payload_range().end as usize;
        if !end.is_multiple_of(64) && file[end..end + 4] != cmz_format::BLOCK_MAGIC && file[end] == 0 {
            let mut file = sound.clone();
            file[end.next_multiple_of(64) - 1] ^= 1;
            let found = codes(&file).1.unwrap();
            assert!(matches!(found, Code::Padding | Code::StoredChecksum), "{found:?}");
        }
        let start = record.offset as usize;
        let header = cmz_format::BlockHeader::parse(&sound[start..], record.offset).unwrap();
        assert_eq!(code_of(header.check_decoded(b"other bytes")), Code::DecodedChecksum);
    }
}

#[test]
fn manifests_that_break_a_rule() {
    let with = |from: &str, to: &str| code(&parts().with_json(from, to));
    let deep = |n| {
        format!(
            "\"name\":\"parts\",\"components\":{{{}{}",
            "\"x\":{\"name\":\"y\",\"components\":{".repeat(n),
            "}}".repeat(n) + "},\"ignored\":{"
        )
    };
    let cases: Vec<(&str, String)> = vec![
        ("\"name\":\"scalar\"", "\"name\":\"weight\"".into()),
        ("\"name\":\"scalar\"", "\"name\":7".into()),
        ("\"name\":\"scalar\"", "\"name\":\"\\ud800\"".into()),
        ("\"name\":\"scalar\"", "\"name\":\"a\",\"name\":\"scalar\"".into()),
        ("\"shape\":[3,40]", "\"shape\":[3,41]".into()),
        ("\"shape\":[3,40]", "\"shape\":[3,-40]".into()),
        ("\"shape\":[3,40]", "\"shape\":[120.0]".into()),
        ("\"shape\":[3,40]", "\"shape\":[9223372036854775808]".into()),
        ("\"shape\":[3,40]", "\"shape\":[4611686018427387904,3]".into()),
        ("\"shape\":[3,40]", "\"shape\":[4294967296,4294967296]".into()),
        ("\"shape\":[3,40]", "\"shape\":[18446744073709551616]".into()),
        ("\"shape\":[3,40]", format!("\"shape\":[3,40{}]", ",1".repeat(63))),
        ("\"dtype\":\"BF16\"", "\"dtype\":\"F4\"".into()),
        ("\"block_elements\":48", "\"block_elements\":0".into()),
        ("\"block_elements\":48", "\"block_elements\":47".into()),
        ("\"block_elements\":48", "\"block_elements\":18446744073709551615".into()),
        ("\"name\":\"parts\",\"components\":{", deep(8)),
        ("[\"raw\",\"tiered\"]", "[]".into()),
        ("[\"raw\",\"tiered\"]", "7".into()),
        ("\"part_0\":", "\"part_1\":[\"raw\"],\"part_0\":".into()),
        ("\"name\":\"parts\"", "\"name\":\"parts\",\"params\":{\"a\":1,\"a\":1}".into()),
        ("\"name\":\"parts\"", "\"name\":\"parts\",\"params\":{\"a\":[{\"b\":1,\"b\":2}]}".into()),
        (
            "\"name\":\"parts\"",
            format!("\"name\":\"parts\",\"params\":{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
        ),
        ("\"metadata\":{", "\"metadata\":{\"key\":\"1\",".into()),
        ("\"metadata\":{", "\"metadata\":{},\"metadata\":{".into()),
        ("\"len\":", "\"len\":1".into()),
        ("\"sha256\":\"0", "\"sha256\":\"".into()),
        ("\"sha256\":\"0", "\"sha256\":\"A".into()),
        ("\"len\":745", "\"len\":744".into()),
        ("\"len\":745", "\"len\":18446744073709551615".into()),
        ("\"len\":745", "\"len\":-1".into()),
        ("\"source\":", "\"sauce\":".into()),
        ("\"source\":{", "\"source\":null,\"x\":{".into()),
        ("{\"generator\":", "[{\"generator\":".into()),
        ("{\"generator\":\"", "{\"generator\":\"\u{1b}[31m".into()),
    ];
    for (from, to) in cases {
        assert_eq!(with(from, &to), Code::Malformed, "{from} became {to}");
    }
    let leaves: String = (0..31).map(|i| format!("\"more_{i}\":[\"raw\"],")).collect();
    assert_eq!(with("\"part_0\":", &(leaves + "\"part_0\":")), Code::Malformed);
}

/// Derived parsers take arrays for objects; the format does not.
#[test]
fn arrays_are_not_objects() {
    let mut whole = parts();
    whole.json = br#"["test",null,{},[]]"#.to_vec();
    assert_eq!(code(&whole), Code::Malformed);
    let parse = |json: &str| Tensor::parse(json.as_bytes(), &Limits::default()).map_err(|e| e.code());
    let encoding = r#"{"name":"plain","components":{"data":["raw"]}}"#;
    assert!(
        parse(&format!(r#"{{"name":"a","dtype":"U8","shape":[1],"block_elements":1,"encoding":{encoding}}}"#)).is_ok()
    );
    assert_eq!(parse(&format!(r#"["a","U8",[1],1,{encoding}]"#)), Err(Code::Malformed));
    let nested = r#"["plain",{},{"data":["raw"]}]"#;
    let json = format!(r#"{{"name":"a","dtype":"U8","shape":[1],"block_elements":1,"encoding":{nested}}}"#);
    assert_eq!(parse(&json), Err(Code::Malformed));
}

#[test]
fn messages_do_not_carry_control_characters() {
    let json = "{\"generator\":\"\",\"tensors\":[],\"source\":{\"kind\":\"\",\"len\":0,\"sha256\":\"\",\"sha256\":\"\\u001b[2J\\u202e\"}}";
    let error = cmz_format::Manifest::parse(json.as_bytes(), &Limits::default()).unwrap_err();
    assert!(!error.to_string().chars().any(|c| c.is_control() || c == '\u{202e}'), "{error:?}");
}

#[test]
fn what_a_newer_version_adds_is_ignored_or_refused_tensor_by_tensor() {
    let parts = parts()
        .with_json("{\"generator\":", "{\"new\":[{}],\"generator\":")
        .with_json(
            "\"name\":\"parts\"",
            "\"name\":\"unheard_of\",\"params\":{\"a\":[1,-2,0.5,null,true,{\"b\":\"c\"}]}",
        )
        .with_json("\"dtype\":\"BF16\"", "\"dtype\":\"BF17\"")
        .with_json("[\"raw\",\"tiered\"]", "[\"telepathy\"]");
    let index = open(&parts.file()).unwrap();
    assert_eq!(index.tensors()[0].known_dtype(), None);
    assert_eq!(index.tensor_len(0), 240);
    let params = &index.tensors()[0].encoding.params;
    assert_eq!(params["a"], serde_json::json!([1, -2, 0.5, null, true, { "b": "c" }]));
    // The descriptors still say otherwise.
    assert_eq!(code_of(verify(&parts.file())), Code::Disagreement);
}

#[test]
fn tensors_that_must_or_must_not_be_contiguous() {
    let run = "\"block_elements\":100,\"encoding\":{\"name\":\"plain\"";
    assert_eq!(code(&parts().with_json(run, &run.replace("plain", "odd"))), Code::Malformed);
    let mut other = parts().with_json("\"name\":\"parts\"", "\"name\":\"plain\"");
    other = other.with_json("{\"part_0\":[\"raw\",\"tiered\"],\"part_1\":[\"raw\"]}", "{\"data\":[\"raw\"]}");
    assert_eq!(code(&other), Code::Malformed);
}

#[test]
fn a_contiguous_block_of_another_codec() {
    let index = open(&parts().file()).unwrap();
    let mut refused = [0, 0];
    for record in index.table().iter().filter(|r| r.kind == cmz_format::BlockKind::Data && r.streams == 1) {
        let file = parts().with_block(record.offset, |block| block[48] = 2).file();
        assert_eq!(code_of(verify(&file)), Code::Malformed);
        refused[usize::from(record.is_adjacent())] += 1;
        assert_eq!(codes(&file), (None, (!record.is_adjacent()).then_some(Code::Malformed)));
    }
    assert!(refused[0] > 0 && refused[1] > 0, "{refused:?}");
}

#[test]
fn sections_that_do_not_decode() {
    let text = b"0123456789".repeat(100);
    let frame = zstd::bulk::compress(&text, 3).unwrap();
    let unpack = |codec, bytes: &[u8], len| unpack_section(codec, bytes, len).map_err(|e| e.code());
    assert_eq!(unpack(1, &frame, 1000).as_deref(), Ok(&text[..]));
    assert_eq!(unpack(0, &text, 1000).as_deref(), Ok(&text[..]));
    assert_eq!(unpack(2, &frame, 1000), Err(Code::UnknownCodec));
    for (codec, bytes, len) in [
        (0, text.clone(), 999),
        (1, frame.clone(), 999),
        (1, frame[..frame.len() - 1].to_vec(), 1000),
        (1, [&frame[..], b"x"].concat(), 1000),
        (1, [&frame[..], &frame[..]].concat(), 1000),
        (1, [&frame[..], &zstd::bulk::compress(b"", 3).unwrap()].concat(), 1000),
        (1, [&frame[..], b"\x50\x2a\x4d\x18\0\0\0\0"].concat(), 1000),
        (1, b"\x50\x2a\x4d\x18\0\0\0\0".to_vec(), 0),
        (1, b"".to_vec(), 0),
        // States 256 MiB in one segment.
        (1, b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x10\x01\x00\x00".to_vec(), 256 << 20),
    ] {
        assert_eq!(unpack(codec, &bytes, len), Err(Code::BadStream), "{codec} {len}");
    }
    let with = |pack: &dyn Fn(&[u8]) -> EncodedBlock| open(&parts().file_with(pack)).unwrap_err().code();
    assert_eq!(with(&|json| EncodedBlock::single(9, json.to_vec(), json)), Code::UnknownCodec);
    assert_eq!(with(&|json| EncodedBlock::single(1, json.to_vec(), json)), Code::BadStream);
    let wrong = |json: &[u8]| EncodedBlock { crc_decoded: 1, ..EncodedBlock::single(0, json.to_vec(), json) };
    assert_eq!(with(&wrong), Code::DecodedChecksum);
    let longer = |json: &[u8]| EncodedBlock { decoded_len: 5, ..EncodedBlock::single(0, json.to_vec(), json) };
    assert_eq!(with(&longer), Code::Malformed);
}

#[test]
fn limits_are_kept() {
    let file = write_file(&small_plan());
    let default = Limits::default();
    let sound = Limits { manifest_len: 4096, blocks: 64, tensors: 6, name_len: 10, literal_len: 108 };
    open_with(&file, &sound).unwrap();
    for limits in [
        Limits { manifest_len: 100, ..default },
        Limits { blocks: 3, ..default },
        Limits { tensors: 5, ..default },
        Limits { name_len: 9, ..default },
        Limits { literal_len: 107, ..default },
        Limits { manifest_len: 0, blocks: 0, ..default },
    ] {
        assert_eq!(code_of(open_with(&file, &limits)), Code::Limit, "{limits:?}");
        let mut parser = Parser::new(limits);
        let mut at = 0;
        let end = loop {
            match parser.parse(&file[at..], true) {
                Ok(Step::Parsed { consumed: 0, item: cmz_format::Item::End }) => break None,
                Ok(Step::Parsed { consumed, .. }) => at += consumed,
                Ok(Step::NeedMore(_)) => unreachable!("all is there"),
                Err(e) => break Some(e.code()),
            }
        };
        // Names and tensors are in the manifest, which the parser does not read.
        let expected = (limits.tensors, limits.name_len) == (default.tensors, default.name_len);
        assert_eq!(end, expected.then_some(Code::Limit), "{limits:?}");
    }
}

#[test]
fn a_writer_refuses_plans_that_readers_would_refuse() {
    let good = || tensor("a", "BF16", &[4], 4, &[&["raw"]]);
    let refuse = |segments: Vec<PlannedSegment>| {
        assert_eq!(code_of(Writer::new(Vec::new(), &HEADER, segments)), Code::InvalidArgument);
    };
    refuse(vec![planned(good(), false), planned(good(), true)]);
    refuse(vec![PlannedSegment::Tensor { tensor: good(), byte_len: 9, shared: false }]);
    refuse(vec![PlannedSegment::Literal(u64::MAX)]);
    refuse(vec![PlannedSegment::Literal(1 << 30), PlannedSegment::Literal(1)]);
    for (dtype, block_elements) in
        [("BF16", 0), ("BF16", (8 << 20) + 1), ("BF16", u64::MAX), ("F4", 1), ("new", 1 << 25)]
    {
        let tensor = Tensor { dtype: dtype.into(), block_elements, ..good() };
        refuse(vec![PlannedSegment::Tensor { tensor, byte_len: 8, shared: false }]);
    }
    let many = Tensor { shape: vec![65_537], block_elements: 1, ..good() };
    refuse(vec![planned(many, false)]);
    let long = Tensor { shape: vec![1 << 31], block_elements: 1 << 20, ..good() };
    refuse(vec![planned(long.clone(), false)]);
    let mut two_codecs = long;
    two_codecs.encoding = tensor("a", "BF16", &[], 1, &[&["raw", "zstd"]]).encoding;
    Writer::new(Vec::new(), &HEADER, vec![planned(two_codecs, false)]).unwrap();
    let name = Tensor { name: "n".repeat(65_537), ..good() };
    refuse(vec![planned(name, false)]);
}

#[test]
fn a_writer_refuses_blocks_out_of_turn_and_an_early_end() {
    let plan = small_plan();
    let whole = write_file(&plan);
    let out_of_turn = |result: Result<()>| assert_eq!(code_of(result), Code::InvalidArgument);
    let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone()).unwrap();
    let block = EncodedBlock::single(0, vec![1; 7], &[1; 7]);
    out_of_turn(writer.descriptor());
    out_of_turn(writer.shared(&block));
    out_of_turn(writer.data(&block));
    out_of_turn(writer.contiguous(&[1]));
    out_of_turn(writer.payload(&[]));
    out_of_turn(writer.literal(&[0; 99]));
    writer.literal(&common::literal(100)).unwrap();
    out_of_turn(writer.literal(&[0; 5]));
    writer.descriptor().unwrap();
    out_of_turn(writer.descriptor());
    out_of_turn(writer.data(&block));
    // A payload that is not what the stream list says, or longer than any block.
    let data = EncodedBlock::single(0, vec![1; 96], &[1; 96]);
    out_of_turn(writer.data(&EncodedBlock { payload: vec![1; 95], ..data.clone() }));
    let mut gap = data.clone();
    gap.streams = StreamList::one(0, 1);
    gap.streams.push(cmz_format::StreamEntry { codec: 0, len: 80 });
    out_of_turn(writer.data(&gap));
    let huge = EncodedBlock { decoded_len: 96, ..EncodedBlock::single(0, vec![0; (32 << 20) + 1], &[]) };
    out_of_turn(writer.data(&huge));
    // Nothing of all that has reached the sink.
    common::drive(&mut writer, &plan).unwrap();
    assert!(common::finish(writer, &plan).unwrap() == whole);

    let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone()).unwrap();
    loop {
        let early = Writer::resume(Vec::new(), &HEADER, plan.clone()).unwrap();
        assert_eq!(code_of(common::finish(early, &plan)), Code::InvalidArgument);
        match writer.next() {
            cmz_format::Next::Literal(len) => writer.literal(&common::literal(len)).unwrap(),
            _ => break,
        }
    }
}

#[test]
fn a_contiguous_tensor_is_written_in_one_run() {
    let plan = vec![planned(tensor("run", "U8", &[200], 100, &[&["raw"]]), false)];
    let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone()).unwrap();
    writer.descriptor().unwrap();
    let block = EncodedBlock::single(0, vec![1; 100], &[1; 100]);
    assert_eq!(code_of(writer.data(&block)), Code::InvalidArgument);
    assert_eq!(code_of(writer.contiguous(&[1])), Code::InvalidArgument);
    let crc = crc32(&[1; 100]);
    writer.contiguous(&[crc, crc]).unwrap();
    assert_eq!(code_of(writer.payload(&[2; 100])), Code::SourceChanged);
    assert_eq!(code_of(writer.payload(&[1; 99])), Code::SourceChanged);
    writer.payload(&[1; 100]).unwrap();
    assert_eq!(code_of(writer.contiguous(&[crc, crc])), Code::InvalidArgument);
    writer.payload(&[1; 100]).unwrap();
    verify(&writer.finish("", Some(common::source(&plan)), BTreeMap::new()).unwrap()).unwrap();
}

#[test]
fn a_writer_refuses_a_source_that_does_not_add_up() {
    let plan = vec![PlannedSegment::Literal(10)];
    let finish = |source| {
        let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone()).unwrap();
        common::drive(&mut writer, &plan).unwrap();
        writer.finish("", source, BTreeMap::new()).map_err(|e| e.code())
    };
    let sound = common::source(&plan);
    assert!(finish(Some(sound.clone())).is_ok());
    assert_eq!(finish(None), Err(Code::InvalidArgument));
    for wrong in [cmz_format::Source { len: 11, ..sound.clone() }, cmz_format::Source { sha256: "x".into(), ..sound }] {
        assert_eq!(finish(Some(wrong)), Err(Code::InvalidArgument));
    }
}

/// A sink that takes so many bytes and then fails.
#[derive(Debug)]
struct Full(usize, io::ErrorKind);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(self.1.into());
        }
        let n = bytes.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        if self.0 == 0 { Err(self.1.into()) } else { Ok(()) }
    }
}

#[test]
fn errors_of_the_sink_come_through() {
    let plan = small_plan();
    let len = write_file(&plan).len();
    for (kind, expected) in [(io::ErrorKind::StorageFull, Code::NoSpace), (io::ErrorKind::Other, Code::Io)] {
        for room in (0..=len).step_by(61).chain([len]) {
            let write = || {
                let mut writer = Writer::new(Full(room, kind), &HEADER, plan.clone())?;
                common::drive(&mut writer, &plan)?;
                common::finish(writer, &plan)
            };
            assert_eq!(code_of(write()), expected, "room for {room} bytes");
        }
    }
}

#[test]
fn errors_of_the_reader_come_through() {
    let file = write_file(&small_plan());
    let fail = |at: u64| {
        let error = cmz_format::Index::read(file.len() as u64, &Limits::default(), |offset, buffer| {
            if offset >= at {
                return Err(cmz_format::Error::io("reading", io::ErrorKind::UnexpectedEof.into()));
            }
            buffer.copy_from_slice(&file[offset as usize..][..buffer.len()]);
            Ok(())
        });
        code_of(error)
    };
    assert_eq!(fail(0), Code::Truncated);
    assert_eq!(fail(1), Code::Truncated);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), whole_header: bool, trailer: bool) {
        let mut file = bytes;
        if whole_header {
            file.splice(0..0, Header { optional_features: 1, ..HEADER }.to_bytes());
        }
        if trailer {
            file.resize(file.len().next_multiple_of(64), 0);
            file.extend_from_slice(&[0; 64]);
            let end = file.len() - 64;
            let offset = (end as u64 / 2).next_multiple_of(64).to_le_bytes();
            put(&mut file[end..], 8, &offset);
            put(&mut file[end..], 0, &64u64.to_le_bytes());
            put(&mut file[end..], 56, &cmz_format::MAGIC);
            common::mend(&mut file[end..], 16);
        }
        let (index, parser) = codes(&file);
        prop_assert!(index.is_some() && parser.is_some());
    }

    /// Changes below the checksums: nothing panics, and both ways through the file agree on its layout.
    #[test]
    fn changes_with_mended_checksums_do_no_harm(
        changes in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut parts = parts();
        let offsets: Vec<usize> = parts.records.iter().map(|r| u64::from_le_bytes(r[..8].try_into().unwrap()) as usize).collect();
        for (place, which, at, byte) in changes {
            match place {
                0 => { let i = at.index(parts.json.len()); parts.json[i] = byte }
                1 => { let i = which.index(parts.records.len()); parts.records[i][at.index(32)] = byte }
                2 => { let i = at.index(parts.header.len()); parts.header[i] = byte }
                _ => parts = parts.with_block(offsets[which.index(offsets.len())] as u64, |block| {
                    let i = 6 + at.index(block.len() - 6);
                    block[i] = byte;
                }),
            }
        }
        let file = parts.file();
        let _ = codes(&file);
        let _ = verify(&file);
        let _ = parse_all(&file[..file.len() / 2], |_| Ok(()));
    }
}
