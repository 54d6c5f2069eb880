//! `byte_planes`: the bytes of each significance apart. See `SPEC.md` in this folder.

use cmz_format::Dtype;

use super::{Array, Component, Components, Element, Encoding};
use crate::stream::{StreamError, Width};

/// The `byte_planes` encoding.
#[derive(Debug)]
pub struct BytePlanes;

const BYTE: [&str; 8] = ["byte_0", "byte_1", "byte_2", "byte_3", "byte_4", "byte_5", "byte_6", "byte_7"];

/// Bytes of an element.
fn element_len(element: Element) -> Option<usize> {
    match element {
        Element::Dtype(Dtype::I16 | Dtype::U16) => Some(2),
        Element::Dtype(Dtype::I32 | Dtype::U32) => Some(4),
        Element::Dtype(Dtype::I64 | Dtype::U64 | Dtype::C64) => Some(8),
        _ => None,
    }
}

impl Encoding for BytePlanes {
    fn name(&self) -> &'static str {
        "byte_planes"
    }

    fn components(&self, array: Array) -> Option<Components> {
        let k = element_len(array.element).filter(|&k| array.byte_len.is_multiple_of(k))?;
        let plane = Array::of_symbols(Width::BYTE, array.byte_len / k);
        Some(BYTE[..k].iter().rev().map(|&name| Component { name, array: plane }).collect())
    }

    fn split(&self, _: Array, data: &[u8], components: &mut [&mut [u8]]) {
        match components.len() {
            2 => split::<2>(data, components),
            4 => split::<4>(data, components),
            _ => split::<8>(data, components),
        }
    }

    fn join(&self, _: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        match *components {
            [b1, b0] => interleave(b0, b1, data.as_chunks_mut().0, |low, high| [low, high]),
            [b3, b2, b1, b0] => join_4([b0, b1, b2, b3], data),
            [b7, b6, b5, b4, b3, b2, b1, b0] => join_8([b0, b1, b2, b3, b4, b5, b6, b7], data),
            _ => unreachable!("components() gave this array other components"),
        }
        Ok(())
    }
}

/// Elements that are taken apart or put together before the next ones' turn: they stay in the
/// nearest cache.
const RUN: usize = 1024;

/// Takes elements of `K` bytes apart, the highest plane first.
fn split<const K: usize>(data: &[u8], planes: &mut [&mut [u8]]) {
    for (run, elements) in data.as_chunks::<K>().0.chunks(RUN).enumerate() {
        for (plane, byte) in planes.iter_mut().zip((0..K).rev()) {
            for (place, element) in plane[run * RUN..].iter_mut().zip(elements) {
                *place = element[byte];
            }
        }
    }
}

/// Puts low and high halves together: one loop with two inputs, as compilers like it.
fn interleave<T: Copy, U>(low: &[T], high: &[T], whole: &mut [U], join: impl Fn(T, T) -> U) {
    for ((whole, &low), &high) in whole.iter_mut().zip(low).zip(high) {
        *whole = join(low, high);
    }
}

/// Pairs of bytes of a run of elements, given by two planes from element `at` on.
fn pairs(low: &[u8], high: &[u8], at: usize) -> [u16; RUN] {
    let mut pairs = [0; RUN];
    interleave(&low[at..], &high[at..], &mut pairs, |low, high| u16::from_le_bytes([low, high]));
    pairs
}

/// Puts elements of four bytes together, the lowest plane first.
fn join_4([b0, b1, b2, b3]: [&[u8]; 4], data: &mut [u8]) {
    for (run, elements) in data.as_chunks_mut::<4>().0.chunks_mut(RUN).enumerate() {
        let at = run * RUN;
        let join = |low, high| (u32::from(low) | u32::from(high) << 16).to_le_bytes();
        interleave(&pairs(b0, b1, at), &pairs(b2, b3, at), elements, join);
    }
}

/// Puts elements of eight bytes together, the lowest plane first.
fn join_8([b0, b1, b2, b3, b4, b5, b6, b7]: [&[u8]; 8], data: &mut [u8]) {
    let (mut low, mut high) = ([0; RUN], [0; RUN]);
    for (run, elements) in data.as_chunks_mut::<8>().0.chunks_mut(RUN).enumerate() {
        let at = run * RUN;
        let four = |low, high| u32::from(low) | u32::from(high) << 16;
        interleave(&pairs(b0, b1, at), &pairs(b2, b3, at), &mut low, four);
        interleave(&pairs(b4, b5, at), &pairs(b6, b7, at), &mut high, four);
        interleave(&low, &high, elements, |low, high| (u64::from(low) | u64::from(high) << 32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_those_of_the_specification() {
        let data = [1, 0, 0xfe, 0xff, 2, 1];
        let array = Array::vector(Element::Dtype(Dtype::I16), data.len());
        let names: Vec<_> = BytePlanes.components(array).unwrap().iter().map(|c| c.name).collect();
        assert_eq!(names, ["byte_1", "byte_0"]);
        let (mut high, mut low) = ([0xa5; 3], [0xa5; 3]);
        BytePlanes.split(array, &data, &mut [&mut high, &mut low]);
        assert_eq!((high, low), ([0, 0xff, 1], [1, 0xfe, 2]));
        assert_eq!(BytePlanes.components(Array { byte_len: 7, ..array }), None);
        assert_eq!(BytePlanes.components(Array::vector(Element::Dtype(Dtype::F64), 8)), None);
    }

    #[test]
    fn planes_of_every_length_go_back() {
        for dtype in [Dtype::U16, Dtype::I32, Dtype::C64] {
            let k = element_len(Element::Dtype(dtype)).unwrap();
            for len in [0, 1, 3, RUN - 1, RUN, RUN + 1, 3 * RUN + 5] {
                let data: Vec<u8> = (0..k * len).map(|i| (i * i / 7) as u8).collect();
                let array = Array::vector(Element::Dtype(dtype), data.len());
                let mut planes = vec![vec![0; len]; k];
                BytePlanes.split(array, &data, &mut planes.iter_mut().map(|p| &mut p[..]).collect::<Vec<_>>());
                for (plane, byte) in planes.iter().zip((0..k).rev()) {
                    assert!(plane.iter().eq(data.iter().skip(byte).step_by(k)), "{dtype}, {len} elements");
                }
                let mut joined = vec![0xa5; data.len()];
                BytePlanes.join(array, &planes.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut joined).unwrap();
                assert!(joined == data, "{dtype}, {len} elements");
            }
        }
    }
}
