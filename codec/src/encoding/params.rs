//! Parameters of encodings, read from the manifest: §6.4 of the format's specification says
//! which are corrupt and which are of a newer version.

use std::ops::RangeInclusive;

use cmz_format::{Code, Error, Result};
use serde_json::{Map, Value};

/// The parameters of one encoding object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'a> {
    encoding: &'static str,
    values: &'a Map<String, Value>,
}

impl<'a> Params<'a> {
    /// The parameters `values`, of which this version knows those named `known`.
    ///
    /// # Errors
    /// [`Code::UnknownEncoding`] if there are others.
    pub(super) fn new(encoding: &'static str, known: &[&str], values: &'a Map<String, Value>) -> Result<Self> {
        match values.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(unknown(format!("unknown parameter {key:?} of encoding {encoding:?}"))),
            None => Ok(Self { encoding, values }),
        }
    }

    /// An integer.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is missing, no integer, or outside of `range`.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32> {
        self.values.get(key).and_then(|value| integer_in(value, &range)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            self.malformed(format!("parameter {key:?} is not an integer from {first} to {last}"))
        })
    }

    /// A list of `N` integers.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is missing, or anything else than `N` integers in `range`.
    pub(super) fn integers<const N: usize>(&self, key: &str, range: RangeInclusive<u32>) -> Result<[u32; N]> {
        let list = self.values.get(key).and_then(Value::as_array);
        let integers: Option<Vec<u32>> =
            list.and_then(|list| list.iter().map(|value| integer_in(value, &range)).collect());
        integers.and_then(|integers| integers.try_into().ok()).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            self.malformed(format!("parameter {key:?} is not a list of {N} integers from {first} to {last}"))
        })
    }

    /// One of several named values.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is missing or no string, [`Code::UnknownEncoding`] if it is
    /// another string.
    pub(super) fn one_of<T: Copy>(&self, key: &str, values: &[(&str, T)]) -> Result<T> {
        let Some(Value::String(found)) = self.values.get(key) else {
            return Err(self.malformed(format!("parameter {key:?} is not a string")));
        };
        let value = values.iter().find(|(name, _)| name == found).map(|&(_, value)| value);
        value.ok_or_else(|| unknown(format!("encoding {:?} with unknown {key} {found:?}", self.encoding)))
    }

    fn malformed(&self, why: String) -> Error {
        Error::new(Code::Malformed, format!("encoding {:?}: {why}", self.encoding))
    }
}

/// An integer of `range`.
fn integer_in(value: &Value, range: &RangeInclusive<u32>) -> Option<u32> {
    let value = value.as_u64().and_then(|value| u32::try_from(value).ok())?;
    range.contains(&value).then_some(value)
}

fn unknown(why: String) -> Error {
    Error::new(Code::UnknownEncoding, why).with_help("use a newer cmz; the other tensors of the file are not concerned")
}
