//! Conversions of files and folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cmz_codec::checkpoint;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{
    self as codec, CompressOptions, DecompressOptions, Progress, VerifyDepth, VerifyOptions, partial_path,
};
use cmz_codec::io::{IoMode, PlainFile};
use cmz_codec::stream::Level;
use cmz_codec::{Code, OpenOptions, Result, registry};
use pyo3::prelude::*;

use crate::archive::Archive;
use crate::error::{argument, exception};
use crate::job::run;

/// Source, target, bytes of both, SHA-256 of the source, tensors, whether an earlier run had made it.
type Compressed = (PathBuf, PathBuf, u64, u64, String, usize, bool);
/// Name, bytes, estimated bytes, encoding.
type Estimated = (String, u64, u64, String);
/// File, tensors, blocks, SHA-256 of the source if it was computed, errors.
type Verified = (PathBuf, usize, usize, Option<String>, Vec<Py<PyAny>>);

/// Time against size, and the codec that is forced if one is named.
pub(crate) fn encode_options(py: Python<'_>, level: &str, codec: Option<&str>) -> PyResult<EncodeOptions> {
    let level = match level {
        "fast" => Level::Fast,
        "max" => Level::Max,
        other => return Err(argument(py, format!("level={other:?}"), "one of \"fast\", \"max\"")),
    };
    let codec = match codec {
        None => None,
        Some(name) => Some(registry::stream_by_name(name).ok_or_else(|| {
            let names: Vec<_> = registry::STREAMS.iter().map(|entry| entry.codec.name()).collect();
            argument(py, format!("there is no stream codec {name:?}"), &format!("the codecs are {}", names.join(", ")))
        })?),
    };
    Ok(EncodeOptions { level, codec })
}

/// The checkpoint files that a path stands for.
#[pyfunction]
pub(crate) fn files_of(py: Python<'_>, path: PathBuf) -> PyResult<Vec<PathBuf>> {
    checkpoint::files_of(&path).map_err(|e| exception(py, &e))
}

/// The file that holds each tensor, by the indexes of a folder; every file that they name must be
/// the one that they describe. Empty if there is no index.
#[pyfunction]
pub(crate) fn weight_map(py: Python<'_>, path: PathBuf) -> PyResult<BTreeMap<String, PathBuf>> {
    let read = || -> Result<_> {
        let mut map = BTreeMap::new();
        for index in checkpoint::indexes_of(&path)? {
            let folder = index.path.parent().unwrap_or(Path::new("."));
            index.shards.iter().try_for_each(|shard| shard.check(folder).map_err(|e| e.in_file(&index.path)))?;
            map.extend(index.weight_map.iter().map(|(name, file)| (name.clone(), folder.join(file))));
        }
        Ok(map)
    };
    py.detach(read).map_err(|e| exception(py, &e))
}

/// Compresses a file, a folder or the shards of an index. What a stopped conversion has written is
/// deleted unless it is to be continued.
#[pyfunction]
#[pyo3(signature = (source, target, *, level, codec, threads, overwrite, verify, copy_others, keep_partial, bases, callback))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments, given by the package alone")]
pub(crate) fn compress(
    py: Python<'_>,
    source: PathBuf,
    target: Option<PathBuf>,
    level: &str,
    codec: Option<&str>,
    threads: usize,
    overwrite: bool,
    verify: bool,
    copy_others: bool,
    keep_partial: bool,
    bases: Vec<Py<Archive>>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Vec<Compressed>> {
    let options = CompressOptions {
        io: IoMode::Auto,
        encode: encode_options(py, level, codec)?,
        threads: crate::threads(threads),
        replace: overwrite,
        verify,
        bases: bases.iter().map(|base| base.get().shared()).collect(),
        quantizer: None,
    };
    let done = run(py, callback.as_ref(), |progress| {
        let plan = checkpoint::plan_compress(&source, target.as_deref(), copy_others)?;
        let done = checkpoint::compress(&plan, &options, progress);
        if !keep_partial && done.as_ref().is_err_and(|e| e.code() == Code::Interrupted) {
            // Of the other files, what there is may be another process's.
            let unfinished = plan.jobs.get(progress.number()).map(|job| partial_path(&job.target));
            unfinished.map(std::fs::remove_file);
        }
        done
    })?;
    Ok(done
        .into_iter()
        .map(|done| {
            let result = done.result;
            (done.job.source, done.job.target, result.source_len, result.len, result.sha256, result.tensors, done.kept)
        })
        .collect())
}

/// Restores what was compressed. Returns source, target, length and SHA-256 of every file.
#[pyfunction]
#[pyo3(signature = (source, target, *, threads, overwrite, copy_others, bases, callback))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments, given by the package alone")]
pub(crate) fn decompress(
    py: Python<'_>,
    source: PathBuf,
    target: Option<PathBuf>,
    threads: usize,
    overwrite: bool,
    copy_others: bool,
    bases: Vec<Py<Archive>>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Vec<(PathBuf, PathBuf, u64, String)>> {
    let options = DecompressOptions { threads: crate::threads(threads), replace: overwrite };
    let open = OpenOptions { bases: bases.iter().map(|base| base.get().shared()).collect(), ..OpenOptions::default() };
    let done = run(py, callback.as_ref(), |progress| {
        let plan = checkpoint::plan_decompress(&source, target.as_deref(), copy_others)?;
        checkpoint::decompress(&plan, open, &options, progress)
    })?;
    Ok(done.into_iter().map(|done| (done.job.source, done.job.target, done.result.len, done.result.sha256)).collect())
}

/// Verifies every file that a path stands for. What is wrong with single blocks is in the result.
#[pyfunction]
#[pyo3(signature = (path, *, decode, threads, bases, callback))]
pub(crate) fn verify(
    py: Python<'_>,
    path: PathBuf,
    decode: bool,
    threads: usize,
    bases: Vec<Py<Archive>>,
    callback: Option<Py<PyAny>>,
) -> PyResult<Vec<Verified>> {
    let options = VerifyOptions {
        io: IoMode::Auto,
        depth: if decode { VerifyDepth::Decoded } else { VerifyDepth::Stored },
        threads: crate::threads(threads),
        bases: bases.iter().map(|base| base.get().shared()).collect(),
    };
    let done = run(py, callback.as_ref(), |progress| {
        let files = checkpoint::files_of(&path)?;
        let mut done = Vec::new();
        for (number, file) in files.iter().enumerate() {
            progress.file(file, number, files.len());
            done.push((file.clone(), codec::verify(file, &options, progress)?));
        }
        Ok(done)
    })?;
    let verified = |(file, result): (PathBuf, codec::Verified)| {
        let errors =
            result.damage.iter().chain(&result.unsupported).map(|e| exception(py, e).into_value(py).into_any());
        (file, result.tensors, result.blocks, result.sha256, errors.collect())
    };
    Ok(done.into_iter().map(verified).collect())
}

/// Estimates how small the tensors of a safetensors file would become.
#[pyfunction]
#[pyo3(signature = (path, *, level, threads, callback))]
pub(crate) fn estimate(
    py: Python<'_>,
    path: PathBuf,
    level: &str,
    threads: usize,
    callback: Option<Py<PyAny>>,
) -> PyResult<Vec<Estimated>> {
    let options = encode_options(py, level, None)?;
    let threads = crate::threads(threads);
    let tensors = run(py, callback.as_ref(), |progress| {
        progress.file(&path, 0, 1);
        let source = PlainFile::open(&path)?;
        codec::estimate(&source, &options, threads, progress).map_err(|e| e.in_file(&path))
    })?;
    Ok(tensors.into_iter().map(|t| (t.name, t.byte_len, t.stored_len, t.encoding)).collect())
}
