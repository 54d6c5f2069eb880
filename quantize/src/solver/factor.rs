//! The factor of the inverse Hessian by which rounding errors are passed on.

use cmz_format::{Code, Error, Result};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par};

use super::Statistics;

/// Where damping starts that was 0 and has to grow.
const LEAST_DAMPING: f64 = 1e-6;
/// More than this, as a fraction of the mean diagonal, is not tried.
const MOST_DAMPING: f64 = 1e3;

/// The upper triangular C with H⁻¹ = Cᵀ·C of a damped Hessian H, columns in solving order.
pub(super) struct Factor {
    /// The diagonal of C.
    pub(super) diagonal: Vec<f32>,
    /// C row by row, with zeros below the diagonal; `None` if C is diagonal.
    pub(super) upper: Option<Vec<f32>>,
    /// What was added to the diagonal of H, as a fraction of its mean.
    pub(super) damping: f64,
}

impl Factor {
    /// Factors the Hessian with `damping` times its mean diagonal added to the diagonal, or ten times more, and again, until that
    /// is possible. `order[i]` is the column that is solved as the `i`-th.
    pub(super) fn new(statistics: &Statistics, order: &[u32], damping: f64) -> Result<Self> {
        if statistics.hessian().is_none() {
            let diagonal = vec![(1.0 / (1.0 + damping)).sqrt() as f32; order.len()];
            return Ok(Self { diagonal, upper: None, damping });
        }
        let mut tried = damping;
        loop {
            if let Some(factor) = Self::of_damped(statistics, order, tried) {
                return Ok(factor);
            }
            tried = (tried * 10.0).max(LEAST_DAMPING);
            if tried > MOST_DAMPING {
                let message = "a Hessian is not positive definite, whatever is added to its diagonal";
                return Err(Error::new(Code::BadSource, message).with_help(
                    "collect the statistics again, or do without them: then weights are rounded to nearest",
                ));
            }
        }
    }

    /// With J the reversal of the order, J·H·J = R·Rᵀ gives H = U·Uᵀ with U = J·R·J upper triangular, and then C = U⁻¹ = J·R⁻¹·J:
    /// one Cholesky factorisation where chol(inverse(H)) needs two.
    fn of_damped(statistics: &Statistics, order: &[u32], damping: f64) -> Option<Self> {
        let n = order.len();
        let mut lower = reversed(statistics, order, damping);
        // One thread: how faer splits the work between threads would show in the last bits.
        let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default()));
        let stack = MemStack::new(&mut memory);
        cholesky_in_place(lower.as_mut(), Default::default(), Par::Seq, stack, Default::default()).ok()?;
        let mut inverse = Mat::<f64>::zeros(n, n);
        invert_lower_triangular(inverse.as_mut(), lower.as_ref(), Par::Seq);

        let mut upper = vec![0.0; n * n];
        for (i, row) in upper.chunks_exact_mut(n.max(1)).enumerate() {
            for (j, element) in row.iter_mut().enumerate().skip(i) {
                *element = inverse[(n - 1 - i, n - 1 - j)] as f32;
            }
        }
        let diagonal: Vec<f32> = upper.iter().step_by(n + 1).copied().collect();
        let usable = upper.iter().all(|element| element.is_finite()) && diagonal.iter().all(|&element| element > 0.0);
        usable.then_some(Self { diagonal, upper: Some(upper), damping })
    }

    /// Number of columns.
    pub(super) fn columns(&self) -> usize {
        self.diagonal.len()
    }
}

/// The damped Hessian, its columns from the last that is solved to the first. Dead columns are those of the identity.
fn reversed(statistics: &Statistics, order: &[u32], damping: f64) -> Mat<f64> {
    let n = order.len();
    let hessian = statistics.hessian().unwrap_or_default();
    let diagonal = |column: usize| f64::from(statistics.diagonal(column));
    let added = damping * (0..n).map(diagonal).sum::<f64>() / n as f64;
    Mat::from_fn(n, n, |i, j| {
        let (i, j) = (order[n - 1 - i] as usize, order[n - 1 - j] as usize);
        if statistics.is_dead(i) || statistics.is_dead(j) {
            return f64::from(u8::from(i == j));
        }
        // The mean of both triangles, which rounding may have set apart.
        let element = (f64::from(hessian[i * n + j]) + f64::from(hessian[j * n + i])) / 2.0;
        if i == j { element + added } else { element }
    })
}
