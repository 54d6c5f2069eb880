//! `ternary`: 0, and the least and the greatest weight of each row (Frantar and Alistarh, "QMoE", arXiv 2310.16795, section 3).

use cmz_codec::array::Parts;
use cmz_format::{Dtype, Encoding, Result};
use half::bf16;

use super::rounding::{Choosing, DAMPING, SOLVER, round};
use super::streams::{encoded, floats, group, stream};
use super::{Entry, Kind, Method, Param, Shape, Task};
use crate::solver::{Order, Ternary as Grid, TernaryRow};

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "ternary",
    bits: None,
    about: "0, and the least and the greatest weight of a row (QMoE): few others are left, so experts get below one bit a weight",
    params: &[
        SOLVER,
        // Ten times what GPTQ takes: an expert sees few tokens.
        Param { default: "0.1", ..DAMPING },
        Param {
            name: "codec",
            default: "tunstall",
            kind: Kind::Word(&["tunstall", "rans", "dictionary", "trits", "bitpack"]),
            about: "how symbols are stored: to be decoded fast, to be small, by QMoE's code, five to a byte, or four to a byte",
        },
    ],
    build: |_, params| {
        let choosing = match params.word("solver") {
            // Solving the columns with the greatest inputs first makes such models worse, says the paper.
            "gptq" => Choosing::Gptq { order: Order::Stored, damping: params.number("damping") },
            _ => Choosing::Nearest,
        };
        Ok(Box::new(Ternary { choosing, codec: params.word("codec") }))
    },
};

/// The codecs for symbols that follow no rule, the smallest streams first.
const PACKINGS: [&str; 3] = ["trits", "bitpack", "raw"];

#[derive(Clone, Copy, Debug)]
struct Ternary {
    choosing: Choosing,
    codec: &'static str,
}

impl Ternary {
    /// The codec, and those that take its place where they are smaller.
    fn codecs(&self) -> Vec<&'static str> {
        let own = PACKINGS.iter().position(|&packing| packing == self.codec);
        let others = &PACKINGS[own.map_or(0, |own| own + 1)..];
        std::iter::once(self.codec).chain(others.iter().copied()).collect()
    }
}

impl Method for Ternary {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        Ok(encoded(
            "ternary",
            [("group", group(1, shape.columns))],
            [("symbols", stream(&self.codecs())), ("minima", floats(Dtype::BF16)), ("maxima", floats(Dtype::BF16))],
        ))
    }

    fn needs_statistics(&self) -> bool {
        self.choosing.needs_statistics()
    }

    /// A row is one group, so that its numbers are chosen before the first of its weights is rounded.
    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let blocks = round(task, &Grid, task.shape.columns, self.choosing)?;
        let parts = blocks.into_iter().map(|block| {
            let numbers = |number: fn(&TernaryRow) -> bf16| {
                Parts::Whole(block.groups.iter().flat_map(|row| number(row).to_le_bytes()).collect())
            };
            let (minima, maxima) = (numbers(|row| row.low), numbers(|row| row.high));
            Parts::Components(vec![Parts::Whole(block.codes), minima, maxima])
        });
        Ok(parts.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cmz_codec::Scratch;
    use cmz_codec::array::{StoredArray, array_of};
    use cmz_codec::encoding::{Array, Element, Encoding as _, ternary::BY_ROW};
    use cmz_codec::stream::Level;
    use cmz_format::Tensor;

    use super::*;
    use crate::Matrix;
    use crate::recipe::{Inputs, Recipe};
    use crate::solver::testing::{correlated, weights};
    use crate::solver::{Statistics, output_error};

    const ROWS: usize = 48;
    const COLUMNS: usize = 256;
    const SHAPE: Shape = Shape { dtype: Dtype::F32, rows: ROWS, columns: COLUMNS };

    fn quantize(recipe: &Recipe, weights: &Matrix, block_rows: usize, statistics: Option<&Statistics>) -> Vec<Parts> {
        let known = statistics.map(|statistics| Arc::new(statistics.clone()));
        let statistics = known.as_ref().map(|known| known as &dyn Inputs);
        let task = Task { shape: SHAPE, weights, block_rows, statistics, threads: 2 };
        recipe.method().quantize(task).unwrap()
    }

    /// The encoding by itself rounds to nearest, too.
    #[test]
    fn without_statistics_it_is_what_the_encoding_does() {
        let weights = weights(ROWS, COLUMNS, 5);
        let data: Vec<u8> = weights.data().iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let array = Array::new(Element::Dtype(Dtype::F32), data.len(), COLUMNS);
        let mut components = [vec![0; ROWS * COLUMNS], vec![0; 2 * ROWS], vec![0; 2 * ROWS]];
        BY_ROW.split(array, &data, &mut components.each_mut().map(Vec::as_mut_slice));
        let found = quantize(&Recipe::parse("ternary").unwrap(), &weights, ROWS, None);
        assert_eq!(found, [Parts::Components(components.map(Parts::Whole).to_vec())]);
    }

    /// What the blocks of a recipe decode to, and their bits a weight.
    fn stored(recipe: &str, weights: &Matrix, statistics: &Statistics) -> (Matrix, f64) {
        let recipe = Recipe::parse(recipe).unwrap();
        let tensor = Tensor {
            name: "expert".to_owned(),
            dtype: "F32".to_owned(),
            shape: vec![ROWS as u64, COLUMNS as u64],
            block_elements: (20 * COLUMNS) as u64,
            encoding: recipe.method().encoding(SHAPE).unwrap(),
        };
        let array = StoredArray::of_tensor(&tensor).unwrap();
        let (mut decoded, mut bits) = (Vec::new(), 0);
        for (i, parts) in quantize(&recipe, weights, 20, Some(statistics)).into_iter().enumerate() {
            let len = 20.min(ROWS - 20 * i) * COLUMNS * 4;
            let (block, data) =
                array.encode_parts(array_of(&tensor, len), parts, Level::Max, &mut Scratch::new()).unwrap();
            decoded.extend(data.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)));
            bits += 8 * block.payload.len();
        }
        (Matrix::new(ROWS, COLUMNS, decoded), bits as f64 / (ROWS * COLUMNS) as f64)
    }

    #[test]
    fn statistics_make_outputs_better_and_experts_stay_small() {
        let (weights, statistics) = (weights(ROWS, COLUMNS, 3), correlated(COLUMNS, 7));
        let (nearest, _) = stored("ternary", &weights, &statistics);
        let error = |decoded: &Matrix| output_error(&weights, decoded, &statistics);
        for (codec, most) in [("tunstall", 1.0), ("rans", 1.0), ("dictionary", 1.0), ("trits", 1.9), ("bitpack", 2.3)] {
            let (solved, rate) = stored(&format!("ternary:solver=gptq,codec={codec}"), &weights, &statistics);
            assert!(error(&solved) < 0.8 * error(&nearest), "{} and {}", error(&solved), error(&nearest));
            assert!(rate < most, "{codec}: {rate}");
        }
    }
}
