//! Arrays whose components somebody has chosen: how quantized weights come into a file.

use arrayvec::ArrayVec;
use cmz_format::{Code, EncodedBlock, Error, Result, STREAM_ALIGNMENT, StreamEntry, StreamList, crc32};

use super::{StoredArray, StoredComponent, encode_smallest};
use crate::Scratch;
use crate::encoding::{Array, Element, MAX_COMPONENTS};
use crate::stream::{Level, StreamError};

/// An array that is ready to be stored: whole, for its encoding to take apart, or as the
/// components that somebody has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// The array's bytes.
    Whole(Vec<u8>),
    /// The components of its encoding, in order.
    Components(Vec<Parts>),
}

impl StoredArray {
    /// Encodes one block from the components that were chosen for it, and hands out what it
    /// decodes to. Codecs are chosen as by [`Self::encode_block`].
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the parts are not those of such an array.
    pub fn encode_parts(
        &self,
        array: Array,
        parts: Parts,
        level: Level,
        scratch: &mut Scratch,
    ) -> Result<(EncodedBlock, Vec<u8>)> {
        let mut streams = StreamList::default();
        let mut payload = scratch.buffer(0);
        let mut encoder = PartsEncoder { level, scratch, streams: &mut streams, payload: &mut payload };
        let decoded = encoder
            .encode(self, array, parts)
            .map_err(|e| Error::new(Code::InvalidArgument, format!("the parts of an array do not fit: {e}")))?;
        let decoded_len = decoded.len() as u32;
        let (crc_stored, crc_decoded) = (crc32(&payload), crc32(&decoded));
        Ok((EncodedBlock { streams, decoded_len, crc_stored, crc_decoded, payload }, decoded))
    }
}

/// Encodes arrays from chosen components.
struct PartsEncoder<'a> {
    level: Level,
    scratch: &'a mut Scratch,
    streams: &'a mut StreamList,
    payload: &'a mut Vec<u8>,
}

impl PartsEncoder<'_> {
    /// Appends the streams of `array` and returns what they decode to.
    fn encode(&mut self, stored: &StoredArray, array: Array, parts: Parts) -> Result<Vec<u8>, StreamError> {
        match parts {
            Parts::Whole(data) if data.len() != array.byte_len => Err(StreamError::Length),
            Parts::Whole(mut data) => {
                stored.encode(array, &data, self.level, self.scratch, self.streams, self.payload);
                if !stored.is_exact() {
                    let mut rounded = self.scratch.buffer(data.len());
                    stored.round(array, &data, self.scratch, &mut rounded);
                    self.scratch.recycle(std::mem::replace(&mut data, rounded));
                }
                Ok(data)
            }
            Parts::Components(parts) if parts.len() != stored.components.len() => Err(StreamError::Length),
            Parts::Components(parts) => {
                let mut joined: ArrayVec<Vec<u8>, MAX_COMPONENTS> = ArrayVec::new();
                for (number, (part, component)) in parts.into_iter().zip(&stored.components).enumerate() {
                    let before: ArrayVec<&[u8], MAX_COMPONENTS> = joined.iter().map(Vec::as_slice).collect();
                    let array = stored.encoding.component_array(array, number, &before)?;
                    drop(before);
                    joined.push(self.encode_component(component, array, part)?);
                }
                let slices: ArrayVec<&[u8], MAX_COMPONENTS> = joined.iter().map(Vec::as_slice).collect();
                let mut data = self.scratch.buffer(array.byte_len);
                stored.encoding.join(array, &slices, &mut data)?;
                drop(slices);
                joined.into_iter().for_each(|part| self.scratch.recycle(part));
                Ok(data)
            }
        }
    }

    fn encode_component(
        &mut self,
        stored: &StoredComponent,
        array: Array,
        part: Parts,
    ) -> Result<Vec<u8>, StreamError> {
        match (stored, array.element, part) {
            (StoredComponent::Encoded(inner), _, part) => self.encode(inner, array, part),
            (StoredComponent::Stream(codecs), Element::Symbol(width), Parts::Whole(symbols)) => {
                if symbols.len() != array.byte_len {
                    return Err(StreamError::Length);
                }
                let codec = encode_smallest(codecs, &symbols, width, self.level, self.scratch, self.payload);
                let start = self.streams.payload_len().next_multiple_of(STREAM_ALIGNMENT as u64);
                self.streams.push(StreamEntry { codec, len: (self.payload.len() as u64 - start) as u32 });
                Ok(symbols)
            }
            (StoredComponent::Stream(_), ..) => Err(StreamError::Invalid("a stream of something else than symbols")),
        }
    }
}
