//! `cmz compress`.

use std::sync::Arc;

use cmz_codec::checkpoint::{self, Done, Plan};
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{self, CompressOptions, Compressed, Quantize, VerifyDepth, VerifyOptions};
use cmz_codec::{Archive, Code, Error, Result, registry};
use cmz_quantize::plan::Plan as Quantizer;
use serde_json::{Value, json};

use super::{Stamp, plans, remove};
use crate::args::{Compress, LevelArg};
use crate::context::Context;
use crate::lossy;
use crate::report::Report;
use crate::text::{count, path, ratio, size};

pub(crate) fn run(args: &Compress, context: &Context) -> Report {
    compress(args, context).into()
}

fn options(args: &Compress, quantizer: Option<Arc<Quantizer>>, context: &Context) -> Result<CompressOptions> {
    let encode = encode_options(args.level, args.codec.as_deref())?;
    let bases = context.open_options(&args.base)?.bases;
    Ok(CompressOptions {
        encode,
        threads: context.threads,
        io: context.open.io,
        replace: args.force,
        verify: !args.no_verify,
        bases,
        quantizer: quantizer.map(|quantizer| quantizer as Arc<dyn Quantize>),
    })
}

pub(super) fn encode_options(level: LevelArg, codec: Option<&str>) -> Result<EncodeOptions> {
    let codec = match codec {
        None => None,
        Some(name) => Some(registry::stream_by_name(name).ok_or_else(|| {
            let names: Vec<_> = registry::STREAMS.iter().map(|entry| entry.codec.name()).collect();
            Error::new(Code::InvalidArgument, format!("there is no stream codec {name:?}"))
                .with_help(format!("the codecs are {}", names.join(", ")))
        })?),
    };
    Ok(EncodeOptions { level: level.into(), codec })
}

fn compress(args: &Compress, context: &Context) -> Result<Report> {
    lossy::check_removal(&args.rounding, args.rm)?;
    let quantizer = lossy::plan(&args.rounding)?;
    let options = &options(args, quantizer.clone(), context)?;
    let plan_one = |source: &_, target: Option<&_>| checkpoint::plan_compress(source, target, !args.no_aux);
    let plans = plans(&args.inputs, args.output.as_deref(), plan_one, context)?;
    let mut report = Report::default();
    let mut files = Vec::new();
    let jobs: Vec<_> = plans.iter().flat_map(|plan| plan.jobs.iter().cloned()).collect();
    quantizer.map_or(Ok(()), |quantizer| lossy::check(&quantizer, &args.rounding, &jobs, context))?;
    for plan in &plans {
        match compress_plan(plan, args, options, context) {
            Ok(done) => {
                report.text.push_str(&summary(plan, &done, options));
                files.extend(done.iter().map(|done| file_json(done, options)));
            }
            Err(error) => report.errors.push(error),
        }
    }
    report.json.insert("files".to_owned(), files.into());
    Ok(report)
}

fn compress_plan(
    plan: &Plan,
    args: &Compress,
    options: &CompressOptions,
    context: &Context,
) -> Result<Vec<Done<Compressed>>> {
    let stamps: Vec<Stamp> = plan.jobs.iter().map(|job| Stamp::of(&job.source)).collect();
    let done = checkpoint::compress(plan, options, &context.progress)?;
    note_earlier(&done, context);
    if !plan.copies.is_empty() {
        context.detail(&format!("{} copied", count(plan.copies.len() as u64, "other file")));
    }
    if args.rm {
        // A file that an earlier run wrote has to be proved now.
        done.iter().filter(|done| done.kept).try_for_each(|done| prove(done, options, context))?;
        done.iter().zip(&stamps).try_for_each(|(done, stamp)| remove(&done.job.source, stamp))?;
    }
    Ok(done)
}

/// Tells what an earlier run has done already.
pub(super) fn note_earlier(done: &[Done<Compressed>], context: &Context) {
    for done in done {
        if done.kept {
            context.note(&format!("{} is up to date", path(&done.job.target)));
        } else if done.result.resumed_blocks > 0 {
            let blocks = count(done.result.resumed_blocks as u64, "block");
            context.note(&format!("{}: {blocks} taken over from an interrupted run", path(&done.job.target)));
        }
    }
}

/// Verifies that a file decodes to its source.
fn prove(done: &Done<Compressed>, options: &CompressOptions, context: &Context) -> Result<()> {
    let bases = options.bases.clone();
    let options = VerifyOptions { depth: VerifyDepth::Decoded, threads: context.threads, io: context.open.io, bases };
    let verified = convert::verify(&done.job.target, &options, &context.progress)?;
    if verified.sha256.as_ref() == Some(&done.result.sha256) {
        return Ok(());
    }
    Err(verified
        .damage
        .into_iter()
        .chain(verified.unsupported)
        .next()
        .unwrap_or_else(|| Error::new(Code::Digest, "the file does not decode to its source").in_file(&done.job.target))
        .with_help("the source was not removed; pass -f to compress it again"))
}

/// Bits in the file for each element; none without elements.
fn bits_per_weight(done: &Done<Compressed>) -> Option<f64> {
    let archive = Archive::open(&done.job.target).ok()?;
    let elements: u64 = archive.tensors().iter().filter_map(|tensor| tensor.elements().ok()).sum();
    (elements > 0).then(|| done.result.len as f64 * 8.0 / elements as f64)
}

pub(super) fn summary(plan: &Plan, done: &[Done<Compressed>], options: &CompressOptions) -> String {
    let mut text: String = done.iter().map(|done| line(&path(&done.job.target), &[done], options)).collect();
    if let (Some(folder), 2..) = (&plan.folder, done.len()) {
        text.push_str(&line(&path(folder), &done.iter().collect::<Vec<_>>(), options));
    }
    text
}

fn line(name: &str, done: &[&Done<Compressed>], options: &CompressOptions) -> String {
    let from: u64 = done.iter().map(|done| done.result.source_len).sum();
    let to: u64 = done.iter().map(|done| done.result.len).sum();
    let what = match done {
        [one] => count(one.result.tensors as u64, "tensor"),
        many => count(many.len() as u64, "file"),
    };
    let bpw = match done {
        [one] => bits_per_weight(one).map_or(String::new(), |bpw| format!(", {bpw:.2} bpw")),
        _ => String::new(),
    };
    let how = match done {
        _ if done.iter().all(|done| done.kept) => "up to date",
        _ if options.verify => "verified: every bit",
        _ => "not verified",
    };
    let how = match lossy::summary(done.iter().flat_map(|done| &done.result.lossy)) {
        Some(rounded) => format!("{rounded}; {how}{}", if options.verify { " of what is stored" } else { "" }),
        None => how.to_owned(),
    };
    format!("{name}  {what}  {} -> {} ({:.3}x{bpw})  {how}\n", size(from), size(to), ratio(to, from))
}

pub(super) fn file_json(done: &Done<Compressed>, options: &CompressOptions) -> Value {
    let Compressed { source_len, sha256, len, tensors, resumed_blocks, lossy } = &done.result;
    json!({
        "source": done.job.source.to_string_lossy(),
        "target": done.job.target.to_string_lossy(),
        "source_len": source_len,
        "source_sha256": sha256,
        "len": len,
        "ratio": ratio(*len, *source_len),
        "bits_per_weight": bits_per_weight(done),
        "tensors": tensors,
        "lossy": lossy.iter().map(lossy::json).collect::<Vec<_>>(),
        "resumed_blocks": resumed_blocks,
        "kept": done.kept,
        "verified": options.verify && !done.kept,
    })
}
