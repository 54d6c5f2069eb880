//! safetensors to `.cmz`.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use cmz_format::{
    BlockKind, Code, EncodedBlock, Error, Header as CmzHeader, Item, Limits, Plan, PlannedSegment, Result, Source,
    VERSION, View, Writer, crc32,
};

use super::plan::{Job, Work, jobs, source_ranges};
use super::{CHUNK, GENERATOR, Phase, Progress, Silent, Target, advance, parse_items, sha256_of};
use crate::choose::{Choice, Counterpart, EncodeOptions, MIN_REFERENCE, choose};
use crate::encoding::reference::{Operation, Reference};
use crate::io::{self, IoMode, PlainFile, ReadAt};
use crate::safetensors::{Entry, Header};
use crate::tensor::StoredTensor;
use crate::{Archive, OpenOptions, Scratch, lock, pipeline};

/// How a file is compressed.
#[derive(Clone, Debug)]
pub struct CompressOptions {
    /// How tensors are encoded.
    pub encode: EncodeOptions,
    /// Threads that encode.
    pub threads: usize,
    /// How the source, and the result when it is compared with it, are read: as
    /// [`IoMode::for_one_pass`] says.
    pub io: IoMode,
    /// Whether an existing target, and an unfinished file of another conversion, is replaced.
    pub replace: bool,
    /// Whether the result is decoded and compared with the source before it appears.
    pub verify: bool,
    /// Files to store tensors against: the one is taken that holds the most bytes in tensors
    /// of the same name, element type and shape, the first among equals. It will be needed to
    /// decode the result.
    pub bases: Vec<Arc<Archive>>,
}

/// What a conversion did.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// Length of the source, in bytes.
    pub source_len: u64,
    /// SHA-256 of the source.
    pub sha256: String,
    /// Length of the `.cmz` file, in bytes.
    pub len: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// Blocks taken over from an interrupted conversion.
    pub resumed_blocks: usize,
}

/// Compresses a safetensors file. An interrupted conversion of the same file with the same
/// options goes on where it stopped. The target appears when it is complete and, unless
/// the options say otherwise, has been decoded and found equal to the source.
///
/// # Errors
/// [`Code::NotWeights`], [`Code::BadSource`] or [`Code::Truncated`] about the source,
/// [`Code::SourceChanged`], [`Code::Exists`], [`Code::Busy`], [`Code::OtherPartial`],
/// [`Code::NoSpace`], [`Code::Io`], or an error of the base.
pub fn compress(
    source_path: &Path,
    target_path: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    compress_with_views(source_path, target_path, &[], options, progress)
}

/// As [`compress`], for a file of which is known what weights its tensors stand for.
///
/// # Errors
/// As [`compress`], or [`Code::InvalidArgument`] for views that the file's tensors do not allow.
pub fn compress_with_views(
    source_path: &Path,
    target_path: &Path,
    views: &[View],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    let source = io::open(source_path, options.io.for_one_pass())?;
    compress_named(&*source, |e| e.in_file(source_path), target_path, views, options, progress)
}

/// Compresses a safetensors file that need not lie on a disk: `source` is read several times,
/// at any offset and from several threads, and must give the same bytes each time.
///
/// # Errors
/// As [`compress`], or what the source returns.
pub fn compress_source(
    source: &dyn ReadAt,
    target_path: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    compress_named(source, |e| e, target_path, &[], options, progress)
}

/// `in_source` adds the source's name to an error.
fn compress_named(
    source: &dyn ReadAt,
    in_source: impl Fn(Error) -> Error + Copy,
    target_path: &Path,
    views: &[View],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    let header = Header::read(source).map_err(in_source)?;
    let base = best_base(&options.bases, &header);
    base.map_or(Ok(()), |base| check_base(base, target_path))?;
    let plan = plan(source, &header, base, options, progress).map_err(in_source)?;
    let cmz_header = CmzHeader { optional_features: 0, fingerprint: fingerprint(source, &header, &plan, options)? };
    let mut target = Target::open(target_path, options.replace)?;
    let mut writer = open_writer(&mut target, &cmz_header, &plan, source, options.replace)?;
    let (resumed_blocks, _) = writer.blocks_written();

    progress.begin(Phase::Compressing, source.byte_len());
    let sha256 = thread::scope(|scope| {
        let digest = scope.spawn(|| sha256_of(source, &Silent(progress)));
        write_blocks(source, base, &plan, &mut writer, target.partial(), options, progress)?;
        digest.join().map_err(|_| Error::new(Code::Io, "the hashing thread failed"))?
    })
    .map_err(in_source)?;
    let manifest_source = Source { kind: "safetensors".to_owned(), len: source.byte_len(), sha256: sha256.clone() };
    let tensors = header.tensors.len();
    writer.set_views(views.to_vec());
    writer.finish(GENERATOR, Some(manifest_source), header.metadata).map_err(|e| e.in_file(target.partial()))?;
    let len = target.file().metadata().map_err(|e| Error::io("cannot get the file's size", e))?.len();
    if options.verify {
        compare(target.partial(), source, options, progress)?;
    }
    target.commit(options.replace)?;
    Ok(Compressed { source_len: source.byte_len(), sha256, len, tensors, resumed_blocks })
}

/// The base that shares the most bytes of tensors with the source.
fn best_base<'a>(bases: &'a [Arc<Archive>], header: &Header) -> Option<&'a Archive> {
    let shared = |base: &Archive| -> u64 {
        header.tensors.iter().filter(|entry| Counterpart::find(base, entry).is_some()).map(Entry::byte_len).sum()
    };
    let all = bases.iter().map(|base| (&**base, shared(base))).filter(|&(_, shared)| shared > 0);
    all.min_by_key(|&(_, shared)| std::cmp::Reverse(shared)).map(|(base, _)| base)
}

/// Checks that a base can be read, and that the target does not replace it.
fn check_base(base: &Archive, target: &Path) -> Result<()> {
    let canonical = |path: &Path| path.canonicalize().ok();
    let replaced = base.path().and_then(canonical);
    if replaced.is_some() && replaced == canonical(target) {
        return Err(Error::new(Code::InvalidArgument, "the target is the base, without which it cannot be decoded")
            .in_file(target)
            .with_help("choose another target with -o"));
    }
    base.check_bases()
}

/// Lays out the file: what is literal, and how each tensor is stored.
fn plan(
    source: &dyn ReadAt,
    header: &Header,
    base: Option<&Archive>,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    progress.begin(Phase::Planning, header.tensors.len() as u64);
    let mut choices = Vec::with_capacity(header.tensors.len());
    pipeline::ordered(
        options.threads,
        header.tensors.iter(),
        |entry, scratch| {
            let read = |offset, buffer: &mut [u8]| source.read_at(entry.range.start + offset, buffer);
            let counterpart = base.and_then(|base| Counterpart::find(base, entry));
            choose(entry, &options.encode, counterpart, scratch, read)
        },
        |choice| {
            choices.push(choice);
            advance(progress, 1)
        },
    )?;
    refer_to_duplicates(source, &header.tensors, &mut choices, options.threads)?;
    let mut plan = Plan::new();
    let mut literal_start = 0;
    for (entry, Choice { tensor, .. }) in header.tensors.iter().zip(choices) {
        push_literal(&mut plan, literal_start..entry.range.start.max(header.len));
        literal_start = entry.range.end;
        plan.push(PlannedSegment::Tensor { tensor, byte_len: entry.byte_len(), shared: false });
    }
    push_literal(&mut plan, literal_start..source.byte_len());
    Ok(plan)
}

/// Makes each tensor that has the same bytes as an earlier one a reference to the first of
/// them. Only those are read whole whose samples are equal.
fn refer_to_duplicates(source: &dyn ReadAt, entries: &[Entry], choices: &mut [Choice], threads: usize) -> Result<()> {
    let mut alike: HashMap<_, usize> = HashMap::new();
    let keys: Vec<_> =
        entries.iter().zip(&*choices).map(|(entry, choice)| (entry.byte_len(), choice.samples)).collect();
    keys.iter().for_each(|key| *alike.entry(key).or_default() += 1);
    let candidates = (0..entries.len()).filter(|&i| keys[i].0 >= MIN_REFERENCE && alike[&keys[i]] > 1);
    let mut firsts = HashMap::new();
    pipeline::ordered(
        threads,
        candidates,
        |i, scratch| Ok((i, digest_of(source, entries[i].range.clone(), scratch)?)),
        |(i, digest)| {
            let first = *firsts.entry((keys[i].0, digest)).or_insert(i);
            if first != i {
                let tensor = entries[first].name.clone();
                let reference = Reference { operation: Operation::SameAs, tensor, base: None };
                choices[i].tensor.encoding = reference.to_manifest(None);
            }
            Ok(())
        },
    )
}

fn digest_of(source: &dyn ReadAt, range: Range<u64>, scratch: &mut Scratch) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for start in range.clone().step_by(CHUNK) {
        let mut bytes = scratch.buffer((range.end - start).min(CHUNK as u64) as usize);
        source.read_at(start, &mut bytes)?;
        hasher.update(&bytes);
        scratch.recycle(bytes);
    }
    Ok(hasher.finalize())
}

fn push_literal(plan: &mut Plan, range: Range<u64>) {
    if !range.is_empty() {
        plan.push(PlannedSegment::Literal(range.end - range.start));
    }
}

/// Identifies a conversion: the same source header, length, options and program.
fn fingerprint(source: &dyn ReadAt, header: &Header, plan: &Plan, options: &CompressOptions) -> Result<[u8; 16]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(GENERATOR.as_bytes());
    hasher.update(format!("{VERSION:?} {} {:?}", source.byte_len(), options.encode).as_bytes());
    let mut literal = vec![0; header.len as usize];
    source.read_at(0, &mut literal)?;
    hasher.update(&literal);
    for segment in plan {
        if let PlannedSegment::Tensor { tensor, .. } = segment {
            hasher.update(&tensor.to_json());
        }
    }
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Ok(fingerprint)
}

type FileWriter = Writer<BufWriter<File>>;

/// Opens a writer on the unfinished file, behind what an interrupted conversion left there
/// as far as that is whole and the source is still the same.
fn open_writer(
    target: &mut Target,
    header: &CmzHeader,
    plan: &Plan,
    source: &dyn ReadAt,
    replace: bool,
) -> Result<FileWriter> {
    let partial = PlainFile::open(target.partial())?;
    let file = target.file().try_clone().map_err(|e| Error::io("cannot open the file", e).in_file(target.partial()))?;
    let sink = BufWriter::with_capacity(CHUNK, file);
    if !is_resumable(&partial, header, replace).map_err(|e| e.in_file(target.partial()))? {
        target.truncate(0)?;
        return Writer::new(sink, header, plan.clone());
    }
    let mut writer = Writer::resume(sink, header, plan.clone())?;
    let mut ranges = source_ranges(plan);
    let replayed = parse_items(&partial, Limits::default(), |item| {
        if let Item::Block { header, .. } = item {
            // Descriptors and shared components come from the plan, not from the source's bytes.
            let unchanged = match (header.kind, ranges.next()) {
                (BlockKind::Literal | BlockKind::Data, Some(Some(range))) => {
                    crc_of(source, range)? == header.crc_decoded
                }
                (_, planned) => planned.is_some(),
            };
            if !unchanged {
                return Ok(false);
            }
        }
        Ok(writer.replay(item).is_ok())
    });
    // The unfinished file ends somehow; what was whole before has been replayed.
    drop(replayed);
    let len = writer.end_replay();
    target.truncate(len)?;
    Ok(writer)
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

/// What a worker made of a job.
#[expect(clippy::large_enum_variant, reason = "a few exist at a time")]
enum Done {
    Literal(Vec<u8>),
    Descriptor,
    Checksum { crc: u32, of: usize },
    Encoded(EncodedBlock),
    Raw(Vec<u8>),
}

/// Encodes all blocks that are still to be written and writes them in order.
fn write_blocks(
    source: &dyn ReadAt,
    base: Option<&Archive>,
    plan: &Plan,
    writer: &mut FileWriter,
    partial: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let stored = plan
        .iter()
        .filter_map(|segment| match segment {
            PlannedSegment::Tensor { tensor, .. } => Some(StoredTensor::of_tensor(tensor)),
            PlannedSegment::Literal(_) => None,
        })
        .collect::<Result<Vec<_>>>()?;
    let written = writer.blocks_written();
    let buffers = Mutex::new(Vec::new());
    let mut checksums = Vec::new();
    pipeline::ordered(
        options.threads,
        jobs(plan).filter(|job| job.is_due(written)),
        |job, scratch| {
            if let Some(buffer) = lock(&buffers).pop() {
                scratch.recycle(buffer);
            }
            work(&job, source, base, &stored, options, scratch)
        },
        |done| {
            if let Some(buffer) = write_block(writer, done, &mut checksums).map_err(|e| e.in_file(partial))? {
                lock(&buffers).push(buffer.bytes);
                advance(progress, buffer.decoded_len)?;
            }
            Ok(())
        },
    )
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

fn work(
    job: &Job,
    source: &dyn ReadAt,
    base: Option<&Archive>,
    stored: &[StoredTensor],
    options: &CompressOptions,
    scratch: &mut Scratch,
) -> Result<Done> {
    if job.work == Work::Descriptor {
        return Ok(Done::Descriptor);
    }
    let mut bytes = scratch.buffer((job.range.end - job.range.start) as usize);
    source.read_at(job.range.start, &mut bytes)?;
    Ok(match job.work {
        Work::Literal => Done::Literal(bytes),
        Work::Payload => Done::Raw(bytes),
        Work::Checksum { of } => {
            let crc = crc32(&bytes);
            scratch.recycle(bytes);
            Done::Checksum { crc, of }
        }
        Work::Encode => {
            let stored = &stored[job.tensor];
            let read_reference = |scratch: &mut Scratch, bytes: &mut [u8]| match (stored.reference(), base) {
                (Some(reference), Some(base)) => {
                    base.read_range_into(base.find(&reference.tensor)?, job.start, scratch, bytes)
                }
                _ => Ok(()),
            };
            let block = stored.encode_block(&bytes, options.encode.level, scratch, read_reference)?;
            scratch.recycle(bytes);
            Done::Encoded(block)
        }
        Work::Descriptor => Done::Descriptor,
    })
}

/// Decodes the unfinished file and compares every byte with the source.
fn compare(partial: &Path, source: &dyn ReadAt, options: &CompressOptions, progress: &dyn Progress) -> Result<()> {
    progress.begin(Phase::Verifying, source.byte_len());
    let io = options.io.for_one_pass();
    let open = OpenOptions { io, bases: options.bases.clone(), ..OpenOptions::default() };
    let archive = Archive::open_with(partial, open)?;
    pipeline::ordered(
        options.threads,
        archive.content_blocks(),
        |block, scratch| {
            let mut decoded = scratch.buffer(0);
            archive.read_content(&block, scratch, &mut decoded)?;
            let mut original = scratch.buffer(decoded.len());
            source.read_at(block.range.start, &mut original)?;
            let same = decoded == original;
            scratch.recycle(original);
            scratch.recycle(decoded);
            if same {
                return Ok(block.range.end - block.range.start);
            }
            Err(Error::new(
                Code::SourceChanged,
                "the source is not what was compressed: it changed meanwhile, or memory is faulty",
            )
            .at(block.range.start)
            .with_help("run the command again when nothing writes to the source"))
        },
        |len| advance(progress, len),
    )
}
