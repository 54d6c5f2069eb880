//! Files to test with: plans, and a driver that writes them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::io::Write;

use cmz_format::{
    BlockHeader, Code, Component, Dtype, EncodedBlock, Encoding, Error, Header, Index, Item, Limits, Next, Parser,
    Plan, PlannedSegment, Result, Source, Step, StreamEntry, StreamList, Tensor, Trailer, Writer, crc32,
};
use proptest::prelude::*;

pub const HEADER: Header = Header { optional_features: 0, fingerprint: *b"0123456789abcdef" };

/// A tensor whose encoding has one component stream for each list of codecs.
pub fn tensor(name: &str, dtype: &str, shape: &[u64], block_elements: u64, components: &[&[&str]]) -> Tensor {
    let plain = components.len() == 1;
    let components = components.iter().enumerate().map(|(i, codecs)| {
        let name = if plain { "data".to_owned() } else { format!("part_{i}") };
        (name, Component::Stream(codecs.iter().map(|&c| c.to_owned()).collect()))
    });
    Tensor {
        name: name.to_owned(),
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        block_elements,
        encoding: Encoding {
            name: if plain { "plain" } else { "parts" }.to_owned(),
            params: serde_json::Map::new(),
            components: components.collect::<BTreeMap<_, _>>(),
        },
    }
}

/// A planned tensor of a known element type.
pub fn planned(tensor: Tensor, shared: bool) -> PlannedSegment {
    let byte_len = tensor.byte_len().expect("a sound shape").expect("a known type");
    PlannedSegment::Tensor { tensor, byte_len, shared }
}

/// A few kilobytes with one of everything.
pub fn small_plan() -> Plan {
    vec![
        PlannedSegment::Literal(100),
        planned(tensor("weight", "BF16", &[3, 40], 48, &[&["raw", "tiered"], &["raw"]]), false),
        planned(tensor("scalar", "F32", &[], 1, &[&["raw"]]), false),
        PlannedSegment::Literal(5),
        planned(tensor("empty", "I64", &[0, 7], 8, &[&["raw"]]), false),
        planned(tensor("run", "U8", &[7, 50], 100, &[&["raw"]]), false),
        planned(tensor("shared", "I8", &[33], 33, &[&["raw"], &["zstd"], &["raw"]]), true),
        PlannedSegment::Literal(0),
        planned(tensor("shared run", "F16", &[5], 2, &[&["raw"]]), true),
        PlannedSegment::Literal(3),
    ]
}

/// Literal bytes and tensor bytes that need no store: functions of their place.
pub fn literal(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

pub fn tensor_bytes(tensor: &Tensor, range: std::ops::Range<u64>) -> Vec<u8> {
    let seed = u64::from(tensor.owner());
    range.map(|i| (i.wrapping_mul(seed | 1) >> 5) as u8).collect()
}

/// Cuts `data` into as many raw streams as the encoding has components.
pub fn encode(tensor: &Tensor, data: &[u8]) -> EncodedBlock {
    let parts = tensor.encoding.components.len();
    let mut block = EncodedBlock { decoded_len: data.len() as u32, crc_decoded: crc32(data), ..Default::default() };
    for i in 0..parts {
        let part = &data[data.len() * i / parts..data.len() * (i + 1) / parts];
        block.payload.resize(block.payload.len().next_multiple_of(16), 0);
        block.payload.extend_from_slice(part);
        block.streams.push(StreamEntry { codec: 0, len: part.len() as u32 });
    }
    block.crc_stored = crc32(&block.payload);
    block
}

/// Checksums of the blocks of a contiguous tensor.
pub fn checksums(tensor: &Tensor, byte_len: u64) -> Vec<u32> {
    (0..tensor.block_count(byte_len)).map(|i| crc32(&block_bytes(tensor, byte_len, i))).collect()
}

pub fn block_bytes(tensor: &Tensor, byte_len: u64, ordinal: u64) -> Vec<u8> {
    let start = ordinal * tensor.block_len();
    tensor_bytes(tensor, start..byte_len.min(start + tensor.block_len()))
}

/// Gives the writer everything that it asks for.
pub fn drive<W: Write>(writer: &mut Writer<W>, plan: &Plan) -> Result<()> {
    let tensors: Vec<(Tensor, u64)> = plan
        .iter()
        .filter_map(|segment| match segment {
            PlannedSegment::Tensor { tensor, byte_len, .. } => Some((tensor.clone(), *byte_len)),
            PlannedSegment::Literal(_) => None,
        })
        .collect();
    let find = |owner: u32| tensors.iter().find(|(t, _)| t.owner() == owner).expect("a planned tensor");
    loop {
        match writer.next() {
            Next::Literal(len) => writer.literal(&literal(len))?,
            Next::Descriptor(_) => writer.descriptor()?,
            Next::Shared(tensor) => {
                let shared = tensor.name.as_bytes().to_vec();
                let block = EncodedBlock {
                    streams: StreamList::one(0, shared.len() as u32),
                    decoded_len: shared.len() as u32,
                    crc_stored: crc32(&shared),
                    crc_decoded: crc32(&shared),
                    payload: shared,
                };
                writer.shared(&block)?;
            }
            Next::Data { tensor, ordinal, .. } => {
                let (tensor, byte_len) = find(tensor.owner());
                if tensor.is_contiguous() {
                    writer.contiguous(&checksums(tensor, *byte_len))?;
                } else {
                    writer.data(&encode(tensor, &block_bytes(tensor, *byte_len, ordinal.into())))?;
                }
            }
            Next::Payload(header) => {
                let (tensor, byte_len) = find(header.owner);
                let bytes = block_bytes(tensor, *byte_len, header.ordinal.into());
                writer.payload(&bytes)?;
            }
            Next::Nothing => return Ok(()),
        }
    }
}

/// The source that a plan implies.
pub fn source(plan: &Plan) -> Source {
    let len = plan
        .iter()
        .map(|segment| match segment {
            PlannedSegment::Literal(len) => *len,
            PlannedSegment::Tensor { byte_len, .. } => *byte_len,
        })
        .sum();
    Source { kind: "test".to_owned(), len, sha256: "0".repeat(64) }
}

pub fn finish<W: Write>(writer: Writer<W>, plan: &Plan) -> Result<W> {
    let metadata = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
    writer.finish("test", Some(source(plan)), metadata)
}

/// The file that a plan gives.
pub fn write_file(plan: &Plan) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone()).expect("a sound plan");
    drive(&mut writer, plan).expect("a planned block");
    finish(writer, plan).expect("a whole file")
}

/// Opens a file in memory from its end.
pub fn open(file: &[u8]) -> Result<Index> {
    open_with(file, &Limits::default())
}

pub fn open_with(file: &[u8], limits: &Limits) -> Result<Index> {
    Index::read(file.len() as u64, limits, |offset, buffer| {
        let start = usize::try_from(offset).expect("an offset in memory");
        buffer.copy_from_slice(&file[start..start + buffer.len()]);
        Ok(())
    })
}

/// Parses a whole file front to back and hands each item to `see`.
pub fn parse_all(file: &[u8], mut see: impl FnMut(Item<'_>) -> Result<()>) -> Result<()> {
    let mut parser = Parser::new(Limits::default());
    let mut at = 0;
    loop {
        match parser.parse(&file[at..], true)? {
            Step::Parsed { item: Item::End, .. } => return Ok(()),
            Step::Parsed { consumed, item } => {
                at += consumed;
                see(item)?;
            }
            Step::NeedMore(_) => return Err(Error::new(Code::Io, "the parser wants more than there is")),
        }
    }
}

/// Everything a careful reader does short of decoding streams: both ways through the
/// file, each block header against the index, each descriptor against the manifest.
pub fn verify(file: &[u8]) -> Result<Index> {
    let index = open(file)?;
    let mut block = 0;
    parse_all(file, |item| {
        let (Item::Block { header, .. } | Item::Payload { header, .. }) = &item else { return Ok(()) };
        if matches!(header.kind, cmz_format::BlockKind::Manifest | cmz_format::BlockKind::Table) {
            return Ok(());
        }
        match &item {
            Item::Block { .. } => {
                index.check_header(block, header)?;
                block += 1;
            }
            Item::Payload { block_offset, bytes, .. } => {
                header.split(bytes)?;
                let tensor = index.table().iter().position(|r| r.offset == *block_offset).expect("a listed block");
                if header.kind == cmz_format::BlockKind::Descriptor {
                    let json = cmz_format::unpack_section(header.streams[0].codec, bytes, header.decoded_len)?;
                    header.check_decoded(&json)?;
                    let number = (0..index.tensors().len()).find(|&t| index.tensor_blocks(t).descriptor == tensor);
                    index.check_descriptor(number.expect("a tensor"), &json, &Limits::default())?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    assert_eq!(block, index.table().len());
    Ok(index)
}

/// A file taken apart, to be put together again with sound checksums after a change.
#[derive(Clone)]
pub struct Parts {
    pub header: Vec<u8>,
    /// The blocks between header and manifest, with their padding.
    pub body: Vec<u8>,
    pub json: Vec<u8>,
    pub records: Vec<[u8; 32]>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let index = open(file).expect("a sound file");
        let (mut manifest, mut table) = (Vec::new(), Vec::new());
        let mut body_end = 0;
        parse_all(file, |item| {
            if let Item::Payload { header, bytes, block_offset } = item {
                match header.kind {
                    cmz_format::BlockKind::Manifest => {
                        body_end = block_offset as usize;
                        manifest = cmz_format::unpack_section(header.streams[0].codec, bytes, header.decoded_len)?;
                    }
                    cmz_format::BlockKind::Table => table = bytes.to_vec(),
                    _ => {}
                }
            }
            Ok(())
        })
        .expect("a sound file");
        assert_eq!(table.len(), 32 * index.table().len());
        Self {
            header: file[..64].to_vec(),
            body: file[64..body_end].to_vec(),
            json: manifest,
            records: table.as_chunks::<32>().0.to_vec(),
        }
    }

    /// The manifest's text with the first occurrence of `from` replaced.
    pub fn with_json(mut self, from: &str, to: &str) -> Self {
        let json = String::from_utf8(self.json).expect("JSON is UTF-8");
        assert!(json.contains(from), "{from} in {json}");
        self.json = json.replacen(from, to, 1).into_bytes();
        self
    }

    /// Changes bytes of a block header at an offset of the file and mends its checksum.
    pub fn with_block(mut self, offset: u64, change: impl FnOnce(&mut [u8])) -> Self {
        let at = offset as usize - 64;
        let len = cmz_format::block_header_len(usize::from(self.body[at + 5]));
        let block = &mut self.body[at..at + len];
        change(block);
        mend(block, 44);
        self
    }

    pub fn file(&self) -> Vec<u8> {
        self.file_with(|json| EncodedBlock::single(0, json.to_vec(), json))
    }

    /// The file, whose manifest is packed by `pack`.
    pub fn file_with(&self, pack: impl FnOnce(&[u8]) -> EncodedBlock) -> Vec<u8> {
        let mut header = self.header.clone();
        mend(&mut header, 60);
        let mut file = [header.as_slice(), &self.body].concat();
        let manifest_offset = file.len();
        push_section(&mut file, cmz_format::BlockKind::Manifest, &pack(&self.json));
        let table_offset = file.len();
        let records = self.records.concat();
        push_section(&mut file, cmz_format::BlockKind::Table, &EncodedBlock::single(0, records.clone(), &records));
        let trailer = Trailer::new(manifest_offset as u64, table_offset as u64, &file[..64], &file[manifest_offset..]);
        file.extend_from_slice(&trailer.to_bytes());
        file
    }
}

fn push_section(file: &mut Vec<u8>, kind: cmz_format::BlockKind, block: &EncodedBlock) {
    let header = BlockHeader {
        kind,
        ordinal: 0,
        owner: 0,
        payload_distance: 64,
        stored_len: block.payload.len() as u32,
        decoded_len: block.decoded_len,
        crc_stored: crc32(&block.payload),
        crc_decoded: block.crc_decoded,
        streams: block.streams,
    };
    header.write(file);
    file.extend_from_slice(&block.payload);
    file.resize(file.len().next_multiple_of(64), 0);
}

/// Puts the checksum of `bytes` at `at`, where zeros count for it.
pub fn mend(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let crc = crc32(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The code of the error from the end of the file, and of the one from its front.
pub fn codes(file: &[u8]) -> (Option<Code>, Option<Code>) {
    (open(file).err().map(|e| e.code()), parse_all(file, |_| Ok(())).err().map(|e| e.code()))
}

const CODECS: [&[&str]; 3] = [&["raw"], &["tiered", "raw"], &["zstd"]];

/// A tensor of any shape, element type and block length, stored in any of the ways
/// that a block can lie.
fn any_tensor() -> impl Strategy<Value = PlannedSegment> {
    let dtype = prop::sample::select(Dtype::ALL);
    let shape = prop::collection::vec(0u64..12, 0..4);
    let components = prop::collection::vec(prop::sample::select(CODECS.as_slice()), 1..4);
    (dtype, shape, 1u64..50, components, any::<bool>()).prop_map(|(dtype, mut shape, block, components, shared)| {
        // Sub-byte elements come in eights, so that they end on bytes.
        let unit = if dtype.bits() < 8 { 8 } else { 1 };
        shape.push(unit);
        planned(tensor("", dtype.name(), &shape, block * unit, &components), shared)
    })
}

/// Any few of them, with literals between.
pub fn any_plan() -> impl Strategy<Value = Vec<PlannedSegment>> {
    let segment = prop_oneof![1 => (0u64..3000).prop_map(PlannedSegment::Literal), 3 => any_tensor()];
    prop::collection::vec(segment, 0..8).prop_map(|mut plan| {
        for (i, segment) in plan.iter_mut().enumerate() {
            if let PlannedSegment::Tensor { tensor, .. } = segment {
                tensor.name = format!("tensor {i} ü");
            }
        }
        plan
    })
}
