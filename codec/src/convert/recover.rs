//! Saves what is whole of a cut or damaged file.

use std::collections::{BTreeMap, HashSet};
use std::io::BufWriter;
use std::path::Path;

use cmz_format::{
    BlockHeader, BlockKind, Code, EncodedBlock, Error, HEADER_LEN, Header, Limits, Lossy, Manifest, Plan,
    PlannedSegment, Result, Source, Tensor, View, Writer, unpack_section,
};

use super::scan::{FoundBlock, blocks_of_index, read_payload, scan};
use super::{CHUNK, Target};
use crate::encoding::reference::Reference;
use crate::io::{self, IoMode, ReadAt};
use crate::safetensors;

/// A tensor that could not be saved.
#[derive(Debug)]
pub struct Lost {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Error,
}

/// What was saved.
#[derive(Debug)]
pub struct Recovered {
    /// Names of the tensors in the new file.
    pub saved: Vec<String>,
    /// Tensors that are not in the new file.
    pub lost: Vec<Lost>,
    /// Whether the new file restores the source byte for byte.
    pub source_whole: bool,
}

/// Copies every tensor that is whole, and everything else if nothing is missing, into a new
/// file. Works from the index if it is sound, else from the block headers alone.
///
/// # Errors
/// [`Code::NotCmz`] if the file holds no blocks at all, [`Code::Exists`], [`Code::Io`],
/// [`Code::NoSpace`].
pub fn recover(source: &Path, target: &Path, replace: bool) -> Result<Recovered> {
    let file = io::open(source, IoMode::Pread)?;
    let found = find(file.as_ref()).map_err(|e| e.in_file(source))?;
    let saved = found.tensors.iter().map(|whole| whole.tensor.name.clone()).collect();
    let source_whole = found.source.is_some();
    let mut new = Target::create(target, replace)?;
    write(file.as_ref(), &found, &mut new).map_err(|e| e.in_file(new.partial()))?;
    new.commit(replace)?;
    Ok(Recovered { saved, lost: found.lost, source_whole })
}

/// A tensor of which every block is sound.
struct Whole {
    tensor: Tensor,
    byte_len: u64,
    shared: Option<FoundBlock>,
    data: Vec<FoundBlock>,
}

/// A piece of the content, in file order.
enum Piece {
    Literal(Box<FoundBlock>),
    /// Number among the whole tensors.
    Tensor(usize),
}

/// What is whole in a file, and what is not.
struct Found {
    pieces: Vec<Piece>,
    tensors: Vec<Whole>,
    lost: Vec<Lost>,
    metadata: BTreeMap<String, String>,
    source: Option<Source>,
    /// Those whose parts are whole.
    views: Vec<View>,
    /// What the manifest said of those tensors that are whole.
    lossy: Vec<Lossy>,
}

fn find(file: &dyn ReadAt) -> Result<Found> {
    let limits = Limits::default();
    let read = |offset, buffer: &mut [u8]| file.read_at(offset, buffer);
    let (blocks, manifest) = match cmz_format::Index::read(file.byte_len(), &limits, read) {
        Ok(index) => (blocks_of_index(file, &index), Some(index.manifest().clone())),
        Err(e) if matches!(e.code(), Code::Version | Code::Feature | Code::Io) => return Err(e),
        Err(_) => {
            let blocks = scan(file)?;
            let manifest = blocks.iter().find(|b| b.header.kind == BlockKind::Manifest);
            let manifest =
                manifest.and_then(|block| section(file, block)).and_then(|json| Manifest::parse(&json, &limits).ok());
            (blocks, manifest)
        }
    };
    if blocks.is_empty() {
        return Err(Error::new(Code::NotCmz, "the file holds no block of a .cmz file: there is nothing to save"));
    }
    Ok(Assembly::default().run(file, &blocks, manifest))
}

/// The decoded bytes of a literal, descriptor or manifest block, if they are sound.
fn section(file: &dyn ReadAt, block: &FoundBlock) -> Option<Vec<u8>> {
    let payload = read_payload(file, block).ok()?;
    let codec = block.header.streams.first()?.codec;
    let bytes = unpack_section(codec, &payload, block.header.decoded_len).ok()?;
    block.header.check_decoded(&bytes).ok().map(|()| bytes)
}

/// Puts blocks together to tensors.
#[derive(Default)]
struct Assembly {
    pieces: Vec<Piece>,
    tensors: Vec<Whole>,
    /// Their names.
    saved: HashSet<String>,
    lost: Vec<Lost>,
    /// The tensor whose blocks are being collected.
    current: Option<Whole>,
    literals: u32,
    literals_whole: bool,
    /// Literal bytes before the first tensor: the source's header.
    source_header: Vec<u8>,
}

impl Assembly {
    fn run(mut self, file: &dyn ReadAt, blocks: &[FoundBlock], manifest: Option<Manifest>) -> Found {
        self.literals_whole = true;
        // With the manifest, a damaged descriptor is no loss.
        let mut described = manifest.iter().flat_map(|m| &m.tensors);
        for block in blocks {
            match block.header.kind {
                BlockKind::Literal => self.literal(file, block),
                BlockKind::Descriptor => {
                    self.finish_tensor();
                    let from_block =
                        || section(file, block).and_then(|json| Tensor::parse(&json, &Limits::default()).ok());
                    self.current = match manifest {
                        Some(_) => described.find(|tensor| tensor.owner() == block.header.owner).cloned(),
                        None => from_block(),
                    }
                    .map(|tensor| Whole { tensor, byte_len: 0, shared: None, data: Vec::new() });
                }
                BlockKind::Shared | BlockKind::Data => self.add(block),
                BlockKind::Manifest | BlockKind::Table => {}
            }
        }
        self.finish_tensor();
        self.into_found(manifest)
    }

    fn literal(&mut self, file: &dyn ReadAt, block: &FoundBlock) {
        self.literals_whole &= block.damage.is_none() && block.header.ordinal == self.literals;
        self.literals += 1;
        self.finish_tensor();
        if self.tensors.is_empty() && self.lost.is_empty() && self.literals_whole {
            self.source_header.extend(section(file, block).unwrap_or_default());
        }
        self.pieces.push(Piece::Literal(Box::new(block.clone())));
    }

    fn add(&mut self, block: &FoundBlock) {
        let Some(current) = &mut self.current else { return };
        if block.header.owner != current.tensor.owner() {
            return;
        }
        if let Some(damage) = &block.damage {
            let reason = Error::new(damage.0, damage.1.clone()).in_block(block.header.ordinal.into()).at(block.offset);
            self.lost.push(Lost { name: current.tensor.name.clone(), reason });
            self.current = None;
        } else if block.header.kind == BlockKind::Shared {
            current.shared = Some(block.clone());
        } else if block.header.ordinal as usize == current.data.len() {
            current.byte_len += u64::from(block.header.decoded_len);
            current.data.push(block.clone());
        }
    }

    fn finish_tensor(&mut self) {
        let Some(whole) = self.current.take() else { return };
        let reference = Reference::parse(&whole.tensor.encoding).ok().flatten();
        if let Some((Reference { base: None, tensor, .. }, _)) = reference
            && !self.saved.contains(&tensor)
        {
            return self.lose(whole, format!("it is told by tensor {tensor:?}, which is not whole"));
        }
        match whole.tensor.byte_len() {
            Ok(Some(len)) if len == whole.byte_len => {
                self.pieces.push(Piece::Tensor(self.tensors.len()));
                self.saved.insert(whole.tensor.name.clone());
                self.tensors.push(whole);
            }
            Ok(None) => self.lose(whole, "its length is not known without the index".to_owned()),
            Ok(Some(len)) => {
                let why = format!("only {} of its {len} bytes are whole", whole.byte_len);
                self.lose(whole, why);
            }
            Err(reason) => self.lost.push(Lost { name: whole.tensor.name, reason }),
        }
    }

    fn lose(&mut self, whole: Whole, why: String) {
        self.lost.push(Lost { name: whole.tensor.name, reason: Error::new(Code::Truncated, why) });
    }

    /// Adds the tensors of which nothing was found, as far as the file still names them.
    fn into_found(mut self, manifest: Option<Manifest>) -> Found {
        let header = self.source_header.split_first_chunk::<8>().and_then(|(len, json)| {
            let json = json.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            safetensors::Header::parse(json, u64::MAX >> 1).ok()
        });
        let expected: Vec<String> = match (&manifest, &header) {
            (Some(manifest), _) => manifest.tensors.iter().map(|t| t.name.clone()).collect(),
            (None, Some(header)) => header.tensors.iter().map(|t| t.name.clone()).collect(),
            (None, None) => Vec::new(),
        };
        let saved = self.tensors.iter().map(|w| w.tensor.name.as_str());
        let known: HashSet<&str> = saved.chain(self.lost.iter().map(|l| l.name.as_str())).collect();
        let missing: Vec<String> = expected.into_iter().filter(|name| !known.contains(name.as_str())).collect();
        self.lost.extend(
            missing
                .into_iter()
                .map(|name| Lost { name, reason: Error::new(Code::Truncated, "none of its blocks is in the file") }),
        );
        let whole = self.lost.is_empty() && self.literals_whole;
        let len: u64 = self.pieces.iter().map(|piece| self.piece_len(piece)).sum();
        let (source, metadata, mut views, mut lossy) = match (manifest, header) {
            (Some(Manifest { source, metadata, views, lossy, .. }), _) => {
                (source.filter(|s| whole && s.len == len), metadata, views, lossy)
            }
            (None, header) => (None, header.map(|h| h.metadata).unwrap_or_default(), Vec::new(), Vec::new()),
        };
        let mut names = self.saved.clone();
        views.retain(|view| {
            view.parts.values().all(|part| self.saved.contains(part)) && names.insert(view.name.clone())
        });
        lossy.retain(|lossy| self.saved.contains(&lossy.tensor));
        Found { pieces: self.pieces, tensors: self.tensors, lost: self.lost, metadata, source, views, lossy }
    }

    fn piece_len(&self, piece: &Piece) -> u64 {
        match piece {
            Piece::Literal(block) => block.header.decoded_len.into(),
            Piece::Tensor(number) => self.tensors[*number].byte_len,
        }
    }
}

/// Writes the new file: literals only if the source can be restored with them.
fn write(file: &dyn ReadAt, found: &Found, target: &mut Target) -> Result<()> {
    let plan = plan(found);
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"recovered");
    for whole in &found.tensors {
        hasher.update(&whole.tensor.to_json());
    }
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    let header = Header { optional_features: 0, fingerprint };
    let mut writer = Writer::new(BufWriter::with_capacity(CHUNK, target.file()), &header, plan)?;
    debug_assert_eq!(writer.offset(), HEADER_LEN as u64);
    for piece in &found.pieces {
        match piece {
            Piece::Literal(block) if found.source.is_some() => {
                let bytes = section(file, block).ok_or_else(|| changed(block))?;
                writer.literal(&bytes)?;
            }
            Piece::Literal(_) => {}
            Piece::Tensor(number) => copy_tensor(file, &found.tensors[*number], &mut writer)?,
        }
    }
    writer.set_views(found.views.clone());
    found.lossy.iter().for_each(|lossy| writer.lossy(lossy.clone()));
    writer.finish(super::GENERATOR, found.source.clone(), found.metadata.clone()).map(drop)
}

fn plan(found: &Found) -> Plan {
    let mut plan = Plan::new();
    for piece in &found.pieces {
        match (piece, plan.last_mut()) {
            (Piece::Literal(_), _) if found.source.is_none() => {}
            (Piece::Literal(block), Some(PlannedSegment::Literal(len))) => *len += u64::from(block.header.decoded_len),
            (Piece::Literal(block), _) => plan.push(PlannedSegment::Literal(block.header.decoded_len.into())),
            (Piece::Tensor(number), _) => {
                let whole = &found.tensors[*number];
                plan.push(PlannedSegment::Tensor {
                    tensor: whole.tensor.clone(),
                    byte_len: whole.byte_len,
                    shared: whole.shared.is_some(),
                });
            }
        }
    }
    plan
}

fn changed(block: &FoundBlock) -> Error {
    Error::new(Code::SourceChanged, "the file changed while it was being read").at(block.offset)
}

fn copy_tensor<W: std::io::Write>(file: &dyn ReadAt, whole: &Whole, writer: &mut Writer<W>) -> Result<()> {
    writer.descriptor()?;
    if let Some(block) = &whole.shared {
        writer.shared(&encoded(&block.header, read_payload(file, block)?))?;
    }
    let contiguous = whole.tensor.is_contiguous();
    if contiguous && !whole.data.is_empty() {
        let checksums: Vec<u32> = whole.data.iter().map(|block| block.header.crc_stored).collect();
        writer.contiguous(&checksums)?;
    }
    for block in &whole.data {
        let payload = read_payload(file, block)?;
        match contiguous {
            true => writer.payload(&payload)?,
            false => writer.data(&encoded(&block.header, payload))?,
        }
    }
    Ok(())
}

fn encoded(header: &BlockHeader, payload: Vec<u8>) -> EncodedBlock {
    EncodedBlock {
        streams: header.streams,
        payload,
        decoded_len: header.decoded_len,
        crc_stored: header.crc_stored,
        crc_decoded: header.crc_decoded,
    }
}
