//! Tasks of the repository: `cargo xtask`.

mod header;
mod kernels;
mod list;
mod sass;
mod tool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask kernels           compiles the CUDA kernels to gpu-decode/ptx/NAME.ptx
cargo xtask kernels --check   fails if one is stale, spills, uses local memory, or does not assemble for every GPU
cargo xtask header            makes the C header gpu-decode/c-abi/include/cmz_gpu.h
cargo xtask header --check    fails if it is stale
cargo xtask sass [KERNEL]     lane-instructions per element from the disassembly, phase by phase

The kernels are those of gpu-decode/kernels/list.txt. nvcc is $CMZ_NVCC, or else the one on the path; an assembler of
CUDA 12.0 is $CMZ_PTXAS_OLD, and is not asked when that is not set; nvdisasm is $CMZ_NVDISASM, or else the one on the
path. `xtask/get-nvcc.sh DIR` installs all three.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["kernels"] => kernels::write(&root()),
        ["kernels", "--check"] => kernels::check(&root()),
        ["header"] => header::write(&root()),
        ["header", "--check"] => header::check(&root()),
        ["sass"] => sass::count(&root(), None),
        ["sass", kernel] => sass::count(&root(), Some(kernel)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository").to_owned()
}
