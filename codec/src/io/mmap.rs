//! Files mapped into memory: the one place of this crate where mapping is unsafe.
#![expect(unsafe_code, reason = "mapping a file is unsafe: another process can change it")]

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use cmz_format::{Code, Error, Result};
use memmap2::Mmap;

use super::{ReadAt, part};

/// A file mapped into memory.
///
/// If another process shortens the file while it is mapped, the operating system ends
/// the process with SIGBUS at the first access behind the new end. Every read checks the
/// file's length first and reports [`Code::Truncated`] instead, so the signal is left to
/// a file that shrinks in the microseconds between check and access, or while a slice
/// of it is in use. Where files may be cut under a reader, use
/// [`super::IoMode::Pread`].
#[derive(Debug)]
pub struct MappedFile {
    file: File,
    map: Mmap,
}

impl MappedFile {
    pub(super) fn new(file: File, path: &Path) -> Result<Self> {
        // SAFETY: the mapping is read-only and private to this value. A change of the
        // file by another process can change bytes that have been checked; the decoders
        // are memory-safe on any bytes, so that wrong data is the worst outcome.
        let map =
            unsafe { Mmap::map(&file) }.map_err(|e| Error::io("cannot map the file into memory", e).in_file(path))?;
        Ok(Self { file, map })
    }

    /// Fails if the file has been shortened since it was mapped.
    fn check_len(&self) -> Result<()> {
        let len = self.file.metadata().map_err(|e| Error::io("cannot get the file's size", e))?.len();
        if len >= self.map.len() as u64 {
            return Ok(());
        }
        Err(Error::new(Code::Truncated, format!("the file was cut from {} to {len} bytes while open", self.map.len()))
            .at(len)
            .with_help("use --io pread where files may change under a reader"))
    }
}

impl ReadAt for MappedFile {
    fn byte_len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check_len()?;
        buffer.copy_from_slice(part(&self.map, offset..offset.saturating_add(buffer.len() as u64))?);
        Ok(())
    }

    fn slice(&self, range: Range<u64>) -> Result<Option<&[u8]>> {
        self.check_len()?;
        part(&self.map, range).map(Some)
    }
}
