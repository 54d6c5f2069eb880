//! Planning the import of a checkpoint that another program has compressed.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Result};

use super::listing::list;
use super::shards::{SHARD_INDEX, Shards, check_indexes};
use super::{CMZ, Input, Job, Plan, SAFETENSORS};
use super::{has_extension, has_suffix, input_kind, markers, no_weights, parent, plan_file, renamed};
use crate::import::Original;

/// Plans to make the `.cmz` files of an original checkpoint (a safetensors file, a folder or
/// an index of shards), of which only the headers are there, from another form of it. Each
/// job has the path of its original as source, and the headers come in the order of the jobs.
/// The rules for the target are those of [`super::plan_compress`].
///
/// # Errors
/// [`Code::Io`], [`Code::NotWeights`], [`Code::BadSource`], [`Code::InvalidArgument`].
pub fn plan_import(original: &Path, target: &Path) -> Result<(Plan, Vec<Original>)> {
    let (folder, indexes) = match input_kind(original)? {
        Input::File => {
            let mut plan = plan_file(original, Some(target), renamed(original, SAFETENSORS, CMZ));
            plan.settle()?;
            return Ok((plan, vec![Original::read(original)?]));
        }
        Input::ShardIndex => (parent(original), vec![original.to_owned()]),
        Input::Folder => {
            let indexes = list(original)?.files.into_iter().filter(|file| has_suffix(file, SHARD_INDEX)).collect();
            (original.to_owned(), indexes)
        }
        Input::CmzIndex => {
            return Err(Error::new(Code::NotWeights, "this is an index of .cmz files").in_file(original));
        }
    };
    plan_shards(&folder, indexes, target)
}

fn plan_shards(folder: &Path, indexes: Vec<PathBuf>, target: &Path) -> Result<(Plan, Vec<Original>)> {
    let shards = indexes.iter().map(|path| Shards::read(path)).collect::<Result<Vec<_>>>()?;
    let files = if shards.is_empty() {
        safetensors_of(folder)?.0
    } else {
        let names: BTreeSet<&str> = shards.iter().flat_map(Shards::names).collect();
        names.into_iter().map(|name| folder.join(name)).collect()
    };
    if files.is_empty() {
        return Err(no_weights(folder));
    }
    let originals = files.iter().map(|file| Original::read(file)).collect::<Result<Vec<_>>>()?;
    let mut plan = Plan { folder: Some(target.to_owned()), many: true, ..Plan::default() };
    let to = |file: &Path, name| Job { source: file.to_owned(), target: target.join(name) };
    plan.jobs = files.iter().map(|file| to(file, renamed(file, SAFETENSORS, CMZ))).collect();
    plan.copies = indexes.iter().map(|file| to(file, file.file_name().unwrap_or_default().to_owned())).collect();
    let tensors: HashMap<String, Vec<String>> = originals
        .iter()
        .map(|original| {
            let name = original.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, original.header.tensors.iter().map(|tensor| tensor.name.clone()).collect())
        })
        .collect();
    check_indexes(folder, &tensors, &shards, &mut plan.notes)?;
    plan.markers = markers(target, &plan.jobs, &shards, tensors);
    plan.settle()?;
    Ok((plan, originals))
}

/// The safetensors files of a folder, by name, and its other files.
pub(crate) fn safetensors_of(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    Ok(list(folder)?.files.into_iter().partition(|file| has_extension(file, SAFETENSORS)))
}
