//! The manifest: what the file holds, as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use crate::limits::{MAX_BLOCK_LEN, MAX_DEPTH, MAX_RANK, MAX_STREAMS};
use crate::view::{self, View};
use crate::{Code, Dtype, Error, Escaped, Limits, Result, bytes};

/// What a `.cmz` file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, DeriveDeserialize)]
pub struct Manifest {
    /// Program and version that wrote the file.
    pub generator: String,
    /// The file that the tensors came from, if it can be restored byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_object")]
    pub source: Option<Source>,
    /// The user's metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "unique_map")]
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their descriptor blocks.
    #[serde(deserialize_with = "objects")]
    pub tensors: Vec<Tensor>,
    /// Tensors that come from those of the file by arithmetic.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub views: Vec<View>,
    /// What was done to the tensors that are not what the writer was given, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub lossy: Vec<Lossy>,
}

/// A tensor that a writer has rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Lossy {
    /// Its name.
    pub tensor: String,
    /// What was done to it, for people: a recipe with its parameters.
    pub recipe: String,
    /// Root of the mean squared error over that of the mean square of the elements, in parts per billion.
    pub error_ppb: u64,
    /// The same of the layer's outputs, over the inputs that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_integer")]
    pub output_error_ppb: Option<u64>,
}

/// The file that the tensors came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Source {
    /// Kind of file, for example `safetensors`.
    pub kind: String,
    /// Length of the file, in bytes.
    pub len: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
}

/// A tensor: its name, element type, shape, and how it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, DeriveDeserialize)]
pub struct Tensor {
    /// Name, unique in the file.
    pub name: String,
    /// Name of the element type. A type that [`Dtype`] does not know is stored as bytes.
    pub dtype: String,
    /// Size of each dimension, in elements.
    pub shape: Vec<u64>,
    /// Elements that each data block but the last decodes to (bytes, if the file's version does not
    /// list the element type).
    pub block_elements: u64,
    /// How the elements are stored.
    #[serde(deserialize_with = "object")]
    pub encoding: Encoding,
}

/// A composition of arrays: one named operation over named components.
#[derive(Clone, Debug, PartialEq, Serialize, DeriveDeserialize)]
pub struct Encoding {
    /// Name of the encoding in the registry.
    pub name: String,
    /// Parameters of the encoding.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty", deserialize_with = "unique_params")]
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The component arrays.
    #[serde(deserialize_with = "unique_map")]
    pub components: BTreeMap<String, Component>,
}

/// A component array of an encoding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Component {
    /// Stored as a stream by any of the named codecs.
    Stream(Vec<String>),
    /// Stored as an encoded array in turn.
    Encoded(Encoding),
}

/// A struct that is a JSON object in the file: the derived code would take an array too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData)).map(Self)
    }
}

fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

fn some_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    object(deserializer).map(Some)
}

fn some_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ComponentVisitor;
        impl<'de> Visitor<'de> for ComponentVisitor {
            type Value = Component;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of codec names or an encoding")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Component, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Component::Stream)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Component, A::Error> {
                Deserialize::deserialize(de::value::MapAccessDeserializer::new(map)).map(Component::Encoded)
            }
        }
        deserializer.deserialize_any(ComponentVisitor)
    }
}

/// Reads a JSON object as a map and refuses a key that occurs twice, which parsers
/// of other programs would resolve in different ways.
///
/// # Errors
/// If the input is not an object or a key occurs twice.
pub fn unique_map<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct UniqueVisitor<V>(std::marker::PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
        type Value = BTreeMap<String, V>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(de::Error::custom(format_args!("the key {key:?} occurs twice")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(UniqueVisitor(std::marker::PhantomData))
}

/// A JSON value none of whose objects has a key twice.
struct UniqueValue(serde_json::Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = serde_json::Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(serde_json::Value::Null)
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Self::Value, E> {
                Ok(v.into())
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Self::Value, E> {
                Ok(v.into())
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Self::Value, E> {
                Ok(v.into())
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Self::Value, E> {
                Ok(v.into())
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(v.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(UniqueValue(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(values.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                unique_params(de::value::MapAccessDeserializer::new(map)).map(Into::into)
            }
        }
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

/// Reads the parameters of an encoding and refuses a key that occurs twice, at any depth.
pub(crate) fn unique_params<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<serde_json::Map<String, serde_json::Value>, D::Error> {
    let map: BTreeMap<String, UniqueValue> = unique_map(deserializer)?;
    Ok(map.into_iter().map(|(key, UniqueValue(value))| (key, value)).collect())
}

impl Manifest {
    /// Parses a decoded manifest and checks everything that can be checked without the block table.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is not such JSON or breaks a rule, [`Code::Limit`].
    pub fn parse(json: &[u8], limits: &Limits) -> Result<Self> {
        let Object(manifest): Object<Self> = serde_json::from_slice(json).map_err(|e| bad_json("manifest", &e))?;
        if manifest.tensors.len() as u64 > u64::from(limits.tensors) {
            return Err(Error::limit("the number of tensors", manifest.tensors.len() as u64, limits.tensors.into()));
        }
        for tensor in &manifest.tensors {
            tensor.check(limits).map_err(|e| e.in_tensor(&tensor.name))?;
        }
        view::check(&manifest.views, limits)?;
        manifest.check_lossy()?;
        Ok(manifest)
    }

    /// Checks that the lossy tensors are tensors, in their order, each once.
    pub(crate) fn check_lossy(&self) -> Result<()> {
        let mut tensors = self.tensors.iter();
        for lossy in &self.lossy {
            if !tensors.any(|tensor| tensor.name == lossy.tensor) {
                let why = "lossy names what is no tensor, or not in the order of the tensors";
                return Err(malformed(why).in_tensor(&lossy.tensor));
            }
            if lossy.recipe.is_empty() {
                return Err(malformed("lossy without a recipe").in_tensor(&lossy.tensor));
            }
        }
        Ok(())
    }

    /// The manifest as JSON. The same manifest always gives the same bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// Maps with string keys and plain structs always serialize.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The parser's message quotes the file: it is escaped and cut short.
fn bad_json(what: &str, error: &serde_json::Error) -> Error {
    let message: String = error.to_string().chars().take(200).collect();
    malformed(format!("{what}: line {}, column {}: {}", error.line(), error.column(), Escaped(&message)))
}

pub(crate) fn malformed(why: impl Into<String>) -> Error {
    Error::new(Code::Malformed, why)
}

/// Number of elements of a tensor of this shape.
pub(crate) fn elements_of(shape: &[u64]) -> Result<u64> {
    // A zero makes the product zero whatever the other factors are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))
        .filter(|&n| n < 1 << 63)
        .ok_or_else(|| malformed(format!("the product of the shape {shape:?} overflows")))
}

impl Tensor {
    /// Parses the JSON of a descriptor block.
    ///
    /// # Errors
    /// [`Code::Malformed`] if it is not a tensor's description or breaks a rule, [`Code::Limit`].
    pub fn parse(json: &[u8], limits: &Limits) -> Result<Self> {
        let Object(tensor): Object<Self> =
            serde_json::from_slice(json).map_err(|e| bad_json("tensor descriptor", &e))?;
        tensor.check(limits).map_err(|e| e.in_tensor(&tensor.name))?;
        Ok(tensor)
    }

    /// The tensor as the JSON of its descriptor block.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// The element type, unless this version does not know it.
    #[must_use]
    pub fn known_dtype(&self) -> Option<Dtype> {
        Dtype::from_name(&self.dtype)
    }

    /// The number that block headers carry to say whose they are.
    #[must_use]
    pub fn owner(&self) -> u32 {
        bytes::crc32(self.name.as_bytes())
    }

    /// Number of elements.
    ///
    /// # Errors
    /// [`Code::Malformed`] if the product of the shape does not fit 63 bits.
    pub fn elements(&self) -> Result<u64> {
        elements_of(&self.shape)
    }

    /// Length of the decoded tensor in bytes; `None` if the element type is unknown.
    ///
    /// # Errors
    /// [`Code::Malformed`] if the size overflows or does not end on a byte.
    pub fn byte_len(&self) -> Result<Option<u64>> {
        let elements = self.elements()?;
        let Some(dtype) = self.known_dtype() else { return Ok(None) };
        match dtype.byte_len(elements) {
            Some(len) if len < 1 << 63 => Ok(Some(len)),
            _ => {
                Err(malformed(format!("{elements} elements of {dtype} do not make a whole number of bytes below 2^63")))
            }
        }
    }

    /// Length in bytes that every data block but the last decodes to.
    #[must_use]
    pub fn block_len(&self) -> u64 {
        let dtype = self.known_dtype().unwrap_or(Dtype::U8);
        dtype.byte_len(self.block_elements).unwrap_or(0)
    }

    /// Number of data blocks of a tensor of `byte_len` bytes.
    #[must_use]
    pub fn block_count(&self, byte_len: u64) -> u64 {
        byte_len.div_ceil(self.block_len().max(1))
    }

    /// Whether the payloads of the data blocks lie next to each other, so that a
    /// mapped file shows the tensor as one slice: when it is encoded as `plain` and its
    /// only stream is always `raw`. Such a tensor has at most [`MAX_RUN`] blocks and
    /// [`MAX_RUN_LEN`] bytes; a larger one names another codec beside `raw`.
    ///
    /// [`MAX_RUN`]: crate::limits::MAX_RUN
    /// [`MAX_RUN_LEN`]: crate::limits::MAX_RUN_LEN
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        if self.encoding.name != "plain" {
            return false;
        }
        let mut components = self.encoding.components.values();
        let raw_only = matches!(components.next(), Some(Component::Stream(codecs)) if *codecs == ["raw"]);
        raw_only && components.next().is_none()
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<()> {
        if self.name.len() as u64 > u64::from(limits.name_len) {
            return Err(Error::limit("the length of a tensor name", self.name.len() as u64, limits.name_len.into()));
        }
        if self.shape.len() > MAX_RANK {
            return Err(malformed(format!("{} dimensions, {MAX_RANK} are allowed", self.shape.len())));
        }
        self.byte_len()?;
        // What an element of an unknown type occupies is not known here.
        let block_len = if self.known_dtype().is_some() { self.block_len() } else { self.block_elements.min(1) };
        if block_len == 0 || block_len > u64::from(MAX_BLOCK_LEN) {
            return Err(malformed(format!(
                "blocks of {} elements do not decode to 1 to {MAX_BLOCK_LEN} bytes",
                self.block_elements
            )));
        }
        let mut streams = 0;
        self.encoding.check(1, &mut streams)
    }
}

impl Encoding {
    /// An encoding without parameters whose components are streams of the given codecs.
    #[must_use]
    pub fn of_streams<'a>(name: &str, components: impl IntoIterator<Item = (&'a str, Vec<String>)>) -> Self {
        Self {
            name: name.to_owned(),
            params: serde_json::Map::new(),
            components: components
                .into_iter()
                .map(|(component, codecs)| (component.to_owned(), Component::Stream(codecs)))
                .collect(),
        }
    }

    fn check(&self, depth: usize, streams: &mut usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(malformed(format!("encodings nested more than {MAX_DEPTH} deep")));
        }
        for component in self.components.values() {
            match component {
                Component::Stream(codecs) if codecs.is_empty() => {
                    return Err(malformed("a component without codecs"));
                }
                Component::Stream(_) => *streams += 1,
                Component::Encoded(encoding) => encoding.check(depth + 1, streams)?,
            }
        }
        if *streams > MAX_STREAMS {
            return Err(malformed(format!("{streams} component streams, {MAX_STREAMS} are allowed")));
        }
        Ok(())
    }
}
