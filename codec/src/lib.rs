//! Everything between a checkpoint's bytes and a `.cmz` file's bytes: stream codecs,
//! encodings and their [`registry`], the conversion of safetensors files, and the
//! [`Archive`] that reads tensors back.

pub mod encoding;
pub mod registry;
mod scratch;
pub mod stream;

pub use scratch::Scratch;
