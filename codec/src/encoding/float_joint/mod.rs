//! `float_joint`: exponent and top mantissa bits as one symbol. See `SPEC.md` in this
//! folder.

use cmz_format::Dtype;

use super::{Array, Component, Components, Element, Encoding};
use crate::device::DeviceJoin;
use crate::stream::Width;

/// The `float_joint` encoding.
#[derive(Debug)]
pub struct FloatJoint;

/// How the elements of a type are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Elements of `len` bytes; `low` mantissa bits of the top two stay with the sign.
    Split { len: usize, low: u8 },
    /// Elements of one byte, whole.
    Whole,
}

const MANTISSA: [&str; 6] = ["mantissa_0", "mantissa_1", "mantissa_2", "mantissa_3", "mantissa_4", "mantissa_5"];

impl Layout {
    fn of(element: Element) -> Option<Self> {
        let Element::Dtype(dtype) = element else { return None };
        Some(match dtype {
            Dtype::BF16 => Self::Split { len: 2, low: 5 },
            Dtype::F16 => Self::Split { len: 2, low: 7 },
            Dtype::F32 | Dtype::C64 => Self::Split { len: 4, low: 5 },
            Dtype::F64 => Self::Split { len: 8, low: 3 },
            Dtype::F8_E5M2 | Dtype::F8_E4M3 | Dtype::F8_E5M2FNUZ | Dtype::F8_E4M3FNUZ => Self::Whole,
            _ => return None,
        })
    }
}

impl Encoding for FloatJoint {
    fn name(&self) -> &'static str {
        "float_joint"
    }

    fn components(&self, array: Array) -> Option<Components> {
        let component = |(name, bits, len)| Component { name, array: Array::of_symbols(Width::new(bits), len) };
        match Layout::of(array.element)? {
            Layout::Whole => Some([("value", 8, array.byte_len)].map(component).into_iter().collect()),
            Layout::Split { len, .. } if !array.byte_len.is_multiple_of(len) => None,
            Layout::Split { len, low } => {
                let n = array.byte_len / len;
                let top = [("exponent_mantissa", 15 - low, n), ("sign_mantissa", low + 1, n)];
                let planes = (0..len - 2).rev().map(|i| (MANTISSA[i], 8, n));
                Some(top.into_iter().chain(planes).map(component).collect())
            }
        }
    }

    fn device_join(&self, element: Element) -> Option<DeviceJoin> {
        match Layout::of(element)? {
            Layout::Whole => Some(DeviceJoin::Bytes),
            Layout::Split { len: 2, low: 5 } => Some(DeviceJoin::JointBf16),
            Layout::Split { len: 2, .. } => Some(DeviceJoin::JointF16),
            Layout::Split { len: 4, .. } => Some(DeviceJoin::JointF32),
            Layout::Split { .. } => None,
        }
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        match (Layout::of(array.element), components) {
            (Some(Layout::Whole), [value]) => value.copy_from_slice(data),
            (Some(Layout::Split { len: 2, low: 5 }), [joint, rest]) => {
                split::<2, 2, 5>(data, u16::from_le_bytes, u16::to_le_bytes, joint, rest);
            }
            (Some(Layout::Split { len: 2, .. }), [joint, rest]) => {
                split::<2, 1, 7>(data, u16::from_le_bytes, |joint| [joint as u8], joint, rest);
            }
            (Some(Layout::Split { len: 4, .. }), [joint, rest, low @ ..]) => {
                split::<4, 2, 5>(data, top_of_four, u16::to_le_bytes, joint, rest);
                split_low::<4>(data, low);
            }
            (Some(Layout::Split { .. }), [joint, rest, low @ ..]) => {
                split::<8, 2, 3>(data, top_of_eight, u16::to_le_bytes, joint, rest);
                split_low::<8>(data, low);
            }
            _ => unreachable!("components() gave this array other components"),
        }
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) {
        match (Layout::of(array.element), components) {
            (Some(Layout::Whole), [value]) => data.copy_from_slice(value),
            (Some(Layout::Split { len: 2, low: 5 }), [joint, rest]) => {
                let elements = data.as_chunks_mut().0.iter_mut();
                for (element, v) in elements.zip(tops::<2, 5>(joint, rest, u16::from_le_bytes)) {
                    *element = u16::to_le_bytes(v);
                }
            }
            (Some(Layout::Split { len: 2, .. }), [joint, rest]) => {
                let elements = data.as_chunks_mut().0.iter_mut();
                for (element, v) in elements.zip(tops::<1, 7>(joint, rest, |[joint]| joint.into())) {
                    *element = u16::to_le_bytes(v);
                }
            }
            (Some(Layout::Split { len: 4, .. }), [joint, rest, high, low]) => {
                let low = high.iter().zip(*low).map(|(&high, &low)| u16::from_le_bytes([low, high]));
                let elements = data.as_chunks_mut().0.iter_mut();
                for ((element, v), low) in elements.zip(tops::<2, 5>(joint, rest, u16::from_le_bytes)).zip(low) {
                    *element = u32::to_le_bytes(u32::from(v) << 16 | u32::from(low));
                }
            }
            (Some(Layout::Split { .. }), [joint, rest, low @ ..]) => {
                let elements = data.as_chunks_mut::<8>().0;
                for (element, v) in elements.iter_mut().zip(tops::<2, 3>(joint, rest, u16::from_le_bytes)) {
                    element[6..].copy_from_slice(&v.to_le_bytes());
                }
                for (plane, byte) in low.iter().zip((0..6).rev()) {
                    for (element, &value) in elements.iter_mut().zip(*plane) {
                        element[byte] = value;
                    }
                }
            }
            _ => unreachable!("components() gave this array other components"),
        }
    }
}

/// Elements that are taken apart before the next component's turn: they stay in the
/// nearest cache, and every loop has one input and one output, as compilers like it.
const RUN: usize = 2048;

/// Splits the top bytes of elements of `K` bytes into joint symbols of `J` bytes and
/// `R` low bits with the sign.
#[inline(always)]
fn split<const K: usize, const J: usize, const R: u32>(
    data: &[u8],
    top: impl Fn([u8; K]) -> u16,
    put: impl Fn(u16) -> [u8; J],
    joint: &mut [u8],
    rest: &mut [u8],
) {
    let runs = data.as_chunks().0.chunks(RUN);
    for ((elements, joint), rest) in runs.zip(joint.as_chunks_mut().0.chunks_mut(RUN)).zip(rest.chunks_mut(RUN)) {
        for (place, &element) in joint.iter_mut().zip(elements) {
            *place = put((top(element) & 0x7fff) >> R);
        }
        for (place, &element) in rest.iter_mut().zip(elements) {
            let v = top(element);
            *place = ((v >> 15) << R | v & ((1 << R) - 1)) as u8;
        }
    }
}

/// Splits off the bytes below the top two, the highest first.
fn split_low<const K: usize>(data: &[u8], low: &mut [&mut [u8]]) {
    for (run, elements) in data.as_chunks::<K>().0.chunks(RUN).enumerate() {
        for (plane, byte) in low.iter_mut().zip((0..K - 2).rev()) {
            for (place, element) in plane[run * RUN..].iter_mut().zip(elements) {
                *place = element[byte];
            }
        }
    }
}

/// The top bytes of elements: the inverse of [`split`].
#[inline(always)]
fn tops<const J: usize, const R: u32>(
    joint: &[u8],
    rest: &[u8],
    get: impl Fn([u8; J]) -> u16,
) -> impl Iterator<Item = u16> {
    joint.as_chunks().0.iter().zip(rest).map(move |(&joint, &rest)| {
        let rest = u16::from(rest);
        (rest >> R) << 15 | get(joint) << R | rest & ((1 << R) - 1)
    })
}

fn top_of_four(element: [u8; 4]) -> u16 {
    (u32::from_le_bytes(element) >> 16) as u16
}

fn top_of_eight(element: [u8; 8]) -> u16 {
    (u64::from_le_bytes(element) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components_of(array: Array, data: &[u8]) -> Option<Vec<(Component, Vec<u8>)>> {
        let components = FloatJoint.components(array)?;
        let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0xa5; c.array.byte_len]).collect();
        FloatJoint.split(array, data, &mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>());
        Some(components.into_iter().zip(parts).collect())
    }

    #[test]
    fn every_bit_pattern_comes_back() {
        let mut random = crate::stream::laws::Random(1);
        // All values of the top two bytes, and of all bytes of the small types.
        let all: Vec<[u8; 8]> =
            (0..=u16::MAX).map(|v| (u64::from(v) << 48 | random.next() >> 16).to_le_bytes()).collect();
        for &dtype in Dtype::ALL {
            let k = (dtype.bits() as usize / 8).clamp(1, 8);
            let half = if dtype == Dtype::C64 { 4 } else { k };
            let data: Vec<u8> = all.iter().flat_map(|v| v[8 - half..].repeat(k / half)).collect();
            let array = Array { element: Element::Dtype(dtype), byte_len: data.len() };
            let Some(parts) = components_of(array, &data) else { continue };
            for (component, part) in &parts {
                let Element::Symbol(width) = component.array.element else { panic!("symbols") };
                let fits =
                    |s: &[u8]| u32::from(s.iter().rev().fold(0u16, |v, &b| v << 8 | u16::from(b))) >> width.bits() == 0;
                assert!(part.chunks(width.bytes()).all(fits), "{dtype} {}", component.name);
            }
            let mut joined = vec![0x5a; data.len()];
            let refs: Vec<&[u8]> = parts.iter().map(|(_, part)| &part[..]).collect();
            FloatJoint.join(array, &refs, &mut joined);
            assert!(joined == data, "{dtype}");
        }
    }

    #[test]
    fn components_are_those_of_the_specification() {
        let parts = |dtype, data: &[u8]| {
            let array = Array { element: Element::Dtype(dtype), byte_len: data.len() };
            components_of(array, data).unwrap().into_iter().map(|(c, part)| (c.name, part)).collect::<Vec<_>>()
        };
        // -1.40625: sign 1, exponent 127, mantissa 0110100.
        let expected = [("exponent_mantissa", vec![0xfd, 1]), ("sign_mantissa", vec![0x34])];
        assert_eq!(parts(Dtype::BF16, &0xbfb4u16.to_le_bytes()), expected);
        // sign 1, exponent 01111, mantissa 0110100001.
        let expected = [("exponent_mantissa", vec![0x7b]), ("sign_mantissa", vec![0x80 | 0x21])];
        assert_eq!(parts(Dtype::F16, &0xbda1u16.to_le_bytes()), expected);
        assert_eq!(parts(Dtype::F8_E4M3, &[0x9c]), [("value", vec![0x9c])]);
        assert_eq!(FloatJoint.components(Array { element: Element::Dtype(Dtype::F32), byte_len: 6 }), None);
        assert_eq!(FloatJoint.components(Array { element: Element::Opaque, byte_len: 6 }), None);
    }
}
