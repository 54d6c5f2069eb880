//! Decoders, and loading without a plan.

use std::ffi::c_void;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

use cmz_codec::Result;
use cmz_gpu_decode::{GpuDecoder, KeepContext, LoadOptions, Request, Target};

use crate::archive::CmzArchive;
use crate::error::status;
use crate::pointer::{invalid, object, put, slice, take};

/// The decoder of a device. It works in the device's primary context, as the CUDA runtime and PyTorch do. Any number of
/// threads may use it at the same time.
pub struct CmzGpu {
    pub(crate) decoder: Arc<GpuDecoder>,
}

/// A tensor that is to be decoded, or rows of it.
#[repr(C)]
pub struct CmzRequest {
    /// Number of the tensor in the archive.
    pub tensor: usize,
    /// The first index of the first dimension that is wanted.
    pub row_begin: u64,
    /// Behind the last one; CMZ_ALL_ROWS, with 0 as the first, is the whole tensor, whatever its dimensions.
    pub row_end: u64,
    /// Where its bytes go: an address on the device, or for plans an offset to the output. Multiples of 16 are decoded fastest.
    pub address: u64,
}

/// As `row_end`: up to the last row.
pub const CMZ_ALL_ROWS: u64 = u64::MAX;
/// Flag: the device compares the checksums of the decoded bytes too. Those of the stored bytes are always compared.
pub const CMZ_CHECK_DECODED: u32 = 1;
/// Flag for plans: tensors lie one behind the other, each on a multiple of 256 bytes, wherever the requests say.
pub const CMZ_PACKED: u32 = 2;

/// How to load. 0 stands for a default.
#[repr(C)]
pub struct CmzLoadOptions {
    /// Threads that read and check blocks, at most 1024.
    pub threads: usize,
    /// Buffers of the ring, at least 2; by default 3.
    pub slots: usize,
    /// Bytes of a buffer, which there is on the host, pinned, and on the device; by default 32 MiB. One that is too small for a
    /// block is made larger.
    pub slot_len: usize,
    /// 0 or CMZ_CHECK_DECODED.
    pub flags: u32,
}

/// What a load did.
#[repr(C)]
pub struct CmzLoadReport {
    /// Decoded bytes, now in the memory of the device.
    pub decoded: u64,
    /// Bytes that were copied to the device for it.
    pub copied: u64,
    /// Memory of the ring in bytes, on the host and as much on the device.
    pub ring: u64,
}

/// Opens the decoder of device `ordinal`, from 0; cmz_gpu_close closes it. CMZ_ERROR_NO_GPU says why there is none.
///
/// # Safety
/// `gpu` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_gpu_open(ordinal: usize, gpu: *mut *mut CmzGpu) -> i32 {
    status(|| {
        // SAFETY: the caller answers for the pointer.
        unsafe { put(gpu, std::ptr::null_mut(), "gpu")? };
        let _context = KeepContext::new();
        let opened = CmzGpu { decoder: Arc::new(GpuDecoder::open(ordinal)?) };
        // SAFETY: as above.
        unsafe { put(gpu, Box::into_raw(Box::new(opened)), "gpu") }
    })
}

/// Closes a decoder. NULL is none. Plans made with it do not need it.
///
/// # Safety
/// `gpu` is NULL, or was opened and not closed, and nobody uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_gpu_close(gpu: *mut CmzGpu) {
    status(|| {
        let _context = KeepContext::new();
        // SAFETY: as the caller says.
        drop(unsafe { take(gpu) });
        Ok(())
    });
}

/// Decodes tensors into device memory, each once, and waits until they are there: reading, copying and decoding overlap. After an
/// error the memory holds anything, but nothing is written to it any more. `options` may be NULL, and so may `report`.
///
/// # Safety
/// `gpu` and `archive` are open. There are `count` requests, and each address is that of memory of the device, writable for
/// the bytes of its request. `stream` is a CUstream or cudaStream_t of the device that is not being captured, or NULL, the
/// default stream. `options` is NULL or may be read, `report` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_gpu_load(
    gpu: *const CmzGpu,
    archive: *const CmzArchive,
    requests: *const CmzRequest,
    count: usize,
    stream: *mut c_void,
    options: *const CmzLoadOptions,
    report: *mut CmzLoadReport,
) -> i32 {
    status(|| {
        // SAFETY: the caller answers for the pointers.
        let (gpu, archive, requests, options) = unsafe {
            let requests = slice(requests, count, "requests")?;
            (object(gpu, "gpu")?, object(archive, "archive")?, requests, options.as_ref())
        };
        let options = options.map_or(Ok(LoadOptions::default()), load_options)?;
        let targets: Vec<Target> = requests
            .iter()
            .map(|request| Ok(Target { request: wanted(archive, request)?, address: request.address }))
            .collect::<Result<_>>()?;
        // SAFETY: as above; the decoder is open for this call.
        let (_context, stream) = unsafe { gpu.decoder.enter(stream)? };
        // SAFETY: the caller answers for the addresses.
        let done = unsafe { gpu.decoder.load(&archive.archive, &targets, &stream, &options)? };
        let done = CmzLoadReport { decoded: done.decoded, copied: done.copied, ring: done.ring };
        // SAFETY: as above.
        if report.is_null() { Ok(()) } else { unsafe { put(report, done, "report") } }
    })
}

fn load_options(options: &CmzLoadOptions) -> Result<LoadOptions<'static>> {
    let default = LoadOptions::default();
    let or = |given: usize, default: usize| NonZero::new(given).map_or(default, NonZero::get);
    Ok(LoadOptions {
        threads: threads(options.threads)?,
        slots: or(options.slots, default.slots),
        slot_len: or(options.slot_len, default.slot_len),
        check_decoded: flag(options.flags, CMZ_CHECK_DECODED, CMZ_CHECK_DECODED)?,
        ..default
    })
}

/// The number of threads that is asked for, where 0 asks for the default.
pub(crate) fn threads(given: usize) -> Result<usize> {
    match given {
        0 => Ok(LoadOptions::default().threads),
        1..=1024 => Ok(given),
        _ => Err(invalid(format!("{given} threads are more than 1024"))),
    }
}

/// Whether `flag` is set; others than `known` must not be.
pub(crate) fn flag(flags: u32, flag: u32, known: u32) -> Result<bool> {
    match flags & !known {
        0 => Ok(flags & flag != 0),
        unknown => Err(invalid(format!("flags {unknown:#x} mean nothing here"))),
    }
}

pub(crate) fn wanted(archive: &CmzArchive, request: &CmzRequest) -> Result<Request> {
    let rows: Option<Range<u64>> = match (request.row_begin, request.row_end) {
        (0, CMZ_ALL_ROWS) => None,
        (begin, CMZ_ALL_ROWS) => {
            let tensor = archive.archive.tensors().get(request.tensor);
            let rows = tensor.and_then(|tensor| tensor.shape.first()).copied();
            Some(begin..rows.ok_or_else(|| invalid(format!("there are no rows of a tensor {}", request.tensor)))?)
        }
        (begin, end) => Some(begin..end),
    };
    Ok(Request { tensor: request.tensor, rows })
}
