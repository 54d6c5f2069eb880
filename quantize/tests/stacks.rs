//! Stacks of experts: statistics of each, and conversions that stop inside of one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cmz_codec::array::Parts;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{
    CompressOptions, Compressed, Deviation, LossyTensor, Progress, Quantize, QuantizeTensor, compress, partial_path,
};
use cmz_codec::io::{IoMode, ReadAt};
use cmz_codec::safetensors::Header;
use cmz_codec::{Archive, Code, Result};
use cmz_quantize::plan::{Plan, StatisticsFile};
use half::bf16;
use serde_json::{Map, json};

const GPTQ: &str = "ternary:solver=gptq";
const ROWS: usize = 48;
const COLUMNS: usize = 64;

fn safetensors(tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn numbers(count: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed * 2 + 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(move |_| (0..6).map(|_| next()).sum::<f32>() * 0.05)
}

fn expert(number: usize, rows: usize) -> Vec<u8> {
    numbers(rows * COLUMNS, number as u64 + 1).flat_map(|w| bf16::from_f32(w).to_le_bytes()).collect()
}

/// The Hessian of some inputs, other ones for each expert; that of every fifth has seen none.
fn hessian(number: usize) -> Vec<u8> {
    let size = |i: usize| if number % 5 == 2 { 0.0 } else { 0.1 + ((i + number) % 13) as f32 };
    let element = |at: usize| {
        let (i, j) = (at / COLUMNS, at % COLUMNS);
        0.9f32.powi(i.abs_diff(j) as i32) * size(i) * size(j)
    };
    (0..COLUMNS * COLUMNS).flat_map(|at| element(at).to_le_bytes()).collect()
}

fn stack(experts: usize, rows: usize) -> Vec<u8> {
    let bytes = (0..experts).flat_map(|number| expert(number, rows)).collect();
    safetensors(&[("w".to_owned(), "BF16", vec![experts, rows, COLUMNS], bytes)])
}

/// The Hessians of all experts, as one tensor.
fn hessians(experts: usize) -> Vec<u8> {
    let bytes = (0..experts).flat_map(hessian).collect();
    safetensors(&[("w.hessian".to_owned(), "F32", vec![experts, COLUMNS, COLUMNS], bytes)])
}

fn options(quantizer: Arc<dyn Quantize>, threads: usize) -> CompressOptions {
    CompressOptions {
        encode: EncodeOptions::default(),
        threads,
        io: IoMode::Auto,
        replace: false,
        verify: true,
        bases: Vec::new(),
        quantizer: Some(quantizer),
    }
}

/// Counts the units that are rounded.
#[derive(Debug)]
struct Counted {
    plan: Plan,
    rounded: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct CountedTensor {
    inner: Box<dyn QuantizeTensor>,
    rounded: Arc<AtomicUsize>,
}

impl Quantize for Counted {
    fn plan(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<LossyTensor>>> {
        let counted = |lossy: LossyTensor| LossyTensor {
            quantizer: Box::new(CountedTensor { inner: lossy.quantizer, rounded: Arc::clone(&self.rounded) }),
            ..lossy
        };
        Ok(self.plan.plan(source, header, threads, progress)?.into_iter().map(|lossy| lossy.map(counted)).collect())
    }
}

impl QuantizeTensor for CountedTensor {
    fn quantize(&self, first: u64, bytes: &[u8], threads: usize) -> Result<Vec<Parts>> {
        self.rounded.fetch_add(1, Ordering::Relaxed);
        self.inner.quantize(first, bytes, threads)
    }

    fn measure(&self, first: u64, original: &[u8], decoded: &[u8]) -> Result<Deviation> {
        self.inner.measure(first, original, decoded)
    }
}

/// Converts `source` with these statistics, from what is there; how many units were rounded is the second value.
fn convert(folder: &Path, recipe: &str, threads: usize) -> Result<(Compressed, usize)> {
    let plan = Plan::of_recipe(recipe, &[])?;
    let plan = match folder.join("statistics.safetensors") {
        path if path.exists() => plan.with_statistics(StatisticsFile::open(&path)?),
        _ => plan,
    };
    let rounded = Arc::new(AtomicUsize::new(0));
    let counted = Counted { plan, rounded: Arc::clone(&rounded) };
    let options = options(Arc::new(counted), threads);
    let done = compress(&folder.join("source.safetensors"), &folder.join("file.cmz"), &options, &())?;
    Ok((done, rounded.load(Ordering::Relaxed)))
}

fn converted(source: &[u8], statistics: Option<&[u8]>, recipe: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("source.safetensors"), source).unwrap();
    if let Some(statistics) = statistics {
        fs::write(folder.path().join("statistics.safetensors"), statistics).unwrap();
    }
    convert(folder.path(), recipe, 2)?;
    let archive = Archive::open(&folder.path().join("file.cmz"))?;
    let tensors = archive.tensors().iter().map(|tensor| archive.read(&tensor.name));
    Ok(tensors.collect::<Result<Vec<_>>>()?.concat())
}

#[test]
fn each_expert_has_its_own_statistics() {
    const EXPERTS: usize = 8;
    let apart = |expert: usize| (format!("w.{expert}"), "BF16", vec![ROWS, COLUMNS], self::expert(expert, ROWS));
    let named = |expert: usize| (format!("w.{expert}.hessian"), "F32", vec![COLUMNS, COLUMNS], hessian(expert));
    let seen = |expert: &usize| expert % 5 != 2;
    let all = safetensors(&(0..EXPERTS).map(named).collect::<Vec<_>>());
    let some = safetensors(&(0..EXPERTS).filter(seen).map(named).collect::<Vec<_>>());
    for recipe in [GPTQ, "int4:group=16,solver=gptq", "nf4:solver=gptq", "kmeans3", "spqr3:outliers=0"] {
        let expected =
            converted(&safetensors(&(0..EXPERTS).map(apart).collect::<Vec<_>>()), Some(&all), recipe).unwrap();
        for statistics in [&all, &some, &hessians(EXPERTS)] {
            let found = converted(&stack(EXPERTS, ROWS), Some(statistics), recipe).unwrap();
            assert!(found == expected, "{recipe}: other weights than those of each expert alone");
        }
    }
    // Without inputs, weights go to the nearest value.
    let nearest = converted(&stack(EXPERTS, ROWS), None, "ternary").unwrap();
    let solved = converted(&stack(EXPERTS, ROWS), Some(&some), GPTQ).unwrap();
    let len = ROWS * COLUMNS * 2;
    for expert in 0..EXPERTS {
        let same = nearest[expert * len..][..len] == solved[expert * len..][..len];
        assert_eq!(same, !seen(&expert), "expert {expert}");
    }
}

#[test]
fn statistics_that_are_of_no_expert_are_refused() {
    let hessian = |name: &str, shape: &[usize]| {
        let bytes = vec![0; shape.iter().product::<usize>() * 4];
        safetensors(&[(format!("{name}.hessian"), "F32", shape.to_vec(), bytes)])
    };
    let refused = |statistics: &[u8], recipe: &str, why: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("source.safetensors"), stack(3, ROWS)).unwrap();
        fs::write(folder.path().join("statistics.safetensors"), statistics).unwrap();
        let error = convert(folder.path(), recipe, 1).map(drop).unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.to_string().contains(why), "{error}, not {why}");
    };
    refused(&hessian("w", &[2, COLUMNS, COLUMNS]), GPTQ, "[2, 64, 64]");
    refused(&hessian("w.0", &[COLUMNS, 3]), GPTQ, "[64, 3]");
    refused(&hessian("w.3", &[COLUMNS, COLUMNS]), GPTQ, "needs statistics");
    // Rectangles of 100 rows lie in two experts.
    refused(&hessian("w.1", &[COLUMNS, COLUMNS]), "fp8:rows=100", "cannot round the matrices of this stack");
}

/// A conversion that stopped inside a stack goes on there, and comes to the same bytes for any number of threads.
#[test]
fn a_stack_goes_on_where_it_stopped() {
    const EXPERTS: usize = 4;
    // An expert of half a block is the least that has one of its own.
    const ROWS: usize = 4160;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("source.safetensors"), stack(EXPERTS, ROWS)).unwrap();
    fs::write(path("statistics.safetensors"), hessians(EXPERTS)).unwrap();
    for (recipe, units) in [(GPTQ, EXPERTS), ("ternary", EXPERTS)] {
        let (done, rounded) = convert(folder.path(), recipe, 1).unwrap();
        assert_eq!(rounded, units, "{recipe}");
        let whole = fs::read(path("file.cmz")).unwrap();
        let archive = Archive::open(&path("file.cmz")).unwrap();
        let blocks = archive.index().table().iter().map(|record| record.offset as usize);
        let cuts: Vec<usize> = blocks.chain([whole.len()]).collect();
        drop(archive);
        let mut least = units;
        for (threads, &cut) in cuts.iter().enumerate() {
            fs::remove_file(path("file.cmz")).unwrap();
            fs::write(partial_path(&path("file.cmz")), &whole[..cut]).unwrap();
            let (again, rounded) = convert(folder.path(), recipe, 1 + threads % 3).unwrap();
            assert!(fs::read(path("file.cmz")).unwrap() == whole, "{recipe}, cut at {cut}: other bytes");
            assert_eq!(again.lossy, done.lossy);
            assert!(rounded <= least, "{recipe}, cut at {cut}: {rounded} units are rounded again, after {least}");
            least = rounded;
        }
        assert_eq!(least, 0, "{recipe}: a stack that was finished is not rounded again");
        fs::remove_file(path("file.cmz")).unwrap();
    }
}
