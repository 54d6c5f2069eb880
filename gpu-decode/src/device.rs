//! What CUDA device there is.
#![expect(unsafe_code, reason = "the driver's interface is foreign")]

use cmz_format::{Code, Error, Result};
use cudarc::driver::{CudaContext, DriverError, result, sys};

/// The oldest architecture that the kernels are compiled for: compute capability 7.5.
const OLDEST: (i32, i32) = (7, 5);

/// A CUDA device that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Number of the device.
    pub ordinal: usize,
    /// The product's name.
    pub name: String,
    /// Compute capability: major, minor.
    pub compute_capability: (i32, i32),
    /// Memory, in bytes.
    pub memory: usize,
    /// Version of CUDA that the driver supports: major, minor.
    pub driver: (i32, i32),
}

impl Device {
    /// Looks for device `ordinal`.
    ///
    /// # Errors
    /// [`Code::NoGpu`], with the reason: no driver, no such device, one that is too old, or
    /// what the driver says.
    pub fn probe(ordinal: usize) -> Result<Self> {
        // SAFETY: only loads the driver's library; cudarc panics later if this is skipped.
        if !unsafe { sys::is_culib_present() } {
            return Err(no_gpu("no CUDA driver (libcuda was not found)"));
        }
        let count = CudaContext::device_count().map_err(driver_error)?;
        if usize::try_from(count).is_ok_and(|count| count <= ordinal) {
            return Err(no_gpu(format!("the CUDA driver shows {count} devices, there is no device {ordinal}")));
        }
        let context = CudaContext::new(ordinal).map_err(driver_error)?;
        let compute_capability = context.compute_capability().map_err(driver_error)?;
        if compute_capability < OLDEST {
            let (major, minor) = compute_capability;
            return Err(no_gpu(format!("device {ordinal} has compute capability {major}.{minor}; 7.5 is the oldest")));
        }
        // SAFETY: the context holds a valid device, and the version is written to a live integer.
        let (memory, version) = unsafe {
            let mut version = 0;
            sys::cuDriverGetVersion(&mut version).result().map_err(driver_error)?;
            (result::device::total_mem(context.cu_device()).map_err(driver_error)?, version)
        };
        Ok(Self {
            ordinal,
            name: context.name().map_err(driver_error)?,
            compute_capability,
            memory,
            driver: (version / 1000, version % 1000 / 10),
        })
    }
}

fn no_gpu(why: impl Into<String>) -> Error {
    Error::new(Code::NoGpu, why).with_help("everything works on the CPU")
}

pub(crate) fn driver_error(error: DriverError) -> Error {
    no_gpu(format!("the CUDA driver reports {:?}", error.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_never_panics() {
        match Device::probe(0) {
            Ok(device) => assert!(device.memory > 0 && device.compute_capability >= OLDEST),
            Err(e) => assert_eq!(e.code(), Code::NoGpu),
        }
        assert_eq!(Device::probe(4096).map(|_| ()).unwrap_err().code(), Code::NoGpu);
    }
}
