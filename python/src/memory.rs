//! Memory of Python objects, written without the interpreter's lock.
#![expect(unsafe_code, reason = "Python hands out memory by its address")]

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::error::{argument, exception};

/// Fills the memory of an object with the buffer protocol: contiguous bytes that may be written.
///
/// The caller sees to it that nobody else uses the memory meanwhile. The package hands over memory that it has just
/// allocated, or that its own caller wants to be overwritten.
pub(crate) fn fill(
    py: Python<'_>,
    memory: &Bound<'_, PyAny>,
    work: impl FnOnce(&mut [u8]) -> cmz_codec::Result<()> + Send,
) -> PyResult<()> {
    let buffer = PyBuffer::<u8>::get(memory)?;
    if buffer.readonly() || !buffer.is_c_contiguous() {
        return Err(argument(
            py,
            "the memory may not be written, or is not contiguous".to_owned(),
            "pass other memory",
        ));
    }
    let bytes: &mut [u8] = match buffer.len_bytes() {
        0 => &mut [],
        // SAFETY: the buffer holds so many bytes, is exported for as long as it lives, and is used by nobody else.
        len => unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast(), len) },
    };
    py.detach(|| work(bytes)).map_err(|e| exception(py, &e))
}
