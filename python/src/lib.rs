//! The native module of the Python package `cmz`: files, conversions, and decoders of CUDA devices.
//! The interpreter runs other threads while they work.

mod archive;
mod convert;
mod error;
mod gpu;
mod job;
mod memory;
mod save;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<archive::Archive>()?;
    module.add_class::<archive::View>()?;
    module.add_class::<gpu::Gpu>()?;
    module.add_class::<gpu::Plan>()?;
    module.add_function(wrap_pyfunction!(convert::files_of, module)?)?;
    module.add_function(wrap_pyfunction!(convert::weight_map, module)?)?;
    module.add_function(wrap_pyfunction!(convert::compress, module)?)?;
    module.add_function(wrap_pyfunction!(convert::decompress, module)?)?;
    module.add_function(wrap_pyfunction!(convert::verify, module)?)?;
    module.add_function(wrap_pyfunction!(convert::estimate, module)?)?;
    module.add_function(wrap_pyfunction!(save::save, module)?)?;
    Ok(())
}

/// Number of threads that a caller means: 0 stands for one for each core.
fn threads(wanted: usize) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    if wanted == 0 { all() } else { wanted }
}
