//! Views: tensors that are not stored, but come from stored ones by arithmetic.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_PARTS, MAX_RANK};
use crate::manifest::{elements_of, malformed, unique_map, unique_params};
use crate::{Dtype, Error, Limits, Result};

/// A tensor that comes from tensors of the file, for example the weights that quantized ones stand for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Name: no tensor's, and no other view's.
    pub name: String,
    /// Name of the element type.
    pub dtype: String,
    /// Size of each dimension, in elements.
    pub shape: Vec<u64>,
    /// Name of the layout in the registry: how the elements come from the parts.
    pub layout: String,
    /// Parameters of the layout.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty", deserialize_with = "unique_params")]
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The tensors that it comes from, by their roles.
    #[serde(deserialize_with = "unique_map")]
    pub parts: BTreeMap<String, String>,
}

impl View {
    /// The element type, unless this version does not know it.
    #[must_use]
    pub fn known_dtype(&self) -> Option<Dtype> {
        Dtype::from_name(&self.dtype)
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        if self.name.len() as u64 > u64::from(limits.name_len) {
            return Err(Error::limit("the length of a view's name", self.name.len() as u64, limits.name_len.into()));
        }
        if self.shape.len() > MAX_RANK {
            return Err(malformed(format!("{} dimensions, {MAX_RANK} are allowed", self.shape.len())));
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return Err(malformed(format!("a view of {} parts, 1 to {MAX_PARTS} are allowed", self.parts.len())));
        }
        let elements = elements_of(&self.shape)?;
        match self.known_dtype().map(|dtype| dtype.byte_len(elements)) {
            None => Ok(()),
            Some(Some(len)) if len < 1 << 63 => Ok(()),
            Some(_) => Err(malformed("the elements do not make a whole number of bytes below 2^63")),
        }
    }
}

/// Checks what can be checked of views without the tensors.
pub(crate) fn check(views: &[View], limits: &Limits) -> Result<()> {
    if views.len() as u64 > u64::from(limits.tensors) {
        return Err(Error::limit("the number of views", views.len() as u64, limits.tensors.into()));
    }
    views.iter().try_for_each(|view| view.check(limits).map_err(|e| e.in_tensor(&view.name)))
}

/// Finds the views by their names: none is that of a tensor, and all parts are tensors.
pub(crate) fn by_name(views: &[View], tensors: &HashMap<String, usize>) -> Result<HashMap<String, usize>> {
    let mut found = HashMap::with_capacity(views.len());
    for (i, view) in views.iter().enumerate() {
        let refuse = |why: String| Err(malformed(why).in_tensor(&view.name));
        if let Some(part) = view.parts.values().find(|part| !tensors.contains_key(*part)) {
            return refuse(format!("the view comes from tensor {part:?}, which is not there"));
        }
        if tensors.contains_key(&view.name) || found.insert(view.name.clone(), i).is_some() {
            return refuse("a view has the name of a tensor or of another view".to_owned());
        }
    }
    Ok(found)
}
