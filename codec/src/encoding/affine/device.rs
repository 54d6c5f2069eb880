//! What a device is told of `affine`: see `decode.cu`.

use super::{Affine, Array, Float, Form};
use crate::device::{DeviceAffine, DeviceFloat, DeviceGroups, DeviceNode, DeviceShift};

impl Affine {
    /// How a device puts `array` together.
    pub(super) fn node(&self, array: Array) -> Option<DeviceNode> {
        let element = Float::of(array.element)?;
        let elements = u32::try_from(array.byte_len / element.len()).ok()?.max(1);
        Some(DeviceNode::Affine(DeviceAffine {
            element: element.on_device(),
            scale: self.scale.on_device(),
            shift: match self.form {
                Form::Symmetric => DeviceShift::Middle,
                Form::ZeroPoint => DeviceShift::ZeroPoint,
                Form::Bias => DeviceShift::Bias,
            },
            bits: self.bits,
            half: false,
            groups: DeviceGroups { row: elements, rows: 1, columns: self.group },
        }))
    }
}

impl Float {
    const fn on_device(self) -> DeviceFloat {
        match self {
            Self::F16 => DeviceFloat::F16,
            Self::BF16 => DeviceFloat::Bf16,
            Self::F32 => DeviceFloat::F32,
        }
    }
}
