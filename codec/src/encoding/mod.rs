//! Encodings: how an array of tensor elements is put together from component arrays.
//!
//! An encoding is one operation over named components; a component is stored as a
//! stream or is an encoded array in turn. One folder here is one encoding, described
//! in its `SPEC.md`.

use std::fmt;

use arrayvec::ArrayVec;
use cmz_format::{Dtype, Result};
use serde_json::{Map, Value};

use self::params::Params;
use crate::Scratch;
use crate::device::DeviceNode;
use crate::stream::{Level, StreamError, Width};

pub mod affine;
pub mod block_scale;
pub mod byte_planes;
pub mod codebook;
pub mod float_joint;
pub mod float_planes;
mod groups;
pub mod low_rank;
pub mod number;
#[cfg(test)]
mod number_tests;
mod params;
pub mod permute;
pub mod plain;
pub mod reference;
mod sources;
pub mod sparse;
pub mod ternary;
#[cfg(test)]
mod testing;
mod versions;

/// Components of one encoding, at most.
pub const MAX_COMPONENTS: usize = 8;

/// What the elements of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Tensor elements of a known type.
    Dtype(Dtype),
    /// Tensor elements of a type that this version does not know: bytes.
    Opaque,
    /// Symbols of a stated width.
    Symbol(Width),
}

/// An array inside one block: what it consists of, how much of it there is, and in which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// What the elements are.
    pub element: Element,
    /// Length in memory, in bytes.
    pub byte_len: usize,
    /// Elements of a row, at least 1: rows are counted from the beginning of the array, and the last
    /// one may be shorter. An array without rows is one row, however long.
    pub row: usize,
}

impl Array {
    /// An array of `byte_len` bytes in rows of `row` elements.
    #[must_use]
    pub const fn new(element: Element, byte_len: usize, row: usize) -> Self {
        Self { element, byte_len, row: if row == 0 { 1 } else { row } }
    }

    /// An array without rows.
    #[must_use]
    pub const fn vector(element: Element, byte_len: usize) -> Self {
        Self::new(element, byte_len, usize::MAX)
    }

    /// An array of `len` symbols without rows.
    #[must_use]
    pub const fn of_symbols(width: Width, len: usize) -> Self {
        Self::vector(Element::Symbol(width), len * width.bytes())
    }

    /// The same in rows of `row` elements.
    #[must_use]
    pub const fn in_rows(self, row: usize) -> Self {
        Self::new(self.element, self.byte_len, row)
    }
}

/// A component of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Name in the manifest.
    pub name: &'static str,
    /// The component array.
    pub array: Array,
}

/// The components of an array, in the order of their streams in a block.
pub type Components = ArrayVec<Component, MAX_COMPONENTS>;

/// A stream of a block: the codec's id and the bytes.
pub type StreamRef<'a> = (u16, &'a [u8]);

/// How an array is put together from component arrays.
pub trait Encoding: fmt::Debug + Send + Sync {
    /// Name in manifests.
    fn name(&self) -> &'static str;

    /// Parameters, as the manifest states them: none, for most encodings.
    fn params(&self) -> Map<String, Value> {
        Map::new()
    }

    /// This encoding with the parameters of a manifest; `None` if they say no more than that
    /// it is this one.
    ///
    /// # Errors
    /// [`Malformed`](cmz_format::Code::Malformed) if a parameter is missing or outside of its
    /// range, [`UnknownEncoding`](cmz_format::Code::UnknownEncoding) if this version does not
    /// know it or its value.
    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        Params::new(self.name(), &[], params).map(|_| None)
    }

    /// Whether [`Self::join`] restores everything that [`Self::split`] takes apart. If not,
    /// `split` rounds, and `join` restores what it rounded to.
    fn is_exact(&self) -> bool {
        true
    }

    /// The components of `array`; `None` if this encoding has no rule for its elements
    /// or length. A component whose length depends on the ones before it is as short here as
    /// it can be.
    fn components(&self, array: Array) -> Option<Components>;

    /// The array of component `number`, of which all `before` it are given.
    ///
    /// # Errors
    /// [`StreamError`] if there is no rule for `array`, or if what comes before is not what this
    /// encoding permits.
    fn component_array(&self, array: Array, number: usize, before: &[&[u8]]) -> Result<Array, StreamError> {
        let _ = before;
        self.components(array).map(|components| components[number].array).ok_or(StreamError::Length)
    }

    /// Takes `data` apart into `components`, whose lengths [`Self::components`] gives. An encoding
    /// that is not exact does so in the most obvious way.
    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]);

    /// Puts `data` together from `components`: the inverse of [`Self::split`], if the encoding
    /// is exact. The components may hold any symbols of their widths, and any bytes.
    ///
    /// # Errors
    /// [`StreamError`] if the components are not those of any array.
    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError>;

    /// What a device does with the components of `array`; `None` if only the CPU puts them together.
    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let _ = array;
        None
    }

    /// As [`Self::components`], with those whose length depends on the ones before as long as they can be.
    fn longest_components(&self, array: Array) -> Option<Components> {
        self.components(array)
    }

    /// Bytes that [`Self::tell`] makes of component `number`, at most; `None` if it makes nothing of it.
    fn told_len(&self, array: Array, number: usize) -> Option<usize> {
        let _ = (array, number);
        None
    }

    /// What the host works out for the device of component `number`, one for which there is a [`Self::told_len`]. All that the encoding asks of that component
    /// alone is checked.
    ///
    /// # Errors
    /// [`StreamError`] as of [`Self::join`].
    fn tell(&self, array: Array, number: usize, component: &[u8]) -> Result<Vec<u8>, StreamError> {
        let _ = (array, number, component);
        Ok(Vec::new())
    }

    /// The elements that have a value of their own, in ascending order: of `sparse`.
    ///
    /// # Errors
    /// [`StreamError`] as of [`Self::join`].
    fn places(&self, array: Array, components: &[&[u8]]) -> Result<Vec<u32>, StreamError> {
        let _ = (array, components);
        Ok(Vec::new())
    }

    /// Decodes streams and joins them in one pass, where this encoding has a faster way
    /// for the codecs at hand. The result is the same bit for bit.
    fn decode_fused(
        &self,
        array: Array,
        streams: &[StreamRef<'_>],
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Option<Result<(), StreamError>> {
        let _ = (array, streams, scratch, data);
        None
    }

    /// Splits `data` and encodes its components with the stream codecs `codecs`, ids in
    /// the order of the components, in one pass, where this encoding has a faster way for
    /// them. Appends to `streams` the same bytes as [`Self::split`] and the codecs would;
    /// does nothing and returns `false` if there is no such way.
    fn encode_fused(
        &self,
        array: Array,
        data: &[u8],
        codecs: &[u16],
        level: Level,
        scratch: &mut Scratch,
        streams: &mut [Vec<u8>],
    ) -> bool {
        let _ = (array, data, codecs, level, scratch, streams);
        false
    }
}
