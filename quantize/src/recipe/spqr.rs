//! `spqr`: small groups whose scales and zero points are rounded in turn, and outliers (Dettmers et al., "SpQR", 2023).

use std::sync::Arc;

use cmz_codec::array::Parts;
use cmz_format::{Component, Dtype, Encoding, Result};
use half::f16;

use super::kmeans::{bitmap, sparse};
use super::rounding::{DAMPING, ORDER, order, solver_of};
use super::streams::{encoded, floats, group, raw, symbols};
use super::{Apart, Entry, Kind, Method, Param, Shape, Task, invalid};
use crate::solver::{Order, Outliers, SecondLevel, Spqr as Solved, SpqrOptions, Statistics};

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "spqr",
    bits: Some(2..=8),
    about: "small groups with rounded scales and zero points, and outliers (SpQR); statistics make it good",
    params: &[
        Param { name: "group", default: "16", kind: Kind::Integer(1, 1 << 16), about: "columns that share a scale" },
        Param {
            name: "rows",
            default: "16",
            kind: Kind::Integer(1, 1 << 16),
            about: "rows whose scales are rounded together",
        },
        Param { name: "scale_bits", default: "3", kind: Kind::Integer(2, 8), about: "bits of a scale" },
        Param { name: "zero_bits", default: "3", kind: Kind::Integer(2, 8), about: "bits of a zero point" },
        Param {
            name: "outliers",
            default: "0.01",
            kind: Kind::Number(0.0, 0.1),
            about: "share of the weights that are kept in 16 bits, about",
        },
        Param {
            name: "threshold",
            default: "0",
            kind: Kind::Number(0.0, 1000.0),
            about: "the paper's threshold of outliers (0.1 to 0.45) in place of their share, if not 0",
        },
        ORDER,
        DAMPING,
    ],
    build: |bits, params| {
        let (share, threshold) = (params.number("outliers"), params.number("threshold"));
        let outliers = match () {
            () if threshold > 0.0 => Outliers::Threshold(threshold),
            () if share > 0.0 => Outliers::Share(share),
            () => Outliers::None,
        };
        let options = SpqrOptions {
            bits,
            group: params.integer("group") as usize,
            row_group: params.integer("rows") as usize,
            scale_bits: params.integer("scale_bits") as u8,
            zero_bits: params.integer("zero_bits") as u8,
            outliers,
            outlier_type: Dtype::F16,
        };
        Ok(Box::new(Spqr { options, order: order(params), damping: params.number("damping") }))
    },
};

/// Columns of a row whose order can be stored.
const MAX_ORDERED: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Spqr {
    options: SpqrOptions,
    order: Order,
    damping: f64,
}

/// Codes with a zero that is a number, all in half precision.
fn affine(bits: u8, group: serde_json::Value, [scales, zeros]: [Component; 2]) -> Encoding {
    encoded(
        "affine",
        [
            ("bits", bits.into()),
            ("form", "zero".into()),
            ("group", group),
            ("scale", "F16".into()),
            ("arithmetic", "F16".into()),
        ],
        [("codes", symbols()), ("scales", scales), ("zeros", zeros)],
    )
}

impl Spqr {
    fn options(&self, shape: Shape) -> SpqrOptions {
        let outlier_type = if shape.dtype == Dtype::BF16 { Dtype::BF16 } else { Dtype::F16 };
        SpqrOptions { outlier_type, ..self.options }
    }

    /// The components of some rows.
    fn block(&self, solved: &Solved, rows: std::ops::Range<usize>) -> Parts {
        let (group, row_group) = (solved.options.group, solved.options.row_group);
        let across = solved.columns.div_ceil(group);
        let of_rows =
            |symbols: &[u8], width: usize| Parts::Whole(symbols[rows.start * width..rows.end * width].to_vec());
        let second = &solved.second[rows.start / row_group * across..rows.end.div_ceil(row_group) * across];
        let numbers = |number: fn(&SecondLevel) -> f16| {
            Parts::Whole(second.iter().flat_map(|level| number(level).to_le_bytes()).collect())
        };
        let scales = Parts::Components(vec![
            of_rows(&solved.scale_codes, across),
            numbers(|level| level.scale_scale),
            numbers(|level| level.scale_zero),
        ]);
        let zeros = Parts::Components(vec![
            of_rows(&solved.zero_codes, across),
            numbers(|level| level.zero_scale),
            numbers(|level| level.zero_zero),
        ]);
        let mut parts = Parts::Components(vec![of_rows(&solved.codes, solved.columns), scales, zeros]);
        if self.options.outliers != Outliers::None {
            let mut kept = vec![false; rows.len() * solved.columns];
            for (number, row) in rows.clone().enumerate() {
                let columns = &solved.outlier_columns[solved.outlier_starts[row]..solved.outlier_starts[row + 1]];
                columns.iter().for_each(|&column| kept[number * solved.columns + column as usize] = true);
            }
            let values = &solved.outlier_values[solved.outlier_starts[rows.start]..solved.outlier_starts[rows.end]];
            let values = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            parts = Parts::Components(vec![parts, Parts::Whole(bitmap(&kept)), Parts::Whole(values)]);
        }
        if self.order == Order::Activation {
            let identity = || (0..solved.columns as u32).collect();
            let order: Vec<u32> = solved.order.clone().unwrap_or_else(identity);
            let order = order.iter().flat_map(|&column| (column as u16).to_le_bytes()).collect();
            parts = Parts::Components(vec![parts, Parts::Whole(order)]);
        }
        parts
    }
}

impl Method for Spqr {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        let options = self.options(shape);
        let second = |bits| {
            let numbers = [floats(Dtype::F16), floats(Dtype::F16)];
            Component::Encoded(affine(bits, group(options.row_group, 1), numbers))
        };
        let base = affine(
            options.bits,
            group(1, options.group.min(shape.columns)),
            [second(options.scale_bits), second(options.zero_bits)],
        );
        let array = match options.outliers {
            Outliers::None => base,
            _ => sparse(base, options.outlier_type),
        };
        if self.order == Order::Stored {
            return Ok(array);
        }
        if shape.columns > MAX_ORDERED {
            let why = format!("the order of {} columns cannot be stored, only that of {MAX_ORDERED}", shape.columns);
            return Err(invalid(why, Some("leave out order=activation")));
        }
        Ok(encoded("permute", [], [("array", Component::Encoded(array)), ("order", raw())]))
    }

    fn unit_rows(&self) -> usize {
        self.options.row_group
    }

    /// Its outliers are a share of a matrix, and its columns have one order.
    fn apart(&self) -> Apart {
        Apart::Matrices
    }

    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let statistics = match task.statistics {
            Some(inputs) => inputs.of_row(0)?.1,
            None => Arc::new(Statistics::identity(task.shape.columns)),
        };
        let solver = solver_of(&statistics, task.threads, self.order, self.damping)?;
        let solved = solver.spqr(task.weights, self.options(task.shape))?;
        let rows = task.shape.rows;
        let starts = (0..rows).step_by(task.block_rows);
        Ok(starts.map(|start| self.block(&solved, start..rows.min(start + task.block_rows))).collect())
    }
}
