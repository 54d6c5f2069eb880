//! Memory of Python objects, written without the interpreter's lock.
#![expect(unsafe_code, reason = "Python hands out memory by its address")]

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::error::{argument, exception};

/// Fills the memories of objects with the buffer protocol: contiguous bytes that may be written, none of them twice.
///
/// The caller sees to it that nobody else uses the memories meanwhile. The package hands over memory that it has just
/// allocated, or that its own caller wants to be overwritten.
pub(crate) fn fill(
    py: Python<'_>,
    memories: &[Bound<'_, PyAny>],
    work: impl FnOnce(Vec<&mut [u8]>) -> cmz_codec::Result<()> + Send,
) -> PyResult<()> {
    let buffers = memories.iter().map(PyBuffer::<u8>::get).collect::<PyResult<Vec<_>>>()?;
    if buffers.iter().any(|buffer| buffer.readonly() || !buffer.is_c_contiguous()) {
        let why = "the memory may not be written, or is not contiguous".to_owned();
        return Err(argument(py, why, "pass other memory"));
    }
    let mut ranges: Vec<_> = buffers.iter().map(|buffer| (buffer.buf_ptr() as usize, buffer.len_bytes())).collect();
    ranges.retain(|&(_, len)| len > 0);
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[1].0 - pair[0].0 < pair[0].1) {
        return Err(argument(py, "two of the memories overlap".to_owned(), "pass each memory once"));
    }
    let bytes = buffers.iter().map(|buffer| match buffer.len_bytes() {
        0 => &mut [],
        // SAFETY: the buffer holds so many bytes, which no other one has; it is exported for as long as it lives, and used
        // by nobody else.
        len => unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast(), len) },
    });
    let bytes: Vec<&mut [u8]> = bytes.collect();
    py.detach(|| work(bytes)).map_err(|e| exception(py, &e))
}
