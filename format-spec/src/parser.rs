//! Reads a file from front to back without doing input or output itself.

use std::collections::VecDeque;

use crate::block::{BlockHeader, BlockKind};
use crate::bytes::{ALIGNMENT, PAGE, expect_zero};
use crate::header::{HEADER_LEN, Header};
use crate::limits::{MAX_BLOCK_LEN, MAX_RUN};
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::{Code, Error, Limits, Result};

/// What [`Parser::parse`] made of the bytes it was given.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a step lives on the stack, one at a time")]
pub enum Step<'a> {
    /// Call again with more bytes after these: at least so many in all.
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
/// It checks every byte of a file except that the index tells the truth about the
/// blocks, which is for [`crate::Index`] to know.
#[derive(Debug)]
pub struct Parser {
    state: State,
    offset: u64,
    /// Blocks whose header has been read and whose payload has not.
    pending: VecDeque<(u64, BlockHeader)>,
    /// Zero bytes since the last block, in bytes.
    padding: u64,
    manifest_offset: Option<u64>,
    table_offset: Option<u64>,
    limits: Limits,
}

impl Parser {
    /// A parser at the start of a file.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Header,
            offset: 0,
            pending: VecDeque::new(),
            padding: 0,
            manifest_offset: None,
            table_offset: None,
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
            State::Header => self.parse_header(data),
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
                self.offset += consumed as u64;
                Ok(step)
            }
            Step::NeedMore(_) => Ok(step),
        }
    }

    fn parse_header<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        match Header::parse(data) {
            Ok(header) => {
                self.state = State::Blocks;
                Ok(Step::Parsed { consumed: HEADER_LEN, item: Item::Header(header) })
            }
            Err(e) if e.code() == Code::Truncated => Ok(Step::NeedMore(HEADER_LEN)),
            Err(e) => Err(e),
        }
    }

    /// Between two blocks: padding to the next multiple of 64, empty units, or a header.
    fn parse_between<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        let to_boundary = (self.offset.next_multiple_of(ALIGNMENT) - self.offset) as usize;
        if to_boundary > 0 {
            return self.parse_padding(to_boundary, data);
        }
        let Some(unit) = data.get(..ALIGNMENT as usize) else { return Ok(Step::NeedMore(ALIGNMENT as usize)) };
        if unit[0] == 0 {
            self.padding += ALIGNMENT;
            if self.padding >= PAGE {
                return Err(Error::new(Code::Malformed, "a page or more of padding between blocks").at(self.offset));
            }
            return self.parse_padding(ALIGNMENT as usize, data);
        }
        self.parse_block(data)
    }

    /// Between block headers and the first payload: more headers of the run, or padding.
    fn parse_before<'a>(&mut self, payload: u64, data: &'a [u8]) -> Result<Step<'a>> {
        let left = payload - self.offset;
        let Some(&first) = data.first() else { return Ok(Step::NeedMore(1)) };
        if first != 0 {
            return self.parse_block(data);
        }
        if left >= PAGE {
            return Err(Error::new(Code::Malformed, "a page or more of padding before a payload").at(self.offset));
        }
        self.parse_padding(left as usize, data)
    }

    fn parse_padding<'a>(&mut self, len: usize, data: &'a [u8]) -> Result<Step<'a>> {
        let Some(bytes) = data.get(..len) else { return Ok(Step::NeedMore(len)) };
        expect_zero(bytes, self.offset)?;
        Ok(Step::Parsed { consumed: len, item: Item::Padding })
    }

    fn parse_block<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
        if data.len() < ALIGNMENT as usize {
            return Ok(Step::NeedMore(ALIGNMENT as usize));
        }
        let len = BlockHeader::peek_len(data);
        if data.len() < len && data[..4] == crate::BLOCK_MAGIC {
            return Ok(Step::NeedMore(len));
        }
        let header = BlockHeader::parse(data, self.offset)?;
        self.check_block(&header)?;
        self.padding = 0;
        self.pending.push_back((self.offset, header));
        Ok(Step::Parsed { consumed: len, item: Item::Block { offset: self.offset, header } })
    }

    fn check_block(&mut self, header: &BlockHeader) -> Result<()> {
        let malformed = |why: &str| Error::new(Code::Malformed, format!("block: {why}")).at(self.offset);
        let limit = match header.kind {
            BlockKind::Manifest => self.limits.manifest_len,
            BlockKind::Table => u32::MAX,
            _ => MAX_BLOCK_LEN,
        };
        if header.decoded_len > limit {
            return Err(
                Error::limit("the decoded length of a block", header.decoded_len.into(), limit.into()).at(self.offset)
            );
        }
        match header.kind {
            BlockKind::Manifest if self.manifest_offset.is_none() => self.manifest_offset = Some(self.offset),
            BlockKind::Table if self.manifest_offset.is_some() => self.table_offset = Some(self.offset),
            _ if self.manifest_offset.is_none() && header.kind != BlockKind::Table => {}
            _ => return Err(malformed("manifest, block table and trailer must come last, in this order")),
        }
        if let Some(&(offset, ref first)) = self.pending.front() {
            let (run_offset, run) = self.pending.back().copied().unwrap_or((offset, *first));
            let expected = run_offset + u64::from(run.payload_distance) + u64::from(run.stored_len);
            if self.offset + u64::from(header.payload_distance) != expected {
                return Err(malformed("the payloads of a contiguous run do not follow each other"));
            }
            if self.pending.len() >= MAX_RUN {
                return Err(malformed("too many headers before a payload"));
            }
        }
        Ok(())
    }

    fn parse_payload<'a>(&mut self, data: &'a [u8]) -> Result<Step<'a>> {
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
        let to_boundary = (self.offset.next_multiple_of(ALIGNMENT) - self.offset) as usize;
        if to_boundary > 0 {
            return self.parse_padding(to_boundary, data);
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
        self.state = State::End;
        Ok(Step::Parsed { consumed: TRAILER_LEN, item: Item::Trailer(trailer) })
    }
}
