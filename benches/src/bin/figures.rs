//! The figures of the README: sizes, memory, time to open. Run it with
//! `cargo run --release -p cmz-benches --bin figures -- [--gigabytes N] [model.safetensors …]`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cmz_codec::Archive;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut gigabytes = 10;
    let mut models = vec![PathBuf::from("tests/data/minilm-layer0-bf16.safetensors")];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--gigabytes" => gigabytes = arguments.next().ok_or("--gigabytes needs a number")?.parse()?,
            model => models.push(model.into()),
        }
    }
    build_cmz()?;
    let folder = std::env::temp_dir().join(format!("cmz-figures-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = print_figures(&folder, &models, gigabytes);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn print_figures(folder: &Path, models: &[PathBuf], gigabytes: usize) -> Result<()> {
    println!("| what | figure |\n|---|---|");
    for model in models {
        let target = folder.join("model.cmz");
        let before = std::fs::metadata(model)?.len();
        for level in ["fast", "max"] {
            compress(model, &target, level)?;
            let ratio = std::fs::metadata(&target)?.len() as f64 / before as f64;
            println!("| {}, level {level}: whole `.cmz` over whole safetensors | {ratio:.4} |", model.display());
        }
    }
    let many = folder.join("many.safetensors");
    cmz_benches::write_checkpoint(&many, 100_000, 1, 16)?;
    let target = folder.join("many.cmz");
    compress(&many, &target, "fast")?;
    let start = Instant::now();
    let archive = Archive::open(&target)?;
    println!("| open a file of {} tensors | {:.3} s |", archive.tensors().len(), start.elapsed().as_secs_f64());
    if gigabytes > 0 {
        let large = folder.join("large.safetensors");
        // 128 MiB to a tensor.
        cmz_benches::write_checkpoint(&large, gigabytes * 10_usize.pow(9) / (128 << 20) + 1, 8192, 8192)?;
        let target = folder.join("large.cmz");
        let (seconds, peak) = compress(&large, &target, "fast")?;
        let len = std::fs::metadata(&large)?.len() as f64;
        println!("| convert and verify {:.1} GB: peak resident memory | {} MB |", len / 1e9, peak >> 20);
        println!("| the same: source bytes per second, with verification | {:.2} GB/s |", len / 1e9 / seconds);
    }
    Ok(())
}

fn build_cmz() -> Result<()> {
    let status = Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "-p", "cmz-cli"]).status()?;
    if status.success() { Ok(()) } else { Err("cmz does not build".into()) }
}

/// Runs `cmz compress`; returns seconds and the peak of resident memory in bytes.
fn compress(source: &Path, target: &Path, level: &str) -> Result<(f64, u64)> {
    let start = Instant::now();
    let mut child = Command::new("target/release/cmz")
        .args(["compress", "--quiet", "--force", "--level", level, "-o"])
        .args([target, source])
        .stdout(Stdio::null())
        .spawn()?;
    let peak = watch(&mut child)?;
    Ok((start.elapsed().as_secs_f64(), peak))
}

/// Waits for a process and returns the peak of its resident memory in bytes: Linux keeps
/// it as a high-water mark, so that looking now and then is enough.
fn watch(child: &mut Child) -> Result<u64> {
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        let kilobytes =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(peak) } else { Err(format!("cmz failed: {status}").into()) };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
