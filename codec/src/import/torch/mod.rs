//! Files that `torch.save` writes: zip archives with a pickle that names tensors, and a member for each storage.
//!
//! Pickles can call any function of any program that loads them. Here none is called: the pickle is read by a machine that knows
//! the few instructions and names that dicts of tensors need, and refuses every other (`pickle.rs`). Of tensors that are the very same
//! bytes the first is taken, in the order of the pickle; those that overlap otherwise, or are not contiguous, are refused.
//!
//! The names of tensors are the keys that lead to them, joined by dots; places in lists count from 0. The bytes around the tensors
//! are literal, so that the file comes back byte for byte.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use cmz_format::{Code, Dtype, Error, Result};
use serde_json::{Map, Value};

use self::pickle::{Id, Node, Pickle, Tensor};
use crate::io::ReadAt;
use crate::safetensors::{Entry, Header};

mod pickle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod zip;

use zip::Members;

/// Bytes of a pickle, at most.
const MAX_PICKLE_LEN: u64 = 32 << 20;
/// Dicts, lists and tuples inside each other, at most.
const MAX_DEPTH: usize = 32;
/// Values that are looked at to find the tensors, at most: one may be reached on several ways.
const MAX_VISITS: usize = 1 << 22;
/// Bytes of all names of tensors together, at most.
const MAX_NAMES_LEN: usize = 64 << 20;
/// Dimensions of a tensor, at most.
const MAX_RANK: usize = 64;

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BadSource, why)
}

/// The element type by the name that PyTorch gives it, or a storage of it.
fn element_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "bool" | "BoolStorage" => Dtype::BOOL,
        "uint8" | "ByteStorage" => Dtype::U8,
        "int8" | "CharStorage" => Dtype::I8,
        "int16" | "ShortStorage" => Dtype::I16,
        "uint16" => Dtype::U16,
        "int32" | "IntStorage" => Dtype::I32,
        "uint32" => Dtype::U32,
        "int64" | "LongStorage" => Dtype::I64,
        "uint64" => Dtype::U64,
        "float16" | "HalfStorage" => Dtype::F16,
        "bfloat16" | "BFloat16Storage" => Dtype::BF16,
        "float32" | "FloatStorage" => Dtype::F32,
        "float64" | "DoubleStorage" => Dtype::F64,
        "complex64" | "ComplexFloatStorage" => Dtype::C64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8_e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "float8_e8m0fnu" => Dtype::F8_E8M0,
        _ => return None,
    })
}

/// What a file of `torch.save` holds.
#[derive(Debug)]
pub struct Contents {
    /// Its tensors, and where they lie in it.
    pub header: Header,
    /// The texts, integers and tuples of integers that lie beside the tensors in the outermost dict.
    pub attributes: Map<String, Value>,
}

/// Reads what a file of `torch.save` holds.
///
/// # Errors
/// [`Code::BadSource`] for anything but a dict of tensors, [`Code::Truncated`], [`Code::Limit`].
pub fn read(file: &dyn ReadAt) -> Result<Contents> {
    let members = zip::members(file)?;
    let pickle = members.keys().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(name) = pickle else {
        return Err(bad("this is no file of torch.save: there is no data.pkl in the archive"));
    };
    let folder = name.strip_suffix("data.pkl").unwrap_or_default();
    check_byte_order(file, &members, folder)?;
    let pickle = pickle::read(&contents(file, &members[name], "the pickle")?)?;
    let mut found = Found { pickle: &pickle, tensors: Vec::new(), visits: 0, names_len: 0 };
    found.visit(pickle.root, String::new(), 0)?;
    let header = header(found.tensors, &members, folder)?;
    Ok(Contents { header, attributes: attributes(&pickle) })
}

fn attributes(pickle: &Pickle) -> Map<String, Value> {
    let Node::Dict(items) = &pickle.nodes[pickle.root] else { return Map::new() };
    let text = |key: Id| if let Node::Text(key) = &pickle.nodes[key] { Some(key.clone()) } else { None };
    let integer = |id: &Id| if let Node::Integer(n) = pickle.nodes[*id] { Some(Value::from(n)) } else { None };
    let value = |id: Id| match &pickle.nodes[id] {
        Node::Text(text) => Some(Value::from(text.as_str())),
        Node::Tuple(items) if items.len() <= MAX_RANK => items.iter().map(integer).collect(),
        _ => integer(&id),
    };
    items.iter().filter_map(|&(key, of)| Some((text(key)?, value(of)?))).collect()
}

fn contents(file: &dyn ReadAt, range: &Range<u64>, what: &str) -> Result<Vec<u8>> {
    let len = range.end - range.start;
    if len > MAX_PICKLE_LEN {
        return Err(Error::limit(&format!("the length of {what}"), len, MAX_PICKLE_LEN));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(range.start, &mut bytes)?;
    Ok(bytes)
}

fn check_byte_order(file: &dyn ReadAt, members: &Members, folder: &str) -> Result<()> {
    let Some(range) = members.get(&format!("{folder}byteorder")) else { return Ok(()) };
    match contents(file, range, "byteorder")?.as_slice() {
        b"little" => Ok(()),
        _ => Err(bad("the tensors are not little-endian")),
    }
}

/// Tensors with their names, in the order of the pickle.
struct Found<'a> {
    pickle: &'a Pickle,
    tensors: Vec<(String, &'a Tensor)>,
    visits: usize,
    names_len: usize,
}

impl Found<'_> {
    fn visit(&mut self, id: Id, name: String, depth: usize) -> Result<()> {
        self.visits += 1;
        if depth > MAX_DEPTH {
            let why = format!("values lie more than {MAX_DEPTH} levels deep in one another");
            return Err(Error::new(Code::Limit, why).with_help("save a dictionary of tensors"));
        }
        if self.visits > MAX_VISITS {
            return Err(Error::limit("the number of values in the pickle", self.visits as u64, MAX_VISITS as u64));
        }
        let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        let nodes = &self.pickle.nodes;
        match &nodes[id] {
            Node::Tensor(tensor) => {
                self.names_len += name.len();
                if self.names_len > MAX_NAMES_LEN {
                    let (found, most) = (self.names_len as u64, MAX_NAMES_LEN as u64);
                    return Err(Error::limit("the length of all names", found, most));
                }
                self.tensors.push((if name.is_empty() { "tensor".to_owned() } else { name }, tensor));
                Ok(())
            }
            Node::Sparse(indices, values) => {
                self.visit(*indices, join("indices"), depth + 1)?;
                self.visit(*values, join("values"), depth + 1)
            }
            Node::List(items) | Node::Tuple(items) => {
                items.iter().enumerate().try_for_each(|(i, &item)| self.visit(item, join(&i.to_string()), depth + 1))
            }
            Node::Dict(items) => items.iter().try_for_each(|&(key, value)| match &nodes[key] {
                Node::Text(key) => self.visit(value, join(key), depth + 1),
                Node::Integer(key) => self.visit(value, join(&key.to_string()), depth + 1),
                _ => Err(bad("a dict whose keys are neither text nor integers")),
            }),
            Node::Other | Node::Integer(_) | Node::Text(_) | Node::Global(_) | Node::Storage(..) => Ok(()),
        }
    }
}

fn header(tensors: Vec<(String, &Tensor)>, members: &Members, folder: &str) -> Result<Header> {
    let (mut names, mut places) = (HashSet::new(), HashMap::new());
    let mut entries: Vec<Entry> = Vec::new();
    for (name, tensor) in tensors {
        let entry = place(name, tensor, members, folder)?;
        if !names.insert(entry.name.clone()) {
            return Err(bad("two tensors have the same name").in_tensor(&entry.name));
        }
        // Tied weights are stored once.
        if entry.range.is_empty() || places.insert(entry.range.clone(), ()).is_none() {
            entries.push(entry);
        }
    }
    entries.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
    for pair in entries.windows(2) {
        if pair[0].range.end > pair[1].range.start {
            return Err(bad(format!("it shares bytes with tensor {:?}", pair[0].name)).in_tensor(&pair[1].name));
        }
    }
    Ok(Header { len: 0, metadata: BTreeMap::new(), tensors: entries })
}

/// Where a tensor lies in the file.
fn place(name: String, tensor: &Tensor, members: &Members, folder: &str) -> Result<Entry> {
    let refuse = |why: &str| bad(why).in_tensor(&name);
    let kind = tensor.kind.rsplit('.').next().unwrap_or_default();
    let dtype =
        element_type(kind).ok_or_else(|| refuse(&format!("elements of type {:?} are not known", tensor.kind)))?;
    let member = members.get(&format!("{folder}data/{}", tensor.storage));
    let member = member.ok_or_else(|| refuse("its storage is not in the file"))?;
    if tensor.shape.len() > MAX_RANK || tensor.shape.len() != tensor.stride.len() {
        return Err(refuse("its shape and its strides do not agree"));
    }
    let mut elements = 1u64;
    let mut contiguous = true;
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.stride).rev() {
        contiguous &= size <= 1 || stride == elements;
        elements = elements.checked_mul(size).ok_or_else(|| refuse("its shape is too large"))?;
    }
    if !contiguous && elements > 0 {
        return Err(refuse("it is not contiguous").with_help("save it by .contiguous()"));
    }
    let bytes = |elements: u64| dtype.byte_len(elements);
    let range = bytes(tensor.offset).zip(bytes(elements)).and_then(|(offset, len)| {
        let start = member.start.checked_add(offset)?;
        Some(start..start.checked_add(len)?).filter(|range| range.end <= member.end)
    });
    let range = range.ok_or_else(|| refuse("it reaches behind its storage"))?;
    Ok(Entry { name, dtype: dtype.name().to_owned(), shape: tensor.shape.clone(), range })
}
