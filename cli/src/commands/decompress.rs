//! `cmz decompress`.

use cmz_codec::checkpoint::{self, Done, Plan};
use cmz_codec::convert::{DecompressOptions, Decompressed};
use cmz_codec::{OpenOptions, Result};
use serde_json::{Value, json};

use super::{Stamp, plans, remove};
use crate::args::Decompress;
use crate::context::Context;
use crate::lossy;
use crate::report::Report;
use crate::text::{path, size};

pub(crate) fn run(args: &Decompress, context: &Context) -> Report {
    decompress(args, context).into()
}

fn decompress(args: &Decompress, context: &Context) -> Result<Report> {
    let plan_one = |source: &_, target: Option<&_>| checkpoint::plan_decompress(source, target, !args.no_aux);
    let open = context.open_options(&args.base)?;
    let plans = plans(&args.inputs, args.output.as_deref(), plan_one, context)?;
    let mut report = Report::default();
    let mut files = Vec::new();
    for plan in &plans {
        match decompress_plan(plan, &open, args, context) {
            Ok(done) => {
                report.text.extend(done.iter().map(line));
                files.extend(done.iter().map(file_json));
            }
            Err(error) => report.errors.push(error),
        }
    }
    report.json.insert("files".to_owned(), files.into());
    Ok(report)
}

fn decompress_plan(
    plan: &Plan,
    open: &OpenOptions,
    args: &Decompress,
    context: &Context,
) -> Result<Vec<Done<Decompressed>>> {
    let stamps: Vec<Stamp> = plan.jobs.iter().map(|job| Stamp::of(&job.source)).collect();
    let options = DecompressOptions { threads: context.threads, replace: args.force };
    let done = checkpoint::decompress(plan, open.clone(), &options, &context.progress)?;
    for done in done.iter().filter(|done| done.kept) {
        context.note(&format!("{} is up to date", path(&done.job.target)));
    }
    if args.rm {
        // Without its files an index is good for nothing.
        plan.indexes.iter().try_for_each(|index| remove(index, &Stamp::of(index)))?;
        done.iter().zip(&stamps).try_for_each(|(done, stamp)| remove(&done.job.source, stamp))?;
    }
    Ok(done)
}

fn line(done: &Done<Decompressed>) -> String {
    let how = match lossy::summary(&lossy::of(&done.job.source)) {
        _ if done.kept => "up to date".to_owned(),
        Some(rounded) => format!("what the file holds: {rounded}"),
        None => "identical to the source".to_owned(),
    };
    format!("{}  {}  sha256 {}  {how}\n", path(&done.job.target), size(done.result.len), done.result.sha256)
}

fn file_json(done: &Done<Decompressed>) -> Value {
    json!({
        "source": done.job.source.to_string_lossy(),
        "target": done.job.target.to_string_lossy(),
        "len": done.result.len,
        "sha256": done.result.sha256,
        "kept": done.kept,
        "lossy": lossy::of(&done.job.source).iter().map(lossy::json).collect::<Vec<_>>(),
    })
}
