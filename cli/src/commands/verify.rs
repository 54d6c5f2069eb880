//! `cmz verify`.

use std::path::{Path, PathBuf};

use cmz_codec::convert::{self, Phase, Progress, VerifyDepth, VerifyOptions};
use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::{Archive, Code, Error, OpenOptions, Result, checkpoint};
use cmz_format::Escaped;
use cmz_gpu_decode::GpuDecoder;
use serde_json::{Value, json};

use crate::args::Verify;
use crate::context::Context;
use crate::lossy;
use crate::report::Report;
use crate::text::{count, path};

pub(crate) fn run(args: &Verify, context: &Context) -> Report {
    let mut report = Report::default();
    let mut files = Vec::new();
    let open = match context.open_options(&args.base) {
        Ok(open) => open,
        Err(error) => return Err(error).into(),
    };
    let gpu = match args.device.open(context) {
        Ok(gpu) => gpu,
        Err(error) => return Err(error).into(),
    };
    let how = How { open, gpu, args };
    for input in &args.inputs {
        if let Err(error) = verify_input(input, &how, context, &mut report, &mut files) {
            report.errors.push(error);
        }
    }
    report.json.insert("files".to_owned(), files.into());
    report
}

/// How files are verified.
struct How<'a> {
    open: OpenOptions,
    /// Decodes them once more.
    gpu: Option<GpuDecoder>,
    args: &'a Verify,
}

fn verify_input(
    input: &Path,
    how: &How<'_>,
    context: &Context,
    report: &mut Report,
    files: &mut Vec<Value>,
) -> Result<()> {
    for index in checkpoint::indexes_of(input)? {
        let folder = index.path.parent().unwrap_or(Path::new("."));
        let checks = index.shards.iter().map(|shard| shard.check(folder));
        report.errors.extend(checks.filter_map(Result::err).map(|e| e.in_file(&index.path)));
    }
    let all = checkpoint::files_of(input)?;
    for (number, file) in all.iter().enumerate() {
        context.progress.file(file, number, all.len());
        let errors = report.errors.len();
        match verify_file(file, input.is_dir(), how, context, report) {
            Ok(json) => files.push(json),
            Err(error) => {
                report.errors.push(error);
                files.push(json!({"file": file.to_string_lossy(), "ok": false}));
            }
        }
        if report.errors.len() > errors {
            let different = report.errors.last().is_some_and(|error| error.code() == Code::Different);
            let what = if different { "differs" } else { "not verified" };
            report.text.push_str(&format!("{}  {what}\n", path(file)));
        }
    }
    Ok(())
}

fn verify_file(
    file: &Path,
    in_folder: bool,
    How { open, gpu, args }: &How<'_>,
    context: &Context,
    report: &mut Report,
) -> Result<Value> {
    let depth = if args.quick { VerifyDepth::Stored } else { VerifyDepth::Decoded };
    let options = VerifyOptions { depth, threads: context.threads, io: open.io, bases: open.bases.clone() };
    let verified = convert::verify(file, &options, &context.progress)?;
    let lossy = lossy::of(file);
    let mut json = json!({
        "file": file.to_string_lossy(),
        "ok": verified.damage.is_empty() && verified.unsupported.is_empty(),
        "depth": if args.quick { "stored" } else { "decoded" },
        "tensors": verified.tensors,
        "blocks": verified.blocks,
        "damaged_blocks": verified.damage.len(),
        "dependants": verified.dependants,
        "unsupported_tensors": verified.unsupported.len(),
        "source_sha256": verified.sha256,
        "lossy_tensors": lossy.len(),
    });
    let whole = verified.damage.is_empty() && verified.unsupported.is_empty();
    if !verified.damage.is_empty() {
        let own = verified.damage.iter().filter(|error| error.file() == Some(file)).count();
        let of_bases = verified.damage.len() - own;
        context.note(&format!(
            "{}: {own} of {} damaged{}{}; the other tensors are good",
            path(file),
            count(verified.blocks as u64, "block"),
            if of_bases > 0 { format!(", and {of_bases} of its base") } else { String::new() },
            referring(&verified.dependants),
        ));
    }
    report.errors.extend(verified.damage);
    report.errors.extend(verified.unsupported);
    if !whole {
        return Ok(json);
    }
    let mut how = match &verified.sha256 {
        Some(sha256) => format!("sha256 {sha256}"),
        None if args.quick => "stored bytes good, not decoded".to_owned(),
        None => "every block good".to_owned(),
    };
    if let Some(rounded) = lossy::summary(&lossy) {
        how = format!("{how}  not the original: {rounded}");
    }
    if let Some(against) = &args.against {
        let original = original_of(file, against, in_folder)?;
        compare(&Archive::open_with(file, open.clone())?, &original, context)?;
        how = format!("{how}  identical to {}", path(&original));
        json["identical_to"] = original.to_string_lossy().into();
    }
    if let Some(gpu) = gpu {
        let archive = Archive::open_with(file, open.clone())?;
        let total = (0..archive.tensors().len()).map(|tensor| archive.index().tensor_len(tensor)).sum();
        context.progress.begin(Phase::Verifying, total);
        let compared = gpu.verify(&archive, context.threads, &mut |bytes| context.progress.advance(bytes));
        compared.map_err(|e| e.in_file(file))?;
        how = format!("{how}  the same on {}", gpu.device().name);
        json["identical_on"] = gpu.device().name.as_str().into();
    }
    let tensors = count(verified.tensors as u64, "tensor");
    let blocks = count(verified.blocks as u64, "block");
    report.text.push_str(&format!("{}  ok  {tensors}, {blocks}  {how}\n", path(file)));
    Ok(json)
}

/// Names of tensors that are listed, at most.
const MAX_NAMED: usize = 5;

/// The tensors that refer to damaged ones.
fn referring(dependants: &[String]) -> String {
    if dependants.is_empty() {
        return String::new();
    }
    let mut names: Vec<_> = dependants.iter().take(MAX_NAMED).map(|name| Escaped(name).to_string()).collect();
    if dependants.len() > MAX_NAMED {
        names.push(format!("{} more", dependants.len() - MAX_NAMED));
    }
    let tensors = count(dependants.len() as u64, "tensor");
    format!("; {tensors} stored by reference to damaged ones: {}", names.join(", "))
}

/// The file that a `.cmz` file is compared with.
fn original_of(file: &Path, against: &Path, in_folder: bool) -> Result<PathBuf> {
    if against.is_dir() {
        return Ok(against.join(Path::new(file.file_name().unwrap_or_default()).with_extension("safetensors")));
    }
    if in_folder {
        return Err(Error::new(Code::InvalidArgument, "a folder can only be compared with a folder").in_file(against));
    }
    Ok(against.to_owned())
}

/// Compares what an archive decodes to with a file.
fn compare(archive: &Archive, original: &Path, context: &Context) -> Result<()> {
    let file = PlainFile::open(original)?;
    let source = archive.source()?;
    context.progress.begin(Phase::Verifying, source.len);
    let mut offset = 0;
    let mut buffer = Vec::new();
    archive.for_each_source_chunk(context.threads, |bytes| {
        let here = bytes.len().min(file.byte_len().saturating_sub(offset) as usize);
        buffer.resize(here, 0);
        file.read_at(offset, &mut buffer).map_err(|e| e.in_file(original))?;
        if let Some(at) = bytes.iter().zip(&buffer).position(|(a, b)| a != b) {
            return Err(different(archive, original, offset + at as u64));
        }
        if here < bytes.len() {
            return Err(different(archive, original, file.byte_len()));
        }
        offset += bytes.len() as u64;
        context.progress.advance(bytes.len() as u64);
        Ok(())
    })?;
    if file.byte_len() == offset { Ok(()) } else { Err(different(archive, original, offset)) }
}

/// The files differ from this byte on.
fn different(archive: &Archive, original: &Path, offset: u64) -> Error {
    let error = Error::new(Code::Different, "the .cmz file was not made from this file: they differ from this byte on");
    let error = match lossy::summary(&archive.index().manifest().lossy) {
        Some(rounded) => {
            error.with_help(format!("it is not to be the same: {rounded}; `cmz inspect --tensors` lists them"))
        }
        None => error,
    };
    let holder = archive.content_blocks().find(|block| block.range.contains(&offset)).and_then(|block| block.tensor());
    match holder {
        Some(tensor) => error.in_tensor(&archive.tensors()[tensor].name),
        None => error,
    }
    .in_file(original)
    .at(offset)
}
