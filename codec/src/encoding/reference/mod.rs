//! `same_as`, `xor` and `subtract`: tensors told by what sets them apart from another one.
//! See `SPEC.md` in this folder.

use cmz_format::{Code, Component, Dtype, Encoding, Error, Result};
use serde_json::{Map, Value};

use super::Element;
use crate::convert::hex;
use crate::registry::REFERENCES;

#[cfg(test)]
mod tests;

/// The name of the one component.
const DIFFERENCE: &str = "difference";
const TENSOR: &str = "tensor";
const BASE_ROOT: &str = "base_root";
const BASE_SHA256: &str = "base_sha256";

/// How a tensor comes from its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It has the same bytes.
    SameAs,
    /// By XOR with a difference.
    Xor,
    /// By adding a difference to the elements as integers.
    Subtract,
}

impl Operation {
    /// Name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SameAs => "same_as",
            Self::Xor => "xor",
            Self::Subtract => "subtract",
        }
    }

    /// Turns a tensor's bytes into their difference from the reference's.
    ///
    /// # Panics
    /// If the lengths differ or are not whole units.
    pub fn take_difference(self, element: Element, data: &mut [u8], reference: &[u8]) {
        match (self, unit_len(element)) {
            (Self::SameAs, _) => {}
            (Self::Xor, _) => xor(data, reference),
            (Self::Subtract, 2) => map(data, reference, |x, r| zigzag_16(u16::from_le_bytes(x), u16::from_le_bytes(r))),
            (Self::Subtract, 4) => map(data, reference, |x, r| zigzag_32(u32::from_le_bytes(x), u32::from_le_bytes(r))),
            (Self::Subtract, 8) => map(data, reference, |x, r| zigzag_64(u64::from_le_bytes(x), u64::from_le_bytes(r))),
            (Self::Subtract, _) => map(data, reference, |x, r| zigzag_8(u8::from_le_bytes(x), u8::from_le_bytes(r))),
        }
    }

    /// Turns a difference into the tensor's bytes: the inverse of [`Self::take_difference`].
    ///
    /// # Panics
    /// If the lengths differ or are not whole units.
    pub fn restore(self, element: Element, data: &mut [u8], reference: &[u8]) {
        match (self, unit_len(element)) {
            (Self::SameAs, _) => data.copy_from_slice(reference),
            (Self::Xor, _) => xor(data, reference),
            (Self::Subtract, 2) => {
                map(data, reference, |d, r| restore_16(u16::from_le_bytes(d), u16::from_le_bytes(r)))
            }
            (Self::Subtract, 4) => {
                map(data, reference, |d, r| restore_32(u32::from_le_bytes(d), u32::from_le_bytes(r)))
            }
            (Self::Subtract, 8) => {
                map(data, reference, |d, r| restore_64(u64::from_le_bytes(d), u64::from_le_bytes(r)))
            }
            (Self::Subtract, _) => map(data, reference, |d, r| restore_8(u8::from_le_bytes(d), u8::from_le_bytes(r))),
        }
    }
}

/// Bytes of the integers that are subtracted from each other.
#[must_use]
pub fn unit_len(element: Element) -> usize {
    match element {
        Element::Dtype(Dtype::C64) => 4,
        Element::Dtype(dtype) if matches!(dtype.bits(), 16 | 32 | 64) => dtype.bits() as usize / 8,
        _ => 1,
    }
}

fn xor(data: &mut [u8], reference: &[u8]) {
    assert_eq!(data.len(), reference.len(), "as many bytes as the reference");
    data.iter_mut().zip(reference).for_each(|(x, r)| *x ^= r);
}

fn map<const N: usize>(data: &mut [u8], reference: &[u8], unit: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
    assert_eq!(data.len(), reference.len(), "as many bytes as the reference");
    let (data, rest) = data.as_chunks_mut();
    assert!(rest.is_empty(), "whole units");
    data.iter_mut().zip(reference.as_chunks().0).for_each(|(x, r)| *x = unit(*x, *r));
}

macro_rules! zigzag {
    ($($zigzag:ident, $restore:ident, $unsigned:ty, $signed:ty;)*) => {$(
        fn $zigzag(x: $unsigned, r: $unsigned) -> [u8; size_of::<$unsigned>()] {
            let d = x.wrapping_sub(r);
            (d << 1 ^ (d as $signed >> (<$unsigned>::BITS - 1)) as $unsigned).to_le_bytes()
        }

        fn $restore(d: $unsigned, r: $unsigned) -> [u8; size_of::<$unsigned>()] {
            r.wrapping_add(d >> 1 ^ (d & 1).wrapping_neg()).to_le_bytes()
        }
    )*};
}

zigzag! {
    zigzag_8, restore_8, u8, i8;
    zigzag_16, restore_16, u16, i16;
    zigzag_32, restore_32, u32, i32;
    zigzag_64, restore_64, u64, i64;
}

/// Another `.cmz` file that holds references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseId {
    /// Its root digest, in lower-case hexadecimal.
    pub root: String,
    /// SHA-256 of the file that it was made from, likewise, if that is known.
    pub sha256: Option<String>,
}

impl BaseId {
    /// Names an open file.
    #[must_use]
    pub fn of(index: &cmz_format::Index) -> Self {
        Self { root: hex(index.root()), sha256: index.manifest().source.as_ref().map(|source| source.sha256.clone()) }
    }

    /// Whether an open file is this one.
    #[must_use]
    pub fn is(&self, index: &cmz_format::Index) -> bool {
        let digits = index.root().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| b"0123456789abcdef"[usize::from(digit)]).eq(self.root.bytes())
    }
}

/// A tensor that another one is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// How the tensor comes from it.
    pub operation: Operation,
    /// Its name.
    pub tensor: String,
    /// The file that holds it, if that is another one.
    pub base: Option<BaseId>,
}

impl Reference {
    /// The reference in a tensor's encoding, and how the difference from it is stored, if
    /// there is one. `None` if the encoding has no reference.
    ///
    /// # Errors
    /// [`Code::Malformed`] or [`Code::UnknownEncoding`] about parameters and components.
    pub fn parse(encoding: &Encoding) -> Result<Option<(Self, Option<&Encoding>)>> {
        let mut all = REFERENCES.iter().map(|entry| entry.operation);
        let Some(operation) = all.find(|operation| operation.name() == encoding.name) else { return Ok(None) };
        let mut components = encoding.components.iter();
        let difference = match (operation, components.next(), components.next()) {
            (Operation::SameAs, None, _) => None,
            (Operation::Xor | Operation::Subtract, Some((name, Component::Encoded(difference))), None)
                if name == DIFFERENCE =>
            {
                Some(difference)
            }
            _ => return Err(malformed(format!("encoding {:?} has the wrong components", encoding.name))),
        };
        if encoding.params.keys().any(|key| ![TENSOR, BASE_ROOT, BASE_SHA256].contains(&key.as_str())) {
            let why = format!("unknown parameters of encoding {:?}", encoding.name);
            return Err(Error::new(Code::UnknownEncoding, why)
                .with_help("use a newer cmz; the other tensors of the file are not concerned"));
        }
        let tensor = match encoding.params.get(TENSOR) {
            Some(Value::String(name)) => name.clone(),
            _ => return Err(malformed("a reference without the name of a tensor".to_owned())),
        };
        let (root, sha256) = (digest(&encoding.params, BASE_ROOT)?, digest(&encoding.params, BASE_SHA256)?);
        let base = match (root, sha256) {
            (Some(root), sha256) => Some(BaseId { root, sha256 }),
            (None, None) => None,
            (None, Some(_)) => return Err(malformed(format!("{BASE_SHA256} without {BASE_ROOT}"))),
        };
        Ok(Some((Self { operation, tensor, base }, difference)))
    }

    /// The encoding of a tensor with this reference, as the manifest states it.
    #[must_use]
    pub fn to_manifest(&self, difference: Option<Encoding>) -> Encoding {
        let root = self.base.as_ref().map(|base| (BASE_ROOT, base.root.clone()));
        let sha256 = self.base.as_ref().and_then(|base| Some((BASE_SHA256, base.sha256.clone()?)));
        let params = [Some((TENSOR, self.tensor.clone())), root, sha256].into_iter().flatten();
        Encoding {
            name: self.operation.name().to_owned(),
            params: params.map(|(key, value)| (key.to_owned(), value.into())).collect(),
            components: difference
                .map(|inner| (DIFFERENCE.to_owned(), Component::Encoded(inner)))
                .into_iter()
                .collect(),
        }
    }
}

fn malformed(why: String) -> Error {
    Error::new(Code::Malformed, why)
}

fn digest(params: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match params.get(key) {
        None => Ok(None),
        Some(Value::String(hex)) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
            Ok(Some(hex.clone()))
        }
        Some(_) => Err(malformed(format!("{key} is not 64 lower-case hexadecimal digits"))),
    }
}
