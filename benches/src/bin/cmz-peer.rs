//! The worker of `benches/peers`: makes the data sets, and measures cmz and memcpy on one of
//! them, step by step as it is told, so that others can be measured in between.
//!
//! ```text
//! cmz-peer datasets MODEL FOLDER GAUSSIAN_BYTES    prints name and path of each data set
//! cmz-peer serve FILE SLICE_BYTES                  prints a line of JSON, then obeys:
//!     memcpy T, encode LEVEL T, choose LEVEL, code LEVEL, decode LEVEL T, stream LEVEL T,
//!     encode_on PATH LEVEL, decode_on PATH LEVEL
//! ```
//! The answer to a step is the seconds that each slice took (on one thread) or all of the
//! data (on several). Every result is compared with the source; a difference ends the worker.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cmz_benches::datasets;
use cmz_codec::array::{StoredArray, StoredComponent, element_of};
use cmz_codec::choose::{EncodeOptions, choose};
use cmz_codec::convert::{CompressOptions, compress};
use cmz_codec::encoding::{Array, Element, StreamRef, float_planes::FloatPlanes};
use cmz_codec::io::{IoMode, PlainFile, ReadAt};
use cmz_codec::safetensors::Entry;
use cmz_codec::stream::{Level, tiered};
use cmz_codec::{Archive, OpenOptions, Scratch, pipeline, safetensors};
use cmz_format::crc32;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["datasets", model, folder, gaussian_len] => {
            for (name, path) in datasets::make(model.as_ref(), folder.as_ref(), gaussian_len.parse()?)? {
                println!("{name} {}", path.display());
            }
            Ok(())
        }
        ["serve", file, slice_len] => serve(file.as_ref(), slice_len.parse()?),
        _ => Err("usage: cmz-peer datasets MODEL FOLDER GAUSSIAN_BYTES | serve FILE SLICE_BYTES".into()),
    }
}

fn serve(path: &Path, slice_len: usize) -> Result<()> {
    let mut bench = Bench::new(path, slice_len)?;
    println!("{}", bench.describe());
    for line in std::io::stdin().lock().lines() {
        let seconds = bench.step(&line?.split(' ').collect::<Vec<_>>())?;
        let seconds: Vec<String> = seconds.iter().map(|s| format!("{s:.9}")).collect();
        println!("{}", seconds.join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// A file in memory that an archive reads and this program too.
struct Shared(Arc<Vec<u8>>);

impl ReadAt for Shared {
    fn byte_len(&self) -> u64 {
        self.0.byte_len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> cmz_codec::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn slice(&self, range: Range<u64>) -> cmz_codec::Result<Option<&[u8]>> {
        self.0.slice(range)
    }
}

/// A block, and where its elements lie in the data.
#[derive(Clone)]
struct Block {
    tensor: usize,
    ordinal: usize,
    range: Range<usize>,
    element: Element,
}

/// The data, coded at one level.
struct Coded {
    level: Level,
    file: Arc<Vec<u8>>,
    archive: Archive,
    stored: Vec<StoredArray>,
    blocks: Vec<Block>,
    /// What the blocks were encoded to last.
    payloads: Vec<Vec<u8>>,
    scratch: Scratch,
}

struct Bench {
    /// The elements of all tensors, one behind the other.
    data: Vec<u8>,
    source_len: u64,
    slices: Vec<Range<usize>>,
    coded: [Coded; 2],
    out: Vec<u8>,
}

impl Bench {
    fn new(path: &Path, slice_len: usize) -> Result<Self> {
        let source = PlainFile::open(path)?;
        let header = safetensors::Header::read(&source)?;
        let mut data = vec![0; (source.byte_len() - header.len) as usize];
        source.read_at(header.len, &mut data)?;
        let coded = [Coded::new(path, Level::Fast)?, Coded::new(path, Level::Max)?];
        let mut slices: Vec<Range<usize>> = Vec::new();
        for block in &coded[0].blocks {
            match slices.last_mut().filter(|slice| slice.len() < slice_len) {
                Some(slice) => slice.end = block.range.end,
                None => slices.push(block.range.clone()),
            }
        }
        if slices.last().map(|slice| slice.end) != Some(data.len()) {
            return Err("the tensors are not one behind the other".into());
        }
        Ok(Self { out: vec![0xa5; data.len()], data, source_len: source.byte_len(), slices, coded })
    }

    fn describe(&self) -> serde_json::Value {
        let [fast, max] = &self.coded;
        serde_json::json!({
            "slices": self.slices.iter().map(|s| [s.start, s.end]).collect::<Vec<_>>(),
            "source_len": self.source_len,
            "fast": { "len": fast.file.len(), "chosen": fast.chosen() },
            "max": { "len": max.file.len(), "chosen": max.chosen() },
            "paths": tiered::paths().map(tiered::Path::name).collect::<Vec<_>>(),
        })
    }

    fn step(&mut self, words: &[&str]) -> Result<Vec<f64>> {
        let (data, out) = (&self.data[..], &mut self.out[..]);
        let coded = &mut self.coded[usize::from(words.contains(&"max"))];
        let threads = words.last().and_then(|word| word.parse().ok()).unwrap_or(1);
        let seconds = match *words.first().ok_or("an empty line")? {
            "memcpy" => memcpy(data, out, &self.slices, threads),
            "choose" => coded.measure(&self.slices, |coded, block| coded.choose(block, data))?,
            "encode" if threads == 1 => coded.measure(&self.slices, |coded, block| coded.encode(block, data))?,
            "code" => coded.measure(&self.slices, |coded, block| coded.code(block, data))?,
            "encode" => coded.encode_all(data, threads)?,
            "encode_on" => {
                let path = path_named(words[1])?;
                coded.measure(&self.slices, |coded, block| coded.encode_on(path, block, data))?
            }
            "decode" if threads == 1 => coded.measure(&self.slices, |coded, block| coded.decode(block, out))?,
            "decode" => coded.decode_all(out, threads)?,
            "decode_on" => {
                let path = path_named(words[1])?;
                coded.measure(&self.slices, |coded, block| coded.decode_on(path, block, out))?
            }
            "stream" => coded.stream(out, threads)?,
            other => return Err(format!("unknown step {other:?}").into()),
        };
        if words[0].starts_with("encode") || words[0] == "code" {
            coded.check_payloads().map_err(|e| format!("{words:?}: {e}"))?;
        } else if words[0] != "choose" && out != data {
            return Err(format!("{words:?}: the result differs from the source").into());
        }
        Ok(seconds)
    }
}

impl Coded {
    fn new(path: &Path, level: Level) -> Result<Self> {
        let target = path.with_extension("cmz");
        let encode = EncodeOptions { level, ..EncodeOptions::default() };
        compress(
            path,
            &target,
            &CompressOptions {
                encode,
                threads: 2,
                replace: true,
                verify: true,
                io: IoMode::Auto,
                bases: Vec::new(),
                quantizer: None,
            },
            &(),
        )?;
        let file = Arc::new(std::fs::read(&target)?);
        std::fs::remove_file(&target)?;
        let archive = Archive::from_reader(Box::new(Shared(file.clone())), OpenOptions::default())?;
        let stored = archive.tensors().iter().map(StoredArray::of_tensor).collect::<cmz_codec::Result<_>>()?;
        let (mut blocks, mut start) = (Vec::new(), 0);
        for (tensor, described) in archive.tensors().iter().enumerate() {
            let records = &archive.index().table()[archive.index().tensor_blocks(tensor).data.clone()];
            for (ordinal, record) in records.iter().enumerate() {
                let range = start..start + record.decoded_len as usize;
                start = range.end;
                blocks.push(Block { tensor, ordinal, range, element: element_of(described) });
            }
        }
        let payloads = vec![Vec::new(); blocks.len()];
        Ok(Self { level, file, archive, stored, blocks, payloads, scratch: Scratch::new() })
    }

    /// What share of the bytes is stored how.
    fn chosen(&self) -> BTreeMap<String, f64> {
        let total: u64 = (0..self.stored.len()).map(|tensor| self.archive.index().tensor_len(tensor)).sum();
        let mut shares = BTreeMap::new();
        for (number, tensor) in self.archive.tensors().iter().enumerate() {
            let components = self.stored[number].components().iter().map(|component| match component {
                StoredComponent::Stream(codecs) => codecs.iter().map(|c| c.name()).collect::<Vec<_>>().join("/"),
                StoredComponent::Encoded(_) => "nested".to_owned(),
            });
            let name = format!("{}({})", tensor.encoding.name, components.collect::<Vec<_>>().join(", "));
            *shares.entry(name).or_default() += self.archive.index().tensor_len(number) as f64 / total as f64;
        }
        shares
    }

    /// Times `work` over the blocks of each slice, by number.
    fn measure(
        &mut self,
        slices: &[Range<usize>],
        mut work: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let mut next = 0;
        let mut seconds = Vec::new();
        for slice in slices {
            let end = self.blocks.partition_point(|block| block.range.start < slice.end);
            let start = Instant::now();
            for number in next..end {
                work(self, number)?;
            }
            seconds.push(start.elapsed().as_secs_f64());
            next = end;
        }
        Ok(seconds)
    }

    /// Decides how to store a tensor, if this is its first block.
    fn choose(&mut self, number: usize, data: &[u8]) -> Result<()> {
        Ok(choose_first(&self.archive, self.level, &self.blocks[number], data, &mut self.scratch)?)
    }

    /// Decides how, if the block is its tensor's first, and encodes it.
    fn encode(&mut self, number: usize, data: &[u8]) -> Result<()> {
        self.choose(number, data)?;
        self.code(number, data)
    }

    /// Encodes a block in the way decided on before.
    fn code(&mut self, number: usize, data: &[u8]) -> Result<()> {
        let Self { stored, blocks, payloads, scratch, level, .. } = self;
        code_block(stored, *level, &blocks[number], data, scratch, &mut payloads[number]);
        Ok(())
    }

    fn encode_all(&mut self, data: &[u8], threads: usize) -> Result<Vec<f64>> {
        let Self { archive, stored, blocks, payloads, level, .. } = self;
        let start = Instant::now();
        pipeline::ordered(
            threads,
            blocks.iter().zip(payloads),
            |(block, payload), scratch| {
                choose_first(archive, *level, block, data, scratch)?;
                code_block(stored, *level, block, data, scratch, payload);
                Ok(())
            },
            Ok,
        )?;
        Ok(vec![start.elapsed().as_secs_f64()])
    }

    /// As [`Self::encode`], with `float_planes` on a stated path.
    fn encode_on(&mut self, path: tiered::Path, number: usize, data: &[u8]) -> Result<()> {
        let block = &self.blocks[number];
        let part = &data[block.range.clone()];
        let array = Array::vector(block.element, part.len());
        let mut streams = [self.scratch.buffer(0), self.scratch.buffer(0)];
        let fused = self.is_tiered(block.tensor)
            && FloatPlanes::encode_fused_on(path, array, part, &[2, 0], &mut self.scratch, &mut streams);
        if fused {
            choose_first(&self.archive, self.level, block, data, &mut self.scratch)?;
            let payload = &mut self.payloads[number];
            payload.clear();
            for stream in &streams {
                payload.resize(payload.len().next_multiple_of(16), 0);
                payload.extend_from_slice(stream);
            }
            black_box((crc32(payload), crc32(part)));
        }
        streams.into_iter().for_each(|stream| self.scratch.recycle(stream));
        if fused { Ok(()) } else { self.encode(number, data) }
    }

    /// Whether a tensor is stored as `tiered` exponents and raw signs and mantissas.
    fn is_tiered(&self, tensor: usize) -> bool {
        let first = |component: &StoredComponent| match component {
            StoredComponent::Stream(codecs) => codecs.first().map(|codec| codec.id()),
            StoredComponent::Encoded(_) => None,
        };
        let ids: Vec<Option<u16>> = self.stored[tensor].components().iter().map(first).collect();
        self.archive.tensors()[tensor].encoding.name == "float_planes" && ids == [Some(2), Some(0)]
    }

    fn decode(&mut self, number: usize, out: &mut [u8]) -> Result<()> {
        let block = &self.blocks[number];
        let out = &mut out[block.range.clone()];
        Ok(self.archive.read_block(block.tensor, block.ordinal, &mut self.scratch, out)?)
    }

    fn decode_all(&mut self, mut out: &mut [u8], threads: usize) -> Result<Vec<f64>> {
        let mut jobs = Vec::new();
        for block in &self.blocks {
            let (first, rest) = out.split_at_mut(block.range.len());
            jobs.push((block, first));
            out = rest;
        }
        let start = Instant::now();
        pipeline::ordered(
            threads,
            jobs.into_iter(),
            |(block, out), scratch| self.archive.read_block(block.tensor, block.ordinal, scratch, out),
            Ok,
        )?;
        Ok(vec![start.elapsed().as_secs_f64()])
    }

    /// As [`Self::decode`], with `float_planes` on a stated path.
    fn decode_on(&mut self, path: tiered::Path, number: usize, out: &mut [u8]) -> Result<()> {
        let Block { tensor, ordinal, range, element } = self.blocks[number].clone();
        let out = &mut out[range];
        let index = self.archive.index();
        let header = self.archive.block_header(tensor, ordinal)?;
        let record = &index.table()[index.tensor_blocks(tensor).data.clone()][ordinal];
        let payload = self.file.get(record.payload_offset() as usize..).ok_or("the payload is not in the file")?;
        let payload = &payload[..record.stored_len as usize];
        header.check_stored(payload)?;
        let bytes = header.split(payload)?;
        let streams: Vec<StreamRef<'_>> = header.streams.iter().map(|s| s.codec).zip(bytes).collect();
        let array = Array::vector(element, out.len());
        let planes = self.archive.tensors()[tensor].encoding.name == "float_planes";
        match planes.then(|| FloatPlanes::decode_fused_on(path, array, &streams, &mut self.scratch, out)).flatten() {
            Some(result) => Ok(result.map_err(|e| e.to_string())?),
            None => Ok(self.archive.read_block(tensor, ordinal, &mut self.scratch, out)?),
        }
    }

    /// Hands out the blocks one by one in recycled memory, with nobody who keeps them.
    fn stream(&mut self, out: &mut [u8], threads: usize) -> Result<Vec<f64>> {
        let tensors = 0..self.stored.len();
        let start = Instant::now();
        self.archive.for_each_block(tensors.clone(), threads, |block| {
            black_box(block.bytes);
            Ok(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let mut at = 0;
        self.archive.for_each_block(tensors, threads, |block| {
            out[at..at + block.bytes.len()].copy_from_slice(block.bytes);
            at += block.bytes.len();
            Ok(())
        })?;
        Ok(vec![seconds])
    }

    /// Fails unless the blocks were encoded to what the file, which has been verified, holds.
    fn check_payloads(&self) -> Result<()> {
        let index = self.archive.index();
        for (block, payload) in self.blocks.iter().zip(&self.payloads) {
            let record = &index.table()[index.tensor_blocks(block.tensor).data.clone()][block.ordinal];
            let range = record.payload_range();
            if self.file.get(range.start as usize..range.end as usize) != Some(payload) {
                let what = (block.tensor, block.ordinal);
                return Err(format!("block {what:?} was encoded to other bytes than the file's").into());
            }
        }
        Ok(())
    }
}

/// Decides how to store a tensor whose first block this is, as a conversion does.
fn choose_first(
    archive: &Archive,
    level: Level,
    block: &Block,
    data: &[u8],
    scratch: &mut Scratch,
) -> cmz_codec::Result<()> {
    if block.ordinal > 0 {
        return Ok(());
    }
    let tensor = &archive.tensors()[block.tensor];
    let options = EncodeOptions { level, ..EncodeOptions::default() };
    let entry = Entry {
        name: tensor.name.clone(),
        dtype: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
        range: 0..archive.index().tensor_len(block.tensor),
    };
    let chosen = choose(&entry, &options, None, scratch, |offset, buffer| {
        let start = block.range.start + offset as usize;
        buffer.copy_from_slice(&data[start..start + buffer.len()]);
        Ok(())
    })?;
    assert_eq!(&chosen.tensor, tensor, "the choice depends on the tensor alone");
    Ok(())
}

/// Encodes a block into the memory of `payload`.
fn code_block(
    stored: &[StoredArray],
    level: Level,
    block: &Block,
    data: &[u8],
    scratch: &mut Scratch,
    payload: &mut Vec<u8>,
) {
    scratch.recycle(std::mem::take(payload));
    let encoded = {
        let array = Array::vector(block.element, block.range.len());
        stored[block.tensor].encode_block(array, &data[block.range.clone()], level, scratch)
    };
    *payload = black_box(encoded).payload;
}

fn memcpy(data: &[u8], out: &mut [u8], slices: &[Range<usize>], threads: usize) -> Vec<f64> {
    if threads == 1 {
        let copy = |slice: &Range<usize>| {
            let start = Instant::now();
            black_box(&mut out[slice.clone()]).copy_from_slice(black_box(&data[slice.clone()]));
            start.elapsed().as_secs_f64()
        };
        return slices.iter().map(copy).collect();
    }
    let part = data.len().div_ceil(threads);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (data, out) in data.chunks(part).zip(out.chunks_mut(part)) {
            scope.spawn(|| black_box(out).copy_from_slice(black_box(data)));
        }
    });
    vec![start.elapsed().as_secs_f64()]
}

fn path_named(name: &str) -> Result<tiered::Path> {
    Ok(tiered::paths().find(|path| path.name() == name).ok_or("this machine has no such path")?)
}
