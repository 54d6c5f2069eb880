//! How fast the device decodes a file, beside how fast it copies.

use std::time::Instant;

use cmz_codec::{Archive, Result};
use cudarc::driver::{CudaEvent, result, sys};

use crate::decoder::{GpuDecoder, Request};
use crate::load::{LoadOptions, Target};
use crate::memory::{PinnedMemory, failed};
use crate::plan::Placement;

/// Tensors are measured up to this part of the device's memory: 1 over it.
const PART_OF_MEMORY: usize = 4;
/// Decodes, or copies, that are timed together, so that what a launch costs the host does not count.
const REPEATS: usize = 8;
/// Bytes of the copies from the host.
const HOST_COPY_LEN: usize = 64 << 20;

/// Measurements of one file on one device; seconds are those of the best run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Tensors that were measured: as many of the first ones as fit.
    pub tensors: usize,
    /// What they decode to, in bytes.
    pub decoded: u64,
    /// What of them is on the device while they are compressed, in bytes.
    pub resident: u64,
    /// A decode of all of them, compressed on the device, into memory of the device.
    pub decode_seconds: f64,
    /// A copy of as many bytes inside the device.
    pub copy_seconds: f64,
    /// From the file into the memory of the device.
    pub load_seconds: f64,
    /// Bytes that the load copied to the device.
    pub load_copied: u64,
    /// Bytes a second of copies from pinned memory.
    pub host_copy_rate: f64,
}

impl GpuDecoder {
    /// Measures `runs` decodes, copies and loads of a file.
    ///
    /// # Errors
    /// An error of the file, or [`Code::Device`](cmz_codec::Code::Device).
    pub fn measure(&self, archive: &Archive, runs: usize, threads: usize) -> Result<Measured> {
        let stream = self.new_stream()?;
        let limit = (self.device().memory / PART_OF_MEMORY) as u64;
        let mut decoded = 0;
        let fits = |tensor: &usize| {
            decoded += archive.index().tensor_len(*tensor);
            decoded <= limit || *tensor == 0
        };
        let requests: Vec<Request> = (0..archive.tensors().len()).take_while(fits).map(Request::whole).collect();
        let plan = self.plan(archive, &requests, Placement::Packed, false, threads)?;
        let len = plan.output_len() as usize;
        let output = self.allocate(len)?;
        let decode = || {
            // SAFETY: the output is as long as the plan says, and every run is waited for.
            unsafe { plan.decode(&stream, output.address()) }
        };
        let decode_seconds = self.best_of(runs, &stream, decode)?;
        plan.check(archive, &stream)?;

        let other = self.allocate(len)?;
        let copy = || {
            // SAFETY: both have `len` bytes.
            unsafe { result::memcpy_dtod_async(other.address(), output.address(), len, stream.cu_stream()) }
                .map_err(failed("copy inside the device"))
        };
        let copy_seconds = self.best_of(runs, &stream, copy)?;
        drop(other);

        let pinned = PinnedMemory::new(self.context(), HOST_COPY_LEN)?;
        let landing = self.allocate(HOST_COPY_LEN)?;
        let host_copy = || {
            // SAFETY: both are as long, and nobody writes the host's memory.
            unsafe {
                let bytes = pinned.slice(0..HOST_COPY_LEN);
                result::memcpy_htod_async(landing.address(), bytes, stream.cu_stream())
            }
            .map_err(failed("copy to the device"))
        };
        let host_copy_rate = HOST_COPY_LEN as f64 / self.best_of(runs, &stream, host_copy)?;

        let targets: Vec<Target> = requests
            .iter()
            .zip(plan.offsets())
            .map(|(request, offset)| Target { request: request.clone(), address: output.address() + offset })
            .collect();
        let options = LoadOptions { threads, ..LoadOptions::default() };
        let (mut load_seconds, mut load_copied) = (f64::INFINITY, 0);
        for _ in 0..runs {
            let start = Instant::now();
            // SAFETY: the targets are where the plan has put them in the output.
            let report = unsafe { self.load(archive, &targets, &stream, &options) }?;
            load_seconds = load_seconds.min(start.elapsed().as_secs_f64());
            load_copied = report.copied;
        }
        Ok(Measured {
            tensors: requests.len(),
            decoded: targets.iter().map(|t| archive.index().tensor_len(t.request.tensor)).sum(),
            resident: plan.device_len() as u64,
            decode_seconds,
            copy_seconds,
            load_seconds,
            load_copied,
            host_copy_rate,
        })
    }

    /// The least time of one of [`REPEATS`] on the device, of some runs after one that does not count.
    fn best_of(
        &self,
        runs: usize,
        stream: &std::sync::Arc<cudarc::driver::CudaStream>,
        mut run: impl FnMut() -> Result<()>,
    ) -> Result<f64> {
        let event = || {
            let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
            self.context().new_event(timed).map_err(failed("make an event"))
        };
        let (start, end): (CudaEvent, CudaEvent) = (event()?, event()?);
        run()?;
        let mut best = f64::INFINITY;
        for _ in 0..runs {
            start.record(stream).map_err(failed("record an event"))?;
            for _ in 0..REPEATS {
                run()?;
            }
            end.record(stream).map_err(failed("record an event"))?;
            let elapsed = start.elapsed_ms(&end).map_err(failed("wait for the device"))?;
            best = best.min(f64::from(elapsed) / 1000.0 / REPEATS as f64);
        }
        Ok(best)
    }
}
