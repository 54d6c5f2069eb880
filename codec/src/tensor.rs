//! Stored tensors: an array of streams, a reference to another tensor, or a difference
//! from one.

use cmz_format::{BlockHeader, Code, EncodedBlock, Error, Result, Tensor, crc32};

use crate::Scratch;
use crate::array::{Parts, StoredArray, array_of};
use crate::device::{DecodedArray, DeviceArray, DeviceShape};
use crate::encoding::reference::{Operation, Reference, unit_len};
use crate::encoding::{Array, Element};
use crate::stream::{Level, Width};

/// How a tensor is stored, resolved against the registry.
#[derive(Debug)]
pub struct StoredTensor {
    element: Element,
    /// Elements of a row.
    row: usize,
    reference: Option<Reference>,
    /// The elements, or their difference from the reference; none if they are the same.
    array: Option<StoredArray>,
}

impl StoredTensor {
    /// Looks up a tensor's encodings and codecs.
    ///
    /// # Errors
    /// As [`StoredArray::of_tensor`].
    pub fn of_tensor(tensor: &Tensor) -> Result<Self> {
        let Array { element, row, .. } = array_of(tensor, 0);
        let resolve = || match Reference::parse(&tensor.encoding)? {
            None => Ok((None, Some(StoredArray::resolve(&tensor.encoding, element)?))),
            Some((reference, difference)) => {
                let array = difference.map(|encoding| StoredArray::resolve(encoding, element)).transpose()?;
                Ok((Some(reference), array))
            }
        };
        let (reference, array) = resolve().map_err(|e: Error| e.in_tensor(&tensor.name))?;
        Ok(Self { element, row, reference, array })
    }

    /// The tensor that this one is told by, if there is one.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// The components of a block of `byte_len` bytes, at any depth; `None` if a device cannot put them together.
    pub(crate) fn device_shapes(&self, byte_len: usize) -> Option<Vec<DeviceShape<'_>>> {
        let array = self.array.as_ref().filter(|_| self.reference.is_none())?;
        array.device_shapes(self.block(byte_len))
    }

    /// The array in a block of `byte_len` bytes.
    const fn block(&self, byte_len: usize) -> Array {
        Array::new(self.element, byte_len, self.row)
    }

    /// Encodes one block of `byte_len` bytes from the components that were chosen for it, and hands
    /// out what it decodes to.
    ///
    /// # Errors
    /// As [`StoredArray::encode_parts`].
    pub fn encode_parts(
        &self,
        byte_len: usize,
        parts: Parts,
        level: Level,
        scratch: &mut Scratch,
    ) -> Result<(EncodedBlock, Vec<u8>)> {
        match (&self.array, &self.reference) {
            (Some(array), None) => array.encode_parts(self.block(byte_len), parts, level, scratch),
            _ => Err(Error::new(Code::InvalidArgument, "a tensor that refers to another one has no parts of its own")),
        }
    }

    /// Encodes one block. `read_reference` gives the reference's bytes at the same place; it
    /// is called only for a difference.
    ///
    /// # Errors
    /// What `read_reference` returns.
    pub fn encode_block(
        &self,
        data: &[u8],
        level: Level,
        scratch: &mut Scratch,
        read_reference: impl FnOnce(&mut Scratch, &mut [u8]) -> Result<()>,
    ) -> Result<EncodedBlock> {
        let Some(array) = &self.array else {
            return Ok(EncodedBlock {
                decoded_len: data.len() as u32,
                crc_decoded: crc32(data),
                crc_stored: crc32(&[]),
                ..EncodedBlock::default()
            });
        };
        let Some(reference) = &self.reference else {
            return Ok(array.encode_block(self.block(data.len()), data, level, scratch));
        };
        let (mut base, mut difference) = (scratch.buffer(data.len()), scratch.buffer(data.len()));
        let block = read_reference(scratch, &mut base).map(|()| {
            difference.copy_from_slice(data);
            reference.operation.take_difference(self.element, &mut difference, &base);
            let block = array.encode_block(self.block(data.len()), &difference, level, scratch);
            EncodedBlock { crc_decoded: crc32(data), ..block }
        });
        scratch.recycle(difference);
        scratch.recycle(base);
        block
    }

    /// How a device can decode one block; `None` if only the CPU can, as where there is a reference.
    ///
    /// # Errors
    /// As [`StoredArray::device_block`].
    pub fn device_block<'a>(&self, header: &BlockHeader, payload: &'a [u8]) -> Result<Option<DeviceArray<'a>>> {
        match (&self.reference, &self.array) {
            (None, Some(array)) => array.device_block(self.block(header.decoded_len as usize), header, payload),
            _ => Ok(None),
        }
    }

    /// One block decoded as far as a product needs it; `None` if a device has no way to put its elements together.
    ///
    /// # Errors
    /// As [`StoredArray::decode_block`].
    pub(crate) fn components_of_block(
        &self,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Option<DecodedArray>> {
        match (&self.reference, &self.array) {
            (None, Some(array)) => {
                array.components_of_block(self.block(header.decoded_len as usize), header, payload, scratch)
            }
            _ => Ok(None),
        }
    }

    /// The components of one block that are encoded arrays; those that are streams are left empty.
    ///
    /// # Errors
    /// As [`StoredArray::decode_block`], of what is decoded.
    pub(crate) fn encoded_components_of_block(
        &self,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Vec<Vec<u8>>> {
        let block = self.block(header.decoded_len as usize);
        self.array
            .as_ref()
            .map_or(Ok(Vec::new()), |array| array.encoded_components_of_block(block, header, payload, scratch))
    }

    /// Decodes the streams of a block, those of the difference if the tensor is told by one, and
    /// hands out name, width, symbols and stored bytes of each.
    ///
    /// # Errors
    /// As [`StoredArray::decode_block`].
    pub(crate) fn for_each_stream(
        &self,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
        visit: impl FnMut(String, Width, &[u8], &[u8]),
    ) -> Result<()> {
        match &self.array {
            Some(array) => {
                array.for_each_stream(self.block(header.decoded_len as usize), header, payload, scratch, visit)
            }
            None => Ok(()),
        }
    }

    /// Decodes one block's payload into exactly `data`. `read_reference` gives the reference's
    /// bytes at the same place; it is called if there is a reference.
    ///
    /// # Errors
    /// As [`StoredArray::decode_block`], or what `read_reference` returns.
    pub fn decode_block(
        &self,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
        data: &mut [u8],
        read_reference: impl FnOnce(&mut Scratch, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        match &self.array {
            Some(array) => array.decode_block(self.block(data.len()), header, payload, scratch, data)?,
            None if header.streams.is_empty() => return read_reference(scratch, data),
            None => {
                return Err(Error::new(
                    Code::Malformed,
                    format!("the block has {} streams, its encoding none", header.streams.len()),
                ));
            }
        }
        let Some(reference) = &self.reference else { return Ok(()) };
        if reference.operation == Operation::Subtract && !data.len().is_multiple_of(unit_len(self.element)) {
            return Err(Error::new(Code::Malformed, "the block does not hold whole elements"));
        }
        let mut base = scratch.buffer(data.len());
        let read = read_reference(scratch, &mut base);
        if read.is_ok() {
            reference.operation.restore(self.element, data, &base);
        }
        scratch.recycle(base);
        read
    }
}
