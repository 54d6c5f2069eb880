//! The index of a sharded safetensors checkpoint: which tensor is in which file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use cmz_format::{Code, Error, Escaped, Result, unique_map};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Job, SAFETENSORS, has_extension};
use crate::convert::SourceKind;
use crate::io::{PlainFile, ReadAt};

/// What the name of such an index ends with.
pub(super) const SHARD_INDEX: &str = ".safetensors.index.json";
/// Bytes that an index may have.
const MAX_INDEX_LEN: u64 = 256 << 20;

#[derive(Debug)]
pub(super) struct Shards {
    /// The index's name, without folder.
    pub(super) file_name: String,
    /// The file that holds each tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Json {
    #[serde(deserialize_with = "unique_map")]
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct UniqueKeys(#[serde(deserialize_with = "unique_map")] BTreeMap<String, IgnoredAny>);

/// Reads a JSON file whose outermost object must not name a key twice.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let file = PlainFile::open(path)?;
    let bad = |why: String| Error::new(Code::BadSource, format!("the index: {why}")).in_file(path);
    if file.byte_len() > MAX_INDEX_LEN {
        return Err(bad(format!("it has {} bytes, more than {MAX_INDEX_LEN}", file.byte_len())));
    }
    let mut bytes = vec![0; file.byte_len() as usize];
    file.read_at(0, &mut bytes).map_err(|e| e.in_file(path))?;
    serde_json::from_slice::<UniqueKeys>(&bytes).map(|keys| drop(keys.0)).map_err(|e| bad(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))
}

/// Refuses a name that could lead out of the index's folder.
pub(super) fn check_basename(name: &str, extension: &str) -> Result<()> {
    let plain = !name.contains(['/', '\\', ':', '\0']) && name.len() > extension.len() + 1;
    if plain && has_extension(Path::new(name), extension) {
        return Ok(());
    }
    Err(Error::new(
        Code::BadSource,
        format!("the index names \"{}\", which is not the name of a .{extension} file next to it", Escaped(name)),
    )
    .with_help("an index may only name files of its own folder; do not trust this one"))
}

impl Shards {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let Json { weight_map } = read_json(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let shards = Self { file_name, weight_map };
        shards.names().try_for_each(|name| check_basename(name, SAFETENSORS)).map_err(|e| e.in_file(path))?;
        Ok(shards)
    }

    /// The files that the index names, each once.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.weight_map.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter()
    }
}

/// Checks indexes against the files: every named file is there and holds the tensors that it
/// should. Returns the names of the tensors in each file.
pub(super) fn check(
    folder: &Path,
    kind: SourceKind,
    jobs: &[Job],
    indexes: &[Shards],
    notes: &mut Vec<String>,
) -> Result<HashMap<String, Vec<String>>> {
    let mut tensors = HashMap::new();
    for job in jobs {
        let file = PlainFile::open(&job.source)?;
        let header = kind.header(&file).map_err(|e| e.in_file(&job.source))?;
        let name = job.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tensors.insert(name, header.tensors.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>());
    }
    check_indexes(folder, &tensors, indexes, notes)?;
    Ok(tensors)
}

/// Checks indexes against the names of the tensors in each file.
pub(super) fn check_indexes(
    folder: &Path,
    tensors: &HashMap<String, Vec<String>>,
    indexes: &[Shards],
    notes: &mut Vec<String>,
) -> Result<()> {
    indexes
        .iter()
        .try_for_each(|index| check_index(index, tensors, notes).map_err(|e| e.in_file(folder.join(&index.file_name))))
}

fn check_index(index: &Shards, tensors: &HashMap<String, Vec<String>>, notes: &mut Vec<String>) -> Result<()> {
    let mut held: HashMap<&str, HashSet<&str>> = HashMap::new();
    for shard in index.names() {
        let names = tensors.get(shard).ok_or_else(|| {
            Error::new(Code::BadSource, format!("the index names the shard {}, which is not there", Escaped(shard)))
                .with_help("fetch the missing file")
        })?;
        held.insert(shard, names.iter().map(String::as_str).collect());
    }
    for (name, shard) in &index.weight_map {
        if !held.get_mut(shard.as_str()).is_some_and(|names| names.remove(name.as_str())) {
            let why = format!("the index says that {} holds this tensor, but it does not", Escaped(shard));
            return Err(Error::new(Code::BadSource, why)
                .in_tensor(name)
                .with_help("index and shards are of different checkpoints, or a file is damaged: fetch them again"));
        }
    }
    let unnamed: usize = held.values().map(HashSet::len).sum();
    if unnamed > 0 {
        notes.push(format!("{unnamed} tensors in the shards are not in {}", Escaped(&index.file_name)));
    }
    Ok(())
}
