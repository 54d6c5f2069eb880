//! `affine`: small integers times the scale of their group. See `SPEC.md` in this folder.

use cmz_format::{Dtype, Result};
use serde_json::{Map, Value};

use super::params::Params;
use super::{Array, Component, Components, Element, Encoding};
use crate::device::DeviceNode;
use crate::stream::{StreamError, Width};

mod decode;
mod device;
mod encode;
mod float;
#[cfg(test)]
mod tests;

/// The `affine` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// Bits of a code: 1 to 8.
    bits: u8,
    /// Consecutive elements that share a scale: at least 1.
    group: u32,
    form: Form,
    /// Type of scales and biases.
    scale: Float,
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A signed integer, times the scale.
    Symmetric,
    /// Its distance from the group's zero point, times the scale.
    ZeroPoint,
    /// Itself times the scale, plus the group's bias.
    Bias,
}

/// A type of floating-point numbers that fits single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// IEEE half precision.
    F16,
    /// Brain float.
    BF16,
    /// IEEE single precision.
    F32,
}

/// Codes of four bits in groups of 128, symmetric.
pub static SYMMETRIC: Affine = Affine::new(4, 128, Form::Symmetric, Float::F16);
/// Codes of eight bits in groups of 96 with a zero point.
pub static ZERO_POINT: Affine = Affine::new(8, 96, Form::ZeroPoint, Float::F32);
/// Codes of three bits in groups of 16 with a bias.
pub static BIAS: Affine = Affine::new(3, 16, Form::Bias, Float::BF16);

/// Bits of a code, at most.
const MAX_BITS: u8 = 8;
/// Elements of a group, at most.
const MAX_GROUP: u32 = 1 << 24;
const FORMS: [(&str, Form); 3] =
    [("symmetric", Form::Symmetric), ("zero_point", Form::ZeroPoint), ("bias", Form::Bias)];
const SCALES: [(&str, Float); 3] = [("F16", Float::F16), ("BF16", Float::BF16), ("F32", Float::F32)];

impl Affine {
    /// Codes of `bits` bits, in groups of `group` elements.
    ///
    /// # Panics
    /// If the codes have not 1 to 8 bits, or the groups not 1 to 2²⁴ elements.
    #[must_use]
    pub const fn new(bits: u8, group: u32, form: Form, scale: Float) -> Self {
        assert!(bits >= 1 && bits <= MAX_BITS, "a code has 1 to 8 bits");
        assert!(group >= 1 && group <= MAX_GROUP, "a group has 1 to 2^24 elements");
        Self { bits, group, form, scale }
    }

    /// The greatest code.
    const fn max_code(self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }

    /// The code of the number 0, if it is the same in every group.
    const fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }
}

impl Encoding for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn params(&self) -> Map<String, Value> {
        let form = FORMS.iter().find(|(_, form)| *form == self.form).map_or("", |(name, _)| name);
        let entries: [(&str, Value); 4] = [
            ("bits", self.bits.into()),
            ("form", form.into()),
            ("group", self.group.into()),
            ("scale", self.scale.dtype().name().into()),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["bits", "form", "group", "scale"], params)?;
        Ok(Some(Box::new(Self {
            bits: params.integer("bits", 1..=MAX_BITS.into())? as u8,
            group: params.integer("group", 1..=MAX_GROUP)?,
            form: params.one_of("form", &FORMS)?,
            scale: params.one_of("scale", &SCALES)?,
        })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let element_len = Float::of(array.element)?.len();
        if !array.byte_len.is_multiple_of(element_len) {
            return None;
        }
        let elements = array.byte_len / element_len;
        let groups = elements.div_ceil(self.group as usize);
        let codes = Array::of_symbols(Width::new(self.bits), elements);
        let floats = Array::vector(Element::Dtype(self.scale.dtype()), groups * self.scale.len());
        let mut components: Components =
            [("codes", codes), ("scales", floats)].map(|(name, array)| Component { name, array }).into_iter().collect();
        match self.form {
            Form::Symmetric => {}
            Form::ZeroPoint => {
                let array = Array::of_symbols(Width::new(self.bits), groups);
                components.push(Component { name: "zero_points", array });
            }
            Form::Bias => components.push(Component { name: "biases", array: floats }),
        }
        Some(components)
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let element = Float::of(array.element).expect("components() has a rule for this array");
        encode::split(*self, element, data, components);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let element = Float::of(array.element).expect("components() has a rule for this array");
        decode::join(*self, element, components, data);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        self.node(array)
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

    const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }

    /// Bytes of a number.
    const fn len(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
        }
    }
}
