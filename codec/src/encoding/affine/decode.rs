//! Codes to elements, group by group.

use super::float::{Bf16, F16, F32, Number};
use super::{Affine, Float, Form};

/// The numbers of one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) scale: f32,
    /// Integer that is taken from every code.
    pub(super) zero: u8,
    /// What is added in the end; none if nothing is, since adding 0 would change −0.
    pub(super) bias: Option<f32>,
}

impl Group {
    pub(super) fn of(affine: Affine, components: &[&[u8]], i: usize) -> Self {
        let (zero, bias) = match affine.form {
            Form::Symmetric => (affine.middle(), None),
            Form::ZeroPoint => (components[2][i], None),
            Form::Bias => (0, Some(affine.scale.get(components[2], i))),
        };
        Self { scale: affine.scale.get(components[1], i), zero, bias }
    }

    /// What a code stands for: each operation is rounded to single precision.
    #[inline]
    fn value(self, code: u8) -> f32 {
        let product = (i32::from(code) - i32::from(self.zero)) as f32 * self.scale;
        match self.bias {
            None => product,
            Some(bias) => product + bias,
        }
    }
}

/// Puts elements of type `element` together.
pub(super) fn join(affine: Affine, element: Float, components: &[&[u8]], data: &mut [u8]) {
    match element {
        Float::F16 => join_as::<F16, 2>(affine, components, data),
        Float::BF16 => join_as::<Bf16, 2>(affine, components, data),
        Float::F32 => join_as::<F32, 4>(affine, components, data),
    }
}

fn join_as<T: Number<Bytes = [u8; N]>, const N: usize>(affine: Affine, components: &[&[u8]], data: &mut [u8]) {
    let len = affine.group as usize;
    let groups = components[0].chunks(len).zip(data.as_chunks_mut().0.chunks_mut(len));
    for (i, (codes, elements)) in groups.enumerate() {
        let group = Group::of(affine, components, i);
        // A table has to be read twice as often as it is written to pay.
        if affine.bits <= TABLE_BITS && codes.len() >= 2 << affine.bits {
            by_table::<T, N>(group, affine.max_code(), codes, elements);
        } else {
            one_by_one::<T, N>(group, codes, elements);
        }
    }
}

/// Bits of codes that are looked up in a table of all values.
const TABLE_BITS: u8 = 6;

/// `codes` are at most `max_code`, or are taken modulo 2 to the power of [`TABLE_BITS`].
fn by_table<T: Number<Bytes = [u8; N]>, const N: usize>(
    group: Group,
    max_code: u8,
    codes: &[u8],
    elements: &mut [[u8; N]],
) {
    let mut table = [[0; N]; 1 << TABLE_BITS];
    for (code, value) in table[..=usize::from(max_code)].iter_mut().enumerate() {
        *value = T::from_f32(group.value(code as u8));
    }
    for (element, &code) in elements.iter_mut().zip(codes) {
        *element = table[usize::from(code) % table.len()];
    }
}

fn one_by_one<T: Number<Bytes = [u8; N]>, const N: usize>(group: Group, codes: &[u8], elements: &mut [[u8; N]]) {
    elements.iter_mut().zip(codes).for_each(|(element, &code)| *element = T::from_f32(group.value(code)));
}
