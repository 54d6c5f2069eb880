//! The choice of how to store a tensor, by trying the candidates on samples of it.

use cmz_format::limits::{MAX_RUN, MAX_RUN_LEN};
use cmz_format::{Dtype, Result, Tensor, codec_id};

use crate::Scratch;
use crate::array::{StoredArray, StoredComponent};
use crate::encoding::{Array, Element, Encoding, plain::Plain};
use crate::registry;
use crate::stream::{Histogram, Level, StreamCodec, Width};

/// Bytes that a block decodes to, about.
pub const BLOCK_LEN: u64 = 1 << 20;
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
const WORTHWHILE: u64 = 50;

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
    let sample_len = samples.first().map_or(1, Vec::len) as u64;
    let factor = (block_len.min(byte_len) / sample_len).max(1) as u32;
    let mut stored = Chooser { options, element, factor, scratch }.choose(&samples);
    let contiguous = byte_len.div_ceil(block_len) <= MAX_RUN as u64 && byte_len <= MAX_RUN_LEN;
    if is_raw(&stored) && !contiguous {
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
/// In percent, what a stream must be of its raw form to be worth decoding.
const NOISE: u64 = 99;

/// Tries encodings and codecs on samples, each of which stands for a block.
struct Chooser<'a> {
    options: &'a EncodeOptions,
    element: Element,
    /// How many times as long as a sample a block is.
    factor: u32,
    scratch: &'a mut Scratch,
}

impl Chooser<'_> {
    fn choose(&mut self, samples: &[Vec<u8>]) -> StoredArray {
        let total: u64 = samples.iter().map(|sample| sample.len() as u64 * u64::from(self.factor)).sum();
        let best = registry::encodings_for(self.options.level)
            .filter_map(|encoding| self.try_encoding(encoding, samples))
            .min_by_key(|trial| trial.cost);
        match best {
            Some(trial) if self.options.codec.is_some() || trial.cost < (total - total / WORTHWHILE) * UNIT => {
                trial.stored
            }
            _ => StoredArray::new(&Plain, vec![StoredComponent::Stream(vec![RAW])]),
        }
    }

    /// Tries every candidate codec on every component of the samples. A stream may be
    /// stored by each codec that was the best for some sample, so that a mixed tensor gets
    /// the right one block by block, or raw.
    fn try_encoding(&mut self, encoding: &'static dyn Encoding, samples: &[Vec<u8>]) -> Option<Trial> {
        let defined = encoding.components(Array { element: self.element, byte_len: 0 })?;
        let mut winners: Vec<Vec<&'static dyn StreamCodec>> = vec![Vec::new(); defined.len()];
        let mut cost = 0;
        for sample in samples {
            let array = Array { element: self.element, byte_len: sample.len() };
            let components = encoding.components(array)?;
            let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0; c.array.byte_len]).collect();
            let mut slices: Vec<&mut [u8]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
            encoding.split(array, sample, &mut slices);
            for ((component, part), winners) in components.iter().zip(&parts).zip(&mut winners) {
                let Element::Symbol(width) = component.array.element else { return None };
                let (codec, part_cost) = self.best_codec(part, width);
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

    /// The codec that makes a stream cheapest, the forced one if there is one for this
    /// width, and the cost.
    fn best_codec(&mut self, symbols: &[u8], width: Width) -> (&'static dyn StreamCodec, u64) {
        let histogram = Histogram::of(symbols, width).scaled(self.factor);
        if let Some(forced) = self.options.codec.filter(|codec| codec.supports(width)) {
            return (forced, self.size(forced, symbols, &histogram) * UNIT);
        }
        let raw = (RAW, self.size(RAW, symbols, &histogram) * UNIT);
        registry::streams_for(self.options.level)
            .filter(|(codec, _)| codec.supports(width))
            .map(|(codec, weight)| (codec, self.size(codec, symbols, &histogram) * weight))
            .min_by_key(|&(_, cost)| cost)
            .filter(|&(_, cost)| cost < raw.1 / UNIT * NOISE)
            .unwrap_or(raw)
    }

    /// About how long a codec's stream of a block like these symbols is, in bytes.
    fn size(&mut self, codec: &dyn StreamCodec, symbols: &[u8], histogram: &Histogram) -> u64 {
        codec.estimate(histogram).unwrap_or_else(|| {
            let mut stream = self.scratch.buffer(0);
            let tried = &symbols[..symbols.len().min(TRIAL_LEN)];
            codec.encode(tried, histogram.width(), Level::Fast, self.scratch, &mut stream);
            let block = symbols.len() as u64 * u64::from(self.factor);
            let len = stream.len() as u64 * block / tried.len().max(1) as u64;
            self.scratch.recycle(stream);
            len
        })
    }
}
