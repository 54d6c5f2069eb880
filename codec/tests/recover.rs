//! Saving what is whole of cut and damaged files.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};

use cmz_codec::Archive;
use cmz_codec::convert::{CompressOptions, Recovered, VerifyDepth, VerifyOptions, compress, recover, verify};
use cmz_codec::io::IoMode;

fn slice() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/minilm-layer0-bf16.safetensors")
}

fn compressed(folder: &Path) -> (PathBuf, Vec<u8>) {
    let target = folder.join("whole.cmz");
    let options = CompressOptions {
        encode: Default::default(),
        threads: 1,
        replace: false,
        verify: true,
        io: IoMode::Auto,
        bases: Vec::new(),
        quantizer: None,
    };
    compress(&slice(), &target, &options, &()).unwrap();
    let bytes = std::fs::read(&target).unwrap();
    (target, bytes)
}

/// Recovers from `bytes`; every saved tensor must be what it was.
fn recovered(folder: &Path, bytes: &[u8], original: &Archive) -> Recovered {
    let (damaged, saved) = (folder.join("damaged.cmz"), folder.join("saved.cmz"));
    std::fs::write(&damaged, bytes).unwrap();
    let recovered = recover(&damaged, &saved, true).unwrap();
    assert!(
        verify(
            &saved,
            &VerifyOptions { depth: VerifyDepth::Decoded, threads: 1, io: IoMode::Auto, bases: Vec::new() },
            &()
        )
        .unwrap()
        .damage
        .is_empty()
    );
    let archive = Archive::open(&saved).unwrap();
    assert_eq!(archive.tensors().len(), recovered.saved.len());
    for name in &recovered.saved {
        assert!(archive.read(name).unwrap() == original.read(name).unwrap(), "{name}");
    }
    let mut names: Vec<&str> = recovered.saved.iter().map(String::as_str).collect();
    names.extend(recovered.lost.iter().map(|lost| lost.name.as_str()));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), recovered.saved.len() + recovered.lost.len(), "a tensor is saved or lost, once");
    recovered
}

#[test]
fn a_whole_file_is_copied_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = compressed(folder.path());
    let recovered = recovered(folder.path(), &bytes, &Archive::open(&path).unwrap());
    assert!(recovered.source_whole && recovered.lost.is_empty());
}

#[test]
fn a_cut_file_keeps_the_tensors_before_the_cut_and_names_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = compressed(folder.path());
    let original = Archive::open(&path).unwrap();
    let mut saved_before = 0;
    for cut in (5000..bytes.len()).step_by(bytes.len() / 23) {
        let recovered = recovered(folder.path(), &bytes[..cut], &original);
        assert_eq!(recovered.saved.len() + recovered.lost.len(), original.tensors().len());
        assert!(recovered.saved.len() >= saved_before && !recovered.source_whole);
        saved_before = recovered.saved.len();
    }
    let without_trailer = recovered(folder.path(), &bytes[..bytes.len() - 64], &original);
    assert!(without_trailer.source_whole && without_trailer.lost.is_empty());
}

#[test]
fn damage_inside_costs_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = compressed(folder.path());
    let original = Archive::open(&path).unwrap();
    for end_lost in [false, true] {
        for at in (200_000..2_000_000).step_by(300_000) {
            let mut damaged = bytes.clone();
            damaged[at..at + 512].fill(0);
            damaged.truncate(bytes.len() - if end_lost { 64 } else { 0 });
            let recovered = recovered(folder.path(), &damaged, &original);
            assert_eq!(recovered.lost.len(), 1, "zeros at {at}");
            assert!(!recovered.source_whole);
        }
    }
}
