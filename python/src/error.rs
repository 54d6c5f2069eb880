//! Errors of the library as exceptions of `cmz._errors`.

use cmz_codec::{Code, Error};
use pyo3::prelude::*;

/// The exception for an error: its class follows from the code.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let parts = (
        error.code().number(),
        error.to_string(),
        error.help(),
        error.file(),
        error.tensor(),
        error.block(),
        error.offset(),
    );
    let made = py.import("cmz._errors").and_then(|module| module.getattr("make")?.call1(parts));
    made.map_or_else(|failed| failed, PyErr::from_value)
}

/// An error about an argument of the caller.
pub(crate) fn argument(py: Python<'_>, why: String, help: &str) -> PyErr {
    exception(py, &Error::new(Code::InvalidArgument, why).with_help(help))
}
