//! An open `.cmz` file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cmz_codec::io::{self, IoMode};
use cmz_codec::view::OpenView;
use cmz_codec::{OpenOptions, TensorPart, Verify};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::error::{argument, exception};
use crate::memory::fill;

/// An open file. It can be read from several threads at once.
#[pyclass(frozen, module = "cmz._native")]
pub(crate) struct Archive {
    inner: Arc<cmz_codec::Archive>,
    path: PathBuf,
    checks_decoded: bool,
}

/// What a file says of a tensor: element type, shape, bytes when decoded and as stored, data blocks,
/// encoding, offset of its first block.
type Info = (String, Vec<u64>, u64, u64, usize, String, u64);

/// What a file says of a view: element type, shape, layout, names of the tensors that are its parts.
type ViewInfo = (String, Vec<u64>, String, Vec<String>);

#[pymethods]
impl Archive {
    #[new]
    #[pyo3(signature = (path, *, io = "auto", verify = "stored", bases = Vec::new()))]
    fn open(py: Python<'_>, path: PathBuf, io: &str, verify: &str, bases: Vec<Py<Self>>) -> PyResult<Self> {
        let verify = match verify {
            "stored" => Verify::Stored,
            "full" => Verify::Full,
            "none" => Verify::None,
            other => return Err(argument(py, format!("verify={other:?}"), "one of \"stored\", \"full\", \"none\"")),
        };
        let (mode, in_memory) = match io {
            "auto" => (IoMode::Auto, false),
            "mmap" => (IoMode::Mmap, false),
            "pread" => (IoMode::Pread, false),
            "memory" => (IoMode::Pread, true),
            other => {
                return Err(argument(py, format!("io={other:?}"), "one of \"auto\", \"mmap\", \"pread\", \"memory\""));
            }
        };
        let bases = bases.iter().map(|base| base.get().inner.clone()).collect();
        let options = OpenOptions { io: mode, verify, bases, ..OpenOptions::default() };
        let opened = py.detach(|| {
            if !in_memory {
                return cmz_codec::Archive::open_with(&path, options);
            }
            let file = io::open(&path, mode)?;
            let mut bytes = vec![0; file.byte_len() as usize];
            file.read_at(0, &mut bytes)?;
            cmz_codec::Archive::from_reader(Box::new(bytes), options).map_err(|e| e.in_file(&path))
        });
        let inner = opened.map_err(|e| exception(py, &e))?;
        Ok(Self { inner: Arc::new(inner), path, checks_decoded: verify == Verify::Full })
    }

    /// A file whose bytes are these.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: Vec<u8>) -> PyResult<Self> {
        let opened = py.detach(|| cmz_codec::Archive::from_reader(Box::new(data), OpenOptions::default()));
        let inner = opened.map_err(|e| exception(py, &e))?;
        Ok(Self { inner: Arc::new(inner), path: PathBuf::new(), checks_decoded: false })
    }

    /// Where the file is; empty if it was given as bytes.
    #[getter]
    fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The tensors' names, in file order.
    #[getter]
    fn names(&self) -> Vec<&str> {
        self.inner.tensors().iter().map(|tensor| tensor.name.as_str()).collect()
    }

    /// The user's metadata.
    #[getter]
    fn metadata(&self) -> BTreeMap<String, String> {
        self.inner.index().manifest().metadata.clone()
    }

    /// Length of the file, in bytes.
    #[getter]
    fn file_len(&self) -> u64 {
        self.inner.index().file_len()
    }

    /// The root digest, in hexadecimal.
    #[getter]
    fn root(&self) -> String {
        self.inner.index().root().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Program and version that wrote the file.
    #[getter]
    fn generator(&self) -> &str {
        &self.inner.index().manifest().generator
    }

    /// Kind, length and SHA-256 of the file that this one was made from.
    #[getter]
    fn source(&self) -> Option<(&str, u64, &str)> {
        self.inner.source().ok().map(|source| (source.kind.as_str(), source.len, source.sha256.as_str()))
    }

    fn __contains__(&self, name: &str) -> bool {
        self.inner.index().find(name).is_some()
    }

    /// What the file says of a tensor.
    fn info(&self, py: Python<'_>, name: &str) -> PyResult<Info> {
        let number = self.inner.find(name).map_err(|e| exception(py, &e))?;
        let (index, tensor) = (self.inner.index(), &self.inner.tensors()[number]);
        let blocks = index.tensor_blocks(number);
        let records = &index.table()[blocks.data.clone()];
        let stored = records.iter().map(|record| u64::from(record.stored_len)).sum();
        let offset = index.table()[blocks.descriptor].offset;
        let encoding = tensor.encoding.name.clone();
        Ok((
            tensor.dtype.clone(),
            tensor.shape.clone(),
            index.tensor_len(number),
            stored,
            records.len(),
            encoding,
            offset,
        ))
    }

    /// Decodes tensors, each from a byte on, into memory that nobody else uses meanwhile, as much as there is room for; only
    /// the blocks that hold it are read.
    #[pyo3(signature = (wanted, threads = 0))]
    fn read_into(
        &self,
        py: Python<'_>,
        wanted: Vec<(PyBackedStr, u64, Bound<'_, PyAny>)>,
        threads: usize,
    ) -> PyResult<()> {
        let (mut places, mut memories) = (Vec::with_capacity(wanted.len()), Vec::with_capacity(wanted.len()));
        for (name, start, memory) in wanted {
            places.push((self.inner.find(&name).map_err(|e| exception(py, &e))?, start));
            memories.push(memory);
        }
        fill(py, &memories, |memories| {
            let parts = places.into_iter().zip(memories);
            let parts = parts.map(|((tensor, start), bytes)| TensorPart { tensor, start, bytes }).collect();
            self.inner.read_parts(parts, crate::threads(threads))
        })
    }

    /// The views' names, in the order of the manifest.
    #[getter]
    fn views(&self) -> Vec<&str> {
        self.inner.views().iter().map(|view| view.name.as_str()).collect()
    }

    /// What the file says of a view.
    fn view_info(&self, py: Python<'_>, name: &str) -> PyResult<ViewInfo> {
        self.inner.check_view(name).map_err(|e| exception(py, &e))?;
        let found = self.inner.views().iter().find(|view| view.name == name);
        // It has just been found.
        let view = found.ok_or_else(|| argument(py, format!("there is no view {name:?}"), ""))?;
        let parts = view.parts.values().cloned().collect();
        Ok((view.dtype.clone(), view.shape.clone(), view.layout.clone(), parts))
    }

    /// Reads the parts of a view.
    fn open_view(&self, py: Python<'_>, name: &str) -> PyResult<View> {
        let inner = py.detach(|| self.inner.open_view(name)).map_err(|e| exception(py, &e))?;
        Ok(View { inner })
    }
}

/// A view with its parts in memory.
#[pyclass(frozen, module = "cmz._native")]
pub(crate) struct View {
    inner: OpenView,
}

#[pymethods]
impl View {
    /// Bytes of all its elements.
    #[getter]
    fn byte_len(&self) -> usize {
        self.inner.byte_len()
    }

    /// Computes the elements of rows, from and to, into memory of their length in bytes, which nobody else uses meanwhile.
    #[pyo3(signature = (start, end, memory, threads = 0))]
    fn read_into(
        &self,
        py: Python<'_>,
        start: u64,
        end: u64,
        memory: Bound<'_, PyAny>,
        threads: usize,
    ) -> PyResult<()> {
        fill(py, &[memory], |memories| {
            let threads = crate::threads(threads);
            memories.into_iter().try_for_each(|bytes| self.inner.read_rows_into(start..end, bytes, threads))
        })
    }
}

impl Archive {
    /// The file for the library.
    pub(crate) fn shared(&self) -> Arc<cmz_codec::Archive> {
        self.inner.clone()
    }

    /// The same, for as long as this is held.
    pub(crate) fn library(&self) -> &cmz_codec::Archive {
        &self.inner
    }

    /// Whether reads verify the checksums of what the file decodes to.
    pub(crate) fn checks_decoded(&self) -> bool {
        self.checks_decoded
    }
}
