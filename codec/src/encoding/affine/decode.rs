//! Codes to elements: the numbers of a tile's columns are spread first, so that one loop serves
//! groups of every form.

use super::{Affine, Form};
use crate::encoding::groups::{Columns, Grid, TILE};
use crate::encoding::number::{Arithmetic, Bf16, Byte, F16, F32, Float, Number, round_to_half};
use crate::encoding::versions::versioned;
use crate::prefetch;

versioned! {
    /// Puts elements together.
    join(affine: Affine, grid: Grid, element: Float, components: &[&[u8]], data: &mut [u8]) is join_loops
}

#[inline(always)]
fn join_loops(affine: Affine, grid: Grid, element: Float, components: &[&[u8]], data: &mut [u8]) {
    match element {
        Float::F16 => join_as::<F16>(affine, grid, components, data),
        Float::BF16 => join_as::<Bf16>(affine, grid, components, data),
        _ => join_as::<F32>(affine, grid, components, data),
    }
}

#[inline(always)]
fn join_as<T: Number>(affine: Affine, grid: Grid, components: &[&[u8]], data: &mut [u8]) {
    match (affine.arithmetic, affine.form) {
        (Arithmetic::F32, Form::Bias) => join_by::<T, Single, true>(affine, grid, components, data),
        (Arithmetic::F32, _) => join_by::<T, Single, false>(affine, grid, components, data),
        (Arithmetic::F16, Form::Bias) => join_by::<T, Half, true>(affine, grid, components, data),
        (Arithmetic::F16, _) => join_by::<T, Half, false>(affine, grid, components, data),
    }
}

#[inline(always)]
fn join_by<T: Number, R: Round, const BIAS: bool>(affine: Affine, grid: Grid, components: &[&[u8]], data: &mut [u8]) {
    let (codes, elements) = (components[0], T::of_mut(data));
    let mut scales: Columns = [0.0; TILE];
    let mut zeros: Columns = [f32::from(affine.middle()); TILE];
    for tile in grid.tiles() {
        grid.spread_floats(&tile, affine.scale, components[1], &mut scales);
        match affine.form {
            Form::Symmetric => {}
            Form::ZeroPoint => grid.spread::<Byte>(&tile, components[2], &mut zeros),
            Form::Zero | Form::Bias => grid.spread_floats(&tile, affine.scale, components[2], &mut zeros),
        }
        // What has half precision already stays what it is.
        if affine.scale != Float::F16 {
            scales[..tile.width()].iter_mut().for_each(|x| *x = R::round(*x));
            zeros[..tile.width()].iter_mut().for_each(|x| *x = R::round(*x));
        }
        for run in grid.runs(&tile) {
            prefetch::write_behind(&elements[run.clone()]);
            let numbers = codes[run.clone()].iter().zip(scales.iter().zip(&zeros));
            for (element, (&code, (&scale, &zero))) in elements[run].iter_mut().zip(numbers) {
                *element = T::from_f32(value::<R, BIAS>(code.into(), scale, zero));
            }
        }
    }
}

/// What a code stands for; every integer that occurs is one of half precision, too.
#[inline(always)]
fn value<R: Round, const BIAS: bool>(code: f32, scale: f32, zero: f32) -> f32 {
    if BIAS { R::round(R::round(code * scale) + zero) } else { R::round(R::round(code - zero) * scale) }
}

/// Rounds a result of single precision.
trait Round {
    fn round(x: f32) -> f32;
}

struct Single;

impl Round for Single {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

/// To half precision: of a sum or a product of two numbers of half precision, the same as if it had never been
/// rounded to single precision.
struct Half;

impl Round for Half {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        round_to_half(x)
    }
}
