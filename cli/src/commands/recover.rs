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
    if std::fs::symlink_metadata(&target).is_ok() {
        return Err(Error::new(Code::Exists, "the target exists").in_file(target).with_help("choose another with -o"));
    }
    let Recovered { saved, lost } = convert::recover(&args.input, &target)?;
    context.detail(&format!("{} into {}", count(saved.len() as u64, "tensor"), path(&target)));
    let text = format!("{}  {} saved, {} lost\n", path(&target), count(saved.len() as u64, "tensor"), lost.len());
    let mut report = Report { text, ..Report::default() };
    for lost in &lost {
        report.text.push_str(&format!("lost  {}\n", Escaped(&lost.name)));
    }
    report.json.insert("target".to_owned(), target.to_string_lossy().into());
    report.json.insert("saved".to_owned(), json!(saved));
    let lost_json = |lost: &convert::Lost| json!({"name": lost.name, "code": format!("CMZ{}", lost.reason.code().number()), "reason": lost.reason.message()});
    report.json.insert("lost".to_owned(), lost.iter().map(lost_json).collect());
    report.errors = lost.into_iter().map(|lost| lost.reason.in_tensor(&lost.name).in_file(&args.input)).collect();
    Ok(report)
}

fn default_name(input: &Path) -> PathBuf {
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".partial").unwrap_or(&name);
    let stem = stem.strip_suffix(".cmz").unwrap_or(stem);
    PathBuf::from(format!("{stem}.recovered.cmz"))
}
