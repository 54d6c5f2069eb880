//! `fp8`: floats of 8 bits with a scale for each rectangle.

use cmz_codec::array::Parts;
use cmz_codec::pipeline;
use cmz_format::{Dtype, Encoding, Result};

use super::small::{E4M3_MAX, e4m3_code};
use super::streams::{Float, encoded, floats, group};
use super::{Entry, Kind, Method, Param, Shape, Task};

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "fp8",
    bits: None,
    about: "8-bit floats (E4M3) with a scale for each rectangle",
    params: &[
        Param { name: "rows", default: "128", kind: Kind::Integer(1, 1 << 16), about: "rows that share a scale" },
        Param { name: "columns", default: "128", kind: Kind::Integer(1, 1 << 24), about: "columns that share a scale" },
    ],
    build: |_, params| {
        Ok(Box::new(Fp8 { rows: params.integer("rows") as usize, columns: params.integer("columns") as usize }))
    },
};

#[derive(Clone, Copy, Debug)]
struct Fp8 {
    rows: usize,
    columns: usize,
}

impl Method for Fp8 {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        Ok(encoded(
            "block_scale",
            [
                ("values", "F8_E4M3".into()),
                ("scale", "F32".into()),
                ("group", group(self.rows, self.columns.min(shape.columns))),
                ("sense", "multiply".into()),
            ],
            [("values", floats(Dtype::F8_E4M3)), ("scales", floats(Dtype::F32))],
        ))
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
            |first, _| Ok(self.block(task, first, rows.min(first + task.block_rows))),
            |block| {
                blocks.push(block);
                Ok(())
            },
        )?;
        Ok(blocks)
    }
}

impl Fp8 {
    fn block(&self, task: Task<'_>, first: usize, end: usize) -> Parts {
        let columns = self.columns.min(task.shape.columns);
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        for first in (first..end).step_by(self.rows) {
            let rows = first..end.min(first + self.rows);
            let mut greatest = vec![0.0f32; task.shape.columns.div_ceil(columns)];
            for row in rows.clone() {
                for (most, weights) in greatest.iter_mut().zip(task.weights.row(row).chunks(columns)) {
                    *most = weights.iter().fold(*most, |most, weight| most.max(weight.abs()));
                }
            }
            let of_group: Vec<f32> = greatest.iter().map(|most| most / E4M3_MAX).collect();
            for row in rows {
                for (&scale, weights) in of_group.iter().zip(task.weights.row(row).chunks(columns)) {
                    let share = |weight: f32| if scale == 0.0 { 0.0 } else { weight / scale };
                    values.extend(weights.iter().map(|&weight| e4m3_code(share(weight))));
                }
            }
            scales.extend(of_group);
        }
        Parts::Components(vec![Parts::Whole(values), Parts::Whole(Float::F32.bytes(scales.into_iter()))])
    }
}
