//! Parameters of encodings, read from the manifest: §6.4 of the format's specification says
//! which are corrupt and which are of a newer version.

use std::ops::RangeInclusive;

use cmz_format::{Code, Error, Result};
use serde_json::{Map, Value};

use super::groups::MAX_GROUP;

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

    /// Rows and columns of a group: an array of two integers.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is missing, no such array, or out of range.
    pub(super) fn group(&self) -> Result<[u32; 2]> {
        let range = 1..=MAX_GROUP;
        let integer = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
        let pair = self.values.get("group").and_then(Value::as_array).and_then(|pair| match &pair[..] {
            [rows, columns] => Some([integer(rows)?, integer(columns)?]),
            _ => None,
        });
        pair.filter(|pair| pair.iter().all(|value| range.contains(value))).ok_or_else(|| {
            self.malformed(format!("parameter \"group\" is not an array of two integers from 1 to {MAX_GROUP}"))
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

    /// That a parameter which others leave without meaning is not there.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is.
    pub(super) fn absent(&self, key: &str) -> Result<()> {
        if self.values.contains_key(key) {
            return Err(self.malformed(format!("parameter {key:?} has no meaning beside the others")));
        }
        Ok(())
    }

    /// An error about what a parameter must not say.
    pub(super) fn malformed(&self, why: String) -> Error {
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

/// Parameters as a manifest states them.
pub(super) fn entries<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The name of a value of [`Params::one_of`].
pub(super) fn name_of<T: PartialEq>(values: &[(&'static str, T)], value: &T) -> Value {
    values.iter().find(|(_, v)| v == value).map_or("", |(name, _)| name).into()
}
