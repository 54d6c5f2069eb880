//! Builds safetensors files, sound ones and others.

use std::fmt::Write;

use serde_json::Value;

/// A safetensors file in the making. Tensors and gaps lie in the file as they are added.
#[derive(Clone, Debug, Default)]
pub struct Source {
    metadata: Option<Vec<(String, String)>>,
    tensors: Vec<(String, String, Vec<u64>, usize, usize)>,
    data: Vec<u8>,
    header_len: Option<usize>,
    reversed: bool,
}

impl Source {
    /// A file without tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry to `__metadata__`.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.get_or_insert_default().push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a tensor behind what the file holds already.
    #[must_use]
    pub fn tensor(mut self, name: &str, dtype: &str, shape: &[u64], bytes: impl AsRef<[u8]>) -> Self {
        let start = self.data.len();
        self.data.extend_from_slice(bytes.as_ref());
        self.tensors.push((name.to_owned(), dtype.to_owned(), shape.to_vec(), start, self.data.len()));
        self
    }

    /// Adds bytes that belong to no tensor: a gap, or trailing bytes.
    #[must_use]
    pub fn gap(mut self, bytes: &[u8]) -> Self {
        self.data.extend_from_slice(bytes);
        self
    }

    /// Pads the JSON with spaces to this length, in bytes.
    #[must_use]
    pub fn header_len(mut self, len: usize) -> Self {
        self.header_len = Some(len);
        self
    }

    /// Lists the tensors in the header from last to first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// The file's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut entries = Vec::new();
        if let Some(metadata) = &self.metadata {
            let pairs: Vec<_> = metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
            entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
        }
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        if self.reversed {
            tensors.reverse();
        }
        for (name, dtype, shape, start, end) in tensors {
            let mut entry = String::new();
            let (name, dtype) = (quoted(name), quoted(dtype));
            write!(entry, "{name}:{{\"dtype\":{dtype},\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
                .expect("strings take anything");
            entries.push(entry.replace(", ", ","));
        }
        let mut json = format!("{{{}}}", entries.join(","));
        let len = self.header_len.unwrap_or_else(|| json.len().next_multiple_of(8));
        json.extend(std::iter::repeat_n(' ', len.saturating_sub(json.len())));
        file_of(json.as_bytes(), &self.data)
    }
}

/// A file with this header and these data bytes, whatever they are.
#[must_use]
pub fn file_of(json: &[u8], data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json, data].concat()
}
