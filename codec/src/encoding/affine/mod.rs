//! `affine`: small integers times the scale of their group. See `SPEC.md` in this folder.

use cmz_format::Result;
use serde_json::{Map, Value};

use super::groups::{Grid, MAX_GROUP};
use super::number::{ARITHMETICS, ELEMENTS};
pub use super::number::{Arithmetic, Float};
use super::params::{Params, entries, name_of};
use super::versions::Version;
use super::{Array, Component, Components, Encoding};
use crate::device::DeviceNode;
use crate::stream::{StreamError, Width};

mod decode;
mod device;
mod encode;
#[cfg(test)]
mod tests;

/// The `affine` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Bits of a code: 1 to 8.
    bits: u8,
    form: Form,
    /// Rows and columns of the elements that share a scale.
    group: [u32; 2],
    /// Type of scales, zeros and biases.
    scale: Float,
    arithmetic: Arithmetic,
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A signed integer, times the scale.
    Symmetric,
    /// Its distance from the group's zero point, an integer, times the scale.
    ZeroPoint,
    /// Its distance from the group's zero, a number of the scale's type, times the scale.
    Zero,
    /// Itself times the scale, plus the group's bias.
    Bias,
}

/// Codes of four bits in groups of 128, symmetric.
pub static SYMMETRIC: Affine = Affine::new(4, Form::Symmetric, [1, 128], Float::F16, Arithmetic::F32);
/// Codes of eight bits in groups of 96 with a zero point.
pub static ZERO_POINT: Affine = Affine::new(8, Form::ZeroPoint, [1, 96], Float::F32, Arithmetic::F32);
/// Codes of three bits in groups of 16 with a bias.
pub static BIAS: Affine = Affine::new(3, Form::Bias, [1, 16], Float::BF16, Arithmetic::F32);
/// Codes of three bits in groups of 16 with a zero, in half precision: the first level of SpQR.
pub static ZERO: Affine = Affine::new(3, Form::Zero, [1, 16], Float::F16, Arithmetic::F16);
/// Codes of five bits in groups of two rows and three columns with a zero point, in half precision.
pub static RECTANGLE: Affine = Affine::new(5, Form::ZeroPoint, [2, 3], Float::BF16, Arithmetic::F16);

/// Bits of a code, at most.
const MAX_BITS: u8 = 8;
const FORMS: [(&str, Form); 4] =
    [("symmetric", Form::Symmetric), ("zero_point", Form::ZeroPoint), ("zero", Form::Zero), ("bias", Form::Bias)];

impl Affine {
    /// Codes of `bits` bits, in groups of `group` rows and columns, with scales of type `scale`.
    ///
    /// # Panics
    /// If the codes have not 1 to 8 bits, the groups not 1 to 2²⁴ rows and columns, or the scales another
    /// type than `F16`, `BF16` or `F32`.
    #[must_use]
    pub const fn new(bits: u8, form: Form, group: [u32; 2], scale: Float, arithmetic: Arithmetic) -> Self {
        assert!(bits >= 1 && bits <= MAX_BITS, "a code has 1 to 8 bits");
        assert!(group[0] >= 1 && group[0] <= MAX_GROUP, "a group has 1 to 2^24 rows");
        assert!(group[1] >= 1 && group[1] <= MAX_GROUP, "a group has 1 to 2^24 columns");
        assert!(matches!(scale, Float::F16 | Float::BF16 | Float::F32), "scales are F16, BF16 or F32");
        Self { bits, form, group, scale, arithmetic }
    }

    /// The greatest code.
    const fn max_code(self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }

    /// The code of the number 0, if it is the same in every group.
    const fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The elements' type and groups; `None` if this is no array of them.
    fn grid(self, array: Array) -> Option<(Float, Grid)> {
        let element = Float::of(array.element)?;
        let grid = || Grid::new(self.group, array.byte_len / element.len(), array.row);
        array.byte_len.is_multiple_of(element.len()).then(|| (element, grid()))
    }
}

impl Encoding for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn params(&self) -> Map<String, Value> {
        entries([
            ("bits", self.bits.into()),
            ("form", name_of(&FORMS, &self.form)),
            ("group", self.group.to_vec().into()),
            ("scale", name_of(&ELEMENTS, &self.scale)),
            ("arithmetic", name_of(&ARITHMETICS, &self.arithmetic)),
        ])
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["bits", "form", "group", "scale", "arithmetic"], params)?;
        Ok(Some(Box::new(Self {
            bits: params.integer("bits", 1..=MAX_BITS.into())? as u8,
            form: params.one_of("form", &FORMS)?,
            group: params.group()?,
            scale: params.one_of("scale", &ELEMENTS)?,
            arithmetic: params.one_of("arithmetic", &ARITHMETICS)?,
        })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (element, grid) = self.grid(array)?;
        let width = Width::new(self.bits);
        let codes = Array::of_symbols(width, array.byte_len / element.len()).in_rows(array.row);
        let mut components: Components = [("codes", codes), ("scales", grid.floats(self.scale))]
            .map(|(name, array)| Component { name, array })
            .into_iter()
            .collect();
        let third = match self.form {
            Form::Symmetric => None,
            Form::ZeroPoint => Some(("zero_points", grid.symbols(width))),
            Form::Zero => Some(("zeros", grid.floats(self.scale))),
            Form::Bias => Some(("biases", grid.floats(self.scale))),
        };
        components.extend(third.map(|(name, array)| Component { name, array }));
        Some(components)
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let (element, grid) = self.grid(array).expect("components() has a rule for this array");
        encode::split(*self, grid, element, data, components);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (element, grid) = self.grid(array).ok_or(StreamError::Length)?;
        decode::join(Version::best(), *self, grid, element, components, data);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        self.node(array)
    }
}
