//! A safetensors file that exists only as it is read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use cmz_format::{Code, Error, Result};

use super::Original;
use super::dfloat11::{Group, Piece};
use crate::io::ReadAt;

/// A safetensors file whose tensors are decoded where they are read.
#[derive(Debug)]
pub struct Restored {
    /// Its parts and where each ends, in order.
    parts: Vec<(u64, Part)>,
    len: u64,
}

/// A tensor to be put into a restored file.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// Length, in bytes.
    pub(super) len: u64,
    pub(super) part: Part,
}

/// Where bytes of a restored file come from.
#[derive(Debug)]
pub(super) enum Part {
    /// The header.
    Header(Vec<u8>),
    /// A tensor that is stored as it is.
    Stored(Piece),
    /// A matrix of a group, from this byte of the decoded group on.
    Decoded(Arc<Group>, u64),
}

impl Restored {
    /// A file of these tensors. It gets the original's header, byte for byte, if that
    /// describes just these; then the second value is true.
    pub(super) fn new(original: &Original, tensors: Vec<Tensor>) -> (Self, bool) {
        let same = is_described(original, &tensors);
        let header = if same { original.bytes.clone() } else { header(&original.header.metadata, &tensors) };
        let mut restored = Self { parts: Vec::new(), len: 0 };
        restored.push(header.len() as u64, Part::Header(header));
        for tensor in tensors {
            restored.push(tensor.len, tensor.part);
        }
        (restored, same)
    }

    fn push(&mut self, len: u64, part: Part) {
        // An empty part is at no offset.
        if len > 0 {
            self.len += len;
            self.parts.push((self.len, part));
        }
    }
}

impl ReadAt for Restored {
    fn byte_len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::new(Code::Truncated, "the file ends too early").at(self.len));
        }
        let mut rest = buffer;
        let mut at = offset;
        let mut number = self.parts.partition_point(|(end, _)| *end <= at);
        while !rest.is_empty() {
            let start = if number == 0 { 0 } else { self.parts[number - 1].0 };
            let (end, part) = &self.parts[number];
            let here = rest.len().min((end - at) as usize);
            let (now, later) = rest.split_at_mut(here);
            match part {
                Part::Header(bytes) => now.copy_from_slice(&bytes[(at - start) as usize..][..here]),
                Part::Stored(piece) => piece.read_at(at - start, now)?,
                Part::Decoded(group, first) => group.read_at(first + (at - start), now)?,
            }
            (rest, at, number) = (later, *end, number + 1);
        }
        Ok(())
    }
}

/// Whether the original's header describes these tensors, one behind the other.
fn is_described(original: &Original, tensors: &[Tensor]) -> bool {
    let entries = &original.header.tensors;
    let mut offset = original.header.len;
    entries.len() == tensors.len()
        && entries.iter().zip(tensors).all(|(entry, tensor)| {
            let start = offset;
            offset += tensor.len;
            entry.name == tensor.name
                && entry.dtype == tensor.dtype
                && entry.shape == tensor.shape
                && entry.range == (start..offset)
        })
}

/// The header of a safetensors file, length field included, padded as the format's own
/// library does.
fn header(metadata: &BTreeMap<String, String>, tensors: &[Tensor]) -> Vec<u8> {
    // Strings and maps of strings always serialize.
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let mut json = String::from("{");
    if !metadata.is_empty() {
        let _ = write!(json, "\"__metadata__\":{},", serde_json::to_string(metadata).unwrap_or_default());
    }
    let mut offset = 0;
    for tensor in tensors {
        let (name, dtype, end) = (quoted(&tensor.name), quoted(&tensor.dtype), offset + tensor.len);
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let _ = write!(json, "{name}:{{\"dtype\":{dtype},\"shape\":[{shape}],\"data_offsets\":[{offset},{end}]}},");
        offset = end;
    }
    if json.ends_with(',') {
        json.pop();
    }
    json.push('}');
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}
