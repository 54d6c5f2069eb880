//! The checked-in PTX has the parameters of the kernels that the emulator runs: it is not of an older signature.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use cmz_gpu_emulator::{kernels, parameter_bytes};

/// Bytes of each parameter of an entry, from its PTX: `.param .u64 name` or `.param .align 8 .b8 name[40]`.
fn bytes_in_ptx(ptx: &str, kernel: &str) -> Option<Vec<u32>> {
    let (_, entry) = ptx.split_once(&format!(".entry {kernel}("))?;
    let (parameters, _) = entry.split_once(')')?;
    parameters.split(',').filter(|line| line.contains(".param")).map(bytes_of_parameter).collect()
}

fn bytes_of_parameter(declaration: &str) -> Option<u32> {
    let kind = declaration.split_whitespace().rfind(|word| word.starts_with('.'))?;
    let bits: u32 = kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
    let elements = match declaration.split_once('[') {
        Some((_, rest)) => rest.split(']').next()?.parse().ok()?,
        None => 1,
    };
    Some(bits / 8 * elements)
}

#[test]
fn parameters_are_read_from_ptx() {
    let ptx = ".visible .entry k(\n.param .u64 k_0,\n.param .align 8 .b8 k_1[40],\n.param .u8 k_2\n)\n{";
    assert_eq!(bytes_in_ptx(ptx, "k"), Some(vec![8, 40, 1]));
    assert_eq!(bytes_in_ptx(ptx, "other"), None);
}

#[test]
fn the_ptx_of_every_kernel_has_its_parameters() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ptx");
    for kernel in kernels() {
        let file = folder.join(kernel).with_extension("ptx");
        let ptx = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(bytes_in_ptx(&ptx, kernel), parameter_bytes(kernel), "{kernel}");
    }
}
