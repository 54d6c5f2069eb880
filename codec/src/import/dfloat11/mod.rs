//! DFloat11 checkpoints (versions 0.2 to 0.5): BF16 matrices in groups, the exponents of a
//! group as one stream of prefix codes, signs and mantissas beside it.
//!
//! A group `g` is six tensors of ordinary safetensors files:
//!
//! | tensor | type and shape | what |
//! |---|---|---|
//! | `g.luts` | `U8 [R, 256]` | R - 1 tables of codes, and the length of each symbol's code in bits |
//! | `g.encoded_exponent` | `U8 [n_bytes]` | the codes of all elements, the most significant bit first |
//! | `g.sign_mantissa` | `U8 [n_elements]` | sign (bit 7) and mantissa (bits 6 to 0) of each element |
//! | `g.gaps` | `U8 [320 a block]` | for each 8 bytes of the stream, in 5 bits, where the first code begins in them |
//! | `g.output_positions` | U8, u32 LE each | the first element of each block of 4096 bytes, and the number of elements |
//! | `g.split_positions` | `I64 [n_matrices - 1]` | where each matrix but the last ends, in elements |
//!
//! Blocks can be decoded in any order, so that reading a part of a matrix decodes the blocks
//! that hold it: memory is that of the output positions (4 bytes for 4096 of the stream), of look-up
//! tables (40 kB a group), and of one block (about 70 kB) for each thread. Every block is decoded whole, and that its
//! gaps, its output position and the end of the stream agree with its codes is checked. There
//! are no checksums, though: damage that leaves as many codes in as many bits is not found, nor
//! is any to signs and mantissas.
//!
//! Which matrices a group holds is in `config.json`; their shapes are nowhere, and come from
//! the headers of the original checkpoint.
//!
//! The layout is that of the `dfloat11` package: `dfloat11_utils.py` (`get_luts`, `encode`)
//! and `decode.cu`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmz_format::{Code, Error, Escaped, Result};

use self::config::{Config, join};
use self::group::{OpenFile, Parts, read_splits};
use super::restored::{Part, Tensor};
use super::{Original, Restored};
use crate::checkpoint::safetensors_of;
use crate::io::PlainFile;
use crate::safetensors::Header;

mod block;
mod code;
mod config;
#[cfg(test)]
mod generator;
mod group;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

pub(super) use group::{Group, Piece};

/// The tensors of a group.
const LUTS: &str = "luts";
const ENCODED_EXPONENT: &str = "encoded_exponent";
const SIGN_MANTISSA: &str = "sign_mantissa";
const GAPS: &str = "gaps";
const OUTPUT_POSITIONS: &str = "output_positions";
const SPLIT_POSITIONS: &str = "split_positions";
const SUFFIXES: [&str; 6] = [LUTS, ENCODED_EXPONENT, SIGN_MANTISSA, GAPS, OUTPUT_POSITIONS, SPLIT_POSITIONS];

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BadSource, why)
}

/// An open DFloat11 checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// Tensors that are stored as they are, by name.
    extras: BTreeMap<String, Piece>,
    /// The compressed matrices, by name.
    matrices: BTreeMap<String, Matrix>,
}

#[derive(Debug)]
struct Matrix {
    group: Arc<Group>,
    /// Where it begins in the group, and how many elements it has.
    first: u64,
    elements: u64,
}

impl Checkpoint {
    /// Opens a file, or all safetensors files of a folder, and checks all tables. Without
    /// `config`, the folder's `config.json` says what the groups hold.
    ///
    /// # Errors
    /// [`Code::NotWeights`] for what is obviously something else, a checkpoint of DFloat11 0.1
    /// (pickles) among it, [`Code::Version`] for an unknown version, [`Code::BadSource`] and
    /// [`Code::Truncated`] for a checkpoint that breaks a rule, [`Code::Io`].
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let (folder, files) = files(path)?;
        let config = Config::read(&match config {
            Some(config) => config.to_owned(),
            None => config_of(path, &folder)?,
        })?;
        let mut tensors = read_tensors(&files)?;
        let in_file = |e: Error| e.in_file(path);
        let mut matrices = BTreeMap::new();
        for (module, names) in groups(&tensors, &config).map_err(in_file)? {
            open_group(&module, &names, &mut tensors, &mut matrices).map_err(in_file)?;
        }
        if let Some((name, piece)) = tensors.iter().find(|(name, _)| matrices.contains_key(*name)) {
            return Err(bad("this tensor is stored both in a group and by itself")
                .in_file(&piece.file.path)
                .in_tensor(name));
        }
        Ok(Self { path: path.to_owned(), extras: tensors, matrices })
    }

    /// The original files, and what the user should know of them. Each gets the header of its
    /// original, byte for byte, if the checkpoint holds just the tensors of that; tensors that
    /// no original names are put into the last file.
    ///
    /// # Errors
    /// [`Code::BadSource`] if the originals have a tensor that the checkpoint lacks, one of
    /// another size, or not the shape of a compressed one.
    pub fn restore(mut self, originals: &[Original]) -> Result<(Vec<Restored>, Vec<String>)> {
        let path = std::mem::take(&mut self.path);
        let in_file = |e: Error| e.in_file(&path);
        let mut files = Vec::new();
        for original in originals {
            let entries = original.header.tensors.iter();
            let tensors = entries.map(|entry| self.take(&entry.name, &entry.shape)).collect::<Result<Vec<_>>>();
            files.push(tensors.map_err(in_file)?);
        }
        if let Some(name) = self.matrices.keys().next() {
            return Err(in_file(bad("the original does not name this tensor: its shape is unknown").in_tensor(name))
                .with_help("give the headers of all files of the original checkpoint"));
        }
        let mut notes = Vec::new();
        if let (Some(last), false) = (files.last_mut(), self.extras.is_empty()) {
            let count = self.extras.len();
            notes.push(format!(
                "the original does not name {count} tensors of the checkpoint: they are in the last file"
            ));
            last.extend(self.extras.into_iter().map(|(name, piece)| as_stored(name, piece)));
        }
        let restored = originals.iter().zip(files).map(|(original, tensors)| {
            let (restored, same) = Restored::new(original, tensors);
            if !same {
                let name = original.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let name = Escaped(&name);
                notes.push(format!(
                    "{name} gets a new header: the checkpoint differs from what the original's describes"
                ));
            }
            restored
        });
        Ok((restored.collect(), notes))
    }

    /// Takes a tensor out of the checkpoint.
    fn take(&mut self, name: &str, shape: &[u64]) -> Result<Tensor> {
        if let Some(piece) = self.extras.remove(name) {
            if piece.shape != shape {
                let why = format!("its shape is {:?}, that of the original {shape:?}", piece.shape);
                return Err(piece.name(bad(why)).with_help(OTHER_MODEL));
            }
            return Ok(as_stored(name.to_owned(), piece));
        }
        let Some(Matrix { group, first, elements }) = self.matrices.remove(name) else {
            let why = "the original has this tensor, but the checkpoint does not, or the original names it twice";
            return Err(bad(why).in_tensor(name).with_help(OTHER_MODEL));
        };
        let original: Option<u64> = shape.iter().try_fold(1, |product: u64, &n| product.checked_mul(n));
        if original != Some(elements) {
            let why = format!("it has {elements} elements, but the original's shape is {shape:?}");
            return Err(bad(why).in_tensor(name).with_help(OTHER_MODEL));
        }
        Ok(Tensor {
            name: name.to_owned(),
            dtype: "BF16".to_owned(),
            shape: shape.to_owned(),
            len: 2 * elements,
            part: Part::Decoded(group, 2 * first),
        })
    }
}

const OTHER_MODEL: &str = "the original must be the very model that was compressed";

fn as_stored(name: String, piece: Piece) -> Tensor {
    let (dtype, shape, len) = (piece.dtype.clone(), piece.shape.clone(), piece.len());
    Tensor { name, dtype, shape, len, part: Part::Stored(piece) }
}

/// The folder and the safetensors files of a checkpoint.
fn files(path: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("cannot open the input", e).in_file(path))?;
    if !metadata.is_dir() {
        check_is_no_pickle(path)?;
        return Ok((path.parent().unwrap_or(Path::new("")).to_owned(), vec![path.to_owned()]));
    }
    let (files, others) = safetensors_of(path)?;
    if files.is_empty() {
        others.iter().try_for_each(|other| check_is_no_pickle(other))?;
        return Err(Error::new(Code::NotWeights, "there is no .safetensors file in this folder").in_file(path));
    }
    Ok((path.to_owned(), files))
}

fn check_is_no_pickle(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "pkl") {
        let why = "this is a checkpoint of DFloat11 0.1, which is a pickle and can run any code: it is not read";
        return Err(Error::new(Code::NotWeights, why)
            .in_file(path)
            .with_help("compress the original again with DFloat11 0.2 or newer"));
    }
    Ok(())
}

fn config_of(path: &Path, folder: &Path) -> Result<PathBuf> {
    let config = folder.join("config.json");
    if config.is_file() {
        return Ok(config);
    }
    Err(bad("there is no config.json, which says what the groups of the checkpoint hold")
        .in_file(path)
        .with_help("pass a file with the dfloat11_config of this model with --config"))
}

/// All tensors of the files, by name.
fn read_tensors(files: &[PathBuf]) -> Result<BTreeMap<String, Piece>> {
    let mut tensors = BTreeMap::new();
    for path in files {
        let file = Arc::new(OpenFile { path: path.clone(), data: PlainFile::open(path)? });
        let header = Header::read(&file.data).map_err(|e| e.in_file(path))?;
        for entry in header.tensors {
            let name = entry.name.clone();
            let crate::safetensors::Entry { name: own_name, dtype, shape, range } = entry;
            let piece = Piece { file: Arc::clone(&file), name: own_name, dtype, shape, range };
            if let Some(other) = tensors.insert(name, piece) {
                let other_file = other.file.path.to_string_lossy().into_owned();
                let why = format!("this tensor is in {}, too", Escaped(&other_file));
                return Err(bad(why).in_file(path).in_tensor(&other.name));
            }
        }
    }
    Ok(tensors)
}

/// The modules that are groups, each with the names of its matrices.
fn groups(tensors: &BTreeMap<String, Piece>, config: &Config) -> Result<Vec<(String, Vec<String>)>> {
    let modules: BTreeSet<&str> = tensors.keys().filter_map(|name| module_of(name)).collect();
    let mut named: HashMap<&str, Vec<String>> = config.matrices(&modules)?;
    let mut groups = Vec::new();
    for module in modules {
        if let Some(names) = named.remove(module) {
            groups.push((module.to_owned(), names));
        } else if let Some(piece) = tensors.get(&join(module, ENCODED_EXPONENT)) {
            return Err(piece
                .name(bad("no pattern of the configuration says which matrices this group holds"))
                .with_help("the configuration is of another model; pass the right one with --config"));
        }
    }
    Ok(groups)
}

/// The module that a tensor belongs to if its name is one of a group's.
fn module_of(name: &str) -> Option<&str> {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    SUFFIXES.contains(&last).then_some(module)
}

/// Takes the tensors of a group out and adds its matrices.
fn open_group(
    module: &str,
    names: &[String],
    tensors: &mut BTreeMap<String, Piece>,
    matrices: &mut BTreeMap<String, Matrix>,
) -> Result<()> {
    let mut take = |suffix: &str| {
        let name = join(module, suffix);
        tensors.remove(&name).ok_or_else(|| bad("this tensor of a group is missing").in_tensor(&name))
    };
    let (encoded_exponent, sign_mantissa) = (take(ENCODED_EXPONENT)?, take(SIGN_MANTISSA)?);
    let (luts, gaps, output_positions) = (take(LUTS)?, take(GAPS)?, take(OUTPUT_POSITIONS)?);
    let splits = match take(SPLIT_POSITIONS) {
        Err(missing) if names.len() > 1 => return Err(missing),
        splits => splits.ok(),
    };
    let bounds = read_splits(splits.as_ref(), names.len(), sign_mantissa.len())?;
    let parts = Parts { luts, encoded_exponent, sign_mantissa, gaps, output_positions };
    let group = Arc::new(Group::open(parts)?);
    for (name, bound) in names.iter().zip(bounds.windows(2)) {
        let matrix = Matrix { group: Arc::clone(&group), first: bound[0], elements: bound[1] - bound[0] };
        if matrices.insert(name.clone(), matrix).is_some() {
            return Err(bad("two groups hold this tensor").in_tensor(name));
        }
    }
    Ok(())
}
