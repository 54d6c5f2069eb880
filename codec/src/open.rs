//! How a `.cmz` file is opened.

use std::sync::Arc;

use cmz_format::Limits;

use crate::Archive;
use crate::io::IoMode;

/// Which checksums a read verifies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Those of the stored bytes: damage to the file is found.
    #[default]
    Stored,
    /// Those of the decoded bytes too: errors of a decoder or of memory are found.
    Full,
    /// None: for bytes that have been verified already.
    None,
}

/// How an [`Archive`] is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// How the file is read.
    pub io: IoMode,
    /// Which checksums are verified.
    pub verify: Verify,
    /// What is accepted.
    pub limits: Limits,
    /// Files that tensors may be stored against. Of these, a tensor's base is the one with the
    /// right root digest; the rest is not used.
    pub bases: Vec<Arc<Archive>>,
}
