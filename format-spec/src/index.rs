//! The index of a file: header, manifest and block table, read from the file's end
//! and checked against each other.

use std::collections::HashMap;
use std::ops::Range;

use crate::block::{BlockHeader, BlockKind, BlockRecord, RECORD_LEN};
use crate::bytes::{ALIGNMENT, expect_zero, to_usize, unpack_section};
use crate::header::{HEADER_LEN, Header};
use crate::layout::{Layout, run_alignment};
use crate::manifest::{Manifest, Tensor};
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::view::{self, View};
use crate::{Code, Error, Limits, Result};

/// Bytes that one read from the end of a file should ask for: the index of most
/// files fits.
pub const TAIL_LEN: u64 = 256 << 10;

/// Which records of the block table belong to a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorBlocks {
    /// The descriptor block.
    pub descriptor: usize,
    /// The block of shared components.
    pub shared: Option<usize>,
    /// The data blocks.
    pub data: Range<usize>,
}

/// The checked index of a file.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    root: [u8; 32],
    file_len: u64,
    manifest: Manifest,
    table: Vec<BlockRecord>,
    tensor_blocks: Vec<TensorBlocks>,
    literals: Vec<usize>,
    by_name: HashMap<String, usize>,
    views_by_name: HashMap<String, usize>,
}

impl Index {
    /// Reads the index of a file of `file_len` bytes through `read_at`, which fills a
    /// buffer from an offset. Files with an ordinary number of tensors need two reads.
    ///
    /// # Errors
    /// [`Code::NotCmz`], [`Code::Truncated`], [`Code::Version`], [`Code::Feature`],
    /// [`Code::Digest`], [`Code::Malformed`], [`Code::Limit`], or what `read_at` returns.
    pub fn read(file_len: u64, limits: &Limits, mut read_at: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Self> {
        let mut header_bytes = [0; HEADER_LEN];
        let header_len = to_usize(file_len).unwrap_or(HEADER_LEN).min(HEADER_LEN);
        read_at(0, &mut header_bytes[..header_len])?;
        let header = Header::parse(&header_bytes[..header_len])?;
        if file_len < (HEADER_LEN + TRAILER_LEN) as u64 {
            return Err(Error::new(Code::Truncated, "the file ends after its header").at(file_len));
        }

        let tail_start = (file_len - TAIL_LEN.min(file_len)).max(HEADER_LEN as u64);
        let mut tail = vec![0; to_usize(file_len - tail_start)?];
        read_at(tail_start, &mut tail)?;
        let Some((before, trailer_bytes)) = tail.split_last_chunk::<TRAILER_LEN>() else {
            return Err(Error::new(Code::Truncated, "the file ends after its header").at(file_len));
        };
        let trailer = Trailer::parse(trailer_bytes, file_len)?;
        let index_end = file_len - TRAILER_LEN as u64;
        let index_len = index_end - trailer.manifest_offset;
        let headers_and_padding = 4 * ALIGNMENT;
        let most = u64::from(limits.manifest_len) + u64::from(limits.blocks) * RECORD_LEN as u64 + headers_and_padding;
        if index_len > most {
            return Err(Error::limit("the length of the index", index_len, most));
        }
        let index_bytes = if trailer.manifest_offset >= tail_start {
            before[to_usize(trailer.manifest_offset - tail_start)?..].to_vec()
        } else {
            let mut bytes = vec![0; to_usize(index_len)?];
            read_at(trailer.manifest_offset, &mut bytes)?;
            bytes
        };
        Self::from_parts(header, &header_bytes, &trailer, &index_bytes, file_len, limits)
    }

    /// Builds the index from the bytes between the manifest's offset and the trailer.
    fn from_parts(
        header: Header,
        header_bytes: &[u8],
        trailer: &Trailer,
        index: &[u8],
        file_len: u64,
        limits: &Limits,
    ) -> Result<Self> {
        trailer.check_root(header_bytes, index)?;
        let (manifest_bytes, table_bytes) = index.split_at(to_usize(trailer.table_offset - trailer.manifest_offset)?);
        let (manifest_header, stored) = section(manifest_bytes, trailer.manifest_offset, BlockKind::Manifest, limits)?;
        let json = unpack_section(manifest_header.streams[0].codec, stored, manifest_header.decoded_len)
            .and_then(|json| manifest_header.check_decoded(&json).map(|()| json))
            .map_err(|e| e.at(trailer.manifest_offset))?;
        let manifest = Manifest::parse(&json, limits)?;
        let (_, records) = section(table_bytes, trailer.table_offset, BlockKind::Table, limits)?;
        let table = records
            .chunks_exact(RECORD_LEN)
            .enumerate()
            .map(|(i, record)| BlockRecord::parse(record, i))
            .collect::<Result<Vec<_>>>()?;
        check_layout(&table, trailer.manifest_offset)?;
        Self::assemble(header, trailer.root, file_len, manifest, table, limits)
    }

    /// Puts checked parts together: which blocks belong to what.
    pub(crate) fn assemble(
        header: Header,
        root: [u8; 32],
        file_len: u64,
        manifest: Manifest,
        table: Vec<BlockRecord>,
        limits: &Limits,
    ) -> Result<Self> {
        let (tensor_blocks, literals) = assign_blocks(&manifest, &table)?;
        let mut by_name = HashMap::with_capacity(manifest.tensors.len());
        for (i, (tensor, blocks)) in manifest.tensors.iter().zip(&tensor_blocks).enumerate() {
            let data = &table[blocks.data.clone()];
            check_block_lengths(tensor, data)
                .and_then(|()| check_contiguity(tensor, data))
                .map_err(|e| e.in_tensor(&tensor.name))?;
            if by_name.insert(tensor.name.clone(), i).is_some() {
                return Err(Error::new(Code::Malformed, "two tensors have the same name").in_tensor(&tensor.name));
            }
        }
        let views_by_name = view::by_name(&manifest.views, &by_name)?;
        let index = Self { header, root, file_len, manifest, table, tensor_blocks, literals, by_name, views_by_name };
        index.check_source(limits)?;
        Ok(index)
    }

    /// Checks that literals and tensors make up a source of the stated length.
    fn check_source(&self, limits: &Limits) -> Result<()> {
        let literal_len: u64 = self.literals.iter().map(|&i| u64::from(self.table[i].decoded_len)).sum();
        if literal_len > limits.literal_len {
            return Err(Error::limit("the length of the literal bytes", literal_len, limits.literal_len));
        }
        let malformed = |why: &str| Error::new(Code::Malformed, format!("source: {why}"));
        let Some(source) = &self.manifest.source else {
            return if self.literals.is_empty() { Ok(()) } else { Err(malformed("literal blocks of no source")) };
        };
        let tensors_len: u64 = (0..self.tensor_blocks.len()).map(|tensor| self.tensor_len(tensor)).sum();
        if literal_len + tensors_len != source.len {
            return Err(malformed("literals and tensors do not add up to its length"));
        }
        if source.sha256.len() != 64 || !source.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(malformed("sha256 is not 64 lower-case hexadecimal digits"));
        }
        Ok(())
    }

    /// The file header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The root digest: it pins header, manifest and block table, and through the
    /// checksums in the table every byte of the file.
    #[must_use]
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Length of the file, in bytes.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.manifest.tensors
    }

    /// The block table, in file order.
    #[must_use]
    pub fn table(&self) -> &[BlockRecord] {
        &self.table
    }

    /// The number of the tensor with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The views.
    #[must_use]
    pub fn views(&self) -> &[View] {
        &self.manifest.views
    }

    /// The view with this name.
    #[must_use]
    pub fn find_view(&self, name: &str) -> Option<&View> {
        self.views_by_name.get(name).map(|&view| &self.manifest.views[view])
    }

    /// The blocks of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    #[must_use]
    pub fn tensor_blocks(&self, tensor: usize) -> &TensorBlocks {
        &self.tensor_blocks[tensor]
    }

    /// Length of a tensor when decoded, in bytes.
    ///
    /// # Panics
    /// If there is no such tensor.
    #[must_use]
    pub fn tensor_len(&self, tensor: usize) -> u64 {
        // All blocks but the last have the same length.
        let len = |record: &BlockRecord| u64::from(record.decoded_len);
        match &self.table[self.tensor_blocks[tensor].data.clone()] {
            [] => 0,
            [full @ .., last] => full.first().map_or(0, len) * full.len() as u64 + len(last),
        }
    }

    /// Checks the header of block number `block` of the table, as it stands in the file,
    /// against the index: the same record, owner and ordinal.
    ///
    /// # Errors
    /// [`Code::Disagreement`]: neither of the two is preferred, the file is corrupt.
    /// [`Code::Malformed`] if a block of a contiguous tensor is not stored by the codec raw.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn check_header(&self, block: usize, header: &BlockHeader) -> Result<()> {
        let record = &self.table[block];
        record.check_header(header)?;
        let tensor = self.tensor_blocks.partition_point(|t| t.descriptor <= block).checked_sub(1);
        let (owner, ordinal) = match (record.kind, tensor) {
            (BlockKind::Literal, _) | (_, None) => (0, self.literals.partition_point(|&i| i < block)),
            (BlockKind::Data, Some(t)) => {
                if self.tensors()[t].is_contiguous() {
                    header.check_raw().map_err(|e| e.at(record.offset))?;
                }
                (self.tensors()[t].owner(), block - self.tensor_blocks[t].data.start)
            }
            (_, Some(t)) => (self.tensors()[t].owner(), 0),
        };
        if header.owner == owner && header.ordinal as usize == ordinal {
            return Ok(());
        }
        Err(Error::new(
            Code::Disagreement,
            "the block header names another owner or ordinal than the block table implies",
        )
        .at(record.offset)
        .with_help("the file is damaged: fetch it again"))
    }

    /// Checks the decoded descriptor block of a tensor against the manifest.
    ///
    /// # Errors
    /// [`Code::Disagreement`] if it describes anything else, or as [`Tensor::parse`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn check_descriptor(&self, tensor: usize, json: &[u8], limits: &Limits) -> Result<()> {
        let expected = &self.tensors()[tensor];
        let offset = self.table[self.tensor_blocks[tensor].descriptor].offset;
        if Tensor::parse(json, limits).map_err(|e| e.at(offset))? == *expected {
            return Ok(());
        }
        Err(Error::new(Code::Disagreement, "the descriptor and the manifest disagree")
            .in_tensor(&expected.name)
            .at(offset)
            .with_help("the file is damaged: fetch it again"))
    }

    /// The records of the literal blocks, in file order.
    #[must_use]
    pub fn literals(&self) -> &[usize] {
        &self.literals
    }
}

/// Parses the manifest or table block at the start of `bytes`, which end where the
/// block's padding ends.
fn section<'a>(bytes: &'a [u8], offset: u64, kind: BlockKind, limits: &Limits) -> Result<(BlockHeader, &'a [u8])> {
    let malformed = |why: &str| Error::new(Code::Malformed, format!("{kind:?} block: {why}")).at(offset);
    let header = BlockHeader::parse(bytes, offset)?;
    if header.kind != kind {
        return Err(malformed("not what the trailer says it is"));
    }
    header.check_index_block(limits).map_err(|e| e.at(offset))?;
    let start = u64::from(header.payload_distance);
    let end = start + u64::from(header.stored_len);
    if end.next_multiple_of(ALIGNMENT) != bytes.len() as u64 {
        return Err(malformed("does not fill its place"));
    }
    let (stored, padding) = bytes[header.header_len()..].split_at(header.stored_len as usize);
    expect_zero(padding, offset + end)?;
    header.check_stored(stored).map_err(|e| e.at(offset + start))?;
    Ok((header, stored))
}

/// Checks that the blocks tile the file from the header to the manifest.
fn check_layout(table: &[BlockRecord], manifest_offset: u64) -> Result<()> {
    let mut layout = Layout::new();
    table.iter().try_for_each(|record| layout.block(record))?;
    layout.end(manifest_offset)
}

/// Checks that the payloads of a contiguous tensor, and of no other, form a run.
fn check_contiguity(tensor: &Tensor, data: &[BlockRecord]) -> Result<()> {
    let malformed = |why: &str| Err(Error::new(Code::Malformed, why));
    let (Some(first), Some(last)) = (data.first(), data.last()) else { return Ok(()) };
    if !tensor.is_contiguous() {
        let adjacent = data.iter().all(BlockRecord::is_adjacent);
        return if adjacent { Ok(()) } else { malformed("the blocks of the tensor must not form a run") };
    }
    let run = first.payload_offset()..last.payload_range().end;
    let joined = data.windows(2).all(|pair| pair[0].payload_range().end == pair[1].payload_offset());
    if !joined || !data.iter().all(BlockRecord::is_raw) {
        return malformed("the blocks of a contiguous tensor do not form a run");
    }
    if !run.start.is_multiple_of(run_alignment(run.end - run.start)) {
        return malformed("a contiguous tensor is not aligned");
    }
    Ok(())
}

/// Finds each tensor's blocks: a descriptor opens the next tensor of the manifest.
fn assign_blocks(manifest: &Manifest, table: &[BlockRecord]) -> Result<(Vec<TensorBlocks>, Vec<usize>)> {
    let malformed = |i: usize, why: &str| Error::new(Code::Malformed, format!("block table, record {i}: {why}"));
    let mut tensors: Vec<TensorBlocks> = Vec::with_capacity(manifest.tensors.len().min(table.len()));
    let mut literals = Vec::new();
    for (i, record) in table.iter().enumerate() {
        let last = tensors.last_mut();
        match record.kind {
            BlockKind::Literal => literals.push(i),
            BlockKind::Descriptor => tensors.push(TensorBlocks { descriptor: i, shared: None, data: i + 1..i + 1 }),
            BlockKind::Shared => match last {
                Some(t) if t.descriptor + 1 == i => {
                    t.shared = Some(i);
                    t.data = i + 1..i + 1;
                }
                _ => return Err(malformed(i, "shared components without a descriptor before them")),
            },
            BlockKind::Data => match last {
                Some(t) if t.data.end == i => t.data.end = i + 1,
                _ => return Err(malformed(i, "a data block that belongs to no tensor")),
            },
            BlockKind::Manifest | BlockKind::Table => return Err(malformed(i, "the index lists itself")),
        }
    }
    if tensors.len() != manifest.tensors.len() {
        return Err(Error::new(
            Code::Malformed,
            format!("the manifest names {} tensors, the block table has {}", manifest.tensors.len(), tensors.len()),
        ));
    }
    Ok((tensors, literals))
}

/// Checks that a tensor's data blocks decode to the lengths that its description implies.
fn check_block_lengths(tensor: &Tensor, data: &[BlockRecord]) -> Result<()> {
    // A block of an element type that a newer version knows may have any length.
    let first = data.first().map_or(0, |r| u64::from(r.decoded_len));
    let block_len = if tensor.known_dtype().is_some() { tensor.block_len() } else { first };
    let total: u64 = data.iter().map(|r| u64::from(r.decoded_len)).sum();
    let expected = tensor.byte_len()?.unwrap_or(total);
    let full = data.split_last().is_none_or(|(last, full)| {
        full.iter().all(|r| u64::from(r.decoded_len) == block_len)
            && (1..=block_len).contains(&u64::from(last.decoded_len))
    });
    if !full || total != expected {
        return Err(Error::new(
            Code::Malformed,
            format!("the blocks decode to {total} bytes in blocks of {block_len}, the shape needs {expected}"),
        ));
    }
    Ok(())
}
