//! Finds blocks in a file whose index may be lost.

use cmz_format::limits::{MAX_BLOCK_LEN, MAX_RUN, MAX_STREAMS};
use cmz_format::{ALIGNMENT, BlockHeader, BlockKind, Code, HEADER_LEN, Index, Limits, Result, block_header_len};

use super::CHUNK;
use crate::io::ReadAt;

/// A block whose header is sound.
#[derive(Clone, Debug)]
pub(super) struct FoundBlock {
    /// Offset of the header, in bytes.
    pub(super) offset: u64,
    pub(super) header: BlockHeader,
    /// What is wrong with the payload, if anything.
    pub(super) damage: Option<(Code, String)>,
}

/// The payload of a block.
pub(super) fn read_payload(file: &dyn ReadAt, block: &FoundBlock) -> Result<Vec<u8>> {
    let mut payload = vec![0; block.header.stored_len as usize];
    file.read_at(block.offset + u64::from(block.header.payload_distance), &mut payload)?;
    block.header.check_stored(&payload)?;
    Ok(payload)
}

/// A block with its payload checked.
fn check(file: &dyn ReadAt, offset: u64, header: BlockHeader) -> FoundBlock {
    let mut block = FoundBlock { offset, header, damage: None };
    let end = offset + u64::from(header.payload_distance) + u64::from(header.stored_len);
    block.damage = if end > file.byte_len() {
        Some((Code::Truncated, "the file ends inside the block".to_owned()))
    } else {
        read_payload(file, &block).err().map(|e| (e.code(), e.message().to_owned()))
    };
    block
}

/// The blocks that a sound index names, each with what is wrong with it. A block whose
/// header is damaged is given the header that the index implies.
pub(super) fn blocks_of_index(file: &dyn ReadAt, index: &Index) -> Vec<FoundBlock> {
    let mut owner = 0;
    let mut tensors = index.tensors().iter();
    let mut ordinals = [0u32; 2];
    let blocks = index.table().iter().map(|record| {
        if record.kind == BlockKind::Descriptor {
            owner = tensors.next().map_or(0, cmz_format::Tensor::owner);
            ordinals[0] = 0;
        }
        let literal = record.kind == BlockKind::Literal;
        let counted = literal || record.kind == BlockKind::Data;
        let ordinal = if counted { ordinals[usize::from(literal)] } else { 0 };
        ordinals[usize::from(literal)] += u32::from(counted);
        let implied = BlockHeader {
            kind: record.kind,
            ordinal,
            owner: if literal { 0 } else { owner },
            payload_distance: record.payload_distance,
            stored_len: record.stored_len,
            decoded_len: record.decoded_len,
            crc_stored: record.crc_stored,
            crc_decoded: record.crc_decoded,
            streams: Default::default(),
        };
        let parsed = read_header(file, record.offset).and_then(|header| {
            record.check_header(&header)?;
            let same = (header.owner, header.ordinal) == (implied.owner, implied.ordinal);
            if same {
                Ok(header)
            } else {
                Err(cmz_format::Error::new(Code::Disagreement, "the block belongs elsewhere"))
            }
        });
        match parsed {
            Ok(header) => check(file, record.offset, header),
            Err(e) => {
                FoundBlock { offset: record.offset, header: implied, damage: Some((e.code(), e.message().to_owned())) }
            }
        }
    });
    blocks.collect()
}

fn read_header(file: &dyn ReadAt, offset: u64) -> Result<BlockHeader> {
    let longest = block_header_len(MAX_STREAMS) as u64;
    let mut bytes = vec![0; longest.min(file.byte_len().saturating_sub(offset)) as usize];
    file.read_at(offset, &mut bytes)?;
    BlockHeader::parse(&bytes, offset)
}

/// Every block of the file with a sound header, found by looking at each multiple of 64.
pub(super) fn scan(file: &dyn ReadAt) -> Result<Vec<FoundBlock>> {
    let mut window = Window { file, start: 0, bytes: Vec::new() };
    let mut blocks = Vec::new();
    let mut offset = HEADER_LEN as u64;
    while offset < file.byte_len() {
        let Some(first) = window.header(offset)? else {
            offset += ALIGNMENT;
            continue;
        };
        // Headers that precede their payload come in a run.
        let run_end = offset + u64::from(first.payload_distance);
        let first_found = blocks.len();
        let mut next = offset;
        while next < run_end && blocks.len() - first_found < MAX_RUN {
            let Some(header) = window.header(next)? else { break };
            blocks.push(check(file, next, header));
            next += header.header_len() as u64;
        }
        // Behind a damaged payload, lengths are not to be trusted.
        offset = match blocks.last() {
            Some(last) if blocks[first_found..].iter().all(|b| b.damage.is_none()) => {
                (last.offset + u64::from(last.header.payload_distance) + u64::from(last.header.stored_len))
                    .next_multiple_of(ALIGNMENT)
            }
            _ => next,
        };
    }
    Ok(blocks)
}

/// A part of the file in memory, so that looking at every multiple of 64 reads it once.
struct Window<'a> {
    file: &'a dyn ReadAt,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The sound block header at `offset`, if there is one.
    fn header(&mut self, offset: u64) -> Result<Option<BlockHeader>> {
        let longest = block_header_len(MAX_STREAMS) as u64;
        let end = (offset + longest).min(self.file.byte_len());
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let len = (CHUNK as u64).min(self.file.byte_len() - offset);
            self.bytes.resize(len as usize, 0);
            self.start = offset;
            self.file.read_at(offset, &mut self.bytes)?;
        }
        let bytes = &self.bytes[(offset - self.start) as usize..];
        let limit = |kind| match kind {
            BlockKind::Manifest => Limits::default().manifest_len,
            BlockKind::Table => u32::MAX,
            _ => MAX_BLOCK_LEN,
        };
        let sound = |header: &BlockHeader| header.decoded_len <= limit(header.kind);
        Ok(BlockHeader::parse(bytes, offset).ok().filter(sound))
    }
}
