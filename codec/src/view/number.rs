//! Numbers in parts to single precision, and single precision to the elements of a view: the conversions of [`crate::encoding::number`], and
//! what only views need.

use cmz_format::Dtype;

pub(super) use crate::encoding::number::{Float, round_to_half};
use crate::encoding::number::{Number as _, with_number};

/// A type of numbers, each of which single precision holds exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Float(Float),
    I8,
}

impl Number {
    pub(super) const F32: Self = Self::Float(Float::F32);
    pub(super) const E4M3: Self = Self::Float(Float::E4M3);
    pub(super) const E8M0: Self = Self::Float(Float::E8M0);

    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::I8 => Some(Self::I8),
            dtype => Float::ALL.into_iter().find(|float| float.dtype() == dtype).map(Self::Float),
        }
    }

    /// Number `i` of an array.
    pub(super) fn get(self, array: &[u8], i: usize) -> f32 {
        match self {
            Self::Float(float) => float.get(array, i),
            Self::I8 => f32::from(array[i].cast_signed()),
        }
    }

    /// All numbers of an array.
    pub(super) fn all(self, array: &[u8]) -> Vec<f32> {
        let len = match self {
            Self::Float(float) => float.len(),
            Self::I8 => 1,
        };
        (0..array.len() / len).map(|i| self.get(array, i)).collect()
    }

    /// The number that each byte is, of a type of one byte.
    pub(super) fn of_bytes(self) -> Vec<f32> {
        self.all(&(0..=u8::MAX).collect::<Vec<_>>())
    }
}

/// The numbers of E2M1, by their codes.
pub(super) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The type of a view's elements, which is `F16`, `BF16` or `F32`.
pub(super) fn element(dtype: Dtype) -> Option<Float> {
    Float::of(crate::encoding::Element::Dtype(dtype))
}

/// Rounds values to elements. What is not a number has one pattern.
pub(super) fn round(float: Float, values: &[f32], out: &mut [u8]) {
    with_number!(float, T => {
        T::of_mut(out).iter_mut().zip(values).for_each(|(element, &x)| *element = T::from_f32(x));
    });
}

/// What rounding a value to a type gives.
pub(super) fn rounded(float: Float, x: f32) -> f32 {
    with_number!(float, T => T::to_f32(T::from_f32(x)))
}
