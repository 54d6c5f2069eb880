//! Ternary weights as QMoE chooses them (Frantar and Alistarh, arXiv 2310.16795, section 3): experts below one bit a weight.

use std::ops::Range;

use cmz_codec::array::Parts;
use cmz_format::Result;

use crate::Matrix;
use crate::solver::{Fit, Gptq, Order, Solver, SolverOptions, Statistics, Ternary, TernaryRow};

/// What QMoE adds to the diagonal of a Hessian, as a fraction of its mean: ten times what GPTQ does, since an expert sees few tokens.
pub const DAMPING: f64 = 0.1;

/// Rounds each weight to 0 or to its row's least or greatest weight. The three are chosen before the first weight is rounded; in such a wide
/// grid most weights are 0 (86 to 89 % in the paper), which is what makes them small.
///
/// With [`Statistics::identity`] weights are rounded to nearest. Results do not depend on `threads`.
///
/// # Errors
/// As [`Solver::new`] and [`Solver::gptq`].
pub fn ternary(weights: &Matrix, statistics: &Statistics, threads: usize) -> Result<Gptq<TernaryRow>> {
    // Solving the columns with the greatest inputs first makes such models worse, says the paper.
    let options = SolverOptions { damping: DAMPING, order: Order::Stored, threads };
    Solver::new(statistics, options)?.gptq(weights, &Ternary, weights.columns().max(1), Fit::Static)
}

/// The components of some rows, for a block of the encoding [`ternary`](cmz_codec::encoding::ternary) by row.
///
/// # Panics
/// If there are no such rows.
#[must_use]
pub fn ternary_parts(solved: &Gptq<TernaryRow>, rows: Range<usize>) -> Parts {
    let numbers = &solved.groups[if solved.columns == 0 { 0..0 } else { rows.clone() }];
    let bytes = |number: fn(&TernaryRow) -> half::bf16| {
        Parts::Whole(numbers.iter().flat_map(|row| number(row).to_le_bytes()).collect())
    };
    let symbols = solved.codes[rows.start * solved.columns..rows.end * solved.columns].to_vec();
    Parts::Components(vec![Parts::Whole(symbols), bytes(|row| row.low), bytes(|row| row.high)])
}

#[cfg(test)]
mod tests {
    use cmz_codec::Scratch;
    use cmz_codec::array::{StoredArray, StoredComponent};
    use cmz_codec::encoding::{Array, Element, Encoding, plain::Plain, ternary::BY_ROW};
    use cmz_codec::registry::stream_by_name;
    use cmz_codec::stream::Level;
    use cmz_format::Dtype;

    use super::*;
    use crate::solver::output_error;
    use crate::solver::testing::{correlated, weights};

    /// The encoding by itself rounds to nearest, too.
    #[test]
    fn without_statistics_it_is_what_the_encoding_does() {
        let weights = weights(20, 300, 5);
        let data: Vec<u8> = weights.data().iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let array = Array::new(Element::Dtype(Dtype::F32), data.len(), 300);
        let mut components = [vec![0; 20 * 300], vec![0; 40], vec![0; 40]];
        BY_ROW.split(array, &data, &mut components.each_mut().map(Vec::as_mut_slice));
        let solved = ternary(&weights, &Statistics::identity(300), 2).unwrap();
        let expected = Parts::Components(components.map(Parts::Whole).to_vec());
        assert_eq!(ternary_parts(&solved, 0..20), expected);
    }

    #[test]
    fn outputs_are_better_than_rounded_to_nearest() {
        let (weights, statistics) = (weights(64, 256, 3), correlated(256, 7));
        let solve = |statistics: &Statistics| ternary(&weights, statistics, 2).unwrap().decode(&Ternary);
        let nearest = output_error(&weights, &solve(&Statistics::identity(256)), &statistics);
        let solved = output_error(&weights, &solve(&statistics), &statistics);
        assert!(solved < 0.8 * nearest, "{solved} and {nearest}");
    }

    /// What is stored of a block's rows decodes to what the solver chose, and is below one bit a weight.
    #[test]
    fn blocks_decode_to_what_was_chosen() {
        let (rows, columns) = (48, 1024);
        let weights = weights(rows, columns, 9);
        let solved = ternary(&weights, &correlated(columns, 2), 2).unwrap();
        let stream = |name| StoredComponent::Stream(vec![stream_by_name(name).unwrap()]);
        let numbers = || StoredComponent::Encoded(StoredArray::new(&Plain, vec![stream("raw")]));
        let stored = StoredArray::new(&BY_ROW, vec![stream("tunstall"), numbers(), numbers()]);
        let expected = solved.decode(&Ternary);
        for range in [0..20, 20..48, 48..48] {
            let array = Array::new(Element::Dtype(Dtype::F32), range.len() * columns * 4, columns);
            let parts = ternary_parts(&solved, range.clone());
            let (block, decoded) = stored.encode_parts(array, parts, Level::Fast, &mut Scratch::new()).unwrap();
            let chosen = &expected.data()[range.start * columns..range.end * columns];
            assert!(decoded == chosen.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>());
            assert!(block.payload.len() * 8 <= range.len() * columns + 3 * 128, "{} bytes", block.payload.len());
        }
    }
}
