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

    /// Does `work` with the bag's value of type `T`, a new one if there is none, and with the rest of
    /// the bag.
    pub fn with<T: Any + Send + Default, R>(&mut self, work: impl FnOnce(&mut T, &mut Self) -> R) -> R {
        let found = self.values.remove(&TypeId::of::<T>()).and_then(|any| any.downcast().ok());
        let mut value: Box<T> = found.unwrap_or_default();
        let result = work(&mut value, self);
        self.values.insert(TypeId::of::<T>(), value);
        result
    }

    /// A buffer of `len` bytes with unspecified contents. Hand it back with [`Self::recycle`].
    #[must_use]
    pub fn buffer(&mut self, len: usize) -> Vec<u8> {
        // What is to grow takes the one with the most room. Else, of those with room, the one that is nearest in length: what it is shorter has
        // to be cleared, and what it is longer for the next.
        let rank = |buffer: &Vec<u8>| match len {
            0 => (false, usize::MAX - buffer.capacity()),
            _ => (buffer.capacity() < len, buffer.len().abs_diff(len)),
        };
        let nearest = (0..self.buffers.len()).min_by_key(|&i| rank(&self.buffers[i]));
        let mut buffer = nearest.map(|i| self.buffers.swap_remove(i)).unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.buffers.push(buffer);
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("values", &self.values.len()).field("buffers", &self.buffers.len()).finish()
    }
}
