//! What a file comes to when it is opened, read and verified.

use std::path::Path;
use std::sync::Arc;

use cmz_codec::convert::{VerifyDepth, VerifyOptions, verify};
use cmz_codec::io::IoMode;
use cmz_codec::{Archive, Code, OpenOptions, Result, Verify};

/// Opens bytes as a file.
///
/// # Errors
/// What opening raises.
pub fn open_bytes(bytes: &[u8]) -> Result<Archive> {
    Archive::from_reader(Box::new(bytes.to_vec()), OpenOptions::default())
}

/// Opens a file in one of the two ways to read.
///
/// # Errors
/// What opening raises.
pub fn open_file(path: &Path, io: IoMode) -> Result<Archive> {
    open_against(path, &[], io)
}

/// Opens a file that may be stored against these.
///
/// # Errors
/// What opening raises.
pub fn open_against(path: &Path, bases: &[Arc<Archive>], io: IoMode) -> Result<Archive> {
    Archive::open_with(path, OpenOptions { io, bases: bases.to_vec(), ..OpenOptions::default() })
}

/// The bytes of the source, on one thread.
///
/// # Errors
/// The first error of the file.
pub fn source_of(archive: &Archive) -> Result<Vec<u8>> {
    let mut source = Vec::new();
    archive.for_each_source_chunk(1, |bytes| {
        source.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(source)
}

/// Reads every tensor and, if there is one, the source. Returns the tensors' bytes.
///
/// # Errors
/// The first error of the file.
pub fn read_everything(archive: &Archive) -> Result<Vec<Vec<u8>>> {
    let tensors =
        archive.tensors().iter().map(|tensor| archive.read(&tensor.name)).collect::<Result<Vec<Vec<u8>>>>()?;
    if archive.source().is_ok() {
        archive.for_each_source_chunk(1, |_| Ok(()))?;
    }
    Ok(tensors)
}

/// The first thing that verification finds wrong with a file.
#[must_use]
pub fn verify_code(path: &Path) -> Option<Code> {
    verify_code_against(path, &[], IoMode::Auto)
}

/// The first thing that verification finds wrong with a file that may be stored against these.
#[must_use]
pub fn verify_code_against(path: &Path, bases: &[Arc<Archive>], io: IoMode) -> Option<Code> {
    let options = VerifyOptions { depth: VerifyDepth::Decoded, threads: 1, io, bases: bases.to_vec() };
    match verify(path, &options, &()) {
        Err(e) => Some(e.code()),
        Ok(verified) => verified.damage.first().or(verified.unsupported.first()).map(cmz_codec::Error::code),
    }
}

/// Opens bytes and reads everything in them, with every checksum verified.
///
/// # Errors
/// The first error of the file.
pub fn read_bytes_fully(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let options = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
    read_everything(&Archive::from_reader(Box::new(bytes.to_vec()), options)?)
}
