//! Tensors stored once, and tensors stored against another file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{
    CompressOptions, DecompressOptions, VerifyDepth, VerifyOptions, compress, decompress, partial_path, recover, verify,
};
use cmz_codec::io::IoMode;
use cmz_codec::registry::REFERENCES;
use cmz_codec::safetensors::Header;
use cmz_codec::stream::Level;
use cmz_codec::{Archive, Code, OpenOptions, Result};
use cmz_format::{BlockKind, Dtype};
use cmz_tests::check::{open_bytes, read_everything, source_of};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::data_dir;
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, bf16_weights, f32_weights, skewed};
use cmz_tests::raw_file::RawFile;
use cmz_tests::source::Source;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The encoding of each tensor.
fn encodings(archive: &Archive) -> Vec<&str> {
    archive.tensors().iter().map(|tensor| tensor.encoding.name.as_str()).collect()
}

fn open(path: &Path, bases: &[Arc<Archive>], io: IoMode) -> Archive {
    Archive::open_with(path, OpenOptions { io, bases: bases.to_vec(), ..OpenOptions::default() }).unwrap()
}

fn check(path: &Path, bases: &[Arc<Archive>], depth: VerifyDepth) -> Result<Vec<Code>> {
    let options = VerifyOptions { depth, threads: 2, io: IoMode::Auto, bases: bases.to_vec() };
    let verified = verify(path, &options, &())?;
    Ok(verified.damage.iter().chain(&verified.unsupported).map(cmz_codec::Error::code).collect())
}

/// The damaged blocks, by tensor and number, and the tensors that depend on them.
fn damage_of(path: &Path, bases: &[Arc<Archive>], depth: VerifyDepth) -> (Vec<(String, u64)>, Vec<String>) {
    let options = VerifyOptions { depth, threads: 2, io: IoMode::Mmap, bases: bases.to_vec() };
    let verified = verify(path, &options, &()).unwrap();
    let place = |error: &cmz_codec::Error| (error.tensor().unwrap().to_owned(), error.block().unwrap());
    (verified.damage.iter().map(place).collect(), verified.dependants)
}

fn twins() -> Source {
    let (weights, bytes) = (bf16_weights(1, 700_000), skewed(2, 2_600_000));
    Source::new()
        .tensor("a", "BF16", &[700, 1000], &weights)
        .tensor("random", "U8", &[1000], Rng::new(3).bytes(1000))
        .tensor("flat", "U8", &[1_400_000], &weights)
        .gap(b"gap")
        .tensor("bytes", "U8", &[13, 200_000], &bytes)
        .tensor("again", "BF16", &[1000, 700], &weights)
        .tensor("also random", "I16", &[500], Rng::new(3).bytes(1000))
        .tensor("nearly", "BF16", &[700, 1000], [&weights[..900_001], &[1], &weights[900_002..]].concat())
        .tensor("words", "F32", &[650_000], &bytes)
        .tensor("short", "U8", &[9], [7; 9])
        .tensor("also short", "U8", &[9], [7; 9])
        .tensor("empty", "U8", &[0], [])
        .tensor("also empty", "U8", &[0], [])
}

#[test]
fn duplicates_are_stored_once() {
    let (folder, source) = (Folder::new(), twins().build());
    let file = folder.compress("file.cmz", &source, &options(1)).unwrap();
    for threads in [2, 4] {
        assert!(folder.compress("other.cmz", &source, &options(threads)).unwrap() == file, "{threads} threads");
    }
    let path = folder.path("file.cmz");
    let archive = open(&path, &[], IoMode::Mmap);
    let same: Vec<&str> = archive.tensors().iter().filter(|t| t.encoding.name == "same_as").map(|t| &*t.name).collect();
    assert_eq!(same, ["flat", "again", "also random", "words"]);
    assert!(archive.index().table().iter().all(|r| r.kind != BlockKind::Data || r.streams > 0 || r.stored_len == 0));
    for io in [IoMode::Mmap, IoMode::Pread] {
        let archive = open(&path, &[], io);
        let header = Header::read(&source).unwrap();
        for entry in &header.tensors {
            let bytes = &source[entry.range.start as usize..entry.range.end as usize];
            assert!(archive.read(&entry.name).unwrap() == bytes, "{}", entry.name);
            let mut buffer = vec![0; bytes.len()];
            archive.read_into(&entry.name, &mut buffer, 2).unwrap();
            assert!(buffer == bytes, "{}", entry.name);
            if let Some(&rows) = entry.shape.first().filter(|&&rows| rows > 3) {
                let row = bytes.len() / rows as usize;
                let some = rows / 3..rows * 2 / 3;
                let expected = &bytes[some.start as usize * row..some.end as usize * row];
                assert!(archive.read_rows(&entry.name, some).unwrap() == expected, "{}", entry.name);
            }
            if let Some(slice) = archive.slice(&entry.name).unwrap() {
                assert!(slice == bytes, "{}", entry.name);
            }
        }
    }
    assert!(archive.slice("also random").unwrap().is_some(), "as its reference, which is stored raw");
    assert!(folder.restore("file.cmz", 2).unwrap() == source);
    for depth in [VerifyDepth::Decoded, VerifyDepth::Stored] {
        assert_eq!(check(&path, &[], depth).unwrap(), []);
    }
}

#[test]
fn a_tensor_is_lost_with_its_reference() {
    let (folder, source) = (Folder::new(), twins().build());
    let file = folder.compress("file.cmz", &source, &options(1)).unwrap();
    let (path, saved) = (folder.path("file.cmz"), folder.path("saved.cmz"));
    assert!(recover(&path, &saved, true).unwrap().source_whole);
    assert!(fs::read(folder.path("saved.cmz")).is_ok() && folder.restore("saved.cmz", 1).unwrap() == source);

    let archive = open(&path, &[], IoMode::Pread);
    let first = archive.index().table()[archive.index().tensor_blocks(0).data.start].payload_offset() as usize;
    let mut damaged = file.clone();
    damaged[first] ^= 1;
    for cut in [damaged.len(), damaged.len() - 64] {
        fs::write(&path, &damaged[..cut]).unwrap();
        let mut lost: Vec<String> =
            recover(&path, &saved, true).unwrap().lost.into_iter().map(|lost| lost.name).collect();
        lost.sort();
        assert_eq!(lost, ["a", "again", "flat"]);
        assert_eq!(check(&saved, &[], VerifyDepth::Decoded).unwrap(), []);
    }
    fs::write(&path, &damaged).unwrap();
    for depth in [VerifyDepth::Stored, VerifyDepth::Decoded] {
        assert_eq!(
            damage_of(&path, &[], depth),
            (vec![("a".to_owned(), 0)], vec!["flat".to_owned(), "again".to_owned()])
        );
    }
    assert!(open(&path, &[], IoMode::Pread).read("nearly").is_ok());
}

#[test]
fn damage_to_a_base_is_reported_once() {
    let folder = Folder::new();
    let weights = bf16_weights(7, 700_000);
    let old = Source::new().tensor("a", "BF16", &[700_000], &weights).tensor("b", "U8", &[900], [9; 900]).build();
    let mut file = folder.compress("old.cmz", &old, &options(1)).unwrap();
    let base = Arc::new(open(&folder.path("old.cmz"), &[], IoMode::Pread));
    let new = Source::new()
        .tensor("a", "BF16", &[700_000], &weights)
        .tensor("again", "BF16", &[700, 1000], &weights)
        .tensor("b", "U8", &[900], [9; 900])
        .build();
    let against = CompressOptions { bases: vec![Arc::clone(&base)], ..options(1) };
    folder.compress("new.cmz", &new, &against).unwrap();
    assert_eq!(encodings(&open(&folder.path("new.cmz"), &[], IoMode::Pread)), ["same_as"; 3]);
    let blocks = &base.index().table()[base.index().tensor_blocks(0).data.clone()];
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        file[block.payload_offset() as usize] ^= 1;
    }
    fs::write(folder.path("old.cmz"), &file).unwrap();
    let bases = [Arc::new(open(&folder.path("old.cmz"), &[], IoMode::Pread))];
    let (damage, dependants) = damage_of(&folder.path("new.cmz"), &bases, VerifyDepth::Decoded);
    assert_eq!(damage, [("a".to_owned(), 0), ("a".to_owned(), 1)], "blocks of the base");
    assert_eq!(dependants, ["a", "again"]);
}

/// A base, and a folder for what is compressed against it.
struct Based {
    folder: Folder,
    base: Arc<Archive>,
}

impl Based {
    fn new(base: &[u8]) -> Self {
        let folder = Folder::new();
        folder.compress("base.cmz", base, &options(2)).unwrap();
        let base = Arc::new(Archive::open(&folder.path("base.cmz")).unwrap());
        Self { folder, base }
    }

    fn options(&self, threads: usize) -> CompressOptions {
        CompressOptions { bases: vec![Arc::clone(&self.base)], ..options(threads) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path("tuned.cmz")
    }

    fn open(&self, io: IoMode) -> Archive {
        open(&self.path(), &[Arc::clone(&self.base)], io)
    }

    /// Compresses against the base, restores, verifies, and returns the file.
    fn there_and_back(&self, source: &[u8], options: &CompressOptions) -> Vec<u8> {
        let file = self.folder.compress("tuned.cmz", source, options).unwrap();
        for io in [IoMode::Pread, IoMode::Mmap] {
            let archive = self.open(io);
            assert!(source_of(&archive).unwrap() == source);
            for entry in Header::read(&source.to_vec()).unwrap().tensors {
                let bytes = &source[entry.range.start as usize..entry.range.end as usize];
                assert!(archive.read(&entry.name).unwrap() == bytes, "{}", entry.name);
            }
        }
        let target = self.folder.path("back.safetensors");
        decompress(&self.open(IoMode::Auto), &target, &DecompressOptions { threads: 2, replace: true }, &()).unwrap();
        assert!(fs::read(&target).unwrap() == source);
        assert_eq!(check(&self.path(), &options.bases, VerifyDepth::Decoded).unwrap(), []);
        assert_eq!(check(&self.path(), &[], VerifyDepth::Stored).unwrap(), []);
        file
    }
}

/// A checkpoint with every weight changed by about one part in `1 / scale`.
fn noisy(source: &[u8], scale: f32) -> Vec<u8> {
    let mut rng = Rng::new(77);
    let mut changed = source.to_vec();
    for entry in Header::read(&source.to_vec()).unwrap().tensors {
        let bytes = &mut changed[entry.range.start as usize..entry.range.end as usize];
        let mut factor = || 1.0 + scale * rng.normal();
        match Dtype::from_name(&entry.dtype).unwrap() {
            Dtype::BF16 => bytes.as_chunks_mut().0.iter_mut().for_each(|x: &mut [u8; 2]| {
                let value = f32::from_bits(u32::from(u16::from_le_bytes(*x)) << 16) * factor();
                *x = ((value.to_bits() + 0x8000) >> 16).to_le_bytes()[..2].try_into().unwrap();
            }),
            Dtype::F16 => bytes.as_chunks_mut().0.iter_mut().for_each(|x: &mut [u8; 2]| {
                // Between powers of two, bit patterns are in proportion to values.
                let bits = u16::from_le_bytes(*x);
                let step = (scale * 1400.0 * rng.normal()).round() as i16;
                *x = bits.wrapping_add_signed(step).to_le_bytes();
            }),
            Dtype::F32 => bytes
                .as_chunks_mut()
                .0
                .iter_mut()
                .for_each(|x: &mut [u8; 4]| *x = (f32::from_le_bytes(*x) * factor()).to_le_bytes()),
            other => panic!("no noise for {other}"),
        }
    }
    changed
}

#[test]
fn real_weights_with_noise_gain_from_their_base() {
    let files =
        [("minilm-layer0-bf16", 0.15), ("minilm-layer3-attention-f16", 0.35), ("minilm-layer5-attention-f32", 0.55)];
    for (name, most) in files {
        let source = fs::read(data_dir().join(format!("{name}.safetensors"))).unwrap();
        let based = Based::new(&source);
        let tuned = noisy(&source, 1e-3);
        let alone = based.folder.compress("alone.cmz", &tuned, &options(2)).unwrap().len();
        for level in [Level::Fast, Level::Max] {
            let encode = EncodeOptions { level, ..EncodeOptions::default() };
            let file = based.there_and_back(&tuned, &CompressOptions { encode, ..based.options(2) });
            let names = encodings(&based.open(IoMode::Auto)).join(" ");
            let ratio = file.len() as f64 / source.len() as f64;
            println!("{name} {level:?}: {ratio:.4}, alone {:.4}: {names}", alone as f64 / source.len() as f64);
            assert!(ratio < most, "{name}: {ratio}");
        }
        // Most weights unchanged, and one.
        let same = based.there_and_back(&source, &based.options(1));
        assert!(same.len() < source.len() / 50, "{} bytes", same.len());
        let mut one = source.clone();
        let last = one.len() - 2;
        one[last] ^= 1;
        let file = based.there_and_back(&one, &based.options(1));
        assert!(file.len() < source.len() / 50, "{} bytes", file.len());
        let threaded = based.folder.compress("tuned.cmz", &one, &based.options(3)).unwrap();
        assert!(threaded == file, "the same bytes for any number of threads");
    }
}

#[test]
fn rows_are_read_through_blocks_of_other_lengths() {
    let bytes = f32_weights(5, 300 * 1000);
    let source = Source::new().tensor("w", "F32", &[300, 1000], &bytes).build();
    let based = Based::new(&source);
    let odd = write(&source, |_| Storage::new("float_planes", "F32", &["rans", "raw"], 7001)).unwrap();
    let base = Arc::new(open_bytes(&odd).unwrap());
    let tuned = noisy(&source, 1e-4);
    let options = CompressOptions { bases: vec![Arc::clone(&base)], ..based.options(2) };
    based.folder.compress("tuned.cmz", &tuned, &options).unwrap();
    let archive = open(&based.path(), &[base], IoMode::Auto);
    assert_ne!(encodings(&archive), ["same_as"]);
    let expected = &tuned[tuned.len() - bytes.len()..];
    for rows in [0..1, 17..18, 100..271, 299..300, 0..300] {
        let range = rows.start as usize * 4000..rows.end as usize * 4000;
        assert!(archive.read_rows("w", rows).unwrap() == expected[range]);
    }
}

#[test]
fn without_its_base_a_tensor_is_not_read() {
    let old = Source::new().tensor("a", "F32", &[40_000], f32_weights(1, 40_000)).tensor(
        "b",
        "U8",
        &[999],
        Rng::new(2).bytes(999),
    );
    let old = old.build();
    let based = Based::new(&old);
    let new = Source::new().tensor("new", "BF16", &[5000], bf16_weights(3, 5000)).build();
    let mut tuned = old.clone();
    let last = tuned.len() - 1;
    tuned[last] ^= 6;
    let both = Source::new()
        .tensor("a", "F32", &[40_000], f32_weights(1, 40_000))
        .tensor("b", "U8", &[999], &tuned[tuned.len() - 999..])
        .tensor("new", "BF16", &[5000], bf16_weights(3, 5000))
        .build();
    based.there_and_back(&both, &based.options(1));
    let other = Based::new(&new).base;
    let target = based.folder.path("back.safetensors");
    fs::remove_file(&target).unwrap();
    let cases: [(&[Arc<Archive>], Code); 2] = [(&[], Code::MissingBase), (&[other], Code::WrongBase)];
    for (bases, code) in cases {
        let archive = open(&based.path(), bases, IoMode::Auto);
        assert_eq!(archive.bases().len(), 1);
        for name in ["a", "b"] {
            let error = archive.read(name).unwrap_err();
            assert_eq!((error.code(), error.tensor()), (code, Some(name)), "{error}");
            assert!(error.help().is_some_and(|help| help.contains("--base")));
        }
        assert_eq!(archive.read("new").unwrap(), bf16_weights(3, 5000));
        assert_eq!(check(&based.path(), bases, VerifyDepth::Decoded).unwrap_err().code(), code);
        assert_eq!(check(&based.path(), bases, VerifyDepth::Stored).unwrap(), []);
        let options = DecompressOptions { threads: 1, replace: false };
        assert_eq!(decompress(&archive, &target, &options, &()).unwrap_err().code(), code);
        assert!(!target.exists() && !partial_path(&target).exists());
    }
    // What recovery copies needs the same base.
    let saved = based.folder.path("saved.cmz");
    let bytes = fs::read(based.path()).unwrap();
    fs::write(based.path(), &bytes[..bytes.len() - 64]).unwrap();
    assert!(recover(&based.path(), &saved, true).unwrap().lost.is_empty());
    assert!(source_of(&open(&saved, &[Arc::clone(&based.base)], IoMode::Auto)).unwrap() == both);
}

#[test]
fn a_base_may_have_a_base_that_is_given() {
    let first = Source::new().tensor("a", "F32", &[40_000], f32_weights(1, 40_000)).build();
    let (second, third) = (noisy(&first, 1e-4), noisy(&first, 1e-3));
    let based = Based::new(&first);
    based.there_and_back(&second, &based.options(1));
    fs::rename(based.path(), based.folder.path("second.cmz")).unwrap();
    let path = based.folder.path("second.cmz");
    let base = Arc::new(open(&path, &[Arc::clone(&based.base)], IoMode::Auto));
    let chained = CompressOptions { bases: vec![base], ..based.options(1) };
    based.folder.compress("tuned.cmz", &third, &chained).unwrap();
    assert!(source_of(&open(&based.path(), &chained.bases, IoMode::Auto)).unwrap() == third);
    let orphan = vec![Arc::new(Archive::open(&path).unwrap())];
    assert_eq!(check(&based.path(), &orphan, VerifyDepth::Decoded).unwrap_err().code(), Code::MissingBase);
    let options = CompressOptions { bases: orphan, ..options(1) };
    assert_eq!(based.folder.compress("more.cmz", &third, &options).unwrap_err().code(), Code::MissingBase);
}

#[test]
fn the_best_base_is_taken_and_kept() {
    let weights = f32_weights(1, 40_000);
    let source = Source::new().tensor("a", "F32", &[40_000], &weights).tensor("c", "U8", &[300], [1; 300]).build();
    let small = Based::new(&Source::new().tensor("c", "U8", &[300], [1; 300]).build());
    let large = Based::new(&Source::new().tensor("a", "F32", &[40_000], &weights).build());
    let bases = vec![Arc::clone(&small.base), Arc::clone(&large.base)];
    let options = CompressOptions { bases: bases.clone(), ..options(1) };
    small.folder.compress("tuned.cmz", &source, &options).unwrap();
    let archive = open(&small.path(), &bases, IoMode::Auto);
    assert_eq!(archive.bases().len(), 1);
    assert_eq!(archive.tensors()[0].encoding.params["base_root"], archive.bases()[0].root);
    assert!(source_of(&open(&small.path(), &bases[1..], IoMode::Auto)).unwrap() == source);
    // A base of which nothing is of use is not needed.
    let other = Source::new().tensor("a", "F32", &[20_000, 2], &weights).build();
    small.folder.compress("tuned.cmz", &other, &options).unwrap();
    assert!(source_of(&open(&small.path(), &[], IoMode::Auto)).unwrap() == other);
    // The base is not overwritten by what needs it.
    let error = large.folder.compress("base.cmz", &source, &options).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[test]
fn an_interrupted_conversion_against_a_base() {
    let source = fs::read(data_dir().join("minilm-layer3-attention-f16.safetensors")).unwrap();
    let based = Based::new(&source);
    let tuned = noisy(&source, 1e-3);
    let options = CompressOptions { replace: false, ..based.options(2) };
    let whole = based.folder.compress("tuned.cmz", &tuned, &options).unwrap();
    let input = based.folder.path("source.safetensors");
    for cut in (0..whole.len()).step_by(whole.len() / 7).chain([whole.len()]) {
        fs::remove_file(based.path()).unwrap();
        fs::write(partial_path(&based.path()), &whole[..cut]).unwrap();
        let done = compress(&input, &based.path(), &options, &()).unwrap();
        assert!(fs::read(based.path()).unwrap() == whole, "cut to {cut}");
        assert!(cut < whole.len() || done.resumed_blocks > 0);
    }
    // Against another base, or none, it is another conversion.
    fs::remove_file(based.path()).unwrap();
    let other = Based::new(&noisy(&source, 1e-2)).base;
    for bases in [vec![], vec![other]] {
        fs::write(partial_path(&based.path()), &whole[..2000]).unwrap();
        let options = CompressOptions { bases, ..options.clone() };
        assert_eq!(compress(&input, &based.path(), &options, &()).unwrap_err().code(), Code::OtherPartial);
    }
}

/// A file of the tensors `a`, `b`, `c`, of which `b` is the same as `a`, and `other`.
fn small() -> RawFile {
    let bytes = skewed(4, 3000);
    let source = Source::new()
        .tensor("a", "U8", &[3000], &bytes)
        .tensor("b", "BF16", &[1500], &bytes)
        .tensor("c", "BF16", &[1500], bf16_weights(9, 1500))
        .tensor("other", "U8", &[4], [1, 2, 3, 4])
        .build();
    RawFile::parse(&Folder::new().compress("file.cmz", &source, &options(1)).unwrap())
}

#[test]
fn references_that_lie_cost_their_tensor_alone() {
    let root = "00".repeat(32);
    let same = |tensor: &str| json!({"name": "same_as", "params": {"tensor": tensor}, "components": {}});
    let xor = |tensor: &str| json!({"name": "xor", "params": {"tensor": tensor}, "components": {"difference": {"name": "plain", "components": {"data": ["raw"]}}}});
    let based = json!({"name": "same_as", "params": {"tensor": "a", "base_root": root}, "components": {}});
    let cases: [(&str, Value, Code); 11] = [
        ("itself", same("b"), Code::Malformed),
        ("a later one", same("c"), Code::Malformed),
        ("none", same("d"), Code::Malformed),
        ("one of another length", same("other"), Code::Malformed),
        ("a base that is not given", based, Code::MissingBase),
        ("streams that are not there", xor("a"), Code::Malformed),
        (
            "unknown parameters",
            json!({"name": "same_as", "params": {"tensor": "a", "x": 1}, "components": {}}),
            Code::UnknownEncoding,
        ),
        (
            "an unknown operation",
            json!({"name": "add", "params": {"tensor": "a"}, "components": {}}),
            Code::UnknownEncoding,
        ),
        ("no tensor", json!({"name": "same_as", "components": {}}), Code::Malformed),
        (
            "a bad digest",
            json!({"name": "same_as", "params": {"tensor": "a", "base_root": "x"}, "components": {}}),
            Code::Malformed,
        ),
        (
            "an unknown difference",
            json!({"name": "subtract", "params": {"tensor": "a"}, "components": {"difference": {"name": "new", "components": {}}}}),
            Code::UnknownEncoding,
        ),
    ];
    for (what, encoding, code) in cases {
        let mut file = small();
        file.edit_tensor(1, |tensor| tensor["encoding"] = encoding);
        let archive = open_bytes(&file.build()).unwrap();
        assert_eq!(archive.read("b").unwrap_err().code(), code, "{what}");
        for name in ["a", "c", "other"] {
            archive.read(name).unwrap();
        }
        let folder = Folder::new();
        let path = folder.write("file.cmz", &file.build());
        let codes = check(&path, &[], VerifyDepth::Decoded).unwrap_or_else(|e| vec![e.code()]);
        assert!(!codes.is_empty() && codes.iter().all(|&found| found == code), "{what}: {codes:?}");
    }
}

#[test]
fn references_to_references_and_in_components_are_refused() {
    let bytes = skewed(4, 3000);
    let three = Source::new().tensor("a", "U8", &[3000], &bytes).tensor("b", "U8", &[3000], &bytes);
    let three = three.tensor("c", "U8", &[3000], &bytes).build();
    let mut file = RawFile::parse(&Folder::new().compress("file.cmz", &three, &options(1)).unwrap());
    read_everything(&open_bytes(&file.build()).unwrap()).unwrap();
    file.edit_tensor(2, |tensor| tensor["encoding"]["params"]["tensor"] = json!("b"));
    assert_eq!(open_bytes(&file.build()).unwrap().read("c").unwrap_err().code(), Code::Malformed);

    let mut file = small();
    let same = json!({"name": "same_as", "params": {"tensor": "a"}, "components": {}});
    file.edit_tensor(2, |tensor| tensor["encoding"] = json!({"name": "plain", "components": {"data": same}}));
    assert_eq!(open_bytes(&file.build()).unwrap().read("c").unwrap_err().code(), Code::UnknownEncoding);

    // A reference's block with streams.
    let mut file = small();
    let same = json!({"name": "same_as", "params": {"tensor": "b"}, "components": {}});
    file.edit_tensor(2, |tensor| tensor["encoding"] = same);
    file.edit_tensor(1, |tensor| {
        tensor["encoding"] = json!({"name": "plain", "components": {"data": ["zstd", "raw"]}})
    });
    let archive = open_bytes(&file.build()).unwrap();
    assert_eq!(["b", "c"].map(|name| archive.read(name).unwrap_err().code()), [Code::Malformed; 2]);
}

#[test]
fn every_reference_is_chosen_by_some_tensor() {
    let weights = f32_weights(6, 100_000);
    let flipped: Vec<u8> =
        weights.iter().enumerate().map(|(i, b)| if i % 4 == 3 && i % 12 < 8 { b ^ 0x80 } else { *b }).collect();
    let of = |bytes: [&[u8]; 3]| {
        let [a, b, c] = bytes;
        let source = Source::new().tensor("a", "F32", &[100_000], a).tensor("b", "F32", &[100_000], b);
        source.tensor("c", "F32", &[100_000], c).build()
    };
    let random = Rng::new(8).bytes(400_000);
    let base = of([&weights, &weights, &random]);
    let based = Based::new(&base);
    let near = noisy(&Source::new().tensor("b", "F32", &[100_000], &weights).build(), 1e-3);
    based.there_and_back(&of([&flipped, &near[near.len() - 400_000..], &random]), &based.options(2));
    let archive = based.open(IoMode::Auto);
    let mut found = encodings(&archive);
    found.sort_unstable();
    let mut all: Vec<&str> = REFERENCES.iter().map(|entry| entry.operation.name()).collect();
    all.sort_unstable();
    assert_eq!(found, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any element type, with any part of the bytes changed, alone and against a base.
    #[test]
    fn any_change_comes_back(dtype in 0..=Dtype::ALL.len(), rows in 1u64..90, changes in 0usize..3, seed: u64, max: bool) {
        let dtype = Dtype::ALL.get(dtype).copied();
        let shape = [rows, 24];
        let len = dtype.map_or(rows * 24, |dtype| dtype.byte_len(rows * 24).unwrap()) as usize;
        let (mut rng, name) = (Rng::new(seed), dtype.map_or("F13", Dtype::name));
        let old = if seed % 2 == 0 { rng.bytes(len) } else { skewed(seed, len) };
        let mut new = old.clone();
        for _ in 0..[0, 1, len / 3][changes] {
            let at = rng.below(len);
            new[at] = new[at].wrapping_add(rng.below(3) as u8);
        }
        let of = |first: &[u8], last: &[u8]| {
            Source::new().tensor("x", name, &shape, first).gap(b"-").tensor("y", name, &shape, last).build()
        };
        let based = Based::new(&of(&old, &old));
        let encode = EncodeOptions { level: if max { Level::Max } else { Level::Fast }, ..EncodeOptions::default() };
        let options = CompressOptions { encode, ..based.options(2) };
        based.there_and_back(&of(&new, &old), &options);
        based.there_and_back(&of(&new, &new), &options);
    }
}
