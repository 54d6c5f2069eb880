//! Everything between a checkpoint's bytes and a `.cmz` file's bytes: stream codecs,
//! encodings and their [`registry`], the conversion of safetensors files, and the
//! [`Archive`] that reads tensors back.

mod archive;
pub mod array;
pub mod checkpoint;
pub mod choose;
pub mod convert;
pub mod device;
pub mod encoding;
mod entropy;
pub mod export;
pub mod import;
pub mod io;
mod open;
pub mod pipeline;
mod prefetch;
pub mod registry;
pub mod safetensors;
mod scratch;
pub mod stream;
pub mod tensor;
pub mod view;

pub use archive::{Archive, ContentBlock, DecodedBlock, TensorPart};
pub use cmz_format::{Code, Error, ErrorKind, Result};
pub use entropy::{ComponentEntropy, TensorEntropy};
pub use open::{OpenOptions, Verify};
pub use scratch::Scratch;

/// Locks a mutex whose data stays sound when a thread panics with it locked.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
