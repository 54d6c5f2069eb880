//! The safetensors file format, read tolerantly: what other readers refuse although
//! nothing in it is ambiguous (gaps, trailing bytes, unknown element types) is kept, and
//! what could be read in two ways is refused.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use cmz_format::{Code, Dtype, Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::io::ReadAt;

/// Bytes of JSON that a header has at most: the limit of the safetensors library.
const MAX_HEADER_LEN: u64 = 100_000_000;
const LENGTH_FIELD: u64 = 8;

/// The tensors of a file, and where they lie.
#[derive(Debug)]
pub struct Header {
    /// Length of the header with its length field, in bytes.
    pub len: u64,
    /// The user's metadata, where it is text.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<Entry>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Name of the element type.
    pub dtype: String,
    /// Size of each dimension, in elements.
    pub shape: Vec<u64>,
    /// Where the bytes lie in the file.
    pub range: Range<u64>,
}

impl Entry {
    /// Length of the bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Header {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// [`Code::NotWeights`] if the file is obviously something else, [`Code::BadSource`] if
    /// it breaks a rule, [`Code::Truncated`] if it ends before its tensors do.
    pub fn read(file: &dyn ReadAt) -> Result<Self> {
        Self::parse(&Self::read_json(file)?, file.byte_len())
    }

    /// Reads and checks the header of a file that may end anywhere behind it, with the
    /// header's own bytes, length field included: for what a header alone tells.
    ///
    /// # Errors
    /// As [`Self::read`], except that the tensors' bytes may be missing.
    pub fn read_alone(file: &dyn ReadAt) -> Result<(Self, Vec<u8>)> {
        let json = Self::read_json(file)?;
        let header = Self::parse(&json, u64::MAX)?;
        Ok((header, [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()))
    }

    /// Reads the JSON of a header.
    fn read_json(file: &dyn ReadAt) -> Result<Vec<u8>> {
        let file_len = file.byte_len();
        let mut start = [0; 512];
        let start = &mut start[..file_len.min(512) as usize];
        file.read_at(0, start)?;
        check_is_weights(start)?;
        let Some(length) = start.first_chunk::<{ LENGTH_FIELD as usize }>() else {
            return Err(Error::new(
                Code::Truncated,
                format!("a safetensors file has at least 8 bytes, this one {file_len}"),
            )
            .at(file_len));
        };
        let json_len = u64::from_le_bytes(*length);
        if json_len > MAX_HEADER_LEN {
            return Err(bad(format!("the header claims {json_len} bytes, more than {MAX_HEADER_LEN}"))
                .with_help("is this a safetensors file?"));
        }
        let len = LENGTH_FIELD + json_len;
        if len > file_len {
            return Err(Error::new(
                Code::Truncated,
                format!("the file ends inside its header: {file_len} of {len} bytes"),
            )
            .at(file_len)
            .with_help("fetch the file again"));
        }
        let mut json = vec![0; json_len as usize];
        file.read_at(LENGTH_FIELD, &mut json)?;
        Ok(json)
    }

    /// Parses the JSON of a header.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(json: &[u8], file_len: u64) -> Result<Self> {
        let len = LENGTH_FIELD + json.len() as u64;
        if len > file_len {
            return Err(Error::new(Code::Truncated, "the file ends inside its header").at(file_len));
        }
        let text = std::str::from_utf8(json).map_err(|e| bad(format!("the header is not UTF-8: {e}")))?;
        let parsed: JsonHeader = serde_json::from_str(text).map_err(|e| bad(format!("the header: {e}")))?;
        let mut tensors = Vec::with_capacity(parsed.tensors.len());
        for (name, info) in parsed.tensors {
            let entry = info.check(&name, len, file_len).map_err(|e| e.in_tensor(&name))?;
            tensors.push(Entry { name, ..entry });
        }
        tensors.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
        for pair in tensors.windows(2) {
            if pair[0].range.end > pair[1].range.start {
                return Err(bad(format!("overlaps the bytes of tensor {:?}", pair[0].name)).in_tensor(&pair[1].name));
            }
        }
        Ok(Self { len, metadata: parsed.metadata, tensors })
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BadSource, why)
}

/// Recognises what people download by mistake in place of weights.
fn check_is_weights(start: &[u8]) -> Result<()> {
    // A length of 640 has the first bytes of a pickle: what follows it tells them apart.
    let length = start.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    if length <= MAX_HEADER_LEN && start.get(LENGTH_FIELD as usize) == Some(&b'{') {
        return Ok(());
    }
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let html = ["<!doctype", "<html", "<?xml", "<head"];
    let (what, help) = if start.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "run `git lfs pull`")
    } else if html.iter().any(|tag| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag))) {
        ("a web page", "the download needs a login or another address; fetch the file itself")
    } else if start.starts_with(&cmz_format::MAGIC) {
        ("a .cmz file already", "`cmz decompress` restores it, `cmz inspect` shows it")
    } else if start.starts_with(b"GGUF") {
        ("a GGUF file", "only safetensors files are converted")
    } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80\x02") {
        ("a PyTorch pickle", "save it as safetensors first")
    } else {
        return Ok(());
    };
    Err(Error::new(Code::NotWeights, format!("this is {what}, not a safetensors file")).with_help(help))
}

#[derive(Deserialize)]
struct JsonTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl JsonTensor {
    fn check(self, name: &str, header_len: u64, file_len: u64) -> Result<Entry> {
        let (start, end) = self.data_offsets;
        let data_len = file_len - header_len;
        if start > end {
            return Err(bad(format!("the data offsets {start}..{end} run backwards")));
        }
        if end > data_len {
            return Err(Error::new(
                Code::Truncated,
                format!("its bytes end at {end} of the data, but the file has only {data_len}"),
            )
            .at(file_len)
            .with_help("the file is incomplete: fetch it again"));
        }
        let elements =
            product(&self.shape).ok_or_else(|| bad(format!("the product of the shape {:?} overflows", self.shape)))?;
        if let Some(dtype) = Dtype::from_name(&self.dtype) {
            let len = dtype
                .byte_len(elements)
                .ok_or_else(|| bad(format!("{elements} elements of {dtype} do not make a whole number of bytes")))?;
            if len != end - start {
                return Err(bad(format!(
                    "{elements} elements of {dtype} take {len} bytes, the data offsets span {}",
                    end - start
                )));
            }
        }
        let range = header_len + start..header_len + end;
        Ok(Entry { name: name.to_owned(), dtype: self.dtype, shape: self.shape, range })
    }
}

fn product(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).filter(|&n| n < 1 << 63)
}

/// The JSON object, with every key allowed once.
#[derive(Default)]
struct JsonHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, JsonTensor)>,
}

impl<'de> Deserialize<'de> for JsonHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = JsonHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<JsonHeader, A::Error> {
                let mut header = JsonHeader::default();
                let mut keys = HashSet::new();
                while let Some(key) = access.next_key::<String>()? {
                    if key == "__metadata__" {
                        header.metadata = access.next_value::<Metadata>()?.0;
                    } else {
                        header.tensors.push((key.clone(), access.next_value()?));
                    }
                    if let Some(twice) = keys.replace(key) {
                        return Err(A::Error::custom(format_args!("the key {twice:?} occurs twice")));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// The text values of `__metadata__`; values of other types are left to the literal header.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Other(IgnoredAny),
        }
        struct MetadataVisitor;
        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Metadata, A::Error> {
                let mut keys = HashSet::new();
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    if let Some(twice) = keys.replace(key.clone()) {
                        return Err(A::Error::custom(format_args!("the key {twice:?} occurs twice in __metadata__")));
                    }
                    match value {
                        Value::Text(text) => drop(map.insert(key, text)),
                        Value::Other(_) => {}
                    }
                }
                Ok(Metadata(map))
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}
