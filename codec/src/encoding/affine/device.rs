//! What a device is told of `affine`: see `decode.cu`.

use super::{Affine, Arithmetic, Array, Form};
use crate::device::{DeviceAffine, DeviceNode, DeviceShift};

impl Affine {
    /// How a device puts `array` together.
    pub(super) fn node(&self, array: Array) -> Option<DeviceNode> {
        let (element, grid) = self.grid(array)?;
        Some(DeviceNode::Affine(DeviceAffine {
            element: element.on_device(),
            scale: self.scale.on_device(),
            shift: match self.form {
                Form::Symmetric => DeviceShift::Middle,
                Form::ZeroPoint => DeviceShift::ZeroPoint,
                Form::Zero => DeviceShift::Zero,
                Form::Bias => DeviceShift::Bias,
            },
            bits: self.bits,
            half: self.arithmetic == Arithmetic::F16,
            groups: grid.on_device()?,
        }))
    }
}
