//! What the kernels cost: instructions of the disassembly, weighed by how often each runs.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::list;
use crate::tool::{Nvcc, VIRTUAL, output};

/// The architecture that is counted.
const ARCHITECTURE: &str = "sm_90";

/// Counts one kernel, or all.
pub(crate) fn count(root: &Path, name: Option<&str>) -> Result<(), String> {
    let nvcc = Nvcc::find()?;
    let kernels: Vec<_> =
        list::kernels(root).into_iter().filter(|kernel| name.is_none_or(|name| kernel.name == name)).collect();
    if kernels.is_empty() {
        return Err(format!("no such kernel in {}", list::LIST));
    }
    let folder = root.join("target/sass");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for kernel in kernels {
        let cubin = folder.join(&kernel.name).with_extension("cubin");
        // From the virtual architecture, as a driver makes it of the PTX.
        let gencode = format!("-gencode=arch={VIRTUAL},code={ARCHITECTURE}");
        nvcc.compile(root, &kernel, &["-cubin", "-lineinfo", &gencode], &cubin)?;
        let nvdisasm = env::var("CMZ_NVDISASM").unwrap_or_else(|_| "nvdisasm".to_owned());
        let disassembly = output(Command::new(nvdisasm).args(["-c", "-gi"]).arg(&cubin))?;
        let text = cubin.with_extension("sass");
        fs::write(&text, disassembly).map_err(|e| format!("{}: {e}", text.display()))?;
        let script = root.join("xtask/sass.py");
        print!("{}", output(Command::new("python3").arg(script).arg(&text).arg(&kernel.name))?);
    }
    Ok(())
}
