//! Quantized checkpoints: what weights their tensors stand for, as views.
//!
//! The tensors stay what they are. The configuration says which program has quantized them, and how; names, types and shapes
//! of the tensors must agree with it, and so must the values of those that are places in others. Where they do not, or could be
//! read in two ways, there is no view, and a note says why.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cmz_format::{Code, Dtype, Error, Escaped, Result, View};
use serde_json::{Map, Value};

use crate::io::{PlainFile, ReadAt};
use crate::registry::layout_by_name;
use crate::safetensors::{Entry, Header};
use crate::view::{Layout, PartSpec, Spec};

mod bitsandbytes;
mod compressed_tensors;
mod floats;
mod gptq;
mod qmoe;
#[cfg(test)]
mod qmoe_tests;
mod spqr;
#[cfg(test)]
mod tests;

/// Bytes that a configuration may have.
const MAX_CONFIG_LEN: u64 = 16 << 20;
/// Bytes of a tensor that is looked at to tell how others are to be read.
const MAX_DETAIL_LEN: u64 = 64 << 20;

/// A program that quantizes, by the name that configurations give it, and how its tensors are found.
type Method = (&'static str, fn(&Quantization, &mut File<'_>));

const METHODS: [Method; 9] = [
    ("awq", gptq::awq),
    ("bitsandbytes", bitsandbytes::views),
    ("compressed-tensors", compressed_tensors::views),
    ("fp8", floats::fp8),
    ("gptq", gptq::gptq),
    ("modelopt", floats::modelopt),
    ("mxfp4", floats::mxfp4),
    ("qmoe", qmoe::views),
    ("spqr", spqr::views),
];

/// The names that configurations give the programs whose checkpoints are understood.
pub fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|(name, _)| *name)
}

/// How a checkpoint's configuration says that its weights were quantized.
#[derive(Debug)]
pub struct Quantization {
    /// The name of the program, in lower case.
    method: String,
    config: Map<String, Value>,
    /// The whole `config.json`; empty if there is none.
    model: Map<String, Value>,
}

/// What was found in a file of a checkpoint.
#[derive(Debug, Default)]
pub struct Found {
    /// The weights that its tensors stand for.
    pub views: Vec<View>,
    /// What has no view, and why.
    pub notes: Vec<String>,
}

impl Quantization {
    /// Reads the configuration in a folder: that in `config.json`, or the file that older programs write beside it. `None` if
    /// there is none.
    ///
    /// # Errors
    /// [`Code::BadSource`] for a configuration that cannot be read, [`Code::Io`].
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        Self::of_files(|name| read(&folder.join(name))).map_err(|e| e.in_file(folder))
    }

    /// The same of configurations that are read otherwise, by the names of their files.
    ///
    /// # Errors
    /// [`Code::BadSource`] for a configuration that cannot be read, or what `file` returns.
    pub fn of_files(file: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Option<Self>> {
        let read = |name: &str| file(name)?.map(|bytes| object(name, &bytes)).transpose();
        let mut model = read("config.json")?.unwrap_or_default();
        // Where a model of language is part of another, only that part may be quantized, and say so.
        let is_quantized = |model: &Map<String, Value>| model.get("quantization_config").is_some_and(Value::is_object);
        let text = model.get("text_config").and_then(Value::as_object).filter(|text| is_quantized(text));
        if let Some(text) = text.filter(|_| !is_quantized(&model)).cloned() {
            model.extend(text);
        }
        // The name that compressed-tensors gave it before.
        let mut configs =
            ["quantization_config", "compression_config"].iter().filter_map(|key| model.get(*key)?.as_object());
        if let Some(config) = configs.next() {
            // Some programs leave their own name out.
            let method = match config.get("quant_method") {
                Some(Value::String(method)) => method.to_lowercase(),
                _ if config.contains_key("load_in_4bit") || config.contains_key("load_in_8bit") => {
                    "bitsandbytes".into()
                }
                _ if config.contains_key("config_groups") => "compressed-tensors".into(),
                _ => return Err(bad("quantization_config does not name its quant_method")),
            };
            return Ok(Some(Self { method, config: config.clone(), model }));
        }
        for (name, method) in
            [("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", "modelopt")]
        {
            if let Some(config) = read(name)? {
                let inner = config.get("quantization").and_then(Value::as_object).cloned();
                return Ok(Some(Self { method: method.to_owned(), config: inner.unwrap_or(config), model }));
            }
        }
        // QMoE leaves the configuration of the model as it was: the tensors tell whether they are its.
        let is_switch = ["d_model", "d_ff"].iter().all(|size| model.get(*size).is_some_and(Value::is_u64));
        Ok(is_switch.then(|| Self { method: "qmoe".to_owned(), config: Map::new(), model }))
    }

    /// The name of the program, as the configuration has it, in lower case.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The weights that the tensors of a file stand for.
    pub fn views(&self, header: &Header, data: &dyn ReadAt) -> Found {
        let Some((_, find)) = METHODS.iter().find(|(name, _)| *name == self.method) else {
            let why = format!("quantized by {}, which is not known: there are no views", Escaped(&self.method));
            return Found { views: Vec::new(), notes: vec![why] };
        };
        self.find(*find, header, data)
    }

    fn find(&self, find: fn(&Self, &mut File<'_>), header: &Header, data: &dyn ReadAt) -> Found {
        let tensors = header.tensors.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        let mut file = File { header, data, tensors, views: Vec::new(), unclear: BTreeMap::new() };
        find(self, &mut file);
        let notes = file.unclear.into_iter().map(|(why, (count, first))| {
            let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            format!("no view of {}{others}: {why}", Escaped(&first))
        });
        Found { views: file.views, notes: notes.collect() }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.config.get(key).and_then(Value::as_str).map(str::to_lowercase)
    }

    fn flag(&self, key: &str) -> bool {
        self.config.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The type that the model computes in.
    fn dtype(&self) -> Option<&'static str> {
        let name = ["torch_dtype", "dtype"].iter().find_map(|key| self.model.get(*key)?.as_str());
        name.and_then(torch_dtype)
    }
}

/// The element type that PyTorch gives this name.
fn torch_dtype(name: &str) -> Option<&'static str> {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float16" => Some("F16"),
        "bfloat16" => Some("BF16"),
        "float32" => Some("F32"),
        _ => None,
    }
}

/// The weights that the tensors of a file of `torch.save` stand for, by what lies beside them in its outermost dict.
pub fn of_torch(header: &Header, attributes: Map<String, Value>, data: &dyn ReadAt) -> Found {
    let method = "spqr".to_owned();
    Quantization { method, config: attributes, model: Map::new() }.find(spqr::saved, header, data)
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BadSource, why)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let file = PlainFile::open(path)?;
    if file.byte_len() > MAX_CONFIG_LEN {
        let why = format!("the configuration has {} bytes, more than {MAX_CONFIG_LEN}", file.byte_len());
        return Err(bad(why).in_file(path));
    }
    let mut bytes = vec![0; file.byte_len() as usize];
    file.read_at(0, &mut bytes).map_err(|e| e.in_file(path))?;
    Ok(Some(bytes))
}

fn object(name: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(bad(format!("the configuration {name} is not an object"))),
        Err(e) => Err(bad(format!("the configuration {name}: {e}"))),
    }
}

/// A file in which views are looked for.
struct File<'a> {
    header: &'a Header,
    data: &'a dyn ReadAt,
    tensors: HashMap<&'a str, &'a Entry>,
    views: Vec<View>,
    /// For each reason, how many weights have no view, and the first of them.
    unclear: BTreeMap<String, (usize, String)>,
}

/// A view to be, without its name.
#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    layout: &'static str,
    dtype: String,
    shape: Vec<u64>,
    params: Map<String, Value>,
    /// Role and tensor.
    parts: Vec<(String, String)>,
}

impl Candidate {
    fn new(layout: &'static str, dtype: &str, shape: &[u64], params: Value) -> Self {
        let params = if let Value::Object(params) = params { params } else { Map::new() };
        Self { layout, dtype: dtype.to_owned(), shape: shape.to_vec(), params, parts: Vec::new() }
    }

    fn part(mut self, role: impl Into<String>, entry: &Entry) -> Self {
        self.parts.push((role.into(), entry.name.clone()));
        self
    }
}

impl<'a> File<'a> {
    /// The modules that have a tensor of this name.
    fn modules(&self, tensor: &str) -> Vec<&'a str> {
        let module = |entry: &'a Entry| entry.name.strip_suffix(tensor)?.strip_suffix('.');
        self.header.tensors.iter().filter_map(module).collect()
    }

    fn tensor(&self, name: &str) -> Option<&'a Entry> {
        self.tensors.get(name).copied()
    }

    /// A tensor of a module.
    fn of(&self, module: &str, tensor: &str) -> Option<&'a Entry> {
        self.tensor(&format!("{module}.{tensor}"))
    }

    /// The bytes of a small tensor.
    fn bytes(&self, entry: &Entry) -> Option<Vec<u8>> {
        if entry.byte_len() > MAX_DETAIL_LEN {
            return None;
        }
        let mut bytes = vec![0; entry.byte_len() as usize];
        self.data.read_at(entry.range.start, &mut bytes).ok().map(|()| bytes)
    }

    /// Notes that there is no view.
    fn unclear(&mut self, name: &str, why: impl Into<String>) {
        let (count, _) = self.unclear.entry(why.into()).or_insert_with(|| (0, name.to_owned()));
        *count += 1;
    }

    /// Takes the one candidate that the tensors' types and shapes agree with, unless their values lead nowhere.
    fn add(&mut self, name: &str, candidates: impl IntoIterator<Item = Candidate>) {
        // Where codes are stored under the weights' own name, the view gets another.
        let name = if self.tensors.contains_key(name) { format!("{name}.dequantized") } else { name.to_owned() };
        let (mut fitting, mut refused): (Vec<View>, _) = (Vec::new(), None);
        for Candidate { layout, dtype, shape, params, parts } in candidates {
            let parts = parts.into_iter().collect();
            let view = View { name: name.clone(), dtype, shape, layout: layout.to_owned(), params, parts };
            match self.spec(&view).and_then(|(layout, spec)| layout.check(&spec)) {
                Ok(()) if fitting.contains(&view) => {}
                Ok(()) => fitting.push(view),
                Err(e) => refused = Some(e),
            }
        }
        let taken = self.tensors.contains_key(name.as_str()) || self.views.iter().any(|view| view.name == name);
        let refused = if let [view] = fitting.as_slice() { self.check_places(view).err() } else { refused };
        match (fitting.len(), refused) {
            (1, None) if !taken => self.views.append(&mut fitting),
            (1, None) => self.unclear(&name, "its name is taken"),
            (0 | 1, Some(e)) => self.unclear(&name, format!("not what the configuration says: {}", e.message())),
            (0, None) => self.unclear(&name, "the configuration does not say how it is stored"),
            _ => self.unclear(&name, "types and shapes fit two ways of reading it"),
        }
    }

    fn spec<'v>(&'v self, view: &'v View) -> Result<(&'static dyn Layout, Spec<'v>)> {
        let part = |name: &str| self.tensor(name).map(|entry| PartSpec { dtype: &entry.dtype, shape: &entry.shape });
        let spec = Spec::new(view, part).ok_or_else(|| bad("a tensor is missing"))?;
        Ok((layout_by_name(&view.layout).ok_or_else(|| bad("an unknown layout"))?, spec))
    }

    fn check_places(&self, view: &View) -> Result<()> {
        let (layout, spec) = self.spec(view)?;
        layout.check_places(&spec, &|role| {
            let entry = view.parts.get(role).and_then(|name| self.tensor(name));
            entry.and_then(|entry| self.bytes(entry)).ok_or_else(|| bad(format!("its {role} cannot be looked at")))
        })
    }
}

const OTHER_FILE: &str = "tensors that belong to it are not in this file";

fn dtype(entry: &Entry) -> Option<Dtype> {
    Dtype::from_name(&entry.dtype)
}

/// Elements of a tensor.
fn count(entry: &Entry) -> u64 {
    // The header's checks have seen that the product fits.
    if entry.shape.contains(&0) { 0 } else { entry.shape.iter().product() }
}
