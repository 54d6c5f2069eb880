//! The CUDA side of cmz. Everything that names cudarc is in this crate; it builds without
//! CUDA and, at run time, needs nothing but the driver.
//!
//! For now it tells what device there is; the block decoders follow.

mod device;

pub use device::Device;
