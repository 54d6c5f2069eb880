//! The C interface of [`cmz_gpu_decode`]: `include/cmz_gpu.h`, which `cargo xtask header` makes of these files.
//!
//! A crate of its own, so that the Rust crate exports no C symbols and a library for C is built only when it is asked for.
//!
//! Rules that hold for every function: pointers are checked for null and lengths for sense, panics become [`CMZ_PANIC`] and never
//! unwind into C, results go through pointers that are null after a failure, and the thread's current CUDA context is the
//! same afterwards.
//!
//! [`CMZ_PANIC`]: error::CMZ_PANIC
#![expect(unsafe_code, reason = "the interface is C's")]

pub mod archive;
pub mod error;
pub mod gpu;
pub mod plan;
mod pointer;

/// Threads may share handles.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<archive::CmzArchive>();
    shared::<gpu::CmzGpu>();
    shared::<plan::CmzPlan>();
};
