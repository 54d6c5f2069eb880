//! `permute`: the columns of an array in another order. See `SPEC.md` in this folder.

use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceNode, DevicePermute};
use crate::stream::{StreamError, Width};

#[cfg(test)]
mod tests;

/// The `permute` encoding.
#[derive(Debug)]
pub struct Permute;

/// Elements of a row, at most: an index fits 16 bits.
const MAX_ROW: usize = 1 << 16;

/// Bytes of an element and elements of a row; `None` if the array is not of whole rows of elements of whole bytes.
fn shape(array: Array) -> Option<(usize, usize)> {
    let Element::Dtype(dtype) = array.element else { return None };
    let len = (dtype.bits() / 8) as usize;
    if !dtype.bits().is_multiple_of(8) || !array.byte_len.is_multiple_of(len) {
        return None;
    }
    let row = array.row.min(array.byte_len / len);
    (row <= MAX_ROW && (row == 0 || array.byte_len.is_multiple_of(row * len))).then_some((len, row))
}

impl Encoding for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    /// Nobody would choose an order without a reason, so this is no candidate where exact encodings are.
    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (_, row) = shape(array)?;
        let order = Array::of_symbols(Width::new(16), row);
        Some([("array", array), ("order", order)].map(|(name, array)| Component { name, array }).into_iter().collect())
    }

    fn split(&self, _: Array, data: &[u8], components: &mut [&mut [u8]]) {
        components[0].copy_from_slice(data);
        let order = components[1].as_chunks_mut().0;
        order.iter_mut().enumerate().for_each(|(i, place)| *place = (i as u16).to_le_bytes());
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (len, row) = shape(array).ok_or(StreamError::Length)?;
        let sources = inverse(components[1], row)?;
        match len {
            1 => join::<1>(&sources, components[0], data),
            2 => join::<2>(&sources, components[0], data),
            4 => join::<4>(&sources, components[0], data),
            _ => join::<8>(&sources, components[0], data),
        }
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let (len, row) = shape(array)?;
        Some(DeviceNode::Permute(DevicePermute { element_len: len as u32, row: row as u32 }))
    }

    fn told_len(&self, array: Array, number: usize) -> Option<usize> {
        shape(array).filter(|_| number == 1).map(|(_, row)| 2 * row)
    }

    fn tell(&self, array: Array, _: usize, order: &[u8]) -> Result<Vec<u8>, StreamError> {
        let (_, row) = shape(array).ok_or(StreamError::Length)?;
        Ok(inverse(order, row)?.into_iter().flat_map(u16::to_le_bytes).collect())
    }
}

/// For each column, where it comes from.
fn inverse(order: &[u8], row: usize) -> Result<Vec<u16>, StreamError> {
    let mut sources = vec![None; row];
    for (i, &place) in order.as_chunks().0.iter().enumerate() {
        let source = sources.get_mut(usize::from(u16::from_le_bytes(place)));
        let source = source.filter(|source| source.is_none());
        *source.ok_or(StreamError::Invalid("an order that is no permutation"))? = Some(i as u16);
    }
    sources.into_iter().collect::<Option<_>>().ok_or(StreamError::Length)
}

fn join<const N: usize>(sources: &[u16], permuted: &[u8], data: &mut [u8]) {
    let rows = permuted.as_chunks::<N>().0.chunks_exact(sources.len().max(1));
    for (row, permuted) in data.as_chunks_mut::<N>().0.chunks_exact_mut(sources.len().max(1)).zip(rows) {
        row.iter_mut().zip(sources).for_each(|(element, &source)| *element = permuted[usize::from(source)]);
    }
}
