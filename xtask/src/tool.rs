//! The CUDA compiler and assemblers: where they are and with which options they are run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::list::{INCLUDE, Kernel};

/// The compiler whose PTX is checked in: another one writes other text.
const RELEASE: &str = "V13.0.88";
/// What the kernels are compiled for: the oldest architecture that they run on. Drivers assemble it for newer ones.
pub(crate) const VIRTUAL: &str = "compute_75";
/// Options of every compilation.
const OPTIONS: &[&str] = &["-O3", "-std=c++17", "-Werror", "all-warnings"];

/// nvcc, checked to be of the pinned release.
pub(crate) struct Nvcc(PathBuf);

impl Nvcc {
    pub(crate) fn find() -> Result<Self, String> {
        let nvcc = env::var_os("CMZ_NVCC").map_or_else(|| PathBuf::from("nvcc"), PathBuf::from);
        let version = output(Command::new(&nvcc).arg("--version"))
            .map_err(|e| format!("{e}\n`xtask/get-nvcc.sh DIR` installs nvcc; or set CMZ_NVCC"))?;
        if !version.contains(RELEASE) {
            return Err(format!("the checked-in PTX is made by nvcc {RELEASE}; {} is:\n{version}", nvcc.display()));
        }
        Ok(Self(nvcc))
    }

    /// The assembler of the same release.
    pub(crate) fn ptxas(&self) -> PathBuf {
        self.0.with_file_name("ptxas")
    }

    /// Compiles a kernel with `options` besides those that every compilation has; returns what nvcc prints.
    pub(crate) fn compile(&self, root: &Path, kernel: &Kernel, options: &[&str], to: &Path) -> Result<String, String> {
        let mut command = Command::new(&self.0);
        command.current_dir(root).args(OPTIONS).args(options);
        command.args(INCLUDE.iter().map(|folder| format!("-I{folder}")));
        output(command.arg("-o").arg(to).arg(&kernel.source))
    }
}

/// Runs a command; what it printed, on standard output first, or a message that says what failed.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() { Ok(printed) } else { Err(format!("{command:?}: {}\n{printed}", output.status)) }
}
