//! What the tests of several encodings share.

use cmz_format::Code;

use super::number::Float;
use super::{Array, Element, Encoding};

pub(super) const FLOATS: [Float; 3] = [Float::F16, Float::BF16, Float::F32];

/// Shapes, as elements and row, with one row, many, short ones, long ones, and a shorter one in the end.
pub(super) const SHAPES: [(usize, usize); 7] =
    [(1203, usize::MAX), (1203, 1), (1203, 31), (1203, 400), (5, 9), (1203, 601), (0, 4)];

/// An array of elements.
pub(super) fn array(element: Float, elements: usize, row: usize) -> Array {
    Array::new(Element::Dtype(element.dtype()), elements * element.len(), row)
}

/// Some bytes (a linear congruential generator).
pub(super) fn random(state: &mut u64, len: usize) -> Vec<u8> {
    let mut next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The number of the group that element `i` belongs to, by §6.8 of the format.
pub(super) fn group_of(i: usize, elements: usize, row: usize, [rows, columns]: [u32; 2]) -> usize {
    let row = row.min(elements);
    i / row / rows as usize * row.div_ceil(columns as usize) + i % row / columns as usize
}

/// Numbers as the bytes of an array.
pub(super) fn bytes(float: Float, numbers: &[f32]) -> Vec<u8> {
    let mut array = vec![0; numbers.len() * float.len()];
    for (i, &x) in numbers.iter().enumerate() {
        float.put(&mut array, i, x);
    }
    array
}

/// The bytes of an array as numbers.
pub(super) fn numbers(float: Float, array: &[u8]) -> Vec<f32> {
    (0..array.len() / float.len()).map(|i| float.get(array, i)).collect()
}

/// Takes an array apart.
pub(super) fn split(encoding: &dyn Encoding, array: Array, data: &[u8]) -> Vec<Vec<u8>> {
    let components = encoding.components(array).unwrap();
    let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0xa5; c.array.byte_len]).collect();
    encoding.split(array, data, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    parts
}

/// Puts an array together, whose components must have the lengths that the encoding asks for.
pub(super) fn join(
    encoding: &dyn Encoding,
    array: Array,
    parts: &[Vec<u8>],
) -> Result<Vec<u8>, crate::stream::StreamError> {
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    for (i, part) in parts.iter().enumerate() {
        assert_eq!(encoding.component_array(array, i, &slices[..i])?.byte_len, part.len(), "component {i}");
    }
    let mut data = vec![0xa5; array.byte_len];
    encoding.join(array, &slices, &mut data).map(|()| data)
}

/// Random components whose symbols have no more bits than their widths.
pub(super) fn random_parts(encoding: &dyn Encoding, array: Array, state: &mut u64) -> Vec<Vec<u8>> {
    let part = |component: &super::Component| {
        let mut part = random(state, component.array.byte_len);
        if let Element::Symbol(width) = component.array.element
            && width.bytes() == 1
        {
            part.iter_mut().for_each(|symbol| *symbol >>= 8 - width.bits());
        }
        part
    };
    encoding.components(array).unwrap().iter().map(part).collect()
}

/// An encoding takes its own parameters and refuses each change of them by its code.
pub(super) fn check_params(encoding: &dyn Encoding, changes: &[(&str, &str, Code)]) {
    let parse = |json: &str| {
        let parsed = encoding.with_params(&serde_json::from_str(json).unwrap());
        parsed.map(|parsed| parsed.unwrap().params()).map_err(|e| e.code())
    };
    let good = serde_json::to_string(&encoding.params()).unwrap();
    assert_eq!(parse(&good), Ok(encoding.params()));
    for &(from, to, code) in changes {
        let changed = good.replacen(from, to, 1);
        assert!(changed != good, "{from} is not in {good}");
        assert_eq!(parse(&changed), Err(code), "{changed}");
    }
    assert_eq!(parse("{}"), Err(Code::Malformed));
}
