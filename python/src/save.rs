//! Files of tensors that Python holds.

use std::path::PathBuf;

use cmz_codec::convert::{CompressOptions, compress_source, partial_path};
use cmz_codec::io::{IoMode, ReadAt};
use cmz_codec::{Code, Error, Result};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PySlice};

use crate::convert::encode_options;
use crate::job::run;

/// A safetensors file in pieces: its header, then the tensors' bytes where Python keeps them.
struct Pieces {
    header: Vec<u8>,
    parts: Vec<Part>,
    len: u64,
}

/// A tensor that has bytes.
struct Part {
    /// Where it begins in the file, in bytes.
    start: u64,
    len: u64,
    /// A memoryview of its bytes.
    memory: Py<PyMemoryView>,
}

impl ReadAt for Pieces {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::new(Code::Truncated, "there are not so many bytes"));
        }
        while !buffer.is_empty() {
            let found = self.parts.partition_point(|part| part.start <= offset);
            let read = match found.checked_sub(1).map(|part| &self.parts[part]) {
                None => {
                    let rest = &self.header[offset as usize..];
                    let len = rest.len().min(buffer.len());
                    buffer[..len].copy_from_slice(&rest[..len]);
                    len
                }
                Some(part) => copy(part, offset - part.start, buffer)?,
            };
            offset += read as u64;
            buffer = &mut buffer[read..];
        }
        Ok(())
    }
}

/// Copies bytes of a tensor from `from` on; returns how many.
fn copy(part: &Part, from: u64, buffer: &mut [u8]) -> Result<usize> {
    let len = (part.len - from).min(buffer.len() as u64) as usize;
    let copied = Python::attach(|py| {
        let slice = part.memory.bind(py).get_item(PySlice::new(py, from as isize, from as isize + len as isize, 1))?;
        PyBuffer::<u8>::get(&slice)?.copy_to_slice(py, &mut buffer[..len])
    });
    copied.map_err(|e| Error::new(Code::Io, format!("cannot read a tensor's memory: {e}")))?;
    Ok(len)
}

/// Writes a file of the tensors in `parts`, memoryviews of bytes, as the safetensors header before them describes them.
/// Returns the file's length.
#[pyfunction]
#[pyo3(signature = (target, header, parts, *, level, threads, overwrite, callback))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments, given by the package alone")]
pub(crate) fn save(
    py: Python<'_>,
    target: PathBuf,
    header: Vec<u8>,
    parts: Vec<Py<PyMemoryView>>,
    level: &str,
    threads: usize,
    overwrite: bool,
    callback: Option<Py<PyAny>>,
) -> PyResult<u64> {
    let mut pieces = Pieces { len: header.len() as u64, header, parts: Vec::with_capacity(parts.len()) };
    for memory in parts {
        let len = memory.bind(py).len()? as u64;
        if len > 0 {
            pieces.parts.push(Part { start: pieces.len, len, memory });
        }
        pieces.len += len;
    }
    let options = CompressOptions {
        io: IoMode::Auto,
        encode: encode_options(py, level, None)?,
        threads: crate::threads(threads),
        replace: overwrite,
        verify: true,
        bases: Vec::new(),
        quantizer: None,
    };
    run(py, callback.as_ref(), |progress| {
        let saved = compress_source(&pieces, &target, &options, progress);
        let of_others = [Code::Exists, Code::Busy, Code::OtherPartial];
        if saved.as_ref().is_err_and(|e| !of_others.contains(&e.code())) {
            // Nobody can continue it: what it was made from is in this process's memory. It may not exist.
            let _ = std::fs::remove_file(partial_path(&target));
        }
        saved.map(|saved| saved.len)
    })
}
