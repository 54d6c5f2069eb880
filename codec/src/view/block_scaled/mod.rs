//! `block_scaled`: numbers of eight bits times the scale of their block. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::Number;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `block_scaled` layout.
#[derive(Clone, Copy, Debug)]
pub struct BlockScaled;

struct Config {
    dims: Dims,
    block: (usize, usize),
    code: Number,
    scale: Number,
}

const CODES: [Dtype; 3] = [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I8];
const SCALES: [Dtype; 4] = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0];

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = spec.roles(&["codes", "scales"], &[], &["block_rows", "block_columns"])?;
        spec.float()?;
        let block = (params.count("block_rows")?, params.count("block_columns")?);
        let dims = spec.dims()?;
        let blocks = dims.stack * dims.rows.div_ceil(block.0) * dims.columns.div_ceil(block.1);
        let code = spec.part_of("codes", &CODES, dims.elements())?;
        let scale = spec.part_of("scales", &SCALES, blocks)?;
        let number = |dtype| Number::of(dtype).ok_or_else(|| malformed("a part that is not of numbers"));
        Ok(Self { dims, block, code: number(code)?, scale: number(scale)? })
    }
}

#[derive(Debug)]
struct Blocks {
    dims: Dims,
    /// Rows and columns of a block.
    block: (usize, usize),
    code: Number,
    /// The number that each code is.
    values: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Blocks {
    /// The first block of a row.
    fn first_block(&self, row: usize) -> usize {
        let (matrix, row) = (row / self.dims.rows, row % self.dims.rows);
        let blocks = self.dims.rows.div_ceil(self.block.0);
        (matrix * blocks + row / self.block.0) * self.dims.columns.div_ceil(self.block.1)
    }
}

impl Decoder for Blocks {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        for (row, values) in rows.zip(values.chunks_exact_mut(self.dims.columns)) {
            let codes = self.codes[row * self.dims.columns..][..self.dims.columns].chunks(self.block.1);
            let scales = &self.scales[self.first_block(row)..];
            for ((codes, values), scale) in codes.zip(values.chunks_mut(self.block.1)).zip(scales) {
                for (value, &code) in values.iter_mut().zip(codes) {
                    *value = self.values[usize::from(code)] * scale;
                }
            }
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let scale = self.scales[self.first_block(row) + column / self.block.1];
        self.code.get(&self.codes, row * self.dims.columns + column) * scale
    }
}

impl Layout for BlockScaled {
    fn name(&self) -> &'static str {
        "block_scaled"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let Config { dims, block, code, scale } = Config::new(spec)?;
        let (codes, scales) = (parts.take("codes"), scale.all(&parts.take("scales")));
        Ok(Box::new(Blocks { dims, block, code, values: code.of_bytes(), codes, scales }))
    }
}
