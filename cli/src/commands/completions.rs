//! `cmz completions`.

use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::report::Report;

pub(crate) fn run(args: &Completions) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "cmz", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    let mut report = Report::default();
    report.json.insert("script".to_owned(), text.clone().into());
    report.text = text;
    report
}
