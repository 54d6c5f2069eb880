//! The golden files in the repository: they are what the generator writes, the good ones
//! restore their source, and each bad one raises its error where it should.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cmz_codec::io::IoMode;
use cmz_codec::{Archive, Code};
use cmz_tests::check::{open_against, open_bytes, open_file, read_everything, source_of, verify_code_against};
use cmz_tests::golden::{self, Found, Refused};
use cmz_tests::golden_dir;
use cmz_tests::raw_file::RawFile;

/// What opening, reading and verifying a file raise.
#[derive(Debug, PartialEq)]
struct Outcome {
    open: Option<Code>,
    read: Option<Code>,
    verify: Option<Code>,
}

fn path_of(name: &str) -> PathBuf {
    golden_dir().join(format!("{name}.cmz"))
}

/// The file that is given as a base.
fn bases(name: Option<&str>) -> Vec<Arc<Archive>> {
    name.map(|name| Arc::new(open_file(&path_of(name), IoMode::Pread).unwrap())).into_iter().collect()
}

fn outcome(case: &Refused, io: IoMode) -> Outcome {
    let (path, bases) = (path_of(&case.name), bases(case.base));
    let (open, read) = match open_against(&path, &bases, io) {
        Err(e) => (Some(e.code()), Some(e.code())),
        Ok(archive) => (None, read_everything(&archive).err().map(|e| e.code())),
    };
    Outcome { open, read, verify: verify_code_against(&path, &bases, io) }
}

fn expected(found: Found) -> Outcome {
    let code = Some(found.code());
    match found {
        Found::Open(_) => Outcome { open: code, read: code, verify: code },
        Found::Read(_) => Outcome { open: None, read: code, verify: code },
        Found::Verify(_) => Outcome { open: None, read: None, verify: code },
    }
}

fn check_refused(cases: &[Refused]) {
    let mut wrong = Vec::new();
    for case in cases {
        for io in [IoMode::Pread, IoMode::Mmap] {
            let found = outcome(case, io);
            if found != expected(case.found) {
                wrong.push(format!("{} ({io:?}): {found:?}, expected {:?}", case.name, case.found));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_what_the_generator_writes() {
    let files = golden::files();
    let names: HashSet<_> = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), files.len(), "every file has a name of its own");
    let mut wrong = Vec::new();
    for (name, bytes) in &files {
        match fs::read(golden_dir().join(name)) {
            Ok(found) if found == *bytes => {}
            Ok(_) => wrong.push(format!("{name} is not what the generator writes")),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name) {
            wrong.push(format!("{name} is in no table"));
        }
    }
    let help = "if this change is meant, run `cargo run -p cmz-tests --bin make-golden`";
    assert!(wrong.is_empty(), "{}\n{help}", wrong.join("\n"));
    assert!(files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < 2_000_000);
}

#[test]
fn good_files_restore_their_source() {
    let cases = golden::good();
    assert!(cases.len() >= 20);
    for case in cases {
        let (path, bases) = (path_of(&case.name), bases(case.base));
        for io in [IoMode::Pread, IoMode::Mmap] {
            assert_eq!(verify_code_against(&path, &bases, io), None, "{}", case.name);
            let archive = open_against(&path, &bases, io).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            check_good(case, &archive);
        }
    }
}

fn check_good(case: &golden::Good, archive: &Archive) {
    let header = cmz_codec::safetensors::Header::read(&case.source).unwrap();
    assert_eq!(header.metadata, archive.index().manifest().metadata, "{}", case.name);
    assert_eq!(header.tensors.len(), archive.tensors().len(), "{}", case.name);
    for entry in &header.tensors {
        let bytes = &case.source[entry.range.start as usize..entry.range.end as usize];
        assert!(archive.read(&entry.name).unwrap() == bytes, "{}: {}", case.name, entry.name);
        if let Some(slice) = archive.slice(&entry.name).unwrap() {
            assert!(slice == bytes, "{}: {}", case.name, entry.name);
        }
    }
    match archive.source() {
        Ok(_) => assert!(source_of(archive).unwrap() == case.source, "{}", case.name),
        Err(_) => assert_eq!(case.name, "good-no-source"),
    }
}

#[test]
fn a_page_aligned_run_is_on_a_page() {
    let archive = open_file(&golden_dir().join("good-run-page.cmz"), IoMode::Mmap).unwrap();
    let slice = archive.slice("raw").unwrap().expect("a raw tensor of a mapped file");
    assert_eq!(slice.as_ptr() as usize % 4096, 0);
}

#[test]
fn bad_files_raise_their_errors() {
    let cases = golden::bad();
    assert!(cases.len() >= 60);
    check_refused(cases);
}

#[test]
fn unsupported_files_raise_their_errors_and_lose_no_other_tensor() {
    let cases = golden::unsupported();
    check_refused(cases);
    for case in cases.iter().filter(|case| matches!(case.found, Found::Read(_))) {
        let archive = open_bytes(&case.bytes).unwrap();
        assert_eq!(archive.read("old").unwrap(), [1, 2, 3, 4], "{}", case.name);
    }
    assert!(cases.iter().all(|case| case.found.code().exit_status() == 4));
}

#[test]
fn every_code_about_cmz_data_has_a_bad_file() {
    let raised: HashSet<Code> = golden::bad().iter().map(|case| case.found.code()).collect();
    // What is wrong is not the file.
    let of_others = [Code::BadSource, Code::Different];
    let of_data = Code::ALL.iter().filter(|code| code.exit_status() == 3 && !of_others.contains(code));
    let missing: Vec<_> = of_data.filter(|code| !raised.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_layout_of_views_has_a_sample() {
    let archive = open_file(&path_of("good-views"), IoMode::Pread).unwrap();
    for entry in cmz_codec::registry::LAYOUTS {
        let name = entry.layout.name();
        assert!(archive.views().iter().any(|view| view.layout == name), "{name}");
    }
}

#[test]
fn errors_name_the_place() {
    let cases = golden::bad();
    let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let archive = open_bytes(&case("bad-payload-flip").bytes).unwrap();
    let error = archive.read("a").unwrap_err();
    assert_eq!((error.tensor(), error.block()), (Some("a"), Some(1)));
    assert!(error.offset().is_some_and(|offset| offset % 64 == 0));
    assert!(error.help().is_some());
}

/// The generator's own description of the layout agrees with the format crate's.
#[test]
fn files_taken_apart_and_put_together_are_the_same() {
    for case in golden::good() {
        assert!(RawFile::parse(&case.bytes).build() == case.bytes, "{}", case.name);
    }
}
