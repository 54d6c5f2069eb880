//! `ternary`: weights that are 0 or one of two numbers of their group. See `SPEC.md` in this folder.

use cmz_format::Result;
use serde_json::{Map, Value};

use super::groups::{Grid, MAX_GROUP};
use super::number::Float;
use super::params::{Params, entries};
use super::versions::Version;
use super::{Array, Component, Components, Encoding};
use crate::device::{DeviceNode, DeviceTernary};
use crate::stream::{StreamError, Width};

mod decode;
mod encode;
#[cfg(test)]
mod tests;

/// The `ternary` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ternary {
    /// Rows and columns of a group.
    group: [u32; 2],
}

/// Each row is a group.
pub static BY_ROW: Ternary = Ternary::new(1, MAX_GROUP);
/// Groups of three rows and 16 columns.
pub static GROUPED: Ternary = Ternary::new(3, 16);

impl Ternary {
    /// In groups of `rows` rows and `columns` columns. A group has no more columns than the row it is in.
    ///
    /// # Panics
    /// If one of them is not 1 to 2²⁴.
    #[must_use]
    pub const fn new(rows: u32, columns: u32) -> Self {
        assert!(rows >= 1 && rows <= MAX_GROUP, "a group has 1 to 2^24 rows");
        assert!(columns >= 1 && columns <= MAX_GROUP, "a group has 1 to 2^24 columns");
        Self { group: [rows, columns] }
    }

    /// The elements' type and groups; `None` if this is no array of them.
    fn grid(self, array: Array) -> Option<(Float, Grid)> {
        let element = Float::of(array.element)?;
        let grid = || Grid::new(self.group, array.byte_len / element.len(), array.row);
        array.byte_len.is_multiple_of(element.len()).then(|| (element, grid()))
    }
}

impl Encoding for Ternary {
    fn name(&self) -> &'static str {
        "ternary"
    }

    fn params(&self) -> Map<String, Value> {
        entries([("group", self.group.to_vec().into())])
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["group"], params)?;
        Ok(Some(Box::new(Self { group: params.group()? })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (element, grid) = self.grid(array)?;
        let symbols = Array::of_symbols(Width::new(2), array.byte_len / element.len()).in_rows(array.row);
        let numbers = grid.floats(Float::BF16);
        let components = [("symbols", symbols), ("minima", numbers), ("maxima", numbers)];
        Some(components.map(|(name, array)| Component { name, array }).into_iter().collect())
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let (element, grid) = self.grid(array).expect("components() has a rule for this array");
        let [symbols, minima, maxima] = components else { unreachable!("components() gave this array three") };
        encode::split(element, grid, data, symbols, [minima, maxima]);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (element, grid) = self.grid(array).ok_or(StreamError::Length)?;
        let [symbols, minima, maxima] = *components else { unreachable!("components() gave this array three") };
        let mut threes = 0;
        decode::join(Version::best(), element, grid, symbols, [minima, maxima], data, &mut threes);
        if threes == 0 { Ok(()) } else { Err(StreamError::Invalid("a symbol that is not ternary")) }
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let (element, grid) = self.grid(array)?;
        Some(DeviceNode::Ternary(DeviceTernary { element: element.on_device(), groups: grid.on_device()? }))
    }
}
