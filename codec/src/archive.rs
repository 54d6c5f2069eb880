//! Reading tensors from a `.cmz` file.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use cmz_format::{BlockHeader, BlockKind, BlockRecord, Code, Error, Index, Result, Source, Tensor, unpack_section};

use crate::encoding::reference::{BaseId, Operation, Reference};
use crate::io::{self, ReadAt};
use crate::open::{OpenOptions, Verify};
use crate::tensor::StoredTensor;
use crate::{Scratch, lock, pipeline};

mod parts;
mod rows;
mod stored;
mod view;

pub use parts::TensorPart;

/// An open `.cmz` file. It can be read from several threads at once.
///
/// ```no_run
/// # fn main() -> cmz_codec::Result<()> {
/// let archive = cmz_codec::Archive::open("model.cmz".as_ref())?;
/// let weights = archive.read("encoder.layer.0.output.dense.weight")?;
/// let expert = archive.read_rows("experts.down_proj", 17..18)?;
/// # Ok(()) }
/// ```
pub struct Archive {
    path: Option<PathBuf>,
    data: Box<dyn ReadAt>,
    index: Index,
    stored: Vec<OnceLock<StoredTensor>>,
    options: OpenOptions,
}

/// A run of decoded bytes of a tensor, as [`Archive::for_each_block`] hands them out.
#[derive(Debug)]
pub struct DecodedBlock<'a> {
    /// Number of the tensor.
    pub tensor: usize,
    /// Where the bytes begin in the tensor, in bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// A block that holds content: literal bytes, or elements of a tensor.
#[derive(Clone, Debug)]
pub struct ContentBlock {
    /// Where its bytes lie in the source file.
    pub range: Range<u64>,
    place: Place,
}

impl ContentBlock {
    /// The number of the tensor, unless the bytes are literal.
    #[must_use]
    pub fn tensor(&self) -> Option<usize> {
        match self.place {
            Place::Tensor { tensor, .. } => Some(tensor),
            Place::Literal { .. } => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Literal { block: usize },
    Tensor { tensor: usize, ordinal: usize },
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).field("tensors", &self.stored.len()).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens a file with the default options.
    ///
    /// # Errors
    /// What [`Index::read`] raises, or [`Code::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, OpenOptions::default())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// What [`Index::read`] raises, or [`Code::Io`].
    pub fn open_with(path: &Path, options: OpenOptions) -> Result<Self> {
        let data = io::open(path, options.io)?;
        let mut archive = Self::from_reader(data, options).map_err(|e| e.in_file(path))?;
        archive.path = Some(path.to_owned());
        Ok(archive)
    }

    /// Opens a file through any reader.
    ///
    /// # Errors
    /// What [`Index::read`] raises, or what the reader returns.
    pub fn from_reader(data: Box<dyn ReadAt>, options: OpenOptions) -> Result<Self> {
        let index = Index::read(data.byte_len(), &options.limits, |offset, buffer| data.read_at(offset, buffer))?;
        let stored = std::iter::repeat_with(OnceLock::new).take(index.tensors().len()).collect();
        Ok(Self { path: None, data, index, stored, options })
    }

    /// Where the file is, if it was opened by its name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The index: manifest, block table, header.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        self.index.tensors()
    }

    /// The number of the tensor with this name.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is none.
    pub fn find(&self, name: &str) -> Result<usize> {
        self.index.find(name).ok_or_else(|| {
            self.in_file(Error::new(Code::InvalidArgument, "there is no such tensor"))
                .in_tensor(name)
                .with_help("`cmz inspect --tensors` lists the names")
        })
    }

    /// Reads a whole tensor.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor, or what [`Self::read_into`] raises.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.find(name)?;
        self.read_range(tensor, 0..self.index.tensor_len(tensor))
    }

    /// Reads a whole tensor into the caller's buffer, on `threads` threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the buffer has not the tensor's length in bytes, an
    /// error of the file (with tensor, block and offset), [`Code::UnknownCodec`] or
    /// [`Code::UnknownEncoding`] if this version cannot decode the tensor, or
    /// [`Code::MissingBase`] or [`Code::WrongBase`] if it is stored against another file.
    pub fn read_into(&self, name: &str, buffer: &mut [u8], threads: usize) -> Result<()> {
        let tensor = self.find(name)?;
        let len = self.index.tensor_len(tensor);
        if buffer.len() as u64 != len {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("the buffer has {} bytes, the tensor {len}", buffer.len()),
            )
            .in_tensor(name));
        }
        self.read_parts(vec![TensorPart { tensor, start: 0, bytes: buffer }], threads)
    }

    /// Reads a range of a tensor's bytes; only the blocks that hold it are read and decoded.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the tensor is shorter; otherwise as [`Self::read_into`].
    pub fn read_range(&self, tensor: usize, range: Range<u64>) -> Result<Vec<u8>> {
        let len = self.index.tensor_len(tensor);
        if range.start > range.end || range.end > len {
            return Err(Error::new(Code::InvalidArgument, format!("bytes {}..{} of {len}", range.start, range.end))
                .in_tensor(&self.tensors()[tensor].name));
        }
        let mut scratch = Scratch::new();
        let mut out = Vec::new();
        let block_len = self.block_len(tensor);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / block_len + 1) * block_len);
            // The output grows with what has really been read.
            let filled = out.len();
            out.resize(filled + (end - at) as usize, 0);
            self.read_range_into(tensor, at, &mut scratch, &mut out[filled..])?;
            at = end;
        }
        Ok(out)
    }

    /// Fills `out` with a tensor's bytes from `offset` on, which must be there; only the blocks
    /// that hold them are read and decoded.
    pub(crate) fn read_range_into(
        &self,
        tensor: usize,
        mut offset: u64,
        scratch: &mut Scratch,
        mut out: &mut [u8],
    ) -> Result<()> {
        let block_len = self.block_len(tensor);
        while !out.is_empty() {
            let (ordinal, skipped) = ((offset / block_len) as usize, (offset % block_len) as usize);
            let decoded_len = self.record(tensor, ordinal).decoded_len as usize;
            let (piece, rest) = out.split_at_mut(out.len().min(decoded_len - skipped));
            if piece.len() == decoded_len {
                self.read_block(tensor, ordinal, scratch, piece)?;
            } else {
                let mut block = scratch.buffer(decoded_len);
                let read = self.read_block(tensor, ordinal, scratch, &mut block);
                piece.copy_from_slice(&block[skipped..][..piece.len()]);
                scratch.recycle(block);
                read?;
            }
            offset += piece.len() as u64;
            out = rest;
        }
        Ok(())
    }

    /// The tensor's bytes in place, if the file is mapped and the tensor stored raw and
    /// contiguous; its checksums are verified first. See [`io::MappedFile`] for what a
    /// mapping cannot protect from.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor, or an error of the file.
    pub fn slice(&self, name: &str) -> Result<Option<&[u8]>> {
        let tensor = self.find(name)?;
        let blocks = self.index.tensor_blocks(tensor).data.clone();
        if !self.tensors()[tensor].is_contiguous() || blocks.is_empty() {
            return match Reference::parse(&self.tensors()[tensor].encoding) {
                Ok(Some((reference, _))) if reference.operation == Operation::SameAs => {
                    let (archive, _) = self.find_reference(tensor, &reference)?;
                    archive.slice(&reference.tensor)
                }
                _ => Ok(None),
            };
        }
        let records = &self.index.table()[blocks];
        let start = records[0].payload_offset();
        let Some(bytes) = self.data.slice(start..start + self.index.tensor_len(tensor))? else { return Ok(None) };
        for (ordinal, record) in records.iter().enumerate() {
            let payload = &bytes[(record.payload_offset() - start) as usize..][..record.stored_len as usize];
            self.block_header(tensor, ordinal)
                .and_then(|header| self.check_stored(&header, payload))
                .map_err(|e| self.in_block(e, tensor, ordinal))?;
        }
        Ok(Some(bytes))
    }

    /// Decodes blocks of the given tensors on `threads` threads, reading ahead, and hands
    /// them out in order on the calling thread. At most a few blocks per thread are in
    /// memory at a time.
    ///
    /// # Errors
    /// The first error of the file or of `consume`.
    pub fn for_each_block(
        &self,
        tensors: impl IntoIterator<Item = usize, IntoIter: Send>,
        threads: usize,
        mut consume: impl FnMut(DecodedBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        let pool = Mutex::new(Vec::new());
        let jobs = tensors
            .into_iter()
            .flat_map(|tensor| (0..self.index.tensor_blocks(tensor).data.len()).map(move |block| (tensor, block)));
        pipeline::ordered(
            threads,
            jobs,
            |(tensor, ordinal), scratch| {
                let mut bytes: Vec<u8> = lock(&pool).pop().unwrap_or_default();
                bytes.resize(self.record(tensor, ordinal).decoded_len as usize, 0);
                self.read_block(tensor, ordinal, scratch, &mut bytes)?;
                Ok((tensor, ordinal, bytes))
            },
            |(tensor, ordinal, bytes)| {
                let offset = ordinal as u64 * self.block_len(tensor);
                let result = consume(DecodedBlock { tensor, offset, bytes: &bytes });
                lock(&pool).push(bytes);
                result
            },
        )
    }

    /// Reads, checks and decodes one data block into `bytes`.
    ///
    /// # Errors
    /// As [`Self::read_into`].
    ///
    /// # Panics
    /// If there is no such block or `bytes` has not its decoded length.
    pub fn read_block(&self, tensor: usize, ordinal: usize, scratch: &mut Scratch, bytes: &mut [u8]) -> Result<()> {
        let record = *self.record(tensor, ordinal);
        assert_eq!(bytes.len(), record.decoded_len as usize, "the buffer has the block's decoded length");
        self.decode_block(tensor, ordinal, &record, scratch, bytes).map_err(|e| self.in_block(e, tensor, ordinal))
    }

    fn decode_block(
        &self,
        tensor: usize,
        ordinal: usize,
        record: &BlockRecord,
        scratch: &mut Scratch,
        bytes: &mut [u8],
    ) -> Result<()> {
        let stored = self.stored(tensor)?;
        let read_reference = |scratch: &mut Scratch, bytes: &mut [u8]| {
            let Some(reference) = stored.reference() else { return Ok(()) };
            let (archive, found) = self.find_reference(tensor, reference)?;
            archive.read_range_into(found, ordinal as u64 * self.block_len(tensor), scratch, bytes)
        };
        let mut decode = |header: &BlockHeader, payload: &[u8], scratch: &mut Scratch| {
            self.check_stored(header, payload)?;
            stored.decode_block(header, payload, scratch, bytes, read_reference)?;
            if self.options.verify == Verify::Full { header.check_decoded(bytes) } else { Ok(()) }
        };
        if let Some(payload) = self.data.slice(record.payload_range())? {
            let header = self.block_header(tensor, ordinal)?;
            return decode(&header, payload, scratch);
        }
        // One read fetches header and payload where they are neighbours.
        let header_len = if record.is_adjacent() { record.header_len() } else { 0 };
        let mut buffer = scratch.buffer(header_len + record.stored_len as usize);
        let read = self.data.read_at(record.payload_offset() - header_len as u64, &mut buffer).and_then(|()| {
            let (header, payload) = buffer.split_at(header_len);
            let header = if header_len == 0 {
                self.block_header(tensor, ordinal)?
            } else {
                self.check_header(tensor, ordinal, header)?
            };
            decode(&header, payload, scratch)
        });
        scratch.recycle(buffer);
        read
    }

    /// How a tensor is stored.
    pub(crate) fn stored(&self, tensor: usize) -> Result<&StoredTensor> {
        let cell = &self.stored[tensor];
        match cell.get() {
            Some(stored) => Ok(stored),
            None => {
                let description = &self.tensors()[tensor];
                let stored = StoredTensor::of_tensor(description)?;
                if self.index.tensor_blocks(tensor).shared.is_some() {
                    let why = "shared components, of which the encoding has none";
                    return Err(Error::new(Code::Malformed, why).in_tensor(&description.name));
                }
                Ok(cell.get_or_init(|| stored))
            }
        }
    }

    /// The file and the number there of the tensor that another one is told by.
    fn find_reference(&self, tensor: usize, reference: &Reference) -> Result<(&Self, usize)> {
        let malformed =
            |why: &str| self.in_file(Error::new(Code::Malformed, why).in_tensor(&self.tensors()[tensor].name));
        let archive = match &reference.base {
            None => self,
            Some(base) => self.base(base).map_err(|e| e.in_tensor(&self.tensors()[tensor].name))?,
        };
        let found = archive.index.find(&reference.tensor);
        let found = found.ok_or_else(|| malformed("it refers to a tensor that is not there"))?;
        if reference.base.is_none() {
            let inside = |stored: &StoredTensor| stored.reference().is_some_and(|other| other.base.is_none());
            if found >= tensor || inside(self.stored(found)?) {
                return Err(malformed("it refers to a tensor that does not come before it, or refers to another one"));
            }
        }
        if archive.index.tensor_len(found) != self.index.tensor_len(tensor) {
            return Err(malformed("it refers to a tensor of another length"));
        }
        Ok((archive, found))
    }

    /// The tensor that another one refers to, with its file, as far as that is sound and given.
    pub(crate) fn referred(&self, tensor: usize) -> Option<(&Self, usize)> {
        self.find_reference(tensor, self.stored(tensor).ok()?.reference()?).ok()
    }

    /// The open file that is a base.
    fn base(&self, base: &BaseId) -> Result<&Self> {
        let found = self.options.bases.iter().find(|archive| base.is(&archive.index));
        found.map(|archive| &**archive).ok_or_else(|| {
            let (code, why) = match self.options.bases.is_empty() {
                true => (Code::MissingBase, "the base is needed that this file was compressed against"),
                false => (Code::WrongBase, "what is given as the base is not what this file was compressed against"),
            };
            let made_from =
                base.sha256.as_ref().map_or(String::new(), |sha256| format!(", made from SHA-256 {sha256}"));
            self.in_file(Error::new(code, format!("{why}: root digest {}{made_from}", base.root)))
                .with_help("pass the right .cmz file with --base")
        })
    }

    /// The other files that tensors of this one are stored against, each once.
    #[must_use]
    pub fn bases(&self) -> Vec<BaseId> {
        let mut seen = HashSet::new();
        let base = |tensor: &Tensor| Reference::parse(&tensor.encoding).ok().flatten()?.0.base;
        self.tensors().iter().filter_map(base).filter(|base| seen.insert(base.root.clone())).collect()
    }

    /// Checks that every base that tensors need is given.
    ///
    /// # Errors
    /// [`Code::MissingBase`] or [`Code::WrongBase`].
    pub fn check_bases(&self) -> Result<()> {
        self.bases().iter().try_for_each(|base| self.base(base)?.check_bases())
    }

    /// Whether this version can decode a tensor, given its base if it has one.
    ///
    /// # Errors
    /// [`Code::UnknownCodec`] or [`Code::UnknownEncoding`] if not, [`Code::Malformed`] if what
    /// is said of it breaks a rule.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn check_supported(&self, tensor: usize) -> Result<()> {
        let check = |tensor: usize| {
            let stored = self.stored(tensor)?;
            Ok(stored.reference().filter(|reference| reference.base.is_none()))
        };
        let supported = check(tensor).and_then(|reference| match reference {
            Some(reference) => self.find_reference(tensor, reference).map(|_| ()),
            None => Ok(()),
        });
        supported.map_err(|e: Error| self.in_file(e))
    }

    /// Whether a tensor can be decoded here: supported, and its base given if it has one.
    ///
    /// # Errors
    /// As [`Self::check_supported`], [`Code::MissingBase`] or [`Code::WrongBase`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn check_readable(&self, tensor: usize) -> Result<()> {
        self.check_supported(tensor)?;
        let Some(reference) = self.stored(tensor)?.reference() else { return Ok(()) };
        let (archive, found) = self.find_reference(tensor, reference)?;
        archive.check_readable(found)
    }

    /// Bytes that every block of a tensor but the last decodes to. The table says so even of
    /// an element type that this version does not know; 1 if there is no block.
    ///
    /// # Panics
    /// If there is no such tensor.
    #[must_use]
    pub fn block_len(&self, tensor: usize) -> u64 {
        let first = self.index.table()[self.index.tensor_blocks(tensor).data.clone()].first();
        first.map_or(1, |record| u64::from(record.decoded_len))
    }

    fn record(&self, tensor: usize, ordinal: usize) -> &BlockRecord {
        &self.index.table()[self.index.tensor_blocks(tensor).data.clone()][ordinal]
    }

    /// Reads and checks the header of a data block.
    ///
    /// # Errors
    /// [`Code::Disagreement`] if header and index differ, or another error of the file.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_header(&self, tensor: usize, ordinal: usize) -> Result<BlockHeader> {
        let record = self.record(tensor, ordinal);
        let mut bytes = [0; cmz_format::block_header_len(cmz_format::limits::MAX_STREAMS)];
        let bytes = &mut bytes[..record.header_len()];
        self.data.read_at(record.offset, bytes)?;
        self.check_header(tensor, ordinal, bytes)
    }

    fn check_header(&self, tensor: usize, ordinal: usize, bytes: &[u8]) -> Result<BlockHeader> {
        let block = self.index.tensor_blocks(tensor).data.start + ordinal;
        let header = BlockHeader::parse(bytes, self.index.table()[block].offset)?;
        self.index.check_header(block, &header)?;
        Ok(header)
    }

    fn check_stored(&self, header: &BlockHeader, payload: &[u8]) -> Result<()> {
        if self.options.verify == Verify::None { Ok(()) } else { header.check_stored(payload) }
    }

    /// Reads a literal block, given its number in the block table.
    fn read_literal(&self, block: usize) -> Result<Vec<u8>> {
        let record = &self.index.table()[block];
        let read = || {
            let mut bytes = vec![0; record.payload_distance as usize + record.stored_len as usize];
            self.data.read_at(record.offset, &mut bytes)?;
            let header = BlockHeader::parse(&bytes, record.offset)?;
            self.index.check_header(block, &header)?;
            let payload = &bytes[record.payload_distance as usize..];
            header.check_stored(payload)?;
            let codec = header.streams.first().map_or(u16::MAX, |stream| stream.codec);
            let literal = unpack_section(codec, payload, header.decoded_len)?;
            header.check_decoded(&literal)?;
            Ok(literal)
        };
        read().map_err(|e: Error| self.in_file(e.at(record.offset)))
    }

    /// The blocks that hold content, in file order: their decoded bytes concatenate to the
    /// source file, if the file has one.
    pub fn content_blocks(&self) -> impl Iterator<Item = ContentBlock> + Send + '_ {
        let (mut tensors, mut ordinal, mut offset) = (0, 0, 0);
        self.index.table().iter().enumerate().filter_map(move |(block, record)| {
            let place = match record.kind {
                BlockKind::Literal => Place::Literal { block },
                BlockKind::Data => {
                    ordinal += 1;
                    Place::Tensor { tensor: tensors - 1, ordinal: ordinal - 1 }
                }
                BlockKind::Descriptor => {
                    (tensors, ordinal) = (tensors + 1, 0);
                    return None;
                }
                BlockKind::Shared | BlockKind::Manifest | BlockKind::Table => return None,
            };
            let start = offset;
            offset += u64::from(record.decoded_len);
            Some(ContentBlock { place, range: start..offset })
        })
    }

    /// The source file that this file was made from.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the file does not say.
    pub fn source(&self) -> Result<&Source> {
        self.index.manifest().source.as_ref().ok_or_else(|| {
            self.in_file(Error::new(Code::InvalidArgument, "this file does not say which file it was made from"))
                .with_help("`cmz extract` reads single tensors")
        })
    }

    /// Reads, checks and decodes a block into `bytes`, which are replaced.
    ///
    /// # Errors
    /// An error of the file.
    pub fn read_content(&self, block: &ContentBlock, scratch: &mut Scratch, bytes: &mut Vec<u8>) -> Result<()> {
        match block.place {
            Place::Literal { block } => *bytes = self.read_literal(block)?,
            Place::Tensor { tensor, ordinal } => {
                bytes.resize((block.range.end - block.range.start) as usize, 0);
                self.read_block(tensor, ordinal, scratch, bytes)?;
            }
        }
        Ok(())
    }

    /// Reads a block and checks its stored bytes without decoding them.
    ///
    /// # Errors
    /// An error of the file.
    pub fn check_content(&self, block: &ContentBlock, scratch: &mut Scratch) -> Result<()> {
        let Place::Tensor { tensor, ordinal } = block.place else {
            return self.read_content(block, scratch, &mut Vec::new());
        };
        self.read_payload(tensor, ordinal, scratch).map(|(_, payload)| scratch.recycle(payload))
    }

    /// Hands out the bytes of the source file in order, decoding on `threads` threads.
    /// Only the block checksums are verified; the caller compares the digest.
    ///
    /// # Errors
    /// As [`Self::source`], an error of the file, or of `consume`.
    pub fn for_each_source_chunk(&self, threads: usize, mut consume: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.source()?;
        let pool = Mutex::new(Vec::new());
        pipeline::ordered(
            threads,
            self.content_blocks(),
            |block, scratch| {
                let mut bytes: Vec<u8> = lock(&pool).pop().unwrap_or_default();
                self.read_content(&block, scratch, &mut bytes).map(|()| bytes)
            },
            |bytes| {
                let result = consume(&bytes);
                lock(&pool).push(bytes);
                result
            },
        )
    }

    fn in_file(&self, error: Error) -> Error {
        match &self.path {
            Some(path) => error.in_file(path),
            None => error,
        }
    }

    /// Says of an error which tensor and block it concerns.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn in_block(&self, error: Error, tensor: usize, ordinal: usize) -> Error {
        let record = self.record(tensor, ordinal);
        self.in_file(error.in_tensor(&self.tensors()[tensor].name).in_block(ordinal as u64).at(record.offset))
    }
}
