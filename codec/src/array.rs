//! Stored arrays: an encoding with its components, resolved against the registry, and
//! the coding of blocks through it.

use std::ops::Deref;

use arrayvec::ArrayVec;
use cmz_format::limits::MAX_STREAMS;
use cmz_format::{
    BlockHeader, Code, Component as ManifestComponent, EncodedBlock, Encoding as ManifestEncoding, Error, Result,
    STREAM_ALIGNMENT, StreamEntry, StreamList, Tensor, codec_id, crc32,
};

use crate::Scratch;
use crate::device::{DecodedArray, DeviceArray};
use crate::encoding::{Array, Component, Components, Element, Encoding, MAX_COMPONENTS, StreamRef};
use crate::registry;
use crate::stream::{Level, StreamCodec, StreamError, Width};

/// Is given a stream's name, width, symbols and stored bytes.
type VisitStream<'a> = dyn FnMut(String, Width, &[u8], &[u8]) + 'a;

mod device;
mod parts;

pub use parts::Parts;

/// How an array is stored: an encoding of the registry and how each of its components
/// is stored.
#[derive(Debug)]
pub struct StoredArray {
    encoding: ArrayEncoding,
    components: Vec<StoredComponent>,
}

/// An encoding as the registry has it, or with a manifest's parameters.
#[derive(Debug)]
enum ArrayEncoding {
    Registered(&'static dyn Encoding),
    WithParams(Box<dyn Encoding>),
}

impl Deref for ArrayEncoding {
    type Target = dyn Encoding;

    fn deref(&self) -> &(dyn Encoding + 'static) {
        match self {
            Self::Registered(encoding) => *encoding,
            Self::WithParams(encoding) => &**encoding,
        }
    }
}

/// How a component is stored.
#[derive(Debug)]
pub enum StoredComponent {
    /// As a stream, by any of these codecs.
    Stream(Vec<&'static dyn StreamCodec>),
    /// As an encoded array in turn.
    Encoded(StoredArray),
}

impl StoredComponent {
    /// The codecs of the stream; `None` if the component is encoded in turn.
    #[must_use]
    pub fn stream_codecs(&self) -> Option<&[&'static dyn StreamCodec]> {
        match self {
            Self::Stream(codecs) => Some(codecs),
            Self::Encoded(_) => None,
        }
    }
}

/// What a tensor's elements are.
#[must_use]
pub fn element_of(tensor: &Tensor) -> Element {
    tensor.known_dtype().map_or(Element::Opaque, Element::Dtype)
}

/// The array that is in a block of `byte_len` bytes of a tensor: the tensor's last dimension makes
/// its rows, if it has two or more.
#[must_use]
pub fn array_of(tensor: &Tensor, byte_len: usize) -> Array {
    let row = match tensor.shape[..] {
        [_, .., row] => usize::try_from(row).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    Array::new(element_of(tensor), byte_len, row)
}

impl StoredArray {
    /// An array stored by `encoding` with these components, in its order.
    #[must_use]
    pub fn new(encoding: &'static dyn Encoding, components: Vec<StoredComponent>) -> Self {
        Self { encoding: ArrayEncoding::Registered(encoding), components }
    }

    /// How the components are stored, in the encoding's order.
    #[must_use]
    pub fn components(&self) -> &[StoredComponent] {
        &self.components
    }

    /// Looks up a tensor's encodings and codecs.
    ///
    /// # Errors
    /// [`Code::UnknownEncoding`] or [`Code::UnknownCodec`] if the registry lacks one;
    /// [`Code::Malformed`] if an encoding has other parameters or components than it defines.
    pub fn of_tensor(tensor: &Tensor) -> Result<Self> {
        Self::resolve(&tensor.encoding, element_of(tensor)).map_err(|e| e.in_tensor(&tensor.name))
    }

    pub(crate) fn resolve(stored: &ManifestEncoding, element: Element) -> Result<Self> {
        let unknown = |code, what: &str, name: &str| {
            Error::new(code, format!("unknown {what} {name:?}"))
                .with_help("use a newer cmz; the other tensors of the file are not concerned")
        };
        let registered = registry::encoding_by_name(&stored.name)
            .ok_or_else(|| unknown(Code::UnknownEncoding, "encoding", &stored.name))?;
        let encoding = match registered.with_params(&stored.params)? {
            None => ArrayEncoding::Registered(registered),
            Some(encoding) => ArrayEncoding::WithParams(encoding),
        };
        let Some(defined) = encoding.components(Array::vector(element, 0)) else {
            if element == Element::Opaque {
                return Err(unknown(Code::UnknownEncoding, "element type in encoding", &stored.name));
            }
            return Err(Error::new(
                Code::Malformed,
                format!("encoding {:?} is not defined for {element:?}", stored.name),
            ));
        };
        let names_agree =
            defined.len() == stored.components.len() && defined.iter().all(|d| stored.components.contains_key(d.name));
        if !names_agree {
            return Err(Error::new(Code::Malformed, format!("encoding {:?} has the wrong components", stored.name)));
        }
        let components = defined.iter().map(|component| match &stored.components[component.name] {
            ManifestComponent::Encoded(inner) => {
                Self::resolve(inner, component.array.element).map(StoredComponent::Encoded)
            }
            ManifestComponent::Stream(names) => names
                .iter()
                .map(|name| {
                    let codec = registry::stream_by_name(name)
                        .ok_or_else(|| unknown(Code::UnknownCodec, "stream codec", name))?;
                    match component.array.element {
                        Element::Symbol(width) if codec.supports(width) => Ok(codec),
                        other => {
                            Err(Error::new(Code::Malformed, format!("stream codec {name:?} cannot code {other:?}")))
                        }
                    }
                })
                .collect::<Result<_>>()
                .map(StoredComponent::Stream),
        });
        Ok(Self { encoding, components: components.collect::<Result<_>>()? })
    }

    /// The same as the manifest states it.
    #[must_use]
    pub fn to_manifest(&self, element: Element) -> ManifestEncoding {
        let defined = self.encoding.components(Array::vector(element, 0)).unwrap_or_default();
        let components = defined.iter().zip(&self.components).map(|(component, stored)| {
            let value = match stored {
                StoredComponent::Stream(codecs) => {
                    ManifestComponent::Stream(codecs.iter().map(|c| c.name().to_owned()).collect())
                }
                StoredComponent::Encoded(inner) => {
                    ManifestComponent::Encoded(inner.to_manifest(component.array.element))
                }
            };
            (component.name.to_owned(), value)
        });
        ManifestEncoding {
            name: self.encoding.name().to_owned(),
            params: self.encoding.params(),
            components: components.collect(),
        }
    }

    /// Encodes one block. Of the codecs that a stream may be stored by, the one that
    /// makes it smallest is taken, the first among equals.
    ///
    /// # Panics
    /// If the encoding is not defined for `array`.
    #[must_use]
    pub fn encode_block(&self, array: Array, data: &[u8], level: Level, scratch: &mut Scratch) -> EncodedBlock {
        let mut streams = StreamList::default();
        let mut payload = scratch.buffer(0);
        self.encode(array, data, level, scratch, &mut streams, &mut payload);
        let crc_decoded = if self.is_exact() {
            crc32(data)
        } else {
            let mut decoded = scratch.buffer(data.len());
            self.round(array, data, scratch, &mut decoded);
            let crc = crc32(&decoded);
            scratch.recycle(decoded);
            crc
        };
        EncodedBlock { streams, decoded_len: data.len() as u32, crc_stored: crc32(&payload), crc_decoded, payload }
    }

    /// Whether every array decodes to what was encoded.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        let nested = |component: &StoredComponent| match component {
            StoredComponent::Stream(_) => true,
            StoredComponent::Encoded(inner) => inner.is_exact(),
        };
        self.encoding.is_exact() && self.components.iter().all(nested)
    }

    /// Writes what a block of `data` decodes to once it is encoded: the same, if the encoding
    /// is exact.
    ///
    /// # Panics
    /// If the encoding is not defined for `array`, or `rounded` is not as long as `data`.
    pub fn round(&self, array: Array, data: &[u8], scratch: &mut Scratch, rounded: &mut [u8]) {
        let (components, mut parts) = self.split(array, data, scratch);
        for ((component, stored), part) in components.iter().zip(&self.components).zip(&mut parts) {
            if let StoredComponent::Encoded(inner) = stored {
                let mut inner_rounded = scratch.buffer(part.len());
                inner.round(component.array, part, scratch, &mut inner_rounded);
                scratch.recycle(std::mem::replace(part, inner_rounded));
            }
        }
        let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Vec::as_slice).collect();
        self.encoding.join(array, &slices, rounded).expect("an encoding joins what it has split");
        drop(slices);
        parts.into_iter().for_each(|part| scratch.recycle(part));
    }

    /// The components of `array`, and `data` taken apart into them.
    fn split(
        &self,
        array: Array,
        data: &[u8],
        scratch: &mut Scratch,
    ) -> (Components, ArrayVec<Vec<u8>, MAX_COMPONENTS>) {
        let components = self.encoding.components(array).expect("the encoding was chosen for this array");
        let mut parts: ArrayVec<Vec<u8>, MAX_COMPONENTS> =
            components.iter().map(|c| scratch.buffer(c.array.byte_len)).collect();
        let mut slices: ArrayVec<&mut [u8], MAX_COMPONENTS> = parts.iter_mut().map(Vec::as_mut_slice).collect();
        self.encoding.split(array, data, &mut slices);
        drop(slices);
        (components, parts)
    }

    fn encode(
        &self,
        array: Array,
        data: &[u8],
        level: Level,
        scratch: &mut Scratch,
        streams: &mut StreamList,
        payload: &mut Vec<u8>,
    ) {
        if self.encode_fused(array, data, level, scratch, streams, payload) {
            return;
        }
        let (components, parts) = self.split(array, data, scratch);
        for ((component, stored), part) in components.iter().zip(&self.components).zip(&parts) {
            match (stored, component.array.element) {
                (StoredComponent::Stream(codecs), Element::Symbol(width)) => {
                    let codec = encode_smallest(codecs, part, width, level, scratch, payload);
                    let start = streams.payload_len().next_multiple_of(STREAM_ALIGNMENT as u64);
                    streams.push(StreamEntry { codec, len: (payload.len() as u64 - start) as u32 });
                }
                (StoredComponent::Encoded(inner), _) => {
                    inner.encode(component.array, part, level, scratch, streams, payload);
                }
                (StoredComponent::Stream(_), _) => unreachable!("streams hold symbols"),
            }
        }
        parts.into_iter().for_each(|part| scratch.recycle(part));
    }

    /// The encoding's own way to split and encode in one pass, for the first codec of each
    /// stream. Does nothing and returns false if there is none, or if a stream that may be
    /// stored raw would be smaller so.
    fn encode_fused(
        &self,
        array: Array,
        data: &[u8],
        level: Level,
        scratch: &mut Scratch,
        list: &mut StreamList,
        payload: &mut Vec<u8>,
    ) -> bool {
        let mut ids: ArrayVec<u16, MAX_COMPONENTS> = ArrayVec::new();
        for component in &self.components {
            match component {
                StoredComponent::Stream(codecs) if codecs[1..].iter().all(|codec| codec.id() == codec_id::RAW) => {
                    ids.push(codecs[0].id());
                }
                _ => return false,
            }
        }
        let mut streams: ArrayVec<Vec<u8>, MAX_COMPONENTS> = ids.iter().map(|_| scratch.buffer(0)).collect();
        let done = self.encoding.encode_fused(array, data, &ids, level, scratch, &mut streams) && {
            let raw_is_smaller =
                |(stream, component): (&Vec<u8>, &crate::encoding::Component)| stream.len() > component.array.byte_len;
            let components = self.encoding.components(array).unwrap_or_default();
            !streams.iter().zip(&components).any(raw_is_smaller)
        };
        if done {
            for (stream, &codec) in streams.iter().zip(&ids) {
                align_stream(payload);
                payload.extend_from_slice(stream);
                list.push(StreamEntry { codec, len: stream.len() as u32 });
            }
        }
        streams.into_iter().for_each(|stream| scratch.recycle(stream));
        done
    }

    /// Decodes one block's payload into exactly `data`, checking that the streams are
    /// those that the manifest permits.
    ///
    /// # Errors
    /// [`Code::BadStream`], [`Code::UnknownCodec`], [`Code::Malformed`] or [`Code::Padding`].
    pub fn decode_block(
        &self,
        array: Array,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Result<()> {
        let mut streams = self.streams(header, payload)?;
        streams.reverse();
        self.decode(array, &mut streams, scratch, data).map_err(|e| Error::new(Code::BadStream, e.to_string()))
    }

    /// How a device can decode one block; `None` if only the CPU can.
    ///
    /// # Errors
    /// As [`Self::decode_block`].
    pub fn device_block<'a>(
        &self,
        array: Array,
        header: &BlockHeader,
        payload: &'a [u8],
    ) -> Result<Option<DeviceArray<'a>>> {
        let mut streams = self.streams(header, payload)?;
        streams.reverse();
        self.device_array(array, &mut streams).map_err(|e| Error::new(Code::BadStream, e.to_string()))
    }

    /// Decodes the streams of a block and hands out name, width, symbols and stored bytes of
    /// each, in order.
    ///
    /// # Errors
    /// As [`Self::decode_block`].
    pub(crate) fn for_each_stream(
        &self,
        array: Array,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
        mut visit: impl FnMut(String, Width, &[u8], &[u8]),
    ) -> Result<()> {
        let mut streams = self.streams(header, payload)?;
        streams.reverse();
        let mut data = scratch.buffer(array.byte_len);
        let visited = self.decode_visiting(array, "", &mut streams, scratch, &mut data, &mut visit);
        scratch.recycle(data);
        visited.map_err(|e| Error::new(Code::BadStream, e.to_string()))
    }

    /// Decodes the streams of this array into `data` and hands each out, its name behind `prefix`.
    fn decode_visiting(
        &self,
        array: Array,
        prefix: &str,
        streams: &mut ArrayVec<StreamRef<'_>, MAX_STREAMS>,
        scratch: &mut Scratch,
        data: &mut [u8],
        visit: &mut VisitStream<'_>,
    ) -> Result<(), StreamError> {
        let defined = self.encoding.components(array).ok_or(StreamError::Length)?;
        let mut parts: ArrayVec<Vec<u8>, MAX_COMPONENTS> = ArrayVec::new();
        for (number, (component, stored)) in defined.iter().zip(&self.components).enumerate() {
            let before: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Vec::as_slice).collect();
            let array = self.encoding.component_array(array, number, &before)?;
            drop(before);
            let name = format!("{prefix}{}", component.name);
            let mut part = scratch.buffer(array.byte_len);
            match (stored, array.element) {
                (StoredComponent::Encoded(inner), _) => {
                    inner.decode_visiting(array, &format!("{name}."), streams, scratch, &mut part, visit)?;
                }
                (StoredComponent::Stream(_), Element::Symbol(width)) => {
                    let (id, bytes) = streams.pop().ok_or(StreamError::Length)?;
                    let codec = registry::stream_by_id(id).ok_or(StreamError::Invalid("unknown stream codec"))?;
                    codec.decode(bytes, width, scratch, &mut part)?;
                    visit(name, width, &part, bytes);
                }
                (StoredComponent::Stream(_), _) => {
                    return Err(StreamError::Invalid("a stream of something else than symbols"));
                }
            }
            parts.push(part);
        }
        let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Vec::as_slice).collect();
        let joined = self.encoding.join(array, &slices, data);
        drop(slices);
        parts.into_iter().for_each(|part| scratch.recycle(part));
        joined
    }

    /// The streams of a block, which are as many and by the codecs that the manifest permits.
    fn streams<'a>(&self, header: &BlockHeader, payload: &'a [u8]) -> Result<ArrayVec<StreamRef<'a>, MAX_STREAMS>> {
        let bytes = header.split(payload)?;
        let streams: ArrayVec<StreamRef<'_>, MAX_STREAMS> =
            header.streams.iter().zip(bytes).map(|(entry, bytes)| (entry.codec, bytes)).collect();
        let mut permitted = 0;
        self.check_streams(&streams, &mut permitted)?;
        if permitted == streams.len() {
            return Ok(streams);
        }
        Err(Error::new(
            Code::Malformed,
            format!("the block has {} streams, its encoding needs {permitted}", streams.len()),
        ))
    }

    fn check_streams(&self, streams: &[StreamRef<'_>], next: &mut usize) -> Result<()> {
        for component in &self.components {
            match component {
                StoredComponent::Encoded(inner) => inner.check_streams(streams, next)?,
                StoredComponent::Stream(codecs) => {
                    if let Some(&(id, _)) = streams.get(*next)
                        && !codecs.iter().any(|codec| codec.id() == id)
                    {
                        return Err(match registry::stream_by_id(id) {
                            None => Error::new(Code::UnknownCodec, format!("unknown stream codec {id}"))
                                .with_help("use a newer cmz; the other tensors of the file are not concerned"),
                            Some(codec) => Error::new(
                                Code::Malformed,
                                format!("stream codec {:?} is not among those that the manifest permits", codec.name()),
                            ),
                        });
                    }
                    *next += 1;
                }
            }
        }
        Ok(())
    }

    /// Decodes the streams of this array, the next one last in `streams`.
    fn decode(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'_>, MAX_STREAMS>,
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Result<(), StreamError> {
        if let Some(result) = self.decode_fused(array, streams, scratch, data) {
            return result;
        }
        let (parts, mut result) = self.decode_components(array, streams, scratch);
        if result.is_ok() {
            let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Part::bytes).collect();
            result = self.encoding.join(array, &slices, data);
        }
        for part in parts {
            if let Part::Decoded(buffer) = part {
                scratch.recycle(buffer);
            }
        }
        result
    }

    /// Decodes the components of this array, up to the first that cannot be.
    fn decode_components<'a>(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'a>, MAX_STREAMS>,
        scratch: &mut Scratch,
    ) -> (ArrayVec<Part<'a>, MAX_COMPONENTS>, Result<(), StreamError>) {
        let mut parts: ArrayVec<Part<'_>, MAX_COMPONENTS> = ArrayVec::new();
        for (number, stored) in self.components.iter().enumerate() {
            let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Part::bytes).collect();
            let component = self.encoding.component_array(array, number, &slices);
            drop(slices);
            match component.and_then(|component| decode_component(component, stored, streams, scratch)) {
                Ok(part) => parts.push(part),
                Err(e) => return (parts, Err(e)),
            }
        }
        (parts, Ok(()))
    }

    /// One block decoded as far as a product needs it; `None` if a device has no way to put its elements together.
    ///
    /// # Errors
    /// As [`Self::decode_block`].
    pub fn components_of_block(
        &self,
        array: Array,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Option<DecodedArray>> {
        let mut streams = self.streams(header, payload)?;
        streams.reverse();
        self.decoded_array(array, &mut streams, scratch).map_err(|e| Error::new(Code::BadStream, e.to_string()))
    }

    /// The components of one block that are encoded arrays; those that are streams are left empty.
    ///
    /// # Errors
    /// As [`Self::decode_block`], of what is decoded.
    pub(crate) fn encoded_components_of_block(
        &self,
        array: Array,
        header: &BlockHeader,
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Vec<Vec<u8>>> {
        let mut streams = self.streams(header, payload)?;
        streams.reverse();
        let defined = self.encoding.components(array).unwrap_or_default();
        let decode = |(component, stored): (&Component, &StoredComponent)| match stored {
            StoredComponent::Stream(_) => streams.pop().map(|_| Vec::new()).ok_or(StreamError::Length),
            StoredComponent::Encoded(_) => {
                decode_component(component.array, stored, &mut streams, scratch).map(Part::into_vec)
            }
        };
        let parts: Result<_, StreamError> = defined.iter().zip(&self.components).map(decode).collect();
        parts.map_err(|e| Error::new(Code::BadStream, e.to_string()))
    }

    /// The encoding's own way to decode its streams, if all components are streams.
    fn decode_fused(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'_>, MAX_STREAMS>,
        scratch: &mut Scratch,
        data: &mut [u8],
    ) -> Option<Result<(), StreamError>> {
        let leaves = self.components.iter().all(|c| matches!(c, StoredComponent::Stream(_)));
        let rest = streams.len().checked_sub(self.components.len()).filter(|_| leaves)?;
        let mine: ArrayVec<StreamRef<'_>, MAX_COMPONENTS> = streams[rest..].iter().rev().copied().collect();
        let result = self.encoding.decode_fused(array, &mine, scratch, data)?;
        streams.truncate(rest);
        Some(result)
    }
}

/// A decoded component, or a raw stream in its place.
enum Part<'a> {
    Stored(&'a [u8]),
    Decoded(Vec<u8>),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Decoded(buffer) => buffer,
        }
    }

    fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Stored(bytes) => bytes.to_vec(),
            Self::Decoded(buffer) => buffer,
        }
    }
}

fn decode_component<'a>(
    array: Array,
    stored: &StoredComponent,
    streams: &mut ArrayVec<StreamRef<'a>, MAX_STREAMS>,
    scratch: &mut Scratch,
) -> Result<Part<'a>, StreamError> {
    match (stored, array.element) {
        (StoredComponent::Stream(_), Element::Symbol(width)) => {
            let (id, bytes) = streams.pop().ok_or(StreamError::Length)?;
            if id == codec_id::RAW && width == Width::BYTE && bytes.len() == array.byte_len {
                return Ok(Part::Stored(bytes));
            }
            let codec = registry::stream_by_id(id).ok_or(StreamError::Invalid("unknown stream codec"))?;
            let mut buffer = scratch.buffer(array.byte_len);
            match codec.decode(bytes, width, scratch, &mut buffer) {
                Ok(()) => Ok(Part::Decoded(buffer)),
                Err(e) => {
                    scratch.recycle(buffer);
                    Err(e)
                }
            }
        }
        (StoredComponent::Encoded(inner), _) => {
            let mut buffer = scratch.buffer(array.byte_len);
            inner.decode(array, streams, scratch, &mut buffer)?;
            Ok(Part::Decoded(buffer))
        }
        (StoredComponent::Stream(_), _) => Err(StreamError::Invalid("a stream of something else than symbols")),
    }
}

/// Appends the smallest stream to `payload`, on a multiple of 16, and returns its codec's id.
fn encode_smallest(
    codecs: &[&'static dyn StreamCodec],
    symbols: &[u8],
    width: Width,
    level: Level,
    scratch: &mut Scratch,
    payload: &mut Vec<u8>,
) -> u16 {
    align_stream(payload);
    let start = payload.len();
    let mut best = codec_id::RAW;
    for codec in codecs {
        let end = payload.len();
        // A raw stream's length is known without making it.
        if end > start && codec.id() == codec_id::RAW && end - start <= symbols.len() {
            continue;
        }
        codec.encode(symbols, width, level, scratch, payload);
        let len = payload.len() - end;
        if end == start {
            best = codec.id();
        } else if len < end - start {
            payload.copy_within(end.., start);
            payload.truncate(start + len);
            best = codec.id();
        } else {
            payload.truncate(end);
        }
    }
    best
}

fn align_stream(payload: &mut Vec<u8>) {
    payload.resize(payload.len().next_multiple_of(STREAM_ALIGNMENT), 0);
}
