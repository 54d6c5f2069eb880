//! `cmz export`.

use cmz_codec::convert::Progress as _;
use cmz_codec::export::qmoe;
use cmz_codec::{Archive, Code, Error, Result};
use serde_json::json;

use crate::args::{Export, ExportKind, ExportQmoe};
use crate::context::Context;
use crate::report::Report;
use crate::text::{path, size};

pub(crate) fn run(args: &Export, context: &Context) -> Report {
    match &args.kind {
        ExportKind::Qmoe(args) => qmoe(args, context).into(),
    }
}

fn qmoe(args: &ExportQmoe, context: &Context) -> Result<Report> {
    if args.output.canonicalize().is_ok_and(|target| args.input.canonicalize().is_ok_and(|input| input == target)) {
        return Err(Error::new(Code::InvalidArgument, "the target is the source").in_file(&args.output));
    }
    if args.output.as_os_str() == "-" {
        let help = "choose a file with -o";
        return Err(Error::new(Code::InvalidArgument, "an export cannot be sent to standard output").with_help(help));
    }
    let archive = Archive::open_with(&args.input, context.open.clone())?;
    context.progress.file(&args.input, 0, 1);
    let done = qmoe::write(&archive, &args.output, args.force, context.threads, &context.progress)
        .map_err(|e| e.in_file(&args.input))?;
    let bits = done.len as f64 * 8.0 / done.weights as f64;
    let matrices = match done.matrices {
        1 => "1 matrix".to_owned(),
        matrices => format!("{matrices} matrices"),
    };
    let text = format!("{}  {matrices}, {}, {bits:.3} bits per weight\n", path(&args.output), size(done.len));
    let mut report = Report { text, ..Report::default() };
    report.json.insert("target".to_owned(), args.output.to_string_lossy().into());
    report.json.insert("matrices".to_owned(), json!(done.matrices));
    report.json.insert("weights".to_owned(), json!(done.weights));
    report.json.insert("len".to_owned(), json!(done.len));
    Ok(report)
}
