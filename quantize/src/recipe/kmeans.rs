//! `kmeans`: a palette for some rows, and the weights that it fits worst kept as they are (Kim et al., "SqueezeLLM", 2023).

use std::ops::Range;
use std::sync::Arc;

use cmz_codec::array::Parts;
use cmz_codec::pipeline;
use cmz_format::{Component, Dtype, Encoding, Result};

use super::streams::{Float, encoded, floats, group, symbols};
use super::{Entry, Kind, Method, Param, Shape, Task};
use crate::solver::Statistics;

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "kmeans",
    bits: Some(2..=8),
    about: "a palette for each row, by k-means that statistics weigh, and outliers (SqueezeLLM)",
    params: &[
        Param { name: "rows", default: "1", kind: Kind::Integer(1, 1 << 16), about: "rows that share a palette" },
        Param {
            name: "outliers",
            default: "0",
            kind: Kind::Number(0.0, 0.1),
            about: "share of the weights of greatest magnitude in a palette's rows that are kept as they are",
        },
        Param { name: "table", default: "F16", kind: Kind::Word(Float::WORDS), about: "type of the palette's numbers" },
    ],
    build: |bits, params| {
        Ok(Box::new(Kmeans {
            bits,
            rows: params.integer("rows") as usize,
            outliers: params.number("outliers"),
            table: Float::from_word(params.word("table")),
        }))
    },
};

/// Rounds of k-means, at most.
const ROUNDS: usize = 30;

#[derive(Clone, Copy, Debug)]
struct Kmeans {
    bits: u8,
    rows: usize,
    outliers: f64,
    table: Float,
}

/// The components of a block.
#[derive(Default)]
struct Block {
    indices: Vec<u8>,
    table: Vec<u8>,
    /// For each weight, whether it is kept.
    kept: Vec<bool>,
    values: Vec<f32>,
}

/// A weight with its weight, as numbers of k-means.
type Point = (f32, f64);

impl Method for Kmeans {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        let codebook = encoded(
            "codebook",
            [
                ("bits", self.bits.into()),
                ("form", "table".into()),
                ("dim", 1.into()),
                ("table", self.table.dtype().name().into()),
                ("group", group(self.rows, shape.columns)),
            ],
            [("indices", symbols()), ("table", floats(self.table.dtype()))],
        );
        if self.outliers == 0.0 {
            return Ok(codebook);
        }
        let values = Float::of(shape.dtype).dtype();
        Ok(sparse(codebook, values))
    }

    fn unit_rows(&self) -> usize {
        self.rows
    }

    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let mut blocks = Vec::new();
        let rows = task.shape.rows;
        pipeline::ordered(
            task.threads,
            (0..rows).step_by(task.block_rows),
            |first, _| {
                let mut block = Block::default();
                let mut known: Option<(Range<usize>, Arc<Statistics>)> = None;
                for first in (first..rows.min(first + task.block_rows)).step_by(self.rows) {
                    if let Some(inputs) = task.statistics
                        && known.as_ref().is_none_or(|(of, _)| !of.contains(&first))
                    {
                        known = Some(inputs.of_row(first)?);
                    }
                    let statistics = known.as_ref().map(|(_, statistics)| &**statistics);
                    self.palette(task, first..rows.min(first + self.rows), statistics, &mut block);
                }
                Ok(block)
            },
            |block| {
                blocks.push(self.parts(block, task.shape.dtype));
                Ok(())
            },
        )?;
        Ok(blocks)
    }
}

impl Kmeans {
    /// Chooses a palette for some rows.
    fn palette(&self, task: Task<'_>, rows: Range<usize>, statistics: Option<&Statistics>, block: &mut Block) {
        let weights: Vec<f32> = rows.flat_map(|row| task.weights.row(row).iter().copied()).collect();
        let mut by_size: Vec<usize> = (0..weights.len()).collect();
        by_size.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()).then(a.cmp(&b)));
        let mut kept = vec![false; weights.len()];
        let outliers = (self.outliers * weights.len() as f64) as usize;
        by_size[..outliers].iter().for_each(|&at| kept[at] = true);
        let importance =
            |at: usize| statistics.map_or(1.0, |statistics| f64::from(statistics.diagonal(at % task.shape.columns)));
        let point = |at: usize| (weights[at], importance(at));
        let mut points: Vec<Point> = (0..weights.len()).filter(|&at| !kept[at]).map(point).collect();
        if points.iter().all(|(_, importance)| *importance == 0.0) {
            points.iter_mut().for_each(|(_, importance)| *importance = 1.0);
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let centres = means(&points, 1 << self.bits).into_iter().map(|centre| self.table.round(centre));
        let centres: Vec<f32> = centres.collect();
        block.indices.extend(weights.iter().map(|&weight| nearest(&centres, weight)));
        block.table.extend(self.table.bytes(centres.into_iter()));
        block.values.extend(kept.iter().zip(&weights).filter(|(kept, _)| **kept).map(|(_, &weight)| weight));
        block.kept.extend(kept);
    }

    fn parts(&self, block: Block, dtype: Dtype) -> Parts {
        let codebook = Parts::Components(vec![Parts::Whole(block.indices), Parts::Whole(block.table)]);
        if self.outliers == 0.0 {
            return codebook;
        }
        let values = Parts::Whole(Float::of(dtype).bytes(block.values.into_iter()));
        Parts::Components(vec![codebook, Parts::Whole(bitmap(&block.kept)), values])
    }
}

/// A base of which some elements are replaced.
pub(super) fn sparse(base: Encoding, values: Dtype) -> Encoding {
    encoded(
        "sparse",
        [("mode", "replace".into()), ("index", "bitmap".into()), ("values", values.name().into())],
        [("base", Component::Encoded(base)), ("bitmap", symbols()), ("values", floats(values))],
    )
}

/// Bits, the lowest of each byte first.
pub(super) fn bitmap(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().zip(0..).fold(0, |byte, (&bit, place)| byte | u8::from(bit) << place);
    bits.chunks(8).map(byte).collect()
}

/// The nearest of ascending centres.
fn nearest(centres: &[f32], weight: f32) -> u8 {
    let above = centres.partition_point(|centre| *centre < weight).min(centres.len() - 1);
    let below = above.saturating_sub(1);
    let closer = weight - centres[below] <= centres[above] - weight;
    (if closer { below } else { above }) as u8
}

/// `count` ascending centres of ascending points: Lloyd's method from quantiles on. With sums up to each point, a round takes no
/// longer than finding the borders.
fn means(points: &[Point], count: usize) -> Vec<f64> {
    let mut sums = Vec::with_capacity(points.len() + 1);
    sums.push((0.0, 0.0));
    for (value, importance) in points {
        let (weight, moment) = sums[sums.len() - 1];
        sums.push((weight + importance, moment + importance * f64::from(*value)));
    }
    let last = points.len().saturating_sub(1);
    let quantile = |i: usize| points.get((2 * i + 1) * last / (2 * count)).map_or(0.0, |point| f64::from(point.0));
    let mut centres: Vec<f64> = (0..count).map(quantile).collect();
    for _ in 0..ROUNDS {
        let before = centres.clone();
        let mut start = 0;
        for i in 0..count {
            let border = before.get(i + 1).map_or(f64::INFINITY, |next| (before[i] + next) / 2.0);
            let end = start + points[start..].partition_point(|point| f64::from(point.0) <= border);
            let (weight, moment) = (sums[end].0 - sums[start].0, sums[end].1 - sums[start].1);
            if weight > 0.0 {
                centres[i] = moment / weight;
            }
            start = end;
        }
        // Rounding errors of the sums must not change the order.
        centres.sort_by(f64::total_cmp);
        if centres == before {
            break;
        }
    }
    centres
}
