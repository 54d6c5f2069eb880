//! A writer of DFloat11 checkpoints for tests, after `dfloat11_utils.py` of the `dfloat11`
//! package 0.5.0 and the Huffman codes of `dahuffman` 0.4.2. It knows nothing of the reader.
#![allow(dead_code, reason = "each test program uses a part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::{Map, Value, json};

/// The symbol for the end of the stream.
const EOF: i32 = -1;

/// A tensor of a safetensors file.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// A safetensors file.
pub(crate) fn safetensors(metadata: Option<Value>, tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    if let Some(metadata) = metadata {
        header.insert("__metadata__".to_owned(), metadata);
    }
    for Stored { name, dtype, shape, bytes } in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let json = Value::Object(header).to_string();
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &data].concat()
}

/// The contents of a `config.json`.
pub(crate) fn config(patterns: Value) -> String {
    json!({
        "architectures": ["Model"],
        "dfloat11_config": {
            "version": "0.5.0", "threads_per_block": [512], "bytes_per_thread": 8, "pattern_dict": patterns,
        },
    })
    .to_string()
}

fn exponent(element: u16) -> u8 {
    (element >> 7) as u8
}

/// The tensors of a group of these matrices.
pub(crate) fn group(module: &str, matrices: &[&[u16]]) -> Vec<Stored> {
    let exponents: Vec<u8> = matrices.concat().into_iter().map(exponent).collect();
    group_with(&code_of(&exponents), module, matrices)
}

/// The tensors of a group of these matrices with another code than theirs.
pub(crate) fn group_with(code: &Code, module: &str, matrices: &[&[u16]]) -> Vec<Stored> {
    let elements: Vec<u16> = matrices.concat();
    let exponents: Vec<u8> = elements.iter().copied().map(exponent).collect();
    let others = elements.iter().map(|element| (element >> 8) as u8 & 0x80 | (element & 0x7f) as u8).collect();
    let luts = luts(code);
    let Encoded { stream, gaps, positions } = encode(&exponents, code);
    let mut end = 0;
    let ends = matrices.iter().map(|matrix| {
        end += matrix.len() as u64;
        end
    });
    let splits: Vec<u64> = ends.take(matrices.len() - 1).collect();
    let stored = |name: &str, dtype, shape: Vec<u64>, bytes| {
        let name = if module.is_empty() { name.to_owned() } else { format!("{module}.{name}") };
        Stored { name, dtype, shape, bytes }
    };
    let bytes = |name: &str, bytes: Vec<u8>| stored(name, "U8", vec![bytes.len() as u64], bytes);
    vec![
        bytes("encoded_exponent", stream),
        bytes("gaps", gaps),
        stored("luts", "U8", vec![luts.len() as u64 / 256, 256], luts),
        bytes("output_positions", positions.iter().flat_map(|position| position.to_le_bytes()).collect()),
        bytes("sign_mantissa", others),
        stored(
            "split_positions",
            "I64",
            vec![splits.len() as u64],
            splits.iter().flat_map(|split| split.to_le_bytes()).collect(),
        ),
    ]
}

/// The tensors of a checkpoint: those of a group for each of these modules with the names of
/// its matrices, and all others as they are.
pub(crate) fn compressed(tensors: &[Stored], groups: &[(&str, &[&str])]) -> Vec<Stored> {
    let mut rest = tensors.to_vec();
    let mut made = Vec::new();
    for (module, paths) in groups {
        let names = match paths {
            [] => vec![format!("{module}.weight")],
            paths => paths.iter().map(|path| format!("{module}.{path}.weight")).collect(),
        };
        let matrices: Vec<Vec<u16>> = names
            .iter()
            .map(|name| {
                let number = rest.iter().position(|tensor| tensor.name == *name).expect("the matrix");
                elements(&rest.remove(number).bytes)
            })
            .collect();
        made.extend(group(module, &matrices.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    }
    made.extend(rest);
    made
}

/// BF16 elements of these bytes.
pub(crate) fn elements(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
}

/// The tensors of a safetensors file.
pub(crate) fn tensors_of(file: &[u8]) -> Vec<Stored> {
    let len = u64::from_le_bytes(file[..8].try_into().expect("a length")) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + len]).expect("a header");
    let number = |value: &Value| value.as_u64().expect("a number");
    let mut tensors: Vec<(u64, Stored)> = header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, info)| {
            let (start, end) = (number(&info["data_offsets"][0]), number(&info["data_offsets"][1]));
            let dtype = if info["dtype"] == "BF16" { "BF16" } else { "F32" };
            let shape = info["shape"].as_array().expect("a shape").iter().map(number).collect();
            let bytes = file[8 + len..][start as usize..end as usize].to_vec();
            (start, Stored { name: name.clone(), dtype, shape, bytes })
        })
        .collect();
    tensors.sort_by_key(|(start, _)| *start);
    tensors.into_iter().map(|(_, tensor)| tensor).collect()
}

/// Length in bits and value of each symbol's code.
pub(crate) type Code = BTreeMap<i32, (u32, u64)>;

/// `get_32bit_codec`: the codes of these symbols, none longer than 32 bits.
pub(crate) fn code_of(symbols: &[u8]) -> Code {
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    symbols.iter().for_each(|&symbol| *counts.entry(symbol.into()).or_default() += 1);
    limited(&counts)
}

pub(crate) fn limited(counts: &BTreeMap<i32, u64>) -> Code {
    let longest = |code: &Code| code.values().map(|&(bits, _)| bits).max().unwrap_or(0);
    let mut code = huffman(counts);
    let mut by_count: Vec<(u64, i32)> = counts.iter().map(|(&symbol, &count)| (count, symbol)).collect();
    by_count.sort_unstable();
    let mut rare = 2;
    while longest(&code) > 32 {
        let mut counts = counts.clone();
        counts.extend(by_count[..rare].iter().map(|&(_, symbol)| (symbol, 1)));
        code = huffman(&counts);
        rare += 1;
    }
    code
}

/// The symbols below a node, with length in bits and value of what their codes are so far.
type Codes = Vec<(i32, (u32, u64))>;

/// `HuffmanCodec.from_frequencies`: the two rarest nodes are joined, the first gets the bit 0.
fn huffman(counts: &BTreeMap<i32, u64>) -> Code {
    let leaf = |(&symbol, &count): (&i32, &u64)| Reverse((count, vec![(symbol, (0, 0))]));
    let mut heap: BinaryHeap<Reverse<(u64, Codes)>> = counts.iter().map(leaf).collect();
    heap.push(Reverse((1, vec![(EOF, (0, 0))])));
    while heap.len() > 1 {
        let (Some(Reverse((a, zero))), Some(Reverse((b, one)))) = (heap.pop(), heap.pop()) else { break };
        let zero = zero.into_iter().map(|(symbol, (bits, value))| (symbol, (bits + 1, value)));
        let one = one.into_iter().map(|(symbol, (bits, value))| (symbol, (bits + 1, (1 << bits) + value)));
        heap.push(Reverse((a + b, zero.chain(one).collect())));
    }
    heap.pop().map(|Reverse((_, codes))| codes.into_iter().collect()).unwrap_or_default()
}

/// `get_luts`: a table for each prefix of whole bytes, and the lengths.
pub(crate) fn luts(code: &Code) -> Vec<u8> {
    let text = |&(bits, value): &(u32, u64)| format!("{value:0bits$b}", bits = bits as usize);
    let symbols: Vec<(u8, String)> =
        code.iter().filter(|(symbol, _)| **symbol != EOF).map(|(&symbol, code)| (symbol as u8, text(code))).collect();
    let mut prefixes = vec![String::new()];
    for (_, bits) in &symbols {
        let prefix = bits[..(bits.len() - 1) / 8 * 8].to_owned();
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    prefixes.sort_by_key(String::len);
    let mut luts = Vec::new();
    let mut current = 0;
    for prefix in &prefixes {
        let mut entries = BTreeMap::new();
        let from = prefix.len();
        for (symbol, bits) in symbols.iter().filter(|(_, bits)| bits.starts_with(prefix.as_str())) {
            let (key, value) = if (bits.len() - 1) / 8 == from / 8 {
                (format!("{:0<8}", &bits[from..]), *symbol)
            } else {
                let number = prefixes.iter().position(|p| *p == bits[..from + 8]).expect("a prefix");
                (bits[from..from + 8].to_owned(), (256 - number) as u8)
            };
            entries.insert(u8::from_str_radix(&key, 2).expect("eight bits"), value);
        }
        for entry in 0..=255 {
            current = entries.get(&entry).copied().unwrap_or(current);
            luts.push(current);
        }
    }
    let mut lens = [0; 256];
    symbols.iter().for_each(|(symbol, bits)| lens[usize::from(*symbol)] = bits.len() as u8);
    luts.extend(lens);
    luts
}

pub(crate) struct Encoded {
    pub(crate) stream: Vec<u8>,
    pub(crate) gaps: Vec<u8>,
    pub(crate) positions: Vec<u32>,
}

/// `encode`: the stream, and where its codes begin.
pub(crate) fn encode(symbols: &[u8], code: &Code) -> Encoded {
    let (mut bits, mut gaps, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = |bit: usize, element: usize| {
        if bit / 64 + 1 > gaps.len() {
            gaps.push(bit % 64);
        }
        if bit / (64 * 512) + 1 > positions.len() {
            positions.push(element as u32);
        }
    };
    let put = |bits: &mut Vec<bool>, symbol: i32| {
        let (len, value) = code[&symbol];
        bits.extend((0..len).rev().map(|i| value >> i & 1 == 1));
    };
    for (element, &symbol) in symbols.iter().enumerate() {
        start(bits.len(), element);
        put(&mut bits, symbol.into());
    }
    let end = bits.len();
    if !end.is_multiple_of(8) {
        start(end, symbols.len());
        put(&mut bits, EOF);
    }
    // Of the end's code, only what fills the last byte is written.
    bits.resize(end.next_multiple_of(8), false);
    positions.push(symbols.len() as u32);
    let blocks = bits.len().div_ceil(8 * 4096);
    gaps.resize(512 * blocks, 0);
    let gap_bits: Vec<bool> = gaps.iter().flat_map(|gap| (0..5).rev().map(move |i| gap >> i & 1 == 1)).collect();
    Encoded { stream: pack(&bits), gaps: pack(&gap_bits), positions }
}

fn pack(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |b, (i, &bit)| b | u8::from(bit) << (7 - i))).collect()
}
