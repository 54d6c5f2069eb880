//! Laws that hold for any file.

use cmz_codec::encoding::{Array, Element};
use cmz_codec::io::IoMode;
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::safetensors::{Entry, Header};
use cmz_codec::{Archive, Code, TensorPart};
use cmz_format::Dtype;
use cmz_tests::check::{open_bytes, open_file, source_of};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, skewed};
use cmz_tests::source::Source;
use proptest::prelude::*;

/// What a tensor of a random file is like.
#[derive(Clone, Debug)]
struct Drawn {
    dtype: usize,
    shape: Vec<u64>,
    gap: usize,
    random: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let shape = prop_oneof![
        6 => prop::collection::vec(0u64..7, 0..4),
        3 => (1u64..40, 1u64..60).prop_map(|(rows, row)| vec![rows, row]),
    ];
    let gap = prop_oneof![4 => Just(0usize), 1 => 1usize..70];
    (0..=Dtype::ALL.len(), shape, gap, any::<bool>()).prop_map(|(dtype, shape, gap, random)| Drawn {
        dtype,
        shape,
        gap,
        random,
    })
}

/// Any file that this library takes: all element types and an unknown one, gaps, trailing
/// bytes, headers in any order and with spaces.
fn source() -> impl Strategy<Value = Vec<u8>> {
    let tensors = prop::collection::vec(drawn(), 0..6);
    (tensors, any::<u64>(), any::<bool>(), 0usize..40, prop::option::of(".*")).prop_map(
        |(tensors, seed, reversed, spaces, metadata)| {
            let mut source = Source::new();
            for (i, tensor) in tensors.into_iter().enumerate() {
                source = add(source, i, tensor, seed);
            }
            if let Some(text) = metadata {
                source = source.metadata("text", &text);
            }
            if reversed {
                source = source.reversed();
            }
            let len = source.build().len();
            if spaces % 3 == 0 { source.header_len(len + spaces) } else { source }.gap(&vec![9; spaces % 5]).build()
        },
    )
}

fn add(source: Source, i: usize, drawn: Drawn, seed: u64) -> Source {
    let dtype = Dtype::ALL.get(drawn.dtype).copied();
    let mut shape = drawn.shape;
    if dtype.is_some_and(|dtype| dtype.bits() % 8 != 0) {
        shape.push(8);
    }
    let elements: u64 = shape.iter().product();
    let len = dtype.map_or(elements, |dtype| dtype.byte_len(elements).unwrap()) as usize;
    let seed = seed.wrapping_add(i as u64);
    let bytes = if drawn.random { Rng::new(seed).bytes(len) } else { skewed(seed, len) };
    let name = dtype.map_or("F13", Dtype::name);
    source.gap(&vec![1; drawn.gap]).tensor(&format!("tensor {i}"), name, &shape, bytes)
}

/// Some way to store a tensor that the registry offers.
fn some_storage(entry: &Entry, seed: u64) -> Storage {
    let mut rng = Rng::new(seed ^ entry.range.start);
    let element = Dtype::from_name(&entry.dtype).map_or(Element::Opaque, Element::Dtype);
    let able: Vec<_> = ENCODINGS
        .iter()
        .map(|entry| entry.encoding)
        .filter(|encoding| encoding.is_exact() && encoding.components(Array::vector(element, 0)).is_some())
        .collect();
    let encoding = able[rng.below(able.len())];
    let codecs: Vec<&str> = (0..1 + rng.below(2)).map(|_| STREAMS[rng.below(STREAMS.len())].codec.name()).collect();
    Storage::new(encoding.name(), &entry.dtype, &codecs, 8 * (1 + rng.below(30) as u64))
}

fn bytes_of<'a>(source: &'a [u8], entry: &Entry) -> &'a [u8] {
    &source[entry.range.start as usize..entry.range.end as usize]
}

/// Every way to read a tensor gives the same bytes.
fn check_reads(archive: &Archive, tensor: usize, expected: &[u8]) {
    let name = archive.tensors()[tensor].name.clone();
    assert!(archive.read(&name).unwrap() == expected);
    for threads in [1, 3] {
        let mut buffer = vec![0xEE; expected.len()];
        archive.read_into(&name, &mut buffer, threads).unwrap();
        assert!(buffer == expected);
        let mut joined = Vec::new();
        archive
            .for_each_block([tensor], threads, |block| {
                assert_eq!((block.tensor, block.offset), (tensor, joined.len() as u64));
                joined.extend_from_slice(block.bytes);
                Ok(())
            })
            .unwrap();
        assert!(joined == expected);
    }
    if let Some(slice) = archive.slice(&name).unwrap() {
        assert!(slice == expected);
    }
    check_parts(archive, tensor, expected);
    let mut wrong = vec![0; expected.len() + 1];
    assert_eq!(archive.read_into(&name, &mut wrong, 1).unwrap_err().code(), Code::InvalidArgument);
}

/// Parts of a tensor that are read together, wherever they begin and end, make up the whole; what goes beyond it is refused.
fn check_parts(archive: &Archive, tensor: usize, expected: &[u8]) {
    for threads in [1, 3] {
        let mut buffer = vec![0xEE; expected.len()];
        let (first, rest) = buffer.split_at_mut(expected.len() / 3);
        let (second, third) = rest.split_at_mut(rest.len() / 5);
        let mut start = 0;
        let parts = [first, second, third].map(|bytes| {
            let part = TensorPart { tensor, start, bytes };
            start += part.bytes.len() as u64;
            part
        });
        archive.read_parts(parts.into(), threads).unwrap();
        assert!(buffer == expected);
    }
    let beyond = TensorPart { tensor, start: expected.len() as u64, bytes: &mut [0] };
    assert_eq!(archive.read_parts(vec![beyond], 1).unwrap_err().code(), Code::InvalidArgument);
}

/// Rows are slices of the whole, for every range; what is outside is refused.
fn check_rows(archive: &Archive, tensor: usize, expected: &[u8]) {
    let (name, shape) = (&archive.tensors()[tensor].name, &archive.tensors()[tensor].shape);
    let refused = |rows| archive.read_rows(name, rows).is_err_and(|e| e.code() == Code::InvalidArgument);
    let Some(&count) = shape.first() else {
        assert!(refused(0..1));
        return;
    };
    assert!(refused(0..count + 1) && refused(u64::MAX - 1..u64::MAX));
    let whole = expected.is_empty() || (expected.len() as u64).is_multiple_of(count);
    if !whole {
        assert!(refused(0..1));
        return;
    }
    let row = if expected.is_empty() { 0 } else { expected.len() / count as usize };
    for start in 0..=count {
        for end in start..=count.min(start + 5) {
            let rows = archive.read_rows(name, start..end).unwrap();
            assert!(rows == expected[row * start as usize..row * end as usize]);
        }
    }
    let each: Vec<_> = (0..count).rev().map(|i| (tensor, i..i + 1)).collect();
    let read = archive.read_each(&each, 2).unwrap();
    assert!(read.iter().rev().flatten().eq(expected) && read.len() as u64 == count);
    assert!(archive.read_each(&[(tensor, count..count + 1)], 2).is_err_and(|e| e.code() == Code::InvalidArgument));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_is_restored_and_the_same_for_any_thread_count(source in source()) {
        let folder = Folder::new();
        let file = folder.compress("a.cmz", &source, &options(1)).unwrap();
        prop_assert!(folder.restore("a.cmz", 2).unwrap() == source);
        prop_assert!(folder.compress("b.cmz", &source, &options(3)).unwrap() == file);
    }

    #[test]
    fn all_ways_to_read_agree(source in source(), seed in any::<u64>()) {
        let file = write(&source, |entry| some_storage(entry, seed)).unwrap();
        let folder = Folder::new();
        let path = folder.write("file.cmz", &file);
        let header = Header::read(&source).unwrap();
        for archive in [
            open_bytes(&file).unwrap(),
            open_file(&path, IoMode::Mmap).unwrap(),
            open_file(&path, IoMode::Pread).unwrap(),
        ] {
            prop_assert!(source_of(&archive).unwrap() == source);
            for (i, entry) in header.tensors.iter().enumerate() {
                check_reads(&archive, i, bytes_of(&source, entry));
                check_rows(&archive, i, bytes_of(&source, entry));
            }
        }
    }

    #[test]
    fn byte_ranges_are_slices(source in source(), seed in any::<u64>(), cuts in any::<(u64, u64)>()) {
        let archive = open_bytes(&write(&source, |entry| some_storage(entry, seed)).unwrap()).unwrap();
        for (i, entry) in Header::read(&source).unwrap().tensors.iter().enumerate() {
            let bytes = bytes_of(&source, entry);
            let len = bytes.len() as u64;
            let (a, b) = (cuts.0 % (len + 1), cuts.1 % (len + 1));
            let range = archive.read_range(i, a.min(b)..a.max(b)).unwrap();
            prop_assert!(range == bytes[a.min(b) as usize..a.max(b) as usize]);
            prop_assert!(archive.read_range(i, 0..len + 1).is_err());
        }
    }
}

/// A raw tensor of a mapped file is shown in place, one of a file that is read is not.
#[test]
fn slices_are_in_place() {
    let source = Source::new().tensor("raw", "F32", &[1000], Rng::new(1).bytes(4000)).build();
    let folder = Folder::new();
    let path = folder.write("file.cmz", &write(&source, |entry| Storage::raw(&entry.dtype, 128)).unwrap());
    let mapped = open_file(&path, IoMode::Mmap).unwrap();
    let slice = mapped.slice("raw").unwrap().unwrap();
    assert!(slice == &source[source.len() - 4000..]);
    assert_eq!(slice.as_ptr(), mapped.slice("raw").unwrap().unwrap().as_ptr());
    assert!(open_file(&path, IoMode::Pread).unwrap().slice("raw").unwrap().is_none());
    assert_eq!(mapped.slice("missing").unwrap_err().code(), Code::InvalidArgument);
}

/// Several threads may read one archive at a time.
#[test]
fn archives_are_shared_between_threads() {
    let source = Source::new().tensor("w", "BF16", &[5000], skewed(1, 10_000)).build();
    let file = write(&source, |_| Storage::new("float_planes", "BF16", &["tiered", "raw"], 256)).unwrap();
    let archive = open_bytes(&file).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(source_of(&archive).unwrap() == source);
                }
            });
        }
    });
}
