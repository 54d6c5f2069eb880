//! Pointers from C.

use std::ffi::{CStr, c_char};

use cmz_codec::{Code, Error, Result};

pub(crate) fn invalid(why: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, why)
}

/// What a pointer points to.
///
/// # Safety
/// It is null or points to a live value.
pub(crate) unsafe fn object<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: as the caller says.
    unsafe { pointer.as_ref() }.ok_or_else(|| invalid(format!("{what} is NULL")))
}

/// A place for a result, set to `value`.
///
/// # Safety
/// It is null or may be written.
pub(crate) unsafe fn put<T>(place: *mut T, value: T, what: &str) -> Result<()> {
    if place.is_null() {
        return Err(invalid(format!("{what} is NULL")));
    }
    // SAFETY: as the caller says; what was there is the caller's and not dropped.
    unsafe { place.write(value) };
    Ok(())
}

/// `count` values.
///
/// # Safety
/// The pointer is null, or points to so many live values.
pub(crate) unsafe fn slice<'a, T>(first: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(invalid(format!("{what} is NULL, with {count} to read")));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(invalid(format!("{what}: {count} are more than memory holds")));
    }
    // SAFETY: as the caller says, and the length is one that an allocation can have.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// Text in UTF-8.
///
/// # Safety
/// The pointer is null, or points to bytes that end with a zero byte.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(invalid(format!("{what} is NULL")));
    }
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| invalid(format!("{what} is not UTF-8")))
}

/// Takes back a handle that was given away, to drop it; null is none.
///
/// # Safety
/// It is null or was made by `Box::into_raw`, and nobody uses it any more.
pub(crate) unsafe fn take<T>(handle: *mut T) -> Option<Box<T>> {
    // SAFETY: as the caller says.
    (!handle.is_null()).then(|| unsafe { Box::from_raw(handle) })
}
