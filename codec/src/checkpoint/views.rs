//! The weights that the tensors of a quantized checkpoint stand for.

use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Escaped, Result};

use super::listing::list;
use super::{CMZ, Plan, SAFETENSORS, has_extension, parent, plan_weights};
use crate::convert::SourceKind;
use crate::import::quantized::{Found, Quantization};
use crate::io::PlainFile;

/// Plans to compress a quantized checkpoint, as [`super::plan_compress`] does, and demands that there are views: by the program `method`, if one
/// is named.
///
/// # Errors
/// As [`super::plan_compress`], or [`Code::BadSource`] if the checkpoint is not what it should be.
pub fn plan_quantized(method: Option<&str>, source: &Path, target: Option<&Path>) -> Result<Plan> {
    let folder = folder_of(source);
    let in_folder = |e: Error| e.in_file(&folder);
    if has_extension(source, CMZ) {
        return Err(Error::new(Code::BadSource, "this is a .cmz file already").in_file(source));
    }
    let kind = kind_of(source)?;
    let as_it_is = match kind {
        SourceKind::Safetensors => "`cmz compress` stores it as it is",
        SourceKind::Torch => "`cmz import torch` stores it as it is",
    };
    let bad = |why: String| in_folder(Error::new(Code::BadSource, why)).with_help(as_it_is);
    let plan = plan_weights(kind, source, target, true).map_err(|e| match e.code() {
        Code::NotWeights if source.is_dir() => {
            let why = "there is no .safetensors file here, and no .pt file with tensors";
            in_folder(Error::new(Code::NotWeights, why)).with_help("give the folder that holds the files")
        }
        _ => e,
    })?;
    let Some(found) = Quantization::of_folder(&folder)? else {
        return Err(bad(match method {
            // It is told by these two alone.
            Some("qmoe") => {
                "there is no config.json with the integers d_model and d_ff, which QMoE's matrices have for widths"
            }
            _ => "no configuration says that this checkpoint is quantized",
        }
        .to_owned()));
    };
    if let Some(method) = method.filter(|method| *method != found.method()) {
        let why =
            format!("the configuration says that this checkpoint is of {}, not {method}", Escaped(found.method()));
        return Err(bad(why));
    }
    if plan.views.iter().all(Vec::is_empty) {
        let why = plan.notes.first().map_or("no tensor is what the configuration says", String::as_str);
        return Err(bad(format!("no weights that are understood: {why}")));
    }
    Ok(plan)
}

/// What a quantized checkpoint's files are: those of `torch.save` where there are no others.
fn kind_of(source: &Path) -> Result<SourceKind> {
    let is_torch = |file: &Path| has_extension(file, SourceKind::Torch.extension());
    let torch = match source.is_dir() {
        true => {
            let files = list(source)?.files;
            files.iter().any(|file| is_torch(file)) && !files.iter().any(|file| has_extension(file, SAFETENSORS))
        }
        false => is_torch(source),
    };
    Ok(if torch { SourceKind::Torch } else { SourceKind::Safetensors })
}

fn folder_of(source: &Path) -> PathBuf {
    if source.is_dir() { source.to_owned() } else { parent(source) }
}

/// Finds the views of each file of a plan. What goes wrong is a note: without views, the tensors are as well stored.
pub(super) fn find(plan: &mut Plan, source: &Path) {
    let quantization = match Quantization::of_folder(&folder_of(source)) {
        Ok(Some(quantization)) => quantization,
        Ok(None) => return,
        Err(e) => return plan.notes.push(format!("no views: {e}")),
    };
    for job in &plan.jobs {
        let find = || {
            let file = PlainFile::open(&job.source)?;
            Ok(quantization.views(&plan.kind.header(&file)?, &file))
        };
        // The conversion says what is wrong with the file.
        let Found { views, notes } = find().unwrap_or_else(|_: Error| Found::default());
        let new = notes.into_iter().filter(|note| !plan.notes.contains(note)).collect::<Vec<_>>();
        plan.notes.extend(new);
        plan.views.push(views);
    }
}
