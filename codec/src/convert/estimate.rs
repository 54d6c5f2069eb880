//! How small a file would become, from samples.

use std::collections::HashSet;

use cmz_format::{Result, block_header_len};

use super::{Phase, Progress, advance};
use crate::choose::{EncodeOptions, MIN_REFERENCE, choose};
use crate::io::ReadAt;
use crate::pipeline;
use crate::safetensors::{Entry, Header};
use crate::tensor::StoredTensor;

/// Blocks of a tensor that are encoded.
const SAMPLES: u64 = 2;

/// What a tensor would come to.
#[derive(Clone, Debug)]
pub struct TensorEstimate {
    /// Its name.
    pub name: String,
    /// Its length in the source, in bytes.
    pub byte_len: u64,
    /// What its blocks would take, in bytes, about.
    pub stored_len: u64,
    /// The encoding that would be chosen.
    pub encoding: String,
}

/// Tells about how small a safetensors file would become: of every tensor, samples and two
/// blocks are read and encoded. Nothing is written.
///
/// # Errors
/// As [`super::compress`] about the source, or [`cmz_format::Code::Interrupted`].
pub fn estimate(
    source: &dyn ReadAt,
    options: &EncodeOptions,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<TensorEstimate>> {
    let header = Header::read(source)?;
    progress.begin(Phase::Planning, header.tensors.len() as u64);
    let mut seen = HashSet::new();
    let mut estimates = Vec::with_capacity(header.tensors.len());
    pipeline::ordered(
        threads,
        header.tensors.iter(),
        |entry, scratch| estimate_tensor(source, entry, options, scratch),
        |(mut estimate, samples)| {
            if estimate.byte_len >= MIN_REFERENCE && !seen.insert((estimate.byte_len, samples)) {
                (estimate.stored_len, estimate.encoding) = (0, "same_as".to_owned());
            }
            estimates.push(estimate);
            advance(progress, 1)
        },
    )?;
    Ok(estimates)
}

fn estimate_tensor(
    source: &dyn ReadAt,
    entry: &Entry,
    options: &EncodeOptions,
    scratch: &mut crate::Scratch,
) -> Result<(TensorEstimate, blake3::Hash)> {
    let read = |offset, buffer: &mut [u8]| source.read_at(entry.range.start + offset, buffer);
    let choice = choose(entry, options, None, scratch, read)?;
    let (byte_len, block_len) = (entry.byte_len(), choice.tensor.block_len().max(1));
    let blocks = byte_len.div_ceil(block_len);
    let mut stored_len = byte_len;
    if !choice.tensor.is_contiguous() {
        let stored = StoredTensor::of_tensor(&choice.tensor)?;
        let (mut from, mut to) = (0, 0);
        for ordinal in (0..blocks).step_by(blocks.div_ceil(SAMPLES).max(1) as usize) {
            let mut block = vec![0; (byte_len - ordinal * block_len).min(block_len) as usize];
            read(ordinal * block_len, &mut block)?;
            from += block.len() as u64;
            to += stored.encode_block(&block, options.level, scratch, |_, _| Ok(()))?.payload.len() as u64;
        }
        stored_len = (u128::from(byte_len) * u128::from(to)).div_ceil(u128::from(from.max(1))) as u64;
    }
    stored_len += blocks * block_header_len(2) as u64;
    let encoding = choice.tensor.encoding.name;
    Ok((TensorEstimate { name: entry.name.clone(), byte_len, stored_len, encoding }, choice.samples))
}
