//! Elements to codes: round to nearest, group by group.

use super::{Affine, Form};
use crate::encoding::groups::Grid;
use crate::encoding::number::{Float, Number, with_number};

/// Takes elements of type `element` apart.
pub(super) fn split(affine: Affine, grid: Grid, element: Float, data: &[u8], components: &mut [&mut [u8]]) {
    let (codes, rest) = components.split_first_mut().expect("components() has codes");
    let (scales, zeros) = rest.split_first_mut().expect("components() has scales");
    let (mut weights, mut rounded) = (Vec::new(), Vec::new());
    for i in 0..grid.count() {
        weights.clear();
        grid.members(i)
            .for_each(|run| with_number!(element, T => weights.extend(T::of(data)[run].iter().map(|&w| T::to_f32(w)))));
        rounded.resize(weights.len(), 0);
        match (affine.form, zeros.first_mut()) {
            (Form::ZeroPoint, Some(zeros)) => zero_point(affine, &weights, i, &mut rounded, scales, zeros),
            (Form::Zero, Some(zeros)) => zero(affine, &weights, i, &mut rounded, scales, zeros),
            (Form::Bias, Some(biases)) => bias(affine, &weights, i, &mut rounded, scales, biases),
            _ => symmetric(affine, &weights, i, &mut rounded, scales),
        }
        let mut rest = &rounded[..];
        for run in grid.members(i) {
            let (codes_of_run, others) = rest.split_at(run.len());
            codes[run].copy_from_slice(codes_of_run);
            rest = others;
        }
    }
}

/// The weight of the greatest magnitude gets code 0, the one that has no counterpart of the
/// opposite sign.
fn symmetric(affine: Affine, weights: &[f32], i: usize, codes: &mut [u8], scales: &mut [u8]) {
    let greatest = weights.iter().fold(0.0f32, |most, &w| if w.abs() > most.abs() { w } else { most });
    let middle = affine.middle();
    let scale = affine.scale.set(scales, i, -f64::from(greatest) / f64::from(middle));
    let quotients = weights.iter().map(|&w| nearest(quotient(w, scale)) + f32::from(middle));
    round(affine, quotients, codes);
}

/// The range of the weights, widened to hold 0, so that 0 is exact.
fn zero_point(affine: Affine, weights: &[f32], i: usize, codes: &mut [u8], scales: &mut [u8], zeros: &mut [u8]) {
    let (low, high) = range(weights);
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = affine.scale.set(scales, i, (f64::from(high) - f64::from(low)) / f64::from(affine.max_code()));
    round(affine, std::iter::once(quotient(-low, scale)), &mut zeros[i..=i]);
    let zero = f32::from(zeros[i]);
    round(affine, weights.iter().map(|&w| nearest(quotient(w, scale)) + zero), codes);
}

/// The range of the weights, whose lower end is code 0 as nearly as the zero's type has it.
fn zero(affine: Affine, weights: &[f32], i: usize, codes: &mut [u8], scales: &mut [u8], zeros: &mut [u8]) {
    let (low, high) = range(weights);
    let scale = affine.scale.set(scales, i, (f64::from(high) - f64::from(low)) / f64::from(affine.max_code()));
    let zero = affine.scale.set(zeros, i, quotient(-low, scale).into());
    round(affine, weights.iter().map(|&w| quotient(w, scale) + zero), codes);
}

/// The range of the weights, from its lower end on.
fn bias(affine: Affine, weights: &[f32], i: usize, codes: &mut [u8], scales: &mut [u8], biases: &mut [u8]) {
    let (low, high) = range(weights);
    let low = affine.scale.set(biases, i, low.into());
    let scale = affine.scale.set(scales, i, (f64::from(high) - f64::from(low)) / f64::from(affine.max_code()));
    round(affine, weights.iter().map(|&w| quotient(w - low, scale)), codes);
}

/// The least and the greatest of the weights.
fn range(weights: &[f32]) -> (f32, f32) {
    weights.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| (low.min(w), high.max(w)))
}

/// How many steps a weight is from 0.
fn quotient(w: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { w / scale }
}

/// The nearest integer, ties to even, of what is not far from a code: beside 1.5 · 2²³ numbers
/// of single precision are integers. `f32::round_ties_even` is a call on machines without SSE 4.1.
fn nearest(x: f32) -> f32 {
    const INTEGERS: f32 = 12_582_912.0;
    x.clamp(-1024.0, 1024.0) + INTEGERS - INTEGERS
}

/// Rounds to codes, the nearest that there is; what is not a number to code 0.
fn round(affine: Affine, steps: impl Iterator<Item = f32>, codes: &mut [u8]) {
    // Beside 2²³, a number's lowest bits are those of the integer.
    const INTEGERS: f32 = 8_388_608.0;
    let max = f32::from(affine.max_code());
    codes.iter_mut().zip(steps).for_each(|(code, step)| *code = (step.max(0.0).min(max) + INTEGERS).to_bits() as u8);
}
