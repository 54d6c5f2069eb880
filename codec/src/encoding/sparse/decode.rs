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
    let elements = T::of_mut(data);
    let mut values = values.iter();
    let mut next = || values.next().copied().ok_or(StreamError::Length);
    match mode {
        Mode::Replace | Mode::Fill => places.for_each(index, |i| {
            elements[i] = T::from_f32(next()?);
            Ok(())
        })?,
        Mode::Add(Arithmetic::F32) => places.for_each(index, |i| {
            elements[i] = T::from_f32(T::to_f32(elements[i]) + next()?);
            Ok(())
        })?,
        Mode::Add(Arithmetic::F16) => places.for_each(index, |i| {
            let (base, value) = (round_to_half(T::to_f32(elements[i])), round_to_half(next()?));
            elements[i] = T::from_f32(round_to_half(base + value));
            Ok(())
        })?,
    }
    if values.len() == 0 { Ok(()) } else { Err(StreamError::Length) }
}
