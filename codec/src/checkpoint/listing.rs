//! The files of a folder.

use std::path::{Path, PathBuf};

use cmz_format::{Error, Result};

use super::has_extension;

/// The regular files of a folder, by name, and what else is in it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<PathBuf>,
    pub(super) left_out: Vec<PathBuf>,
}

/// Lists a folder. Links are followed, to regular files only.
pub(super) fn list(folder: &Path) -> Result<Listing> {
    let failed = |e| Error::io("cannot list the folder", e).in_file(folder);
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let metadata = std::fs::metadata(&path)
            .map_err(|e| Error::io("cannot open this entry of the folder", e).in_file(&path))?;
        if metadata.is_file() { &mut listing.files } else { &mut listing.left_out }.push(path);
    }
    listing.files.sort();
    listing.left_out.sort();
    Ok(listing)
}

/// Whether this is an unfinished file.
pub(super) fn is_partial(path: &Path) -> bool {
    has_extension(path, "partial")
}
