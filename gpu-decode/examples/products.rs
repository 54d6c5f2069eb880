//! Products with matrices of the sizes of Switch's experts, ternary and of 4 bits, beside what reading them as BF16 takes: the least time of
//! any dense product. Experts of one size lie behind each other in one matrix, so that no cache holds them.
//!
//! ```sh
//! cargo run --release -p cmz-gpu-decode --example products                    # on a GPU
//! cargo run --release -p cmz-gpu-decode --example products -- --emulator      # tiny ones on the CPU, whose times say nothing
//! ```
#![expect(unsafe_code, reason = "products take device addresses")]

use std::error::Error;

use cmz_codec::Archive;
use cmz_codec::encoding::{affine, ternary};
use cmz_gpu_decode::{GpuDecoder, QuantizedMatrix, Request, Residency};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::folder::Folder;
use cmz_tests::inputs::{Rng, bf16_weights};
use cmz_tests::source::Source;
use cudarc::driver::sys::CUevent_flags;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rows and columns of the experts of switch-base, -large and -c-2048.
const SHAPES: [[u64; 2]; 6] = [[3072, 768], [768, 3072], [4096, 1024], [1024, 4096], [6144, 2080], [2080, 6144]];
/// Of 1000 ternary weights so many are 0, as in QMoE's switch-c-2048.
const ZEROS: usize = 886;
const BATCHES: [u32; 3] = [1, 4, 16];
const RUNS: usize = 20;

fn main() -> Result<()> {
    let (shapes, bytes) = match std::env::args().nth(1).as_deref() {
        None => (SHAPES, 512 << 20),
        Some("--emulator") => {
            cmz_gpu_emulator::install_fake_driver();
            (SHAPES.map(|shape| shape.map(|n| n / 32)), 1 << 17)
        }
        Some(_) => return Err("usage: products [--emulator]".into()),
    };
    let decoder = GpuDecoder::open(0)?;
    println!("{}; microseconds, the best of {RUNS}\n", decoder.device().name);
    println!(
        "| matrix | stored | bits a weight on the device | read as BF16 | decode | x 1 | x 4 | x 16 |\n|---|---|---|---|---|---|---|---|"
    );
    for [rows, columns] in shapes {
        let experts = (bytes / 2 / (rows * columns)).max(1);
        let folder = Folder::new();
        let by_affine = || Storage::of(&affine::SYMMETRIC, "BF16", &["bitpack", "raw"], block(columns));
        let by_ternary = |codec| Storage::of(&ternary::BY_ROW, "BF16", &[codec, "raw"], block(columns));
        let shape = [experts, rows, columns];
        for (what, storage, residency) in [
            ("tunstall", by_ternary("tunstall"), Residency::Compressed),
            ("dictionary", by_ternary("dictionary"), Residency::Compressed),
            ("tunstall, packed", by_ternary("tunstall"), Residency::Packed),
            ("integers, packed", by_affine(), Residency::Packed),
        ] {
            let weights = if what.starts_with("integers") { normal(&shape) } else { ternary_weights(&shape) };
            let source = Source::new().tensor("experts", "BF16", &shape, weights).build();
            let file = folder.write("experts.cmz", &write(&source, |_| storage.clone())?);
            let archive = Archive::open(&file)?;
            let measured = decoder.measure(&archive, RUNS, 4)?;
            let matrix = decoder.quantized_matrix(&archive, &Request::whole(0), residency, 4)?;
            let bits = 8.0 * matrix.device_len() as f64 / (experts * rows * columns) as f64;
            let us = |seconds: f64| format!("{:.1}", seconds * 1e6);
            let products = BATCHES.map(|batch| multiply(&decoder, &archive, &matrix, batch).map(us));
            let products = products.into_iter().collect::<Result<Vec<_>>>()?.join(" | ");
            // A copy reads and writes.
            let (dense, decode) = (us(measured.copy_seconds / 2.0), us(measured.decode_seconds));
            println!("| {experts} x {rows} x {columns} | {what} | {bits:.3} | {dense} | {decode} | {products} |");
        }
    }
    Ok(())
}

/// Elements of a block: whole rows, about a million.
fn block(columns: u64) -> u64 {
    ((1 << 20) / columns).max(1) * columns
}

fn normal(shape: &[u64; 3]) -> Vec<u8> {
    bf16_weights(1, shape.iter().product::<u64>() as usize)
}

/// 0 and the two numbers of each row.
fn ternary_weights(shape: &[u64; 3]) -> Vec<u8> {
    let mut rng = Rng::new(2);
    let mut weights = Vec::new();
    for row in 0..shape[0] * shape[1] {
        let (least, greatest) = (0xbd00 + row as u16 % 128, 0x3d00 + row as u16 % 101);
        for _ in 0..shape[2] {
            let one = rng.below(1000);
            let weight = if one < ZEROS {
                0
            } else if one.is_multiple_of(2) {
                least
            } else {
                greatest
            };
            weights.extend(weight.to_le_bytes());
        }
    }
    weights
}

/// Seconds of a product with so many vectors.
fn multiply(decoder: &GpuDecoder, archive: &Archive, matrix: &QuantizedMatrix, batch: u32) -> Result<f64> {
    let stream = decoder.new_stream()?;
    let mut x = decoder.allocate(4 * batch as usize * matrix.columns())?;
    let numbers: Vec<u8> = (0..x.len() / 4).flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes()).collect();
    x.write(&stream, 0, &numbers)?;
    let y = decoder.allocate(4 * batch as usize * matrix.rows())?;
    let event = || decoder.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    let (start, end) = (event()?, event()?);
    let mut best = f64::INFINITY;
    for run in 0..=RUNS {
        start.record(&stream)?;
        // SAFETY: `x` and `y` are as long as the shapes say, and every run is waited for.
        unsafe { matrix.multiply(&stream, x.address(), y.address(), batch) }?;
        end.record(&stream)?;
        let seconds = f64::from(start.elapsed_ms(&end)?) / 1000.0;
        // The first one loads the kernel.
        best = if run == 0 { best } else { best.min(seconds) };
    }
    matrix.check(archive, &stream)?;
    Ok(best)
}
