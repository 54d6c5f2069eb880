//! `codebook`: indices of the entries of a table. See `SPEC.md` in this folder.

use cmz_format::Result;
use serde_json::{Map, Value};

use super::groups::{Grid, MAX_GROUP};
pub use super::number::Float;
use super::number::{VALUES, with_number};
use super::params::{Params, entries, name_of};
use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceCodebook, DeviceNode};
use crate::stream::{StreamError, Width};

mod decode;
mod encode;
#[cfg(test)]
mod tests;

/// The `codebook` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codebook {
    /// Bits of an index: 1 to 8.
    bits: u8,
    form: Form,
    /// Consecutive elements that an index stands for.
    dim: u32,
    /// Type of the entries, or of the numbers that they are made of.
    table: Float,
    /// Rows and columns of the indices that share a table.
    group: [u32; 2],
}

/// Where the entries of a table come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// They are stored.
    Table,
    /// They are a bias and a number for each bit of the index, added or subtracted.
    Binary,
}

/// Sixteen entries for each block.
pub static SIXTEEN: Codebook = Codebook::new(4, Form::Table, 1, Float::F32, [MAX_GROUP, MAX_GROUP]);
/// Eight entries for each row.
pub static BY_ROW: Codebook = Codebook::new(3, Form::Table, 1, Float::F16, [1, MAX_GROUP]);
/// Vectors of three elements that divide nothing.
pub static VECTORS: Codebook = Codebook::new(5, Form::Table, 3, Float::BF16, [2, 2]);
/// Binary codes of three bits.
pub static BINARY: Codebook = Codebook::new(3, Form::Binary, 1, Float::F16, [1, 128]);

/// Bits of an index, at most.
const MAX_BITS: u8 = 8;
/// Elements of an entry, at most.
const MAX_DIM: u32 = 256;
/// Bytes of all tables of a block, at most: those of a block.
const MAX_TABLES: u64 = 1 << 24;
const FORMS: [(&str, Form); 2] = [("table", Form::Table), ("binary", Form::Binary)];

impl Codebook {
    /// Indices of `bits` bits of entries of `dim` elements, with a table for each `group` of rows and columns of indices.
    ///
    /// # Panics
    /// If the indices have not 1 to 8 bits, the entries not 1 to 256 elements, or more than one in binary
    /// form, the groups not 1 to 2²⁴ rows and columns, or the table is `F8_E8M0`.
    #[must_use]
    pub const fn new(bits: u8, form: Form, dim: u32, table: Float, group: [u32; 2]) -> Self {
        assert!(bits >= 1 && bits <= MAX_BITS, "an index has 1 to 8 bits");
        assert!(dim >= 1 && dim <= MAX_DIM, "an entry has 1 to 256 elements");
        assert!(dim == 1 || matches!(form, Form::Table), "binary codes are of single elements");
        assert!(group[0] >= 1 && group[0] <= MAX_GROUP, "a group has 1 to 2^24 rows");
        assert!(group[1] >= 1 && group[1] <= MAX_GROUP, "a group has 1 to 2^24 columns");
        assert!(!matches!(table, Float::E8M0), "entries have a mantissa");
        Self { bits, form, dim, table, group }
    }

    /// Entries of a table.
    const fn len(self) -> usize {
        1 << self.bits
    }

    /// The shape of an array; `None` if this is no array of elements that entries can be.
    fn shape(self, array: Array) -> Option<Shape> {
        let element = Float::of_value(array.element)?;
        if !array.byte_len.is_multiple_of(element.len()) {
            return None;
        }
        let (elements, dim) = (array.byte_len / element.len(), self.dim as usize);
        let row = array.row.min(elements).max(1);
        let vectors_row = row.div_ceil(dim);
        let vectors = elements / row * vectors_row + (elements % row).div_ceil(dim);
        let grid = Grid::new(self.group, vectors, vectors_row);
        Some(Shape { element, elements, row, dim, vectors, vectors_row, grid })
    }
}

/// An array as vectors, of which those on the right may be shorter.
#[derive(Clone, Copy, Debug)]
struct Shape {
    element: Float,
    elements: usize,
    row: usize,
    dim: usize,
    vectors: usize,
    /// Vectors of a row.
    vectors_row: usize,
    grid: Grid,
}

impl Shape {
    /// The elements of a vector.
    fn vector(&self, i: usize) -> std::ops::Range<usize> {
        let (row, column) = (i / self.vectors_row, i % self.vectors_row * self.dim);
        let start = row * self.row + column;
        start..(start + self.dim.min(self.row - column)).min(self.elements)
    }
}

impl Encoding for Codebook {
    fn name(&self) -> &'static str {
        "codebook"
    }

    fn params(&self) -> Map<String, Value> {
        entries([
            ("bits", self.bits.into()),
            ("form", name_of(&FORMS, &self.form)),
            ("dim", self.dim.into()),
            ("table", name_of(&VALUES, &self.table)),
            ("group", self.group.to_vec().into()),
        ])
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["bits", "form", "dim", "table", "group"], params)?;
        let form = params.one_of("form", &FORMS)?;
        Ok(Some(Box::new(Self {
            bits: params.integer("bits", 1..=MAX_BITS.into())? as u8,
            form,
            dim: params.integer("dim", 1..=if form == Form::Table { MAX_DIM } else { 1 })?,
            table: params.one_of("table", &VALUES)?,
            group: params.group()?,
        })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let shape = self.shape(array)?;
        let indices = Array::of_symbols(Width::new(self.bits), shape.vectors).in_rows(shape.vectors_row);
        let numbers = |row: usize| {
            let byte_len = (shape.grid.count() as u64).checked_mul((row * self.table.len()) as u64)?;
            let dtype = Element::Dtype(self.table.dtype());
            (byte_len <= MAX_TABLES).then(|| Array::new(dtype, byte_len as usize, row))
        };
        let components: Components = match self.form {
            Form::Table => {
                [("indices", indices), ("table", numbers(self.len() * shape.dim)?)].into_iter().map(component).collect()
            }
            Form::Binary => [
                ("indices", indices),
                ("alphas", numbers(self.bits.into())?),
                ("biases", shape.grid.floats(self.table)),
            ]
            .into_iter()
            .map(component)
            .collect(),
        };
        Some(components)
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let shape = self.shape(array).expect("components() has a rule for this array");
        encode::split(*self, &shape, data, components);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let shape = self.shape(array).ok_or(StreamError::Length)?;
        with_number!(shape.element, T => decode::join::<T>(*self, &shape, components, data));
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let shape = self.shape(array)?;
        Some(DeviceNode::Codebook(DeviceCodebook {
            element: shape.element.on_device(),
            table: self.table.on_device(),
            bits: self.bits,
            binary: self.form == Form::Binary,
            dim: self.dim,
            row: u32::try_from(shape.row).ok()?,
            vectors: u32::try_from(shape.vectors).ok()?,
            groups: shape.grid.on_device()?,
        }))
    }
}

fn component((name, array): (&'static str, Array)) -> Component {
    Component { name, array }
}
