//! Statistics of layers' inputs, in a safetensors file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::{Escaped, Result};

use super::Stack;
use crate::recipe::{Inputs, invalid};
use crate::solver::Statistics;

/// What the name of a tensor's Hessian has behind the tensor's own.
const SUFFIX: &str = ".hessian";

/// A safetensors file with Hessians, all of type `F32`. For a tensor NAME with rows of K elements there is `NAME.hessian` of shape
/// `[K, K]`; for a stack of E matrices there may be one for each instead: `NAME.hessian` of shape `[E, K, K]`, or `NAME.0.hessian` and so on.
#[derive(Debug)]
pub struct StatisticsFile {
    path: PathBuf,
    file: PlainFile,
    /// By the names that they have before the [`SUFFIX`].
    entries: HashMap<String, Entry>,
}

impl StatisticsFile {
    /// Opens it.
    ///
    /// # Errors
    /// Why it cannot be read, or is no safetensors file; [`InvalidArgument`](cmz_format::Code::InvalidArgument) if it has other
    /// tensors than Hessians.
    pub fn open(path: &Path) -> Result<Self> {
        let file = PlainFile::open(path)?;
        let header = Header::read(&file).map_err(|e| e.in_file(path))?;
        let mut entries = HashMap::with_capacity(header.tensors.len());
        for entry in header.tensors {
            let Some(name) = entry.name.strip_suffix(SUFFIX).filter(|_| entry.dtype == "F32") else {
                let dtype = Escaped(&entry.dtype);
                let why =
                    format!("a file of statistics has tensors NAME{SUFFIX} of type F32 alone, and this is of {dtype}");
                return Err(invalid(why, Some("docs/quantize.md says how to collect them"))
                    .in_tensor(&entry.name)
                    .in_file(path));
            };
            entries.insert(name.to_owned(), entry);
        }
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// Checks that all statistics are of some of these tensors.
    pub(super) fn check_names<'a>(&self, tensors: impl Iterator<Item = &'a Entry>) -> Result<()> {
        let tensors: HashMap<&str, Option<Stack>> =
            tensors.map(|entry| (entry.name.as_str(), Stack::of(entry))).collect();
        let stack = |name: &str| tensors.get(name).copied().flatten();
        let of_matrix = |name: &str| {
            let (tensor, number) = name.rsplit_once('.')?;
            stack(tensor).filter(|stack| index(number).is_some_and(|number| number < stack.matrices))
        };
        let twice = |name: &&String| {
            of_matrix(name).is_some()
                && name.rsplit_once('.').is_some_and(|(tensor, _)| self.entries.contains_key(tensor))
        };
        if let Some(name) = self.entries.keys().filter(twice).min() {
            let why = format!("there are statistics for {name:?}, a matrix of a stack that has statistics as a whole");
            let error = invalid(why, Some("leave one of them out"));
            return Err(error.in_tensor(&self.entries[name].name).in_file(&self.path));
        }
        let strange = |name: &&String| stack(name).is_none() && of_matrix(name).is_none();
        let Some(name) = self.entries.keys().filter(strange).min() else { return Ok(()) };
        let others = match self.entries.keys().filter(strange).count() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let (why, help) = match tensors.contains_key(name.as_str()) {
            true => ("is no matrix of F16, BF16 or F32", "take them out of the file of statistics"),
            false => (
                "the source does not have",
                "give statistics of this model, named as its tensors are: `cmz inspect --tensors` lists the names",
            ),
        };
        let why = format!("there are statistics for {name:?}{others}, which {why}");
        Err(invalid(why, Some(help)).in_tensor(&self.entries[name].name).in_file(&self.path))
    }

    /// The statistics of a tensor, if there are any; only their shapes are checked.
    pub(super) fn of(self: &Arc<Self>, tensor: &str, stack: Stack) -> Result<Option<TensorStatistics>> {
        let of_matrix = |number: usize| self.entries.get(&format!("{tensor}.{number}")).cloned();
        let each = || (0..stack.matrices).map(of_matrix).collect::<Vec<_>>();
        let columns = stack.columns as u64;
        let (square, all) = ([columns; 2], [stack.matrices as u64, columns, columns]);
        let entries = match self.entries.get(tensor) {
            Some(entry) if entry.shape == all => Entries::Stack(entry.clone()),
            Some(entry) => Entries::One(entry.clone()),
            None => match each() {
                found if found.iter().all(Option::is_none) => return Ok(None),
                found => Entries::Each(found),
            },
        };
        let wrong = |entry: &&Entry| entry.shape != square && !matches!(entries, Entries::Stack(_));
        if let Some(entry) = entries.all().find(wrong) {
            let why = format!("a Hessian of shape {:?} for a layer of {columns} inputs", entry.shape);
            let help = match stack.matrices {
                1 => format!("its shape must be {square:?}"),
                _ => format!("its shape must be {square:?}, or {all:?} for all matrices of the stack"),
            };
            return Err(invalid(why, Some(&help)).in_tensor(&entry.name).in_file(&self.path));
        }
        Ok(Some(TensorStatistics { file: Arc::clone(self), stack, entries }))
    }
}

/// The number of a matrix, as names have it.
fn index(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number: &usize| number.to_string() == text)
}

/// Where the statistics of a tensor are.
#[derive(Debug)]
enum Entries {
    /// All its rows have the same.
    One(Entry),
    /// Those of each matrix, one behind the other.
    Stack(Entry),
    /// Those of each matrix; `None` where no inputs were seen.
    Each(Vec<Option<Entry>>),
}

impl Entries {
    fn all(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match self {
            Self::One(entry) | Self::Stack(entry) => Box::new(std::iter::once(entry)),
            Self::Each(entries) => Box::new(entries.iter().flatten()),
        }
    }
}

/// The statistics of a tensor, read when they are needed.
#[derive(Debug)]
pub(super) struct TensorStatistics {
    file: Arc<StatisticsFile>,
    stack: Stack,
    entries: Entries,
}

impl TensorStatistics {
    /// Whether each matrix of the stack has its own.
    pub(super) fn is_by_matrix(&self) -> bool {
        !matches!(self.entries, Entries::One(_))
    }

    /// Checks all of them, and returns a digest.
    pub(super) fn check(&self) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let matrices = if self.is_by_matrix() { self.stack.matrices } else { 1 };
        for matrix in 0..matrices {
            let bytes = self.bytes(matrix)?;
            self.parse(matrix, &bytes)?;
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Those of the rows of a tensor from `first` on.
    pub(super) fn rows_from(&self, first: usize) -> RowsFrom<'_> {
        RowsFrom { statistics: self, first }
    }

    fn entry(&self, matrix: usize) -> Option<&Entry> {
        match &self.entries {
            Entries::One(entry) | Entries::Stack(entry) => Some(entry),
            Entries::Each(entries) => entries.get(matrix)?.as_ref(),
        }
    }

    /// The Hessian of a matrix; no bytes where no inputs were seen.
    fn bytes(&self, matrix: usize) -> Result<Vec<u8>> {
        let Some(entry) = self.entry(matrix) else { return Ok(Vec::new()) };
        let len = self.stack.columns * self.stack.columns * size_of::<f32>();
        let skipped = if matches!(self.entries, Entries::Stack(_)) { (matrix * len) as u64 } else { 0 };
        let mut bytes = vec![0; len];
        let read = self.file.file.read_at(entry.range.start + skipped, &mut bytes);
        read.map(|()| bytes).map_err(|e| e.in_file(&self.file.path))
    }

    /// Without inputs nothing is known of them: the identity.
    fn parse(&self, matrix: usize, bytes: &[u8]) -> Result<Statistics> {
        let columns = self.stack.columns;
        let Some(entry) = self.entry(matrix).filter(|_| bytes.iter().any(|&byte| byte != 0)) else {
            return Ok(Statistics::identity(columns));
        };
        let statistics = Statistics::from_bytes(columns, &[columns as u64; 2], bytes);
        statistics.map_err(|e| e.in_tensor(&entry.name).in_file(&self.file.path))
    }
}

/// The statistics of a tensor's rows from one on.
#[derive(Debug)]
pub(super) struct RowsFrom<'a> {
    statistics: &'a TensorStatistics,
    first: usize,
}

impl Inputs for RowsFrom<'_> {
    fn of_row(&self, row: usize) -> Result<(Range<usize>, Arc<Statistics>)> {
        let rows = self.statistics.stack.rows;
        let (matrix, range) = match self.statistics.is_by_matrix() {
            true => {
                let matrix = (self.first + row) / rows;
                let start = (matrix * rows).saturating_sub(self.first);
                (matrix, start..(matrix + 1) * rows - self.first)
            }
            false => (0, 0..usize::MAX),
        };
        let bytes = self.statistics.bytes(matrix)?;
        Ok((range, Arc::new(self.statistics.parse(matrix, &bytes)?)))
    }
}
