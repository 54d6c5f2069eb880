//! `mxfp4`: numbers of four bits times the power of two of their group. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::{E2M1, Number};
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `mxfp4` layout.
#[derive(Clone, Copy, Debug)]
pub struct Mxfp4;

struct Config {
    /// Of the codes: rows and columns are those of the view, or the other way round.
    dims: Dims,
    group: usize,
    transposed: bool,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = spec.roles(&["codes", "scales"], &[], &["group_size", "order"])?;
        spec.float()?;
        let group = params.count("group_size")?;
        let transposed = params.one_of("order", &[("rows", false), ("transposed", true)])?;
        let view = spec.dims()?;
        let dims = if transposed { Dims { rows: view.columns, columns: view.rows, ..view } } else { view };
        if !dims.columns.is_multiple_of(2) {
            return Err(malformed("the rows of codes of layout mxfp4 are of even length"));
        }
        spec.part_of("codes", &[Dtype::U8, Dtype::I8], dims.elements() / 2)?;
        let groups = dims.stack * dims.rows * dims.columns.div_ceil(group);
        spec.part_of("scales", &[Dtype::U8, Dtype::F8_E8M0], groups)?;
        Ok(Self { dims, group, transposed })
    }
}

#[derive(Debug)]
struct Groups {
    dims: Dims,
    group: usize,
    transposed: bool,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl Groups {
    /// A row of codes: what `columns` of it are.
    fn row(&self, row: usize, columns: Range<usize>) -> impl Iterator<Item = f32> {
        let codes = &self.codes[row * (self.dims.columns / 2)..];
        let scales = &self.scales[row * self.dims.columns.div_ceil(self.group)..];
        columns.map(|column| {
            let code = codes[column / 2] >> (column % 2 * 4) & 15;
            E2M1[usize::from(code)] * Number::E8M0.get(scales, column / self.group)
        })
    }
}

impl Decoder for Groups {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        if !self.transposed {
            for (row, values) in rows.zip(values.chunks_exact_mut(self.dims.columns)) {
                values.iter_mut().zip(self.row(row, 0..self.dims.columns)).for_each(|(value, x)| *value = x);
            }
            return;
        }
        // Rows of the view are columns of the codes; a range may reach over several matrices.
        let (mut at, mut values) = (rows.start, values);
        while at < rows.end {
            let (matrix, first) = (at / self.dims.columns, at % self.dims.columns);
            let count = (rows.end - at).min(self.dims.columns - first);
            let (piece, rest) = values.split_at_mut(count * self.dims.rows);
            for row in 0..self.dims.rows {
                let column = piece[row..].iter_mut().step_by(self.dims.rows);
                let of_row = self.row(matrix * self.dims.rows + row, first..first + count);
                column.zip(of_row).for_each(|(value, x)| *value = x);
            }
            (at, values) = (at + count, rest);
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let (row, column) = match self.transposed {
            true => (row / self.dims.columns * self.dims.rows + column, row % self.dims.columns),
            false => (row, column),
        };
        let byte = self.codes[row * (self.dims.columns / 2) + column / 2];
        let code = if column % 2 == 0 { byte % 16 } else { byte / 16 };
        let scale = self.scales[row * self.dims.columns.div_ceil(self.group) + column / self.group];
        E2M1[usize::from(code)] * Number::E8M0.get(&[scale], 0)
    }
}

impl Layout for Mxfp4 {
    fn name(&self) -> &'static str {
        "mxfp4"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let Config { dims, group, transposed } = Config::new(spec)?;
        Ok(Box::new(Groups { dims, group, transposed, codes: parts.take("codes"), scales: parts.take("scales") }))
    }
}
