//! What a device is told of `sparse`: see `decode.cu`.

use super::places::{PIECE, Places, counts};
use super::{Arithmetic, Array, Index, Mode, Sparse};
use crate::device::{DeviceIndex, DeviceMode, DeviceNode, DeviceSparse, PLACES_TILE};
use crate::stream::StreamError;

impl Sparse {
    /// How a device puts `array` together.
    pub(super) fn node(&self, array: Array) -> Option<DeviceNode> {
        let (element, places) = self.shape(array)?;
        Some(DeviceNode::Sparse(DeviceSparse {
            element: element.on_device(),
            values: self.values.on_device(),
            mode: match self.mode {
                Mode::Replace => DeviceMode::Replace,
                Mode::Add(Arithmetic::F32) => DeviceMode::Add,
                Mode::Add(Arithmetic::F16) => DeviceMode::AddHalf,
                Mode::Fill => DeviceMode::Fill,
            },
            index: match self.index {
                Index::Bitmap => DeviceIndex::Bitmap,
                Index::Rows => DeviceIndex::Rows { piece: PIECE as u32 },
                Index::NOfM { n, m } => DeviceIndex::NOfM { n: n.into(), m: m.into() },
            },
            row: places.row_len()?,
        }))
    }
}

impl Places {
    fn row_len(&self) -> Option<u32> {
        u32::try_from(self.row).ok().filter(|_| u32::try_from(self.elements).is_ok())
    }

    /// Bytes of [`Self::tell`]; `None` where there is nothing to tell.
    pub(super) fn told_len(&self) -> Option<usize> {
        match self.index {
            Index::Bitmap => Some(4 * (self.elements.div_ceil(PLACES_TILE) + 1)),
            Index::Rows => Some(4 * (self.runs_of(PIECE).count() + 1)),
            Index::NOfM { .. } => None,
        }
    }

    /// How many values there are before each piece, or tile, and at last.
    pub(super) fn tell(&self, index: &[u8]) -> Result<Vec<u8>, StreamError> {
        self.count(index)?;
        let mut before = 0u32;
        let mut told = Vec::new();
        let mut add = |count: usize| {
            told.extend(before.to_le_bytes());
            before += count as u32;
        };
        match self.index {
            Index::Bitmap => {
                let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones() as usize).sum();
                index.chunks(PLACES_TILE / 8).for_each(|bytes| add(ones(bytes)));
            }
            Index::Rows => counts(index).for_each(&mut add),
            Index::NOfM { .. } => return Ok(told),
        }
        add(0);
        Ok(told)
    }
}
