//! `cmz import`.

use std::path::Path;

use cmz_codec::checkpoint::{self, Done, Job, Plan};
use cmz_codec::convert::{self, CompressOptions, Progress as _};
use cmz_codec::import::dfloat11::Checkpoint;
use cmz_codec::{Code, Error, Result};
use serde_json::Value;

use super::compress::{encode_options, file_json, note_earlier, summary};
use crate::args::{Import, ImportDfloat11, ImportKind, ImportQuantized, ImportTorch, ImportWriting};
use crate::context::Context;
use crate::report::Report;
use crate::text::count;

pub(crate) fn run(args: &Import, context: &Context) -> Report {
    let (method, args) = match &args.kind {
        ImportKind::Dfloat11(args) => return dfloat11(args, context).into(),
        ImportKind::Torch(args) => return torch(args, context).into(),
        ImportKind::Auto(args) => (None, args),
        ImportKind::Awq(args) => (Some("awq"), args),
        ImportKind::Bitsandbytes(args) => (Some("bitsandbytes"), args),
        ImportKind::CompressedTensors(args) => (Some("compressed-tensors"), args),
        ImportKind::Fp8(args) => (Some("fp8"), args),
        ImportKind::Gptq(args) => (Some("gptq"), args),
        ImportKind::Modelopt(args) => (Some("modelopt"), args),
        ImportKind::Mxfp4(args) => (Some("mxfp4"), args),
        ImportKind::Qmoe(args) => (Some("qmoe"), args),
        ImportKind::Spqr(args) => (Some("spqr"), args),
    };
    quantized(method, args, context).into()
}

fn options(args: &ImportWriting, context: &Context) -> Result<CompressOptions> {
    let encode = encode_options(args.level, args.codec.as_deref())?;
    let (threads, io) = (context.threads, context.open.io);
    let (replace, verify) = (args.force, !args.no_verify);
    Ok(CompressOptions { encode, threads, io, replace, verify, bases: Vec::new(), quantizer: None })
}

fn quantized(method: Option<&str>, args: &ImportQuantized, context: &Context) -> Result<Report> {
    let options = options(&args.writing, context)?;
    let plan = checkpoint::plan_quantized(method, &args.input, Some(&args.output))?;
    plan.notes.iter().for_each(|note| context.note(note));
    let done = checkpoint::compress(&plan, &options, &context.progress)?;
    note_earlier(&done, context);
    let views: usize = plan.views.iter().map(Vec::len).sum();
    let text = format!("{}{}\n", summary(&plan, &done, &options), count(views as u64, "view"));
    let mut report = Report { text, ..Report::default() };
    let file = |(done, views): (&_, &Vec<_>)| {
        let mut json = file_json(done, &options);
        json["views"] = views.len().into();
        json
    };
    report.json.insert("files".to_owned(), done.iter().zip(&plan.views).map(file).collect());
    Ok(report)
}

fn torch(args: &ImportTorch, context: &Context) -> Result<Report> {
    let options = options(&args.writing, context)?;
    let job = Job { source: args.input.clone(), target: args.output.clone() };
    context.progress.file(&job.source, 0, 1);
    let (result, found) = convert::compress_torch(&job.source, &job.target, &options, &context.progress)?;
    found.notes.iter().for_each(|note| context.note(note));
    let done = Done { job, result, kept: false };
    let mut text = summary(&Plan::default(), std::slice::from_ref(&done), &options);
    if !found.views.is_empty() {
        text += &format!("{}\n", count(found.views.len() as u64, "view"));
    }
    let mut report = Report { text, ..Report::default() };
    let mut json = file_json(&done, &options);
    json["views"] = found.views.len().into();
    report.json.insert("files".to_owned(), vec![json].into());
    Ok(report)
}

fn dfloat11(args: &ImportDfloat11, context: &Context) -> Result<Report> {
    let options = options(&args.writing, context)?;
    let (plan, originals) = checkpoint::plan_import(&args.like, &args.output)?;
    if let Some(job) = plan.jobs.iter().find(|job| is_in(&job.target, args)) {
        return Err(Error::new(Code::InvalidArgument, "the target is a file of the checkpoint").in_file(&job.target));
    }
    let (restored, notes) = Checkpoint::open(&args.input, args.config.as_deref())?.restore(&originals)?;
    plan.notes.iter().chain(&notes).for_each(|note| context.note(note));
    let done = checkpoint::import(&plan, &restored, &options, &context.progress)?;
    note_earlier(&done, context);
    let file = |done: &_| {
        let mut json = file_json(done, &options);
        json["like"] = std::mem::replace(&mut json["source"], args.input.to_string_lossy().into());
        json
    };
    let mut report = Report { text: summary(&plan, &done, &options), ..Report::default() };
    report.json.insert("files".to_owned(), done.iter().map(file).collect::<Vec<Value>>().into());
    Ok(report)
}

/// Whether a file is one of the input's.
fn is_in(target: &Path, args: &ImportDfloat11) -> bool {
    let (Ok(target), Ok(input)) = (target.canonicalize(), args.input.canonicalize()) else { return false };
    target == input || (target.parent() == Some(&input) && target.extension().is_some_and(|e| e == "safetensors"))
}
