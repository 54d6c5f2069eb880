//! The choice of how to store a tensor, by trying the candidates on samples of it.

use cmz_format::limits::{MAX_RUN, MAX_RUN_LEN};
use cmz_format::{Dtype, Encoding as ManifestEncoding, Result, Tensor, codec_id};

use crate::array::{StoredArray, StoredComponent};
use crate::encoding::reference::{BaseId, Operation, Reference};
use crate::encoding::{Array, Element, Encoding, plain::Plain};
use crate::registry;
use crate::safetensors::Entry;
use crate::stream::repeats::{WINDOWS, repeated_bytes};
use crate::stream::{Histogram, Level, StreamCodec, Width};
use crate::{Archive, Scratch};

/// Bytes that a block decodes to, about.
pub const BLOCK_LEN: u64 = 1 << 20;
/// Elements of a block, at most: where they are small, tables for half a MiB gain more than they cost.
const MOST_ELEMENTS: u64 = 1 << 19;
/// Blocks hold whole multiples of so many elements where rows permit: what a GPU warp
/// or a SIMD loop decodes at a time.
const TILE: u64 = 4096;
/// Samples taken from a tensor, and bytes in each.
const SAMPLES: u64 = 4;
const SAMPLE_LEN: u64 = 8 << 10;
/// Bytes of a sample that a codec encodes which cannot estimate.
const TRIAL_LEN: usize = 8 << 10;
/// A tensor is compressed if that saves at least one part in so many; otherwise it is
/// stored raw, which needs no decoding and can be mapped.
const WORTHWHILE: u64 = 50;
/// Bytes of a tensor for which a reference to another one is worth its while.
pub(crate) const MIN_REFERENCE: u64 = 256;

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
    let target = (BLOCK_LEN * 8 / bits).min(MOST_ELEMENTS);
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

/// A tensor of another file that a tensor may be stored against.
#[derive(Clone, Copy, Debug)]
pub struct Counterpart<'a> {
    /// The file.
    pub base: &'a Archive,
    /// The number of the tensor in it.
    pub tensor: usize,
}

impl<'a> Counterpart<'a> {
    /// The tensor of `base` with an entry's name, element type and shape.
    #[must_use]
    pub fn find(base: &'a Archive, entry: &Entry) -> Option<Self> {
        let number = base.index().find(&entry.name)?;
        let tensor = &base.tensors()[number];
        let same = tensor.dtype == entry.dtype
            && tensor.shape == entry.shape
            && base.index().tensor_len(number) == entry.byte_len()
            && base.check_supported(number).is_ok();
        same.then_some(Self { base, tensor: number })
    }
}

/// How a tensor is to be stored.
#[derive(Debug)]
pub struct Choice {
    /// Its description.
    pub tensor: Tensor,
    /// Digest of its samples: equal tensors have equal ones.
    pub samples: blake3::Hash,
}

/// Decides how to store a tensor whose bytes `read` gives (offset in the tensor, buffer):
/// alone, or against its counterpart in a base. The decision depends on the tensors and the
/// options alone.
///
/// # Errors
/// What `read` returns, or an error of the base.
pub fn choose(
    entry: &Entry,
    options: &EncodeOptions,
    counterpart: Option<Counterpart<'_>>,
    scratch: &mut Scratch,
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<Choice> {
    let byte_len = entry.byte_len();
    let known = Dtype::from_name(&entry.dtype);
    let element = known.map_or(Element::Opaque, Element::Dtype);
    let mut samples = Vec::new();
    for range in sample_ranges(byte_len) {
        let mut sample = vec![0; (range.end - range.start) as usize];
        read(range.start, &mut sample)?;
        samples.push(sample);
    }
    let block_elements = block_elements(known, &entry.shape);
    let block_len = known.unwrap_or(Dtype::U8).byte_len(block_elements).unwrap_or(BLOCK_LEN);
    let sample_len = samples.first().map_or(1, Vec::len) as u64;
    let factor = (block_len.min(byte_len) / sample_len).max(1) as u32;
    let mut chooser = Chooser { options, element, factor, scratch, spare: None };
    let mut alone = chooser.choose(&samples);
    let contiguous = byte_len.div_ceil(block_len) <= MAX_RUN as u64 && byte_len <= MAX_RUN_LEN;
    if is_raw(&alone.stored) && !contiguous {
        // Too long for one contiguous run: ordinary blocks.
        alone.stored = StoredArray::new(&Plain, vec![StoredComponent::Stream(vec![ZSTD, RAW])]);
    }
    let against = match counterpart.filter(|_| byte_len >= MIN_REFERENCE) {
        Some(counterpart) => chooser.choose_against(counterpart, &samples, alone.cost, byte_len, read)?,
        None => None,
    };
    let mut hasher = blake3::Hasher::new();
    for sample in &samples {
        hasher.update(sample);
    }
    let tensor = Tensor {
        name: entry.name.clone(),
        dtype: entry.dtype.clone(),
        shape: entry.shape.clone(),
        block_elements,
        encoding: against.unwrap_or_else(|| alone.stored.to_manifest(element)),
    };
    Ok(Choice { tensor, samples: hasher.finalize() })
}

const RAW: &dyn StreamCodec = &crate::stream::raw::Raw;
const ZSTD: &dyn StreamCodec = &crate::stream::zstd::Zstd;
const RANS: &dyn StreamCodec = &crate::stream::rans::Rans;

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
/// Bytes that one more stream costs in a block besides its own: its entry, padding, and a
/// share of the tensor's description.
const STREAM_OVERHEAD: u64 = 48;
/// In percent, what a stream must be of its raw form to be worth decoding.
const NOISE: u64 = 99;

/// Bits of information that windows of a plane should have, so that equal ones are no accident.
const WINDOW_BITS: u64 = 24;
/// Codecs that copy what repeats lose at least one part in so many of the rest.
const LOSS: u64 = 64;

/// Tries encodings and codecs on samples, each of which stands for a block.
struct Chooser<'a> {
    options: &'a EncodeOptions,
    element: Element,
    /// How many times as long as a sample a block is.
    factor: u32,
    scratch: &'a mut Scratch,
    /// A codec that every stream may be stored by, whether a sample asks for it or not.
    spare: Option<&'static dyn StreamCodec>,
}

impl Chooser<'_> {
    fn choose(&mut self, samples: &[Vec<u8>]) -> Trial {
        let total: u64 = samples.iter().map(|sample| sample.len() as u64 * u64::from(self.factor)).sum();
        match self.try_encodings(samples) {
            Some(trial) if self.options.codec.is_some() || trial.cost < (total - total / WORTHWHILE) * UNIT => trial,
            _ => {
                let stored = StoredArray::new(&Plain, vec![StoredComponent::Stream(vec![RAW])]);
                Trial { stored, cost: total * UNIT }
            }
        }
    }

    fn try_encodings(&mut self, samples: &[Vec<u8>]) -> Option<Trial> {
        registry::encodings_for(self.options.level)
            .filter_map(|encoding| self.try_encoding(encoding, samples))
            .min_by_key(|trial| trial.cost)
    }

    /// How a tensor is stored against its counterpart: as the same, or as the difference that
    /// costs least; `None` if that gains nothing over storing it alone.
    fn choose_against(
        &mut self,
        counterpart: Counterpart<'_>,
        samples: &[Vec<u8>],
        alone: u64,
        byte_len: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Option<ManifestEncoding>> {
        let Counterpart { base, tensor } = counterpart;
        let reference = |operation| {
            let name = base.tensors()[tensor].name.clone();
            Reference { operation, tensor: name, base: Some(BaseId::of(base.index())) }
        };
        let theirs = sample_ranges(byte_len)
            .into_iter()
            .map(|range| base.read_range(tensor, range))
            .collect::<Result<Vec<_>>>()?;
        if theirs == samples && self.is_same(counterpart, byte_len, read)? {
            return Ok(Some(reference(Operation::SameAs).to_manifest(None)));
        }
        // The samples may show no change where there is one.
        self.spare = self.options.codec.is_none().then_some(RANS);
        let mut best: Option<(Operation, Trial)> = None;
        for operation in [Operation::Xor, Operation::Subtract] {
            let mut differences = samples.to_vec();
            for (sample, theirs) in differences.iter_mut().zip(&theirs) {
                operation.take_difference(self.element, sample, theirs);
            }
            if let Some(trial) = self.try_encodings(&differences)
                && best.as_ref().is_none_or(|(_, best)| trial.cost < best.cost)
            {
                best = Some((operation, trial));
            }
        }
        Ok(best
            .filter(|(_, trial)| trial.cost < alone - alone / WORTHWHILE)
            .map(|(operation, trial)| reference(operation).to_manifest(Some(trial.stored.to_manifest(self.element)))))
    }

    /// Compares a tensor with its counterpart.
    fn is_same(
        &mut self,
        Counterpart { base, tensor }: Counterpart<'_>,
        byte_len: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut offset = 0;
        let mut same = true;
        while same && offset < byte_len {
            let len = (byte_len - offset).min(BLOCK_LEN) as usize;
            let (mut ours, mut theirs) = (self.scratch.buffer(len), self.scratch.buffer(len));
            read(offset, &mut ours)?;
            base.read_range_into(tensor, offset, self.scratch, &mut theirs)?;
            same = ours == theirs;
            self.scratch.recycle(ours);
            self.scratch.recycle(theirs);
            offset += len as u64;
        }
        Ok(same)
    }

    /// Tries every candidate codec on every component of the samples. A stream may be
    /// stored by each codec that was the best for some sample, so that a mixed tensor gets
    /// the right one block by block, or raw.
    fn try_encoding(&mut self, encoding: &'static dyn Encoding, samples: &[Vec<u8>]) -> Option<Trial> {
        let defined = encoding.components(Array::vector(self.element, 0))?;
        let mut winners: Vec<Vec<&'static dyn StreamCodec>> = vec![Vec::new(); defined.len()];
        let mut cost = 0;
        for sample in samples {
            let array = Array::vector(self.element, sample.len());
            let components = encoding.components(array)?;
            cost += (components.len() as u64 - 1) * STREAM_OVERHEAD * UNIT;
            let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0; c.array.byte_len]).collect();
            let mut slices: Vec<&mut [u8]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
            encoding.split(array, sample, &mut slices);
            for ((component, part), winners) in components.iter().zip(&parts).zip(&mut winners) {
                let Element::Symbol(width) = component.array.element else { return None };
                let (codec, part_cost) = self.best_codec(part, width, components.len() > 1);
                cost += part_cost;
                if !winners.iter().any(|w| w.id() == codec.id()) {
                    winners.push(codec);
                }
            }
        }
        let widths = defined.iter().map(|component| component.array.element);
        let components = winners.into_iter().zip(widths).map(|(mut codecs, element)| {
            let spare = self.spare.filter(|codec| matches!(element, Element::Symbol(width) if codec.supports(width)));
            if let Some(spare) = spare.filter(|spare| codecs.iter().all(|codec| codec.id() != spare.id())) {
                codecs.push(spare);
            }
            if !codecs.iter().any(|codec| codec.id() == codec_id::RAW) {
                codecs.push(RAW);
            }
            codecs.sort_by_key(|codec| std::cmp::Reverse(codec.id()));
            StoredComponent::Stream(codecs)
        });
        Some(Trial { stored: StoredArray::new(encoding, components.collect()), cost })
    }

    /// The codec that makes a stream cheapest, the forced one if there is one for this
    /// width, and the cost. A `plane` holds a part of each element.
    fn best_codec(&mut self, symbols: &[u8], width: Width, plane: bool) -> (&'static dyn StreamCodec, u64) {
        let histogram = Histogram::of(symbols, width).scaled(self.factor);
        if let Some(forced) = self.options.codec.filter(|codec| codec.supports(width)) {
            return (forced, self.size(forced, symbols, &histogram) * UNIT);
        }
        let raw = (RAW, self.size(RAW, symbols, &histogram) * UNIT);
        let mut best = (RAW, raw.1 / UNIT * NOISE);
        // Those that can estimate come first: they may save the others their trials.
        for estimates in [true, false] {
            for (codec, weight) in registry::streams_for(self.options.level).filter(|c| c.0.supports(width)) {
                let cost = match codec.estimate(&histogram) {
                    Some(size) if estimates => size * weight,
                    None if !estimates && self.least_size(symbols, &histogram, plane) * weight < best.1 => {
                        self.size(codec, symbols, &histogram) * weight
                    }
                    _ => continue,
                };
                if cost < best.1 {
                    best = (codec, cost);
                }
            }
        }
        if best.0.id() == RAW.id() { raw } else { best }
    }

    /// What a codec that cannot estimate might need at least, in bytes: the entropy of what does
    /// not repeat. Of that one part in [`LOSS`] is lost, as such codecs use whole bits.
    fn least_size(&self, symbols: &[u8], histogram: &Histogram, plane: bool) -> u64 {
        let len = symbols.len() as u64;
        let entropy = histogram.entropy_bits() / 8;
        let block = len * u64::from(self.factor);
        let tried = &symbols[..symbols.len().min(TRIAL_LEN)];
        // Fields of whole elements repeat one by one. Planes have none, but so little
        // information in a byte that short windows are equal by accident.
        let information = 8 * entropy / block.max(1);
        let window = if plane { WINDOW_BITS.div_ceil(information.max(1)) } else { 0 };
        let repeated = repeated_bytes(tried, window.clamp(*WINDOWS.start(), *WINDOWS.end()));
        let alone = entropy - entropy * repeated / tried.len().max(1) as u64;
        alone + alone / LOSS
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
