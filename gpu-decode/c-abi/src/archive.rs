//! Archives and their tensors.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

use cmz_codec::{Archive, OpenOptions, Result};
use cmz_format::Escaped;

use crate::error::{status, value};
use crate::pointer::{invalid, object, put, take, text};

/// An open .cmz file. Any number of threads may use it at the same time.
pub struct CmzArchive {
    pub(crate) archive: Arc<Archive>,
    /// Name and element type of each tensor, each with a zero byte behind it.
    texts: Vec<(Vec<u8>, CString)>,
}

/// A tensor of an archive. What it points to belongs to the archive and lives as long.
#[repr(C)]
pub struct CmzTensor {
    /// Name: UTF-8, with a zero byte behind it.
    pub name: *const c_char,
    /// Bytes of the name without that zero byte; a name may hold zero bytes itself.
    pub name_len: usize,
    /// Element type as safetensors spells it, such as "BF16"; a text that this library may not know.
    pub dtype: *const c_char,
    /// Size of each dimension, in elements.
    pub shape: *const u64,
    /// Number of dimensions.
    pub rank: usize,
    /// Decoded length, in bytes.
    pub byte_len: u64,
}

/// Opens a .cmz file; cmz_archive_close closes it.
///
/// # Safety
/// `path` is UTF-8 that ends with a zero byte. `base` is NULL, or the archive of another file that tensors of this one may be
/// stored against; it may be closed while the new one is open. `archive` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_archive_open(
    path: *const c_char,
    base: *const CmzArchive,
    archive: *mut *mut CmzArchive,
) -> i32 {
    status(|| {
        // SAFETY: the caller answers for the pointers.
        let (path, base) = unsafe {
            put(archive, std::ptr::null_mut(), "archive")?;
            (text(path, "path")?, base.as_ref())
        };
        let bases = base.map(|base| Arc::clone(&base.archive)).into_iter().collect();
        let opened = CmzArchive::new(Path::new(path), bases)?;
        // SAFETY: as above.
        unsafe { put(archive, Box::into_raw(Box::new(opened)), "archive") }
    })
}

impl CmzArchive {
    fn new(path: &Path, bases: Vec<Arc<Archive>>) -> Result<Self> {
        let archive = Archive::open_with(path, OpenOptions { bases, ..OpenOptions::default() })?;
        let texts = archive.tensors().iter().map(|tensor| {
            let dtype = CString::new(Escaped(&tensor.dtype).to_string()).unwrap_or_default();
            ([tensor.name.as_bytes(), b"\0"].concat(), dtype)
        });
        Ok(Self { texts: texts.collect(), archive: Arc::new(archive) })
    }

    fn tensor(&self, number: usize) -> Result<CmzTensor> {
        let Some((tensor, (name, dtype))) = self.archive.tensors().get(number).zip(self.texts.get(number)) else {
            return Err(invalid(format!("there is no tensor {number}, but {}", self.texts.len())));
        };
        Ok(CmzTensor {
            name: name.as_ptr().cast(),
            name_len: tensor.name.len(),
            dtype: dtype.as_ptr(),
            shape: tensor.shape.as_ptr(),
            rank: tensor.shape.len(),
            byte_len: self.archive.index().tensor_len(number),
        })
    }
}

/// Closes an archive. NULL is none.
///
/// # Safety
/// `archive` is NULL, or was opened and not closed, and nobody uses it or what a CmzTensor of it points to. Plans made from it do
/// not need it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_archive_close(archive: *mut CmzArchive) {
    status(|| {
        // SAFETY: as the caller says.
        drop(unsafe { take(archive) });
        Ok(())
    });
}

/// Number of tensors; 0 after an error.
///
/// # Safety
/// `archive` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_archive_tensors(archive: *const CmzArchive) -> usize {
    // SAFETY: as the caller says.
    value(0, || Ok(unsafe { object(archive, "archive")? }.texts.len()))
}

/// What there is to know of tensor `number`, from 0.
///
/// # Safety
/// `archive` is open, and `tensor` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_archive_tensor(archive: *const CmzArchive, number: usize, tensor: *mut CmzTensor) -> i32 {
    status(|| {
        // SAFETY: as the caller says.
        unsafe { put(tensor, object(archive, "archive")?.tensor(number)?, "tensor") }
    })
}

/// Number of the tensor with a name.
///
/// # Safety
/// `archive` is open, `name` ends with a zero byte, and `number` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_archive_find(archive: *const CmzArchive, name: *const c_char, number: *mut usize) -> i32 {
    status(|| {
        // SAFETY: as the caller says.
        unsafe { put(number, object(archive, "archive")?.archive.find(text(name, "name")?)?, "number") }
    })
}
