//! `spqr_tiles`: tiles of 16 by 16 codes with scales in two levels, and outliers. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::round_to_half as half;
use super::order::Order;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `spqr_tiles` layout.
#[derive(Clone, Copy, Debug)]
pub struct SpqrTiles;

/// Rows and columns of a tile.
const TILE: usize = 16;
/// Where the byte of the second level begins in a row of a tile, in bits.
const SECOND_LEVEL: u32 = 54;

/// How outliers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outliers {
    /// Row by row.
    Rows,
    /// Sixteen rows at a time, one of each in turn.
    Tiles,
}

struct Config {
    dims: Dims,
    outliers: Outliers,
    has_order: bool,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let params = spec.roles(&["codes", "outliers", "outlier_offsets"], &["order"], &["outliers"])?;
        spec.float()?;
        let outliers = params.one_of("outliers", &[("csr", Outliers::Rows), ("ptcsr", Outliers::Tiles)])?;
        let dims = spec.matrix()?;
        if dims.columns > 1 << 16 {
            return Err(malformed("a view of layout spqr_tiles has at most 65536 columns"));
        }
        let words = dims.rows.div_ceil(TILE) * dims.columns.div_ceil(TILE) * TILE;
        spec.part("codes", &[Dtype::I64], &[words])?;
        let offsets = match outliers {
            Outliers::Rows => dims.rows,
            Outliers::Tiles if dims.rows.is_multiple_of(TILE) => dims.rows / TILE,
            Outliers::Tiles => return Err(malformed("outliers by tiles need a multiple of 16 rows")),
        };
        spec.part("outlier_offsets", &[Dtype::I32], &[offsets + 1])?;
        spec.part("outliers", &[Dtype::I32], &[spec.count("outliers")?])?;
        let has_order = spec.has("order");
        if has_order {
            if !dims.columns.is_multiple_of(2) {
                return Err(malformed("an order of columns needs an even number of them"));
            }
            spec.part("order", &[Dtype::I32], &[dims.columns / 2])?;
        }
        Ok(Self { dims, outliers, has_order })
    }
}

/// A number added to an element.
#[derive(Clone, Copy, Debug)]
struct Outlier {
    row: usize,
    /// Among the columns as they are stored.
    column: usize,
    value: f32,
}

#[derive(Debug)]
struct Tiles {
    dims: Dims,
    codes: Vec<u64>,
    /// By rows, in the order in which they are added.
    outliers: Vec<Outlier>,
    order: Order,
}

impl Config {
    fn order(&self, bytes: &[u8]) -> Result<Order> {
        match self.has_order {
            true => Order::new(bytes.as_chunks().0.iter().map(|&column| u16::from_le_bytes(column).into()).collect()),
            false => Ok(Order::as_stored(self.dims.columns)),
        }
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

fn float16(bits: u64) -> f32 {
    half::f16::from_bits(bits as u16).to_f32()
}

/// Scale and zero point of a row of a tile.
fn first_level(word: u64, second_level: u64) -> (f32, f32) {
    let [ss, zs, sz, zz] = [0, 16, 32, 48].map(|shift| float16(second_level >> shift));
    let (qs, qz) = ((word & 7) as f32, (word >> 3 & 7) as f32);
    (half(ss * half(qs - sz)), half(zs * half(qz - zz)))
}

/// The second level of a tile: each row has a byte of it.
fn second_level(tile: &[u64]) -> u64 {
    tile.iter().enumerate().fold(0, |bits, (row, word)| bits | (word >> SECOND_LEVEL & 0xff) << (row / 2 * 8))
}

impl Tiles {
    fn tile(&self, row: usize, column: usize) -> &[u64] {
        let tiles = self.dims.columns.div_ceil(TILE);
        &self.codes[(row / TILE * tiles + column / TILE) * TILE..][..TILE]
    }
}

/// The outliers by rows.
fn read_outliers(config: &Config, offsets: &[u32], entries: &[u32]) -> Result<Vec<Outlier>> {
    let first = offsets.first().is_none_or(|&first| first == 0);
    if !first
        || offsets.windows(2).any(|pair| pair[0] > pair[1])
        || offsets.last().is_some_and(|&n| n as usize > entries.len())
    {
        return Err(malformed("the offsets of outliers do not ascend from 0 to at most their number"));
    }
    let mut outliers = Vec::new();
    for (run, pair) in offsets.windows(2).enumerate() {
        let first = pair[0] as usize;
        for (at, entry) in (first..).zip(&entries[first..pair[1] as usize]) {
            let row = match config.outliers {
                Outliers::Rows => run,
                Outliers::Tiles => run * TILE + at % TILE,
            };
            let column = (entry & 0xffff) as usize;
            if column >= config.dims.columns {
                return Err(malformed(format!("an outlier in column {column} of {}", config.dims.columns)));
            }
            outliers.push(Outlier { row, column, value: float16((entry >> 16).into()) });
        }
    }
    // Stable: those of one element stay in their order.
    outliers.sort_by_key(|outlier| outlier.row);
    Ok(outliers)
}

impl Decoder for Tiles {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let columns = self.dims.columns;
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(columns)) {
            for first in (0..columns).step_by(TILE) {
                let tile = self.tile(row, first);
                let word = tile[row % TILE];
                let (scale, zero_point) = first_level(word, second_level(tile));
                for (place, &column) in self.order.columns()[first..columns.min(first + TILE)].iter().enumerate() {
                    let code = (word >> (6 + 3 * place) & 7) as f32;
                    values[column] = half(scale * half(code - zero_point));
                }
            }
        }
        let first = self.outliers.partition_point(|outlier| outlier.row < rows.start);
        for outlier in self.outliers[first..].iter().take_while(|outlier| outlier.row < rows.end) {
            values[(outlier.row - rows.start) * columns + self.order.columns()[outlier.column]] += outlier.value;
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let stored = self.order.stored(column);
        let tile = self.tile(row, stored);
        let second: [u8; 8] = std::array::from_fn(|i| {
            let of = |row: usize| (tile[row] >> SECOND_LEVEL) as u8;
            of(2 * i) | of(2 * i + 1)
        });
        let (scale, zero_point) = first_level(tile[row % TILE], u64::from_le_bytes(second));
        let code =
            (0..3).map(|bit| (tile[row % TILE] >> (6 + 3 * (stored % TILE) + bit) & 1) << bit).sum::<u64>() as f32;
        let own = self.outliers.iter().filter(|outlier| (outlier.row, outlier.column) == (row, stored));
        own.fold(half(scale * half(code - zero_point)), |sum, outlier| sum + outlier.value)
    }
}

impl Layout for SpqrTiles {
    fn name(&self) -> &'static str {
        "spqr_tiles"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn check_places(&self, spec: &Spec<'_>, part: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        let config = Config::new(spec)?;
        config.order(&if config.has_order { part("order")? } else { Vec::new() })?;
        read_outliers(&config, &words(&part("outlier_offsets")?), &words(&part("outliers")?)).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let config = Config::new(spec)?;
        let order = config.order(&parts.take("order"))?;
        let (offsets, entries) = (words(&parts.take("outlier_offsets")), words(&parts.take("outliers")));
        let outliers = read_outliers(&config, &offsets, &entries)?;
        let codes = parts.take("codes").as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
        Ok(Box::new(Tiles { dims: config.dims, codes, outliers, order }))
    }
}
