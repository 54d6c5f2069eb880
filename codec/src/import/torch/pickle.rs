//! Pickles, as far as state dicts of tensors need them: data is built, nothing is called.
//!
//! A name that a pickle imports is only compared with those of the functions that PyTorch puts tensors together with; what these would do is done
//! here. Any other name, and any other instruction, is refused.

use std::collections::HashMap;

use cmz_format::{Error, Result};

use super::bad;

/// Values that a pickle makes, at most.
const MAX_NODES: usize = 1 << 24;

/// Bytes of a storage's name, at most.
const MAX_KEY_LEN: usize = 256;

/// The number of a value.
pub(super) type Id = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A number with a fraction, nothing, and whatever else is of no use here.
    Other,
    Integer(i64),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// Module and name.
    Global(String),
    /// Name of its type, and of the member that holds it.
    Storage(String, String),
    Tensor(Tensor),
    /// Indices and values.
    Sparse(Id, Id),
}

/// A tensor: part of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    /// Name of the storage's type, or of the element type.
    pub(super) kind: String,
    /// Name of the member that holds the storage.
    pub(super) storage: String,
    /// First element, in elements.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) stride: Vec<u64>,
}

/// A pickle that has been read.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

/// What a function of this name does, if it is known.
fn is_known(global: &str) -> bool {
    let (module, name) = global.rsplit_once('.').unwrap_or_default();
    match module {
        "torch" => name == "Size" || super::element_type(name).is_some(),
        "torch.storage" => matches!(name, "UntypedStorage" | "_TypedStorage" | "TypedStorage"),
        "torch._utils" => matches!(
            name,
            "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_parameter" | "_rebuild_sparse_tensor"
        ),
        "torch.serialization" => name == "_get_layout",
        "collections" => name == "OrderedDict",
        _ => false,
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// Reads a pickle of protocol 2 to 5.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle> {
    let mut machine =
        Machine { rest: bytes, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    loop {
        let at = bytes.len() - machine.rest.len();
        let op = machine.byte()?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { nodes: machine.nodes, root });
        }
        machine.step(op).map_err(|e| e.at(at as u64))?;
        if machine.nodes.len() > MAX_NODES {
            return Err(Error::limit(
                "the number of values in the pickle",
                machine.nodes.len() as u64,
                MAX_NODES as u64,
            ));
        }
    }
}

impl<'a> Machine<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| bad("the pickle ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// An integer of so many bytes.
    fn number(&mut self, len: usize) -> Result<u64> {
        self.take(len).map(|bytes| bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    fn text(&mut self, len: u64) -> Result<String> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| bad("text that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn line(&mut self) -> Result<&'a str> {
        let len = self.rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| bad("the pickle ends too early"))?;
        let line = std::str::from_utf8(self.take(len + 1)?).map_err(|_| bad("text that is not UTF-8"))?;
        Ok(line.trim_end_matches('\n'))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err(bad("the pickle takes more than it has made")),
        }
    }

    /// What lies above the last mark.
    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| bad("the pickle takes more than it has made"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, len: usize) -> Result<()> {
        let mut ids = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        ids.reverse();
        self.push(Node::Tuple(ids))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| bad("the pickle takes more than it has made"))
    }

    fn memoize(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<()> {
        let found = u32::try_from(key).ok().and_then(|key| self.memo.get(&key).copied());
        self.stack.push(found.ok_or_else(|| bad("the pickle refers to what it has not made"))?);
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        let Node::List(list) = &mut self.nodes[list] else { return Err(bad("items for what is no list")) };
        list.extend(items);
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else { return Err(bad("a key without a value")) };
        let Node::Dict(dict) = &mut self.nodes[dict] else { return Err(bad("items for what is no dict")) };
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = format!("{module}.{name}");
        if name.contains('.') || !is_known(&global) {
            let what = cmz_format::Escaped(&global).to_string();
            return Err(bad(format!(
                "the pickle needs {what}, which is no part of a dict of tensors: nothing is executed"
            ))
            .with_help("save the state_dict of the model alone"));
        }
        self.push(Node::Global(global))
    }

    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            0x80 => match self.byte()? {
                2..=5 => Ok(()),
                protocol => Err(bad(format!("a pickle of protocol {protocol}"))),
            },
            0x95 => self.number(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.tuple(0),
            0x85..=0x87 => self.tuple(usize::from(op - 0x84)),
            b't' => self.above_mark().and_then(|ids| self.push(Node::Tuple(ids))),
            b'N' => self.push(Node::Other),
            b'G' => self.take(8).and_then(|_| self.push(Node::Other)),
            0x88 | 0x89 => self.push(Node::Integer(i64::from(op == 0x88))),
            b'J' => self.number(4).and_then(|n| self.push(Node::Integer(i64::from((n as u32).cast_signed())))),
            b'K' => self.number(1).and_then(|n| self.push(Node::Integer(n as i64))),
            b'M' => self.number(2).and_then(|n| self.push(Node::Integer(n as i64))),
            0x8a => self.long(),
            b'X' => self.number(4).and_then(|len| self.text(len)).and_then(|text| self.push(Node::Text(text))),
            0x8c => self.number(1).and_then(|len| self.text(len)).and_then(|text| self.push(Node::Text(text))),
            b'q' => self.number(1).and_then(|key| self.memoize(key as u32)),
            b'r' => self.number(4).and_then(|key| self.memoize(key as u32)),
            0x94 => self.memoize(self.memo.len() as u32),
            b'h' => self.number(1).and_then(|key| self.get(key)),
            b'j' => self.number(4).and_then(|key| self.get(key)),
            b'a' => self.pop().and_then(|item| self.append(vec![item])),
            b'e' => self.above_mark().and_then(|items| self.append(items)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'u' => self.above_mark().and_then(|items| self.set(&items)),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Text(module), Node::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(&module, &name)
                    }
                    _ => Err(bad("an import without a name")),
                }
            }
            b'Q' => self.storage(),
            b'R' => self.reduce(),
            b'b' => {
                // Attributes of a dict, such as _metadata.
                self.pop()?;
                let object = self.top()?;
                match self.nodes[object] {
                    Node::Dict(_) => Ok(()),
                    _ => Err(bad("attributes of what is no dict")),
                }
            }
            _ => Err(bad(format!("instruction {op:#04x}, which no dict of tensors needs"))),
        }
    }

    fn long(&mut self) -> Result<()> {
        let len = usize::from(self.byte()?);
        let bytes = self.take(len)?;
        let sign = if bytes.last().is_some_and(|byte| byte >> 7 == 1) { 0xff } else { 0 };
        let value: [u8; 8] = std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(sign));
        self.push(if len <= 8 { Node::Integer(i64::from_le_bytes(value)) } else { Node::Other })
    }

    /// `('storage', type, key, location, number of elements)`.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let wrong = || bad("a reference to something else than a storage");
        let Node::Tuple(parts) = &self.nodes[id] else { return Err(wrong()) };
        let parts: Vec<&Node> = parts.iter().map(|&id| &self.nodes[id]).collect();
        let (kind, key) = match parts.as_slice() {
            [Node::Text(what), Node::Global(kind), Node::Text(key), Node::Text(_), Node::Integer(_)]
                if what == "storage" && key.len() <= MAX_KEY_LEN =>
            {
                (kind.clone(), key.clone())
            }
            _ => return Err(wrong()),
        };
        self.push(Node::Storage(kind, key))
    }

    fn reduce(&mut self) -> Result<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Node::Global(function), Node::Tuple(arguments)) = (&self.nodes[function], &self.nodes[arguments]) else {
            return Err(bad("a call of what is no function"));
        };
        let wrong = || bad(format!("{function} with other arguments than PyTorch writes"));
        let name = function.rsplit('.').next().unwrap_or_default();
        let node = match (name, arguments.as_slice()) {
            ("OrderedDict", []) => Node::Dict(Vec::new()),
            ("_get_layout", [_]) => Node::Other,
            // What they make is what they were given: nothing is copied that could be large.
            ("Size", &[id]) if matches!(self.nodes[id], Node::Tuple(_)) => {
                self.stack.push(id);
                return Ok(());
            }
            ("_rebuild_parameter", &[id, ..]) if matches!(self.nodes[id], Node::Tensor(_)) => {
                self.stack.push(id);
                return Ok(());
            }
            ("_rebuild_tensor_v2" | "_rebuild_tensor_v3", arguments) => {
                self.tensor(name, arguments).ok_or_else(wrong)?
            }
            ("_rebuild_sparse_tensor", &[_, parts]) => match &self.nodes[parts] {
                Node::Tuple(parts) if parts.len() >= 3 => Node::Sparse(parts[0], parts[1]),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        self.push(node)
    }

    fn tensor(&self, function: &str, arguments: &[Id]) -> Option<Node> {
        let (&[storage, offset, shape, stride, ..], dtype) = (arguments, arguments.get(6)) else { return None };
        let Node::Storage(kind, key) = &self.nodes[storage] else { return None };
        let kind = match (function, dtype.map(|&id| &self.nodes[id])) {
            ("_rebuild_tensor_v3", Some(Node::Global(dtype))) => dtype,
            ("_rebuild_tensor_v3", _) => return None,
            _ => kind,
        };
        let size = |id: Id| match self.nodes[id] {
            Node::Integer(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let sizes = |id: Id| match &self.nodes[id] {
            Node::Tuple(ids) if ids.len() <= super::MAX_RANK => {
                ids.iter().map(|&id| size(id)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        let (offset, shape, stride) = (size(offset)?, sizes(shape)?, sizes(stride)?);
        Some(Node::Tensor(Tensor { kind: kind.clone(), storage: key.clone(), offset, shape, stride }))
    }
}
