//! Where blocks lie and in what order they come: one set of rules for every reader,
//! from the front or from the end.

use crate::block::{BlockKind, BlockRecord};
use crate::bytes::{ALIGNMENT, LARGE_PAYLOAD, PAGE, align_up};
use crate::header::HEADER_LEN;
use crate::limits::{MAX_RUN, MAX_RUN_LEN};
use crate::{Code, Error, Result};

/// Follows the blocks of a file in file order.
///
/// Blocks tile the file: each starts at the next multiple of 64 behind the one before
/// it, and a payload follows its header, except in a contiguous run, where all headers
/// of a tensor come first and all its payloads follow without gaps.
#[derive(Debug)]
pub(crate) struct Layout {
    last: Option<BlockKind>,
    /// Where the next block header must start, in bytes.
    next: u64,
    run: Option<Run>,
    /// The tensor's data lies in a run that has ended.
    sealed: bool,
}

/// A contiguous run whose headers are being read.
#[derive(Debug)]
struct Run {
    /// Start of the first payload and end of the last one, in bytes.
    payload: u64,
    end: u64,
    blocks: usize,
}

impl Layout {
    /// The layout of a file before its first block.
    pub(crate) fn new() -> Self {
        Self { last: None, next: HEADER_LEN as u64, run: None, sealed: false }
    }

    /// Takes the next block of the file: any but manifest and block table. The offsets
    /// of the record must not overflow, which [`BlockRecord::parse`] checks.
    pub(crate) fn block(&mut self, record: &BlockRecord) -> Result<()> {
        self.place(record).map_err(|e| e.at(record.offset))
    }

    fn place(&mut self, record: &BlockRecord) -> Result<()> {
        if self.run.as_ref().is_some_and(|run| record.offset >= run.payload) {
            self.close_run()?;
        }
        record.check_lengths()?;
        if record.offset != self.next {
            return Err(malformed("the block does not follow the one before it"));
        }
        self.check_order(record.kind)?;
        let header_end = record.offset + record.header_len() as u64;
        match &mut self.run {
            Some(run) => {
                if record.payload_offset() != run.end || header_end > run.payload {
                    return Err(malformed("the blocks of a contiguous run do not follow each other"));
                }
                run.blocks += 1;
                run.end = record.payload_range().end;
                self.next = header_end;
            }
            None if record.is_adjacent() => {
                self.next = record.payload_range().end.next_multiple_of(ALIGNMENT);
            }
            None => {
                if !matches!(self.last, Some(BlockKind::Descriptor | BlockKind::Shared))
                    || record.kind != BlockKind::Data
                {
                    return Err(malformed("the payload does not follow its header"));
                }
                let payload = record.payload_range();
                self.run = Some(Run { payload: payload.start, end: payload.end, blocks: 1 });
                self.next = header_end;
            }
        }
        if let Some(run) = &self.run {
            if !record.is_raw() {
                return Err(malformed("a block of a contiguous run is not stored as it is"));
            }
            if run.blocks > MAX_RUN || run.end - run.payload > MAX_RUN_LEN {
                return Err(malformed("a contiguous run is too long"));
            }
        }
        self.last = Some(record.kind);
        Ok(())
    }

    /// Literals and descriptors may stand anywhere, shared components after their
    /// descriptor, data after either; a run is all the data of its tensor.
    fn check_order(&mut self, kind: BlockKind) -> Result<()> {
        let allowed = match kind {
            BlockKind::Literal | BlockKind::Descriptor => {
                self.sealed = false;
                self.run.is_none()
            }
            BlockKind::Shared => self.run.is_none() && self.last == Some(BlockKind::Descriptor),
            BlockKind::Data => !self.sealed && !matches!(self.last, None | Some(BlockKind::Literal)),
            BlockKind::Manifest | BlockKind::Table => false,
        };
        if allowed { Ok(()) } else { Err(malformed(&format!("a {kind:?} block is out of place"))) }
    }

    /// Whether the last block is one of a run whose headers are not all read.
    pub(crate) fn in_run(&self) -> bool {
        self.run.is_some()
    }

    /// Ends the run, if there is one: nothing but padding lies between its last header
    /// and its first payload, and no more of it than alignment needs.
    pub(crate) fn close_run(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let len = run.end - run.payload;
        if align_up(self.next, run_alignment(len)) != Some(run.payload) {
            return Err(malformed("the payloads of a contiguous run do not follow its headers").at(self.next));
        }
        self.next = run.end.next_multiple_of(ALIGNMENT);
        self.sealed = true;
        Ok(())
    }

    /// Ends the blocks: the manifest must follow at `offset`.
    pub(crate) fn end(&mut self, offset: u64) -> Result<()> {
        self.close_run()?;
        if self.next == offset {
            return Ok(());
        }
        Err(malformed("the manifest does not follow the last block").at(offset))
    }
}

/// What the first payload of a contiguous tensor of `byte_len` bytes is aligned to, in bytes.
pub(crate) fn run_alignment(byte_len: u64) -> u64 {
    if byte_len >= LARGE_PAYLOAD { PAGE } else { ALIGNMENT }
}

fn malformed(why: &str) -> Error {
    Error::new(Code::Malformed, format!("layout: {why}"))
}
