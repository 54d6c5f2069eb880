//! Rounding to grids: to nearest, or by GPTQ.

use cmz_codec::pipeline;
use cmz_format::Result;

use super::params::Params;
use super::{Kind, Param, Task, invalid};
use crate::solver::{Fit, Grid, Order, Solver, SolverOptions, Statistics};

/// How codes are chosen: the parameters of all recipes with a [`Grid`].
pub(super) const SOLVER: Param = Param {
    name: "solver",
    default: "nearest",
    kind: Kind::Word(&["nearest", "gptq"]),
    about: "each weight to the nearest value, or by GPTQ so that outputs change least, which needs statistics",
};

/// The order of GPTQ.
pub(super) const ORDER: Param = Param {
    name: "order",
    default: "stored",
    kind: Kind::Word(&["stored", "activation"]),
    about: "GPTQ: columns as they are stored, or those first that matter most, with groups fitted before",
};

/// The damping of a solver.
pub(super) const DAMPING: Param = Param {
    name: "damping",
    default: "0.01",
    kind: Kind::Number(0.0, 1000.0),
    about: "GPTQ: what is added to the diagonal of the statistics, over its mean",
};

/// How codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choosing {
    /// The nearest to each weight.
    Nearest,
    /// By GPTQ.
    Gptq { order: Order, damping: f64 },
}

impl Choosing {
    pub(super) fn of(params: &Params<'_>) -> Self {
        match params.word("solver") {
            "gptq" => Self::Gptq { order: order(params), damping: params.number("damping") },
            _ => Self::Nearest,
        }
    }

    pub(super) fn needs_statistics(self) -> bool {
        self != Self::Nearest
    }
}

/// The parameter [`ORDER`].
pub(super) fn order(params: &Params<'_>) -> Order {
    if params.word("order") == "activation" { Order::Activation } else { Order::Stored }
}

/// A solver for statistics.
pub(super) fn solver_of(statistics: &Statistics, threads: usize, order: Order, damping: f64) -> Result<Solver> {
    Solver::new(statistics, SolverOptions { damping, order, threads: threads.max(1) })
}

/// Some rows on a grid.
pub(super) struct Rounded<G> {
    /// A code for each weight, row by row.
    pub(super) codes: Vec<u8>,
    /// The groups, row by row.
    pub(super) groups: Vec<G>,
}

/// Rounds the weights in groups of `columns` of a row, the last of which may have fewer, and returns the blocks.
pub(super) fn round<G: Grid>(
    task: Task<'_>,
    grid: &G,
    columns: usize,
    choosing: Choosing,
) -> Result<Vec<Rounded<G::Group>>> {
    let Choosing::Gptq { order, damping } = choosing else { return nearest(task, grid, columns) };
    // Groups that follow the order of solving would have to be stored in it.
    let fit = if order == Order::Activation { Fit::Static } else { Fit::Compensated };
    let inputs = task.statistics.ok_or_else(|| invalid("GPTQ needs statistics", None))?;
    let (mut codes, mut groups) = (Vec::new(), Vec::new());
    let mut row = 0;
    while row < task.shape.rows {
        let (rows, statistics) = inputs.of_row(row)?;
        let end = rows.end.min(task.shape.rows);
        let solver = solver_of(&statistics, task.threads, order, damping)?;
        let solved = match end - row == task.shape.rows {
            true => solver.gptq(task.weights, grid, columns, fit)?,
            false => solver.gptq(&task.weights.part(row..end), grid, columns, fit)?,
        };
        codes.extend(solved.codes);
        groups.extend(solved.groups);
        row = end;
    }
    let across = task.shape.columns.div_ceil(columns);
    let codes = codes.chunks(task.block_rows * task.shape.columns);
    let groups = groups.chunks(task.block_rows * across);
    Ok(codes.zip(groups).map(|(codes, groups)| Rounded { codes: codes.to_vec(), groups: groups.to_vec() }).collect())
}

fn nearest<G: Grid>(task: Task<'_>, grid: &G, columns: usize) -> Result<Vec<Rounded<G::Group>>> {
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
