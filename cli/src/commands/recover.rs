//! `cmz recover`.

use std::path::{Path, PathBuf};

use cmz_codec::convert::{self, Recovered};
use cmz_codec::{Code, Error, Result};
use cmz_format::Escaped;
use serde_json::json;

use crate::args::Recover;
use crate::context::Context;
use crate::report::Report;
use crate::text::{count, path};

pub(crate) fn run(args: &Recover, context: &Context) -> Report {
    recover(args, context).into()
}

fn recover(args: &Recover, context: &Context) -> Result<Report> {
    let target = match &args.output {
        Some(output) if output.is_dir() => output.join(default_name(&args.input)),
        Some(output) => output.clone(),
        None => args.input.with_file_name(default_name(&args.input)),
    };
    if target.canonicalize().is_ok_and(|target| args.input.canonicalize().is_ok_and(|input| input == target)) {
        return Err(Error::new(Code::InvalidArgument, "the target is the damaged file itself").in_file(target));
    }
    let Recovered { saved, lost, source_whole } = convert::recover(&args.input, &target, args.force)?;
    if !source_whole {
        context.note("the new file has tensors only: the source file as a whole cannot be restored from it");
    }
    let text = format!("{}  {} saved, {} lost\n", path(&target), count(saved.len() as u64, "tensor"), lost.len());
    let mut report = Report { text, ..Report::default() };
    for lost in &lost {
        let (code, reason) = (lost.reason.code().number(), Escaped(lost.reason.message()));
        report.text.push_str(&format!("lost  {}  CMZ{code}: {reason}\n", Escaped(&lost.name)));
    }
    report.json.insert("target".to_owned(), target.to_string_lossy().into());
    report.json.insert("saved".to_owned(), json!(saved));
    report.json.insert("source_whole".to_owned(), source_whole.into());
    let lost_json = |lost: &convert::Lost| json!({"name": lost.name, "code": format!("CMZ{}", lost.reason.code().number()), "reason": lost.reason.message()});
    report.json.insert("lost".to_owned(), lost.iter().map(lost_json).collect());
    if let Some(first) = lost.first() {
        let why = format!("{} could not be saved", count(lost.len() as u64, "tensor"));
        let help = "the new file has the others; fetch the damaged file again to get them all";
        report.errors.push(Error::new(first.reason.code(), why).in_file(&args.input).with_help(help));
    }
    Ok(report)
}

fn default_name(input: &Path) -> PathBuf {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".partial").unwrap_or(&name);
    let stem = stem.strip_suffix(".cmz").unwrap_or(stem);
    PathBuf::from(format!("{stem}.recovered.cmz"))
}
