//! Blocks as they are stored.

use std::ops::Range;

use cmz_format::{BlockHeader, Result};

use super::Archive;
use crate::Scratch;
use crate::device::{DecodedArray, DeviceArray, DeviceShape};

impl Archive {
    /// The components of a tensor's blocks, at any depth, each at most as long as it is in any block; `None` if a device cannot put
    /// the elements together: [`Self::device_block`] then returns `None` for every block.
    ///
    /// # Errors
    /// As [`Self::check_supported`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn device_shapes(&self, tensor: usize) -> Result<Option<Vec<DeviceShape<'_>>>> {
        Ok(self.stored(tensor)?.device_shapes(self.block_len(tensor) as usize))
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
    ) -> Result<Option<DeviceArray<'a>>> {
        let stored = self.stored(tensor)?;
        stored.device_block(header, payload).map_err(|e| self.in_block(e, tensor, ordinal))
    }

    /// Reads and checks one data block and decodes the components of its elements, without putting these together: what a device
    /// would do with them, and the components. `None` if a device has no way to put them together.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    ///
    /// # Panics
    /// If there is no such block.
    pub fn read_components(
        &self,
        tensor: usize,
        ordinal: usize,
        scratch: &mut Scratch,
    ) -> Result<Option<DecodedArray>> {
        let stored = self.stored(tensor)?;
        let (header, payload) = self.read_payload(tensor, ordinal, scratch)?;
        let components = stored.components_of_block(&header, &payload, scratch);
        scratch.recycle(payload);
        components.map_err(|e| self.in_block(e, tensor, ordinal))
    }

    /// Decodes the components of a block that [`Self::read_stored`] has read, as far as they are encoded arrays and not streams, which
    /// are left empty: the numbers that go with symbols.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn encoded_components(
        &self,
        tensor: usize,
        ordinal: usize,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Vec<Vec<u8>>> {
        let components = self.stored(tensor)?.encoded_components_of_block(header, payload, scratch);
        components.map_err(|e| self.in_block(e, tensor, ordinal))
    }

    /// Reads a data block as it is stored, and checks that.
    pub(crate) fn read_payload(
        &self,
        tensor: usize,
        ordinal: usize,
        scratch: &mut Scratch,
    ) -> Result<(BlockHeader, Vec<u8>)> {
        let record = *self.record(tensor, ordinal);
        let mut payload = scratch.buffer(record.stored_len as usize);
        let read = self.block_header(tensor, ordinal).and_then(|header| {
            self.data.read_at(record.payload_offset(), &mut payload)?;
            header.check_stored(&payload).map(|()| header)
        });
        read.map(|header| (header, payload)).map_err(|e| self.in_block(e, tensor, ordinal))
    }
}
