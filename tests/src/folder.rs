//! A folder of its own for a test, in memory where the system has such a place.

use std::fs;
use std::path::{Path, PathBuf};

use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{CompressOptions, DecompressOptions, compress, decompress};
use cmz_codec::io::IoMode;
use cmz_codec::{Archive, Result};
use tempfile::TempDir;

/// A folder that is deleted with everything in it.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Folder {
    /// An empty folder.
    ///
    /// # Panics
    /// If none can be made.
    #[must_use]
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self(made.expect("a folder for temporary files"))
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file can be written");
        path
    }

    /// The names of the files in it, sorted.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the folder can be read");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("the folder can be read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Compresses a source to `name`, replacing what is there, and returns the bytes.
    ///
    /// # Errors
    /// What the conversion raises.
    ///
    /// # Panics
    /// If the files cannot be written or read.
    pub fn compress(&self, name: &str, source: &[u8], options: &CompressOptions) -> Result<Vec<u8>> {
        let path = self.write("source.safetensors", source);
        compress(&path, &self.path(name), options, &())?;
        Ok(fs::read(self.path(name)).expect("a finished file can be read"))
    }

    /// Restores the source of the file `name`.
    ///
    /// # Errors
    /// What opening and restoring raise.
    ///
    /// # Panics
    /// If the restored file cannot be read.
    pub fn restore(&self, name: &str, threads: usize) -> Result<Vec<u8>> {
        let target = self.path("restored.safetensors");
        let archive = Archive::open(&self.path(name))?;
        decompress(&archive, &target, &DecompressOptions { threads, replace: true }, &())?;
        Ok(fs::read(target).expect("a finished file can be read"))
    }
}

/// The default encoding on so many threads, verified, replacing what is there.
#[must_use]
pub fn options(threads: usize) -> CompressOptions {
    CompressOptions {
        encode: EncodeOptions::default(),
        threads,
        replace: true,
        verify: true,
        io: IoMode::Auto,
        bases: Vec::new(),
        quantizer: None,
    }
}
