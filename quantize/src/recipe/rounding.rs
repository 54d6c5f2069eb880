//! Rounding to grids, row by row.

use cmz_codec::pipeline;
use cmz_format::Result;

use super::Task;

/// What the weights of a group are rounded to.
pub(super) trait Grid: Sync {
    /// What is stored of a group besides its codes.
    type Group: Clone + Send + Sync;

    /// Chooses a group for weights.
    fn fit(&self, weights: &[f32]) -> Self::Group;

    /// The code for a weight.
    fn code(&self, group: &Self::Group, weight: f32) -> u8;
}

/// Some rows on a grid.
pub(super) struct Rounded<G> {
    /// A code for each weight, row by row.
    pub(super) codes: Vec<u8>,
    /// The groups, row by row.
    pub(super) groups: Vec<G>,
}

/// Rounds each weight to the nearest value of its group: `columns` weights of a row, the last group
/// of a row may have fewer. Returns the blocks.
pub(super) fn nearest<G: Grid>(task: Task<'_>, grid: &G, columns: usize) -> Result<Vec<Rounded<G::Group>>> {
    let mut blocks = Vec::new();
    let rows = task.shape.rows;
    pipeline::ordered(
        task.threads,
        (0..rows).step_by(task.block_rows),
        |first, _| {
            let mut block = Rounded { codes: Vec::new(), groups: Vec::new() };
            for row in first..rows.min(first + task.block_rows) {
                for weights in task.weights.row(row).chunks(columns) {
                    let group = grid.fit(weights);
                    block.codes.extend(weights.iter().map(|&weight| grid.code(&group, weight)));
                    block.groups.push(group);
                }
            }
            Ok(block)
        },
        |block| {
            blocks.push(block);
            Ok(())
        },
    )?;
    Ok(blocks)
}
