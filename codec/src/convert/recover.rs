//! Saves what is whole of a damaged or cut file.

use std::path::Path;

use cmz_format::{Error, Result};

/// A tensor that could not be saved.
#[derive(Debug)]
pub struct Lost {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Error,
}

/// What was saved.
#[derive(Debug)]
pub struct Recovered {
    /// Names of the tensors in the new file.
    pub saved: Vec<String>,
    /// Tensors that are not in the new file.
    pub lost: Vec<Lost>,
}

/// Saves.
///
/// # Errors
/// None yet.
pub fn recover(_: &Path, _: &Path) -> Result<Recovered> {
    Ok(Recovered { saved: vec![], lost: vec![] })
}
