//! `bitsandbytes_4bit`: places in a table of sixteen numbers, times the magnitude of their block. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::Number;
use super::params::Params;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts};

/// The `bitsandbytes_4bit` layout.
#[derive(Clone, Copy, Debug)]
pub struct BitsAndBytes4Bit;

/// What codes may be stored as, two to a byte (`bnb_4bit_quant_storage`).
const STORAGE: [Dtype; 4] = [Dtype::U8, Dtype::F16, Dtype::BF16, Dtype::F32];

/// How magnitudes are told that are quantized themselves.
#[derive(Clone, Copy, Debug)]
struct Nested {
    block: usize,
    offset: f32,
}

impl Nested {
    fn new(spec: &Spec<'_>, params: Params<'_>, blocks: usize) -> Result<Self> {
        let block = params.count("nested_block_size")?;
        let offset = f32::from_bits(params.integer("nested_offset_bits", 0..=u32::MAX)?);
        spec.part_of("magnitudes", &[Dtype::U8], blocks)?;
        spec.part_of("nested_table", &[Dtype::F32], 256)?;
        spec.part_of("nested_magnitudes", &[Dtype::F32], blocks.div_ceil(block))?;
        Ok(Self { block, offset })
    }
}

struct Config {
    dims: Dims,
    block: usize,
    nested: Option<Nested>,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let (required, nested) = (["codes", "magnitudes", "table"], ["nested_magnitudes", "nested_table"]);
        let is_nested = spec.has(nested[0]) || spec.has(nested[1]);
        let params = match is_nested {
            true => {
                let roles = [&required[..], &nested].concat();
                spec.roles(&roles, &[], &["block_size", "nested_block_size", "nested_offset_bits"])?
            }
            false => spec.roles(&required, &[], &["block_size"])?,
        };
        spec.float()?;
        let (dims, block) = (spec.dims()?, params.count("block_size")?);
        let blocks = dims.elements().div_ceil(block);
        spec.part_of_bytes("codes", &STORAGE, dims.elements().div_ceil(2))?;
        spec.part_of("table", &[Dtype::F32], 16)?;
        let nested = is_nested.then(|| Nested::new(spec, params, blocks)).transpose()?;
        if nested.is_none() {
            spec.part_of("magnitudes", &[Dtype::F32], blocks)?;
        }
        Ok(Self { dims, block, nested })
    }
}

#[derive(Debug)]
struct Blocks {
    columns: usize,
    block: usize,
    codes: Vec<u8>,
    table: Vec<f32>,
    magnitudes: Vec<f32>,
}

impl Decoder for Blocks {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let (mut at, mut values) = (rows.start * self.columns, values);
        while !values.is_empty() {
            let block = at / self.block;
            let (piece, rest) = values.split_at_mut(values.len().min((block + 1) * self.block - at));
            let magnitude = self.magnitudes[block];
            for (i, value) in (at..).zip(piece.iter_mut()) {
                let shift = if i % 2 == 0 { 4 } else { 0 };
                *value = self.table[usize::from(self.codes[i / 2] >> shift & 15)] * magnitude;
            }
            at += piece.len();
            values = rest;
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let i = row * self.columns + column;
        let byte = self.codes[i / 2];
        let code = if i.is_multiple_of(2) { byte / 16 } else { byte % 16 };
        self.table[usize::from(code)] * self.magnitudes[i / self.block]
    }
}

impl Layout for BitsAndBytes4Bit {
    fn name(&self) -> &'static str {
        "bitsandbytes_4bit"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let config = Config::new(spec)?;
        let magnitudes = parts.take("magnitudes");
        let floats = |bytes: Vec<u8>| Number::F32.all(&bytes);
        let magnitudes = match config.nested {
            None => floats(magnitudes),
            Some(Nested { block, offset }) => {
                let (table, outer) = (floats(parts.take("nested_table")), floats(parts.take("nested_magnitudes")));
                let magnitude = |(i, &code): (usize, &u8)| table[usize::from(code)] * outer[i / block] + offset;
                magnitudes.iter().enumerate().map(magnitude).collect()
            }
        };
        let (codes, table) = (parts.take("codes"), floats(parts.take("table")));
        Ok(Box::new(Blocks { columns: config.dims.columns, block: config.block, codes, table, magnitudes }))
    }
}
