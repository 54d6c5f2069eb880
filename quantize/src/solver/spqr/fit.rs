//! Fitting one group: range, scale and zero point of both levels, and the search for weights that spoil it.

use half::f16;

use super::super::grids::finite_f16;

/// Scale and zero point: code `q` stands for `scale · (q − zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line<T> {
    pub(super) scale: T,
    pub(super) zero: T,
}

/// The greatest code of `bits` bits.
pub(super) fn most(bits: u8) -> f32 {
    f32::from(u8::MAX >> (8 - bits))
}

/// The line from the least value, code 0, to the greatest, code `most`. The range need not hold 0.
fn line(low: f32, high: f32, most: f32) -> Line<f32> {
    if low == high {
        return constant(low);
    }
    let scale = (high - low) / most;
    Line { scale, zero: -low / scale }
}

/// A line through one value, at code 1 or, if it is negative, at code 0. The reference implementation takes the range from −1
/// to 1 instead, which decodes a group of zeros (dead columns, padding) to what is none, and blows up the scales beside it.
fn constant(value: f32) -> Line<f32> {
    Line { scale: value.abs(), zero: f32::from(u8::from(value < 0.0)) }
}

/// The least and the greatest value.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

/// The line for a group of weights.
pub(super) fn fit(weights: &[f32], most: f32) -> Line<f32> {
    let (low, high) = range(weights);
    line(low, high, most)
}

/// The code nearest to a weight, ties to even.
#[inline(always)]
pub(super) fn nearest(weight: f32, line: Line<f32>, most: f32) -> f32 {
    // Beside 2²³ numbers of single precision are integers; `f32::round_ties_even` is a call on machines without SSE 4.1.
    const INTEGERS: f32 = 8_388_608.0;
    (weight / line.scale.max(1e-9) + line.zero).clamp(0.0, most) + INTEGERS - INTEGERS
}

/// What a code decodes to: each step in half precision.
pub(super) fn dequantize(code: u8, line: Line<f16>) -> f16 {
    line.scale * (f16::from(code) - line.zero)
}

/// Rounds the scales, or the zero points, of rows that share a second level. `values` become what their codes decode to.
pub(super) fn round_statistics(values: &mut [f32], most: f32, mut code: impl FnMut(usize, u8)) -> Line<f16> {
    let (low, high) = range(values);
    let mut scale = finite_f16((high - low) / most);
    // The zero point is for what the scale was rounded to.
    let mut zero = finite_f16(-low / scale.to_f32());
    if scale == f16::ZERO {
        let one = constant(low / 2.0 + high / 2.0);
        (scale, zero) = (finite_f16(one.scale), f16::from_f32(one.zero));
    }
    let stored = Line { scale, zero };
    let wide = Line { scale: scale.to_f32(), zero: zero.to_f32() };
    for (i, value) in values.iter_mut().enumerate() {
        let nearest = nearest(*value, wide, most) as u8;
        code(i, nearest);
        *value = dequantize(nearest, stored).to_f32();
    }
    stored
}

/// Finds weights whose group would be much better off without them, and replaces them by the mean of the others.
pub(super) struct OutlierSearch {
    most: f32,
    /// Of the group without its `i`-th weight.
    lines: Vec<Line<f32>>,
    errors: Vec<f32>,
}

impl OutlierSearch {
    pub(super) const fn new(most: f32) -> Self {
        Self { most, lines: Vec::new(), errors: Vec::new() }
    }

    /// `diagonal` is the factor's for the group's columns. A weight is replaced if leaving it out lowers the sum of squared
    /// errors, each divided by its diagonal element, by more than `threshold`.
    pub(super) fn replace_outliers(&mut self, weights: &mut [f32], diagonal: &[f32], threshold: f32) {
        let most = self.most;
        let whole = fit(weights, most);
        let mut base = 0.0;
        for (&weight, c) in weights.iter().zip(diagonal) {
            base += square_error(weight, whole, *c, most);
        }
        // An error that is nothing to speak of cannot be lowered by more.
        if base <= threshold {
            return;
        }
        self.fit_without_each(weights);
        self.errors.clear();
        self.errors.resize(weights.len(), 0.0);
        for (i, (&weight, &c)) in weights.iter().zip(diagonal).enumerate() {
            // All groups but the one that is without this weight.
            let kept = self.errors[i];
            self.errors
                .iter_mut()
                .zip(&self.lines)
                .for_each(|(sum, &line)| *sum += square_error(weight, line, c, most));
            self.errors[i] = kept;
        }
        let is_outlier = |error: &f32| base - error > threshold;
        let (mut sum, mut count) = (0.0, 0.0f32);
        for (weight, _) in weights.iter().zip(&self.errors).filter(|(_, error)| !is_outlier(error)) {
            sum += weight;
            count += 1.0;
        }
        let mean = sum / count.max(1.0);
        for (weight, _) in weights.iter_mut().zip(&self.errors).filter(|(_, error)| is_outlier(error)) {
            *weight = mean;
        }
    }

    fn fit_without_each(&mut self, weights: &[f32]) {
        // The two least and the two greatest weights tell the range without any one.
        let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for &weight in weights {
            low = if weight < low[0] { [weight, low[0]] } else { [low[0], low[1].min(weight)] };
            high = if weight > high[0] { [weight, high[0]] } else { [high[0], high[1].max(weight)] };
        }
        let most = self.most;
        self.lines.clear();
        self.lines.extend(weights.iter().map(|&weight| {
            let without = |ends: [f32; 2]| if weight == ends[0] { ends[1] } else { ends[0] };
            line(without(low), without(high), most)
        }));
    }
}

#[inline(always)]
fn square_error(weight: f32, line: Line<f32>, c: f32, most: f32) -> f32 {
    let error = (line.scale * (nearest(weight, line, most) - line.zero) - weight) / c;
    error * error
}
