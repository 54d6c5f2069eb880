//! `nf4`, `mxfp4`, `nvfp4`: indices into a table of sixteen numbers, with a scale for each group.

use cmz_codec::array::Parts;
use cmz_format::{Component, Dtype, Encoding, Result};

use super::rounding::{Choosing, DAMPING, ORDER, SOLVER, round};
use super::small::{E2M1, E4M3_MAX, NF4 as NF4_TABLE, e4m3_code, e4m3_value, e8m0_code, e8m0_value};
use super::streams::{Float, encoded, floats, group, plain_raw, row_share, symbols, whole_block};
use super::{Apart, Entry, Kind, Method, Param, Params, Shape, Task, group_param};
use crate::solver::Grid;

const FIT: Param = Param {
    name: "fit",
    default: "error",
    kind: Kind::Word(&["error", "range"]),
    about: "scales with the least squared error, or those that reach all weights",
};

/// NF4 of QLoRA.
pub(super) const NF4: Entry = Entry {
    family: "nf4",
    bits: None,
    about: "4-bit numbers that suit a normal distribution (QLoRA)",
    params: &[
        group_param("64"),
        Param { name: "scale", default: "F16", kind: Kind::Word(Float::WORDS), about: "type of scales" },
        FIT,
        SOLVER,
        ORDER,
        DAMPING,
    ],
    build: |_, params| {
        let kind = ScaleKind::Float(Float::from_word(params.word("scale")));
        Ok(Box::new(Table::new(NF4_TABLE, params.integer("group"), kind, params)))
    },
};

/// MXFP4 of the Open Compute Project.
pub(super) const MXFP4: Entry = Entry {
    family: "mxfp4",
    bits: None,
    about: "4-bit floats (E2M1) in groups of 32 with a power of two (OCP MX)",
    params: &[FIT, SOLVER, ORDER, DAMPING],
    build: |_, params| Ok(Box::new(Table::new(E2M1, 32, ScaleKind::E8m0, params))),
};

/// NVFP4.
pub(super) const NVFP4: Entry = Entry {
    family: "nvfp4",
    bits: None,
    about: "4-bit floats (E2M1) in groups of 16 with a scale in E4M3, and one scale for the tensor",
    params: &[FIT, SOLVER, ORDER, DAMPING],
    build: |_, params| Ok(Box::new(Table::new(E2M1, 16, ScaleKind::E4m3, params))),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScaleKind {
    Float(Float),
    E8m0,
    /// Times one scale of the whole tensor.
    E4m3,
}

#[derive(Clone, Copy, Debug)]
struct Table {
    values: [f32; 16],
    group: u32,
    scale: ScaleKind,
    search: bool,
    choosing: Choosing,
}

/// Shares of the range that are tried as scales, in 32nds.
const SHARES: std::ops::RangeInclusive<u8> = 16..=32;

impl Table {
    fn new(values: [f32; 16], group: u32, scale: ScaleKind, params: &Params<'_>) -> Self {
        Self { values, group, scale, search: params.word("fit") == "error", choosing: Choosing::of(params) }
    }
}

/// A table with what is known of the whole tensor.
struct TableGrid {
    table: Table,
    /// Values with their codes, ascending; of equal ones the first.
    sorted: Vec<(f32, u8)>,
    /// The scale of scales.
    of_tensor: f32,
}

impl TableGrid {
    fn new(table: Table, weights: &[f32]) -> Self {
        let mut sorted: Vec<(f32, u8)> = table.values.iter().map(|value| value + 0.0).zip(0..).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        sorted.dedup_by_key(|(value, _)| *value);
        let greatest = weights.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let of_tensor = match table.scale {
            ScaleKind::E4m3 if greatest > 0.0 => (greatest / 6.0 / E4M3_MAX).max(f32::MIN_POSITIVE),
            _ => 1.0,
        };
        Self { table, sorted, of_tensor }
    }

    /// The scale that can be stored for this one.
    fn round_scale(&self, scale: f64) -> f32 {
        match self.table.scale {
            ScaleKind::Float(float) => float.round(scale),
            ScaleKind::E8m0 => e8m0_value(e8m0_code(scale)) as f32,
            ScaleKind::E4m3 => e4m3_value(e4m3_code((scale / f64::from(self.of_tensor)) as f32)) * self.of_tensor,
        }
    }

    fn nearest(&self, scale: f32, weight: f32) -> (f32, u8) {
        let share = if scale == 0.0 { 0.0 } else { weight / scale };
        let above = self.sorted.partition_point(|(value, _)| *value < share).min(self.sorted.len() - 1);
        let below = above.saturating_sub(1);
        let closer = share - self.sorted[below].0 <= self.sorted[above].0 - share;
        self.sorted[if closer { below } else { above }]
    }

    fn squared_error(&self, scale: f32, weights: &[f32]) -> f64 {
        let error = |&weight: &f32| f64::from(self.nearest(scale, weight).0 * scale) - f64::from(weight);
        weights.iter().map(error).map(|error| error * error).sum()
    }
}

impl Grid for TableGrid {
    /// The scale as it decodes.
    type Group = f32;

    fn fit(&self, weights: &[f32]) -> f32 {
        let greatest = weights.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let reaching = f64::from(greatest) / f64::from(self.sorted.last().map_or(1.0, |(value, _)| *value));
        let widest = self.round_scale(reaching);
        if !self.table.search {
            return widest;
        }
        let mut best = (self.squared_error(widest, weights), widest);
        let mut last = widest;
        for share in SHARES.rev() {
            let scale = self.round_scale(reaching * f64::from(share) / 32.0);
            if scale != last {
                last = scale;
                let error = self.squared_error(scale, weights);
                if error < best.0 {
                    best = (error, scale);
                }
            }
        }
        best.1
    }

    fn code(&self, &scale: &f32, weight: f32) -> u8 {
        self.nearest(scale, weight).1
    }

    fn value(&self, &scale: &f32, code: u8) -> f32 {
        self.table.values[usize::from(code)] * scale
    }
}

impl Method for Table {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        let codebook = encoded(
            "codebook",
            [
                ("bits", 4.into()),
                ("form", "table".into()),
                ("dim", 1.into()),
                ("table", "F32".into()),
                ("group", whole_block()),
            ],
            [("indices", symbols()), ("table", plain_raw())],
        );
        let (scale, scales) = match self.scale {
            ScaleKind::Float(float) => (float.dtype(), floats(float.dtype())),
            ScaleKind::E8m0 => (Dtype::F8_E8M0, floats(Dtype::F8_E8M0)),
            ScaleKind::E4m3 => {
                let params = [
                    ("values", "F8_E4M3".into()),
                    ("scale", "F32".into()),
                    ("group", whole_block()),
                    ("sense", "multiply".into()),
                ];
                let components = [("values", floats(Dtype::F8_E4M3)), ("scales", plain_raw())];
                (Dtype::F32, Component::Encoded(encoded("block_scale", params, components)))
            }
        };
        Ok(encoded(
            "block_scale",
            [
                ("values", "F32".into()),
                ("scale", scale.name().into()),
                ("group", group(1, row_share(self.group, shape))),
                ("sense", "multiply".into()),
            ],
            [("values", Component::Encoded(codebook)), ("scales", scales)],
        ))
    }

    fn apart(&self) -> Apart {
        if self.scale == ScaleKind::E4m3 { Apart::Tensors } else { Apart::Rows }
    }

    fn needs_statistics(&self) -> bool {
        self.choosing.needs_statistics()
    }

    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let grid = TableGrid::new(*self, task.weights.data());
        let blocks = round(task, &grid, row_share(self.group, task.shape), self.choosing)?;
        let parts = blocks.into_iter().map(|block| {
            let table = Parts::Whole(Float::F32.bytes(self.values.iter().copied()));
            let scales = block.groups.iter().copied();
            let scales = match self.scale {
                ScaleKind::Float(float) => Parts::Whole(float.bytes(scales)),
                ScaleKind::E8m0 => Parts::Whole(scales.map(|scale| e8m0_code(scale.into())).collect()),
                ScaleKind::E4m3 => Parts::Components(vec![
                    Parts::Whole(scales.map(|scale| e4m3_code(scale / grid.of_tensor)).collect()),
                    Parts::Whole(Float::F32.bytes(std::iter::once(grid.of_tensor))),
                ]),
            };
            Parts::Components(vec![Parts::Components(vec![Parts::Whole(block.codes), table]), scales])
        });
        Ok(parts.collect())
    }
}
