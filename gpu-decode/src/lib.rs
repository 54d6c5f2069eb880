//! The CUDA side of cmz: block decoders that write tensors straight into device memory. Everything that names cudarc is in this
//! crate; it builds without CUDA and, at run time, needs nothing but the driver.
//!
//! | | |
//! |---|---|
//! | [`Device::probe`] | what device there is, or why none can be used |
//! | [`GpuDecoder`] | a device with the kernels |
//! | [`GpuDecoder::plan`] | compressed tensors in device memory, decoded as often as needed, without allocating or waiting |
//! | [`GpuDecoder::load`] | from the file to device memory, once: reading, copying and decoding overlap |
//! | [`GpuDecoder::quantized_matrix`] | a quantized matrix in device memory, packed or compressed, multiplied by vectors without being decoded |
//! | [`ResidentLayers`] | a model that stays compressed in device memory, a layer decoded just before it is used |
#![expect(unsafe_code, reason = "the driver's interface is foreign, and device addresses are the caller's word")]

mod batch;
mod bench;
mod block;
mod context;
mod decoder;
mod device;
mod job;
mod kernel;
mod load;
mod matvec;
mod memory;
mod parameters;
mod plan;
mod resident;
mod tables;
mod verify;

pub use bench::Measured;
pub use context::KeepContext;
pub use decoder::{GpuDecoder, Request, request_len};
pub use device::Device;
pub use load::{LoadOptions, LoadReport, Target};
pub use matvec::{QuantizedMatrix, Residency};
pub use memory::DeviceMemory;
pub use plan::{DecodePlan, Placement};
pub use resident::{Layer, ResidentLayers};
