//! Files that appear under their name only when they are complete.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Result};

/// The name that a file has while it is being written: in the same folder, with
/// `.partial` behind it.
#[must_use]
pub fn partial_path(target: &Path) -> PathBuf {
    let mut name: OsString = target.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// A file being written. Until [`Target::commit`], its bytes are in [`partial_path`];
/// a crash leaves the target as it was.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    /// Whether the unfinished file is deleted when this value is dropped.
    discard: bool,
}

impl Target {
    /// Opens the unfinished file of `path`, an existing one with its contents, and locks
    /// it against other processes.
    ///
    /// # Errors
    /// [`Code::Exists`] if `path` exists and `replace` is false, [`Code::Busy`] if another
    /// process writes it, [`Code::Io`].
    pub fn open(path: &Path, replace: bool) -> Result<Self> {
        check_free(path, replace)?;
        let partial = partial_path(path);
        for _ in 0..8 {
            let file = open_locked(&partial)?;
            // Between opening and locking, the process that wrote this file may have renamed
            // it into place: then it must not be touched any more.
            if is_still_at(&file, &partial) {
                return Ok(Self { path: path.to_owned(), partial, file, discard: false });
            }
        }
        Err(busy(&partial))
    }

    /// Opens an empty unfinished file, whatever was in it before, that is deleted unless
    /// it is committed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn create(path: &Path, replace: bool) -> Result<Self> {
        let mut target = Self::open(path, replace)?;
        target.discard();
        target.truncate(0)?;
        Ok(target)
    }

    /// Has the unfinished file deleted unless it is committed.
    pub fn discard(&mut self) {
        self.discard = true;
    }

    /// The unfinished file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the unfinished file is.
    #[must_use]
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Cuts the unfinished file and goes to its end.
    ///
    /// # Errors
    /// [`Code::Io`].
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .and_then(|()| self.file.seek(SeekFrom::Start(len)))
            .map(|_| ())
            .map_err(|e| Error::io("cannot cut the file", e).in_file(&self.partial))
    }

    /// Puts the finished file in its place, durably.
    ///
    /// # Errors
    /// [`Code::Exists`] if the target has appeared meanwhile and `replace` is false,
    /// [`Code::Io`], [`Code::NoSpace`].
    pub fn commit(mut self, replace: bool) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("cannot flush the file to disk", e).in_file(&self.partial))?;
        rename(&self.partial, &self.path, replace)?;
        self.discard = false;
        sync_folder(&self.path)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.discard {
            // Best effort: a leftover is named and harmless.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Opens an unfinished file, or creates it, and locks it against other processes.
fn open_locked(partial: &Path) -> Result<File> {
    // A link in its place would send the bytes elsewhere.
    if std::fs::symlink_metadata(partial).is_ok_and(|m| !m.is_file()) {
        return Err(Error::new(Code::OtherPartial, "something that is not a file is in the way").in_file(partial));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(partial)
        .map_err(|e| Error::io("cannot create the file", e).in_file(partial))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(busy(partial)),
        // Some network file systems have no locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn busy(partial: &Path) -> Error {
    Error::new(Code::Busy, "another process is writing this file").in_file(partial).with_help("wait for it to end")
}

/// Whether the open file is the one with this name.
#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: std::fs::Metadata| (m.dev(), m.ino());
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => id(open) == id(named),
        _ => false,
    }
}

/// Elsewhere an open file cannot be renamed.
#[cfg(not(unix))]
fn is_still_at(_: &File, _: &Path) -> bool {
    true
}

fn exists(path: &Path) -> Error {
    Error::new(Code::Exists, "the target exists")
        .in_file(path)
        .with_help("pass -f to replace it, or choose another with -o")
}

fn check_free(path: &Path, replace: bool) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::new(Code::Exists, "the target is a directory").in_file(path).with_help("choose another with -o"))
        }
        // Renaming would put a file in the place of a device, and not write to it.
        Ok(_) if std::fs::metadata(path).is_ok_and(|behind| !behind.is_file()) => {
            Err(Error::new(Code::Exists, "the target is not a file").in_file(path).with_help("choose another with -o"))
        }
        Ok(_) if !replace => Err(exists(path)),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn rename(from: &Path, to: &Path, replace: bool) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    let failed = |e: std::io::Error| Error::io("cannot rename the finished file", e).in_file(from);
    if replace {
        return std::fs::rename(from, to).map_err(failed);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists(to)),
        // A file system without the flag: the check cannot be one step with the rename.
        Err(Errno::INVAL | Errno::NOSYS) => {
            check_free(to, false)?;
            std::fs::rename(from, to).map_err(failed)
        }
        Err(e) => Err(failed(e.into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename(from: &Path, to: &Path, replace: bool) -> Result<()> {
    check_free(to, replace)?;
    std::fs::rename(from, to).map_err(|e| Error::io("cannot rename the finished file", e).in_file(from))
}

/// Makes a rename durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::io("cannot flush the folder to disk", e).in_file(folder))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}
