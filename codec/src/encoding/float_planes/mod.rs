//! `float_planes`: exponents apart from signs and mantissas. See `SPEC.md` in this folder.

use cmz_format::Dtype;

use super::{Array, Component, Components, Element, Encoding, StreamRef};
use crate::Scratch;
use crate::device::{DeviceJoin, DeviceNode};
use crate::stream::tiered::Path;
use crate::stream::{Level, StreamError, Width};

mod fused;
mod planes;
#[cfg(test)]
mod tests;

use super::versions::Version;

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

impl FloatPlanes {
    /// [`Encoding::decode_fused`] on a stated path.
    pub fn decode_fused_on(
        path: Path,
        array: Array,
        streams: &[StreamRef<'_>],
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Option<Result<(), StreamError>> {
        fused::decode(path, array, streams, scratch, data)
    }

    /// [`Encoding::encode_fused`] on a stated path.
    pub fn encode_fused_on(
        path: Path,
        array: Array,
        data: &[u8],
        codecs: &[u16],
        scratch: &mut Scratch,
        streams: &mut [Vec<u8>],
    ) -> bool {
        fused::encode(path, array, data, codecs, scratch, streams)
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
        let layout = Layout::of(array.element).expect("components() gave this array components");
        planes::split_by(Version::best(), layout, data, components);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let layout = Layout::of(array.element).expect("components() gave this array components");
        planes::join_by(Version::best(), layout, components, data);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let join = match Layout::of(array.element)? {
            Layout::Bytes(2) => DeviceJoin::Bf16,
            Layout::Bytes(4) => DeviceJoin::F32,
            Layout::Half => DeviceJoin::F16,
            Layout::Byte { mantissa: 2 } => DeviceJoin::F8E5M2,
            Layout::Byte { mantissa: 3 } => DeviceJoin::F8E4M3,
            Layout::Bytes(_) | Layout::Byte { .. } => return None,
        };
        Some(DeviceNode::Join(join))
    }

    fn decode_fused(
        &self,
        array: Array,
        streams: &[StreamRef<'_>],
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Option<Result<(), StreamError>> {
        Self::decode_fused_on(Path::best(), array, streams, scratch, data)
    }

    fn encode_fused(
        &self,
        array: Array,
        data: &[u8],
        codecs: &[u16],
        _: Level,
        scratch: &mut Scratch,
        streams: &mut [Vec<u8>],
    ) -> bool {
        Self::encode_fused_on(Path::best(), array, data, codecs, scratch, streams)
    }
}
