//! Tensors in the memory of CUDA devices. Addresses and streams are numbers here; the package takes
//! them from the objects that own them.
#![expect(unsafe_code, reason = "addresses of tensors and streams are the package's word")]

use std::ffi::c_void;
use std::sync::Arc;

use cmz_codec::Result;
use cmz_gpu_decode::{DecodePlan, GpuDecoder, KeepContext, LoadOptions, Placement, Request, Target};
use pyo3::prelude::*;

use crate::archive::Archive;
use crate::error::exception;
use crate::job::run;

/// The decoder of a device. It can be used from several threads at once.
#[pyclass(frozen, module = "cmz._native")]
pub(crate) struct Gpu {
    decoder: Arc<GpuDecoder>,
}

/// Name of a tensor, and the first of its rows that are wanted and the one behind the last; all of it
/// if there are none.
type Wanted = (String, Option<(u64, u64)>);

#[pymethods]
impl Gpu {
    #[new]
    fn open(py: Python<'_>, ordinal: usize) -> PyResult<Self> {
        let opened = py.detach(|| {
            let _context = KeepContext::new();
            GpuDecoder::open(ordinal)
        });
        Ok(Self { decoder: Arc::new(opened.map_err(|e| exception(py, &e))?) })
    }

    /// The product's name.
    #[getter]
    fn name(&self) -> &str {
        &self.decoder.device().name
    }

    /// Decodes tensors to addresses, behind the work of `stream`, and waits until they are there.
    #[pyo3(signature = (archive, wanted, addresses, stream, threads = 0))]
    fn load(
        &self,
        py: Python<'_>,
        archive: &Archive,
        wanted: Vec<Wanted>,
        addresses: Vec<u64>,
        stream: usize,
        threads: usize,
    ) -> PyResult<()> {
        run(py, None, |state| {
            let requests = requests(archive, wanted)?;
            let targets: Vec<Target> =
                requests.into_iter().zip(addresses).map(|(request, address)| Target { request, address }).collect();
            targets.iter().try_for_each(|target| self.check(archive, &target.request, target.address))?;
            let options = LoadOptions {
                threads: crate::threads(threads),
                check_decoded: archive.checks_decoded(),
                cancel: Some(state.stop()),
                ..LoadOptions::default()
            };
            // SAFETY: the package takes the stream from its owner, who is alive.
            let (_context, stream) = unsafe { self.decoder.enter(stream as *mut c_void)? };
            // SAFETY: the addresses are those of memory of this device, and the package has seen to it that there is room.
            unsafe { self.decoder.load(archive.library(), &targets, &stream, &options)? };
            Ok(())
        })
    }

    /// Copies a tensor, or rows of it, to the device as it is stored, to be decoded as often as needed.
    #[pyo3(signature = (archive, wanted, threads = 0))]
    fn plan(&self, py: Python<'_>, archive: &Archive, wanted: Wanted, threads: usize) -> PyResult<Plan> {
        let made = py.detach(|| {
            let requests = requests(archive, vec![wanted])?;
            let _context = KeepContext::new();
            let check = archive.checks_decoded();
            let threads = crate::threads(threads);
            let plan = self.decoder.plan(archive.library(), &requests, Placement::At(&[0]), check, threads)?;
            Ok(Plan { plan, archive: archive.shared(), decoder: Arc::clone(&self.decoder) })
        });
        made.map_err(|e| exception(py, &e))
    }

    /// Whether what is submitted to `stream` is recorded for a graph.
    fn is_capturing(&self, py: Python<'_>, stream: usize) -> PyResult<bool> {
        // SAFETY: the package takes the stream from its owner, who is alive.
        let asked = py.detach(|| unsafe { self.decoder.is_capturing(stream as *mut c_void) });
        asked.map_err(|e| exception(py, &e))
    }
}

impl Gpu {
    /// Sees to it that a request's bytes go to memory of the device.
    fn check(&self, archive: &Archive, request: &Request, address: u64) -> Result<()> {
        match cmz_gpu_decode::request_len(archive.library(), request)? {
            0 => Ok(()),
            _ => self.decoder.check_address(address),
        }
    }
}

fn requests(archive: &Archive, wanted: Vec<Wanted>) -> Result<Vec<Request>> {
    let request = |(name, rows): Wanted| {
        let tensor = archive.library().find(&name)?;
        Ok(Request { tensor, rows: rows.map(|(start, end)| start..end) })
    };
    wanted.into_iter().map(request).collect()
}

/// A tensor, or rows of it, as it is stored, in the memory of a device.
#[pyclass(frozen, module = "cmz._native")]
pub(crate) struct Plan {
    plan: DecodePlan,
    archive: Arc<cmz_codec::Archive>,
    decoder: Arc<GpuDecoder>,
}

#[pymethods]
impl Plan {
    /// Bytes that it decodes to.
    #[getter]
    fn output_len(&self) -> u64 {
        self.plan.output_len()
    }

    /// Bytes of device memory that it holds.
    #[getter]
    fn device_len(&self) -> usize {
        self.plan.device_len()
    }

    /// Submits a decode to `stream`. Nothing is allocated, and nothing waits.
    fn decode(&self, py: Python<'_>, address: u64, stream: usize) -> PyResult<()> {
        let submitted = py.detach(|| {
            if self.plan.output_len() == 0 {
                return Ok(());
            }
            self.decoder.check_address(address)?;
            // SAFETY: the package takes the stream from its owner, who is alive.
            let (_context, stream) = unsafe { self.decoder.enter(stream as *mut c_void)? };
            // SAFETY: the address is that of memory of this device, and the package has seen to it that there is room.
            unsafe { self.plan.decode(&stream, address) }
        });
        submitted.map_err(|e| exception(py, &e))
    }

    /// Waits for `stream` and raises what was wrong with the last decode there.
    fn check(&self, py: Python<'_>, stream: usize) -> PyResult<()> {
        let checked = py.detach(|| {
            // SAFETY: the package takes the stream from its owner, who is alive.
            let (_context, stream) = unsafe { self.decoder.enter(stream as *mut c_void)? };
            self.plan.check(&self.archive, &stream)
        });
        checked.map_err(|e| exception(py, &e))
    }
}
