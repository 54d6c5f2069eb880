//! Parameters of layouts, read from the manifest: SPEC.md §6.9 says which are corrupt and which
//! are of a newer version.

use std::ops::RangeInclusive;

use cmz_format::Result;
use serde_json::{Map, Value};

use super::{malformed, unknown};

/// The parameters of one view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'a>(&'a Map<String, Value>);

impl<'a> Params<'a> {
    /// The parameters `values`, of which this version knows those named `known`.
    pub(super) fn new(known: &[&str], values: &'a Map<String, Value>) -> Result<Self> {
        match values.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(unknown(format!("a view with unknown parameter {key:?}"))),
            None => Ok(Self(values)),
        }
    }

    pub(super) fn has(self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// An integer.
    pub(super) fn integer(self, key: &str, range: RangeInclusive<u32>) -> Result<u32> {
        let value = self.0.get(key).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (first, last) = (range.start(), range.end());
            malformed(format!("parameter {key:?} of a view is not an integer from {first} to {last}"))
        })
    }

    /// A number of elements, or of rows or columns: at least 1.
    pub(super) fn count(self, key: &str) -> Result<usize> {
        self.integer(key, 1..=i32::MAX.unsigned_abs()).map(|count| count as usize)
    }

    /// One of several named values.
    pub(super) fn one_of<T: Copy>(self, key: &str, values: &[(&str, T)]) -> Result<T> {
        let Some(Value::String(found)) = self.0.get(key) else {
            return Err(malformed(format!("parameter {key:?} of a view is not a string")));
        };
        let value = values.iter().find(|(name, _)| name == found).map(|&(_, value)| value);
        value.ok_or_else(|| unknown(format!("a view with unknown {key} {found:?}")))
    }
}
