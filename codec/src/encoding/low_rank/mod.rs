//! `low_rank`: a product of two thin matrices on top of another array. See `SPEC.md` in this folder.

use cmz_format::Result;
use serde_json::{Map, Value};

use super::groups::{Columns, TILE};
pub use super::number::Float;
use super::number::{Bf16, ELEMENTS, F16, F32, Number, with_number};
use super::params::{Params, entries, name_of};
use super::versions::{Version, versioned};
use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceLowRank, DeviceNode};
use crate::stream::StreamError;

#[cfg(test)]
mod tests;

/// The `low_rank` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowRank {
    /// Columns of the left factor and rows of the right one.
    rank: u32,
    factors: Float,
}

/// Sixteen columns of half precision.
pub static SIXTEEN: LowRank = LowRank::new(16, Float::F16);
/// One column.
pub static ONE: LowRank = LowRank::new(1, Float::F32);

const MAX_RANK: u32 = 1024;
/// Bytes of a factor, at most: those of a block.
const MAX_FACTOR: usize = 1 << 24;

impl LowRank {
    /// Factors of a rank and a type.
    ///
    /// # Panics
    /// If the rank is not 1 to 1024, or the type not `F16`, `BF16` or `F32`.
    #[must_use]
    pub const fn new(rank: u32, factors: Float) -> Self {
        assert!(rank >= 1 && rank <= MAX_RANK, "a rank is 1 to 1024");
        assert!(matches!(factors, Float::F16 | Float::BF16 | Float::F32), "factors are F16, BF16 or F32");
        Self { rank, factors }
    }

    /// The elements' type, their number and that of a row; `None` if this is no array of them.
    fn shape(array: Array) -> Option<(Float, usize, usize)> {
        let element = Float::of(array.element)?;
        let elements = array.byte_len / element.len();
        array.byte_len.is_multiple_of(element.len()).then(|| (element, elements, array.row.min(elements)))
    }

    /// A factor of `len` times the rank.
    fn factor(self, len: usize, row: usize) -> Option<Array> {
        let byte_len = len.checked_mul(self.rank as usize * self.factors.len())?;
        (byte_len <= MAX_FACTOR).then(|| Array::new(Element::Dtype(self.factors.dtype()), byte_len, row))
    }
}

impl Encoding for LowRank {
    fn name(&self) -> &'static str {
        "low_rank"
    }

    fn params(&self) -> Map<String, Value> {
        entries([("rank", self.rank.into()), ("factors", name_of(&ELEMENTS, &self.factors))])
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["rank", "factors"], params)?;
        Ok(Some(Box::new(Self {
            rank: params.integer("rank", 1..=MAX_RANK)?,
            factors: params.one_of("factors", &ELEMENTS)?,
        })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (_, elements, row) = Self::shape(array)?;
        let left = self.factor(elements.div_ceil(row.max(1)), self.rank as usize)?;
        let all = [("base", array), ("left", left), ("right", self.factor(row, row)?)];
        Some(all.map(|(name, array)| Component { name, array }).into_iter().collect())
    }

    /// Everything is in the base.
    fn split(&self, _: Array, data: &[u8], components: &mut [&mut [u8]]) {
        components[0].copy_from_slice(data);
        components[1..].iter_mut().for_each(|factor| factor.fill(0));
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (element, _, row) = Self::shape(array).ok_or(StreamError::Length)?;
        let [left, right] = [1, 2].map(|i| with_number!(self.factors, V => numbers::<V>(components[i])));
        join(Version::best(), row, element, components[0], &Factors { rank: self.rank as usize, left, right }, data);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let (element, _, row) = Self::shape(array)?;
        let (element, factors) = (element.on_device(), self.factors.on_device());
        Some(DeviceNode::LowRank(DeviceLowRank { element, factors, rank: self.rank, row: row as u32 }))
    }
}

fn numbers<V: Number>(array: &[u8]) -> Vec<f32> {
    V::of(array).iter().map(|&bytes| V::to_f32(bytes)).collect()
}

/// Two matrices in single precision.
pub(super) struct Factors {
    rank: usize,
    left: Vec<f32>,
    right: Vec<f32>,
}

versioned! {
    /// Adds the product to the base.
    join(row: usize, element: Float, base: &[u8], factors: &Factors, data: &mut [u8]) is join_loops
}

#[inline(always)]
fn join_loops(row: usize, element: Float, base: &[u8], factors: &Factors, data: &mut [u8]) {
    match element {
        Float::F16 => join_as::<F16>(row, base, factors, data),
        Float::BF16 => join_as::<Bf16>(row, base, factors, data),
        _ => join_as::<F32>(row, base, factors, data),
    }
}

#[inline(always)]
fn join_as<T: Number>(row: usize, base: &[u8], factors: &Factors, data: &mut [u8]) {
    if row == 0 {
        return;
    }
    let rows = T::of(base).chunks(row).zip(T::of_mut(data).chunks_mut(row)).zip(factors.left.chunks(factors.rank));
    for ((base, elements), left) in rows {
        for (tile, (base, elements)) in base.chunks(TILE).zip(elements.chunks_mut(TILE)).enumerate() {
            let mut sums: Columns = [0.0; TILE];
            sums.iter_mut().zip(base).for_each(|(sum, &x)| *sum = T::to_f32(x));
            for (&factor, right) in left.iter().zip(factors.right.chunks(row)) {
                let right = &right[tile * TILE..][..elements.len()];
                sums.iter_mut().zip(right).for_each(|(sum, &x)| *sum += factor * x);
            }
            elements.iter_mut().zip(&sums).for_each(|(x, &sum)| *x = T::from_f32(sum));
        }
    }
}
