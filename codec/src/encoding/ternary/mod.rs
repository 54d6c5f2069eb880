//! `ternary`: weights that are 0 or one of two numbers of their group. See `SPEC.md` in this folder.

use cmz_format::Dtype;
use half::{bf16, f16};
use serde_json::{Map, Value};

use self::groups::Groups;
use super::groups::MAX_GROUP;
use super::params::Params;
use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceFloat, DeviceGroups, DeviceNode, DeviceTernary};
use crate::stream::{StreamError, Width};

mod decode;
mod encode;
mod groups;
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

/// A type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Float {
    F16,
    BF16,
    F32,
}

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

    fn groups(self, array: Array) -> Option<Groups> {
        let len = Float::of(array.element)?.len();
        array.byte_len.is_multiple_of(len).then(|| Groups::new(array.byte_len / len, array.row, self.group))
    }
}

impl Encoding for Ternary {
    fn name(&self) -> &'static str {
        "ternary"
    }

    fn params(&self) -> Map<String, Value> {
        [("group".to_owned(), self.group.to_vec().into())].into_iter().collect()
    }

    fn with_params(&self, params: &Map<String, Value>) -> cmz_format::Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["group"], params)?;
        Ok(Some(Box::new(Self { group: params.group()? })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let groups = self.groups(array)?.count();
        let elements = array.byte_len / Float::of(array.element)?.len();
        let numbers = Array::vector(Element::Dtype(Dtype::BF16), groups * 2);
        let symbols = Array::of_symbols(Width::new(2), elements);
        let components = [("symbols", symbols), ("minima", numbers), ("maxima", numbers)];
        Some(components.map(|(name, array)| Component { name, array }).into_iter().collect())
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let float = Float::of(array.element).expect("components() has a rule for this array");
        let groups = self.groups(array).expect("components() has a rule for this array");
        let [symbols, minima, maxima] = components else { unreachable!("components() gave this array three") };
        encode::split(float, groups, data, symbols, [minima, maxima]);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let float = Float::of(array.element).expect("components() has a rule for this array");
        let groups = self.groups(array).expect("components() has a rule for this array");
        let [symbols, minima, maxima] = *components else { unreachable!("components() gave this array three") };
        decode::join(float, groups, symbols, [minima, maxima], data)
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let element = Float::of(array.element)?;
        let elements = (array.byte_len / element.len()).max(1);
        let groups = DeviceGroups {
            row: u32::try_from(array.row.min(elements)).ok()?,
            rows: self.group[0],
            columns: self.group[1],
        };
        let element = match element {
            Float::F16 => DeviceFloat::F16,
            Float::BF16 => DeviceFloat::Bf16,
            Float::F32 => DeviceFloat::F32,
        };
        Some(DeviceNode::Ternary(DeviceTernary { element, groups }))
    }
}

impl Float {
    fn of(element: Element) -> Option<Self> {
        match element {
            Element::Dtype(Dtype::F16) => Some(Self::F16),
            Element::Dtype(Dtype::BF16) => Some(Self::BF16),
            Element::Dtype(Dtype::F32) => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes of a number.
    const fn len(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
        }
    }

    /// Element `i` of `data`.
    fn get(self, data: &[u8], i: usize) -> f32 {
        match self {
            Self::F16 => f16::from_le_bytes(data.as_chunks().0[i]).to_f32(),
            Self::BF16 => bf16::from_le_bytes(data.as_chunks().0[i]).to_f32(),
            Self::F32 => f32::from_le_bytes(data.as_chunks().0[i]),
        }
    }
}
