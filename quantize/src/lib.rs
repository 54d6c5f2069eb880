//! Quantized weights: what is stored when a checkpoint may lose precision, and how it is chosen.
//!
//! Encodings (`cmz-codec`) say how components become weights; here weights become components. Nothing that reads a file needs
//! this crate.

mod matrix;
pub mod plan;
pub mod recipe;
pub mod solver;

pub use matrix::Matrix;
