//! Conversions that the caller stops: nothing appears under the final name, and the next run
//! comes to the same bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use cmz_codec::convert::{
    DecompressOptions, Progress, VerifyDepth, VerifyOptions, compress, decompress, partial_path, verify,
};
use cmz_codec::{Archive, Code};
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, bf16_weights};
use cmz_tests::source::Source;

/// Asks to stop once it has been told so many times how far things are.
struct StopAfter(AtomicUsize);

impl Progress for StopAfter {
    fn advance(&self, _: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

fn source() -> Vec<u8> {
    Source::new()
        .tensor("weights", "BF16", &[1_200_000], bf16_weights(3, 1_200_000))
        .tensor("noise", "U8", &[2_300_000], Rng::new(2).bytes(2_300_000))
        .build()
}

#[test]
fn a_stopped_conversion_leaves_no_file_and_can_go_on() {
    let folder = Folder::new();
    let whole = folder.compress("whole.cmz", &source(), &options(1)).unwrap();
    let (from, target) = (folder.path("source.safetensors"), folder.path("file.cmz"));
    let mut stopped = 0;
    for steps in 1.. {
        let result = compress(&from, &target, &options(2), &StopAfter(AtomicUsize::new(steps)));
        let Err(error) = result else { break };
        assert_eq!(error.code(), Code::Interrupted, "{error}");
        assert!(!target.exists());
        stopped += 1;
    }
    assert!(stopped >= 8, "{stopped}");
    assert!(std::fs::read(&target).unwrap() == whole);
}

#[test]
fn a_stopped_restoration_or_verification_leaves_nothing() {
    let folder = Folder::new();
    folder.compress("whole.cmz", &source(), &options(1)).unwrap();
    let (from, target) = (folder.path("whole.cmz"), folder.path("back.safetensors"));
    let archive = Archive::open(&from).unwrap();
    let stop = || StopAfter(AtomicUsize::new(3));
    let error = decompress(&archive, &target, &DecompressOptions { threads: 2, replace: false }, &stop()).unwrap_err();
    assert_eq!(error.code(), Code::Interrupted);
    assert!(!target.exists() && !partial_path(&target).exists());
    let options =
        VerifyOptions { depth: VerifyDepth::Decoded, threads: 2, bases: Vec::new(), io: cmz_codec::io::IoMode::Pread };
    assert_eq!(verify(&from, &options, &stop()).unwrap_err().code(), Code::Interrupted);
}
