//! A hostile file makes nobody allocate what it has not earned.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cmz_codec::{Archive, OpenOptions};
use cmz_format::{Limits, Parser, Step};
use cmz_tests::golden;
use cmz_tests::inputs::Rng;
use cmz_tests::raw_file::fix_checksums;

/// Counts what each thread has allocated, and the most it had at a time.
struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grown(bytes: usize) {
    // Not there any more while a thread ends: nobody measures then.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

fn shrunk(bytes: usize) {
    let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(bytes)));
}

// SAFETY: every call is handed to the system's allocator as it is; counting uses cells of
// the thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        shrunk(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` had allocated at a time, in bytes.
fn peak_of<R>(work: impl FnOnce() -> R) -> (usize, R) {
    let before = NOW.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = work();
    (PEAK.with(Cell::get) - before, result)
}

/// What a file may make its reader allocate: so many times its size, and a constant.
/// JSON of a few bytes becomes structs of many; the rest is a copy or two.
fn allowance(len: usize) -> usize {
    64 * len + (256 << 10)
}

fn check_opening(name: &str, bytes: &[u8]) {
    let reader: Box<dyn cmz_codec::io::ReadAt> = Box::new(bytes.to_vec());
    let (peak, archive) = peak_of(|| Archive::from_reader(reader, OpenOptions::default()));
    assert!(peak <= allowance(bytes.len()), "{name}: {peak} bytes to open {}", bytes.len());
    drop(archive);
    let (peak, _) = peak_of(|| parse_all(bytes));
    assert!(peak <= allowance(bytes.len()), "{name}: {peak} bytes to parse {}", bytes.len());
}

fn parse_all(bytes: &[u8]) -> cmz_codec::Result<()> {
    let mut parser = Parser::new(Limits::default());
    let mut start = 0;
    while start < bytes.len() {
        match parser.parse(&bytes[start..], true)? {
            Step::Parsed { consumed, .. } => start += consumed,
            Step::NeedMore(_) => break,
        }
    }
    Ok(())
}

fn hostile() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let refused = golden::bad().iter().chain(golden::unsupported());
    refused.map(|case| (case.name.as_str(), &case.bytes[..]))
}

#[test]
fn opening_golden_files() {
    for (name, bytes) in hostile() {
        // Compressed megabytes of spaces are earned by no file size but bounded by a limit.
        if !["bad-manifest-spaces", "bad-manifest-zstd-cut", "bad-manifest-size-small"].contains(&name) {
            check_opening(name, bytes);
        }
    }
    for case in golden::good() {
        check_opening(&case.name, &case.bytes);
    }
}

/// Large numbers everywhere in files whose checksums are right.
#[test]
fn opening_files_with_large_numbers() {
    let base = &golden::good().iter().find(|case| case.name == "good-run-small").unwrap().bytes;
    let mut rng = Rng::new(1);
    for at in (64..base.len() - 64).step_by(4) {
        for value in [u32::MAX, 1 << 31, 1 << 24, 0x00ff_ffff, rng.bits() as u32] {
            let mut bytes = base.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            fix_checksums(&mut bytes);
            check_opening(&format!("{value:x} at {at}"), &bytes);
        }
    }
}

/// Reading needs the tensor, the blocks at hand and the codecs' tables, however wrong the
/// file is.
#[test]
fn reading_golden_files() {
    const CONSTANT: usize = 4 << 20;
    for (name, bytes) in hostile() {
        let Ok(archive) = Archive::from_reader(Box::new(bytes.to_vec()), OpenOptions::default()) else { continue };
        let (peak, _) = peak_of(|| cmz_tests::check::read_everything(&archive));
        assert!(peak <= allowance(bytes.len()) + CONSTANT, "{name}: {peak} bytes to read {}", bytes.len());
    }
}

#[test]
fn headers_of_sources() {
    let claims = |len: u64| [&len.to_le_bytes()[..], b"{\"a\":{}}"].concat();
    for len in [9, 1000, 1 << 20, 99_999_999, 100_000_000, 1 << 40, u64::MAX] {
        let file = claims(len);
        let (peak, result) = peak_of(|| cmz_codec::safetensors::Header::read(&file));
        assert!(result.is_err() && peak < 16 << 10, "{peak} bytes for a claim of {len}");
    }
}
