//! Ternary matrices as QMoE stores them, in a safetensors file.
//!
//! A tensor of the encoding [`ternary`](crate::encoding::ternary) becomes `w_comp`, `row_off`, `ter_minmax` and an empty `weight`, each behind the tensor's
//! name without its `.weight`; of a stack, each matrix does, behind the name and its number. Weights that QMoE's arrays stood for
//! become these arrays again, byte for byte. Views of the layout `qmoe` are written as they are stored.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use cmz_format::{Code, Error, Escaped, Result};

use crate::convert::{Phase, Progress, Target};
use crate::import::qmoe::Matrix;
use crate::{Archive, pipeline};

/// What has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Number of matrices.
    pub matrices: usize,
    /// Their weights.
    pub weights: u64,
    /// Length of the file, in bytes.
    pub len: u64,
}

/// A matrix to be written.
#[derive(Clone, Debug)]
struct Job {
    /// What the names of its arrays begin with.
    prefix: String,
    rows: u64,
    width: u64,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    /// Bytes of a tensor, by its number, from this one on.
    Tensor(usize, u64),
    /// The tensors that a view comes from: codewords, offsets, extremes.
    View([String; 3]),
}

/// Writes all ternary matrices of a file, one or two a thread at a time: each is packed twice, to know its length first.
///
/// # Errors
/// [`Code::InvalidArgument`] if there are none, or one is not as QMoE has them: of BF16, with three values a row, one of which is 0 and which are the row's
/// least and greatest; an error of the file; [`Code::Exists`], [`Code::Io`].
pub fn write(
    archive: &Archive,
    target: &Path,
    replace: bool,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Exported> {
    let jobs = jobs(archive)?;
    let weights = jobs.iter().map(|job| job.rows * job.width).sum::<u64>();
    progress.begin(Phase::Decompressing, 4 * weights);
    let mut lens = Vec::with_capacity(jobs.len());
    let of_file = Target::create(target, replace)?;
    each(archive, &jobs, threads, progress, |[w_comp, ..]| {
        lens.push(w_comp.len() as u64);
        Ok(())
    })?;
    let mut file = BufWriter::new(of_file.file());
    let in_target = |e| Error::io("cannot write the file", e).in_file(target);
    let header = header(&jobs, &lens);
    let mut len = header.len() as u64;
    file.write_all(&header).map_err(in_target)?;
    each(archive, &jobs, threads, progress, |arrays| {
        arrays.iter().try_for_each(|array| {
            len += array.len() as u64;
            file.write_all(array).map_err(in_target)
        })
    })?;
    file.flush().map_err(in_target)?;
    drop(file);
    of_file.commit(replace)?;
    Ok(Exported { matrices: jobs.len(), weights, len })
}

/// The ternary matrices of a file.
fn jobs(archive: &Archive) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for (number, tensor) in archive.tensors().iter().enumerate().filter(|(_, tensor)| tensor.encoding.name == "ternary")
    {
        let [stack @ .., rows, width] = tensor.shape.as_slice() else { continue };
        if tensor.dtype != "BF16" || tensor.shape.contains(&0) {
            let why = match tensor.shape.contains(&0) {
                true => "QMoE has no matrices without weights".to_owned(),
                false => format!("QMoE's weights are BF16, not {}", tensor.dtype),
            };
            let help =
                "convert without this tensor (`cmz compress --recipe ternary --only PATTERN`), or from BF16 weights";
            return Err(Error::new(Code::InvalidArgument, why).in_tensor(&tensor.name).with_help(help));
        }
        let prefix = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        for matrix in 0..stack.iter().product::<u64>() {
            let prefix = if stack.is_empty() { prefix.to_owned() } else { format!("{prefix}.{matrix}") };
            jobs.push(Job {
                prefix,
                rows: *rows,
                width: *width,
                origin: Origin::Tensor(number, matrix * rows * width * 2),
            });
        }
    }
    for view in archive.views().iter().filter(|view| view.layout == "qmoe") {
        archive.check_view(&view.name)?;
        let part = |role: &str| view.parts.get(role).cloned().unwrap_or_default();
        let name = view.name.strip_suffix(".dequantized").unwrap_or(&view.name);
        jobs.push(Job {
            prefix: name.strip_suffix(".weight").unwrap_or(name).to_owned(),
            rows: view.shape[0],
            width: view.shape[1],
            origin: Origin::View(["codewords", "row_offsets", "extremes"].map(part)),
        });
    }
    let mut prefixes = HashSet::new();
    if let Some(job) = jobs.iter().find(|job| !prefixes.insert(&job.prefix)) {
        let why =
            format!("two matrices would have arrays of the same names, {}.w_comp and so on", Escaped(&job.prefix));
        return Err(Error::new(Code::InvalidArgument, why).with_help("rename one of the tensors"));
    }
    if jobs.is_empty() {
        let help = "`cmz compress --recipe ternary` makes them, `cmz import qmoe` takes them over";
        return Err(Error::new(Code::InvalidArgument, "there are no ternary matrices in this file").with_help(help));
    }
    Ok(jobs)
}

/// Hands out the arrays of all matrices, in order.
fn each(
    archive: &Archive,
    jobs: &[Job],
    threads: usize,
    progress: &dyn Progress,
    mut consume: impl FnMut([Vec<u8>; 3]) -> Result<()>,
) -> Result<()> {
    pipeline::ordered(
        threads,
        jobs.iter(),
        |job, _| Ok((job, arrays(archive, job).map_err(|e| e.in_tensor(&job.prefix))?)),
        |(job, arrays)| {
            progress.advance(2 * job.rows * job.width);
            if progress.stopped() {
                return Err(Error::new(Code::Interrupted, "the export was asked to stop"));
            }
            consume(arrays)
        },
    )
}

fn arrays(archive: &Archive, job: &Job) -> Result<[Vec<u8>; 3]> {
    match &job.origin {
        Origin::View([codewords, offsets, extremes]) => {
            Ok([archive.read(codewords)?, archive.read(offsets)?, archive.read(extremes)?])
        }
        Origin::Tensor(tensor, start) => {
            let bytes = archive.read_range(*tensor, *start..start + job.rows * job.width * 2)?;
            Ok(Matrix::pack(&bytes, job.width as usize)?.to_bytes())
        }
    }
}

/// The header of the file, length field included.
fn header(jobs: &[Job], lens: &[u64]) -> Vec<u8> {
    let (mut json, mut start) = (String::from("{"), 0);
    for (job, &len) in jobs.iter().zip(lens) {
        let (offsets, extremes) = (job.rows + 1, 2 * job.rows);
        for (suffix, dtype, shape, len) in [
            ("w_comp", "I16", len / 2, len),
            ("row_off", "I32", offsets, 4 * offsets),
            ("ter_minmax", "BF16", extremes, 2 * extremes),
            ("weight", "BF16", 0, 0),
        ] {
            let comma = if json.len() > 1 { "," } else { "" };
            let name = serde_json::Value::from(format!("{}.{suffix}", job.prefix));
            let end = start + len;
            json += &format!(
                "{comma}{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}"
            );
            start = end;
        }
    }
    json.push('}');
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}
