//! Working for callers that have a context and streams of their own.

use std::ffi::c_void;
use std::sync::Arc;

use cmz_codec::{Code, Error, Result};
use cudarc::driver::{CudaStream, result, sys};

use crate::decoder::GpuDecoder;
use crate::memory::failed;

/// The context that is current on this thread when it is made is so again when it is dropped: callers may work with several
/// devices.
#[derive(Debug)]
pub struct KeepContext(Option<sys::CUcontext>);

impl KeepContext {
    /// Remembers the current context.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: only loads the driver's library, without which nothing of it may be called.
        let driver = unsafe { sys::is_culib_present() };
        if driver { Self::of_driver() } else { Self(None) }
    }

    /// The same where it is known that there is a driver.
    pub(crate) fn of_driver() -> Self {
        // A driver that has not been initialized has no current context.
        Self(Some(result::ctx::get_current().ok().flatten().unwrap_or(std::ptr::null_mut())))
    }
}

impl Default for KeepContext {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for KeepContext {
    fn drop(&mut self) {
        if let Some(context) = self.0 {
            // SAFETY: it was current, or is null. A failure cannot be reported from here.
            let _ = unsafe { result::ctx::set_current(context) };
        }
    }
}

impl GpuDecoder {
    /// Makes this decoder's context current, for as long as the first of what is returned lives, and takes a stream that
    /// somebody else owns, such as PyTorch's current one.
    ///
    /// # Errors
    /// [`Code::Device`].
    ///
    /// # Safety
    /// `stream` is a live `CUstream` of this device's primary context, or null, the default stream, while what is returned lives.
    pub unsafe fn enter(&self, stream: *mut c_void) -> Result<(KeepContext, Arc<CudaStream>)> {
        let kept = KeepContext::of_driver();
        self.context().bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: as the caller says.
        Ok((kept, unsafe { self.borrow_stream(stream) }))
    }

    /// Whether what is submitted to a stream is recorded for a graph instead of being run.
    ///
    /// # Errors
    /// [`Code::Device`].
    ///
    /// # Safety
    /// `stream` is a live `CUstream` of this device's primary context, or null, the default stream.
    pub unsafe fn is_capturing(&self, stream: *mut c_void) -> Result<bool> {
        // SAFETY: as the caller says.
        let (_kept, stream) = unsafe { self.enter(stream)? };
        let status = stream.capture_status().map_err(failed("ask for the stream's state"))?;
        Ok(status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Sees to it that an address is that of memory of this device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if it is not.
    pub fn check_address(&self, address: u64) -> Result<()> {
        let _kept = KeepContext::of_driver();
        self.context().bind_to_thread().map_err(failed("use the device"))?;
        let attribute = |attribute| {
            let mut value = 0u32;
            // SAFETY: both attributes are four bytes long, and any address may be asked about.
            let asked = unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), attribute, address) };
            asked.result().map(|()| value)
        };
        let kind = attribute(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
        let device = attribute(sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
        let here = (sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32, self.device().ordinal as u32);
        match kind.and_then(|kind| Ok((kind, device?))) {
            Ok(found) if found == here => Ok(()),
            _ => {
                let why = format!("address {address:#x} is not that of memory of CUDA device {}", here.1);
                Err(Error::new(Code::InvalidArgument, why))
            }
        }
    }
}
