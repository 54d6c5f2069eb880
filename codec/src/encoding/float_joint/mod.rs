//! `float_joint`: exponent and top mantissa bits as one symbol. See `SPEC.md` in this
//! folder.

use cmz_format::Dtype;

use super::versions::Version;
use super::{Array, Component, Components, Element, Encoding, StreamRef};
use crate::Scratch;
use crate::device::{DeviceJoin, DeviceNode};
use crate::stream::tiered::Path;
use crate::stream::{Level, StreamError, Width};

mod fused;
mod loops;
#[cfg(test)]
mod tests;

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

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        let join = match Layout::of(array.element)? {
            Layout::Whole => DeviceJoin::Bytes,
            Layout::Split { len: 2, low: 5 } => DeviceJoin::JointBf16,
            Layout::Split { len: 2, .. } => DeviceJoin::JointF16,
            Layout::Split { len: 4, .. } => DeviceJoin::JointF32,
            Layout::Split { .. } => return None,
        };
        Some(DeviceNode::Join(join))
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let layout = Layout::of(array.element).expect("components() gave this array components");
        loops::split_by(Version::best(), layout, data, components);
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let layout = Layout::of(array.element).expect("components() gave this array components");
        loops::join_by(Version::best(), layout, components, data);
        Ok(())
    }

    fn decode_fused(
        &self,
        array: Array,
        streams: &[StreamRef<'_>],
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Option<Result<(), StreamError>> {
        fused::decode(Path::best(), array, streams, scratch, data)
    }

    fn encode_fused(
        &self,
        array: Array,
        data: &[u8],
        codecs: &[u16],
        level: Level,
        scratch: &mut Scratch,
        streams: &mut [Vec<u8>],
    ) -> bool {
        fused::encode(Path::best(), array, data, codecs, level, scratch, streams)
    }
}
