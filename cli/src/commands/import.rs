//! `cmz import`.

use std::path::Path;

use cmz_codec::checkpoint;
use cmz_codec::convert::CompressOptions;
use cmz_codec::import::dfloat11::Checkpoint;
use cmz_codec::{Code, Error, Result};
use serde_json::Value;

use super::compress::{encode_options, file_json, note_earlier, summary};
use crate::args::{Import, ImportDfloat11, ImportKind};
use crate::context::Context;
use crate::report::Report;

pub(crate) fn run(args: &Import, context: &Context) -> Report {
    match &args.kind {
        ImportKind::Dfloat11(args) => dfloat11(args, context).into(),
    }
}

fn dfloat11(args: &ImportDfloat11, context: &Context) -> Result<Report> {
    let encode = encode_options(args.level, args.codec.as_deref())?;
    let options = CompressOptions {
        encode,
        threads: context.threads,
        io: context.open.io,
        replace: args.force,
        verify: !args.no_verify,
        bases: Vec::new(),
        quantizer: None,
    };
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
