//! Tensors written as other programs want them.

pub mod qmoe;
