//! What a device is told of an array.

use arrayvec::ArrayVec;
use cmz_format::limits::MAX_STREAMS;

use super::{Part, StoredArray, StoredComponent, decode_component};
use crate::Scratch;
use crate::device::{
    DecodedArray, DecodedComponent, DeviceArray, DeviceComponent, DeviceMode, DeviceNode, DeviceShape, DeviceStream,
};
use crate::encoding::{Array, Element, MAX_COMPONENTS, StreamRef};
use crate::stream::{StreamCodec, StreamError, Width};

impl StoredArray {
    /// The components of `array`, at any depth; `None` if a device cannot put them together.
    pub(crate) fn device_shapes(&self, array: Array) -> Option<Vec<DeviceShape<'_>>> {
        let mut shapes = Vec::new();
        self.add_shapes(array, &mut shapes)?;
        Some(shapes)
    }

    fn add_shapes<'a>(&'a self, array: Array, shapes: &mut Vec<DeviceShape<'a>>) -> Option<()> {
        let node = self.encoding.device_node(array)?;
        let defined = self.encoding.longest_components(array)?;
        for (number, (component, stored)) in defined.iter().zip(&self.components).enumerate() {
            let byte_len = component.array.byte_len;
            let told = self.encoding.told_len(array, number).unwrap_or(0);
            let codecs: &[_] = match (stored, node) {
                (StoredComponent::Stream(codecs), _) => codecs,
                (StoredComponent::Encoded(_), DeviceNode::Join(_)) => return None,
                (StoredComponent::Encoded(inner), _) => {
                    inner.add_shapes(component.array, shapes)?;
                    &[]
                }
            };
            // A base is decoded where its elements are changed.
            let joined = match node {
                DeviceNode::Join(_) | DeviceNode::Ternary(_) => number == 0 && !codecs.is_empty(),
                DeviceNode::Sparse(sparse) => number == 0 && sparse.mode != DeviceMode::Fill,
                _ => false,
            };
            shapes.push(DeviceShape { byte_len, codecs, joined, told });
        }
        Some(())
    }

    /// How a device can decode the streams of this array, the next one last in `streams`.
    pub(super) fn device_array<'a>(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'a>, MAX_STREAMS>,
    ) -> Result<Option<DeviceArray<'a>>, StreamError> {
        self.encoding.components(array).ok_or(StreamError::Length)?;
        let Some(node) = self.encoding.device_node(array) else { return Ok(None) };
        let (mut components, mut told) = (Vec::new(), Vec::new());
        // Of those that the host reads; the others are not asked for.
        let mut read: ArrayVec<Vec<u8>, MAX_COMPONENTS> = ArrayVec::new();
        for (number, stored) in self.components.iter().enumerate() {
            let before: ArrayVec<&[u8], MAX_COMPONENTS> = read.iter().map(Vec::as_slice).collect();
            let component = self.encoding.component_array(array, number, &before)?;
            drop(before);
            let (component, bytes) = match (stored, component.element) {
                (StoredComponent::Stream(codecs), Element::Symbol(width)) => {
                    let stream = device_stream(component, codecs, width, streams)?;
                    let mut bytes = Vec::new();
                    if self.encoding.told_len(array, number).is_some() {
                        bytes.resize(component.byte_len, 0);
                        stream.codec.decode(stream.stream, width, &mut Scratch::new(), &mut bytes)?;
                        told = self.encoding.tell(array, number, &bytes)?;
                    }
                    (DeviceComponent::Stream(stream), bytes)
                }
                (StoredComponent::Encoded(inner), _) if !matches!(node, DeviceNode::Join(_)) => {
                    match inner.device_array(component, streams)? {
                        Some(array) => (DeviceComponent::Array(array), Vec::new()),
                        None => return Ok(None),
                    }
                }
                _ => return Ok(None),
            };
            components.push(component);
            read.push(bytes);
        }
        Ok(Some(DeviceArray { node, byte_len: array.byte_len, components, told }))
    }

    /// What a product needs of the streams of this array, the next one last in `streams`.
    pub(super) fn decoded_array(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'_>, MAX_STREAMS>,
        scratch: &mut Scratch,
    ) -> Result<Option<DecodedArray>, StreamError> {
        let Some(node) = self.encoding.device_node(array) else { return Ok(None) };
        let apart = match node {
            DeviceNode::BlockScale(_) | DeviceNode::Permute(_) => true,
            DeviceNode::Sparse(sparse) => sparse.mode != DeviceMode::Fill,
            _ => false,
        };
        let (mut inner, mut parts) = (None, ArrayVec::<Vec<u8>, MAX_COMPONENTS>::new());
        for (number, stored) in self.components.iter().enumerate() {
            let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Vec::as_slice).collect();
            let component = self.encoding.component_array(array, number, &slices)?;
            drop(slices);
            if let (0, true, StoredComponent::Encoded(encoded)) = (number, apart, stored)
                && encoded.encoding.device_node(component).is_some_and(|node| !matches!(node, DeviceNode::Join(_)))
            {
                inner = encoded.decoded_array(component, streams, scratch)?;
                parts.push(Vec::new());
                continue;
            }
            let part = match decode_component(component, stored, streams, scratch)? {
                Part::Stored(bytes) => bytes.to_vec(),
                Part::Decoded(buffer) => buffer,
            };
            if self.encoding.told_len(array, number).is_some() {
                self.encoding.tell(array, number, &part)?;
            }
            parts.push(part);
        }
        let slices: ArrayVec<&[u8], MAX_COMPONENTS> = parts.iter().map(Vec::as_slice).collect();
        let places = self.encoding.places(array, &slices)?;
        drop(slices);
        let mut components: Vec<_> = parts.into_iter().map(DecodedComponent::Bytes).collect();
        if let Some(inner) = inner {
            components[0] = DecodedComponent::Array(Box::new(inner));
        }
        Ok(Some(DecodedArray { node, components, places }))
    }
}

/// The next stream.
fn device_stream<'a>(
    component: Array,
    codecs: &[&'static dyn StreamCodec],
    width: Width,
    streams: &mut ArrayVec<StreamRef<'a>, MAX_STREAMS>,
) -> Result<DeviceStream<'a>, StreamError> {
    let (id, stream) = streams.pop().ok_or(StreamError::Length)?;
    let codec = *codecs.iter().find(|codec| codec.id() == id).ok_or(StreamError::Length)?;
    let symbols = component.byte_len / width.bytes();
    // No kernel looks at a stream without symbols.
    let form = if symbols == 0 { None } else { codec.device_form(stream, width, symbols)? };
    Ok(DeviceStream { codec, width, symbols, stream, form })
}
