//! Plans.

use std::ffi::c_void;
use std::sync::Arc;

use cmz_codec::{Archive, Result};
use cmz_gpu_decode::{DecodePlan, GpuDecoder, KeepContext, Placement, Request};

use crate::archive::CmzArchive;
use crate::error::{status, value};
use crate::gpu::{CMZ_CHECK_DECODED, CMZ_PACKED, CmzGpu, CmzRequest, flag, threads, wanted};
use crate::pointer::{object, put, slice, take};

/// Compressed tensors in the memory of the device, decoded as often as needed. A decode is some launches: it allocates nothing,
/// waits for nothing, and can be captured in a CUDA graph. Threads may use a plan at the same time, but its decodes must
/// not overlap on the device: they share memory.
pub struct CmzPlan {
    plan: DecodePlan,
    archive: Arc<Archive>,
    decoder: Arc<GpuDecoder>,
}

/// Reads and checks the blocks of tensors on `threads` threads (0: a default) and copies them, compressed, to the device;
/// cmz_plan_close frees them. `flags` are CMZ_CHECK_DECODED and CMZ_PACKED, or 0.
///
/// # Safety
/// `gpu` and `archive` are open, there are `count` requests, and `plan` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_open(
    gpu: *const CmzGpu,
    archive: *const CmzArchive,
    requests: *const CmzRequest,
    count: usize,
    flags: u32,
    threads: usize,
    plan: *mut *mut CmzPlan,
) -> i32 {
    status(|| {
        // SAFETY: the caller answers for the pointers.
        let (gpu, archive, requests) = unsafe {
            put(plan, std::ptr::null_mut(), "plan")?;
            (object(gpu, "gpu")?, object(archive, "archive")?, slice(requests, count, "requests")?)
        };
        let opened = CmzPlan::new(gpu, archive, requests, flags, self::threads(threads)?)?;
        // SAFETY: as above.
        unsafe { put(plan, Box::into_raw(Box::new(opened)), "plan") }
    })
}

impl CmzPlan {
    fn new(gpu: &CmzGpu, archive: &CmzArchive, given: &[CmzRequest], flags: u32, threads: usize) -> Result<Self> {
        let check = flag(flags, CMZ_CHECK_DECODED, CMZ_CHECK_DECODED | CMZ_PACKED)?;
        let requests: Vec<Request> = given.iter().map(|request| wanted(archive, request)).collect::<Result<_>>()?;
        let addresses: Vec<u64> = given.iter().map(|request| request.address).collect();
        let placement = if flags & CMZ_PACKED != 0 { Placement::Packed } else { Placement::At(&addresses) };
        let _context = KeepContext::new();
        let plan = gpu.decoder.plan(&archive.archive, &requests, placement, check, threads)?;
        Ok(Self { plan, archive: Arc::clone(&archive.archive), decoder: Arc::clone(&gpu.decoder) })
    }
}

/// Frees a plan. NULL is none.
///
/// # Safety
/// `plan` is NULL, or was made and not freed, nobody uses it, and its decodes have ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_close(plan: *mut CmzPlan) {
    status(|| {
        let _context = KeepContext::new();
        // SAFETY: as the caller says.
        drop(unsafe { take(plan) });
        Ok(())
    });
}

/// Bytes of the output, from the lowest offset that can be, 0, to the end of the last tensor; 0 after an error.
///
/// # Safety
/// `plan` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_output_len(plan: *const CmzPlan) -> u64 {
    // SAFETY: as the caller says.
    value(0, || Ok(unsafe { object(plan, "plan")? }.plan.output_len()))
}

/// Where the tensor of each request begins in the output, in bytes: one number a request, which belong to the plan and live as
/// long. NULL after an error.
///
/// # Safety
/// `plan` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_offsets(plan: *const CmzPlan) -> *const u64 {
    // SAFETY: as the caller says.
    value(std::ptr::null(), || Ok(unsafe { object(plan, "plan")? }.plan.offsets().as_ptr()))
}

/// Bytes of device memory that the plan holds; 0 after an error.
///
/// # Safety
/// `plan` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_device_len(plan: *const CmzPlan) -> u64 {
    // SAFETY: as the caller says.
    value(0, || Ok(unsafe { object(plan, "plan")? }.plan.device_len() as u64))
}

/// Submits a decode to `stream` and returns. Whether it succeeds, cmz_plan_check tells later.
///
/// # Safety
/// `plan` is open. `output` plus each offset is the address of device memory that is writable for the tensor's bytes until the
/// work has ended; with addresses as offsets, `output` is 0. `stream` is a CUstream or cudaStream_t of the device, or NULL,
/// the default stream. No other decode of this plan is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_decode(plan: *const CmzPlan, output: u64, stream: *mut c_void) -> i32 {
    status(|| {
        // SAFETY: the caller answers for plan and stream.
        let plan = unsafe { object(plan, "plan")? };
        // SAFETY: as above.
        let (_context, stream) = unsafe { plan.decoder.enter(stream)? };
        // SAFETY: the caller answers for the output.
        unsafe { plan.plan.decode(&stream, output) }
    })
}

/// Waits for `stream` and says whether the plan's last decode there succeeded. If not, what it wrote is anything.
///
/// # Safety
/// `plan` is open, and `stream` is the one of the last decode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmz_plan_check(plan: *const CmzPlan, stream: *mut c_void) -> i32 {
    status(|| {
        // SAFETY: the caller answers for plan and stream.
        let plan = unsafe { object(plan, "plan")? };
        // SAFETY: as above.
        let (_context, stream) = unsafe { plan.decoder.enter(stream)? };
        plan.plan.check(&plan.archive, &stream)
    })
}
