//! What a device is told of an array.

use arrayvec::ArrayVec;
use cmz_format::limits::MAX_STREAMS;

use super::{StoredArray, StoredComponent};
use crate::device::{DeviceArray, DeviceComponent, DeviceNode, DeviceShape, DeviceStream};
use crate::encoding::{Array, Element, StreamRef};
use crate::stream::StreamError;

impl StoredArray {
    /// The components of `array`, at any depth; `None` if a device cannot put them together.
    pub(crate) fn device_shapes(&self, array: Array) -> Option<Vec<DeviceShape<'_>>> {
        let mut shapes = Vec::new();
        self.add_shapes(array, &mut shapes)?;
        Some(shapes)
    }

    fn add_shapes<'a>(&'a self, array: Array, shapes: &mut Vec<DeviceShape<'a>>) -> Option<()> {
        let node = self.encoding.device_node(array)?;
        let defined = self.encoding.components(array)?;
        for (number, (component, stored)) in defined.iter().zip(&self.components).enumerate() {
            let byte_len = component.array.byte_len;
            let shape = match (stored, node) {
                (StoredComponent::Stream(codecs), _) => {
                    let joined = number == 0 && matches!(node, DeviceNode::Join(_) | DeviceNode::Ternary(_));
                    DeviceShape { byte_len, codecs, joined }
                }
                (StoredComponent::Encoded(_), DeviceNode::Join(_)) => return None,
                (StoredComponent::Encoded(inner), _) => {
                    inner.add_shapes(component.array, shapes)?;
                    DeviceShape { byte_len, codecs: &[], joined: false }
                }
            };
            shapes.push(shape);
        }
        Some(())
    }

    /// How a device can decode the streams of this array, the next one last in `streams`.
    pub(super) fn device_array<'a>(
        &self,
        array: Array,
        streams: &mut ArrayVec<StreamRef<'a>, MAX_STREAMS>,
    ) -> Result<Option<DeviceArray<'a>>, StreamError> {
        let defined = self.encoding.components(array).ok_or(StreamError::Length)?;
        let Some(node) = self.encoding.device_node(array) else { return Ok(None) };
        let mut components = Vec::new();
        for (component, stored) in defined.iter().zip(&self.components) {
            let component = match (stored, component.array.element) {
                (StoredComponent::Stream(codecs), Element::Symbol(width)) => {
                    let (id, stream) = streams.pop().ok_or(StreamError::Length)?;
                    let codec = *codecs.iter().find(|codec| codec.id() == id).ok_or(StreamError::Length)?;
                    let symbols = component.array.byte_len / width.bytes();
                    let form = codec.device_form(stream, width, symbols)?;
                    DeviceComponent::Stream(DeviceStream { codec, width, symbols, stream, form })
                }
                (StoredComponent::Encoded(inner), _) if !matches!(node, DeviceNode::Join(_)) => {
                    match inner.device_array(component.array, streams)? {
                        Some(array) => DeviceComponent::Array(array),
                        None => return Ok(None),
                    }
                }
                _ => return Ok(None),
            };
            components.push(component);
        }
        Ok(Some(DeviceArray { node, byte_len: array.byte_len, components }))
    }
}
