//! `cmz`: compresses neural-network checkpoints without losing a bit, and restores them.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod device;
mod lossy;
mod npy;
mod progress;
mod report;
mod text;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use context::Context;
use report::{Report, usage_json};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    args.globals.color.apply();
    let context = Context::new(&args.globals);
    let (name, report) = run(&args.command, &context);
    context.progress.clear();
    report.finish(name, &context)
}

fn run(command: &Command, context: &Context) -> (&'static str, Report) {
    match command {
        Command::Compress(args) => ("compress", commands::compress::run(args, context)),
        Command::Decompress(args) => ("decompress", commands::decompress::run(args, context)),
        Command::Inspect(args) => ("inspect", commands::inspect::run(args, context)),
        Command::Verify(args) => ("verify", commands::verify::run(args, context)),
        Command::Extract(args) => ("extract", commands::extract::run(args, context)),
        Command::Recover(args) => ("recover", commands::recover::run(args, context)),
        Command::Import(args) => ("import", commands::import::run(args, context)),
        Command::Export(args) => ("export", commands::export::run(args, context)),
        Command::Bench(args) => ("bench", commands::bench::run(args, context)),
        Command::Doctor => ("doctor", commands::doctor::run(context)),
        Command::Completions(args) => ("completions", commands::completions::run(args)),
    }
}

/// Prints help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let wrong = error.use_stderr();
    if wrong && std::env::args_os().any(|arg| arg == "--json") {
        // The exit status tells of a failure here as well.
        let _ = writeln!(std::io::stdout(), "{}", usage_json(error));
    } else {
        let _ = error.print();
    }
    ExitCode::from(if wrong { 2 } else { 0 })
}
