//! An interrupted conversion goes on where it stopped, and comes to the same bytes.

use std::fs;

use cmz_codec::Code;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{CompressOptions, compress, partial_path};
use cmz_codec::stream::Level;
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, bf16_weights};
use cmz_tests::source::Source;

/// Options that keep an unfinished file of the same conversion, and refuse others.
fn resuming() -> CompressOptions {
    CompressOptions { replace: false, verify: true, ..options(1) }
}

/// A folder with a source and, under the unfinished file's name, some bytes.
struct Interrupted {
    folder: Folder,
    whole: Vec<u8>,
}

impl Interrupted {
    fn new(source: &[u8]) -> Self {
        let folder = Folder::new();
        let whole = folder.compress("whole.cmz", source, &options(2)).unwrap();
        Self { folder, whole }
    }

    /// Goes on from `partial`; returns the file and the number of blocks taken over.
    fn resume(&self, partial: &[u8], options: &CompressOptions) -> cmz_codec::Result<(Vec<u8>, usize)> {
        let target = self.folder.path("file.cmz");
        let _ = fs::remove_file(&target);
        fs::write(partial_path(&target), partial).unwrap();
        let done = compress(&self.folder.path("source.safetensors"), &target, options, &())?;
        assert!(!partial_path(&target).exists());
        Ok((fs::read(target).unwrap(), done.resumed_blocks))
    }
}

fn small() -> Vec<u8> {
    Source::new()
        .tensor("a", "BF16", &[300], bf16_weights(1, 300))
        .tensor("raw", "U8", &[50], Rng::new(1).bytes(50))
        .tensor("empty", "U8", &[0], [])
        .gap(b"gap")
        .tensor("b", "U8", &[9], [1; 9])
        .gap(b"end")
        .build()
}

/// Runs of several blocks that start on a page, and compressed blocks.
fn large() -> Vec<u8> {
    Source::new()
        .tensor("first", "U8", &[2_300_000], Rng::new(2).bytes(2_300_000))
        .tensor("weights", "BF16", &[1_200_000], bf16_weights(3, 1_200_000))
        .tensor("last", "U8", &[1_100_000], Rng::new(4).bytes(1_100_000))
        .build()
}

#[test]
fn a_small_file_cut_anywhere() {
    let case = Interrupted::new(&small());
    let mut most = 0;
    for len in 0..=case.whole.len() {
        let (file, resumed) = case.resume(&case.whole[..len], &resuming()).unwrap();
        assert!(file == case.whole, "cut to {len} of {}", case.whole.len());
        assert!(resumed >= most, "{resumed} blocks from {len} bytes, {most} from fewer");
        most = resumed;
    }
    assert!(most >= 8, "a whole unfinished file is taken over: {most}");
}

#[test]
fn a_large_file_cut_at_many_places() {
    let case = Interrupted::new(&large());
    let archive = cmz_codec::Archive::open(&case.folder.path("whole.cmz")).unwrap();
    let mut places: Vec<usize> = Vec::new();
    for record in archive.index().table() {
        let (header, payload) = (record.offset as usize, record.payload_range());
        places.extend([
            header,
            header + 63,
            header + 64,
            payload.start as usize,
            payload.end as usize - 1,
            payload.end as usize,
        ]);
        places.push(payload.start as usize - 1);
    }
    places.push(case.whole.len() - 1);
    places.sort_unstable();
    places.dedup();
    let mut rng = Rng::new(5);
    for len in places {
        let options = CompressOptions { threads: 1 + rng.below(3), verify: false, ..resuming() };
        let (file, _) = case.resume(&case.whole[..len], &options).unwrap();
        assert!(file == case.whole, "cut to {len} of {}", case.whole.len());
    }
    let (_, resumed) = case.resume(&case.whole[..case.whole.len() - 100], &resuming()).unwrap();
    assert_eq!(resumed, archive.index().table().len());
}

/// What reached the disk out of order is thrown away.
#[test]
fn a_damaged_partial() {
    let case = Interrupted::new(&small());
    let mut rng = Rng::new(6);
    for _ in 0..300 {
        let mut partial = case.whole[..64 + rng.below(case.whole.len() - 64)].to_vec();
        let at = 64 + rng.below((partial.len() - 64).max(1));
        if let Some(byte) = partial.get_mut(at) {
            *byte ^= 1 << rng.below(8);
        }
        let end = (at + rng.below(100)).min(partial.len());
        partial.get_mut(at..end).unwrap_or_default().fill(0);
        let (file, _) = case.resume(&partial, &resuming()).unwrap();
        assert!(file == case.whole, "damaged at {at} of {}", partial.len());
    }
}

#[test]
fn a_partial_of_another_conversion() {
    let case = Interrupted::new(&small());
    let max = CompressOptions { encode: EncodeOptions { level: Level::Max, ..EncodeOptions::default() }, ..resuming() };
    let error = case.resume(&case.whole[..500], &max).unwrap_err();
    assert_eq!(error.code(), Code::OtherPartial, "{error}");
    assert_eq!(fs::read(partial_path(&case.folder.path("file.cmz"))).unwrap(), &case.whole[..500], "it is left alone");
    let replacing = CompressOptions { replace: true, ..max };
    let (_, resumed) = case.resume(&case.whole[..500], &replacing).unwrap();
    assert_eq!(resumed, 0);
    // Something that is no unfinished file at all is not thrown away either.
    let error = case.resume(&[b'x'; 1000], &resuming()).unwrap_err();
    assert_eq!(error.code(), Code::OtherPartial, "{error}");
}

/// The same header, other bytes: blocks of the old source are not taken over.
#[test]
fn a_source_that_changed_meanwhile() {
    let old = Source::new().tensor("a", "U8", &[2000], Rng::new(7).bytes(2000)).tensor(
        "b",
        "U8",
        &[2000],
        Rng::new(8).bytes(2000),
    );
    let new = Source::new().tensor("a", "U8", &[2000], Rng::new(7).bytes(2000)).tensor(
        "b",
        "U8",
        &[2000],
        Rng::new(9).bytes(2000),
    );
    let before = Interrupted::new(&old.build());
    let after = Interrupted::new(&new.build());
    for len in (0..before.whole.len()).step_by(101).chain([before.whole.len()]) {
        let (file, _) = after.resume(&before.whole[..len], &resuming()).unwrap();
        assert!(file == after.whole, "cut to {len}");
    }
}

#[test]
fn targets_are_not_replaced_unasked() {
    let folder = Folder::new();
    let source = folder.write("source.safetensors", &small());
    let target = folder.write("file.cmz", b"precious");
    let error = compress(&source, &target, &resuming(), &()).unwrap_err();
    assert_eq!(error.code(), Code::Exists);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(folder.names(), ["file.cmz", "source.safetensors"]);
    compress(&source, &target, &options(1), &()).unwrap();
    assert_ne!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn two_conversions_of_one_target() {
    let folder = Folder::new();
    let source = folder.write("source.safetensors", &small());
    let target = folder.path("file.cmz");
    let partial = fs::File::create(partial_path(&target)).unwrap();
    partial.lock().unwrap();
    let error = compress(&source, &target, &options(1), &()).unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    drop(partial);
    compress(&source, &target, &options(1), &()).unwrap();
}

/// A link under the unfinished file's name is not followed.
#[test]
fn a_link_in_the_way() {
    let folder = Folder::new();
    let source = folder.write("source.safetensors", &small());
    let (target, victim) = (folder.path("file.cmz"), folder.write("victim", b"precious"));
    std::os::unix::fs::symlink(&victim, partial_path(&target)).unwrap();
    let error = compress(&source, &target, &options(1), &()).unwrap_err();
    assert_eq!(error.code(), Code::OtherPartial);
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}
