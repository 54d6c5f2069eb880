//! Blocks as they are stored, for decoders on a device.

use std::ops::Range;

use cmz_format::{BlockHeader, Result};

use super::Archive;
use crate::array::StoredComponent;
use crate::device::DeviceBlock;
use crate::stream::StreamCodec;

impl Archive {
    /// The codecs that each stream of a tensor's blocks may be stored by; `None` if a component is encoded in turn, or the
    /// tensor refers to another one.
    ///
    /// # Errors
    /// As [`Self::check_supported`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn streams(&self, tensor: usize) -> Result<Option<Vec<&[&'static dyn StreamCodec]>>> {
        let stored = self.stored(tensor)?;
        let components = match (stored.reference(), stored.array()) {
            (None, Some(array)) => array.components(),
            _ => return Ok(None),
        };
        Ok(components.iter().map(StoredComponent::stream_codecs).collect())
    }

    /// Reads and checks one data block, header and payload, into `bytes`, without decoding it. The header comes with where
    /// in `bytes` the payload lies.
    ///
    /// # Errors
    /// An error of the file, with tensor, block and offset.
    ///
    /// # Panics
    /// If there is no such block or `bytes` is shorter than [`Self::stored_len`] says.
    pub fn read_stored(&self, tensor: usize, ordinal: usize, bytes: &mut [u8]) -> Result<(BlockHeader, Range<usize>)> {
        let record = *self.record(tensor, ordinal);
        let header_len = if record.is_adjacent() { record.header_len() } else { 0 };
        let bytes = &mut bytes[..header_len + record.stored_len as usize];
        let read = |bytes: &mut [u8]| {
            self.data.read_at(record.payload_offset() - header_len as u64, bytes)?;
            let header = match header_len {
                0 => self.block_header(tensor, ordinal)?,
                len => self.check_header(tensor, ordinal, &bytes[..len])?,
            };
            self.check_stored(&header, &bytes[header_len..])?;
            Ok(header)
        };
        let header = read(bytes).map_err(|e| self.in_block(e, tensor, ordinal))?;
        Ok((header, header_len..bytes.len()))
    }

    /// Bytes that [`Self::read_stored`] needs.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn stored_len(&self, tensor: usize, ordinal: usize) -> usize {
        let record = self.record(tensor, ordinal);
        record.stored_len as usize + if record.is_adjacent() { record.header_len() } else { 0 }
    }

    /// How a device can decode a block that [`Self::read_stored`] has read; `None` if only the CPU can.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn device_block<'a>(
        &self,
        tensor: usize,
        ordinal: usize,
        header: &BlockHeader,
        payload: &'a [u8],
    ) -> Result<Option<DeviceBlock<'a>>> {
        let stored = self.stored(tensor)?;
        stored.device_block(header, payload).map_err(|e| self.in_block(e, tensor, ordinal))
    }
}
