//! Coding a block allocates nothing once a thread has coded a few like it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Cursor;

use cmz_codec::array::{StoredArray, StoredComponent};
use cmz_codec::encoding::{Array, Element, Encoding};
use cmz_codec::stream::{Level, StreamCodec};
use cmz_codec::{Archive, OpenOptions, Scratch, registry};
use cmz_format::{Dtype, Header, PlannedSegment, Tensor, Writer};

/// The system's allocator, which counts what the current thread asks it for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // Memory is still allocated when a thread's own values are gone already.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is the system allocator's with the same arguments; counting does not
// allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: likewise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: likewise.
        unsafe { System.realloc(memory, layout, len) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: likewise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Blocks that are coded before allocations are counted, and while they are.
const WARM_UP: usize = 8;
const COUNTED: usize = 24;
/// Elements of a block.
const ELEMENTS: usize = 128 << 10;

/// BF16 weights whose rows differ in scale, so that blocks differ in length.
fn weights(block: usize) -> Vec<u8> {
    let mut state = block as u64 + 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let scale = 0.02 * (1 + block * 7 % 5) as f32;
    let weights = (0..ELEMENTS).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * scale);
    weights.flat_map(|weight| ((weight.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn stored(encoding: &str, codecs: &[&[&str]]) -> StoredArray {
    let named = |name: &&str| -> &'static dyn StreamCodec { registry::stream_by_name(name).expect("a codec's name") };
    let components = codecs.iter().map(|names| StoredComponent::Stream(names.iter().map(named).collect()));
    let encoding: &dyn Encoding = registry::encoding_by_name(encoding).expect("an encoding's name");
    StoredArray::new(encoding, components.collect())
}

/// Encodes the blocks into a file, then decodes them, and returns how often memory was
/// allocated in the steady state of either.
fn allocations(encoding: &str, codecs: &[&[&str]], level: Level) -> (usize, usize) {
    let element = Element::Dtype(Dtype::BF16);
    let stored = stored(encoding, codecs);
    let blocks: Vec<Vec<u8>> = (0..WARM_UP + COUNTED).map(weights).collect();
    let byte_len = (blocks.len() * ELEMENTS * 2) as u64;
    let tensor = Tensor {
        name: "weights".to_owned(),
        dtype: "BF16".to_owned(),
        shape: vec![byte_len / 2],
        block_elements: ELEMENTS as u64,
        encoding: stored.to_manifest(element),
    };
    let plan = vec![PlannedSegment::Tensor { tensor, byte_len, shared: false }];
    let header = Header { optional_features: 0, fingerprint: [0; 16] };
    let mut writer = Writer::new(Cursor::new(Vec::new()), &header, plan).expect("a file begins");
    writer.descriptor().expect("a descriptor");

    let mut scratch = Scratch::new();
    let mut encoding_allocates = 0;
    for (number, block) in blocks.iter().enumerate() {
        let before = ALLOCATIONS.get();
        let encoded = stored.encode_block(Array::vector(element, block.len()), block, level, &mut scratch);
        if number >= WARM_UP {
            encoding_allocates += ALLOCATIONS.get() - before;
        }
        writer.data(&encoded).expect("a block");
        scratch.recycle(encoded.payload);
    }
    let file = writer.finish("steady_state", None, Default::default()).expect("a file ends").into_inner();

    let archive = Archive::from_reader(Box::new(file), OpenOptions::default()).expect("a file");
    let mut scratch = Scratch::new();
    let mut decoded = vec![0; ELEMENTS * 2];
    let mut decoding_allocates = 0;
    for (number, block) in blocks.iter().enumerate() {
        let before = ALLOCATIONS.get();
        archive.read_block(0, number, &mut scratch, &mut decoded).expect("a block");
        if number >= WARM_UP {
            decoding_allocates += ALLOCATIONS.get() - before;
        }
        assert!(decoded == *block, "block {number}");
    }
    (encoding_allocates, decoding_allocates)
}

#[test]
fn blocks_are_coded_without_allocating() {
    let ways: &[(&str, &[&[&str]])] = &[
        ("float_planes", &[&["tiered", "raw"], &["raw"]]),
        ("float_planes", &[&["tiered"], &["zstd", "raw"]]),
        ("float_planes", &[&["zstd"], &["zstd"]]),
        ("float_planes", &[&["huffman"], &["huffman", "raw"]]),
        ("float_planes", &[&["rans", "huffman", "tiered", "raw"], &["raw"]]),
        ("float_joint", &[&["rans", "raw"], &["bitpack", "raw"]]),
        ("plain", &[&["zstd", "raw"]]),
    ];
    let mut allocating = Vec::new();
    for (encoding, codecs) in ways {
        for level in [Level::Fast, Level::Max] {
            let found = allocations(encoding, codecs, level);
            if found != (0, 0) {
                allocating.push(format!("{encoding} {codecs:?} {level:?}: {found:?} in {COUNTED} blocks"));
            }
        }
    }
    assert!(allocating.is_empty(), "(encoding, decoding) allocates:\n{}", allocating.join("\n"));
}
