//! The blocks of a planned file: what is to be done for each, in file order.

use std::ops::Range;

use cmz_format::{LITERAL_BLOCK_LEN, Plan, PlannedSegment};

/// What is to be done for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Copy literal bytes.
    Literal,
    /// Describe the tensor.
    Descriptor,
    /// Encode a data block.
    Encode,
    /// Compute the checksum of one `of` so many blocks of a contiguous tensor, whose
    /// headers come before its payload.
    Checksum {
        /// Blocks of the tensor.
        of: usize,
    },
    /// Copy the payload of a block of a contiguous tensor.
    Payload,
}

/// A piece of work.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// Number of the block in the file.
    block: usize,
    /// Number of the tensor.
    pub(super) tensor: usize,
    /// Bytes of the source concerned.
    pub(super) range: Range<u64>,
    /// Where they begin in the tensor, in bytes.
    pub(super) start: u64,
}

impl Job {
    /// Whether the job is still to be done when so many blocks and block headers have
    /// been written.
    pub(super) fn is_due(&self, (blocks, headers): (usize, usize)) -> bool {
        self.block >= if matches!(self.work, Work::Checksum { .. }) { headers } else { blocks }
    }
}

/// A segment of the plan with its place.
#[derive(Clone, Copy)]
struct Placed<'a> {
    segment: &'a PlannedSegment,
    /// Number of its first block.
    block: usize,
    /// Number of the tensor, if it is one.
    tensor: usize,
    /// Where it begins in the source, in bytes.
    offset: u64,
}

fn placed(plan: &Plan) -> impl Iterator<Item = Placed<'_>> + Send {
    let (mut block, mut tensor, mut offset) = (0, 0, 0);
    plan.iter().map(move |segment| {
        let place = Placed { segment, block, tensor, offset };
        block += segment.blocks() as usize;
        offset += segment.byte_len();
        tensor += usize::from(matches!(segment, PlannedSegment::Tensor { .. }));
        place
    })
}

/// The pieces of a range, each of `len` bytes but the last.
fn pieces(offset: u64, byte_len: u64, len: u64) -> impl Iterator<Item = Range<u64>> + Send {
    (0..byte_len.div_ceil(len)).map(move |i| offset + i * len..offset + ((i + 1) * len).min(byte_len))
}

/// Everything that is to be done to write the planned file, in order.
pub(super) fn jobs(plan: &Plan) -> impl Iterator<Item = Job> + Send {
    placed(plan).flat_map(|Placed { segment, block, tensor, offset }| -> Box<dyn Iterator<Item = Job> + Send + '_> {
        let job = move |work, block, range: Range<u64>| {
            let start = range.start - offset;
            Job { work, block, tensor, range, start }
        };
        match segment {
            PlannedSegment::Literal(len) => Box::new(
                pieces(offset, *len, LITERAL_BLOCK_LEN)
                    .enumerate()
                    .map(move |(i, range)| job(Work::Literal, block + i, range)),
            ),
            PlannedSegment::Tensor { tensor, byte_len, shared } => {
                let first = block + 1 + usize::from(*shared);
                let count = tensor.block_count(*byte_len) as usize;
                let each = move |work| {
                    pieces(offset, *byte_len, tensor.block_len())
                        .enumerate()
                        .map(move |(i, range)| job(work, first + i, range))
                };
                let (before, during) = match tensor.is_contiguous() {
                    true => (Some(each(Work::Checksum { of: count })), each(Work::Payload)),
                    false => (None, each(Work::Encode)),
                };
                let descriptor = job(Work::Descriptor, block, offset..offset);
                Box::new(std::iter::once(descriptor).chain(before.into_iter().flatten()).chain(during))
            }
        }
    })
}

/// What is to be done for each block of the planned file, in order.
pub(super) fn block_jobs(plan: &Plan) -> impl Iterator<Item = Job> {
    jobs(plan).filter(|job| !matches!(job.work, Work::Checksum { .. }))
}
