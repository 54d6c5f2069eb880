//! `awq`: integers of four bits, eight rows to a word in an order of their own. See `SPEC.md` in this folder.

use cmz_format::{Dtype, Result};

use super::integer::{GroupSpec, Integers, Packed, Words};
use super::number::Number;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `awq` layout.
#[derive(Clone, Copy, Debug)]
pub struct Awq;

/// The row of each four bits of a word, from the lowest.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Where in a word each row is, in bits: the inverse.
const SHIFT: [u32; 8] = [0, 16, 4, 20, 8, 24, 12, 28];

struct Config {
    dims: Dims,
    groups: GroupSpec,
    scale: Dtype,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = spec.roles(&["codes", "scales", "zero_points"], &[], &["bits", "group_size"])?;
        spec.float()?;
        params.integer("bits", 4..=4)?;
        let dims = spec.matrix()?;
        if !dims.rows.is_multiple_of(8) {
            return Err(malformed("a view of layout awq has a multiple of 8 rows"));
        }
        let groups = GroupSpec::new(spec, params, dims.columns, 0)?;
        spec.part("codes", &[Dtype::I32], &[dims.columns, dims.rows / 8])?;
        spec.part("zero_points", &[Dtype::I32], &[groups.count, dims.rows / 8])?;
        let scale = spec.part("scales", &[Dtype::F16, Dtype::BF16, Dtype::F32], &[groups.count, dims.rows])?;
        Ok(Self { dims, groups, scale })
    }
}

#[derive(Debug)]
struct Interleaved {
    rows: usize,
    codes: Words,
    zero_points: Words,
    scales: Vec<f32>,
}

impl Packed for Interleaved {
    #[inline]
    fn code(&self, row: usize, column: usize) -> u32 {
        self.codes.get(column * (self.rows / 8) + row / 8) >> SHIFT[row % 8] & 15
    }

    fn code_naive(&self, row: usize, column: usize) -> u32 {
        of_word(self.codes.get(column * (self.rows / 8) + row / 8), row % 8)
    }

    fn zero_point(&self, group: usize, row: usize) -> i32 {
        of_word(self.zero_points.get(group * (self.rows / 8) + row / 8), row % 8).cast_signed()
    }

    fn scale(&self, group: usize, row: usize) -> f32 {
        self.scales[group * self.rows + row]
    }
}

/// The code of one of eight rows.
fn of_word(word: u32, row: usize) -> u32 {
    let place = ORDER.iter().position(|&other| other == row).unwrap_or(0);
    word >> (4 * place) & 15
}

impl Layout for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let config = Config::new(spec)?;
        let packed = Interleaved {
            rows: config.dims.rows,
            codes: Words(parts.take("codes")),
            zero_points: Words(parts.take("zero_points")),
            scales: Number::of(config.scale).map(|number| number.all(&parts.take("scales"))).unwrap_or_default(),
        };
        let groups = config.groups.load(&[])?;
        Ok(Box::new(Integers { packed, groups, group_count: config.groups.count, columns: config.dims.columns }))
    }
}
