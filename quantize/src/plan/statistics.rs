//! Statistics of layers' inputs, in a safetensors file.

use std::path::{Path, PathBuf};

use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::Result;

use crate::recipe::invalid;
use crate::solver::Statistics;

/// What the name of a tensor's Hessian has behind the tensor's own.
const SUFFIX: &str = ".hessian";

/// A safetensors file with a tensor `NAME.hessian`, `F32` of K × K elements, for tensors NAME with rows of K elements.
#[derive(Debug)]
pub struct StatisticsFile {
    path: PathBuf,
    file: PlainFile,
    header: Header,
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
        for entry in &header.tensors {
            if !entry.name.ends_with(SUFFIX) || entry.dtype != "F32" {
                let why = format!("a file of statistics has tensors NAME{SUFFIX} of type F32, and nothing else");
                return Err(invalid(why, Some("docs/quantize.md says how to collect them"))
                    .in_tensor(&entry.name)
                    .in_file(path));
            }
        }
        Ok(Self { path: path.to_owned(), file, header })
    }

    /// Whether there are statistics for a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.find(tensor).is_some()
    }

    fn find(&self, tensor: &str) -> Option<&Entry> {
        self.header.tensors.iter().find(|entry| entry.name.strip_suffix(SUFFIX) == Some(tensor))
    }

    /// The names of the tensors that it is about.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.iter().filter_map(|entry| entry.name.strip_suffix(SUFFIX))
    }

    /// The statistics of a tensor with rows of `columns` elements, if there are any, checked.
    pub(super) fn read(&self, tensor: &str, columns: usize) -> Result<Option<Statistics>> {
        let Some(entry) = self.find(tensor) else { return Ok(None) };
        let statistics = self.bytes(entry).and_then(|bytes| Statistics::from_bytes(columns, &entry.shape, &bytes));
        statistics.map(Some).map_err(|e| e.in_tensor(&entry.name).in_file(&self.path))
    }

    /// A digest of the statistics of a tensor.
    pub(super) fn digest(&self, tensor: &str) -> Result<[u8; 32]> {
        let Some(entry) = self.find(tensor) else { return Ok([0; 32]) };
        self.bytes(entry).map(|bytes| *blake3::hash(&bytes).as_bytes()).map_err(|e| e.in_file(&self.path))
    }

    fn bytes(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.byte_len() as usize];
        self.file.read_at(entry.range.start, &mut bytes)?;
        Ok(bytes)
    }
}
