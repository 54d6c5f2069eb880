//! `block_scale`: values times the scale of their group. See `SPEC.md` in this folder.

use cmz_format::Result;
use serde_json::{Map, Value};

use super::groups::{Columns, Grid, MAX_GROUP, TILE};
pub use super::number::Float;
use super::number::{Bf16, F16, F32, Number, VALUES, with_number};
use super::params::{Params, entries, name_of};
use super::versions::{Version, versioned};
use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceBlockScale, DeviceNode};
use crate::prefetch;
use crate::stream::StreamError;

#[cfg(test)]
mod tests;

/// The `block_scale` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockScale {
    values: Float,
    scale: Float,
    /// Rows and columns of the values that share a scale.
    group: [u32; 2],
    sense: Sense,
}

/// What is done with a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// Values are multiplied by it.
    Multiply,
    /// Values are divided by it.
    Divide,
}

/// Eight-bit floats in squares of 128.
pub static FP8: BlockScale = BlockScale::new(Float::E4M3, Float::F32, [128, 128], Sense::Multiply);
/// The scheme of the Open Compute Project's MX formats.
pub static MX: BlockScale = BlockScale::new(Float::F16, Float::E8M0, [1, 32], Sense::Multiply);
/// A divisor for each block.
pub static DIVISOR: BlockScale = BlockScale::new(Float::E4M3, Float::F32, [MAX_GROUP, MAX_GROUP], Sense::Divide);
/// Rectangles that divide nothing.
pub static RECTANGLE: BlockScale = BlockScale::new(Float::E5M2, Float::BF16, [2, 3], Sense::Multiply);

const SCALES: [(&str, Float); 5] = [
    ("F8_E8M0", Float::E8M0),
    ("F8_E4M3", Float::E4M3),
    ("F16", Float::F16),
    ("BF16", Float::BF16),
    ("F32", Float::F32),
];
const SENSES: [(&str, Sense); 2] = [("multiply", Sense::Multiply), ("divide", Sense::Divide)];

impl BlockScale {
    /// Values of one type with scales of another, one for each `group` of rows and columns.
    ///
    /// # Panics
    /// If the groups have not 1 to 2²⁴ rows and columns, the values are `F8_E8M0`, or the scales `F8_E5M2`.
    #[must_use]
    pub const fn new(values: Float, scale: Float, group: [u32; 2], sense: Sense) -> Self {
        assert!(group[0] >= 1 && group[0] <= MAX_GROUP, "a group has 1 to 2^24 rows");
        assert!(group[1] >= 1 && group[1] <= MAX_GROUP, "a group has 1 to 2^24 columns");
        assert!(!matches!(values, Float::E8M0), "values have a mantissa");
        assert!(!matches!(scale, Float::E5M2), "scales are F8_E8M0, F8_E4M3, F16, BF16 or F32");
        Self { values, scale, group, sense }
    }

    /// The elements' type and groups; `None` if this is no array of them.
    fn grid(self, array: Array) -> Option<(Float, Grid)> {
        let element = Float::of(array.element)?;
        let grid = || Grid::new(self.group, array.byte_len / element.len(), array.row);
        array.byte_len.is_multiple_of(element.len()).then(|| (element, grid()))
    }
}

impl Encoding for BlockScale {
    fn name(&self) -> &'static str {
        "block_scale"
    }

    fn params(&self) -> Map<String, Value> {
        entries([
            ("values", name_of(&VALUES, &self.values)),
            ("scale", name_of(&SCALES, &self.scale)),
            ("group", self.group.to_vec().into()),
            ("sense", name_of(&SENSES, &self.sense)),
        ])
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["values", "scale", "group", "sense"], params)?;
        Ok(Some(Box::new(Self {
            values: params.one_of("values", &VALUES)?,
            scale: params.one_of("scale", &SCALES)?,
            group: params.group()?,
            sense: params.one_of("sense", &SENSES)?,
        })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (element, grid) = self.grid(array)?;
        let len = array.byte_len / element.len() * self.values.len();
        let values = Array::new(Element::Dtype(self.values.dtype()), len, array.row);
        let components = [("values", values), ("scales", grid.floats(self.scale))];
        Some(components.map(|(name, array)| Component { name, array }).into_iter().collect())
    }

    /// The group's greatest magnitude becomes the greatest value, or 1 for values of more than eight bits.
    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let (element, grid) = self.grid(array).expect("components() has a rule for this array");
        let [values, scales] = components else { unreachable!("components() has two") };
        let most = match self.values {
            Float::E4M3 => 448.0,
            Float::E5M2 => 57_344.0,
            _ => 1.0,
        };
        for i in 0..grid.count() {
            let elements = grid.members(i).flatten();
            let greatest = elements.clone().map(|i| element.get(data, i).abs()).fold(0.0, f32::max);
            let greatest = f64::from(greatest);
            let scale = match self.sense {
                Sense::Multiply => greatest / most,
                Sense::Divide => most / greatest,
            };
            let scale = self.scale.set(scales, i, scale);
            for i in elements {
                let x = element.get(data, i);
                let value = match self.sense {
                    Sense::Multiply if scale == 0.0 => 0.0,
                    Sense::Multiply => x / scale,
                    Sense::Divide => x * scale,
                };
                self.values.set(values, i, value.into());
            }
        }
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (element, grid) = self.grid(array).ok_or(StreamError::Length)?;
        join(Version::best(), *self, grid, element, components, data);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let (element, grid) = self.grid(array)?;
        Some(DeviceNode::BlockScale(DeviceBlockScale {
            element: element.on_device(),
            values: self.values.on_device(),
            scale: self.scale.on_device(),
            divide: self.sense == Sense::Divide,
            groups: grid.on_device()?,
        }))
    }
}

versioned! {
    /// Puts elements together.
    join(scheme: BlockScale, grid: Grid, element: Float, components: &[&[u8]], data: &mut [u8]) is join_loops
}

#[inline(always)]
fn join_loops(scheme: BlockScale, grid: Grid, element: Float, components: &[&[u8]], data: &mut [u8]) {
    match element {
        Float::F16 => join_as::<F16>(scheme, grid, components, data),
        Float::BF16 => join_as::<Bf16>(scheme, grid, components, data),
        _ => join_as::<F32>(scheme, grid, components, data),
    }
}

#[inline(always)]
fn join_as<T: Number>(scheme: BlockScale, grid: Grid, components: &[&[u8]], data: &mut [u8]) {
    let elements = T::of_mut(data);
    let (mut values, mut scales): (Columns, Columns) = ([0.0; TILE], [0.0; TILE]);
    for tile in grid.tiles() {
        grid.spread_floats(&tile, scheme.scale, components[1], &mut scales);
        for run in grid.runs(&tile) {
            prefetch::write_behind(&elements[run.clone()]);
            with_number!(scheme.values, V => widen(&V::of(components[0])[run.clone()], V::to_f32, &mut values));
            let elements = elements[run].iter_mut().zip(values.iter().zip(&scales));
            match scheme.sense {
                Sense::Multiply => elements.for_each(|(x, (&value, &scale))| *x = T::from_f32(value * scale)),
                Sense::Divide => elements.for_each(|(x, (&value, &scale))| *x = T::from_f32(value / scale)),
            }
        }
    }
}

#[inline(always)]
fn widen<B: Copy>(values: &[B], to_f32: impl Fn(B) -> f32, out: &mut Columns) {
    out.iter_mut().zip(values).for_each(|(x, &value)| *x = to_f32(value));
}
