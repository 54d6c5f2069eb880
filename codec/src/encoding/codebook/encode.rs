//! Elements to indices of entries that lie evenly between the least and the greatest weight of a group.

use super::{Codebook, Form, Shape};

/// Takes elements apart.
pub(super) fn split(codebook: Codebook, shape: &Shape, data: &[u8], components: &mut [&mut [u8]]) {
    let (indices, numbers) = components.split_first_mut().expect("components() has indices");
    let last = (codebook.len() - 1) as f64;
    for group in 0..shape.grid.count() {
        let vectors = shape.grid.members(group).flatten();
        let weights = vectors.clone().flat_map(|i| shape.vector(i)).map(|i| f64::from(shape.element.get(data, i)));
        let finite = weights.filter(|w| w.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), w| (low.min(w), high.max(w)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
        let step = (high - low) / last;
        set_entries(codebook, shape.dim, group, low, step, numbers);
        for i in vectors {
            let elements = shape.vector(i);
            let mean =
                elements.clone().map(|i| f64::from(shape.element.get(data, i))).sum::<f64>() / elements.len() as f64;
            let index = ((mean - low) / step).round_ties_even();
            indices[i] = if index >= 0.0 { index.min(last) as u8 } else { 0 };
        }
    }
}

/// Entry `k` is `low + k · step`.
fn set_entries(codebook: Codebook, dim: usize, group: usize, low: f64, step: f64, numbers: &mut [&mut [u8]]) {
    let (len, bits) = (codebook.len(), usize::from(codebook.bits));
    match (codebook.form, numbers) {
        (Form::Binary, [alphas, biases]) => {
            for bit in 0..bits {
                codebook.table.set(alphas, group * bits + bit, step * 2f64.powi(bit as i32 - 1));
            }
            codebook.table.set(biases, group, low + step * (len - 1) as f64 / 2.0);
        }
        (_, numbers) => {
            for i in 0..len * dim {
                codebook.table.set(numbers[0], group * len * dim + i, low + step * (i / dim) as f64);
            }
        }
    }
}
