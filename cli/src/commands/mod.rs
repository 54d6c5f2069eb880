//! One module a command.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod compress;
pub(crate) mod decompress;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod extract;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod recover;
pub(crate) mod verify;

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cmz_codec::checkpoint::{Plan, check_targets};
use cmz_codec::{Code, Error, Result};

use crate::context::Context;
use crate::text;

/// Plans the conversion of every input. Several inputs go into one folder.
fn plans(
    inputs: &[PathBuf],
    output: Option<&Path>,
    plan: impl Fn(&Path, Option<&Path>) -> Result<Plan>,
    context: &Context,
) -> Result<Vec<Plan>> {
    let plan_one = |input: &PathBuf| {
        let Some(output) = output.filter(|_| inputs.len() > 1) else { return plan(input, output) };
        match input.file_name().filter(|_| input.is_dir()) {
            Some(name) => plan(input, Some(&output.join(name))),
            // The slash makes it a folder.
            None => plan(input, Some(&output.join(""))),
        }
    };
    let plans = inputs.iter().map(plan_one).collect::<Result<Vec<_>>>()?;
    check_targets(&plans)?;
    for plan in &plans {
        plan.notes.iter().for_each(|note| context.note(note));
        for path in &plan.left_out {
            context.note(&format!("{} is left out", text::path(path)));
        }
    }
    Ok(plans)
}

/// What a file looked like before it was converted.
struct Stamp(Option<(u64, Option<SystemTime>)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let values = |m: Metadata| (m.len(), m.modified().ok());
        Self(std::fs::metadata(path).ok().map(values))
    }
}

/// Removes a source that has been converted, unless it has changed since.
fn remove(path: &Path, stamp: &Stamp) -> Result<()> {
    if Stamp::of(path).0 != stamp.0 {
        return Err(Error::new(Code::SourceChanged, "the source changed meanwhile and is not removed").in_file(path));
    }
    std::fs::remove_file(path).map_err(|e| Error::io("cannot remove the source", e).in_file(path))
}
