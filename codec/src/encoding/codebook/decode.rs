//! Indices to elements, group by group.

use super::{Codebook, Form, Shape};
use crate::encoding::number::Number;
use crate::prefetch::{self, PIECE};

/// Entries that an index of eight bits can mean: with so many, none has to be checked.
const ALL: usize = 256;
/// Puts elements together.
pub(super) fn join<T: Number>(codebook: Codebook, shape: &Shape, components: &[&[u8]], data: &mut [u8]) {
    let (indices, elements) = (components[0], T::of_mut(data));
    let entry = |group: usize, i: usize| T::from_f32(entry(codebook, components, group, i));
    let len = codebook.len() * shape.dim;
    let mut table: Vec<T::Bytes> = Vec::with_capacity(len);
    for group in 0..shape.grid.count() {
        let vectors: usize = shape.grid.members(group).map(|run| run.len()).sum();
        table.clear();
        // A table has to be read as often as it is written to pay.
        if vectors >= codebook.len() {
            table.extend((0..len).map(|i| entry(group, i)));
            table.resize(len.max(ALL), entry(group, 0));
        }
        for run in shape.grid.members(group) {
            if shape.dim == 1
                && let Some(table) = table.first_chunk()
            {
                look_up::<T>(table, &indices[run.clone()], &mut elements[run]);
            } else if table.is_empty() {
                for vector in run {
                    let first = usize::from(indices[vector]) * shape.dim;
                    elements[shape.vector(vector)].iter_mut().zip(first..).for_each(|(x, i)| *x = entry(group, i));
                }
            } else {
                for vector in run {
                    let entry = &table[usize::from(indices[vector]) * shape.dim..][..shape.dim];
                    elements[shape.vector(vector)].iter_mut().zip(entry).for_each(|(x, &number)| *x = number);
                }
            }
        }
    }
}

fn look_up<T: Number>(table: &[T::Bytes; ALL], indices: &[u8], elements: &mut [T::Bytes]) {
    for (elements, indices) in elements.chunks_mut(PIECE).zip(indices.chunks(PIECE)) {
        prefetch::write_behind(elements);
        elements.iter_mut().zip(indices).for_each(|(x, &index)| *x = table[usize::from(index)]);
    }
}

/// Number `i` of a group's table.
fn entry(codebook: Codebook, components: &[&[u8]], group: usize, i: usize) -> f32 {
    let bits = usize::from(codebook.bits);
    match codebook.form {
        Form::Table => codebook.table.get(components[1], group * codebook.len() * codebook.dim as usize + i),
        Form::Binary => {
            let alphas = (0..bits).map(|bit| {
                let alpha = codebook.table.get(components[1], group * bits + bit);
                if i >> bit & 1 == 1 { alpha } else { -alpha }
            });
            alphas.reduce(|sum, alpha| sum + alpha).unwrap_or_default() + codebook.table.get(components[2], group)
        }
    }
}
