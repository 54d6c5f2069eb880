//! Weights and statistics to test with.

use super::Statistics;
use crate::Matrix;

/// Numbers that look random, the same every time (xorshift*).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normally distributed.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Normally distributed weights, one in a hundred ten times as large.
pub(crate) fn weights(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut numbers = Numbers(seed | 1);
    let data = (0..rows * columns).map(|_| {
        let outlier = if numbers.uniform() < 0.01 { 10.0 } else { 1.0 };
        (0.05 * outlier * numbers.normal()) as f32
    });
    Matrix::new(rows, columns, data.collect())
}

/// The Hessian of `2 * columns` inputs whose elements depend on each other, some much larger than others.
pub(crate) fn correlated(columns: usize, seed: u64) -> Statistics {
    let mut numbers = Numbers(seed | 1);
    let samples = 2 * columns;
    let mut hessian = vec![0.0; columns * columns];
    for _ in 0..samples {
        let common = numbers.normal();
        let mut last = 0.0;
        let input: Vec<f64> = (0..columns)
            .map(|column| {
                last = 0.8 * last + 0.5 * numbers.normal();
                (last + 0.5 * common) * (1.0 + (column * 7 % 11) as f64 / 4.0)
            })
            .collect();
        for (i, row) in hessian.chunks_exact_mut(columns).enumerate() {
            row.iter_mut().zip(&input).for_each(|(h, x)| *h += 2.0 / samples as f64 * input[i] * x);
        }
    }
    Statistics::new(columns, hessian.into_iter().map(|h: f64| h as f32).collect()).unwrap()
}

/// Statistics with some columns' inputs made 0.
pub(super) fn without_inputs(statistics: &Statistics, dead: &[usize]) -> Statistics {
    let columns = statistics.columns();
    let mut hessian = statistics.hessian().unwrap().to_vec();
    for (at, h) in hessian.iter_mut().enumerate() {
        if dead.contains(&(at / columns)) || dead.contains(&(at % columns)) {
            *h = 0.0;
        }
    }
    Statistics::new(columns, hessian).unwrap()
}

/// The factor of a damped Hessian as the papers write it, with textbook algorithms in double precision:
/// chol(inverse(H)), upper triangular. Rows of rows, columns in the order given.
pub(super) fn textbook_factor(statistics: &Statistics, order: &[u32], damping: f64) -> Vec<Vec<f64>> {
    let n = order.len();
    let mean = (0..n).map(|i| f64::from(statistics.diagonal(i))).sum::<f64>() / n as f64;
    let element = |i: usize, j: usize| {
        let (i, j) = (order[i] as usize, order[j] as usize);
        if statistics.is_dead(i) || statistics.is_dead(j) {
            return f64::from(u8::from(i == j));
        }
        let h = statistics.hessian().map_or(f64::from(u8::from(i == j)), |hessian| f64::from(hessian[i * n + j]));
        if i == j { h + damping * mean } else { h }
    };
    let hessian: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| element(i, j)).collect()).collect();
    let lower = cholesky(&inverse(&hessian));
    (0..n).map(|i| (0..n).map(|j| lower[j][i]).collect()).collect()
}

/// Gauss-Jordan elimination of a positive definite matrix.
fn inverse(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = matrix.len();
    let mut left = matrix.to_vec();
    let mut right: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for i in 0..n {
        let pivot = left[i][i];
        for j in 0..n {
            left[i][j] /= pivot;
            right[i][j] /= pivot;
        }
        let (of_left, of_right) = (left[i].clone(), right[i].clone());
        for k in (0..n).filter(|&k| k != i) {
            let times = left[k][i];
            for j in 0..n {
                left[k][j] -= times * of_left[j];
                right[k][j] -= times * of_right[j];
            }
        }
    }
    right
}

/// The lower triangular L with L·Lᵀ the matrix.
fn cholesky(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = matrix.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            lower[i][j] = if i == j { (matrix[i][i] - sum).sqrt() } else { (matrix[i][j] - sum) / lower[j][j] };
        }
    }
    lower
}
