//! Status numbers, the text of the last error, and the guard round every function.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cmz_codec::{Error, Result};

/// Success.
pub const CMZ_OK: i32 = 0;
/// A bug in this library, which the caller survives; the handles of the call should only be closed.
pub const CMZ_PANIC: i32 = 1;

thread_local! {
    static LAST: RefCell<(i32, CString)> = RefCell::new((CMZ_OK, CString::default()));
}

/// Number of the last error of a function called on this thread: one of CMZ_ERROR_*, CMZ_PANIC, or CMZ_OK when there was none.
/// Success does not change it.
#[unsafe(no_mangle)]
pub extern "C" fn cmz_last_error_code() -> i32 {
    LAST.try_with(|last| last.borrow().0).unwrap_or(CMZ_PANIC)
}

/// Text of the last error of a function called on this thread, in UTF-8: what is wrong, where (file, tensor, block), and what
/// can be done. Empty when there was none. Valid until another function of this thread fails, and never to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn cmz_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().1.as_ptr()).unwrap_or(c"the thread is ending".as_ptr())
}

/// Version of this library, such as "0.1.0". Never to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn cmz_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Runs the body of a function: its error, or panic, becomes the thread's last error, and its number is returned.
pub(crate) fn status(body: impl FnOnce() -> Result<()>) -> i32 {
    // Nothing that a body changes is read after it panicked, but the handles, which say so.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => CMZ_OK,
        Ok(Err(error)) => fail(i32::from(error.code().number()), text(&error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            fail(CMZ_PANIC, format!("a bug in cmz: {}", said.unwrap_or("a panic")))
        }
    }
}

/// As [`status`], for functions that return a value: `otherwise` after an error.
pub(crate) fn value<T>(otherwise: T, body: impl FnOnce() -> Result<T>) -> T {
    let mut value = otherwise;
    status(|| {
        value = body()?;
        Ok(())
    });
    value
}

fn text(error: &Error) -> String {
    let help = error.help().map_or(String::new(), |help| format!("; {help}"));
    format!("CMZ{}: {error}{help}", error.code().number())
}

fn fail(code: i32, text: String) -> i32 {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // A thread that is ending has nobody to tell.
    let _ = LAST.try_with(|last| last.replace((code, text)));
    code
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    /// The text of the last error.
    fn last() -> String {
        // SAFETY: the text is valid until the next failure of this thread.
        unsafe { CStr::from_ptr(cmz_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn panics_become_errors() {
        assert_eq!((cmz_last_error_code(), last().as_str()), (CMZ_OK, ""));
        assert_eq!(status(|| panic!("number {}", 7)), CMZ_PANIC);
        assert_eq!((cmz_last_error_code(), last().as_str()), (CMZ_PANIC, "a bug in cmz: number 7"));
        assert_eq!(value(5, || panic!("constant")), 5);
        assert_eq!(last(), "a bug in cmz: constant");
        assert_eq!(status(|| Ok(())), CMZ_OK);
        assert_eq!(cmz_last_error_code(), CMZ_PANIC, "success changes nothing");
    }

    #[test]
    fn texts_with_zero_bytes_are_whole() {
        let error = || Err(Error::new(cmz_codec::Code::Io, "a\0b").with_help("c"));
        assert_eq!(status(error), 1001);
        assert_eq!(last(), "CMZ1001: a\\0b; c");
    }
}
