//! `bcq`: sums of a few numbers with signs (Park et al., "LUT-GEMM", 2022; Xu et al., "Alternating Multi-bit Quantization", 2018).

use cmz_codec::array::Parts;
use cmz_format::{Encoding, Result};

use super::rounding::{Choosing, DAMPING, ORDER, SOLVER, round};
use super::streams::{Float, encoded, floats, group, row_share, symbols};
use super::{Entry, Kind, Method, Param, Shape, Task, group_param};
use crate::solver::Grid;

/// Bits of a code, at most.
const MOST: usize = 4;

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "bcq",
    bits: Some(1..=MOST as u8),
    about: "binary codes: a bias and a few numbers that are added or subtracted (LUT-GEMM)",
    params: &[
        group_param("128"),
        Param { name: "scale", default: "F16", kind: Kind::Word(Float::WORDS), about: "type of the numbers" },
        SOLVER,
        ORDER,
        DAMPING,
    ],
    build: |bits, params| {
        Ok(Box::new(Bcq {
            bits: bits.into(),
            group: params.integer("group"),
            scale: Float::from_word(params.word("scale")),
            choosing: Choosing::of(params),
        }))
    },
};

/// Rounds of choosing numbers for codes and codes for numbers.
const ROUNDS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Bcq {
    bits: usize,
    group: u32,
    scale: Float,
    choosing: Choosing,
}

/// The numbers of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    alphas: [f32; MOST],
    bias: f32,
}

impl Bcq {
    fn nearest(&self, numbers: &Numbers, weight: f32) -> u8 {
        let distance = |code: u8| (self.value(numbers, code) - weight).abs();
        (1..1u8 << self.bits).fold(0, |best, code| if distance(code) < distance(best) { code } else { best })
    }

    fn rounded(&self, numbers: [f64; MOST + 1]) -> Numbers {
        let mut rounded = Numbers { bias: self.scale.round(numbers[self.bits]), ..Numbers::default() };
        rounded.alphas.iter_mut().zip(&numbers[..self.bits]).for_each(|(alpha, &x)| *alpha = self.scale.round(x));
        rounded
    }

    fn squared_error(&self, numbers: &Numbers, weights: &[f32]) -> f64 {
        let error = |&w: &f32| f64::from(self.value(numbers, self.nearest(numbers, w))) - f64::from(w);
        weights.iter().map(error).map(|error| error * error).sum()
    }

    /// Numbers one after the other, each for what those before it leave.
    fn greedy(&self, weights: &[f32]) -> [f64; MOST + 1] {
        let mut numbers = [0.0; MOST + 1];
        let count = weights.len().max(1) as f64;
        let bias = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
        numbers[self.bits] = bias;
        let mut rest: Vec<f64> = weights.iter().map(|&w| f64::from(w) - bias).collect();
        for alpha in &mut numbers[..self.bits] {
            *alpha = rest.iter().map(|x| x.abs()).sum::<f64>() / count;
            rest.iter_mut().for_each(|x| *x -= alpha.copysign(*x));
        }
        numbers
    }

    /// The numbers with the least squared error for given codes; `None` if they are not determined.
    fn least_squares(&self, weights: &[f32], codes: &[u8]) -> Option<[f64; MOST + 1]> {
        let size = self.bits + 1;
        let mut system = [[0.0; MOST + 2]; MOST + 1];
        for (&weight, &code) in weights.iter().zip(codes) {
            let sign = |i: usize| if i == self.bits || code >> i & 1 == 1 { 1.0 } else { -1.0 };
            for (i, row) in system[..size].iter_mut().enumerate() {
                for (j, sum) in row[..size].iter_mut().enumerate() {
                    *sum += sign(i) * sign(j);
                }
                row[size] += sign(i) * f64::from(weight);
            }
        }
        solve(&mut system, size)
    }
}

/// Gaussian elimination of `size` equations, the right side behind the last column.
fn solve(system: &mut [[f64; MOST + 2]; MOST + 1], size: usize) -> Option<[f64; MOST + 1]> {
    for column in 0..size {
        let pivot = (column..size).max_by(|&a, &b| system[a][column].abs().total_cmp(&system[b][column].abs()))?;
        system.swap(column, pivot);
        let row = system[column];
        if row[column].abs() < 1e-9 {
            return None;
        }
        for (number, other) in system[..size].iter_mut().enumerate() {
            if number != column {
                let factor = other[column] / row[column];
                other.iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
            }
        }
    }
    let mut solution = [0.0; MOST + 1];
    (0..size).for_each(|i| solution[i] = system[i][size] / system[i][i]);
    Some(solution)
}

impl Grid for Bcq {
    type Group = Numbers;

    fn fit(&self, weights: &[f32]) -> Numbers {
        let mut numbers = self.rounded(self.greedy(weights));
        let mut error = self.squared_error(&numbers, weights);
        for _ in 0..ROUNDS {
            let codes: Vec<u8> = weights.iter().map(|&weight| self.nearest(&numbers, weight)).collect();
            let Some(better) = self.least_squares(weights, &codes) else { break };
            let better = self.rounded(better);
            let less = self.squared_error(&better, weights);
            if less >= error {
                break;
            }
            (numbers, error) = (better, less);
        }
        numbers
    }

    fn code(&self, numbers: &Numbers, weight: f32) -> u8 {
        self.nearest(numbers, weight)
    }

    fn value(&self, numbers: &Numbers, code: u8) -> f32 {
        let signed = |i: usize| if code >> i & 1 == 1 { numbers.alphas[i] } else { -numbers.alphas[i] };
        (1..self.bits).fold(signed(0), |sum, i| sum + signed(i)) + numbers.bias
    }
}

impl Method for Bcq {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        let numbers = self.scale.dtype();
        Ok(encoded(
            "codebook",
            [
                ("bits", self.bits.into()),
                ("form", "binary".into()),
                ("dim", 1.into()),
                ("table", numbers.name().into()),
                ("group", group(1, row_share(self.group, shape))),
            ],
            [("indices", symbols()), ("alphas", floats(numbers)), ("biases", floats(numbers))],
        ))
    }

    fn needs_statistics(&self) -> bool {
        self.choosing.needs_statistics()
    }

    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let blocks = round(task, self, row_share(self.group, task.shape), self.choosing)?;
        let parts = blocks.into_iter().map(|block| {
            let alphas = block.groups.iter().flat_map(|numbers| numbers.alphas[..self.bits].iter().copied());
            let biases = block.groups.iter().map(|numbers| numbers.bias);
            Parts::Components(vec![
                Parts::Whole(block.codes),
                Parts::Whole(self.scale.bytes(alphas)),
                Parts::Whole(self.scale.bytes(biases)),
            ])
        });
        Ok(parts.collect())
    }
}
