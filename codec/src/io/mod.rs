//! Reading bytes at an offset: from a file, from a mapped file, from memory.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use cmz_format::{Code, Error, Result};

mod filesystem;
mod mmap;

pub use mmap::MappedFile;

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoMode {
    /// [`IoMode::Mmap`] on local file systems, [`IoMode::Pread`] on network ones.
    #[default]
    Auto,
    /// Mapped into memory: raw tensors are available without a copy. See [`MappedFile`]
    /// for what happens when somebody shortens the file meanwhile.
    Mmap,
    /// Read by system calls: memory stays bounded and a shortened file is an error.
    Pread,
}

impl IoMode {
    /// How a file is read that is read from front to back, or once: as asked for, and by system
    /// calls otherwise, so that memory stays bounded.
    #[must_use]
    pub fn for_one_pass(self) -> Self {
        if self == Self::Auto { Self::Pread } else { self }
    }
}

/// Bytes that can be read at any offset, from several threads at once.
pub trait ReadAt: Send + Sync {
    /// Number of bytes.
    fn byte_len(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`Code::Truncated`] if there are not so many bytes, [`Code::Io`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// The bytes in place, without a copy, where that is possible.
    ///
    /// # Errors
    /// [`Code::Truncated`] if there are not so many bytes.
    fn slice(&self, range: Range<u64>) -> Result<Option<&[u8]>> {
        let _ = range;
        Ok(None)
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`Code::Io`] if it cannot be opened or is not a regular file.
pub fn open(path: &Path, mode: IoMode) -> Result<Box<dyn ReadAt>> {
    let file = open_file(path)?;
    let mapped = match mode {
        IoMode::Mmap => true,
        IoMode::Pread => false,
        IoMode::Auto => !filesystem::is_remote(&file),
    };
    if mapped {
        return Ok(Box::new(MappedFile::new(file, path)?));
    }
    Ok(Box::new(PlainFile::new(file, path)?))
}

fn open_file(path: &Path) -> Result<File> {
    let open = || {
        // Opening a pipe would wait for its writer.
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_file() {
            return File::open(path);
        }
        let what = if kind.is_dir() { "it is a directory" } else { "it is not a regular file" };
        Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what))
    };
    open().map_err(|e| Error::io("cannot open the file", e).in_file(path))
}

/// A file that is read by system calls.
#[derive(Debug)]
pub struct PlainFile {
    file: File,
    len: u64,
}

impl PlainFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Code::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(open_file(path)?, path)
    }

    fn new(file: File, path: &Path) -> Result<Self> {
        let len = file.metadata().map_err(|e| Error::io("cannot get the file's size", e).in_file(path))?.len();
        Ok(Self { file, len })
    }
}

impl ReadAt for PlainFile {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, offset, buffer).map_err(|e| Error::io("reading", e).at(offset))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

impl ReadAt for Vec<u8> {
    fn byte_len(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.copy_from_slice(part(self, offset..offset.saturating_add(buffer.len() as u64))?);
        Ok(())
    }

    fn slice(&self, range: Range<u64>) -> Result<Option<&[u8]>> {
        part(self, range).map(Some)
    }
}

/// A range of bytes, if there is one.
fn part(bytes: &[u8], range: Range<u64>) -> Result<&[u8]> {
    let index = |offset| usize::try_from(offset).ok();
    index(range.start)
        .zip(index(range.end))
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| Error::new(Code::Truncated, "the file ends too early").at(bytes.len() as u64))
}
