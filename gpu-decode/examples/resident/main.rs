//! A small transformer whose weights stay compressed in device memory, beside the same one with plain weights: the outputs are
//! compared bit for bit, sizes and times are printed.
//!
//! Two layers lie decoded in memory at any time, so that the more layers there are, the more is saved; the tiny model on the
//! emulator saves nothing.
//!
//! ```sh
//! cargo run --release -p cmz-gpu-decode --example resident                    # on a GPU
//! cargo run --release -p cmz-gpu-decode --example resident -- --emulator      # a tiny model on the CPU
//! ```

mod model;

use std::error::Error;

use cmz_codec::convert::compress;
use cmz_gpu_decode::GpuDecoder;
use cmz_tests::folder::{Folder, options};
use model::Shape;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (shape, tokens) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (Shape { layers: 24, width: 1024, hidden: 2816 }, 32),
        ["--emulator"] => {
            cmz_gpu_emulator::install_fake_driver();
            (Shape { layers: 3, width: 128, hidden: 192 }, 4)
        }
        _ => return Err("usage: resident [--emulator]".into()),
    };
    let decoder = GpuDecoder::open(0)?;
    println!("{} layers, width {}, on {}", shape.layers, shape.width, decoder.device().name);

    let folder = Folder::new();
    let source = folder.write("model.safetensors", &shape.checkpoint());
    let file = folder.path("model.cmz");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let compressed = compress(&source, &file, &options(threads), &())?;
    let ratio = compressed.len as f64 / compressed.source_len as f64;
    println!("checkpoint {} bytes, compressed {} ({ratio:.4})", compressed.source_len, compressed.len);

    let compared = model::compare(&decoder, &shape, tokens, &file)?;
    println!("            bytes on the device   ms a token");
    for (what, len, outcome) in
        [("plain", compared.plain_len, &compared.plain), ("compressed", compared.resident_len, &compared.resident)]
    {
        println!("{what:10}  {len:19}   {:10.3}", outcome.token_time.as_secs_f64() * 1e3);
    }
    if compared.plain.outputs != compared.resident.outputs {
        return Err("the outputs differ".into());
    }
    println!("{tokens} tokens: outputs are identical, bit for bit");
    Ok(())
}
