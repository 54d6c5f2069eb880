//! Weights to codes by what they do to a layer's outputs: GPTQ (Frantar et al., ICLR 2023) and SpQR (Dettmers et al., 2023).
//!
//! A layer's weights W are a [`Matrix`] of outputs × inputs. [`Statistics`] of its inputs say how errors of different inputs'
//! weights add up in its outputs. A [`Solver`] made of them rounds columns one after the other and makes up for each one's error
//! in the columns that are left: [`Solver::gptq`] onto any [`Grid`], [`Solver::spqr`] with two levels of scales and outliers.
//!
//! Rows do not depend on each other, and sums are in single precision in a stated order: the result is the same for any number
//! of threads. The one part that may differ in a last bit between processors is the Cholesky factor, which is computed in double
//! precision.

use cmz_format::{Code, Error, Result};

use crate::Matrix;

mod factor;
mod gptq;
mod grids;
mod measure;
mod spqr;
mod statistics;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use gptq::{Fit, Gptq, Grid};
pub use grids::{Affine, AffineGroup, Codebook, Ternary, TernaryRow};
pub use measure::{output_error, squared_error, squared_output_error, weight_error};
pub use spqr::{Outliers, SecondLevel, Spqr, SpqrOptions};
pub use statistics::Statistics;

use factor::Factor;
use sweep::Band;

/// Rows that a thread works on at once, about: their weights stay in its cache.
const BAND_ROWS: usize = 32;

/// The order in which columns are solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Stored,
    /// By descending diagonal element of the Hessian, equal ones as they are stored ("act-order"): the columns that matter most
    /// are rounded while all others can still make up for it.
    Activation,
}

/// How a [`Solver`] is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SolverOptions {
    /// What is added to the diagonal of the Hessian, as a fraction of its mean: from 0 to 1000.
    pub damping: f64,
    /// The order of columns.
    pub order: Order,
    /// Threads of a solution, at least one. Results do not depend on it.
    pub threads: usize,
}

impl Default for SolverOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { damping: 0.01, order: Order::Stored, threads }
    }
}

/// Rounds the weights of layers that have the same inputs.
pub struct Solver {
    factor: Factor,
    /// The column of the matrix that is solved as the `i`-th.
    order: Vec<u32>,
    /// Whether the column that is solved as the `i`-th is dead.
    dead: Vec<bool>,
    options: SolverOptions,
}

impl Solver {
    /// Factors the statistics. Where the damping asked for is not enough to factor the Hessian, ten times as much is tried, and
    /// so on up to 1000; [`damping`](Self::damping) tells.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the options are out of range; [`Code::BadSource`] if the Hessian cannot be factored: such
    /// inputs cannot have been.
    pub fn new(statistics: &Statistics, options: SolverOptions) -> Result<Self> {
        let columns = statistics.columns();
        if !(0.0..=1000.0).contains(&options.damping) {
            return Err(invalid(format!("damping of {}", options.damping), "give a number from 0 to 1000"));
        }
        if options.threads == 0 {
            return Err(invalid("no thread to work on".into(), "give at least one"));
        }
        let Ok(count) = u32::try_from(columns) else {
            return Err(invalid(format!("{columns} columns"), "columns are numbered in 32 bits"));
        };
        let mut order: Vec<u32> = (0..count).collect();
        if options.order == Order::Activation {
            let diagonal = |column: u32| statistics.diagonal(column as usize);
            order.sort_by(|&a, &b| diagonal(b).total_cmp(&diagonal(a)));
        }
        let factor = Factor::new(statistics, &order, options.damping)?;
        let dead = order.iter().map(|&column| statistics.is_dead(column as usize)).collect();
        Ok(Self { factor, order, dead, options })
    }

    /// The damping that was needed, as a fraction of the mean diagonal.
    #[must_use]
    pub const fn damping(&self) -> f64 {
        self.factor.damping
    }

    /// Number of columns of the matrices that it solves.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.factor.columns()
    }

    /// The order of columns of a result, if they are not as in the matrix.
    fn stored_order(&self) -> Option<Vec<u32>> {
        (!self.order.is_sorted()).then(|| self.order.clone())
    }

    /// Weights `first..first + rows` of a matrix in solving order, those of dead columns 0.
    fn band(&self, weights: &Matrix, first: usize, rows: usize) -> Band {
        let columns = self.columns();
        let in_order = |row: usize| {
            let row = weights.row(row);
            let solved = self.order.iter().zip(&self.dead);
            solved.map(|(&column, &dead)| if dead { 0.0 } else { row[column as usize] })
        };
        Band { rows, columns, weights: (first..first + rows).flat_map(in_order).collect() }
    }

    fn check(&self, weights: &Matrix) -> Result<()> {
        if weights.columns() != self.columns() {
            let message = format!("weights of {} columns and statistics of {}", weights.columns(), self.columns());
            return Err(invalid(message, "use statistics of this layer's inputs"));
        }
        match weights.data().iter().position(|weight| !weight.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let (row, column) = (at / weights.columns(), at % weights.columns());
                let message = format!("weight [{row}, {column}] is {}", weights.data()[at]);
                Err(invalid(message, "store this tensor without loss"))
            }
        }
    }
}

fn invalid(message: String, help: &str) -> Error {
    Error::new(Code::InvalidArgument, message).with_help(help)
}

/// `stored` columns put back to where `order` took them from.
fn to_matrix(rows: usize, columns: usize, stored: &[f32], order: Option<&[u32]>) -> Matrix {
    let mut matrix = Matrix::new(rows, columns, stored.to_vec());
    if let Some(order) = order {
        for row in 0..rows {
            let target = matrix.row_mut(row);
            for (&column, &weight) in order.iter().zip(&stored[row * columns..][..columns]) {
                target[column as usize] = weight;
            }
        }
    }
    matrix
}
