//! What the tests share: builders of source files and of `.cmz` files that break exactly
//! one rule, the table of golden files, and the bodies of the fuzz targets.

pub mod check;
pub mod cmz;
pub mod folder;
pub mod fuzz;
pub mod golden;
pub mod inputs;
pub mod raw_file;
pub mod source;

use std::path::{Path, PathBuf};

/// Where the golden files are.
#[must_use]
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Where the real weights are.
#[must_use]
pub fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}
