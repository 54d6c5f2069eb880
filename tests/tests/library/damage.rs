//! No cut and no flipped bit goes unnoticed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use cmz_codec::convert::{DecompressOptions, decompress};
use cmz_codec::io::IoMode;
use cmz_codec::{Archive, Code};
use cmz_format::BlockKind;
use cmz_tests::check::{open_bytes, open_file, read_everything, source_of, verify_code};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::folder::{Folder, options};
use cmz_tests::golden_dir;
use cmz_tests::inputs::{Rng, bf16_weights, f32_weights};
use cmz_tests::source::Source;

/// A small file with a block of every kind, of one and of several streams, and a run.
fn small() -> (Vec<u8>, Vec<u8>) {
    let source = Source::new()
        .tensor("a", "BF16", &[40], bf16_weights(1, 40))
        .tensor("b", "F32", &[9], f32_weights(2, 9))
        .gap(b"end")
        .build();
    let file = write(&source, |entry| match entry.dtype.as_str() {
        "BF16" => Storage::new("float_planes", "BF16", &["tiered", "raw"], 24),
        other => Storage::raw(other, 8),
    });
    (file.unwrap(), source)
}

/// A file on disk whose bytes are changed and changed back.
struct Patient {
    file: File,
    sound: Vec<u8>,
}

impl Patient {
    fn new(path: &Path, sound: &[u8]) -> Self {
        std::fs::write(path, sound).unwrap();
        Self { file: OpenOptions::new().write(true).open(path).unwrap(), sound: sound.to_vec() }
    }

    /// Runs `examine` while `bytes` are in the place of what is at `offset`.
    fn with<R>(&self, offset: usize, bytes: &[u8], examine: impl FnOnce() -> R) -> R {
        self.file.write_all_at(bytes, offset as u64).unwrap();
        let result = examine();
        self.file.write_all_at(&self.sound[offset..offset + bytes.len()], offset as u64).unwrap();
        result
    }
}

#[test]
fn verify_finds_every_flipped_bit() {
    let (file, _) = small();
    let folder = Folder::new();
    let path = folder.path("file.cmz");
    let patient = Patient::new(&path, &file);
    assert_eq!(verify_code(&path), None);
    for at in 0..file.len() {
        for bit in 0..8 {
            let code = patient.with(at, &[file[at] ^ 1 << bit], || verify_code(&path));
            assert!(code.is_some(), "bit {bit} of byte {at} of {}", file.len());
        }
    }
    assert_eq!(verify_code(&path), None);
}

/// Which bytes a read of everything looks at: all but descriptors and padding.
fn bytes_read(archive: &Archive, len: usize) -> Vec<bool> {
    let mut read = vec![false; len];
    read[..64].fill(true);
    let table = archive.index().table();
    for record in table.iter().filter(|record| record.kind != BlockKind::Descriptor) {
        read[record.offset as usize..record.offset as usize + record.header_len()].fill(true);
        read[record.payload_offset() as usize..record.payload_range().end as usize].fill(true);
    }
    let end = table.last().unwrap().payload_range().end as usize;
    read[end.next_multiple_of(64)..].fill(true);
    read
}

#[test]
fn a_default_read_finds_every_flipped_bit_in_what_it_reads() {
    let (file, source) = small();
    let archive = open_bytes(&file).unwrap();
    let (right, read) = (read_everything(&archive).unwrap(), bytes_read(&archive, file.len()));
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            let result = open_bytes(&changed).and_then(|archive| {
                let tensors = read_everything(&archive)?;
                Ok((tensors, source_of(&archive)?))
            });
            match result {
                Err(_) => {}
                Ok(found) => {
                    assert!(!read[at], "bit {bit} of byte {at}");
                    assert!(found == (right.clone(), source.clone()), "bit {bit} of byte {at} changes what is read");
                }
            }
        }
    }
}

#[test]
fn verify_finds_bursts_zeroed_sectors_and_swapped_blocks() {
    let (file, _) = small();
    let folder = Folder::new();
    let path = folder.path("file.cmz");
    let patient = Patient::new(&path, &file);
    let mut rng = Rng::new(1);
    for _ in 0..3000 {
        let (at, burst) = (rng.below(file.len() - 5), (rng.bits() as u32 | 1 << 31 | 1) as u64);
        let burst = burst << rng.below(8);
        let bytes: Vec<u8> = file[at..at + 5].iter().zip(burst.to_le_bytes()).map(|(a, b)| a ^ b).collect();
        let code = patient.with(at, &bytes, || verify_code(&path));
        assert!(code.is_some(), "burst {burst:x} at {at}");
    }
    let units = file.len() / 64;
    for unit in (0..units).filter(|unit| file[unit * 64..][..64] != [0; 64]) {
        let code = patient.with(unit * 64, &[0; 64], || verify_code(&path));
        assert!(code.is_some(), "64 zeros at {}", unit * 64);
    }
    for a in 0..units {
        for b in (a + 1..units).filter(|b| file[a * 64..][..64] != file[b * 64..][..64]) {
            let code = patient.with(a * 64, &file[b * 64..][..64], || {
                patient.with(b * 64, &file[a * 64..][..64], || verify_code(&path))
            });
            assert!(code.is_some(), "units {a} and {b} swapped");
        }
    }
}

#[test]
fn every_cut_of_a_file_is_truncated() {
    let (file, _) = small();
    let folder = Folder::new();
    for len in 0..file.len() {
        assert_eq!(open_bytes(&file[..len]).unwrap_err().code(), Code::Truncated, "{len} of {}", file.len());
        if len % 37 == 0 {
            let path = folder.write("cut.cmz", &file[..len]);
            assert_eq!(verify_code(&path), Some(Code::Truncated), "{len} of {}", file.len());
            for io in [IoMode::Mmap, IoMode::Pread] {
                assert_eq!(open_file(&path, io).unwrap_err().code(), Code::Truncated);
            }
        }
    }
}

#[test]
fn every_cut_of_a_source_is_truncated() {
    let source = Source::new()
        .metadata("format", "pt")
        .tensor("a", "U8", &[9], [5; 9])
        .tensor("b", "F32", &[8], [6; 32])
        .build();
    let folder = Folder::new();
    for len in 0..source.len() {
        let error = folder.compress("file.cmz", &source[..len], &options(1)).unwrap_err();
        assert_eq!(error.code(), Code::Truncated, "{len} of {}: {error}", source.len());
        assert_eq!(folder.names(), ["source.safetensors"]);
    }
}

/// Single flips in a file of real weights: every byte's neighbourhood, a sample of its bits.
#[test]
fn verify_finds_flips_in_a_large_file() {
    let source = std::fs::read(cmz_tests::data_dir().join("minilm-layer3-attention-f16.safetensors")).unwrap();
    let folder = Folder::new();
    let file = folder.compress("file.cmz", &source, &options(2)).unwrap();
    let path = folder.path("file.cmz");
    let patient = Patient::new(&path, &file);
    let mut rng = Rng::new(9);
    for _ in 0..40 {
        let (at, bit) = (rng.below(file.len()), rng.below(8));
        let code = patient.with(at, &[file[at] ^ 1 << bit], || verify_code(&path));
        assert!(code.is_some(), "bit {bit} of byte {at}");
    }
}

/// A file cut while it is open is an error and no signal.
#[test]
fn a_file_that_shrinks_while_it_is_open() {
    let source = Source::new().tensor("w", "U8", &[300_000], Rng::new(4).bytes(300_000)).build();
    for io in [IoMode::Mmap, IoMode::Pread] {
        let folder = Folder::new();
        folder.compress("file.cmz", &source, &options(1)).unwrap();
        let path = folder.path("file.cmz");
        let archive = open_file(&path, io).unwrap();
        let before = archive.read_rows("w", 0..10).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        assert_eq!(archive.read("w").unwrap_err().code(), Code::Truncated, "{io:?}");
        assert_eq!(source_of(&archive).unwrap_err().code(), Code::Truncated, "{io:?}");
        if io == IoMode::Mmap {
            assert_eq!(archive.slice("w").unwrap_err().code(), Code::Truncated);
        }
        assert_eq!(before.len(), 10);
    }
}

/// A file that does not restore its source leaves nothing where the source would be.
#[test]
fn a_wrong_restoration_never_appears() {
    let folder = Folder::new();
    for (name, code) in [("bad-source-sha256", Code::Digest), ("bad-payload-flip", Code::StoredChecksum)] {
        let archive = Archive::open(&golden_dir().join(format!("{name}.cmz"))).unwrap();
        let target = folder.path("restored.safetensors");
        let options = DecompressOptions { threads: 2, replace: false };
        assert_eq!(decompress(&archive, &target, &options, &()).unwrap_err().code(), code);
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}
