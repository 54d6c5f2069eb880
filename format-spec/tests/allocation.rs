//! No reader allocates on a number that the input has not earned.
//!
//! One test in a binary of its own: the allocator counts for the whole process.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cmz_format::{EncodedBlock, Limits, MAGIC, StreamList, Trailer, unpack_section};
use common::{Parts, open, parse_all, small_plan, write_file};

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to the system's allocator as it is; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `work` has allocated at most at a time.
fn peak(work: impl FnOnce()) -> usize {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

/// Opens `file` both ways, whatever comes of it.
fn peak_of(file: &[u8]) -> usize {
    peak(|| {
        let _ = open(file);
        let _ = parse_all(file, |_| Ok(()));
    })
}

#[test]
fn memory_is_earned() {
    // The sound file sets the scale; a few kilobytes more are for error messages.
    let sound = write_file(&small_plan());
    let most = 2 * peak_of(&sound) + 16 * sound.len();
    let parts = Parts::of(&sound);
    let mut worst = 0;
    let mut check = |what: &str, file: &[u8]| {
        let used = peak_of(file);
        assert!(used <= most, "{what}: {used} bytes for a file of {}, expected {most} at most", file.len());
        worst = worst.max(used);
    };

    // Every 4 bytes of table, block headers, file header and trailer as the largest number.
    for record in 0..parts.records.len() {
        for at in (0..32).step_by(4) {
            let mut parts = parts.clone();
            parts.records[record][at..at + 4].fill(0xff);
            check("record", &parts.file());
        }
        let offset = u64::from_le_bytes(parts.records[record][..8].try_into().unwrap());
        for at in (8..64).step_by(4).filter(|&at| at != 44) {
            check("block", &parts.clone().with_block(offset, |block| block[at..at + 4].fill(0xff)).file());
            check("block", &parts.clone().with_block(offset, |block| block[at..at + 4].fill(0x7f)).file());
        }
    }
    for at in (8..60).step_by(4) {
        let mut parts = parts.clone();
        parts.header[at..at + 4].fill(0xff);
        check("header", &parts.file());
    }
    for (manifest, table) in [(64, 128), (64, u64::MAX - 63), (1 << 62, 1 << 63), (0, 0)] {
        let end = sound.len() - 64;
        let trailer = Trailer::new(manifest, table, &sound[..64], &[]).to_bytes();
        assert!(trailer.ends_with(&MAGIC));
        check("trailer", &[&sound[..end], &trailer].concat());
    }

    // Numbers of the manifest.
    for from in ["\"shape\":[3,40]", "\"shape\":[5]"] {
        check("shape", &parts.clone().with_json(from, "\"shape\":[4611686018427387903]").file());
    }
    for (from, to) in [("\"len\":745", "\"len\":18446744073709551615"), ("[7,50]", "[4294967296,2147483647]")] {
        check(to, &parts.clone().with_json(from, to).file());
    }
    check("nesting", &parts.clone().with_json("{\"generator\":", &("{\"x\":".to_owned() + &"[".repeat(3000))).file());

    // Manifests that claim to decode to what they cannot.
    for decoded_len in [1 << 20, 200 << 20, u32::MAX] {
        for codec in [0, 1] {
            let lie = |json: &[u8]| EncodedBlock {
                streams: StreamList::one(codec, json.len() as u32),
                decoded_len,
                ..EncodedBlock::single(codec, json.to_vec(), json)
            };
            check("manifest", &parts.file_with(lie));
        }
    }
    // A whole frame that states 192 MiB in one segment and holds nothing.
    let frame = b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x0c\x01\x00\x00";
    assert!(peak(|| assert!(unpack_section(1, frame, 192 << 20).is_err())) < 4096);
    let limits = Limits { manifest_len: u32::MAX, blocks: u32::MAX, tensors: u32::MAX, ..Limits::default() };
    assert!(peak(|| drop(common::open_with(&sound, &limits))) <= most);
    assert!(worst > 0);
}
