//! Throughput of reading a DFloat11 checkpoint, in bytes of BF16, on one thread. What is read is
//! compared with the original before it is timed.
//!
//! `cargo bench -p cmz-benches --bench import`
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use cmz_benches::{Gaussian, Random};
use cmz_codec::import::dfloat11::Checkpoint;
use cmz_codec::import::{Original, Restored};
use cmz_codec::io::ReadAt;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

#[path = "../../codec/src/import/dfloat11/generator.rs"]
mod generator;

use generator::{Stored, compressed, config, safetensors};

/// Elements of the matrix.
const ELEMENTS: usize = 4 << 20;
/// Bytes that are read at a time: those of a block.
const BLOCK: usize = 1 << 20;

/// A checkpoint of one Gaussian matrix, and the file that it stands for.
fn checkpoint(folder: &Path) -> (Restored, Vec<u8>) {
    let mut bytes = vec![0; ELEMENTS * 2];
    Gaussian::default().fill_bf16(&mut Random::new(1), 0.02, &mut bytes);
    let tensors = [Stored { name: "m.weight".to_owned(), dtype: "BF16", shape: vec![ELEMENTS as u64], bytes }];
    let original = safetensors(None, &tensors);
    let checkpoint = folder.join("df11");
    fs::create_dir_all(&checkpoint).expect("a folder for the checkpoint");
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).expect("a file of the checkpoint");
    write(&folder.join("original.safetensors"), &original);
    write(&checkpoint.join("config.json"), config(json!({"m": []})).as_bytes());
    write(&checkpoint.join("model.safetensors"), &safetensors(None, &compressed(&tensors, &[("m", &[])])));
    let header = Original::read(&folder.join("original.safetensors")).expect("a header");
    let (mut files, _) = Checkpoint::open(&checkpoint, None).and_then(|c| c.restore(&[header])).expect("a checkpoint");
    (files.remove(0), original)
}

fn read(restored: &Restored, bytes: &mut [u8]) {
    for (number, block) in bytes.chunks_mut(BLOCK).enumerate() {
        restored.read_at((number * BLOCK) as u64, block).expect("a sound stream");
    }
}

fn dfloat11(c: &mut Criterion) {
    let (restored, original) = checkpoint(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut bytes = vec![0; original.len()];
    read(&restored, &mut bytes);
    assert!(bytes == original, "the checkpoint is read as the original");
    let mut group = c.benchmark_group("import");
    group.throughput(Throughput::Bytes(original.len() as u64));
    group.bench_function("dfloat11", |bencher| bencher.iter(|| read(&restored, &mut bytes)));
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = quick(); targets = dfloat11 }
criterion_main!(benches);
