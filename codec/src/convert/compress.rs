//! safetensors to `.cmz`.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use cmz_format::{Code, Error, Header as CmzHeader, Lossy, Plan, PlannedSegment, Result, Source, VERSION, View};
use sha2::{Digest, Sha256};

use super::blocks::Conversion;
use super::{
    CHUNK, GENERATOR, LossyTensor, Phase, Progress, Quantize, Silent, SourceKind, Target, advance, hex, with_sha256,
};
use crate::archive::ContentBlock;
use crate::choose::{Choice, Counterpart, EncodeOptions, MIN_REFERENCE, choose};
use crate::encoding::reference::{Operation, Reference};
use crate::import::quantized::{self, Found};
use crate::import::torch;
use crate::io::{self, IoMode, ReadAt};
use crate::safetensors::{Entry, Header};
use crate::tensor::StoredTensor;
use crate::{Archive, OpenOptions, Scratch, pipeline};

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
    /// Rounds tensors. Without it, every tensor is stored exactly.
    pub quantizer: Option<Arc<dyn Quantize>>,
}

/// What a conversion did.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// Length of the source, in bytes.
    pub source_len: u64,
    /// SHA-256 of what the file decodes to: the source, unless tensors were rounded.
    pub sha256: String,
    /// Length of the `.cmz` file, in bytes.
    pub len: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// Blocks taken over from an interrupted conversion.
    pub resumed_blocks: usize,
    /// The tensors that were rounded.
    pub lossy: Vec<Lossy>,
}

/// Compresses a safetensors file. An interrupted conversion of the same file with the same
/// options goes on where it stopped. The target appears when it is complete and, unless
/// the options say otherwise, has been decoded and found equal to the source, or to what its
/// tensors were rounded to.
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
    compress_with_views(SourceKind::Safetensors, source_path, target_path, &[], options, progress)
}

/// As [`compress`], for a file of any kind of which is known what weights its tensors stand for.
///
/// # Errors
/// As [`compress`] and [`SourceKind::header`], or [`Code::InvalidArgument`] for views that the file's tensors do not allow.
pub fn compress_with_views(
    kind: SourceKind,
    source_path: &Path,
    target_path: &Path,
    views: &[View],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    let source = io::open(source_path, options.io.for_one_pass())?;
    let in_source = |e: Error| e.in_file(source_path);
    compress_contents(&*source, kind, views, in_source, target_path, options, progress)
}

/// Compresses a file of `torch.save`, whose tensors [`torch::read`] finds, as [`compress`] does a safetensors file, and says what weights they
/// stand for where [`quantized::of_torch`] knows.
///
/// # Errors
/// As [`compress`] and [`torch::read`].
pub fn compress_torch(
    source_path: &Path,
    target_path: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<(Compressed, Found)> {
    let source = io::open(source_path, options.io.for_one_pass())?;
    let in_source = |e: Error| e.in_file(source_path);
    let torch::Contents { header, attributes } = torch::read(&*source).map_err(in_source)?;
    let found = quantized::of_torch(&header, attributes, &*source);
    let compressed =
        compress_contents(&*source, SourceKind::Torch, &found.views, in_source, target_path, options, progress)?;
    Ok((compressed, found))
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
    compress_contents(source, SourceKind::Safetensors, &[], |e| e, target_path, options, progress)
}

/// `in_source` adds the source's name to an error.
fn compress_contents(
    source: &dyn ReadAt,
    kind: SourceKind,
    views: &[View],
    in_source: impl Fn(Error) -> Error + Copy,
    target_path: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed> {
    let header = kind.header(source).map_err(in_source)?;
    let layout = Layout::of(source, header, target_path, options, progress).map_err(in_source)?;
    let cmz_header = layout.cmz_header(source, options)?;
    let mut target = Target::open(target_path, options.replace)?;
    progress.begin(Phase::Compressing, source.byte_len());
    let conversion = Conversion { source, layout: &layout, stored: &layout.stored()?, options, progress };
    let (mut writer, resumed_blocks, sha256) = thread::scope(|scope| {
        let (rounded, to_hash) = mpsc::sync_channel(ROUNDED_AHEAD);
        let digest = scope.spawn(|| sha256_of_result(source, &layout, to_hash, &Silent(progress)));
        let (mut writer, taken) = conversion.open_writer(&mut target, &cmz_header, &rounded)?;
        let (resumed_blocks, _) = writer.blocks_written();
        conversion.write_blocks(&mut writer, target.partial(), taken, &rounded)?;
        drop(rounded);
        let sha256 = digest.join().map_err(|_| Error::new(Code::Io, "the hashing thread failed"))??;
        Ok((writer, resumed_blocks, sha256))
    })
    .map_err(|e: Error| {
        // It would fail again with these options, and would be in the way of others.
        if e.code() == Code::InvalidArgument {
            target.discard();
        }
        in_source(e)
    })?;
    let lossy = writer.lossy_tensors().to_vec();
    let manifest_source = Source { kind: kind.name().to_owned(), len: source.byte_len(), sha256: sha256.clone() };
    let Layout { header, .. } = &layout;
    let metadata = header.metadata.clone();
    writer.set_views(views.to_vec());
    writer.finish(GENERATOR, Some(manifest_source), metadata).map_err(|e| e.in_file(target.partial()))?;
    let len = target.file().metadata().map_err(|e| Error::io("cannot get the file's size", e))?.len();
    if options.verify {
        compare(target.partial(), source, &layout, &sha256, options, progress)?;
    }
    target.commit(options.replace)?;
    let tensors = header.tensors.len();
    Ok(Compressed { source_len: source.byte_len(), sha256, len, tensors, resumed_blocks, lossy })
}

/// Whether a file was made from this source with these options, quantizer included.
///
/// # Errors
/// As [`compress`] about the source.
pub(crate) fn is_made_from(
    archive: &Archive,
    source: &dyn ReadAt,
    target_path: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<bool> {
    let layout = Layout::of(source, Header::read(source)?, target_path, options, progress)?;
    Ok(archive.index().header().fingerprint == layout.cmz_header(source, options)?.fingerprint)
}

/// Blocks of rounded bytes that wait to be hashed, at most.
const ROUNDED_AHEAD: usize = 4;

/// SHA-256 of what the file will decode to: the source's bytes, but those of rounded tensors come
/// from `rounded`.
fn sha256_of_result(
    source: &dyn ReadAt,
    layout: &Layout<'_>,
    rounded: Receiver<Vec<u8>>,
    progress: &dyn Progress,
) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    for (range, lossy) in layout.segments() {
        let mut offset = range.start;
        while offset < range.end {
            if lossy.is_some() {
                let stopped = |_| Error::new(Code::Interrupted, "the conversion has stopped");
                let bytes = rounded.recv().map_err(stopped)?;
                hasher.update(&bytes);
                offset += bytes.len() as u64;
            } else {
                let len = (range.end - offset).min(CHUNK as u64) as usize;
                source.read_at(offset, &mut buffer[..len])?;
                hasher.update(&buffer[..len]);
                advance(progress, len as u64)?;
                offset += len as u64;
            }
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// What a file will consist of.
pub(super) struct Layout<'a> {
    pub(super) header: Header,
    pub(super) base: Option<&'a Archive>,
    pub(super) plan: Plan,
    /// How each tensor is rounded, if it is.
    pub(super) lossy: Vec<Option<LossyTensor>>,
}

impl<'a> Layout<'a> {
    fn of(
        source: &dyn ReadAt,
        header: Header,
        target_path: &Path,
        options: &'a CompressOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let base = best_base(&options.bases, &header);
        base.map_or(Ok(()), |base| check_base(base, target_path))?;
        let mut lossy = match &options.quantizer {
            Some(quantizer) => quantizer.plan(source, &header, options.threads, progress)?,
            None => Vec::new(),
        };
        lossy.resize_with(header.tensors.len(), || None);
        for (lossy, entry) in lossy.iter_mut().zip(&header.tensors) {
            lossy.take_if(|_| entry.byte_len() == 0);
            lossy.as_ref().map_or(Ok(()), |lossy| lossy.check(entry))?;
        }
        let plan = plan(source, &header, base, &lossy, options, progress)?;
        Ok(Self { header, base, plan, lossy })
    }

    /// The pieces of the source, and how those are rounded that are.
    fn segments(&self) -> impl Iterator<Item = (Range<u64>, Option<&LossyTensor>)> {
        let mut offset = 0;
        let mut lossy = self.lossy.iter();
        self.plan.iter().map(move |segment| {
            let range = offset..offset + segment.byte_len();
            offset = range.end;
            match segment {
                PlannedSegment::Tensor { .. } => (range, lossy.next().and_then(Option::as_ref)),
                PlannedSegment::Literal(_) => (range, None),
            }
        })
    }

    pub(super) fn is_lossy(&self) -> bool {
        self.lossy.iter().any(Option::is_some)
    }

    fn stored(&self) -> Result<Vec<StoredTensor>> {
        let tensors = self.plan.iter().filter_map(|segment| match segment {
            PlannedSegment::Tensor { tensor, .. } => Some(StoredTensor::of_tensor(tensor)),
            PlannedSegment::Literal(_) => None,
        });
        tensors.collect()
    }

    /// The header of the file, whose fingerprint identifies the conversion: the same source header,
    /// length, options and program; where tensors are rounded, also the same bytes and inputs.
    fn cmz_header(&self, source: &dyn ReadAt, options: &CompressOptions) -> Result<CmzHeader> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(GENERATOR.as_bytes());
        hasher.update(format!("{VERSION:?} {} {:?}", source.byte_len(), options.encode).as_bytes());
        let mut literal = vec![0; self.header.len as usize];
        source.read_at(0, &mut literal)?;
        hasher.update(&literal);
        for segment in &self.plan {
            if let PlannedSegment::Tensor { tensor, .. } = segment {
                hasher.update(&tensor.to_json());
            }
        }
        if self.is_lossy() {
            for lossy in self.lossy.iter().flatten() {
                hasher.update(lossy.recipe.as_bytes());
                hasher.update(&lossy.inputs);
            }
            let bytes = digest_of(source, 0..source.byte_len(), &mut Scratch::new())?;
            hasher.update(bytes.as_bytes());
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Ok(CmzHeader { optional_features: 0, fingerprint })
    }
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
    lossy: &[Option<LossyTensor>],
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Plan> {
    progress.begin(Phase::Planning, header.tensors.len() as u64);
    let mut choices = Vec::with_capacity(header.tensors.len());
    pipeline::ordered(
        options.threads,
        header.tensors.iter().zip(lossy),
        |(entry, lossy), scratch| {
            if let Some(lossy) = lossy {
                return Ok(Choice { tensor: lossy.tensor(entry), samples: blake3::hash(&[]) });
            }
            let read = |offset, buffer: &mut [u8]| source.read_at(entry.range.start + offset, buffer);
            let counterpart = base.and_then(|base| Counterpart::find(base, entry));
            choose(entry, &options.encode, counterpart, scratch, read)
        },
        |choice| {
            choices.push(choice);
            advance(progress, 1)
        },
    )?;
    refer_to_duplicates(source, &header.tensors, lossy, &mut choices, options.threads)?;
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
/// them, unless one of them is rounded. Only those are read whole whose samples are equal.
fn refer_to_duplicates(
    source: &dyn ReadAt,
    entries: &[Entry],
    lossy: &[Option<LossyTensor>],
    choices: &mut [Choice],
    threads: usize,
) -> Result<()> {
    let mut alike: HashMap<_, usize> = HashMap::new();
    let keys: Vec<_> =
        entries.iter().zip(&*choices).map(|(entry, choice)| (entry.byte_len(), choice.samples)).collect();
    keys.iter().for_each(|key| *alike.entry(key).or_default() += 1);
    let candidates =
        (0..entries.len()).filter(|&i| lossy[i].is_none() && keys[i].0 >= MIN_REFERENCE && alike[&keys[i]] > 1);
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

/// Decodes the unfinished file and compares every byte with the source, or, where tensors are
/// rounded, with what they were rounded to.
fn compare(
    partial: &Path,
    source: &dyn ReadAt,
    layout: &Layout<'_>,
    sha256: &str,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin(Phase::Verifying, source.byte_len());
    let io = options.io.for_one_pass();
    let open = OpenOptions { io, bases: options.bases.clone(), ..OpenOptions::default() };
    let archive = Archive::open_with(partial, open)?;
    let is_lossy = layout.is_lossy();
    let decode = |block: ContentBlock, scratch: &mut Scratch| {
        let mut decoded = scratch.buffer(0);
        archive.read_content(&block, scratch, &mut decoded)?;
        if block.tensor().is_none_or(|tensor| layout.lossy[tensor].is_none()) {
            let mut original = scratch.buffer(decoded.len());
            source.read_at(block.range.start, &mut original)?;
            let same = decoded == original;
            scratch.recycle(original);
            if !same {
                return Err(changed("the source is not what was compressed").at(block.range.start));
            }
        }
        if is_lossy {
            return Ok((block.range, decoded));
        }
        scratch.recycle(decoded);
        Ok((block.range, Vec::new()))
    };
    let run = |hash: &mut dyn FnMut(&[u8])| {
        pipeline::ordered(options.threads, archive.content_blocks(), decode, |(range, decoded)| {
            hash(&decoded);
            advance(progress, range.end - range.start)
        })
    };
    if !is_lossy {
        return run(&mut |_| ());
    }
    let ((), decoded) = with_sha256(run)?;
    if decoded == sha256 {
        Ok(())
    } else {
        Err(changed("the file does not decode to what its tensors were rounded to"))
    }
}

fn changed(what: &str) -> Error {
    Error::new(Code::SourceChanged, format!("{what}: it changed meanwhile, or memory is faulty"))
        .with_help("run the command again when nothing writes to the source")
}
