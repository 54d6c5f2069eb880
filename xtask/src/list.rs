//! The list of CUDA kernels, for the command that compiles them and for the build of the emulator.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the list is, from the repository's root.
pub(crate) const LIST: &str = "gpu-decode/kernels/list.txt";

/// Folders that a kernel's source may include from, from the repository's root.
pub(crate) const INCLUDE: &[&str] = &["gpu-decode/kernels"];

/// A kernel of the list.
pub(crate) struct Kernel {
    /// Its name, as in `extern "C" __global__ void NAME`.
    pub(crate) name: String,
    /// Its source.
    pub(crate) source: PathBuf,
}

/// Reads the list of the repository at `root`.
///
/// # Panics
/// When the list cannot be read or a line of it is not a name and a path.
pub(crate) fn kernels(root: &Path) -> Vec<Kernel> {
    let path = root.join(LIST);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, source] => Kernel { name: name.to_owned(), source: root.join(source) },
            _ => panic!("{LIST}: {line:?} is not a name and a path"),
        })
        .collect()
}
