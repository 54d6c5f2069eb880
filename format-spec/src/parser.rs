//! Reads a file from front to back without doing input or output itself.

use std::collections::VecDeque;

use crate::block::{BlockHeader, BlockKind, BlockRecord, RECORD_LEN};
use crate::bytes::{ALIGNMENT, expect_zero, to_usize};
use crate::header::{HEADER_LEN, Header};
use crate::layout::Layout;
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::{Code, Error, Limits, Result};

/// What [`Parser::parse`] made of the bytes it was given.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a step lives on the stack, one at a time")]
pub enum Step<'a> {
    /// Call again with more bytes after these: at least so many in all. The number comes
    /// from the file: let a buffer grow with what is really read, not ahead of it.
    NeedMore(usize),
    /// An item; drop the first `consumed` bytes before the next call.
    Parsed {
        /// Bytes that the item used up.
        consumed: usize,
        /// The item.
        item: Item<'a>,
    },
}

/// A piece of a file.
#[derive(Debug)]
pub enum Item<'a> {
    /// The file header.
    Header(Header),
    /// A block header, checked against its checksum.
    Block {
        /// Offset of the header in the file, in bytes.
        offset: u64,
        /// The header.
        header: BlockHeader,
    },
    /// The payload of an earlier block header, checked against its checksum.
    Payload {
        /// Offset of the block's header in the file, in bytes.
        block_offset: u64,
        /// The block's header.
        header: BlockHeader,
        /// The payload.
        bytes: &'a [u8],
    },
    /// Zero bytes between blocks, checked.
    Padding,
    /// The trailer; nothing may follow.
    Trailer(Trailer),
    /// The end of the input, after the trailer.
    End,
}

/// Where the parser stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Blocks,
    /// After the table block: the trailer must follow.
    Trailer,
    End,
}

/// A front-to-back parser. It is given bytes in pieces of any size and gives back the
/// same items and the same errors whatever the pieces are.
///
/// It checks every byte of a file, the root digest and the block table's checksum
/// against the blocks that it saw among them. What needs the manifest's contents or
/// decoded streams is for [`crate::Index`] and for codecs to check.
#[derive(Debug)]
pub struct Parser {
    state: State,
    offset: u64,
    /// Blocks whose header has been read and whose payload has not.
    pending: VecDeque<(u64, BlockHeader)>,
    layout: Layout,
    due: Due,
    manifest_offset: Option<u64>,
    table_offset: Option<u64>,
    /// Of the block table that the blocks so far make.
    records: crc32fast::Hasher,
    /// Of what the root digest covers.
    root: blake3::Hasher,
    limits: Limits,
}

/// What the next block headers must say.
#[derive(Debug, Default)]
struct Due {
    blocks: u64,
    literals: u64,
    literal_len: u64,
    /// Owner and number of the tensor's next data block.
    owner: u32,
    data: u64,
}

impl Parser {
    /// A parser at the start of a file.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Header,
            offset: 0,
            pending: VecDeque::new(),
            layout: Layout::new(),
            due: Due::default(),
            manifest_offset: None,
            table_offset: None,
            records: crc32fast::Hasher::new(),
            root: blake3::Hasher::new(),
            limits,
        }
    }

    /// Offset in the file of the next byte to parse.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Parses the next item from `data`, which continues where the last item ended.
    /// `at_end` says that no bytes follow `data`.
    ///
    /// # Errors
    /// [`Code::Truncated`] if the file ends inside an item, or an error about the item.
    /// After an error the parser is of no further use.
    pub fn parse<'a>(&mut self, data: &'a [u8], at_end: bool) -> Result<Step<'a>> {
        let step = match self.state {
            State::Header => self.parse_header(data, at_end),
            State::Blocks => match self.pending.front() {
                Some(&(block_offset, ref header)) => {
                    let payload = block_offset + u64::from(header.payload_distance);
                    if self.offset == payload { self.parse_payload(data) } else { self.parse_before(payload, data) }
                }
                None => self.parse_between(data),
            },
            State::Trailer => self.parse_trailer(data, at_end),
            State::End if data.is_empty() => Ok(Step::Parsed { consumed: 0, item: Item::End }),
            State::End => Err(Error::new(Code::Malformed, "bytes after the trailer").at(self.offset)),
        }?;
        match step {
            Step::NeedMore(_) if at_end => Err(Error::new(Code::Truncated, "the file ends before its trailer")
                .at(self.offset + data.len() as u64)
                .with_help("fetch the file again; `cmz recover` saves the tensors that are whole")),
            Step::Parsed { consumed, .. } => {
                if self.offset == 0 || self.manifest_offset.is_some() {
                    self.root.update(&data[..consumed]);
                }
                self.offset += consumed as u64;
                Ok(step)
            }
            Step::NeedMore(_) => Ok(step),
        }
    }

    /// The whole header decides, so that the error does not depend on the pieces.
    fn parse_header<'a>(&mut self, data: &'a [u8], at_end: bool) -> Result<Step<'a>> {
        if data.len() < HEADER_LEN && !at_end {
            return Ok(Step::NeedMore(HEADER_LEN));
        }
        let header = Header::parse(data)?;
        self.state = State::Blocks;
        Ok(Step::Parsed { consumed: HEADER_LEN, item: Item::Header(header) })
    }

    /// Between two blocks: padding to the next multiple of 64, or a header.
    fn parse_between<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        match self.to_boundary() {
            0 => self.parse_block(data),
            padding => self.parse_padding(padding, data),
        }
    }

    /// From here to the next multiple of 64, in bytes.
    fn to_boundary(&self) -> u64 {
        self.offset.next_multiple_of(ALIGNMENT) - self.offset
    }

    /// Between the headers of a run and its first payload: more headers, or padding.
    fn parse_before<'a>(&mut self, payload: u64, data: &'a [u8]) -> Result<Step<'a>> {
        let Some(&first) = data.first() else { return Ok(Step::NeedMore(1)) };
        if first != 0 {
            return self.parse_block(data);
        }
        self.layout.close_run()?;
        self.parse_padding(payload - self.offset, data)
    }

    fn parse_padding<'a>(&mut self, len: u64, data: &'a [u8]) -> Result<Step<'a>> {
        let len = to_usize(len)?;
        let Some(bytes) = data.get(..len) else { return Ok(Step::NeedMore(len)) };
        expect_zero(bytes, self.offset)?;
        Ok(Step::Parsed { consumed: len, item: Item::Padding })
    }

    fn parse_block<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        let len = BlockHeader::needed_len(data);
        if data.len() < len {
            return Ok(Step::NeedMore(len));
        }
        let header = BlockHeader::parse(data, self.offset)?;
        self.check_block(&header).map_err(|e| e.at(self.offset))?;
        self.pending.push_back((self.offset, header));
        Ok(Step::Parsed { consumed: len, item: Item::Block { offset: self.offset, header } })
    }

    fn check_block(&mut self, header: &BlockHeader) -> Result<()> {
        match (header.kind, self.manifest_offset) {
            (BlockKind::Manifest, None) => {
                self.layout.end(self.offset)?;
                self.manifest_offset = Some(self.offset);
                header.check_index_block(&self.limits)
            }
            (BlockKind::Table, Some(_)) => {
                self.table_offset = Some(self.offset);
                header.check_index_block(&self.limits)?;
                self.check_table(header)
            }
            (BlockKind::Manifest | BlockKind::Table, _) | (_, Some(_)) => {
                Err(malformed("manifest, block table and trailer must come last, in this order"))
            }
            (_, None) => {
                let record = BlockRecord::of(header, self.offset);
                self.layout.block(&record)?;
                if self.layout.in_run() {
                    header.check_raw()?;
                }
                self.records.update(&record.to_bytes());
                self.due.take(header, &self.limits)
            }
        }
    }

    /// The table's checksum is that of the records which the blocks make, or the two disagree.
    fn check_table(&self, header: &BlockHeader) -> Result<()> {
        let len = self.due.blocks * RECORD_LEN as u64;
        if u64::from(header.stored_len) == len && header.crc_stored == self.records.clone().finalize() {
            return Ok(());
        }
        Err(Error::new(Code::Disagreement, "the block headers and the block table disagree")
            .with_help("the file is damaged: fetch it again"))
    }

    fn parse_payload<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        self.layout.close_run()?;
        let Some(&(block_offset, header)) = self.pending.front() else { return Ok(Step::NeedMore(0)) };
        let len = header.stored_len as usize;
        let Some(bytes) = data.get(..len) else { return Ok(Step::NeedMore(len)) };
        header.check_stored(bytes).map_err(|e| e.at(self.offset))?;
        self.pending.pop_front();
        if header.kind == BlockKind::Table {
            self.state = State::Trailer;
        }
        Ok(Step::Parsed { consumed: len, item: Item::Payload { block_offset, header, bytes } })
    }

    fn parse_trailer<'a>(&mut self, data: &'a [u8], at_end: bool) -> Result<Step<'a>> {
        let padding = self.to_boundary();
        if padding > 0 {
            return self.parse_padding(padding, data);
        }
        let Some(bytes) = data.first_chunk::<TRAILER_LEN>() else { return Ok(Step::NeedMore(TRAILER_LEN)) };
        if data.len() > TRAILER_LEN {
            return Err(Error::new(Code::Malformed, "bytes after the trailer").at(self.offset + TRAILER_LEN as u64));
        }
        if !at_end {
            // One byte more, or the end, tells whether this is really the last record.
            return Ok(Step::NeedMore(TRAILER_LEN + 1));
        }
        let trailer = Trailer::parse(bytes, self.offset + TRAILER_LEN as u64)?;
        if (Some(trailer.manifest_offset), Some(trailer.table_offset)) != (self.manifest_offset, self.table_offset) {
            return Err(Error::new(
                Code::Disagreement,
                "the trailer does not point at the manifest and the block table",
            )
            .at(self.offset));
        }
        trailer.check_root_hash(&mut self.root).map_err(|e| e.at(self.offset))?;
        self.state = State::End;
        Ok(Step::Parsed { consumed: TRAILER_LEN, item: Item::Trailer(trailer) })
    }
}

impl Due {
    /// Checks owner and ordinal of the next block, and how many blocks and literal bytes there are.
    fn take(&mut self, header: &BlockHeader, limits: &Limits) -> Result<()> {
        let (owner, ordinal) = match header.kind {
            BlockKind::Literal => {
                self.literals += 1;
                self.literal_len += u64::from(header.decoded_len);
                (0, self.literals - 1)
            }
            BlockKind::Data => {
                self.data += 1;
                (self.owner, self.data - 1)
            }
            BlockKind::Descriptor => {
                (self.owner, self.data) = (header.owner, 0);
                (self.owner, 0)
            }
            _ => (self.owner, 0),
        };
        if header.owner != owner || u64::from(header.ordinal) != ordinal {
            return Err(malformed("its owner or ordinal is not what the blocks before it imply"));
        }
        self.blocks += 1;
        if self.blocks > u64::from(limits.blocks) {
            return Err(Error::limit("the number of blocks", self.blocks, limits.blocks.into()));
        }
        if self.literal_len > limits.literal_len {
            return Err(Error::limit("the length of the literal bytes", self.literal_len, limits.literal_len));
        }
        Ok(())
    }
}

fn malformed(why: &str) -> Error {
    Error::new(Code::Malformed, format!("block: {why}"))
}
