//! How a tensor is cut into blocks, and what is rounded at once.

use cmz_format::Result;
use cmz_format::limits::MAX_BLOCK_LEN;

use super::statistics::TensorStatistics;
use super::{Shape, Stack, invalid};
use crate::recipe::{Apart, Recipe};

/// Elements of a block, about.
const BLOCK_ELEMENTS: usize = 1 << 19;
/// Elements that blocks have a multiple of, where rows permit.
const TILE: usize = 4096;
/// Bytes that rounding takes for each weight, and for each element of a Hessian: that is read as F32, and factored as F64.
const WEIGHT_MEMORY: u64 = 16;
const HESSIAN_MEMORY: u64 = 32;

/// Blocks and units of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Rows of a block but the last: a multiple of what the recipe needs.
    pub(super) block_rows: usize,
    /// Rows that are rounded at once: whole blocks.
    pub(super) unit_rows: usize,
    /// Bytes that rounding a unit takes, about.
    pub(super) memory: u64,
}

impl Cut {
    /// Blocks of a stack hold whole matrices, or parts of one, so that each matrix can be read, and rounded, by itself.
    pub(super) fn new(
        recipe: &Recipe,
        shape: Shape,
        stack: Stack,
        statistics: Option<&TensorStatistics>,
    ) -> Result<Self> {
        let (method, unit) = (recipe.method(), recipe.method().unit_rows());
        let most = MAX_BLOCK_LEN as usize / (shape.dtype.bits() as usize / 8);
        let least = unit.min(shape.rows);
        if shape.columns.checked_mul(least).is_none_or(|elements| elements > most) {
            let why =
                format!("a block of {least} rows of {} elements is longer than the format permits", shape.columns);
            return Err(invalid(why, Some("choose a recipe for fewer rows at once, or none")));
        }
        let by_matrix = stack.matrices > 1 && stack.rows.is_multiple_of(unit) && method.apart() != Apart::Tensors;
        let block_rows = match by_matrix {
            true => rows_in_stack(unit, stack, most, method.apart()),
            false => rows_in_matrix(unit, shape),
        };
        if statistics.is_some_and(TensorStatistics::is_by_matrix) && !by_matrix && method.apart() != Apart::Tensors {
            let why = match stack.matrices {
                1 => "there are statistics for each matrix of a stack, and this tensor is a single matrix".to_owned(),
                _ => format!("{recipe} cannot round the matrices of this stack, of {} rows, apart", stack.rows),
            };
            return Err(invalid(why, Some("give statistics for the tensor as a whole")));
        }
        let rounded_at_once = match (method.apart(), method.needs_statistics()) {
            (Apart::Rows, false) => block_rows,
            // Factoring a Hessian that all have takes about as long as rounding as many rows as it has.
            (Apart::Rows, true) if by_matrix && statistics.is_some_and(|s| !s.is_by_matrix()) => {
                (4 * stack.columns).div_ceil(stack.rows) * stack.rows
            }
            (Apart::Rows | Apart::Matrices, _) if by_matrix => stack.rows,
            _ => shape.rows,
        };
        let unit_rows = rounded_at_once.div_ceil(block_rows) * block_rows;
        let hessian = match (statistics, method.needs_statistics()) {
            (None, _) => 0,
            (Some(_), false) => 2 * size_of::<f32>() as u64,
            (Some(_), true) => HESSIAN_MEMORY,
        };
        let (rows, columns) = (unit_rows.min(shape.rows) as u64, shape.columns as u64);
        let memory = rows.saturating_mul(columns).saturating_mul(WEIGHT_MEMORY);
        let memory = memory.saturating_add(columns.saturating_mul(columns).saturating_mul(hessian));
        Ok(Self { block_rows, unit_rows, memory })
    }
}

/// Rows of a block: about [`BLOCK_ELEMENTS`].
fn rows_in_matrix(unit: usize, shape: Shape) -> usize {
    let whole_tiles = (1..=TILE).find(|&n| (n * unit * shape.columns).is_multiple_of(TILE)).unwrap_or(1) * unit;
    let fits = |rows: usize| rows.checked_mul(shape.columns).is_some_and(|elements| elements <= BLOCK_ELEMENTS);
    let step = if fits(whole_tiles) { whole_tiles } else { unit };
    ((BLOCK_ELEMENTS / shape.columns / step).max(1) * step).min(shape.rows)
}

/// The same where matrices are to be whole blocks, or blocks whole matrices.
fn rows_in_stack(unit: usize, stack: Stack, most: usize, apart: Apart) -> usize {
    let matrix = stack.rows * stack.columns;
    if 2 * matrix <= BLOCK_ELEMENTS {
        let count = if apart == Apart::Rows { (BLOCK_ELEMENTS / matrix).min(stack.matrices) } else { 1 };
        let whole_tiles = (1..=count).find(|&n| (n * matrix).is_multiple_of(TILE)).unwrap_or(1);
        return count / whole_tiles * whole_tiles * stack.rows;
    }
    // The number of rows that comes nearest to the usual length, of those that divide a matrix: half as many count as far as twice.
    let distance = |rows: usize| {
        let elements = rows * stack.columns;
        let (more, less) = (elements.max(BLOCK_ELEMENTS), elements.min(BLOCK_ELEMENTS));
        (!elements.is_multiple_of(TILE) && more < 2 * less, more / less, more % less)
    };
    let divisors = (1..=stack.rows / unit).map(|n| n * unit).filter(|rows| stack.rows.is_multiple_of(*rows));
    let fitting = divisors.filter(|rows| rows.checked_mul(stack.columns).is_some_and(|elements| elements <= most));
    fitting.min_by_key(|&rows| distance(rows)).unwrap_or(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmz_format::Dtype;

    fn cut(recipe: &str, [matrices, rows, columns]: [usize; 3]) -> Cut {
        let shape = Shape { dtype: Dtype::BF16, rows: matrices * rows, columns };
        Cut::new(&Recipe::parse(recipe).unwrap(), shape, Stack { matrices, rows, columns }, None).unwrap()
    }

    /// Blocks hold whole matrices, or matrices whole blocks; units are whole blocks.
    #[test]
    fn matrices_of_a_stack_have_blocks_of_their_own() {
        for rows in [1, 3, 48, 64, 100, 768, 2080, 6144, 14336] {
            for columns in [1, 40, 768, 2080, 6144] {
                for recipe in ["ternary", "int4", "fp8", "spqr3", "kmeans4:rows=4"] {
                    let Cut { block_rows, unit_rows, .. } = cut(recipe, [9, rows, columns]);
                    let unit = Recipe::parse(recipe).unwrap().method().unit_rows();
                    let apart = rows.is_multiple_of(unit);
                    let aligned = rows.is_multiple_of(block_rows) || block_rows.is_multiple_of(rows);
                    assert!(aligned || !apart, "{recipe} of {rows} x {columns}: {block_rows}");
                    assert!(unit_rows.is_multiple_of(block_rows));
                    assert!(block_rows * columns * 2 <= MAX_BLOCK_LEN as usize);
                }
            }
        }
    }

    #[test]
    fn blocks_are_of_about_the_usual_length() {
        for (rows, columns) in [(768, 3072), (3072, 768), (2080, 6144), (6144, 2080), (14336, 4096), (1536, 2048)] {
            let elements = cut("ternary", [128, rows, columns]).block_rows * columns;
            assert!((BLOCK_ELEMENTS / 2..=2 * BLOCK_ELEMENTS).contains(&elements), "{rows} x {columns}: {elements}");
        }
        assert_eq!(cut("ternary", [2048, 64, 32]).block_rows, 256 * 64);
    }
}
