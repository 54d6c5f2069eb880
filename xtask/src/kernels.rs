//! PTX of the kernels, as text in the repository, so that building cmz never needs nvcc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::list::{self, Kernel};
use crate::tool::{Nvcc, VIRTUAL, output};

/// Where the PTX is, from the repository's root.
const PTX: &str = "gpu-decode/ptx";
/// The version that nvcc writes, and the one that the kernels need: with it drivers from 525 on (CUDA 12.0) take the
/// text, and not only those from 580 on.
const PTX_VERSION: (&str, &str) = (".version 9.0", ".version 8.0");
/// A hint to the assembler, about bytes of a load that nobody uses, which is newer than that version.
const NEWER_HINT: &str = ".pragma \"used_bytes_mask";
/// What the PTX must assemble for.
const ARCHITECTURES: &[&str] = &["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];
/// What the oldest assembler must assemble it for: it knows no later one.
const OLD_ARCHITECTURE: &str = "sm_90";

/// Compiles every kernel of the list.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let nvcc = Nvcc::find()?;
    let folder = root.join(PTX);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for kernel in list::kernels(root) {
        let file = ptx_file(root, &kernel);
        fs::write(&file, compile(root, &nvcc, &kernel)?).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("{}", file.strip_prefix(root).unwrap_or(&file).display());
    }
    Ok(())
}

/// Compares what is checked in with what the sources compile to, and assembles it.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let nvcc = Nvcc::find()?;
    let kernels = list::kernels(root);
    for kernel in &kernels {
        let file = ptx_file(root, kernel);
        if fs::read_to_string(&file).ok() != Some(compile(root, &nvcc, kernel)?) {
            return Err(format!("{} is stale: run `cargo xtask kernels` and commit it", file.display()));
        }
        println!("{}", kernel.name);
        for architecture in ARCHITECTURES {
            println!("  {architecture:7} {}", assemble(&nvcc, kernel, &file, architecture)?);
        }
        if let Some(old) = env::var_os("CMZ_PTXAS_OLD") {
            let arch = format!("-arch={OLD_ARCHITECTURE}");
            output(Command::new(old).args([arch.as_str(), "-o", "/dev/null"]).arg(&file))?;
            println!("  {OLD_ARCHITECTURE:7} assembled by the old ptxas too");
        }
    }
    unlisted(root, &kernels)
}

fn ptx_file(root: &Path, kernel: &Kernel) -> PathBuf {
    root.join(PTX).join(&kernel.name).with_extension("ptx")
}

fn compile(root: &Path, nvcc: &Nvcc, kernel: &Kernel) -> Result<String, String> {
    let text = nvcc.compile(root, kernel, &["-ptx", "-arch", VIRTUAL], Path::new("/dev/stdout"))?;
    let entry = format!(".entry {}(", kernel.name);
    if !text.contains(&entry) {
        return Err(format!("{} defines no extern \"C\" __global__ {}", kernel.source.display(), kernel.name));
    }
    let (written, needed) = PTX_VERSION;
    if !text.contains(written) {
        return Err(format!("{}: nvcc did not write {written}", kernel.name));
    }
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(NEWER_HINT));
    Ok(lines.flat_map(|line| [line, "\n"]).collect::<String>().replacen(written, needed, 1))
}

/// Assembles a PTX file as a driver would; returns registers and shared memory. Spills and local memory are errors.
fn assemble(nvcc: &Nvcc, kernel: &Kernel, file: &Path, architecture: &str) -> Result<String, String> {
    let mut command = Command::new(nvcc.ptxas());
    command.args([&format!("-arch={architecture}"), "-v", "-Werror"]);
    command.args(["--warn-on-spills", "--warn-on-local-memory-usage", "-o", "/dev/null"]).arg(file);
    let printed = output(&mut command)?;
    let of_kernel = printed.split_once(&format!("entry function '{}'", kernel.name)).map_or("", |(_, rest)| rest);
    let used = of_kernel.lines().find_map(|line| line.split_once("Used ")).map(|(_, used)| used);
    used.map(str::to_owned).ok_or_else(|| format!("{command:?} does not say what is used:\n{printed}"))
}

/// PTX that no line of the list makes.
fn unlisted(root: &Path, kernels: &[Kernel]) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(root.join(PTX)) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if !kernels.iter().any(|kernel| ptx_file(root, kernel) == path) {
            return Err(format!("{} is of no kernel of {}: remove it", path.display(), list::LIST));
        }
    }
    Ok(())
}
