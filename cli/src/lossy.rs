//! What is said of files with rounded tensors, and the plan to make them.

use std::path::Path;
use std::sync::Arc;

use cmz_codec::checkpoint;
use cmz_codec::io::PlainFile;
use cmz_codec::safetensors::Header;
use cmz_codec::{Archive, Code, Error, Result};
use cmz_format::{Escaped, Lossy};
use cmz_quantize::plan::{Plan, StatisticsFile, Target};
use serde_json::{Value, json};

use crate::args::Rounding;
use crate::context::Context;
use crate::text::count;

/// Names of tensors that are listed, at most.
const MAX_NAMED: usize = 5;

/// The plan that options ask for, if they do.
pub(crate) fn plan(args: &Rounding) -> Result<Option<Arc<Plan>>> {
    let plan = match (&args.recipe, &args.plan) {
        (Some(recipe), _) => Plan::of_recipe(recipe, &args.only)?,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("cannot read the plan", e).in_file(path))?;
            Plan::parse(&text).map_err(|e| e.in_file(path))?
        }
        (None, None) if args.statistics.is_none() && target(args)?.is_none() => return Ok(None),
        (None, None) => {
            let why = "statistics and targets are for rounding, and nothing is to be rounded";
            return Err(Error::new(Code::InvalidArgument, why).with_help("pass --recipe or --plan, too"));
        }
    };
    let plan = match &args.statistics {
        Some(path) => plan.with_statistics(StatisticsFile::open(path)?),
        None => plan,
    };
    Ok(Some(Arc::new(match target(args)? {
        Some(target) => plan.with_target(target),
        None => plan,
    })))
}

fn target(args: &Rounding) -> Result<Option<Target>> {
    match (args.target_bpw, args.target_size) {
        (Some(bits), _) if !(bits > 0.0 && bits <= 32.0) => {
            let why = format!("a target of {bits} bits per weight");
            Err(Error::new(Code::InvalidArgument, why).with_help("give a number above 0, and at most 32"))
        }
        (Some(bits), _) => Ok(Some(Target::BitsPerWeight(bits))),
        (None, len) => Ok(len.map(Target::FileLen)),
    }
}

/// Checks that a plan fits the tensors of a checkpoint.
pub(crate) fn check(plan: &Plan, args: &Rounding, jobs: &[checkpoint::Job], context: &Context) -> Result<()> {
    let header =
        |source: &Path| PlainFile::open(source).and_then(|file| Header::read(&file)).map_err(|e| e.in_file(source));
    if args.target_size.is_some() && jobs.len() > 1 {
        return Err(Error::new(Code::InvalidArgument, "--target-size is for one file")
            .with_help("pass --target-bpw, which holds for each file"));
    }
    let headers = jobs.iter().map(|job| header(&job.source)).collect::<Result<Vec<_>>>()?;
    let coverage = plan.check(&headers)?;
    context.detail(&format!("{} to be rounded", count(coverage.rounded as u64, "tensor")));
    if !coverage.unsuitable.is_empty() {
        let mut names: Vec<String> =
            coverage.unsuitable.iter().take(MAX_NAMED).map(|name| Escaped(name).to_string()).collect();
        if coverage.unsuitable.len() > MAX_NAMED {
            names.push(format!("{} more", coverage.unsuitable.len() - MAX_NAMED));
        }
        context.note(&format!("stored exactly, as they are no matrices of floats: {}", names.join(", ")));
    }
    Ok(())
}

/// Refuses what would leave nothing but rounded weights.
pub(crate) fn check_removal(args: &Rounding, removes: bool) -> Result<()> {
    if removes && (args.recipe.is_some() || args.plan.is_some()) {
        return Err(Error::new(Code::InvalidArgument, "--rm would remove weights that cannot be restored")
            .with_help("leave it out, and remove the source yourself"));
    }
    Ok(())
}

/// The tensors of a file that were rounded.
pub(crate) fn of(file: &Path) -> Vec<Lossy> {
    Archive::open(file).map(|archive| archive.index().manifest().lossy.clone()).unwrap_or_default()
}

/// How many tensors were rounded, and how far at most; none, if none was.
pub(crate) fn summary<'a>(lossy: impl IntoIterator<Item = &'a Lossy>) -> Option<String> {
    let (mut tensors, mut most) = (0, 0);
    for lossy in lossy {
        (tensors, most) = (tensors + 1, most.max(lossy.error_ppb));
    }
    (tensors > 0).then(|| format!("{} rounded, relative error up to {}", count(tensors, "tensor"), error(most)))
}

/// A relative error as text.
pub(crate) fn error(ppb: u64) -> String {
    format!("{:.5}", ppb as f64 / 1e9)
}

pub(crate) fn json(lossy: &Lossy) -> Value {
    json!({
        "tensor": lossy.tensor,
        "recipe": lossy.recipe,
        "error": lossy.error_ppb as f64 / 1e9,
        "output_error": lossy.output_error_ppb.map(|ppb| ppb as f64 / 1e9),
    })
}
