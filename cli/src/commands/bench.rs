//! `cmz bench`.

use std::path::Path;
use std::time::Instant;

use cmz_codec::{Archive, OpenOptions, Result, Verify};
use cmz_gpu_decode::GpuDecoder;
use serde_json::{Value, json};

use crate::args::Bench;
use crate::context::Context;
use crate::report::Report;
use crate::text::{count, path, size, table};

/// Decoded bytes that are copied and decoded on the CPU, at most.
const MOST_BYTES: u64 = 4 << 30;

pub(crate) fn run(args: &Bench, context: &Context) -> Report {
    bench(args, context).into()
}

fn bench(args: &Bench, context: &Context) -> Result<Report> {
    let open = context.open_options(&args.base)?;
    let archive = Archive::open_with(&args.input, open.clone())?;
    let gpu = args.device.open(context)?;
    let runs = args.runs.max(1);
    let (rows, json) = match &gpu {
        Some(decoder) => on_gpu(decoder, &archive, runs, context)?,
        None => on_cpu(&args.input, &open, runs, context)?,
    };
    let mut report = Report { text: format!("{}\n", path(&args.input)), ..Report::default() };
    report.text.push_str(&table(&["what", "bytes", "GB/s"], &[1, 2], &rows));
    report.json.insert("file".to_owned(), args.input.to_string_lossy().into());
    report.json.insert("runs".to_owned(), runs.into());
    report.json.insert("measured".to_owned(), json);
    Ok(report)
}

fn row(what: &str, bytes: u64, seconds: f64) -> Vec<String> {
    vec![what.to_owned(), size(bytes), format!("{:.2}", bytes as f64 / seconds / 1e9)]
}

/// Decoding beside copying, on the CPU, from the page cache.
fn on_cpu(file: &Path, open: &OpenOptions, runs: usize, context: &Context) -> Result<(Vec<Vec<String>>, Value)> {
    let mut rows = Vec::new();
    let mut measured = Vec::new();
    let mut add = |what: String, bytes: u64, seconds: f64| {
        measured.push(json!({"what": what, "bytes": bytes, "seconds": seconds}));
        rows.push(row(&what, bytes, seconds));
    };
    let mut threads = vec![1];
    threads.extend((context.threads > 1).then_some(context.threads));
    for &threads in &threads {
        for verify in [Verify::Stored, Verify::Full] {
            let archive = Archive::open_with(file, OpenOptions { verify, ..open.clone() })?;
            let mut left = MOST_BYTES;
            let wanted = |tensor: &usize| {
                let len = archive.index().tensor_len(*tensor);
                let fits = len <= left;
                left = left.saturating_sub(len);
                fits
            };
            let tensors: Vec<usize> = (0..archive.tensors().len()).filter(wanted).collect();
            let (mut best, mut bytes) = (f64::INFINITY, 0);
            for _ in 0..=runs {
                let start = Instant::now();
                bytes = 0;
                archive.for_each_block(tensors.iter().copied(), threads, |block| {
                    bytes += block.bytes.len() as u64;
                    Ok(())
                })?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            let checks = if verify == Verify::Full { "stored and decoded checksums" } else { "stored checksums" };
            add(format!("decode, {}, {checks}", count(threads as u64, "thread")), bytes, best);
        }
    }
    let source = vec![1u8; 64 << 20];
    let mut target = vec![0u8; source.len()];
    let mut best = f64::INFINITY;
    for _ in 0..=runs {
        let start = Instant::now();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        best = best.min(start.elapsed().as_secs_f64());
    }
    add("memcpy, 1 thread".to_owned(), source.len() as u64, best);
    Ok((rows, json!({"device": "cpu", "figures": measured})))
}

/// Decoding and loading beside copying, on the GPU.
fn on_gpu(
    decoder: &GpuDecoder,
    archive: &Archive,
    runs: usize,
    context: &Context,
) -> Result<(Vec<Vec<String>>, Value)> {
    let measured = decoder.measure(archive, runs, context.threads)?;
    if measured.tensors < archive.tensors().len() {
        context
            .note(&format!("measured with the first {} tensors: a quarter of the device's memory", measured.tensors));
    }
    let device = decoder.device();
    let rows = vec![
        row(&format!("decode on {}", device.name), measured.decoded, measured.decode_seconds),
        row("copy inside the device", measured.decoded, measured.copy_seconds),
        row("load from the file", measured.decoded, measured.load_seconds),
        row("  of it copied to the device", measured.load_copied, measured.load_seconds),
        vec!["copy from pinned memory".to_owned(), String::new(), format!("{:.2}", measured.host_copy_rate / 1e9)],
    ];
    let json = json!({
        "device": device.name,
        "compute_capability": [device.compute_capability.0, device.compute_capability.1],
        "cuda": [device.driver.0, device.driver.1],
        "tensors": measured.tensors,
        "decoded": measured.decoded,
        "resident": measured.resident,
        "decode_seconds": measured.decode_seconds,
        "copy_seconds": measured.copy_seconds,
        "load_seconds": measured.load_seconds,
        "load_copied": measured.load_copied,
        "host_copy_rate": measured.host_copy_rate,
    });
    Ok((rows, json))
}
