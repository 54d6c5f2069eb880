//! Writes a file in one pass.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::Write;

use crate::block::{BlockHeader, BlockKind, BlockRecord, EncodedBlock, StreamList};
use crate::bytes::{ALIGNMENT, UNIT, ZEROS, crc32, pack_section, to_usize};
use crate::header::{HEADER_LEN, Header};
use crate::index::Index;
use crate::layout::run_alignment;
use crate::limits::{MAX_BLOCK_LEN, MAX_RUN, MAX_RUN_LEN};
use crate::manifest::{Lossy, Manifest, Source, Tensor};
use crate::parser::Item;
use crate::trailer::Trailer;
use crate::view::{self, View};
use crate::{Code, Error, Limits, Result, codec_id};

/// Literal bytes that go into one block, at most.
pub const LITERAL_BLOCK_LEN: u64 = 1 << 20;

/// Everything that a file will hold, in order. The writer takes the blocks in this
/// order and no other, and does not finish before it has all of them.
pub type Plan = Vec<PlannedSegment>;

/// A piece of a planned file.
#[derive(Clone, Debug)]
pub enum PlannedSegment {
    /// So many literal bytes.
    Literal(u64),
    /// A tensor.
    Tensor {
        /// Its description.
        tensor: Tensor,
        /// Its decoded length, in bytes.
        byte_len: u64,
        /// Whether it has a block of shared components.
        shared: bool,
    },
}

impl PlannedSegment {
    /// Length of its bytes in the source, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Literal(len) => *len,
            Self::Tensor { byte_len, .. } => *byte_len,
        }
    }

    /// Number of blocks that it takes.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        match self {
            Self::Literal(len) => len.div_ceil(LITERAL_BLOCK_LEN),
            Self::Tensor { tensor, byte_len, shared } => {
                tensor.block_count(*byte_len).saturating_add(1 + u64::from(*shared))
            }
        }
    }

    fn check(&self) -> Result<()> {
        let Self::Tensor { tensor, byte_len, .. } = self else { return Ok(()) };
        let refuse = |why: &str| {
            Err(Error::new(Code::InvalidArgument, format!("planned tensor: {why}")).in_tensor(&tensor.name))
        };
        if let Err(e) = tensor.check(&Limits::default()) {
            return refuse(e.message());
        }
        if tensor.byte_len()?.is_some_and(|len| len != *byte_len) {
            return refuse("its length is not what its shape needs");
        }
        if !(1..=u64::from(MAX_BLOCK_LEN)).contains(&tensor.block_len()) {
            return refuse("blocks of a length that the format does not have");
        }
        if tensor.to_json().len() > MAX_BLOCK_LEN as usize {
            return refuse("a description longer than a block");
        }
        if tensor.is_contiguous() && (tensor.block_count(*byte_len) > MAX_RUN as u64 || *byte_len > MAX_RUN_LEN) {
            return refuse("too large to be contiguous: name another codec beside raw");
        }
        Ok(())
    }
}

/// Checks a whole plan: every segment, unique names, and totals that readers accept by default.
fn check_plan(plan: &Plan) -> Result<()> {
    plan.iter().try_for_each(PlannedSegment::check)?;
    let mut names = HashSet::new();
    for segment in plan {
        if let PlannedSegment::Tensor { tensor, .. } = segment
            && !names.insert(tensor.name.as_str())
        {
            return Err(
                Error::new(Code::InvalidArgument, "two planned tensors have the same name").in_tensor(&tensor.name)
            );
        }
    }
    let limits = Limits::default();
    let sum = |count: fn(&PlannedSegment) -> u64| plan.iter().map(count).fold(0, u64::saturating_add);
    let literal_len = sum(|segment| if let PlannedSegment::Literal(len) = segment { *len } else { 0 });
    for (what, planned, most) in [
        ("blocks", sum(PlannedSegment::blocks), limits.blocks.into()),
        ("tensors", names.len() as u64, limits.tensors.into()),
        ("literal bytes", literal_len, limits.literal_len),
    ] {
        if planned > most {
            let message = format!("{planned} planned {what}, readers accept {most}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
    }
    Ok(())
}

/// What the writer expects next.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// So many literal bytes, to [`Writer::literal`].
    Literal(u64),
    /// A call of [`Writer::descriptor`].
    Descriptor(&'a Tensor),
    /// The block of the tensor's shared components.
    Shared(&'a Tensor),
    /// A data block.
    Data {
        /// The tensor.
        tensor: &'a Tensor,
        /// Number of the block in the tensor.
        ordinal: u32,
        /// Bytes that the block decodes to.
        decoded_len: u32,
    },
    /// The payload of a block whose header is in the file already.
    Payload(&'a BlockHeader),
    /// A call of [`Writer::finish`].
    Nothing,
}

/// Writes a file in one pass to anything that takes bytes.
///
/// After an error of the sink the writer is of no further use: what reached the sink
/// can be gone on with by [`Writer::resume`].
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    offset: u64,
    header: [u8; HEADER_LEN],
    plan: Plan,
    /// The segment in work, and the number of the block in it that comes next.
    segment: usize,
    block: u64,
    literal_blocks: u32,
    /// Blocks whose header has been written and whose payload has not.
    announced: VecDeque<BlockHeader>,
    table: Vec<BlockRecord>,
    views: Vec<View>,
    lossy: Vec<Lossy>,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a file: checks the plan and writes the header.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if a planned tensor breaks a rule of the format, or an
    /// error of the sink.
    pub fn new(sink: W, header: &Header, plan: Plan) -> Result<Self> {
        let mut writer = Self::resume(sink, header, plan)?;
        writer.offset = 0;
        let header = writer.header;
        writer.write(&header)?;
        Ok(writer)
    }

    /// Continues a file whose header is in the sink already. Hand every item that a
    /// [`crate::Parser`] finds after it to [`Self::replay`] before writing more.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn resume(sink: W, header: &Header, plan: Plan) -> Result<Self> {
        check_plan(&plan)?;
        let mut writer = Self {
            sink,
            offset: HEADER_LEN as u64,
            header: header.to_bytes(),
            plan,
            segment: 0,
            block: 0,
            literal_blocks: 0,
            announced: VecDeque::new(),
            table: Vec::new(),
            views: Vec::new(),
            lossy: Vec::new(),
            buffer: Vec::new(),
        };
        writer.skip_finished_segments();
        Ok(writer)
    }

    /// The sink, for example to cut it to what [`Self::end_replay`] returns.
    pub fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Offset of the next byte to be written, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What must be written next.
    pub fn next(&self) -> Next<'_> {
        if let Some(header) = self.announced.front() {
            return Next::Payload(header);
        }
        match self.plan.get(self.segment) {
            None => Next::Nothing,
            Some(PlannedSegment::Literal(len)) => {
                Next::Literal((len - self.block * LITERAL_BLOCK_LEN).min(LITERAL_BLOCK_LEN))
            }
            Some(PlannedSegment::Tensor { tensor, byte_len, shared }) => match (self.block, shared) {
                (0, _) => Next::Descriptor(tensor),
                (1, true) => Next::Shared(tensor),
                _ => {
                    let ordinal = self.block - 1 - u64::from(*shared);
                    let decoded_len = (byte_len - ordinal * tensor.block_len()).min(tensor.block_len());
                    Next::Data { tensor, ordinal: fitting(ordinal), decoded_len: fitting(decoded_len) }
                }
            },
        }
    }

    /// Number of blocks in the sink with their payload, and of block headers in the sink.
    #[must_use]
    pub fn blocks_written(&self) -> (usize, usize) {
        (self.table.len() - self.announced.len(), self.table.len())
    }

    fn skip_finished_segments(&mut self) {
        while self.plan.get(self.segment).is_some_and(|segment| self.block >= segment.blocks()) {
            self.segment += 1;
            self.block = 0;
        }
    }

    /// The header that a block of this kind and decoded length gets if it is what the
    /// plan says comes next; `decoded_len` is `None` where the plan does not say.
    fn expect(&self, kind: BlockKind, block: &EncodedBlock) -> Result<BlockHeader> {
        let (ordinal, owner) = match (kind, self.next()) {
            (BlockKind::Literal, Next::Literal(len)) if len == u64::from(block.decoded_len) => (self.literal_blocks, 0),
            (BlockKind::Descriptor, Next::Descriptor(tensor)) | (BlockKind::Shared, Next::Shared(tensor)) => {
                (0, tensor.owner())
            }
            (BlockKind::Data, Next::Data { tensor, ordinal, decoded_len }) if decoded_len == block.decoded_len => {
                (ordinal, tensor.owner())
            }
            (_, next) => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!("a {kind:?} block of {} bytes is out of turn: next is {next:?}", block.decoded_len),
                ));
            }
        };
        Ok(block_header(kind, ordinal, owner, block))
    }

    /// Enters an announced block into the table and moves on in the plan.
    fn announce(&mut self, header: BlockHeader, offset: u64) {
        self.literal_blocks += u32::from(header.kind == BlockKind::Literal);
        self.table.push(BlockRecord::of(&header, offset));
        self.announced.push_back(header);
    }

    /// Moves on in the plan behind the announced blocks.
    fn advance(&mut self, blocks: u64) {
        self.block += blocks;
        self.skip_finished_segments();
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|e| Error::io("writing", e).at(self.offset))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, alignment: u64) -> Result<()> {
        let padding = self.offset.next_multiple_of(alignment) - self.offset;
        self.write(&ZEROS[..to_usize(padding)?])
    }

    fn write_header(&mut self, header: &BlockHeader) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        header.write(&mut buffer);
        let result = self.write(&buffer);
        self.buffer = buffer;
        result
    }

    fn write_block(&mut self, kind: BlockKind, block: &EncodedBlock) -> Result<()> {
        if matches!(self.next(), Next::Data { tensor, .. } if tensor.is_contiguous()) {
            return Err(Error::new(Code::InvalidArgument, "a contiguous tensor is next, not a block"));
        }
        let header = self.expect(kind, block)?;
        check_payload(&header, block)?;
        self.pad_to(ALIGNMENT)?;
        self.announce(header, self.offset);
        self.advance(1);
        self.write_header(&header)?;
        self.write(&block.payload)?;
        self.announced.pop_front();
        Ok(())
    }

    /// Writes the next literal block: [`LITERAL_BLOCK_LEN`] bytes, or what is left.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if something else is planned, or an error of the sink.
    pub fn literal(&mut self, bytes: &[u8]) -> Result<()> {
        let (codec, packed) = pack_section(bytes);
        self.write_block(BlockKind::Literal, &EncodedBlock::single(codec, packed, bytes))
    }

    /// Writes the descriptor of the next tensor.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if something else is planned, or an error of the sink.
    pub fn descriptor(&mut self) -> Result<()> {
        let json = match self.next() {
            Next::Descriptor(tensor) => tensor.to_json(),
            _ => Vec::new(),
        };
        let (codec, packed) = pack_section(&json);
        self.write_block(BlockKind::Descriptor, &EncodedBlock::single(codec, packed, &json))
    }

    /// Writes the block of the tensor's shared components.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if something else is planned, or an error of the sink.
    pub fn shared(&mut self, block: &EncodedBlock) -> Result<()> {
        self.write_block(BlockKind::Shared, block)
    }

    /// Writes the next data block of the tensor. For a contiguous tensor, call
    /// [`Self::contiguous`] instead.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if something else is planned, or an error of the sink.
    pub fn data(&mut self, block: &EncodedBlock) -> Result<()> {
        self.write_block(BlockKind::Data, block)
    }

    /// Writes the headers of all data blocks of a contiguous tensor, given the
    /// checksum of each, before [`Self::payload`] writes their bytes.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if no contiguous tensor is next or the number of
    /// checksums is wrong, or an error of the sink.
    pub fn contiguous(&mut self, checksums: &[u32]) -> Result<()> {
        let (owner, block_len, byte_len) = match (self.next(), self.plan.get(self.segment)) {
            (Next::Data { tensor, ordinal: 0, .. }, Some(PlannedSegment::Tensor { byte_len, .. }))
                if tensor.is_contiguous() && tensor.block_count(*byte_len) == checksums.len() as u64 =>
            {
                (tensor.owner(), tensor.block_len(), *byte_len)
            }
            (next, _) => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    format!("{} contiguous blocks are out of turn: next is {next:?}", checksums.len()),
                ));
            }
        };
        self.pad_to(ALIGNMENT)?;
        let header_len = crate::block_header_len(1) as u64;
        let first_payload =
            (self.offset + header_len * checksums.len() as u64).next_multiple_of(run_alignment(byte_len));
        for (i, &crc) in checksums.iter().enumerate() {
            let start = i as u64 * block_len;
            let len = fitting((byte_len - start).min(block_len));
            let header = BlockHeader {
                kind: BlockKind::Data,
                ordinal: fitting(i as u64),
                owner,
                payload_distance: fitting(first_payload + start - self.offset),
                stored_len: len,
                decoded_len: len,
                crc_stored: crc,
                crc_decoded: crc,
                streams: StreamList::one(codec_id::RAW, len),
            };
            self.announce(header, self.offset);
            self.write_header(&header)?;
        }
        self.advance(checksums.len() as u64);
        Ok(())
    }

    fn pad_before_payload(&mut self) -> Result<()> {
        let next = self.table.len() - self.announced.len();
        match self.table.get(next) {
            Some(record) if record.payload_offset() > self.offset => {
                let padding = to_usize(record.payload_offset() - self.offset)?;
                self.write(&ZEROS[..padding])
            }
            _ => Ok(()),
        }
    }

    /// Writes the payload of the next block of a contiguous tensor.
    ///
    /// # Errors
    /// [`Code::SourceChanged`] if the bytes are not those whose checksum was given,
    /// [`Code::InvalidArgument`] if no payload is due, or an error of the sink.
    pub fn payload(&mut self, bytes: &[u8]) -> Result<()> {
        let Next::Payload(header) = self.next() else {
            return Err(Error::new(Code::InvalidArgument, "no payload is due"));
        };
        if bytes.len() != header.stored_len as usize || crc32(bytes) != header.crc_stored {
            return Err(Error::new(Code::SourceChanged, "a tensor's bytes changed between two reads")
                .with_help("convert again when nothing writes to the source"));
        }
        self.pad_before_payload()?;
        self.write(bytes)?;
        self.announced.pop_front();
        Ok(())
    }

    /// Takes note of an item that is in the sink already. Manifest, block table and
    /// trailer are not kept: [`Self::finish`] writes them again.
    ///
    /// # Errors
    /// [`Code::OtherPartial`] if the item is not what the plan says comes next.
    pub fn replay(&mut self, item: &Item<'_>) -> Result<()> {
        let other = |offset| Error::new(Code::OtherPartial, "the unfinished file holds other blocks").at(offset);
        match item {
            Item::Header(header) if header.to_bytes() != self.header => Err(other(0)),
            Item::Block { offset, header } | Item::Payload { block_offset: offset, header, .. }
                if matches!(header.kind, BlockKind::Manifest | BlockKind::Table) =>
            {
                if matches!(self.next(), Next::Nothing) { Ok(()) } else { Err(other(*offset)) }
            }
            Item::Block { offset, header } => {
                if !self.is_planned(header, *offset) {
                    return Err(other(*offset));
                }
                self.announce(*header, *offset);
                self.advance(1);
                self.offset = offset + header.header_len() as u64;
                Ok(())
            }
            Item::Payload { block_offset, header, .. } => {
                self.announced.pop_front();
                self.offset = block_offset + u64::from(header.payload_distance) + u64::from(header.stored_len);
                Ok(())
            }
            Item::Header(_) | Item::Padding | Item::Trailer(_) | Item::End => Ok(()),
        }
    }

    /// Whether this writer would write this header here, as far as it can know.
    fn is_planned(&mut self, header: &BlockHeader, offset: u64) -> bool {
        let block = EncodedBlock {
            streams: header.streams,
            payload: Vec::new(),
            decoded_len: header.decoded_len,
            crc_stored: header.crc_stored,
            crc_decoded: header.crc_decoded,
        };
        // The headers of a run come one after the other, before any payload.
        let due = std::mem::take(&mut self.announced);
        let planned = self.expect(header.kind, &block);
        let distance = match (self.next(), self.plan.get(self.segment)) {
            (Next::Data { tensor, ordinal, .. }, Some(PlannedSegment::Tensor { byte_len, .. }))
                if tensor.is_contiguous() =>
            {
                let start = u64::from(ordinal) * tensor.block_len();
                let headers = (tensor.block_count(*byte_len) - u64::from(ordinal)) * header.header_len() as u64;
                (offset + headers).next_multiple_of(run_alignment(*byte_len)) + start - offset
            }
            _ => header.header_len() as u64,
        };
        let described = match self.next() {
            Next::Descriptor(tensor) => crc32(&tensor.to_json()) == header.crc_decoded,
            _ => true,
        };
        self.announced = due;
        described
            && offset == self.offset.next_multiple_of(ALIGNMENT)
            && u64::from(header.payload_distance) == distance
            && planned.is_ok_and(|p| (p.ordinal, p.owner) == (header.ordinal, header.owner))
    }

    /// Ends the replay: drops headers that cannot be kept without their payload. Returns
    /// the length that the sink must be cut to before anything more is written, in bytes.
    pub fn end_replay(&mut self) -> u64 {
        let Some(first) = self.announced.front() else { return self.offset };
        let contiguous = first.payload_distance as usize != first.header_len();
        // A run whose headers are all there goes on with its next payload.
        let due = std::mem::take(&mut self.announced);
        let inside_tensor = matches!(self.next(), Next::Data { ordinal: 1.., .. });
        if contiguous && !inside_tensor {
            self.announced = due;
            return self.offset;
        }
        for _ in due {
            if let Some(record) = self.table.pop() {
                self.offset = record.offset;
                self.literal_blocks -= u32::from(record.kind == BlockKind::Literal);
                self.step_back();
            }
        }
        self.offset
    }

    fn step_back(&mut self) {
        while self.block == 0 {
            self.segment -= 1;
            self.block = self.plan[self.segment].blocks();
        }
        self.block -= 1;
    }

    /// Sets the views that the manifest will list.
    pub fn set_views(&mut self, views: Vec<View>) {
        self.views = views;
    }

    /// Says in the manifest what was done to a tensor. To be called in the order of the tensors.
    pub fn lossy(&mut self, lossy: Lossy) {
        self.lossy.push(lossy);
    }

    /// What has been said to be done to tensors.
    #[must_use]
    pub fn lossy_tensors(&self) -> &[Lossy] {
        &self.lossy
    }

    /// Writes manifest, block table and trailer, flushes, and returns the sink.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if something planned has not been written, or an error of the sink.
    pub fn finish(mut self, generator: &str, source: Option<Source>, metadata: BTreeMap<String, String>) -> Result<W> {
        if !matches!(self.next(), Next::Nothing) {
            return Err(Error::new(Code::InvalidArgument, format!("planned but not written: {:?}", self.next())));
        }
        let plan = std::mem::take(&mut self.plan);
        let tensors = plan
            .into_iter()
            .filter_map(|segment| match segment {
                PlannedSegment::Tensor { tensor, .. } => Some(tensor),
                PlannedSegment::Literal(_) => None,
            })
            .collect();
        let views = std::mem::take(&mut self.views);
        let lossy = std::mem::take(&mut self.lossy);
        let limits = Limits::default();
        view::check(&views, &limits).map_err(refused)?;
        let manifest = Manifest { generator: generator.to_owned(), source, metadata, tensors, views, lossy };
        manifest.check_lossy().map_err(refused)?;
        let json = manifest.to_json();
        if json.len() > limits.manifest_len as usize {
            return Err(Error::limit("the manifest's length", json.len() as u64, limits.manifest_len.into()));
        }
        self.pad_to(ALIGNMENT)?;
        let manifest_offset = self.offset;
        let (codec, packed) = pack_section(&json);
        let mut index = section(BlockKind::Manifest, &EncodedBlock::single(codec, packed, &json));
        let table_offset = manifest_offset + index.len() as u64;
        let records: Vec<u8> = self.table.iter().flat_map(|record| record.to_bytes()).collect();
        let records = EncodedBlock::single(codec_id::RAW, records.clone(), &records);
        index.extend(section(BlockKind::Table, &records));
        // What a reader would refuse is refused before it is written.
        let table = std::mem::take(&mut self.table);
        Index::assemble(Header::parse(&self.header)?, [0; 32], 0, manifest, table, &limits).map_err(refused)?;
        let trailer = Trailer::new(manifest_offset, table_offset, &self.header, &index);
        self.write(&index)?;
        self.write(&trailer.to_bytes())?;
        self.sink.flush().map_err(|e| Error::io("writing", e).at(self.offset))?;
        Ok(self.sink)
    }
}

fn refused(e: Error) -> Error {
    Error::new(Code::InvalidArgument, format!("a reader would refuse the file: {e}"))
}

/// A number that [`check_plan`] or [`check_payload`] keeps below 2^32.
fn fitting(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Checks that an encoder's block is what its stream list says.
fn check_payload(header: &BlockHeader, block: &EncodedBlock) -> Result<()> {
    if block.payload.len() as u64 != block.streams.payload_len() {
        return Err(Error::new(Code::InvalidArgument, "the payload is not as long as its streams"));
    }
    header
        .split(&block.payload)
        .and_then(|_| BlockRecord::of(header, 0).check_lengths())
        .map_err(|e| Error::new(Code::InvalidArgument, format!("a reader would refuse the block: {e}")))
}

fn block_header(kind: BlockKind, ordinal: u32, owner: u32, block: &EncodedBlock) -> BlockHeader {
    BlockHeader {
        kind,
        ordinal,
        owner,
        payload_distance: fitting(crate::block_header_len(block.streams.len()) as u64),
        stored_len: fitting(block.streams.payload_len()),
        decoded_len: block.decoded_len,
        crc_stored: block.crc_stored,
        crc_decoded: block.crc_decoded,
        streams: block.streams,
    }
}

/// A block with its padding, as bytes.
fn section(kind: BlockKind, block: &EncodedBlock) -> Vec<u8> {
    let mut bytes = Vec::new();
    block_header(kind, 0, 0, block).write(&mut bytes);
    bytes.extend_from_slice(&block.payload);
    bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
    bytes
}
