//! Memory that encoders and decoders reuse from block to block.

use std::any::{Any, TypeId};
use std::collections::HashMap;

/// A bag of reusable values, one per type. Each codec keeps its tables and buffers in
/// a type of its own, so that nothing is allocated per block in the steady state.
///
/// One thread owns one `Scratch`.
#[derive(Default)]
pub struct Scratch {
    values: HashMap<TypeId, Box<dyn Any + Send>>,
    buffers: Vec<Vec<u8>>,
}

impl Scratch {
    /// An empty bag.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the value of type `T` out of the bag, or makes a new one. Hand it back
    /// with [`Self::put`] to have it reused.
    #[must_use]
    pub fn take<T: Any + Send + Default>(&mut self) -> Box<T> {
        self.values.remove(&TypeId::of::<T>()).and_then(|any| any.downcast().ok()).unwrap_or_default()
    }

    /// A buffer of `len` bytes with unspecified contents. Hand it back with [`Self::recycle`].
    #[must_use]
    pub fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.buffers.push(buffer);
    }

    /// Puts a value into the bag, in place of any other of its type.
    pub fn put<T: Any + Send>(&mut self, value: Box<T>) {
        self.values.insert(TypeId::of::<T>(), value);
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("values", &self.values.len()).field("buffers", &self.buffers.len()).finish()
    }
}
