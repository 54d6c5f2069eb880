//! `bitsandbytes_8bit`: integers of eight bits, 127 of which are the greatest magnitude of their row. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts};
use crate::view::number::Number;

/// The `bitsandbytes_8bit` layout.
#[derive(Clone, Copy, Debug)]
pub struct BitsAndBytes8Bit;

/// 1/127, rounded.
const STEP: f32 = f32::from_bits(0x3c01_0204);

fn dims(spec: &Spec<'_>) -> Result<Dims> {
    spec.roles(&["codes", "magnitudes"], &[], &[])?;
    spec.float()?;
    let dims = spec.matrix()?;
    spec.part("codes", &[Dtype::I8], &[dims.rows, dims.columns])?;
    spec.part_of("magnitudes", &[Dtype::F32], dims.rows)?;
    Ok(dims)
}

#[derive(Debug)]
struct Rows {
    columns: usize,
    codes: Vec<u8>,
    magnitudes: Vec<f32>,
}

impl Decoder for Rows {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let codes = &self.codes[rows.start * self.columns..];
        for ((row, values), codes) in
            rows.zip(values.chunks_exact_mut(self.columns)).zip(codes.chunks_exact(self.columns))
        {
            let magnitude = self.magnitudes[row];
            values.iter_mut().zip(codes).for_each(|(value, code)| {
                *value = f32::from(code.cast_signed()) * magnitude * STEP;
            });
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        Number::I8.get(&self.codes, row * self.columns + column) * self.magnitudes[row] * STEP
    }
}

impl Layout for BitsAndBytes8Bit {
    fn name(&self) -> &'static str {
        "bitsandbytes_8bit"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        dims(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let columns = dims(spec)?.columns;
        let (codes, magnitudes) = (parts.take("codes"), Number::F32.all(&parts.take("magnitudes")));
        Ok(Box::new(Rows { columns, codes, magnitudes }))
    }
}
