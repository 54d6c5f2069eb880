//! Checkpoints that another program has compressed, read as the safetensors files that they
//! were made from.
//!
//! An importer decodes on demand: a [`Restored`] file is a source for
//! [`crate::convert::compress_source`] like any other, and only the parts being worked on
//! are in memory.

use std::path::{Path, PathBuf};

use cmz_format::Result;

use crate::io::PlainFile;
use crate::safetensors::Header;

pub mod dfloat11;
pub mod qmoe;
pub mod quantized;
mod restored;
pub mod torch;

pub use restored::Restored;

/// What is known of a file of the original checkpoint: its header. The tensors' bytes may be
/// missing from the file.
#[derive(Debug)]
pub struct Original {
    /// Where it is.
    pub path: PathBuf,
    /// Its names, element types and shapes.
    pub header: Header,
    /// The header's own bytes, length field included.
    bytes: Vec<u8>,
}

impl Original {
    /// Reads a header.
    ///
    /// # Errors
    /// As [`Header::read_alone`].
    pub fn read(path: &Path) -> Result<Self> {
        let (header, bytes) = Header::read_alone(&PlainFile::open(path)?).map_err(|e| e.in_file(path))?;
        Ok(Self { path: path.to_owned(), header, bytes })
    }
}
