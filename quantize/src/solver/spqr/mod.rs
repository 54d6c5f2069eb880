//! SpQR (Dettmers et al., "SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight Compression", 2023, §4 and
//! Algorithm 1): small groups whose scales and zero points are rounded in turn, and single weights kept in 16 bits.

use std::ops::Range;

use cmz_codec::pipeline;
use cmz_format::{Code, Dtype, Error, Result};
use half::{bf16, f16};

use super::grids::finite_f16;
use super::sweep::{Band, Steps, sweep};
use super::{BAND_ROWS, Solver, invalid, to_matrix};
use crate::Matrix;
use fit::{Line, OutlierSearch};

mod fit;
#[cfg(test)]
mod tests;

/// Which weights are kept in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outliers {
    /// None.
    None,
    /// Those whose rounding would make an error above this threshold τ: e² > τ · meanⱼ(var(W·ⱼ)/c²ⱼⱼ), with e = (w − ŵ)/cⱼⱼ. The
    /// paper uses 0.1 to 0.45. The lower, the more outliers.
    Threshold(f64),
    /// About this share of the weights, at most: the threshold is found by bisection on up to about 512 rows,
    /// to 2 %.
    Share(f64),
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpqrOptions {
    /// Bits of a code, 2 to 8.
    pub bits: u8,
    /// Columns that share a scale and a zero point: β1 of the paper.
    pub group: usize,
    /// Rows whose scales, and whose zero points, are rounded together: β2 of the paper.
    pub row_group: usize,
    /// Bits of a scale's code, 2 to 8.
    pub scale_bits: u8,
    /// Bits of a zero point's code, 2 to 8.
    pub zero_bits: u8,
    /// Which weights are outliers.
    pub outliers: Outliers,
    /// Type of outliers: `F16` or `BF16`.
    pub outlier_type: Dtype,
}

impl Default for SpqrOptions {
    /// The paper's near-lossless setting: 4 bits, 16 × 16, statistics of 3 bits, τ = 0.2.
    fn default() -> Self {
        Self {
            bits: 4,
            group: 16,
            row_group: 16,
            scale_bits: 3,
            zero_bits: 3,
            outliers: Outliers::Threshold(0.2),
            outlier_type: Dtype::F16,
        }
    }
}

/// Second level of one group of columns in one group of rows. With the code `q` of a row, the row's scale is
/// `scale_scale · (q − scale_zero)`, its zero point `zero_scale · (q − zero_zero)`, each step rounded to half precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondLevel {
    /// Scale of scales.
    pub scale_scale: f16,
    /// Zero point of scales.
    pub scale_zero: f16,
    /// Scale of zero points.
    pub zero_scale: f16,
    /// Zero point of zero points.
    pub zero_zero: f16,
}

/// A matrix in SpQR. A weight with code `q` decodes to `scale · (q − zero)`, each step in half precision, unless it is an
/// outlier: that replaces it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spqr {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// How it is stored; `group` and `row_group` are no more than columns and rows.
    pub options: SpqrOptions,
    /// A code for each weight, row by row, columns in stored order.
    pub codes: Vec<u8>,
    /// ⌈`columns` / `group`⌉ codes of scales for each row, row by row. The last group of a row may be shorter.
    pub scale_codes: Vec<u8>,
    /// As many codes of zero points.
    pub zero_codes: Vec<u8>,
    /// For each ⌈`rows` / `row_group`⌉ groups of rows, ⌈`columns` / `group`⌉ second levels. The last group of rows may be shorter.
    pub second: Vec<SecondLevel>,
    /// Outliers of row `r` are those from `outlier_starts[r]` to `outlier_starts[r + 1]`.
    pub outlier_starts: Vec<usize>,
    /// Columns of outliers, ascending in a row, in stored order.
    pub outlier_columns: Vec<u32>,
    /// Bit patterns of outliers, of `options.outlier_type`.
    pub outlier_values: Vec<u16>,
    /// `order[i]` is the column of the matrix that is stored as column `i`; `None` if that is column `i`.
    pub order: Option<Vec<u32>>,
    /// The threshold τ that was used; infinite without outliers.
    pub threshold: f64,
}

/// Rows that the bisection of the threshold looks at, about.
const SAMPLE_ROWS: usize = 512;
/// Least and greatest threshold of the bisection, as powers of two.
const THRESHOLDS: (f64, f64) = (-16.0, 10.0);
/// Steps of the bisection, at most: then the threshold is known to less than half a percent.
const BISECTIONS: usize = 12;
/// What part of the share asked for is near enough.
const ENOUGH: f64 = 0.98;

impl Solver {
    /// Rounds weights to SpQR, as §4.3 and Algorithm 1 of the paper and their implementation have it, except in what follows.
    ///
    /// - Errors are those of what a decoder gives: scales, zero points and weights in half precision, outliers in their type.
    /// - Where all weights of a group are equal, or all scales or zero points of a second level, they are kept as they are.
    /// - A weight that would not decode to a finite number is an outlier.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if `weights` has not the columns of the statistics, if a weight is not finite in half precision, or
    /// if the options are out of range.
    pub fn spqr(&self, weights: &Matrix, options: SpqrOptions) -> Result<Spqr> {
        self.check(weights)?;
        check(weights, &options)?;
        let options = SpqrOptions {
            group: options.group.min(weights.columns().max(1)),
            row_group: options.row_group.min(weights.rows().max(1)),
            ..options
        };
        let spread = self.spread(weights);
        let threshold = match options.outliers {
            Outliers::None => f64::INFINITY,
            Outliers::Threshold(threshold) => threshold,
            Outliers::Share(share) => self.threshold_for(weights, options, spread, share)?,
        };
        let bands: Vec<Range<usize>> = bands(weights.rows(), options.row_group).collect();
        let mut whole = self.empty(weights, options, threshold);
        self.bands(weights, options, threshold * spread, &bands, |band| {
            whole.codes.extend(band.codes);
            whole.scale_codes.extend(band.scale_codes);
            whole.zero_codes.extend(band.zero_codes);
            whole.second.extend(band.second);
            for row in band.outliers {
                whole.outlier_columns.extend(row.iter().map(|&(column, _)| column));
                whole.outlier_values.extend(row.iter().map(|&(_, value)| value));
                whole.outlier_starts.push(whole.outlier_columns.len());
            }
        })?;
        Ok(whole)
    }

    fn empty(&self, weights: &Matrix, options: SpqrOptions, threshold: f64) -> Spqr {
        let (rows, columns) = (weights.rows(), weights.columns());
        let groups = columns.div_ceil(options.group);
        Spqr {
            rows,
            columns,
            options,
            codes: Vec::with_capacity(rows * columns),
            scale_codes: Vec::with_capacity(rows * groups),
            zero_codes: Vec::with_capacity(rows * groups),
            second: Vec::with_capacity(rows.div_ceil(options.row_group) * groups),
            outlier_starts: vec![0],
            outlier_columns: Vec::new(),
            outlier_values: Vec::new(),
            order: self.stored_order(),
            threshold,
        }
    }

    /// What thresholds are relative to: the mean over columns of var(W·ⱼ)/c²ⱼⱼ, with the variance of a sample.
    fn spread(&self, weights: &Matrix) -> f64 {
        let (rows, columns) = (weights.rows(), weights.columns());
        let moments = |column: usize| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for row in 0..rows {
                let weight = f64::from(weights.data()[row * columns + column]);
                sum += weight;
                squares += weight * weight;
            }
            // The variance of one row is not defined: its square stands in.
            if rows < 2 { squares } else { (squares - sum * sum / rows as f64).max(0.0) / (rows - 1) as f64 }
        };
        let solved = self.order.iter().zip(&self.factor.diagonal).zip(&self.dead).filter(|&(_, &dead)| !dead);
        let total: f64 = solved.map(|((&column, &c), _)| moments(column as usize) / f64::from(c).powi(2)).sum();
        total / columns.max(1) as f64
    }

    /// The least threshold, about, that makes no more than `share` of the weights outliers.
    fn threshold_for(&self, weights: &Matrix, options: SpqrOptions, spread: f64, share: f64) -> Result<f64> {
        if share == 0.0 {
            return Ok(f64::INFINITY);
        }
        let all: Vec<Range<usize>> = bands(weights.rows(), options.row_group).collect();
        let sampled = SAMPLE_ROWS.div_ceil(all.first().map_or(1, Range::len)).min(all.len());
        let bands: Vec<Range<usize>> = (0..sampled).map(|i| all[i * all.len() / sampled].clone()).collect();
        let count = bands.iter().map(Range::len).sum::<usize>() * weights.columns();
        let (mut low, mut high) = THRESHOLDS;
        for _ in 0..BISECTIONS {
            let middle = (low + high) / 2.0;
            let mut outliers = 0;
            self.bands(weights, options, middle.exp2() * spread, &bands, |band| {
                outliers += band.outliers.iter().map(Vec::len).sum::<usize>();
            })?;
            let found = outliers as f64 / count.max(1) as f64;
            if found > share {
                low = middle;
            } else {
                high = middle;
                if found >= ENOUGH * share {
                    break;
                }
            }
        }
        Ok(high.exp2())
    }

    /// Solves bands of rows and hands them on in order.
    fn bands(
        &self,
        weights: &Matrix,
        options: SpqrOptions,
        threshold: f64,
        bands: &[Range<usize>],
        mut consume: impl FnMut(Coded),
    ) -> Result<()> {
        pipeline::ordered(
            self.options.threads,
            bands.iter().cloned(),
            |rows, _| {
                let mut band = self.band(weights, rows.start, rows.len());
                let mut coder = Coder::new(&self.factor.diagonal, options, threshold as f32, &band);
                sweep(&self.factor, options.group, &mut band, &mut coder)?;
                Ok(coder.coded)
            },
            |coded| {
                consume(coded);
                Ok(())
            },
        )
    }
}

/// Bands of whole groups of rows.
fn bands(rows: usize, row_group: usize) -> impl Iterator<Item = Range<usize>> {
    let len = row_group * (BAND_ROWS / row_group).max(1);
    (0..rows).step_by(len).map(move |start| start..rows.min(start + len))
}

fn check(weights: &Matrix, options: &SpqrOptions) -> Result<()> {
    for (what, bits) in [("codes", options.bits), ("scales", options.scale_bits), ("zero points", options.zero_bits)] {
        if !(2..=8).contains(&bits) {
            return Err(invalid(format!("{what} of {bits} bits"), "give 2 to 8"));
        }
    }
    if options.group == 0 || options.row_group == 0 {
        return Err(invalid("groups of no columns or rows".into(), "give at least one of each"));
    }
    if !matches!(options.outlier_type, Dtype::F16 | Dtype::BF16) {
        return Err(invalid(format!("outliers of type {:?}", options.outlier_type), "give F16 or BF16"));
    }
    match options.outliers {
        Outliers::Threshold(threshold) if threshold.is_nan() || threshold < 0.0 => {
            return Err(invalid(format!("outlier threshold {threshold}"), "give a number that is not negative"));
        }
        Outliers::Share(share) if !(0.0..=1.0).contains(&share) => {
            return Err(invalid(format!("outlier share {share}"), "give a number from 0 to 1"));
        }
        _ => {}
    }
    match weights.data().iter().position(|weight| weight.abs() > f16::MAX.to_f32()) {
        None => Ok(()),
        Some(at) => {
            let (row, column) = (at / weights.columns(), at % weights.columns());
            let message = format!("weight [{row}, {column}] is {}, too large for half precision", weights.data()[at]);
            Err(Error::new(Code::InvalidArgument, message).with_help("store this tensor in another way"))
        }
    }
}

/// What becomes of some rows.
struct Coded {
    codes: Vec<u8>,
    scale_codes: Vec<u8>,
    zero_codes: Vec<u8>,
    second: Vec<SecondLevel>,
    /// Column and bit pattern of each row's.
    outliers: Vec<Vec<(u32, u16)>>,
}

struct Coder<'a> {
    diagonal: &'a [f32],
    options: SpqrOptions,
    most: f32,
    /// Outliers are weights whose e² is greater.
    threshold: f32,
    columns: usize,
    search: OutlierSearch,
    coded: Coded,
    /// Scale and zero point of each row's present group.
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl<'a> Coder<'a> {
    fn new(diagonal: &'a [f32], options: SpqrOptions, threshold: f32, band: &Band) -> Self {
        let groups = band.columns.div_ceil(options.group);
        let coded = Coded {
            codes: vec![0; band.rows * band.columns],
            scale_codes: vec![0; band.rows * groups],
            zero_codes: vec![0; band.rows * groups],
            second: vec![SecondLevel::default(); band.rows.div_ceil(options.row_group) * groups],
            outliers: vec![Vec::new(); band.rows],
        };
        let most = fit::most(options.bits);
        let search = OutlierSearch::new(most);
        let (scales, zeros) = (vec![0.0; band.rows], vec![0.0; band.rows]);
        Self { diagonal, options, most, threshold, columns: band.columns, search, coded, scales, zeros }
    }

    /// Code of a weight in its row's present group, and what that decodes to.
    fn nearest(&self, row: usize, weight: f32) -> (u8, f32) {
        let (scale, zero) = (self.scales[row], self.zeros[row]);
        let code = fit::nearest(weight, Line { scale, zero }, self.most) as u8;
        let stored = Line { scale: f16::from_f32(scale), zero: f16::from_f32(zero) };
        (code, fit::dequantize(code, stored).to_f32())
    }
}

impl Steps for Coder<'_> {
    fn begin(&mut self, band: &Band, columns: Range<usize>) {
        let (groups, group) = (self.columns.div_ceil(self.options.group), columns.start / self.options.group);
        let mut weights = Vec::with_capacity(columns.len());
        for row in 0..band.rows {
            weights.clear();
            weights.extend_from_slice(&band.row(row)[columns.clone()]);
            if self.threshold.is_finite() {
                self.search.replace_outliers(&mut weights, &self.diagonal[columns.clone()], self.threshold);
            }
            let line = fit::fit(&weights, self.most);
            (self.scales[row], self.zeros[row]) = (line.scale, line.zero);
        }
        let len = self.options.row_group;
        let rows = self.scales.chunks_mut(len).zip(self.zeros.chunks_mut(len)).enumerate();
        for (row_group, (scales, zeros)) in rows {
            let at = |row: usize| (row_group * len + row) * groups + group;
            let (scale_codes, zero_codes) = (&mut self.coded.scale_codes, &mut self.coded.zero_codes);
            let most = (fit::most(self.options.scale_bits), fit::most(self.options.zero_bits));
            let of_scales = fit::round_statistics(scales, most.0, |row, code| scale_codes[at(row)] = code);
            let of_zeros = fit::round_statistics(zeros, most.1, |row, code| zero_codes[at(row)] = code);
            self.coded.second[row_group * groups + group] = SecondLevel {
                scale_scale: of_scales.scale,
                scale_zero: of_scales.zero,
                zero_scale: of_zeros.scale,
                zero_zero: of_zeros.zero,
            };
        }
    }

    fn round(&mut self, row: usize, column: usize, weight: f32) -> f32 {
        let (mut code, mut decoded) = self.nearest(row, weight);
        let error = (weight - decoded) / self.diagonal[column];
        if error * error > self.threshold || !decoded.is_finite() {
            (code, _) = self.nearest(row, 0.0);
            let value = outlier(weight, self.options.outlier_type);
            decoded = outlier_value(value, self.options.outlier_type);
            self.coded.outliers[row].push((column as u32, value));
        }
        self.coded.codes[row * self.columns + column] = code;
        decoded
    }
}

/// The bit pattern of the nearest finite number.
fn outlier(weight: f32, dtype: Dtype) -> u16 {
    match dtype {
        Dtype::BF16 => bf16::from_f32(weight.clamp(-bf16::MAX.to_f32(), bf16::MAX.to_f32())).to_bits(),
        _ => finite_f16(weight).to_bits(),
    }
}

fn outlier_value(bits: u16, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::BF16 => bf16::from_bits(bits).to_f32(),
        _ => f16::from_bits(bits).to_f32(),
    }
}

impl Spqr {
    /// The weights that it decodes to, columns as in the matrix that was solved.
    ///
    /// # Panics
    /// If the fields do not go together.
    #[must_use]
    pub fn decode(&self) -> Matrix {
        let SpqrOptions { group, row_group, outlier_type, .. } = self.options;
        let groups = self.columns.div_ceil(group);
        let mut stored = Vec::with_capacity(self.codes.len());
        for row in 0..self.rows {
            for column in 0..self.columns {
                let at = row * groups + column / group;
                let second = &self.second[row / row_group * groups + column / group];
                let of_scales = Line { scale: second.scale_scale, zero: second.scale_zero };
                let of_zeros = Line { scale: second.zero_scale, zero: second.zero_zero };
                let scale = fit::dequantize(self.scale_codes[at], of_scales);
                let zero = fit::dequantize(self.zero_codes[at], of_zeros);
                stored.push(fit::dequantize(self.codes[row * self.columns + column], Line { scale, zero }).to_f32());
            }
            for at in self.outlier_starts[row]..self.outlier_starts[row + 1] {
                let column = self.outlier_columns[at] as usize;
                stored[row * self.columns + column] = outlier_value(self.outlier_values[at], outlier_type);
            }
        }
        to_matrix(self.rows, self.columns, &stored, self.order.as_deref())
    }

    /// Outliers as a share of all weights.
    #[must_use]
    pub fn outlier_share(&self) -> f64 {
        self.outlier_values.len() as f64 / self.codes.len().max(1) as f64
    }

    /// Bits of a weight when stored tightly: codes of both levels, four halves for each second level, and `outlier_bits` for each
    /// outlier: 32 in the paper (§4.3), 24 if its column is a byte counted from the one before.
    #[must_use]
    pub fn bits_per_weight(&self, outlier_bits: u32) -> f64 {
        let options = &self.options;
        let bits = self.codes.len() as f64 * f64::from(options.bits)
            + self.scale_codes.len() as f64 * f64::from(options.scale_bits)
            + self.zero_codes.len() as f64 * f64::from(options.zero_bits)
            + self.second.len() as f64 * 64.0
            + self.outlier_values.len() as f64 * f64::from(outlier_bits);
        bits / self.codes.len().max(1) as f64
    }
}
