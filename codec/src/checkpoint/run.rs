//! Carrying out a plan.

use std::io::{Read, Write};
use std::path::Path;

use cmz_format::{Error, Result, View};

use super::marker::{CmzIndex, Shard};
use super::{Job, Marker, Plan};
use crate::convert::{
    CompressOptions, Compressed, DecompressOptions, Decompressed, Phase, Progress, Target, sha256_of,
};
use crate::import::Restored;
use crate::io::{PlainFile, ReadAt};
use crate::{Archive, OpenOptions, convert};

/// A file that has been converted.
#[derive(Clone, Debug)]
pub struct Done<T> {
    /// Which.
    pub job: Job,
    /// What the conversion gave.
    pub result: T,
    /// Whether it had been converted before and was left as it is.
    pub kept: bool,
}

/// Compresses the files of a plan: first what is copied, then the weights, at the end the
/// index. Where there are many files, those that an interrupted conversion has finished are
/// kept if they were made from the same bytes.
///
/// # Errors
/// As [`convert::compress`].
pub fn compress(plan: &Plan, options: &CompressOptions, progress: &dyn Progress) -> Result<Vec<Done<Compressed>>> {
    begin(plan, options.replace)?;
    let mut done = Vec::new();
    for (number, job) in plan.jobs.iter().enumerate() {
        progress.file(&job.source, number, plan.jobs.len());
        let views = plan.views.get(number).map_or(&[][..], Vec::as_slice);
        let kept =
            if plan.many && !options.replace { already_compressed(job, views, options, progress)? } else { None };
        done.push(match kept {
            Some(result) => Done { job: job.clone(), result, kept: true },
            None => {
                let result =
                    convert::compress_with_views(plan.kind, &job.source, &job.target, views, options, progress)?;
                Done { job: job.clone(), result, kept: false }
            }
        });
    }
    plan.markers.iter().try_for_each(|marker| write_marker(marker, plan, options.replace))?;
    Ok(done)
}

/// Compresses `sources` in place of the files of a plan, one for each, as [`compress`] does.
///
/// # Errors
/// As [`convert::compress_source`].
pub fn import(
    plan: &Plan,
    sources: &[Restored],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Vec<Done<Compressed>>> {
    begin(plan, options.replace)?;
    let mut done = Vec::new();
    for (number, (job, source)) in plan.jobs.iter().zip(sources).enumerate() {
        progress.file(&job.source, number, plan.jobs.len());
        let kept =
            if plan.many && !options.replace { made_from(source, &job.target, &[], options, progress)? } else { None };
        done.push(match kept {
            Some(result) => Done { job: job.clone(), result, kept: true },
            None => {
                let result = convert::compress_source(source, &job.target, options, progress)?;
                Done { job: job.clone(), result, kept: false }
            }
        });
    }
    plan.markers.iter().try_for_each(|marker| write_marker(marker, plan, options.replace))?;
    Ok(done)
}

/// Restores the files of a plan.
///
/// # Errors
/// As [`convert::decompress`].
pub fn decompress(
    plan: &Plan,
    open: OpenOptions,
    options: &DecompressOptions,
    progress: &dyn Progress,
) -> Result<Vec<Done<Decompressed>>> {
    begin(plan, options.replace)?;
    let mut done = Vec::new();
    for (number, job) in plan.jobs.iter().enumerate() {
        progress.file(&job.source, number, plan.jobs.len());
        let archive = Archive::open_with(&job.source, open.clone())?;
        let kept = plan.many && !options.replace && already_restored(&archive, job, progress)?;
        let result = if kept {
            let source = archive.source()?;
            Decompressed { len: source.len, sha256: source.sha256.clone() }
        } else {
            convert::decompress(&archive, &job.target, options, progress)?
        };
        done.push(Done { job: job.clone(), result, kept });
    }
    Ok(done)
}

/// Makes the folder and copies what is only copied.
fn begin(plan: &Plan, replace: bool) -> Result<()> {
    if let Some(folder) = &plan.folder {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot create the folder", e).in_file(folder))?;
    }
    for marker in plan.markers.iter().filter(|marker| replace && marker.path.is_file()) {
        // It would vouch for files that are about to be replaced.
        std::fs::remove_file(&marker.path)
            .map_err(|e| Error::io("cannot remove the old index", e).in_file(&marker.path))?;
    }
    plan.copies.iter().try_for_each(|job| copy(job, replace))
}

/// The result of an earlier conversion of the same bytes. A file appears under its name only
/// when it is complete, so its index and the source's hash are enough to tell.
fn already_compressed(
    job: &Job,
    views: &[View],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Option<Compressed>> {
    if !job.target.is_file() {
        return Ok(None);
    }
    let source = PlainFile::open(&job.source)?;
    made_from(&source, &job.target, views, options, progress).map_err(|e| e.in_file(&job.source))
}

fn made_from(
    source: &dyn ReadAt,
    target: &Path,
    views: &[View],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Option<Compressed>> {
    if !target.is_file() {
        return Ok(None);
    }
    let open = OpenOptions { bases: options.bases.clone(), ..OpenOptions::default() };
    let Ok(archive) = Archive::open_with(target, open) else { return Ok(None) };
    let Ok(recorded) = archive.source() else { return Ok(None) };
    if archive.check_bases().is_err() {
        return Ok(None);
    }
    if source.byte_len() != recorded.len || archive.views() != views {
        return Ok(None);
    }
    progress.begin(Phase::Hashing, source.byte_len());
    // A file with rounded tensors does not decode to its source.
    let same = match options.quantizer {
        Some(_) => convert::is_made_from(&archive, source, target, options, progress)?,
        None => sha256_of(source, progress)? == recorded.sha256,
    };
    Ok(same.then(|| Compressed {
        source_len: recorded.len,
        sha256: recorded.sha256.clone(),
        len: archive.index().file_len(),
        tensors: archive.tensors().len(),
        resumed_blocks: 0,
        lossy: archive.index().manifest().lossy.clone(),
    }))
}

fn already_restored(archive: &Archive, job: &Job, progress: &dyn Progress) -> Result<bool> {
    if !job.target.is_file() {
        return Ok(false);
    }
    let (recorded, restored) = (archive.source()?, PlainFile::open(&job.target)?);
    if restored.byte_len() != recorded.len {
        return Ok(false);
    }
    progress.begin(Phase::Hashing, restored.byte_len());
    Ok(sha256_of(&restored, progress).map_err(|e| e.in_file(&job.target))? == recorded.sha256)
}

/// Copies a file, unless an equal one is there.
fn copy(job: &Job, replace: bool) -> Result<()> {
    let open =
        || std::fs::File::open(&job.source).map_err(|e| Error::io("cannot open the file", e).in_file(&job.source));
    if job.target.is_file() && same_bytes(&job.source, &job.target)? {
        return Ok(());
    }
    write_file(&job.target, replace, &mut open()?)
}

fn write_marker(marker: &Marker, plan: &Plan, replace: bool) -> Result<()> {
    let shards = marker.jobs.iter().map(|&number| &plan.jobs[number]);
    let shards = shards.map(|job| Shard::of(&job.target, &job.source)).collect::<Result<Vec<_>>>()?;
    let json = CmzIndex::new(marker.weight_map.clone(), shards).to_json();
    if std::fs::read(&marker.path).is_ok_and(|old| old == json) {
        return Ok(());
    }
    write_file(&marker.path, replace, &mut json.as_slice())
}

fn write_file(path: &Path, replace: bool, source: &mut dyn Read) -> Result<()> {
    let target = Target::create(path, replace)?;
    let mut file = target.file();
    std::io::copy(source, &mut file)
        .and_then(|_| file.flush())
        .map_err(|e| Error::io("cannot copy the file", e).in_file(path))?;
    target.commit(replace)
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool> {
    let (a, b) = (PlainFile::open(a)?, PlainFile::open(b)?);
    Ok(a.byte_len() == b.byte_len() && sha256_of(&a, &())? == sha256_of(&b, &())?)
}
