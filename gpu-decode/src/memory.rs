//! Memory of the device, and pinned memory of the host.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cmz_codec::{Code, Error, Result};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use crate::context::KeepContext;

/// Says what the driver could not do.
pub(crate) fn failed(what: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |error| {
        let out_of_memory = error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        let error = Error::new(Code::Device, format!("cannot {what}: the CUDA driver reports {:?}", error.0));
        if out_of_memory {
            error.with_help("free memory of the device, or load fewer tensors at a time")
        } else {
            error
        }
    }
}

/// Memory of a device, freed when dropped. Work that uses it must have ended by then.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<CudaContext>,
    address: u64,
    len: usize,
}

impl DeviceMemory {
    /// Allocates `len` bytes, which hold anything.
    ///
    /// # Errors
    /// [`Code::Device`].
    pub fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self> {
        context.bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: a context is bound, and the driver gives at least one byte.
        let address = unsafe { result::malloc_sync(len.max(1)) };
        let address = address.map_err(|e| failed(&format!("allocate {len} bytes on the device"))(e))?;
        Ok(Self { context: Arc::clone(context), address, len })
    }

    /// Its address on the device: a multiple of 256.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes to `offset`, and waits until they are there.
    ///
    /// # Errors
    /// [`Code::Device`].
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, stream: &CudaStream, offset: usize, bytes: &[u8]) -> Result<()> {
        assert!(offset + bytes.len() <= self.len, "the bytes fit");
        self.context.bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: the range is inside this allocation, and `bytes` lives until the copy has ended.
        unsafe { result::memcpy_htod_async(self.address + offset as u64, bytes, stream.cu_stream()) }
            .and_then(|()| stream.synchronize())
            .map_err(failed("copy to the device"))
    }

    /// Copies all bytes to the host, behind the work of `stream`.
    ///
    /// # Errors
    /// [`Code::Device`].
    pub fn read(&self, stream: &CudaStream) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.read_at(stream, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies the bytes from `offset` on to the host, behind the work of `stream`.
    ///
    /// # Errors
    /// [`Code::Device`].
    ///
    /// # Panics
    /// If there are not so many bytes.
    pub fn read_at(&self, stream: &CudaStream, offset: usize, bytes: &mut [u8]) -> Result<()> {
        assert!(offset + bytes.len() <= self.len, "inside the allocation");
        self.context.bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: the range is inside this allocation, and `bytes` lives until the copy has ended.
        unsafe { result::memcpy_dtoh_async(bytes, self.address + offset as u64, stream.cu_stream()) }
            .and_then(|()| stream.synchronize())
            .map_err(failed("copy from the device"))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _kept = KeepContext::of_driver();
        let bound = self.context.bind_to_thread();
        // SAFETY: allocated by `new` and freed once. A failure cannot be reported from here.
        let _ = bound.and_then(|()| unsafe { result::free_sync(self.address) });
    }
}

/// Pinned memory of the host, which copies to the device read while the CPU goes on. Parts of it are written by several threads.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    context: Arc<CudaContext>,
    start: *mut u8,
    len: usize,
}

// SAFETY: plain bytes; who may touch which is what `slice` and `slice_mut` ask of their callers.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above.
unsafe impl Sync for PinnedMemory {}

impl PinnedMemory {
    /// Allocates `len` zeros.
    pub(crate) fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self> {
        context.bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: a context is bound. Not write-combined: checksums are read from it.
        let start = unsafe { result::malloc_host(len.max(1), 0) };
        let start: *mut c_void = start.map_err(|e| failed(&format!("pin {len} bytes of host memory"))(e))?;
        let start = start.cast::<u8>();
        // SAFETY: `len` bytes were allocated.
        unsafe { start.write_bytes(0, len) };
        Ok(Self { context: Arc::clone(context), start, len })
    }

    /// A part of it, to be written.
    ///
    /// # Safety
    /// Nobody else, a copy of the device included, uses this part meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    pub(crate) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.len, "inside the allocation");
        // SAFETY: inside the allocation, and the caller has it alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// A part of it, to be read.
    ///
    /// # Safety
    /// Nobody writes this part meanwhile.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "inside the allocation");
        // SAFETY: inside the allocation, which was filled with zeros, and nobody writes.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        let _kept = KeepContext::of_driver();
        let bound = self.context.bind_to_thread();
        // SAFETY: allocated by `new` and freed once. A failure cannot be reported from here.
        let _ = bound.and_then(|()| unsafe { result::free_host(self.start.cast()) });
    }
}
