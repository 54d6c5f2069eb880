//! A file cut anywhere is continued to the same bytes.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use cmz_format::{Code, Header, Plan, PlannedSegment, Writer};
use common::{HEADER, any_plan, drive, finish, parse_all, planned, small_plan, tensor, verify, write_file};
use proptest::prelude::*;

/// Continues `cut` as the plan says.
fn resume(cut: &[u8], plan: &Plan) -> Vec<u8> {
    let mut writer = if cut.len() < 64 {
        Writer::new(Vec::new(), &HEADER, plan.clone()).unwrap()
    } else {
        let mut writer = Writer::resume(cut.to_vec(), &HEADER, plan.clone()).unwrap();
        let end = parse_all(cut, |item| writer.replay(&item));
        assert!(end.map_err(|e| e.code()).is_err_and(|code| code == Code::Truncated));
        let len = writer.end_replay();
        assert!(len <= cut.len() as u64, "{len} of {}", cut.len());
        assert_eq!(writer.offset(), len);
        writer.sink_mut().truncate(len as usize);
        writer
    };
    drive(&mut writer, plan).unwrap();
    finish(writer, plan).unwrap()
}

#[test]
fn a_file_cut_at_any_byte_is_continued_to_the_same_bytes() {
    let plan = small_plan();
    let file = write_file(&plan);
    verify(&file).unwrap();
    for cut in 0..file.len() {
        assert!(resume(&file[..cut], &plan) == file, "cut at byte {cut}");
    }
}

#[test]
fn a_page_aligned_run_is_continued_to_the_same_bytes() {
    let plan = vec![planned(tensor("run", "U8", &[70_001], 30_000, &[&["raw"]]), false)];
    let file = write_file(&plan);
    verify(&file).unwrap();
    for cut in (0..file.len()).step_by(61) {
        assert!(resume(&file[..cut], &plan) == file, "cut at byte {cut}");
    }
}

#[test]
fn a_whole_file_is_finished_again() {
    let plan = small_plan();
    let file = write_file(&plan);
    let mut writer = Writer::resume(file.clone(), &HEADER, plan.clone()).unwrap();
    parse_all(&file, |item| writer.replay(&item)).unwrap();
    let len = writer.end_replay();
    writer.sink_mut().truncate(len as usize);
    assert!(finish(writer, &plan).unwrap() == file);
}

#[test]
fn blocks_of_another_plan_are_refused() {
    let file = write_file(&small_plan());
    let first_error = |header: &Header, plan: Plan| {
        let mut writer = Writer::resume(Vec::new(), header, plan).unwrap();
        parse_all(&file, |item| writer.replay(&item)).unwrap_err().code()
    };
    let other = Header { fingerprint: [9; 16], ..HEADER };
    assert_eq!(first_error(&other, small_plan()), Code::OtherPartial);
    for i in 0..small_plan().len() {
        let mut plan = small_plan();
        match &mut plan[i] {
            PlannedSegment::Literal(0) => continue,
            PlannedSegment::Literal(len) => *len += 1,
            PlannedSegment::Tensor { tensor, .. } => tensor.encoding.components.clear(),
        }
        assert_eq!(first_error(&HEADER, plan), Code::OtherPartial, "segment {i}");
        let shorter = small_plan()[..i].to_vec();
        assert_eq!(first_error(&HEADER, shorter), Code::OtherPartial, "{i} segments");
    }
    let mut longer = small_plan();
    longer.push(PlannedSegment::Literal(1));
    assert_eq!(first_error(&HEADER, longer), Code::OtherPartial);
}

proptest! {
    #[test]
    fn any_plan_is_continued_to_the_same_bytes(plan in any_plan(), at: prop::sample::Index) {
        let file = write_file(&plan);
        prop_assert!(resume(&file[..at.index(file.len())], &plan) == file);
    }
}
