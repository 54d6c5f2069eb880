//! `gptq`: integers packed along the columns of each row. See `SPEC.md` in this folder.

use cmz_format::{Dtype, Result};

use super::integer::{GroupSpec, Integers, Packed, Words};
use super::number::Number;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts};

/// The `gptq` layout.
#[derive(Clone, Copy, Debug)]
pub struct Gptq;

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroPoints {
    /// Less one, modulo 2^bits.
    MinusOne,
    /// As they are.
    Stored,
}

struct Config {
    bits: u32,
    zero_points: ZeroPoints,
    dims: Dims,
    groups: GroupSpec,
    scale: Dtype,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = ["bits", "group_size", "zero_points"];
        let params = spec.roles(&["codes", "scales", "zero_points"], &["groups"], &params)?;
        spec.float()?;
        let bits = params.integer("bits", 2..=8)?;
        let zero_points = [("minus_one", ZeroPoints::MinusOne), ("stored", ZeroPoints::Stored)];
        let zero_points = params.one_of("zero_points", &zero_points)?;
        let dims = spec.matrix()?;
        let groups = GroupSpec::new(spec, params, dims.columns, 0)?;
        let words = |codes: usize| (codes * bits as usize).div_ceil(32);
        spec.part("codes", &[Dtype::I32], &[words(dims.columns), dims.rows])?;
        spec.part("zero_points", &[Dtype::I32], &[groups.count, words(dims.rows)])?;
        let scale = spec.part("scales", &[Dtype::F16, Dtype::BF16, Dtype::F32], &[groups.count, dims.rows])?;
        Ok(Self { bits, zero_points, dims, groups, scale })
    }
}

#[derive(Debug)]
struct Columns {
    bits: u32,
    minus_one: bool,
    rows: usize,
    codes: Words,
    zero_points: Words,
    scales: Vec<f32>,
}

impl Packed for Columns {
    #[inline]
    fn code(&self, row: usize, column: usize) -> u32 {
        self.codes.field(row, self.rows, column * self.bits as usize, self.bits)
    }

    fn code_naive(&self, row: usize, column: usize) -> u32 {
        self.codes.field_naive(row, self.rows, column * self.bits as usize, self.bits)
    }

    fn zero_point(&self, group: usize, row: usize) -> i32 {
        let first = group * (self.rows * self.bits as usize).div_ceil(32);
        let stored = self.zero_points.field_naive(first, 1, row * self.bits as usize, self.bits);
        let zero_point = if self.minus_one { (stored + 1) & ((1 << self.bits) - 1) } else { stored };
        zero_point.cast_signed()
    }

    fn scale(&self, group: usize, row: usize) -> f32 {
        self.scales[group * self.rows + row]
    }
}

impl Layout for Gptq {
    fn name(&self) -> &'static str {
        "gptq"
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
        let packed = Columns {
            bits: config.bits,
            minus_one: config.zero_points == ZeroPoints::MinusOne,
            rows: config.dims.rows,
            codes: Words(parts.take("codes")),
            zero_points: Words(parts.take("zero_points")),
            scales: Number::of(config.scale).map(|number| number.all(&parts.take("scales"))).unwrap_or_default(),
        };
        let groups = config.groups.load(&parts.take("groups"))?;
        Ok(Box::new(Integers { packed, groups, group_count: config.groups.count, columns: config.dims.columns }))
    }
}
