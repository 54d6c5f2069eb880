//! What a user calls a checkpoint: one file, a folder, or the shards that a
//! `*.safetensors.index.json` names; and the plan of converting it, file by file.
//!
//! A converted folder holds a `.cmz` file for each safetensors file, every other file as it
//! was, and, written last, an index `*.cmz.index.json`: where it is, the conversion is
//! complete. Folders inside the folder are not entered.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Result, View};

use crate::Archive;
use crate::convert::{SourceKind, partial_path};
use crate::io::PlainFile;

mod import;
mod listing;
mod marker;
mod run;
mod shards;
mod views;

pub use import::plan_import;
pub(crate) use import::safetensors_of;
pub use marker::{CmzIndex, Shard};
pub use run::{Done, compress, decompress, import};
pub use views::plan_quantized;

use listing::{Listing, is_partial, list};
use marker::CMZ_INDEX;
use shards::{SHARD_INDEX, Shards};

const SAFETENSORS: &str = "safetensors";
const CMZ: &str = "cmz";

/// A file to be made from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The file to be read.
    pub source: PathBuf,
    /// The file to be made.
    pub target: PathBuf,
}

/// How a checkpoint is converted.
#[derive(Debug, Default)]
pub struct Plan {
    /// The folder to be made, unless the input is one file and the target its name.
    pub folder: Option<PathBuf>,
    /// Whether the input is more than one file: then files that are done already are kept.
    pub many: bool,
    /// What the files to be converted are.
    pub kind: SourceKind,
    /// The files to be converted.
    pub jobs: Vec<Job>,
    /// The files to be copied.
    pub copies: Vec<Job>,
    /// What is neither converted nor copied.
    pub left_out: Vec<PathBuf>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// For each job, the weights that the tensors of a quantized checkpoint stand for.
    pub views: Vec<Vec<View>>,
    /// Indexes of `.cmz` files that the plan follows.
    pub indexes: Vec<PathBuf>,
    /// Indexes to be written at the end: where, and which tensor is in which `.cmz` file.
    markers: Vec<Marker>,
}

#[derive(Debug)]
struct Marker {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
    /// Numbers of the jobs that make its shards.
    jobs: Vec<usize>,
}

enum Input {
    File,
    Folder,
    ShardIndex,
    CmzIndex,
}

fn input_kind(path: &Path) -> Result<Input> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("cannot open the input", e).in_file(path))?;
    Ok(match () {
        () if metadata.is_dir() => Input::Folder,
        () if has_suffix(path, SHARD_INDEX) => Input::ShardIndex,
        () if has_suffix(path, CMZ_INDEX) => Input::CmzIndex,
        () => Input::File,
    })
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(suffix))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

/// Plans to compress a file, a folder or a sharded checkpoint. Without a target, a file's
/// `.cmz` goes next to it and a folder's files into a folder next to it. A target that is a
/// folder, or ends with a slash, gets the file inside. `aux` says whether a folder's other
/// files are copied.
///
/// # Errors
/// [`Code::Io`], [`Code::NotWeights`], [`Code::BadSource`], [`Code::InvalidArgument`].
pub fn plan_compress(source: &Path, target: Option<&Path>, aux: bool) -> Result<Plan> {
    plan_weights(SourceKind::Safetensors, source, target, aux)
}

/// Plans to compress files of a kind.
fn plan_weights(kind: SourceKind, source: &Path, target: Option<&Path>, aux: bool) -> Result<Plan> {
    let mut plan = match input_kind(source)? {
        Input::File => Plan { kind, ..plan_file(source, target, renamed(source, kind.extension(), CMZ)) },
        Input::Folder => {
            let listing = list(source)?;
            plan_shards(kind, source, target, listing, aux)?
        }
        Input::ShardIndex => {
            let folder = parent(source);
            let shards = Shards::read(source)?;
            let mut files = vec![source.to_owned()];
            files.extend(shards.names().map(|name| folder.join(name)).filter(|path| path.is_file()));
            plan_shards(SourceKind::Safetensors, &folder, target, Listing { files, left_out: Vec::new() }, false)?
        }
        Input::CmzIndex => {
            return Err(Error::new(Code::NotWeights, "this is an index of .cmz files")
                .in_file(source)
                .with_help("`cmz decompress` restores the checkpoint"));
        }
    };
    plan.settle()?;
    views::find(&mut plan, source);
    Ok(plan)
}

/// Plans to restore what was compressed. The rules for the target are those of
/// [`plan_compress`].
///
/// # Errors
/// [`Code::Io`], [`Code::BadSource`], [`Code::Disagreement`], [`Code::OtherPartial`],
/// [`Code::InvalidArgument`].
pub fn plan_decompress(source: &Path, target: Option<&Path>, aux: bool) -> Result<Plan> {
    let mut plan = match input_kind(source)? {
        Input::File => plan_file(source, target, restored(source)),
        Input::Folder => plan_restore(source, target, list(source)?, aux)?,
        Input::CmzIndex => {
            let folder = parent(source);
            let index = CmzIndex::read(source)?;
            let mut files = vec![source.to_owned()];
            files.extend(index.shards.iter().map(|shard| folder.join(&shard.file)).filter(|path| path.is_file()));
            let shard_index = with_other_suffix(source, CMZ_INDEX, SHARD_INDEX);
            files.extend(Some(shard_index).filter(|path| path.is_file()));
            plan_restore(&folder, target, Listing { files, left_out: Vec::new() }, true)?
        }
        Input::ShardIndex => {
            return Err(Error::new(Code::NotCmz, "this is an index of safetensors files")
                .in_file(source)
                .with_help("`cmz compress` compresses the checkpoint; give its folder to restore it"));
        }
    };
    plan.settle()?;
    Ok(plan)
}

/// The `.cmz` files (or, where there are none, the safetensors files) that a path stands
/// for: itself, those in the folder, or those that the index names.
///
/// # Errors
/// [`Code::Io`], [`Code::BadSource`], [`Code::NotWeights`] if a folder holds neither.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let inside = |names: Vec<String>| names.iter().map(|name| parent(path).join(name)).collect();
    match input_kind(path)? {
        Input::File => Ok(vec![path.to_owned()]),
        Input::CmzIndex => Ok(inside(CmzIndex::read(path)?.shards.into_iter().map(|shard| shard.file).collect())),
        Input::ShardIndex => Ok(inside(Shards::read(path)?.names().map(str::to_owned).collect())),
        Input::Folder => {
            let files = list(path)?.files;
            let of = |extension| -> Vec<PathBuf> {
                files.iter().filter(|file| has_extension(file, extension)).cloned().collect()
            };
            [of(CMZ), of(SAFETENSORS)].into_iter().find(|files| !files.is_empty()).ok_or_else(|| no_weights(path))
        }
    }
}

/// The indexes of `.cmz` files in a folder, or the one that the path itself names.
///
/// # Errors
/// [`Code::Io`], [`Code::BadSource`].
pub fn indexes_of(path: &Path) -> Result<Vec<CmzIndex>> {
    match input_kind(path)? {
        Input::CmzIndex => Ok(vec![CmzIndex::read(path)?]),
        Input::Folder => list(path)?
            .files
            .iter()
            .filter(|file| has_suffix(file, CMZ_INDEX))
            .map(|file| CmzIndex::read(file))
            .collect(),
        Input::File | Input::ShardIndex => Ok(Vec::new()),
    }
}

/// Checks that no two sources of several plans would be written to the same place.
///
/// # Errors
/// [`Code::InvalidArgument`].
pub fn check_targets(plans: &[Plan]) -> Result<()> {
    let mut seen = HashMap::new();
    for plan in plans {
        let made = plan.jobs.iter().chain(&plan.copies).map(|job| (&job.target, job.source.clone()));
        let markers = plan.markers.iter().map(|marker| (&marker.path, PathBuf::from("the index of the .cmz files")));
        for (target, source) in made.chain(markers) {
            for name in [target.clone(), partial_path(target)] {
                if let Some(other) = seen.insert(name, source.clone()) {
                    let quote = |path: &Path| cmz_format::Escaped(&path.to_string_lossy()).to_string();
                    let why = format!("{} and {} would both be written to this file", quote(&other), quote(&source));
                    return Err(Error::new(Code::InvalidArgument, why)
                        .in_file(target)
                        .with_help("convert them into different folders"));
                }
            }
        }
    }
    Ok(())
}

impl Plan {
    /// Drops copies of a file to itself and refuses to overwrite what is read.
    fn settle(&mut self) -> Result<()> {
        self.copies.retain(|job| !same_file(&job.source, &job.target));
        for job in &self.jobs {
            if same_file(&job.source, &job.target) {
                return Err(Error::new(Code::InvalidArgument, "the target is the source").in_file(&job.source));
            }
        }
        check_targets(std::slice::from_ref(self))
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn plan_file(source: &Path, target: Option<&Path>, name: OsString) -> Plan {
    let folder = target.filter(|target| target.is_dir() || ends_with_slash(target));
    let target = match (folder, target) {
        (Some(folder), _) => folder.join(name),
        (None, Some(target)) => target.to_owned(),
        (None, None) => source.with_file_name(name),
    };
    let job = Job { source: source.to_owned(), target };
    Plan { folder: folder.map(Path::to_owned), jobs: vec![job], ..Plan::default() }
}

/// The name of what a `.cmz` file was made from. Whoever restores it finds what may be wrong with it.
fn restored(file: &Path) -> OsString {
    let of_torch = |archive: Archive| archive.source().is_ok_and(|source| source.kind == SourceKind::Torch.name());
    let kind = if Archive::open(file).is_ok_and(of_torch) { SourceKind::Torch } else { SourceKind::Safetensors };
    // In folders, names of pickles are kept: `exp00.pt.cmz`.
    match file.file_stem().map(Path::new) {
        Some(stem) if has_extension(file, CMZ) && has_extension(stem, kind.extension()) => stem.into(),
        _ => renamed(file, CMZ, kind.extension()),
    }
}

/// The file's name with another extension: in place of `from`, otherwise behind the name.
fn renamed(file: &Path, from: &str, to: &str) -> OsString {
    let stem = if has_extension(file, from) { file.file_stem() } else { file.file_name() };
    let mut name = stem.unwrap_or_default().to_owned();
    name.push(".");
    name.push(to);
    name
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(std::path::is_separator)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn with_other_suffix(path: &Path, from: &str, to: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{to}", name.strip_suffix(from).unwrap_or(&name)))
}

/// The folder next to `source` that gets the result if the user names none.
fn default_folder(source: &Path, name: impl FnOnce(&str) -> String) -> Result<PathBuf> {
    let full = source.canonicalize().map_err(|e| Error::io("cannot open the folder", e).in_file(source))?;
    let Some(old) = full.file_name() else {
        return Err(Error::new(Code::InvalidArgument, "this folder needs a target").with_help("pass -o FOLDER"));
    };
    Ok(if source.file_name().is_some() { source.to_owned() } else { full.clone() }
        .with_file_name(name(&old.to_string_lossy())))
}

fn no_weights(folder: &Path) -> Error {
    Error::new(Code::NotWeights, "there is no .safetensors or .cmz file in this folder")
        .in_file(folder)
        .with_help("folders inside it are not entered: give the one that holds the files")
}

/// Plans to compress the files of a kind in a listing and to copy the rest.
fn plan_shards(kind: SourceKind, source: &Path, target: Option<&Path>, listing: Listing, aux: bool) -> Result<Plan> {
    let folder = match target {
        Some(folder) => folder.to_owned(),
        None => default_folder(source, |name| format!("{name}-cmz"))?,
    };
    let mut plan = Plan { kind, many: true, left_out: listing.left_out, ..Plan::default() };
    let mut indexes = Vec::new();
    for file in listing.files {
        let copy = |name: &OsStr| Job { source: file.clone(), target: folder.join(name) };
        let name = file.file_name().unwrap_or_default();
        if has_extension(&file, kind.extension()) && (kind != SourceKind::Torch || has_tensors(kind, &file)?) {
            plan.jobs.push(copy(&renamed(&file, SAFETENSORS, CMZ)));
        } else if has_suffix(&file, SHARD_INDEX) {
            plan.copies.push(copy(name));
            indexes.push(file);
        } else if aux && !is_partial(&file) && !has_suffix(&file, CMZ_INDEX) {
            plan.copies.push(copy(name));
        } else {
            plan.left_out.push(file);
        }
    }
    let indexes = indexes.iter().map(|path| Shards::read(path)).collect::<Result<Vec<_>>>()?;
    let tensors = shards::check(source, kind, &plan.jobs, &indexes, &mut plan.notes)?;
    if plan.jobs.is_empty() {
        return Err(no_weights(source));
    }
    plan.markers = markers(&folder, &plan.jobs, &indexes, tensors);
    plan.folder = Some(folder);
    Ok(plan)
}

/// Pickles may hold no more than a few numbers.
fn has_tensors(kind: SourceKind, path: &Path) -> Result<bool> {
    let header = kind.header(&PlainFile::open(path)?).map_err(|e| e.in_file(path))?;
    Ok(!header.tensors.is_empty())
}

/// The indexes to be written: one for each shard index, or one for the folder. Files that no
/// shard index names are listed in the first.
fn markers(folder: &Path, jobs: &[Job], indexes: &[Shards], tensors: HashMap<String, Vec<String>>) -> Vec<Marker> {
    let number = |shard: &str| jobs.iter().position(|job| job.source.file_name() == Some(OsStr::new(shard)));
    let cmz_name = |shard: &str| renamed(Path::new(shard), SAFETENSORS, CMZ).to_string_lossy().into_owned();
    let mut markers: Vec<Marker> = indexes
        .iter()
        .map(|index| Marker {
            path: folder.join(with_other_suffix(Path::new(&index.file_name), SHARD_INDEX, CMZ_INDEX)),
            weight_map: index.weight_map.iter().map(|(name, shard)| (name.clone(), cmz_name(shard))).collect(),
            jobs: index.names().filter_map(number).collect(),
        })
        .collect();
    if markers.is_empty() {
        let names: usize = tensors.values().map(Vec::len).sum();
        let of_shard = |(shard, names): (String, Vec<String>)| {
            let file = cmz_name(&shard);
            names.into_iter().map(move |name| (name, file.clone()))
        };
        let mut weight_map: BTreeMap<_, _> = tensors.into_iter().flat_map(of_shard).collect();
        // Files with tensors of the same name are models of their own.
        if weight_map.len() != names {
            weight_map.clear();
        }
        markers.push(Marker { path: folder.join(format!("model{CMZ_INDEX}")), weight_map, jobs: Vec::new() });
    }
    let unnamed: Vec<usize> =
        (0..jobs.len()).filter(|job| !markers.iter().any(|marker| marker.jobs.contains(job))).collect();
    markers[0].jobs.extend(unnamed);
    markers
}

/// Plans to restore the files of a converted folder.
fn plan_restore(source: &Path, target: Option<&Path>, listing: Listing, aux: bool) -> Result<Plan> {
    let folder = match target {
        Some(folder) => folder.to_owned(),
        None => default_folder(source, |name| match name.strip_suffix("-cmz") {
            Some(original) if !original.is_empty() => original.to_owned(),
            _ => format!("{name}-{SAFETENSORS}"),
        })?,
    };
    let (indexes, files): (Vec<_>, Vec<_>) = listing.files.into_iter().partition(|file| has_suffix(file, CMZ_INDEX));
    let indexes = indexes.iter().map(|path| CmzIndex::read(path)).collect::<Result<Vec<_>>>()?;
    let mut originals = HashMap::new();
    for index in &indexes {
        for shard in &index.shards {
            shard.check(source).map_err(|e| e.in_file(&index.path))?;
            originals.insert(OsString::from(&shard.file), OsString::from(&shard.source));
        }
    }
    let paths = indexes.iter().map(|index| index.path.clone()).collect();
    let mut plan = Plan { many: true, left_out: listing.left_out, indexes: paths, ..Plan::default() };
    for file in files {
        let name = file.file_name().unwrap_or_default().to_owned();
        let to = |name: &OsStr| Job { source: file.clone(), target: folder.join(name) };
        if let Some(original) = originals.get(&name) {
            plan.jobs.push(to(original));
        } else if indexes.is_empty() && has_extension(&file, CMZ) {
            plan.jobs.push(to(&restored(&file)));
        } else if is_partial(&file) {
            return Err(Error::new(Code::OtherPartial, "the conversion into this folder is not finished")
                .in_file(&file)
                .with_help("run `cmz compress` again with the same arguments, or delete the file"));
        } else if aux || has_suffix(&file, SHARD_INDEX) {
            plan.copies.push(to(&name));
        } else {
            plan.left_out.push(file);
        }
    }
    if plan.jobs.is_empty() {
        return Err(no_weights(source));
    }
    plan.folder = Some(folder);
    Ok(plan)
}
