//! The choice of how to store a tensor, by trying the candidates on samples of it.

use cmz_format::{Dtype, Result, Tensor, codec_id};

use crate::Scratch;
use crate::array::{StoredArray, StoredComponent};
use crate::encoding::{Array, Element, Encoding, plain::Plain};
use crate::registry;
use crate::stream::{Histogram, Level, StreamCodec, Width};

/// Bytes that a block decodes to, about.
pub const BLOCK_LEN: u64 = 1 << 20;
/// Bytes that a contiguous tensor's blocks must not exceed in number.
const MAX_CONTIGUOUS_BLOCKS: u64 = cmz_format::limits::MAX_RUN as u64;
/// Blocks hold whole multiples of so many elements where rows permit: what a GPU warp
/// or a SIMD loop decodes at a time.
const TILE: u64 = 4096;
/// Samples taken from a tensor, and bytes in each.
const SAMPLES: u64 = 4;
const SAMPLE_LEN: u64 = 16 << 10;
/// Bytes of a sample that a codec encodes which cannot estimate.
const TRIAL_LEN: usize = 8 << 10;
/// A tensor is compressed if that saves at least one part in so many; otherwise it is
/// stored raw, which needs no decoding and can be mapped.
const WORTHWHILE: usize = 50;

/// How tensors are encoded.
#[derive(Clone, Debug, Default)]
pub struct EncodeOptions {
    /// Time against size.
    pub level: Level,
    /// Stream codec to use wherever it can be used, whatever its gain.
    pub codec: Option<&'static dyn StreamCodec>,
}

/// Elements in a data block: as many whole rows (the last dimension) as make about
/// [`BLOCK_LEN`] bytes, in whole tiles if the rows permit.
fn block_elements(dtype: Option<Dtype>, shape: &[u64]) -> u64 {
    let bits = dtype.map_or(8, Dtype::bits);
    let target = BLOCK_LEN * 8 / bits;
    let row = if dtype.is_some() { shape.last().copied().unwrap_or(1).max(1) } else { 1 };
    let lcm = |a: u64, b: u64| a.checked_mul(b / gcd(a, b));
    // Eight elements end on a byte whatever their width is.
    let units = [lcm(row, TILE), lcm(row, 8)];
    match units.into_iter().flatten().find(|&unit| unit <= target) {
        Some(unit) => target / unit * unit,
        None => target,
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Decides how to store a tensor whose bytes `read` gives (offset in the tensor, buffer).
/// The decision depends on the tensor and the options alone.
///
/// # Errors
/// What `read` returns.
pub fn choose(
    name: &str,
    dtype: &str,
    shape: &[u64],
    byte_len: u64,
    options: &EncodeOptions,
    scratch: &mut Scratch,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    let known = Dtype::from_name(dtype);
    let element = known.map_or(Element::Opaque, Element::Dtype);
    let mut samples = Vec::new();
    for range in sample_ranges(byte_len) {
        let mut sample = vec![0; (range.end - range.start) as usize];
        read(range.start, &mut sample)?;
        samples.push(sample);
    }
    let block_elements = block_elements(known, shape);
    let block_len = known.unwrap_or(Dtype::U8).byte_len(block_elements).unwrap_or(BLOCK_LEN);
    let mut stored = choose_encoding(element, &samples, options, scratch);
    if is_raw(&stored) && byte_len.div_ceil(block_len) > MAX_CONTIGUOUS_BLOCKS {
        // Too long for one contiguous run: ordinary blocks.
        stored = StoredArray::new(&Plain, vec![StoredComponent::Stream(vec![ZSTD, RAW])]);
    }
    Ok(Tensor {
        name: name.to_owned(),
        dtype: dtype.to_owned(),
        shape: shape.to_owned(),
        block_elements,
        encoding: stored.to_manifest(element),
    })
}

const RAW: &dyn StreamCodec = &crate::stream::raw::Raw;
const ZSTD: &dyn StreamCodec = &crate::stream::zstd::Zstd;

fn is_raw(stored: &StoredArray) -> bool {
    matches!(stored.components(), [StoredComponent::Stream(codecs)] if codecs.len() == 1 && codecs[0].id() == codec_id::RAW)
}

/// Where samples are taken: evenly spread, each starting on a multiple of 64 bytes.
fn sample_ranges(byte_len: u64) -> Vec<std::ops::Range<u64>> {
    if byte_len <= SAMPLES * SAMPLE_LEN {
        return std::iter::once(0..byte_len).filter(|all| !all.is_empty()).collect();
    }
    (0..SAMPLES)
        .map(|i| {
            let start = (byte_len - SAMPLE_LEN) / (SAMPLES - 1) * i / 64 * 64;
            start..start + SAMPLE_LEN
        })
        .collect()
}

/// An encoding with the codecs of its streams, and what the samples cost with it.
struct Trial {
    stored: StoredArray,
    cost: u64,
}

/// Costs are bytes times this, so that the weights of codecs are whole numbers.
const UNIT: u64 = 100;

fn choose_encoding(
    element: Element,
    samples: &[Vec<u8>],
    options: &EncodeOptions,
    scratch: &mut Scratch,
) -> StoredArray {
    let total: usize = samples.iter().map(Vec::len).sum();
    let best = registry::encodings_for(options.level)
        .filter_map(|encoding| try_encoding(encoding, element, samples, options, scratch))
        .min_by_key(|trial| trial.cost);
    let enough = (total - total / WORTHWHILE) as u64 * UNIT;
    match best {
        Some(trial) if options.codec.is_some() || trial.cost < enough => trial.stored,
        _ => StoredArray::new(&Plain, vec![StoredComponent::Stream(vec![RAW])]),
    }
}

/// Tries every candidate codec on every component of the samples. A stream may be stored
/// by each codec that was the best for some sample, so that a mixed tensor gets the right
/// one block by block, or raw.
fn try_encoding(
    encoding: &'static dyn Encoding,
    element: Element,
    samples: &[Vec<u8>],
    options: &EncodeOptions,
    scratch: &mut Scratch,
) -> Option<Trial> {
    let defined = encoding.components(Array { element, byte_len: 0 })?;
    let mut winners: Vec<Vec<&'static dyn StreamCodec>> = vec![Vec::new(); defined.len()];
    let mut cost = 0;
    for sample in samples {
        let array = Array { element, byte_len: sample.len() };
        let components = encoding.components(array)?;
        let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0; c.array.byte_len]).collect();
        let mut slices: Vec<&mut [u8]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
        encoding.split(array, sample, &mut slices);
        for ((component, part), winners) in components.iter().zip(&parts).zip(&mut winners) {
            let Element::Symbol(width) = component.array.element else { return None };
            let (codec, part_cost) = best_codec(part, width, options, scratch);
            cost += part_cost;
            if !winners.iter().any(|w| w.id() == codec.id()) {
                winners.push(codec);
            }
        }
    }
    let components = winners.into_iter().map(|mut codecs| {
        if !codecs.iter().any(|codec| codec.id() == codec_id::RAW) {
            codecs.push(RAW);
        }
        codecs.sort_by_key(|codec| std::cmp::Reverse(codec.id()));
        StoredComponent::Stream(codecs)
    });
    Some(Trial { stored: StoredArray::new(encoding, components.collect()), cost })
}

/// The codec that makes a stream cheapest, the forced one if there is one for this width,
/// and the cost.
fn best_codec(
    symbols: &[u8],
    width: Width,
    options: &EncodeOptions,
    scratch: &mut Scratch,
) -> (&'static dyn StreamCodec, u64) {
    let histogram = Histogram::of(symbols, width);
    let mut cost = |codec: &'static dyn StreamCodec, weight| weight * size(codec, symbols, &histogram, scratch);
    if let Some(forced) = options.codec.filter(|codec| codec.supports(width)) {
        return (forced, cost(forced, UNIT));
    }
    registry::streams_for(options.level)
        .filter(|(codec, _)| codec.supports(width))
        .map(|(codec, weight)| (codec, cost(codec, weight)))
        .min_by_key(|&(_, cost)| cost)
        .unwrap_or((RAW, symbols.len() as u64 * UNIT))
}

/// About how long a codec's stream of the symbols is, in bytes.
fn size(codec: &dyn StreamCodec, symbols: &[u8], histogram: &Histogram, scratch: &mut Scratch) -> u64 {
    codec.estimate(histogram).unwrap_or_else(|| {
        let mut stream = scratch.buffer(0);
        let tried = &symbols[..symbols.len().min(TRIAL_LEN)];
        codec.encode(tried, histogram.width(), Level::Fast, scratch, &mut stream);
        let len = stream.len() as u64 * symbols.len() as u64 / tried.len().max(1) as u64;
        scratch.recycle(stream);
        len
    })
}
