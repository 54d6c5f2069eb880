//! Any plan is written and read back, and pieces of any size parse alike.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use cmz_format::{BlockKind, Item, Limits, Parser, PlannedSegment, Result, Step, unpack_section};
use common::{any_plan, block_bytes, parse_all, planned, small_plan, tensor, verify, write_file};
use proptest::prelude::*;

fn check_round_trip(plan: &[PlannedSegment]) {
    let plan = plan.to_vec();
    let file = write_file(&plan);
    assert!(file == write_file(&plan), "not deterministic");
    let index = verify(&file).unwrap();
    let mut literals = 0;
    let mut tensors = index.tensors().iter().enumerate();
    for segment in &plan {
        let PlannedSegment::Tensor { tensor, byte_len, shared } = segment else {
            let PlannedSegment::Literal(len) = segment else { unreachable!() };
            literals += len;
            continue;
        };
        let (i, found) = tensors.next().unwrap();
        assert_eq!((found, index.find(&tensor.name), index.tensor_len(i)), (tensor, Some(i), *byte_len));
        let blocks = index.tensor_blocks(i);
        assert_eq!(blocks.shared.is_some(), *shared);
        assert_eq!(blocks.data.len() as u64, tensor.block_count(*byte_len));
        if tensor.is_contiguous() && *byte_len > 0 {
            let start = index.table()[blocks.data.start].payload_offset();
            assert!(start.is_multiple_of(if *byte_len >= 65536 { 4096 } else { 64 }));
            let whole = common::tensor_bytes(tensor, 0..*byte_len);
            assert!(file[start as usize..][..whole.len()] == whole, "not contiguous");
        }
        for (ordinal, record) in index.table()[blocks.data.clone()].iter().enumerate() {
            let range = record.payload_range();
            let payload = &file[range.start as usize..range.end as usize];
            let header = cmz_format::BlockHeader::parse(&file[record.offset as usize..], record.offset).unwrap();
            let decoded = header.split(payload).unwrap().concat();
            assert!(decoded == block_bytes(tensor, *byte_len, ordinal as u64));
        }
    }
    assert!(tensors.next().is_none());
    let found: u64 = index.literals().iter().map(|&i| u64::from(index.table()[i].decoded_len)).sum();
    assert_eq!(found, literals);
}

/// What a parser says of `file` when it gets it in the given pieces, as text.
fn parse_in_pieces(file: &[u8], mut piece: impl FnMut() -> usize) -> Vec<String> {
    let mut parser = Parser::new(Limits::default());
    let (mut start, mut end) = (0, 0);
    let mut said = Vec::new();
    loop {
        let step = parser.parse(&file[start..end], end == file.len());
        match step {
            Ok(Step::NeedMore(least)) => {
                assert!(least > end - start, "the parser has {} and wants {least}", end - start);
                end = (end + piece().max(1)).min(file.len());
            }
            Ok(Step::Parsed { consumed, item }) => {
                said.push(format!("{start}: {item:?}"));
                if matches!(item, Item::End) {
                    return said;
                }
                start += consumed;
                assert_eq!(parser.offset(), start as u64);
            }
            Err(e) => {
                said.push(format!("{:?} {e} {:?}", e.code(), e.help()));
                return said;
            }
        }
    }
}

#[test]
fn the_small_file_and_an_empty_one_round_trip() {
    check_round_trip(&small_plan());
    check_round_trip(&[]);
}

#[test]
fn large_runs_start_on_a_page() {
    let run = |name: &str, len| planned(tensor(name, "U8", &[len], 20_000, &[&["raw"]]), false);
    check_round_trip(&[run("a", 65_535), run("b", 65_536), PlannedSegment::Literal(1), run("c", 100_001)]);
    let one = planned(tensor("one", "U8", &[70_000], 70_000, &[&["raw"]]), false);
    check_round_trip(std::slice::from_ref(&one));
    check_round_trip(&[PlannedSegment::Literal(1 << 20), PlannedSegment::Literal((1 << 20) + 1), one]);
}

#[test]
fn literals_come_back_in_order() {
    let plan = vec![PlannedSegment::Literal(3 << 20), PlannedSegment::Literal(7)];
    let mut bytes = Vec::new();
    parse_all(&write_file(&plan), |item| -> Result<()> {
        if let Item::Payload { header, bytes: payload, .. } = item
            && header.kind == BlockKind::Literal
        {
            bytes.extend(unpack_section(header.streams[0].codec, payload, header.decoded_len)?);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(bytes.len(), (3 << 20) + 7);
}

#[test]
fn single_bytes_parse_like_the_whole_file() {
    let file = write_file(&small_plan());
    let whole = parse_in_pieces(&file, || usize::MAX / 2);
    assert!(whole.last().unwrap().ends_with("End"));
    assert_eq!(parse_in_pieces(&file, || 1), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_plan_round_trips(plan in any_plan()) {
        check_round_trip(&plan);
    }

    /// The law of the parser, on good, cut and damaged files.
    #[test]
    fn pieces_of_any_size_parse_alike(
        plan in any_plan(),
        sizes in prop::collection::vec(1usize..300, 1..20),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>(), any::<bool>())),
    ) {
        let mut file = write_file(&plan);
        if let Some((at, byte, cut)) = damage {
            let at = at.index(file.len());
            if cut { file.truncate(at) } else { file[at] = byte }
        }
        let whole = parse_in_pieces(&file, || usize::MAX / 2);
        let mut next = sizes.iter().cycle();
        prop_assert_eq!(parse_in_pieces(&file, || *next.next().unwrap()), whole);
    }

    #[test]
    fn git_lfs_pointers_and_other_text_parse_alike(text in "(version https://git-lfs|\u{0}CMZ|.){0,4}.{0,80}", size in 1usize..9) {
        let whole = parse_in_pieces(text.as_bytes(), || usize::MAX / 2);
        prop_assert_eq!(parse_in_pieces(text.as_bytes(), || size), whole);
    }
}
