//! `plain`: the elements themselves. See `SPEC.md` in this folder.

use super::{Array, Component, Components, Element, Encoding};
use crate::device::{DeviceJoin, DeviceNode};
use crate::stream::{StreamError, Width};

/// The `plain` encoding.
#[derive(Debug)]
pub struct Plain;

impl Encoding for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn components(&self, array: Array) -> Option<Components> {
        let width = match array.element {
            Element::Symbol(width) => width,
            Element::Dtype(_) | Element::Opaque => Width::BYTE,
        };
        let data = Component { name: "data", array: Array { element: Element::Symbol(width), ..array } };
        Some([data].into_iter().collect())
    }

    fn split(&self, _: Array, data: &[u8], components: &mut [&mut [u8]]) {
        components[0].copy_from_slice(data);
    }

    fn join(&self, _: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        data.copy_from_slice(components[0]);
        Ok(())
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        matches!(array.element, Element::Dtype(_) | Element::Opaque).then_some(DeviceNode::Join(DeviceJoin::Bytes))
    }
}
