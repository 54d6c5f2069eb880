//! Rounding tensors unit by unit: several units at a time, as many as memory permits, whatever the size of the tensors.

use std::io::Write as _;
use std::iter::Peekable;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use cmz_format::{BlockHeader, Code, EncodedBlock, Error, Result};

use super::blocks::{Conversion, FileWriter, send};
use super::plan::{Job, Work, jobs};
use super::{Deviation, LossyTensor, advance};
use crate::io::{PlainFile, ReadAt};
use crate::{Scratch, pipeline};

/// Memory that units being rounded take together, in bytes, if one alone does not take more.
const MEMORY: u64 = 2 << 30;

/// A run of blocks of one tensor that is rounded at once.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    tensor: usize,
    /// Its bytes in the source.
    range: Range<u64>,
    /// Its first element in the tensor.
    first: u64,
    /// Blocks at its beginning that are written already.
    written: usize,
    /// Whether the tensor's descriptor comes before it.
    descriptor: bool,
    /// Whether it is the tensor's last.
    last: bool,
}

/// A block of a rounded tensor that an interrupted conversion has left.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) tensor: usize,
    /// Where it begins in the tensor, and its length, in bytes.
    pub(super) start: u64,
    pub(super) len: u64,
    /// Where its header lies in the unfinished file.
    pub(super) offset: u64,
    pub(super) header: BlockHeader,
}

/// A unit that has been rounded, and what its blocks decode to.
struct Rounded {
    unit: Unit,
    blocks: Vec<(EncodedBlock, Vec<u8>)>,
    deviation: Deviation,
}

impl Conversion<'_> {
    /// The unit of the next jobs, if they are of a rounded tensor.
    pub(super) fn next_unit(&self, jobs: &mut Peekable<impl Iterator<Item = Job>>) -> Option<Unit> {
        let next = jobs.peek()?;
        let tensor = next.tensor;
        if next.work == Work::Literal || self.lossy(tensor).is_none() {
            return None;
        }
        let descriptor = jobs.next_if(|job| job.work == Work::Descriptor).is_some();
        let unit_of = |job: &Job| (job.tensor, job.start / self.unit_len(job.tensor));
        let first = jobs.next_if(|job| job.tensor == tensor && job.work == Work::Encode)?;
        let (_, number) = unit_of(&first);
        while jobs.next_if(|job| job.work == Work::Encode && unit_of(job) == (tensor, number)).is_some() {}
        let mut unit = self.unit(tensor, number);
        unit.written = ((first.start - number * self.unit_len(tensor)) / self.block_len(tensor)) as usize;
        unit.descriptor = descriptor;
        Some(unit)
    }

    fn unit(&self, tensor: usize, number: u64) -> Unit {
        let whole = &self.layout.header.tensors[tensor].range;
        let start = whole.start + number * self.unit_len(tensor);
        let end = whole.end.min(start + self.unit_len(tensor));
        let elements = self.lossy(tensor).map_or(0, |lossy| lossy.block_elements * lossy.unit_blocks as u64);
        let last = end == whole.end;
        Unit { tensor, range: start..end, first: number * elements, written: 0, descriptor: false, last }
    }

    fn lossy(&self, tensor: usize) -> Option<&LossyTensor> {
        self.layout.lossy[tensor].as_ref()
    }

    fn block_len(&self, tensor: usize) -> u64 {
        let entry = &self.layout.header.tensors[tensor];
        self.lossy(tensor).map_or(1, |lossy| lossy.tensor(entry).block_len()).max(1)
    }

    fn unit_len(&self, tensor: usize) -> u64 {
        self.lossy(tensor).map_or(1, |lossy| self.block_len(tensor) * lossy.unit_blocks as u64)
    }

    /// Rounds units and writes their blocks, but those that are written already.
    pub(super) fn write_lossy(
        &self,
        units: impl Iterator<Item = Unit> + Send,
        deviations: &mut [Deviation],
        writer: &mut FileWriter,
        partial: &Path,
        rounded: &SyncSender<Vec<u8>>,
    ) -> Result<()> {
        let (together, each) = self.threads();
        pipeline::ordered(
            together,
            units,
            |unit, _| {
                let name = &self.layout.header.tensors[unit.tensor].name;
                self.round(unit, each).map_err(|e| e.in_tensor(name))
            },
            |Rounded { unit, blocks, deviation }| {
                if unit.descriptor {
                    writer.descriptor().map_err(|e| e.in_file(partial))?;
                }
                for (block, bytes) in blocks.into_iter().skip(unit.written) {
                    writer.data(&block).map_err(|e| e.in_file(partial))?;
                    let len = bytes.len() as u64;
                    send(rounded, bytes);
                    advance(self.progress, len)?;
                }
                // What took long to round is not lost if the program is killed.
                writer.sink_mut().flush().map_err(|e| Error::io("cannot write the file", e).in_file(partial))?;
                self.add(&unit, deviation, deviations, writer)
            },
        )
    }

    /// Units that are rounded at a time, and threads for each.
    fn threads(&self) -> (usize, usize) {
        let lossy = || {
            self.layout
                .lossy
                .iter()
                .zip(&self.layout.header.tensors)
                .filter_map(|(l, entry)| Some((l.as_ref()?, entry)))
        };
        let most = lossy().map(|(lossy, _)| lossy.unit_memory).max().unwrap_or(0);
        let units = lossy().map(|(lossy, entry)| {
            let len = lossy.tensor(entry).block_len().max(1) * lossy.unit_blocks as u64;
            entry.byte_len().div_ceil(len)
        });
        let together = (MEMORY / most.max(1)).min(units.sum()).clamp(1, self.options.threads.max(1) as u64) as usize;
        (together, (self.options.threads / together).max(1))
    }

    fn round(&self, unit: Unit, threads: usize) -> Result<Rounded> {
        let too_few = |blocks: usize, pieces: usize| {
            Error::new(Code::InvalidArgument, format!("a quantizer made {blocks} blocks of {pieces}"))
        };
        let Some(lossy) = self.lossy(unit.tensor) else { return Err(too_few(0, 0)) };
        let original = self.read(&unit)?;
        let parts = lossy.quantizer.quantize(unit.first, &original, threads)?;
        let pieces = original.chunks(self.block_len(unit.tensor) as usize);
        if pieces.len() != parts.len() {
            return Err(too_few(parts.len(), pieces.len()));
        }
        let mut blocks = Vec::with_capacity(parts.len());
        let mut decoded = Vec::with_capacity(original.len());
        pipeline::ordered(
            threads,
            parts.into_iter().zip(pieces),
            |(parts, piece), scratch| {
                self.stored[unit.tensor].encode_parts(piece.len(), parts, self.options.encode.level, scratch)
            },
            |(block, bytes)| {
                decoded.extend_from_slice(&bytes);
                blocks.push((block, bytes));
                Ok(())
            },
        )?;
        let deviation = lossy.quantizer.measure(unit.first, &original, &decoded)?;
        Ok(Rounded { unit, blocks, deviation })
    }

    fn read(&self, unit: &Unit) -> Result<Vec<u8>> {
        let mut original = vec![0; (unit.range.end - unit.range.start) as usize];
        self.source.read_at(unit.range.start, &mut original)?;
        Ok(original)
    }

    /// Adds how far a unit is from what it was. After a tensor's last one it is recorded.
    fn add(&self, unit: &Unit, of: Deviation, all: &mut [Deviation], writer: &mut FileWriter) -> Result<()> {
        all[unit.tensor].add(of);
        if let Some(lossy) = self.lossy(unit.tensor).filter(|_| unit.last) {
            let name = &self.layout.header.tensors[unit.tensor].name;
            writer.lossy(lossy.record(name, all[unit.tensor]).map_err(|e| e.in_tensor(name))?);
        }
        Ok(())
    }

    /// Measures the units of which all blocks are there. Those of the last one, if it is not whole, are rounded again with the others.
    pub(super) fn measure_taken(
        &self,
        taken: Vec<Taken>,
        writer: &mut FileWriter,
        partial: &Path,
    ) -> Result<Vec<Deviation>> {
        let mut deviations = vec![Deviation::default(); self.layout.lossy.len()];
        let written = writer.blocks_written();
        let next = jobs(&self.layout.plan).find(|job| job.is_due(written) && job.work == Work::Encode);
        let next = next.map_or((usize::MAX, 0), |job| (job.tensor, job.start));
        let mut taken = taken.into_iter().take_while(|block| (block.tensor, block.start) < next).peekable();
        let units = std::iter::from_fn(|| {
            let (tensor, number) =
                taken.peek().map(|block| (block.tensor, block.start / self.unit_len(block.tensor)))?;
            let same = |block: &Taken| (block.tensor, block.start / self.unit_len(tensor)) == (tensor, number);
            let blocks: Vec<Taken> = std::iter::from_fn(|| taken.next_if(same)).collect();
            Some((self.unit(tensor, number), blocks))
        });
        let is_whole = |(unit, blocks): &(Unit, Vec<Taken>)| {
            blocks.iter().map(|block| block.len).sum::<u64>() == unit.range.end - unit.range.start
        };
        let file = PlainFile::open(partial)?;
        pipeline::ordered(
            self.threads().0,
            units.filter(is_whole),
            |(unit, blocks), scratch| {
                let name = &self.layout.header.tensors[unit.tensor].name;
                let deviation = self.measure(&unit, &blocks, &file, scratch).map_err(|e| e.in_tensor(name))?;
                Ok((unit, deviation))
            },
            |(unit, deviation)| self.add(&unit, deviation, &mut deviations, writer),
        )?;
        Ok(deviations)
    }

    fn measure(&self, unit: &Unit, blocks: &[Taken], file: &PlainFile, scratch: &mut Scratch) -> Result<Deviation> {
        let Some(lossy) = self.lossy(unit.tensor) else { return Ok(Deviation::default()) };
        let mut decoded = Vec::new();
        for block in blocks {
            let mut payload = vec![0; block.header.stored_len as usize];
            file.read_at(block.offset + u64::from(block.header.payload_distance), &mut payload)?;
            decoded.extend(self.decode(block, &payload, scratch)?);
        }
        lossy.quantizer.measure(unit.first, &self.read(unit)?, &decoded)
    }

    /// What a block decodes to.
    pub(super) fn decode(&self, block: &Taken, payload: &[u8], scratch: &mut Scratch) -> Result<Vec<u8>> {
        let mut bytes = vec![0; block.len as usize];
        self.stored[block.tensor].decode_block(&block.header, payload, scratch, &mut bytes, |_, _| Ok(()))?;
        block.header.check_decoded(&bytes)?;
        Ok(bytes)
    }
}
