//! `nvfp4`: numbers of four bits times the scale of their group and one of the whole tensor. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::{E2M1, Number};
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `nvfp4` layout.
#[derive(Clone, Copy, Debug)]
pub struct Nvfp4;

/// What the scale of the whole tensor does.
#[derive(Clone, Copy, Debug)]
enum Sense {
    Divisor,
    Multiplier,
}

struct Config {
    dims: Dims,
    group: usize,
    sense: Sense,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = spec.roles(&["codes", "scales", "global_scale"], &[], &["group_size", "global_scale"])?;
        spec.float()?;
        let senses = [("divisor", Sense::Divisor), ("multiplier", Sense::Multiplier)];
        let (group, sense) = (params.count("group_size")?, params.one_of("global_scale", &senses)?);
        let dims = spec.dims()?;
        if !dims.columns.is_multiple_of(2) {
            return Err(malformed("a view of layout nvfp4 has an even number of columns"));
        }
        spec.part_of("codes", &[Dtype::U8], dims.elements() / 2)?;
        spec.part_of("scales", &[Dtype::F8_E4M3], dims.stack * dims.rows * dims.columns.div_ceil(group))?;
        spec.part_of("global_scale", &[Dtype::F32], 1)?;
        Ok(Self { dims, group, sense })
    }
}

#[derive(Debug)]
struct Groups {
    columns: usize,
    group: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Decoder for Groups {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let groups = self.columns.div_ceil(self.group);
        for (row, values) in rows.zip(values.chunks_exact_mut(self.columns)) {
            let codes = &self.codes[row * self.columns / 2..];
            let scales = &self.scales[row * groups..][..groups];
            for (group, (scale, values)) in scales.iter().zip(values.chunks_mut(self.group)).enumerate() {
                for (column, value) in (group * self.group..).zip(values) {
                    *value = E2M1[usize::from(codes[column / 2] >> (column % 2 * 4) & 15)] * scale;
                }
            }
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let byte = self.codes[row * (self.columns / 2) + column / 2];
        let code = if column.is_multiple_of(2) { byte % 16 } else { byte / 16 };
        E2M1[usize::from(code)] * self.scales[row * self.columns.div_ceil(self.group) + column / self.group]
    }
}

impl Layout for Nvfp4 {
    fn name(&self) -> &'static str {
        "nvfp4"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let Config { dims, group, sense } = Config::new(spec)?;
        let global = Number::F32.get(&parts.take("global_scale"), 0);
        let scale = |scale: f32| match sense {
            Sense::Divisor => scale / global,
            Sense::Multiplier => scale * global,
        };
        let scales = Number::E4M3.all(&parts.take("scales")).into_iter().map(scale).collect();
        Ok(Box::new(Groups { columns: dims.columns, group, codes: parts.take("codes"), scales }))
    }
}
