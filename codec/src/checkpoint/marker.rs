//! `*.cmz.index.json`: the index of a converted folder, written last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cmz_format::{Code, Error, Escaped, Result, unique_map};
use serde::{Deserialize, Serialize};

use super::shards::{check_basename, read_json};
use super::{CMZ, SAFETENSORS};
use crate::Archive;
use crate::convert::{SourceKind, hex};

/// What the name of such an index ends with.
pub(super) const CMZ_INDEX: &str = ".cmz.index.json";
const SCHEMA: &str = "cmz.index/1";

/// The index of a converted folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CmzIndex {
    /// Name and version of this form: `cmz.index/1`.
    schema: String,
    /// The `.cmz` file that holds each tensor.
    #[serde(deserialize_with = "unique_map")]
    pub weight_map: BTreeMap<String, String>,
    /// The `.cmz` files.
    pub shards: Vec<Shard>,
    /// Where the index was read.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A `.cmz` file of a converted folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// Its length, in bytes.
    pub len: u64,
    /// Its root digest, in hexadecimal.
    pub root: String,
    /// The name of the file that it was made from.
    pub source: String,
    /// SHA-256 of that file, in hexadecimal.
    pub source_sha256: String,
}

impl CmzIndex {
    pub(super) fn new(weight_map: BTreeMap<String, String>, mut shards: Vec<Shard>) -> Self {
        shards.sort_by(|a, b| a.file.cmp(&b.file));
        Self { schema: SCHEMA.to_owned(), weight_map, shards, path: PathBuf::new() }
    }

    /// Reads an index and checks the names in it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut index: Self = read_json(path)?;
        let bad = |why: String| Error::new(Code::BadSource, why).in_file(path);
        if index.schema != SCHEMA {
            return Err(bad(format!("the index has the form \"{}\", not {SCHEMA}", Escaped(&index.schema)))
                .with_help("use a newer cmz"));
        }
        for shard in &index.shards {
            check_basename(&shard.file, CMZ).map_err(|e| e.in_file(path))?;
            let torch = |e| check_basename(&shard.source, SourceKind::Torch.extension()).map_err(|_| e);
            check_basename(&shard.source, SAFETENSORS).or_else(torch).map_err(|e: Error| e.in_file(path))?;
        }
        index.path = path.to_owned();
        Ok(index)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // Plain structs always serialize.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

impl Shard {
    /// Describes a `.cmz` file made from a source of this name.
    pub(super) fn of(cmz: &Path, source: &Path) -> Result<Self> {
        let archive = Archive::open(cmz)?;
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            file: name(cmz),
            len: archive.index().file_len(),
            root: hex(archive.index().root()),
            source: name(source),
            source_sha256: archive.source()?.sha256.clone(),
        })
    }

    /// Checks that the file in `folder` is the one that the index describes.
    ///
    /// # Errors
    /// [`Code::BadSource`] if it is missing, [`Code::Disagreement`] if it is another, or why
    /// it cannot be opened.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.file);
        if !path.is_file() {
            return Err(Error::new(
                Code::BadSource,
                format!("the index names the shard {}, which is not there", Escaped(&self.file)),
            )
            .with_help("fetch the missing file"));
        }
        let found = Self::of(&path, Path::new(&self.source))?;
        if found == *self {
            return Ok(());
        }
        Err(Error::new(Code::Disagreement, "this file is not the one that the folder's index describes")
            .in_file(path)
            .with_help("fetch the file or the index again"))
    }
}
