//! Values to their places.

use super::{Arithmetic, Mode, Places};
use crate::encoding::number::{Number, round_to_half};
use crate::stream::StreamError;

/// The numbers of an array.
pub(super) fn numbers<V: Number>(array: &[u8]) -> Vec<f32> {
    V::of(array).iter().map(|&bytes| V::to_f32(bytes)).collect()
}

/// Changes `data`, which is the base, or zeros.
pub(super) fn join<T: Number>(
    mode: Mode,
    places: &Places,
    index: &[&[u8]],
    values: &[f32],
    data: &mut [u8],
) -> Result<(), StreamError> {
    if places.count(index[0])? != values.len() {
        return Err(StreamError::Length);
    }
    let elements = T::of_mut(data);
    match mode {
        Mode::Replace | Mode::Fill => {
            let values: Vec<T::Bytes> = values.iter().map(|&value| T::from_f32(value)).collect();
            let mut next = values.iter();
            places.for_each(index, |i| {
                if let Some(&value) = next.next() {
                    elements[i] = value;
                }
            })
        }
        Mode::Add(arithmetic) => {
            let mut next = values.iter();
            places.for_each(index, |i| {
                let value = next.next().copied().unwrap_or_default();
                elements[i] = T::from_f32(add(arithmetic, T::to_f32(elements[i]), value));
            })
        }
    }
}

#[inline(always)]
fn add(arithmetic: Arithmetic, base: f32, value: f32) -> f32 {
    match arithmetic {
        Arithmetic::F32 => base + value,
        Arithmetic::F16 => round_to_half(round_to_half(base) + round_to_half(value)),
    }
}
