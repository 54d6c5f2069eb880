//! Values to their places.

use super::{Arithmetic, Mode, Places};
use crate::encoding::number::{Float, Number, round_to_half, with_number};
use crate::encoding::versions::{Version, versioned};
use crate::stream::StreamError;

versioned! {
    /// Values of a type as single-precision numbers.
    widen(float: Float, values: &[u8], out: &mut [f32]) is widen_loops
}

versioned! {
    /// Numbers rounded to a type.
    narrow(float: Float, numbers: &[f32], out: &mut [u8]) is narrow_loops
}

#[inline(always)]
fn widen_loops(float: Float, values: &[u8], out: &mut [f32]) {
    with_number!(float, V => out.iter_mut().zip(V::of(values)).for_each(|(x, &value)| *x = V::to_f32(value)));
}

#[inline(always)]
fn narrow_loops(float: Float, numbers: &[f32], out: &mut [u8]) {
    with_number!(float, T => T::of_mut(out).iter_mut().zip(numbers).for_each(|(x, &number)| *x = T::from_f32(number)));
}

/// Changes `data`, which is the base, or anything in mode `fill`.
pub(super) fn join<T: Number>(
    mode: Mode,
    element: Float,
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
            let mut rounded = vec![0; values.len() * element.len()];
            narrow(Version::best(), element, values, &mut rounded);
            let values = T::of(&rounded);
            if mode == Mode::Fill {
                if let Some(filled) = places.fill(index[0], values, elements) {
                    return filled;
                }
                elements.fill(T::Bytes::default());
            }
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
