//! Many tensors.

use std::time::{Duration, Instant};

use cmz_codec::Archive;
use cmz_tests::cmz::{Storage, write};
use cmz_tests::folder::Folder;
use cmz_tests::source::Source;

#[test]
fn a_hundred_thousand_tensors_open_quickly() {
    const COUNT: u64 = 100_000;
    let mut source = Source::new();
    for i in 0..COUNT {
        source =
            source.tensor(&format!("model.layers.{}.experts.{}.bias", i / 1000, i % 1000), "F32", &[4], [i as u8; 16]);
    }
    let file = write(&source.build(), |entry| Storage::raw(&entry.dtype, 1 << 18)).unwrap();
    let folder = Folder::new();
    let path = folder.write("many.cmz", &file);
    let start = Instant::now();
    let archive = Archive::open(&path).unwrap();
    let opened = start.elapsed();
    println!("{COUNT} tensors: a file of {} bytes opens in {opened:?}", file.len());
    assert_eq!(archive.tensors().len() as u64, COUNT);
    assert_eq!(archive.read("model.layers.99.experts.999.bias").unwrap(), [(COUNT - 1) as u8; 16]);
    // Ten times the aim for a release build on a quiet machine.
    assert!(opened < Duration::from_secs(5), "{opened:?}");
}
