//! `float_planes`: exponents apart from signs and mantissas. See `SPEC.md` in this folder.

use cmz_format::Dtype;

use super::{Array, Component, Components, Element, Encoding};
use crate::stream::Width;

/// The `float_planes` encoding.
#[derive(Debug)]
pub struct FloatPlanes;

/// How the elements of a type are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// So many bytes; the two top bytes trade their top bits.
    Bytes(usize),
    /// F16: exponent 5, sign and two mantissa bits, eight mantissa bits.
    Half,
    /// One byte: so many mantissa bits.
    Byte { mantissa: u8 },
}

const MANTISSA: [&str; 6] = ["mantissa_0", "mantissa_1", "mantissa_2", "mantissa_3", "mantissa_4", "mantissa_5"];

impl Layout {
    fn of(element: Element) -> Option<Self> {
        let Element::Dtype(dtype) = element else { return None };
        Some(match dtype {
            Dtype::BF16 => Self::Bytes(2),
            Dtype::F32 | Dtype::C64 => Self::Bytes(4),
            Dtype::F64 => Self::Bytes(8),
            Dtype::F16 => Self::Half,
            Dtype::F8_E5M2 | Dtype::F8_E5M2FNUZ => Self::Byte { mantissa: 2 },
            Dtype::F8_E4M3 | Dtype::F8_E4M3FNUZ => Self::Byte { mantissa: 3 },
            _ => return None,
        })
    }

    /// Bytes of one element.
    fn element_len(self) -> usize {
        match self {
            Self::Bytes(k) => k,
            Self::Half => 2,
            Self::Byte { .. } => 1,
        }
    }

    fn widths(self) -> impl Iterator<Item = (&'static str, u8)> {
        let (exponent, rest, planes) = match self {
            Self::Bytes(k) => (8, 8, k - 2),
            Self::Half => (5, 3, 1),
            Self::Byte { mantissa } => (7 - mantissa, mantissa + 1, 0),
        };
        [("exponent", exponent), ("sign_mantissa", rest)].into_iter().chain((0..planes).rev().map(|i| (MANTISSA[i], 8)))
    }
}

impl Encoding for FloatPlanes {
    fn name(&self) -> &'static str {
        "float_planes"
    }

    fn components(&self, array: Array) -> Option<Components> {
        let layout = Layout::of(array.element)?;
        if !array.byte_len.is_multiple_of(layout.element_len()) {
            return None;
        }
        let len = array.byte_len / layout.element_len();
        let component = |(name, bits)| Component { name, array: Array::of_symbols(Width::new(bits), len) };
        Some(layout.widths().map(component).collect())
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        match (Layout::of(array.element), components) {
            (Some(Layout::Bytes(k)), [exponent, rest, planes @ ..]) => {
                for (i, bytes) in data.chunks_exact(k).enumerate() {
                    let (top, next) = (bytes[k - 1], bytes[k - 2]);
                    exponent[i] = top & 0x7f | next & 0x80;
                    rest[i] = top & 0x80 | next & 0x7f;
                    for (plane, &byte) in planes.iter_mut().zip(bytes[..k - 2].iter().rev()) {
                        plane[i] = byte;
                    }
                }
            }
            (Some(Layout::Half), [exponent, rest, low]) => {
                for (i, bytes) in data.chunks_exact(2).enumerate() {
                    let v = u16::from_le_bytes([bytes[0], bytes[1]]);
                    exponent[i] = (v >> 10 & 0x1f) as u8;
                    rest[i] = ((v >> 15) << 2 | (v >> 8 & 3)) as u8;
                    low[i] = bytes[0];
                }
            }
            (Some(Layout::Byte { mantissa }), [exponent, rest]) => {
                for (i, &v) in data.iter().enumerate() {
                    exponent[i] = (v & 0x7f) >> mantissa;
                    rest[i] = (v >> 7) << mantissa | v & ((1 << mantissa) - 1);
                }
            }
            _ => unreachable!("components() gave this array other components"),
        }
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) {
        match (Layout::of(array.element), components) {
            (Some(Layout::Bytes(k)), [exponent, rest, planes @ ..]) => {
                for (i, bytes) in data.chunks_exact_mut(k).enumerate() {
                    bytes[k - 1] = exponent[i] & 0x7f | rest[i] & 0x80;
                    bytes[k - 2] = exponent[i] & 0x80 | rest[i] & 0x7f;
                    for (plane, byte) in planes.iter().zip(bytes[..k - 2].iter_mut().rev()) {
                        *byte = plane[i];
                    }
                }
            }
            (Some(Layout::Half), [exponent, rest, low]) => {
                for (i, bytes) in data.chunks_exact_mut(2).enumerate() {
                    bytes[0] = low[i];
                    bytes[1] = (rest[i] & 4) << 5 | exponent[i] << 2 | rest[i] & 3;
                }
            }
            (Some(Layout::Byte { mantissa }), [exponent, rest]) => {
                for (i, byte) in data.iter_mut().enumerate() {
                    *byte = (rest[i] >> mantissa) << 7 | exponent[i] << mantissa | rest[i] & ((1 << mantissa) - 1);
                }
            }
            _ => unreachable!("components() gave this array other components"),
        }
    }
}
