//! Encoding and writing the blocks of a planned file, and taking over those that are there already.

use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::SyncSender;

use cmz_format::{
    BlockHeader, BlockKind, Code, EncodedBlock, Error, Header as CmzHeader, Item, Limits, Result, Writer, crc32,
};

use super::compress::{CompressOptions, Layout};
use super::plan::{Job, Work, block_jobs, jobs};
use super::rounding::Taken;
use super::{CHUNK, Progress, Target, advance, parse_items};
use crate::io::{PlainFile, ReadAt};
use crate::tensor::StoredTensor;
use crate::{Scratch, lock, pipeline};

pub(super) type FileWriter = Writer<BufWriter<File>>;

/// A conversion whose blocks are being written.
pub(super) struct Conversion<'a> {
    pub(super) source: &'a dyn ReadAt,
    pub(super) layout: &'a Layout<'a>,
    /// How each tensor is stored.
    pub(super) stored: &'a [StoredTensor],
    pub(super) options: &'a CompressOptions,
    pub(super) progress: &'a dyn Progress,
}

impl Conversion<'_> {
    /// Opens a writer on the unfinished file, behind what an interrupted conversion left there
    /// as far as that is whole and the source is still the same. What rounded blocks that are there decode to goes to `rounded`; where
    /// they lie is returned.
    pub(super) fn open_writer(
        &self,
        target: &mut Target,
        header: &CmzHeader,
        rounded: &SyncSender<Vec<u8>>,
    ) -> Result<(FileWriter, Vec<Taken>)> {
        let partial = PlainFile::open(target.partial())?;
        let file =
            target.file().try_clone().map_err(|e| Error::io("cannot open the file", e).in_file(target.partial()))?;
        let sink = BufWriter::with_capacity(CHUNK, file);
        let plan = self.layout.plan.clone();
        if !is_resumable(&partial, header, self.options.replace).map_err(|e| e.in_file(target.partial()))? {
            target.truncate(0)?;
            return Ok((Writer::new(sink, header, plan)?, Vec::new()));
        }
        let mut writer = Writer::resume(sink, header, plan)?;
        let mut jobs = block_jobs(&self.layout.plan);
        let mut replay = Replay { conversion: self, job: None, scratch: Scratch::new(), taken: Vec::new() };
        let replayed = parse_items(&partial, Limits::default(), |item| {
            let good = match item {
                Item::Block { header, .. } => {
                    replay.job = jobs.next();
                    replay.is_unchanged(header)?
                }
                Item::Payload { block_offset, header, bytes } if header.kind == BlockKind::Data => {
                    replay.take_over(*block_offset, header, bytes, rounded)?
                }
                _ => true,
            };
            Ok(good && writer.replay(item).is_ok())
        });
        // The unfinished file ends somehow; what was whole before has been replayed.
        drop(replayed);
        let len = writer.end_replay();
        target.truncate(len)?;
        Ok((writer, replay.taken))
    }

    /// Encodes all blocks that are still to be written and writes them in order. What rounded ones decode to goes to
    /// `rounded`, too; those that were `taken` over are measured first.
    pub(super) fn write_blocks(
        &self,
        writer: &mut FileWriter,
        partial: &Path,
        taken: Vec<Taken>,
        rounded: &SyncSender<Vec<u8>>,
    ) -> Result<()> {
        let written = writer.blocks_written();
        let mut deviations = self.measure_taken(taken, writer, partial)?;
        let mut jobs = jobs(&self.layout.plan).filter(|job| job.is_due(written)).peekable();
        let is_lossy = |job: &Job| job.work != Work::Literal && self.layout.lossy[job.tensor].is_some();
        while let Some(next) = jobs.peek() {
            if is_lossy(next) {
                let run = std::iter::from_fn(|| self.next_unit(&mut jobs));
                self.write_lossy(run, &mut deviations, writer, partial, rounded)?;
            } else {
                self.write_exact(std::iter::from_fn(|| jobs.next_if(|job| !is_lossy(job))), writer, partial)?;
            }
        }
        Ok(())
    }

    /// Writes blocks that are stored exactly.
    fn write_exact(
        &self,
        jobs: impl Iterator<Item = Job> + Send,
        writer: &mut FileWriter,
        partial: &Path,
    ) -> Result<()> {
        let buffers = Mutex::new(Vec::new());
        let mut checksums = Vec::new();
        pipeline::ordered(
            self.options.threads,
            jobs,
            |job, scratch| {
                if let Some(buffer) = lock(&buffers).pop() {
                    scratch.recycle(buffer);
                }
                self.work(&job, scratch)
            },
            |done| {
                if let Some(buffer) = write_block(writer, done, &mut checksums).map_err(|e| e.in_file(partial))? {
                    lock(&buffers).push(buffer.bytes);
                    advance(self.progress, buffer.decoded_len)?;
                }
                Ok(())
            },
        )
    }

    fn work(&self, job: &Job, scratch: &mut Scratch) -> Result<Done> {
        if job.work == Work::Descriptor {
            return Ok(Done::Descriptor);
        }
        let mut bytes = scratch.buffer((job.range.end - job.range.start) as usize);
        self.source.read_at(job.range.start, &mut bytes)?;
        Ok(match job.work {
            Work::Literal => Done::Literal(bytes),
            Work::Payload => Done::Raw(bytes),
            Work::Checksum { of } => {
                let crc = crc32(&bytes);
                scratch.recycle(bytes);
                Done::Checksum { crc, of }
            }
            Work::Encode => {
                let stored = &self.stored[job.tensor];
                let read_reference =
                    |scratch: &mut Scratch, bytes: &mut [u8]| match (stored.reference(), self.layout.base) {
                        (Some(reference), Some(base)) => {
                            base.read_range_into(base.find(&reference.tensor)?, job.start, scratch, bytes)
                        }
                        _ => Ok(()),
                    };
                let block = stored.encode_block(&bytes, self.options.encode.level, scratch, read_reference)?;
                scratch.recycle(bytes);
                Done::Encoded(block)
            }
            Work::Descriptor => Done::Descriptor,
        })
    }
}

/// What a worker made of a job.
#[expect(clippy::large_enum_variant, reason = "a few exist at a time")]
enum Done {
    Literal(Vec<u8>),
    Descriptor,
    Checksum { crc: u32, of: usize },
    Encoded(EncodedBlock),
    Raw(Vec<u8>),
}

/// A buffer that has been written.
struct Written {
    decoded_len: u64,
    bytes: Vec<u8>,
}

/// Writes what a worker made.
fn write_block(writer: &mut FileWriter, done: Done, checksums: &mut Vec<u32>) -> Result<Option<Written>> {
    let plain = |bytes: Vec<u8>| Written { decoded_len: bytes.len() as u64, bytes };
    Ok(match done {
        Done::Descriptor => {
            writer.descriptor()?;
            None
        }
        Done::Checksum { crc, of } => {
            checksums.push(crc);
            if checksums.len() == of {
                writer.contiguous(checksums)?;
                checksums.clear();
            }
            None
        }
        Done::Literal(bytes) => {
            writer.literal(&bytes)?;
            Some(plain(bytes))
        }
        Done::Raw(bytes) => {
            writer.payload(&bytes)?;
            Some(plain(bytes))
        }
        Done::Encoded(block) => {
            writer.data(&block)?;
            Some(Written { decoded_len: block.decoded_len.into(), bytes: block.payload })
        }
    })
}

/// Takes over the blocks of an unfinished file.
struct Replay<'a> {
    conversion: &'a Conversion<'a>,
    /// What the plan says of the block at hand.
    job: Option<Job>,
    scratch: Scratch,
    /// The blocks of rounded tensors, so far.
    taken: Vec<Taken>,
}

impl Replay<'_> {
    /// Whether a block is still what the source says. Descriptors come from the plan, and rounded
    /// blocks from bytes that the fingerprint vouches for.
    fn is_unchanged(&self, header: &BlockHeader) -> Result<bool> {
        let Some(job) = &self.job else { return Ok(false) };
        match header.kind {
            BlockKind::Literal => Ok(crc_of(self.conversion.source, job.range.clone())? == header.crc_decoded),
            BlockKind::Data if self.conversion.layout.lossy[job.tensor].is_none() => {
                Ok(crc_of(self.conversion.source, job.range.clone())? == header.crc_decoded)
            }
            _ => Ok(true),
        }
    }

    /// Decodes a block of a rounded tensor. False if the block is damaged.
    fn take_over(
        &mut self,
        block_offset: u64,
        header: &BlockHeader,
        payload: &[u8],
        rounded: &SyncSender<Vec<u8>>,
    ) -> Result<bool> {
        let Some(Job { tensor, range, start, .. }) = self.job.clone() else { return Ok(false) };
        if self.conversion.layout.lossy[tensor].is_none() {
            return Ok(true);
        }
        let block = Taken { tensor, start, len: range.end - range.start, offset: block_offset, header: header.clone() };
        let Ok(bytes) = self.conversion.decode(&block, payload, &mut self.scratch) else { return Ok(false) };
        send(rounded, bytes);
        self.taken.push(block);
        Ok(true)
    }
}

/// Sends what was rounded to be hashed. Nobody listens only where hashing has failed, which will be
/// reported.
pub(super) fn send(rounded: &SyncSender<Vec<u8>>, bytes: Vec<u8>) {
    let _ = rounded.send(bytes);
}

/// Whether an unfinished file is of this conversion; no, if there is nothing in it.
fn is_resumable(partial: &PlainFile, header: &CmzHeader, replace: bool) -> Result<bool> {
    if partial.byte_len() < cmz_format::HEADER_LEN as u64 {
        return Ok(false);
    }
    let mut bytes = [0; cmz_format::HEADER_LEN];
    partial.read_at(0, &mut bytes)?;
    if bytes == header.to_bytes() {
        return Ok(true);
    }
    if replace {
        return Ok(false);
    }
    Err(Error::new(Code::OtherPartial, "an unfinished file of another conversion is in the way")
        .with_help("delete it, or pass -f to start over"))
}

fn crc_of(source: &dyn ReadAt, range: Range<u64>) -> Result<u32> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    source.read_at(range.start, &mut bytes)?;
    Ok(crc32(&bytes))
}
