//! SpQR against its pseudo-code, and what must not go wrong.

use super::super::testing::{correlated, weights, without_inputs};
use super::super::{Affine, Fit, Order, SolverOptions, Statistics, output_error};
use super::*;

fn solver(statistics: &Statistics, order: Order) -> Solver {
    Solver::new(statistics, SolverOptions { order, threads: 2, ..SolverOptions::default() }).unwrap()
}

/// Scale and zero point from the least value to the greatest.
fn literal_fit(values: &[f32], bits: u8) -> (f32, f32) {
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    if values.is_empty() {
        (1.0, 0.0)
    } else if low == high {
        (low.abs(), if low < 0.0 { 1.0 } else { 0.0 })
    } else {
        let scale = (high - low) / (2f32.powi(bits.into()) - 1.0);
        (scale, -low / scale)
    }
}

fn literal_code(weight: f32, scale: f32, zero: f32, bits: u8) -> f32 {
    (weight / scale.max(1e-9) + zero).round_ties_even().clamp(0.0, 2f32.powi(bits.into()) - 1.0)
}

/// Squared errors over the diagonal, of a group fitted to itself.
fn literal_error(weights: &[f32], c: &[f32], bits: u8) -> f32 {
    let (scale, zero) = literal_fit(weights, bits);
    let errors = weights.iter().zip(c).map(|(&w, c)| (scale * (literal_code(w, scale, zero, bits) - zero) - w) / c);
    errors.fold(0.0, |sum, error| sum + error * error)
}

/// The weights of a group, likely outliers replaced by the mean of the others.
fn literal_search(weights: &[f32], c: &[f32], bits: u8, threshold: f32) -> Vec<f32> {
    let base = literal_error(weights, c, bits);
    let without = |values: &[f32], i: usize| [&values[..i], &values[i + 1..]].concat();
    let likely: Vec<bool> = (0..weights.len())
        .map(|i| base - literal_error(&without(weights, i), &without(c, i), bits) > threshold)
        .collect();
    let others: Vec<f32> = weights.iter().zip(&likely).filter(|(_, likely)| !**likely).map(|(&w, _)| w).collect();
    let mean = others.iter().fold(0.0, |sum, w| sum + w) / (others.len() as f32).max(1.0);
    weights.iter().zip(&likely).map(|(&w, &likely)| if likely { mean } else { w }).collect()
}

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Rounds scales or zero points of a group of rows; returns codes, decoded values, scale and zero point.
fn literal_second_level(values: &[f32], bits: u8) -> (Vec<u8>, Vec<f32>, f32, f32) {
    let (scale, _) = literal_fit(values, bits);
    let low = values.iter().copied().fold(f32::MAX, f32::min);
    let constant = values.iter().all(|&x| x == low);
    let scale = half(scale);
    let zero = if constant { literal_fit(values, bits).1 } else { half(-low / scale) };
    let codes: Vec<u8> = values.iter().map(|&x| literal_code(x, scale, zero, bits) as u8).collect();
    let decoded = codes.iter().map(|&code| half(scale * half(f32::from(code) - zero))).collect();
    (codes, decoded, scale, zero)
}

/// The pseudo-code, column by column over the whole matrix, with the solver's factor.
fn literal(solver: &Solver, weights: &Matrix, options: &SpqrOptions, tau: f64) -> Spqr {
    let (rows, columns) = (weights.rows(), weights.columns());
    let group = options.group.min(columns);
    let groups = columns.div_ceil(group);
    let mut w: Vec<Vec<f32>> =
        (0..rows).map(|row| solver.order.iter().map(|&column| weights.row(row)[column as usize]).collect()).collect();
    w.iter_mut()
        .for_each(|row| row.iter_mut().zip(&solver.dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.0));
    let diagonal = &solver.factor.diagonal;
    let threshold = (tau * solver.spread(weights)) as f32;
    let mut out = solver.empty(weights, SpqrOptions { group, ..*options }, tau);
    out.codes = vec![0; rows * columns];
    out.scale_codes = vec![0; rows * groups];
    out.zero_codes = vec![0; rows * groups];
    out.second = vec![SecondLevel::default(); rows.div_ceil(options.row_group) * groups];
    let mut lines = vec![(0.0, 0.0); rows];
    let mut outliers = vec![Vec::new(); rows];
    for j in 0..columns {
        if j % group == 0 {
            let end = columns.min(j + group);
            for row in 0..rows {
                let mut weights = w[row][j..end].to_vec();
                if threshold.is_finite() {
                    weights = literal_search(&weights, &diagonal[j..end], options.bits, threshold);
                }
                lines[row] = literal_fit(&weights, options.bits);
            }
            for first in (0..rows).step_by(options.row_group) {
                let block = first..rows.min(first + options.row_group);
                let scales: Vec<f32> = lines[block.clone()].iter().map(|line| line.0).collect();
                let zeros: Vec<f32> = lines[block.clone()].iter().map(|line| line.1).collect();
                let (scale_codes, scales, ss, sz) = literal_second_level(&scales, options.scale_bits);
                let (zero_codes, zeros, zs, zz) = literal_second_level(&zeros, options.zero_bits);
                for (i, row) in block.enumerate() {
                    lines[row] = (scales[i], zeros[i]);
                    out.scale_codes[row * groups + j / group] = scale_codes[i];
                    out.zero_codes[row * groups + j / group] = zero_codes[i];
                }
                let [scale_scale, scale_zero, zero_scale, zero_zero] = [ss, sz, zs, zz].map(f16::from_f32);
                out.second[first / options.row_group * groups + j / group] =
                    SecondLevel { scale_scale, scale_zero, zero_scale, zero_zero };
            }
        }
        for row in 0..rows {
            let (scale, zero) = lines[row];
            let weight = w[row][j];
            let mut code = literal_code(weight, scale, zero, options.bits);
            let mut decoded = half(scale * half(code - zero));
            let error = (weight - decoded) / diagonal[j];
            if error * error > threshold || !decoded.is_finite() {
                code = literal_code(0.0, scale, zero, options.bits);
                decoded = half(weight);
                outliers[row].push((j as u32, f16::from_f32(weight).to_bits()));
            }
            out.codes[row * columns + j] = code as u8;
            let error = (weight - decoded) / diagonal[j];
            if let Some(upper) = &solver.factor.upper {
                for k in j + 1..columns {
                    w[row][k] -= error * upper[j * columns + k];
                }
            }
        }
    }
    for row in outliers {
        out.outlier_columns.extend(row.iter().map(|&(column, _)| column));
        out.outlier_values.extend(row.iter().map(|&(_, value)| value));
        out.outlier_starts.push(out.outlier_columns.len());
    }
    out
}

#[test]
fn it_is_the_pseudo_code() {
    for (rows, columns, bits, group, row_group) in [
        (48, 160, 3, 16, 16),
        (50, 300, 4, 16, 16),
        (37, 45, 2, 8, 5),
        (33, 70, 8, 48, 64),
        (20, 141, 3, 140, 1),
        (9, 8, 5, 1, 3),
    ] {
        for (order, tau) in
            [(Order::Stored, 0.2), (Order::Activation, 0.05), (Order::Stored, f64::INFINITY), (Order::Stored, 0.0)]
        {
            let weights = weights(rows, columns, 5);
            let statistics = without_inputs(&correlated(columns, 2), &[columns / 2]);
            for statistics in [statistics, Statistics::identity(columns)] {
                let solver = solver(&statistics, order);
                let outliers = Outliers::Threshold(tau);
                let options = SpqrOptions { bits, group, row_group, outliers, ..SpqrOptions::default() };
                let solved = solver.spqr(&weights, options).unwrap();
                let options = solved.options;
                let literal = literal(&solver, &weights, &options, tau);
                assert!(solved == literal, "{rows}×{columns} {options:?} {order:?}");
                assert!(solved.outlier_values.is_empty() || tau < f64::INFINITY);
                assert!(!solved.outlier_values.is_empty() || tau > 0.0);
            }
        }
    }
}

/// The arithmetic of a decoder of the inference format, for two rows of one tile.
#[test]
fn decoding_is_that_of_the_reference() {
    let at = |row: usize| {
        let bits = [8005, 47206, 14567, 48507].map(f16::from_bits);
        let second = SecondLevel { scale_scale: bits[0], scale_zero: bits[1], zero_scale: bits[2], zero_zero: bits[3] };
        let spqr = Spqr {
            rows: 1,
            columns: 16,
            options: SpqrOptions { bits: 3, ..SpqrOptions::default() },
            codes: (0..16).map(|j| ((7 * row + 3 * j + row * j) % 8) as u8).collect(),
            scale_codes: vec![[1, 6, 3, 0, 5, 2, 7, 4][row % 8]],
            zero_codes: vec![[2, 5, 0, 3, 6, 1, 4, 7][row % 8]],
            second: vec![second],
            outlier_starts: vec![0, 1],
            outlier_columns: vec![3],
            outlier_values: vec![0x4200],
            order: None,
            threshold: f64::INFINITY,
        };
        spqr.decode().data().iter().map(|&w| f16::from_f32(w).to_bits()).collect::<Vec<u16>>()
    };
    let expected =
        [42450, 8514, 10634, 0x4200, 9586, 10995, 37372, 10274, 42450, 8514, 10634, 41474, 9586, 10995, 37372, 10274];
    assert_eq!(at(0), expected);
    let expected = [
        45125, 44135, 40004, 0x4200, 45125, 44135, 40004, 11197, 45125, 44135, 40004, 11197, 45125, 44135, 40004, 11197,
    ];
    assert_eq!(at(15), expected);
}

#[test]
fn a_share_of_outliers_is_met() {
    let weights = weights(64, 160, 5);
    let solver = solver(&correlated(160, 2), Order::Stored);
    let mut last = f64::INFINITY;
    for share in [0.0, 0.001, 0.01, 0.05, 0.3, 1.0] {
        let options = SpqrOptions { bits: 3, outliers: Outliers::Share(share), ..SpqrOptions::default() };
        let solved = solver.spqr(&weights, options).unwrap();
        let found = solved.outlier_share();
        assert!(found <= share && found >= 0.95 * share - 0.001, "{found} for {share}");
        let error = output_error(&weights, &solved.decode(), &correlated(160, 2));
        assert!(error < last, "{error} with {share} outliers, {last} with fewer");
        last = error;
        let bits = 3.0 + 6.0 / 16.0 + 64.0 / 256.0;
        assert!((solved.bits_per_weight(32) - bits - 32.0 * found).abs() < 1e-9);
    }
}

#[test]
fn it_is_better_than_gptq_of_the_same_size() {
    let (weights, statistics) = (weights(128, 256, 5), correlated(256, 2));
    let solver = solver(&statistics, Order::Stored);
    let spqr =
        solver.spqr(&weights, SpqrOptions { outliers: Outliers::Share(0.01), ..SpqrOptions::default() }).unwrap();
    // 20 bits a group of 22 columns, to have more bits rather than less.
    let grid = Affine::new(4);
    assert!(spqr.bits_per_weight(24) < 4.0 + 20.0 / 22.0);
    let gptq = solver.gptq(&weights, &grid, 22, Fit::Compensated).unwrap().decode(&grid);
    let (spqr, gptq) =
        (output_error(&weights, &spqr.decode(), &statistics), output_error(&weights, &gptq, &statistics));
    assert!(spqr < gptq, "{spqr} and {gptq}");
}

#[test]
fn outliers_may_be_bfloat16() {
    let weights = weights(16, 32, 5);
    let options =
        SpqrOptions { outliers: Outliers::Threshold(0.0), outlier_type: Dtype::BF16, ..SpqrOptions::default() };
    let decoded = solver(&Statistics::identity(32), Order::Stored).spqr(&weights, options).unwrap().decode();
    for (&weight, &decoded) in weights.data().iter().zip(decoded.data()) {
        assert!(decoded == weight || decoded == bf16::from_f32(weight).to_f32());
    }
}

#[test]
fn equal_weights_are_kept() {
    for value in [0.0, 1.0, -1.0, 0.125, -3.0, 60_000.0] {
        for (rows, columns) in [(16, 16), (1, 1), (17, 5), (3, 33)] {
            let weights = Matrix::new(rows, columns, vec![value; rows * columns]);
            let options = SpqrOptions { outliers: Outliers::None, ..SpqrOptions::default() };
            let solved = solver(&Statistics::identity(columns), Order::Stored).spqr(&weights, options).unwrap();
            assert_eq!(solved.decode(), weights);
        }
    }
}

#[test]
fn extreme_weights_stay_finite() {
    for magnitude in [1e-40, 6e-8, 1e-6, 65504.0] {
        for outliers in [Outliers::None, Outliers::Threshold(0.2), Outliers::Share(0.02)] {
            let mut weights = weights(32, 64, 5);
            for row in 0..32 {
                weights.row_mut(row).iter_mut().for_each(|w| *w = (*w * magnitude).clamp(-65504.0, 65504.0));
                weights.row_mut(row)[row] = magnitude;
            }
            let options = SpqrOptions { outliers, ..SpqrOptions::default() };
            let decoded = solver(&correlated(64, 3), Order::Stored).spqr(&weights, options).unwrap().decode();
            assert!(decoded.data().iter().all(|w| w.is_finite()));
        }
    }
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let solver = solver(&Statistics::identity(8), Order::Stored);
    let code = |weights: &Matrix, options| solver.spqr(weights, options).unwrap_err().code();
    let good = SpqrOptions::default();
    let weights = weights(8, 8, 1);
    for options in [
        SpqrOptions { bits: 1, ..good },
        SpqrOptions { bits: 9, ..good },
        SpqrOptions { scale_bits: 0, ..good },
        SpqrOptions { zero_bits: 9, ..good },
        SpqrOptions { group: 0, ..good },
        SpqrOptions { row_group: 0, ..good },
        SpqrOptions { outlier_type: Dtype::F32, ..good },
        SpqrOptions { outliers: Outliers::Threshold(-1.0), ..good },
        SpqrOptions { outliers: Outliers::Threshold(f64::NAN), ..good },
        SpqrOptions { outliers: Outliers::Share(1.5), ..good },
        SpqrOptions { outliers: Outliers::Share(f64::NAN), ..good },
    ] {
        assert_eq!(code(&weights, options), Code::InvalidArgument, "{options:?}");
    }
    let mut large = weights.clone();
    large.row_mut(2)[5] = -65520.0;
    assert_eq!(code(&large, good), Code::InvalidArgument);
    large.row_mut(2)[5] = f32::NAN;
    assert_eq!(code(&large, good), Code::InvalidArgument);
    assert_eq!(code(&Matrix::new(1, 7, vec![0.0; 7]), good), Code::InvalidArgument);
}
