//! The decoder of one device.

use std::ops::Range;
use std::sync::Arc;

use cmz_codec::{Archive, Code, Error, Result};
use cudarc::driver::{CudaContext, CudaStream};

use crate::block::Piece;
use crate::device::{Device, driver_error};
use crate::kernel::Kernels;
use crate::memory::{DeviceMemory, failed};
use crate::tables::Tables;

/// Decodes tensors on a CUDA device.
///
/// Uses the device's primary context, which is that of the CUDA runtime and so of PyTorch.
#[derive(Debug)]
pub struct GpuDecoder {
    device: Device,
    context: Arc<CudaContext>,
    pub(crate) kernels: Kernels,
    pub(crate) tables: Arc<Tables>,
}

/// A tensor that is to be decoded, or rows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the tensor in the archive.
    pub tensor: usize,
    /// Indices of the first dimension; all of them if `None`.
    pub rows: Option<Range<u64>>,
}

impl Request {
    /// A whole tensor.
    #[must_use]
    pub fn whole(tensor: usize) -> Self {
        Self { tensor, rows: None }
    }
}

impl GpuDecoder {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    /// [`Code::NoGpu`], with the reason.
    pub fn open(ordinal: usize) -> Result<Self> {
        let device = Device::probe(ordinal)?;
        let context = CudaContext::new(ordinal).map_err(driver_error)?;
        let tables = Arc::new(Tables::new(Arc::clone(&context)));
        Ok(Self { device, kernels: Kernels::new(Arc::clone(&context)), tables, context })
    }

    /// What device it is.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The context that everything of this decoder lives in.
    #[must_use]
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// A stream of its own, which does not wait for the default stream.
    ///
    /// # Errors
    /// [`Code::Device`].
    pub fn new_stream(&self) -> Result<Arc<CudaStream>> {
        self.context.new_stream().map_err(failed("make a stream"))
    }

    /// A stream that somebody else owns, such as PyTorch's current one.
    ///
    /// # Safety
    /// `stream` is a live `CUstream` of this device's primary context, or null, the default stream, for as long as what is
    /// returned lives.
    pub unsafe fn borrow_stream(&self, stream: *mut std::ffi::c_void) -> Arc<CudaStream> {
        // SAFETY: the caller answers for the stream, which is not destroyed.
        unsafe { self.context.wrap_borrowed_stream(stream.cast()) }
    }

    /// Allocates memory of the device.
    ///
    /// # Errors
    /// [`Code::Device`].
    pub fn allocate(&self, len: usize) -> Result<DeviceMemory> {
        DeviceMemory::new(&self.context, len)
    }

    /// Loads the kernels now instead of when they are first needed; the driver may have to compile them.
    ///
    /// # Errors
    /// [`Code::NoGpu`] if the driver does not take them.
    pub fn load_kernels(&self) -> Result<()> {
        crate::kernel::Kernel::ALL.iter().try_for_each(|&kernel| self.kernels.get(kernel).map(|_| ()))
    }
}

/// Bytes that a request decodes to.
///
/// # Errors
/// [`Code::InvalidArgument`] if there is no such tensor or there are no such rows.
pub fn request_len(archive: &Archive, request: &Request) -> Result<u64> {
    request_bytes(archive, request).map(|range| range.end - range.start)
}

/// Where the bytes of a request lie in its tensor.
///
/// # Errors
/// As [`request_len`].
pub(crate) fn request_bytes(archive: &Archive, request: &Request) -> Result<Range<u64>> {
    let Some(tensor) = archive.tensors().get(request.tensor) else {
        return Err(Error::new(Code::InvalidArgument, format!("there is no tensor {}", request.tensor)));
    };
    match &request.rows {
        None => Ok(0..archive.index().tensor_len(request.tensor)),
        Some(rows) => archive.row_bytes(request.tensor, rows.clone()).map_err(|e| e.in_tensor(&tensor.name)),
    }
}

/// The blocks of a request whose first byte goes to `out`.
///
/// # Errors
/// As [`request_len`], or if this version cannot decode the tensor.
pub(crate) fn pieces(archive: &Archive, request: &Request, out: u64) -> Result<Vec<Piece>> {
    let bytes = request_bytes(archive, request)?;
    let tensor = request.tensor;
    archive.check_readable(tensor)?;
    let block_len = archive.block_len(tensor);
    let mut pieces = Vec::new();
    let mut at = bytes.start;
    while at < bytes.end {
        let (ordinal, start) = (at / block_len, at % block_len);
        let end = (bytes.end - ordinal * block_len).min(block_len);
        let out = out.wrapping_add(at - bytes.start);
        pieces.push(Piece { tensor, ordinal: ordinal as usize, wanted: start as u32..end as u32, out });
        at = ordinal * block_len + end;
    }
    Ok(pieces)
}
