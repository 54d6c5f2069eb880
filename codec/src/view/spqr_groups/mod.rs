//! `spqr_groups`: groups of columns with scales in up to two levels, and outliers that replace. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::number::{Float, Number, element, rounded};
use super::order::Order;
use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};

/// The `spqr_groups` layout.
#[derive(Clone, Copy, Debug)]
pub struct SpqrGroups;

/// The parts of a group: codes of the first level, and two numbers of the second.
const SCALES: [&str; 3] = ["scales", "scale_scales", "scale_zero_points"];
const ZERO_POINTS: [&str; 3] = ["zero_points", "zero_point_scales", "zero_point_zero_points"];

struct Config {
    dims: Dims,
    /// Columns of a group.
    size: usize,
    groups: usize,
    /// Rows that share numbers of the second level, if there is one.
    shared: Option<usize>,
    /// The type in which is computed.
    float: Float,
}

impl Config {
    fn new(spec: &Spec<'_>) -> Result<Self> {
        let (fixed, numbered) = (["codes", "order", "outlier_places", "outliers"], [SCALES, ZERO_POINTS].concat());
        let params = spec.numbered_roles(&fixed, &numbered, &["group_size"])?;
        spec.float()?;
        let (dims, size) = (spec.matrix()?, params.count("group_size")?);
        let groups = dims.columns.div_ceil(size);
        spec.part("codes", &[Dtype::I8], &[dims.rows, dims.columns])?;
        spec.part("order", &[Dtype::I32], &[dims.columns])?;
        let dtype = spec.part("outliers", &[Dtype::F16, Dtype::BF16, Dtype::F32], &[spec.count("outliers")?])?;
        spec.part("outlier_places", &[Dtype::I64], &[2, spec.count("outliers")?])?;
        let float = element(dtype).ok_or_else(|| malformed("outliers that are no numbers"))?;
        let two_levels = spec.has("scale_scales.0");
        for (i, role) in numbered.iter().enumerate() {
            spec.count_of(role, if two_levels || i % 3 == 0 { groups } else { 0 })?;
        }
        let shared = if two_levels { Some(spec.dimension("scales.0", 1)?) } else { None };
        if shared.is_some_and(|shared| shared == 0 || !dims.rows.is_multiple_of(shared)) {
            return Err(malformed("numbers of a second level that do not divide the rows"));
        }
        for role in [SCALES, ZERO_POINTS] {
            for group in 0..groups {
                let part =
                    |i: usize, dtype, shape: &[usize]| spec.part(&format!("{}.{group}", role[i]), &[dtype], shape);
                match shared {
                    None => part(0, dtype, &[dims.rows, 1])?,
                    Some(shared) => {
                        part(0, Dtype::I8, &[dims.rows / shared, shared])?;
                        part(1, dtype, &[dims.rows / shared, 1])?;
                        part(2, dtype, &[dims.rows / shared, 1])?
                    }
                };
            }
        }
        Ok(Self { dims, size, groups, shared, float })
    }

    /// The scales or zero points of all groups.
    fn levels(&self, roles: [&str; 3], parts: &mut Parts) -> Levels {
        let take = |parts: &mut Parts, role: &str, number: Number| -> Vec<f32> {
            (0..self.groups).flat_map(|group| number.all(&parts.take(&format!("{role}.{group}")))).collect()
        };
        let float = Number::Float(self.float);
        let Some(shared) = self.shared else {
            return Levels { first: take(parts, roles[0], float), second: Vec::new(), shared: 1, float: self.float };
        };
        let first = take(parts, roles[0], Number::I8);
        let (scales, zero_points) = (take(parts, roles[1], float), take(parts, roles[2], float));
        Levels { first, second: scales.into_iter().zip(zero_points).collect(), shared, float: self.float }
    }
}

/// A number for each group and row, groups first.
#[derive(Debug)]
struct Levels {
    first: Vec<f32>,
    /// Scale and zero point of so many consecutive ones of the first level; none if those are the numbers.
    second: Vec<(f32, f32)>,
    shared: usize,
    float: Float,
}

impl Levels {
    fn get(&self, i: usize) -> f32 {
        match self.second.get(i / self.shared) {
            Some(&(scale, zero_point)) => dequantize(self.float, self.first[i], scale, zero_point),
            None => self.first[i],
        }
    }

    fn all(&self) -> Vec<f32> {
        (0..self.first.len()).map(|i| self.get(i)).collect()
    }
}

fn dequantize(float: Float, code: f32, scale: f32, zero_point: f32) -> f32 {
    rounded(float, scale * rounded(float, code - zero_point))
}

/// An element with its outlier, if that is not zero.
fn replace(x: f32, outlier: f32) -> f32 {
    // Where x is not finite, so is the result.
    x * 0.0 + outlier
}

/// A place in the matrix as it is stored, and the number there.
#[derive(Clone, Copy, Debug)]
struct Outlier {
    row: usize,
    column: usize,
    value: f32,
}

fn read_order(bytes: &[u8]) -> Result<Order> {
    Order::new(bytes.as_chunks().0.iter().map(|&column| u32::from_le_bytes(column) as usize).collect())
}

/// The outliers, given their values.
fn read_outliers(dims: Dims, places: &[u8], values: impl ExactSizeIterator<Item = f32>) -> Result<Vec<Outlier>> {
    let places: Vec<u64> = places.as_chunks().0.iter().map(|&place| u64::from_le_bytes(place)).collect();
    let mut outliers: Vec<Outlier> = Vec::with_capacity(values.len());
    let (rows, columns) = places.split_at(values.len());
    for ((&row, &column), value) in rows.iter().zip(columns).zip(values) {
        if row >= dims.rows as u64 || column >= dims.columns as u64 {
            let (row, column) = (row.cast_signed(), column.cast_signed());
            return Err(malformed(format!("an outlier in row {row} and column {column}, outside the matrix")));
        }
        let outlier = Outlier { row: row as usize, column: column as usize, value };
        if outliers.last().is_some_and(|last| (last.row, last.column) >= (outlier.row, outlier.column)) {
            return Err(malformed("outliers whose places do not ascend"));
        }
        outliers.push(outlier);
    }
    Ok(outliers)
}

#[derive(Debug)]
struct Groups {
    dims: Dims,
    size: usize,
    float: Float,
    codes: Vec<u8>,
    scale_levels: Levels,
    zero_point_levels: Levels,
    /// What the levels say.
    scales: Vec<f32>,
    zero_points: Vec<f32>,
    /// By row and stored column.
    outliers: Vec<Outlier>,
    order: Order,
}

impl Decoder for Groups {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let columns = self.dims.columns;
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(columns)) {
            let codes = &self.codes[row * columns..][..columns];
            let groups = codes.chunks(self.size).zip(self.order.columns().chunks(self.size)).enumerate();
            for (group, (codes, columns)) in groups {
                let at = group * self.dims.rows + row;
                let (scale, zero_point) = (self.scales[at], self.zero_points[at]);
                for (&code, &column) in codes.iter().zip(columns) {
                    values[column] = dequantize(self.float, code.cast_signed().into(), scale, zero_point) + 0.0;
                }
            }
        }
        let first = self.outliers.partition_point(|outlier| outlier.row < rows.start);
        for outlier in self.outliers[first..].iter().take_while(|outlier| outlier.row < rows.end) {
            let element = &mut values[(outlier.row - rows.start) * columns + self.order.columns()[outlier.column]];
            *element = if outlier.value == 0.0 { *element } else { replace(*element, outlier.value) };
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let stored = self.order.stored(column);
        let at = stored / self.size * self.dims.rows + row;
        let code = self.codes[row * self.dims.columns + stored].cast_signed();
        let (scale, zero_point) = (self.scale_levels.get(at), self.zero_point_levels.get(at));
        let x = dequantize(self.float, code.into(), scale, zero_point);
        let outlier = self.outliers.iter().find(|outlier| (outlier.row, outlier.column) == (row, stored));
        match outlier.map(|outlier| outlier.value) {
            Some(value) if value != 0.0 => replace(x, value),
            _ => x + 0.0,
        }
    }
}

impl Layout for SpqrGroups {
    fn name(&self) -> &'static str {
        "spqr_groups"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        Config::new(spec).map(drop)
    }

    fn check_places(&self, spec: &Spec<'_>, part: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        let config = Config::new(spec)?;
        read_order(&part("order")?)?;
        let values = (0..spec.count("outliers")?).map(|_| 0.0);
        read_outliers(config.dims, &part("outlier_places")?, values).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let config = Config::new(spec)?;
        let Config { dims, size, float, .. } = config;
        let order = read_order(&parts.take("order"))?;
        let values = Number::Float(float).all(&parts.take("outliers"));
        let outliers = read_outliers(dims, &parts.take("outlier_places"), values.into_iter())?;
        let scale_levels = config.levels(SCALES, &mut parts);
        let zero_point_levels = config.levels(ZERO_POINTS, &mut parts);
        let (scales, zero_points) = (scale_levels.all(), zero_point_levels.all());
        let codes = parts.take("codes");
        Ok(Box::new(Groups {
            dims,
            size,
            float,
            codes,
            scale_levels,
            zero_point_levels,
            scales,
            zero_points,
            outliers,
            order,
        }))
    }
}
