//! `compressed_tensors_int`: signed integers packed along rows. See `SPEC.md` in this folder.

use cmz_format::{Dtype, Result};

use super::integer::{GroupSpec, Integers, Packed, Words};
use super::number::Number;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts};

/// The `compressed_tensors_int` layout.
#[derive(Clone, Copy, Debug)]
pub struct CompressedTensorsInt;

/// How codes lie in words of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// One behind the other.
    Dense,
    /// As many as fit a word.
    Padded,
}

impl Packing {
    /// Words that codes take.
    fn words(self, codes: usize, bits: u32) -> usize {
        match self {
            Self::Dense => (codes * bits as usize).div_ceil(32),
            Self::Padded => codes.div_ceil(32 / bits as usize),
        }
    }

    /// Where a code begins, in bits.
    #[inline]
    fn at(self, code: usize, bits: u32) -> usize {
        match self {
            Self::Dense => code * bits as usize,
            Self::Padded => {
                let each = 32 / bits as usize;
                code / each * 32 + code % each * bits as usize
            }
        }
    }
}

struct Config {
    bits: u32,
    packing: Packing,
    has_zero_points: bool,
    dims: Dims,
    groups: GroupSpec,
    scale: Dtype,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = ["bits", "group_size", "packing"];
        let params = spec.roles(&["codes", "scales"], &["zero_points", "groups"], &params)?;
        spec.float()?;
        let bits = params.integer("bits", 1..=8)?;
        let packing = params.one_of("packing", &[("dense", Packing::Dense), ("padded", Packing::Padded)])?;
        let dims = spec.matrix()?;
        let groups = GroupSpec::new(spec, params, dims.columns, 1)?;
        spec.part("codes", &[Dtype::I32], &[dims.rows, packing.words(dims.columns, bits)])?;
        let has_zero_points = spec.has("zero_points");
        if has_zero_points {
            spec.part("zero_points", &[Dtype::I32], &[packing.words(dims.rows, bits), groups.count])?;
        }
        let scale = spec.part("scales", &[Dtype::F16, Dtype::BF16, Dtype::F32], &[dims.rows, groups.count])?;
        Ok(Self { bits, packing, has_zero_points, dims, groups, scale })
    }
}

#[derive(Debug)]
struct Rows {
    bits: u32,
    packing: Packing,
    /// Words of a row.
    words: usize,
    group_count: usize,
    codes: Words,
    zero_points: Option<Words>,
    scales: Vec<f32>,
}

impl Packed for Rows {
    #[inline]
    fn code(&self, row: usize, column: usize) -> u32 {
        self.codes.field(row * self.words, 1, self.packing.at(column, self.bits), self.bits)
    }

    fn code_naive(&self, row: usize, column: usize) -> u32 {
        self.codes.field_naive(row * self.words, 1, self.packing.at(column, self.bits), self.bits)
    }

    fn zero_point(&self, group: usize, row: usize) -> i32 {
        // Both are stored with the same offset, which is that of a zero point of 0.
        let stored = match &self.zero_points {
            Some(words) => words.field_naive(group, self.group_count, self.packing.at(row, self.bits), self.bits),
            None => 1 << (self.bits - 1),
        };
        stored.cast_signed()
    }

    fn scale(&self, group: usize, row: usize) -> f32 {
        self.scales[row * self.group_count + group]
    }
}

impl Layout for CompressedTensorsInt {
    fn name(&self) -> &'static str {
        "compressed_tensors_int"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn check_places(&self, spec: &Spec<'_>, part: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        let groups = if spec.has("groups") { part("groups")? } else { Vec::new() };
        Config::new(spec)?.groups.load(&groups).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let config = Config::new(spec)?;
        let packed = Rows {
            bits: config.bits,
            packing: config.packing,
            words: config.packing.words(config.dims.columns, config.bits),
            group_count: config.groups.count,
            codes: Words(parts.take("codes")),
            zero_points: config.has_zero_points.then(|| Words(parts.take("zero_points"))),
            scales: Number::of(config.scale).map(|number| number.all(&parts.take("scales"))).unwrap_or_default(),
        };
        let groups = config.groups.load(&parts.take("groups"))?;
        Ok(Box::new(Integers { packed, groups, group_count: config.groups.count, columns: config.dims.columns }))
    }
}
