//! How far decoded weights are from what they were.

use cmz_codec::convert::SquaredError;

use super::Statistics;
use crate::Matrix;

/// Rows that share a pass over the Hessian.
const ROWS: usize = 32;
/// Sums that a dot product is kept in.
const LANES: usize = 16;

/// The relative error of weights: √(Σ(w − ŵ)² / Σw²). 0 if both sums are.
///
/// # Panics
/// If the matrices have not the same shape.
#[must_use]
pub fn weight_error(original: &Matrix, decoded: &Matrix) -> f64 {
    ratio(squared_error(original, decoded)).sqrt()
}

/// The squared error of weights, and their own square.
///
/// # Panics
/// If the matrices have not the same shape.
#[must_use]
pub fn squared_error(original: &Matrix, decoded: &Matrix) -> SquaredError {
    let squares = |matrix: &Matrix| matrix.data().iter().map(|&w| f64::from(w) * f64::from(w)).sum();
    SquaredError { error: squares(&difference(original, decoded)), of: squares(original) }
}

/// The relative mean squared error of a layer's outputs: tr((W − Ŵ)·H·(W − Ŵ)ᵀ) / tr(W·H·Wᵀ). 0 if both traces are.
///
/// # Panics
/// If the matrices have not the same shape, or not the columns of the statistics.
#[must_use]
pub fn output_error(original: &Matrix, decoded: &Matrix, statistics: &Statistics) -> f64 {
    ratio(squared_output_error(original, decoded, statistics))
}

/// The squared error of a layer's outputs, and their own square, both over the same number.
///
/// # Panics
/// As [`output_error`].
#[must_use]
pub fn squared_output_error(original: &Matrix, decoded: &Matrix, statistics: &Statistics) -> SquaredError {
    assert_eq!(original.columns(), statistics.columns(), "columns of weights and of statistics");
    SquaredError { error: energy(&difference(original, decoded), statistics), of: energy(original, statistics) }
}

fn ratio(SquaredError { error, of }: SquaredError) -> f64 {
    if error == 0.0 { 0.0 } else { error / of }
}

fn difference(original: &Matrix, decoded: &Matrix) -> Matrix {
    let (rows, columns) = (original.rows(), original.columns());
    assert_eq!((rows, columns), (decoded.rows(), decoded.columns()), "shapes of weights");
    let data = original.data().iter().zip(decoded.data()).map(|(a, b)| a - b).collect();
    Matrix::new(rows, columns, data)
}

/// tr(W·H·Wᵀ). H is symmetric: what is above the diagonal counts twice.
fn energy(weights: &Matrix, statistics: &Statistics) -> f64 {
    let columns = weights.columns();
    let Some(hessian) = statistics.hessian() else {
        return weights.data().iter().map(|&w| f64::from(w) * f64::from(w)).sum();
    };
    let mut sum = 0.0;
    for first in (0..weights.rows()).step_by(ROWS) {
        for (column, h) in hessian.chunks_exact(columns).enumerate() {
            for row in first..weights.rows().min(first + ROWS) {
                let row = &weights.row(row)[column..];
                let above = f64::from(dot(&row[1..], &h[column + 1..]));
                sum += f64::from(row[0]) * (f64::from(row[0]) * f64::from(h[column]) + 2.0 * above);
            }
        }
    }
    sum
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    sums.iter_mut().zip(a_rest).zip(b_rest).for_each(|((sum, a), b)| *sum += a * b);
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative() {
        let original = Matrix::new(2, 2, vec![3.0, 0.0, 0.0, 4.0]);
        let decoded = Matrix::new(2, 2, vec![3.0, 0.0, 1.0, 4.0]);
        assert_eq!(weight_error(&original, &decoded), 0.2);
        assert_eq!(output_error(&original, &decoded, &Statistics::identity(2)), 0.04);
        // tr(D·H·Dᵀ) = 2; tr(W·H·Wᵀ) = 9·2 + 16·5.
        let statistics = Statistics::new(2, vec![2.0, 1.0, 1.0, 5.0]).unwrap();
        assert_eq!(output_error(&original, &decoded, &statistics), 2.0 / 98.0);
    }

    #[test]
    fn cross_terms_count() {
        let original = Matrix::new(1, 2, vec![1.0, 1.0]);
        let decoded = Matrix::new(1, 2, vec![2.0, 0.0]);
        // Inputs that are always the same: the errors cancel.
        let statistics = Statistics::new(2, vec![1.0; 4]).unwrap();
        assert_eq!(output_error(&original, &decoded, &statistics), 0.0);
    }

    #[test]
    fn nothing_is_no_error() {
        let zeros = Matrix::new(1, 40, vec![0.0; 40]);
        assert_eq!(weight_error(&zeros, &zeros), 0.0);
        assert_eq!(output_error(&zeros, &zeros, &Statistics::identity(40)), 0.0);
    }
}
