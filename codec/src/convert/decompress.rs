//! `.cmz` back to the file it was made from.

use std::io::{BufWriter, Write};
use std::path::Path;

use cmz_format::{Code, Error, Result};

use super::{CHUNK, Phase, Progress, Target, advance, with_sha256};
use crate::Archive;

/// How a file is restored.
#[derive(Clone, Copy, Debug)]
pub struct DecompressOptions {
    /// Threads that decode.
    pub threads: usize,
    /// Whether an existing target is replaced.
    pub replace: bool,
}

/// What a restoration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decompressed {
    /// Length of the restored file, in bytes.
    pub len: u64,
    /// Its SHA-256, which is the one of the source.
    pub sha256: String,
}

/// Restores the source file. It appears as `target` only if its SHA-256 is right.
///
/// # Errors
/// [`Code::Digest`] if the restored bytes are not those that were compressed,
/// [`Code::MissingBase`] or [`Code::WrongBase`], an error of the archive or of the target.
pub fn decompress(
    archive: &Archive,
    target: &Path,
    options: &DecompressOptions,
    progress: &dyn Progress,
) -> Result<Decompressed> {
    archive.source()?;
    archive.check_bases()?;
    let target_file = Target::create(target, options.replace)?;
    let (len, sha256) = write_source(archive, &target_file, options.threads, progress)?;
    check_source(archive, len, &sha256)?;
    target_file.commit(options.replace)?;
    Ok(Decompressed { len, sha256 })
}

fn write_source(archive: &Archive, target: &Target, threads: usize, progress: &dyn Progress) -> Result<(u64, String)> {
    progress.begin(Phase::Decompressing, archive.source()?.len);
    let mut sink = BufWriter::with_capacity(CHUNK, target.file());
    let failed = |e| Error::io("writing", e).in_file(target.partial());
    with_sha256(|hash| {
        let mut len = 0;
        archive.for_each_source_chunk(threads, |bytes| {
            hash(bytes);
            len += bytes.len() as u64;
            sink.write_all(bytes).map_err(failed)?;
            advance(progress, bytes.len() as u64)
        })?;
        sink.flush().map_err(failed)?;
        Ok(len)
    })
}

/// Compares restored bytes with what the manifest says of the source.
pub(super) fn check_source(archive: &Archive, len: u64, sha256: &str) -> Result<()> {
    match &archive.index().manifest().source {
        Some(source) if (source.len, source.sha256.as_str()) != (len, sha256) => Err(Error::new(
            Code::Digest,
            format!(
                "the source decodes to {len} bytes with SHA-256 {sha256}, expected {} with {}",
                source.len, source.sha256
            ),
        )
        .with_help("the file is damaged: fetch it again")),
        _ => Ok(()),
    }
}
