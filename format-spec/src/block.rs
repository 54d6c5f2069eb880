//! Blocks: the unit of reading, checksums, random access and parallel decoding.

use byteorder::{ByteOrder, LE};

use crate::bytes::{ALIGNMENT, UNIT, align_up, crc32, crc32_without, expect_zero};
use crate::limits::{MAX_BLOCK_LEN, MAX_STORED_LEN, MAX_STREAMS};
use crate::{Code, Error, Limits, Result, codec_id};

/// The first four bytes of every block header.
pub const BLOCK_MAGIC: [u8; 4] = *b"\xC5BLK";
/// Bytes of a block header before its stream entries.
const FIXED_LEN: usize = 48;
const ENTRY_LEN: usize = 8;
/// Every stream starts on a multiple of this inside the payload, in bytes.
pub const STREAM_ALIGNMENT: usize = 16;
const CRC_FIELD: std::ops::Range<usize> = 44..48;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Bytes of the source file that belong to no tensor.
    Literal = 1,
    /// The description of the tensor whose blocks follow, as JSON.
    Descriptor = 2,
    /// The components that all data blocks of a tensor share.
    Shared = 3,
    /// A run of elements of a tensor.
    Data = 4,
    /// The manifest, as JSON.
    Manifest = 5,
    /// The block table.
    Table = 6,
}

impl BlockKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Literal, Self::Descriptor, Self::Shared, Self::Data, Self::Manifest, Self::Table]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

/// One stream of a block: which codec wrote it and how many bytes it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamEntry {
    /// Id of the stream codec.
    pub codec: u16,
    /// Length of the stream, in bytes.
    pub len: u32,
}

/// The streams of one block, in payload order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StreamList {
    entries: [StreamEntry; MAX_STREAMS],
    len: usize,
}

impl Default for StreamList {
    fn default() -> Self {
        Self { entries: [StreamEntry::default(); MAX_STREAMS], len: 0 }
    }
}

impl std::fmt::Debug for StreamList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl std::ops::Deref for StreamList {
    type Target = [StreamEntry];
    fn deref(&self) -> &[StreamEntry] {
        &self.entries[..self.len]
    }
}

impl StreamList {
    /// A list of one stream.
    #[must_use]
    pub fn one(codec: u16, len: u32) -> Self {
        let mut list = Self::default();
        list.push(StreamEntry { codec, len });
        list
    }

    /// Appends a stream.
    ///
    /// # Panics
    /// If the list holds [`MAX_STREAMS`] entries already.
    pub fn push(&mut self, entry: StreamEntry) {
        self.entries[self.len] = entry;
        self.len += 1;
    }

    /// Number of streams, as the file states it.
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_STREAMS, which is 32")]
    fn count(&self) -> u8 {
        self.len as u8
    }

    /// Length of the payload that holds these streams, in bytes.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        self.ranges().last().map_or(0, |last| last.end)
    }

    /// Where each stream lies in the payload, in bytes.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let mut end = 0u64;
        self.iter().map(move |entry| {
            let start = end.next_multiple_of(STREAM_ALIGNMENT as u64);
            end = start + u64::from(entry.len);
            start..end
        })
    }
}

/// A block header: everything needed to check and decode the block on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// What the block holds.
    pub kind: BlockKind,
    /// Number of the block among those of its kind and tensor, from 0.
    pub ordinal: u32,
    /// CRC-32 of the tensor's name; 0 for blocks that belong to no tensor.
    pub owner: u32,
    /// From the start of this header to the payload, in bytes.
    pub payload_distance: u32,
    /// Length of the payload, in bytes.
    pub stored_len: u32,
    /// Length of what the payload decodes to, in bytes.
    pub decoded_len: u32,
    /// CRC-32 of the payload.
    pub crc_stored: u32,
    /// CRC-32 of what the payload decodes to.
    pub crc_decoded: u32,
    /// The streams of the payload.
    pub streams: StreamList,
}

/// Length of the header of a block with `streams` streams, in bytes.
#[must_use]
pub const fn block_header_len(streams: usize) -> usize {
    (FIXED_LEN + ENTRY_LEN * streams).next_multiple_of(UNIT)
}

impl BlockHeader {
    /// Length of this header, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        block_header_len(self.streams.len())
    }

    /// Appends the header's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.header_len(), 0);
        let b = &mut out[start..];
        b[..4].copy_from_slice(&BLOCK_MAGIC);
        b[4] = self.kind as u8;
        b[5] = self.streams.count();
        LE::write_u32(&mut b[8..], self.ordinal);
        LE::write_u32(&mut b[12..], self.owner);
        LE::write_u32(&mut b[16..], self.payload_distance);
        LE::write_u32(&mut b[20..], self.stored_len);
        LE::write_u32(&mut b[24..], self.decoded_len);
        LE::write_u32(&mut b[28..], self.crc_stored);
        LE::write_u32(&mut b[32..], self.crc_decoded);
        for (entry, bytes) in self.streams.iter().zip(b[FIXED_LEN..].chunks_exact_mut(ENTRY_LEN)) {
            LE::write_u16(bytes, entry.codec);
            LE::write_u32(&mut bytes[4..], entry.len);
        }
        let crc = crc32_without(b, CRC_FIELD);
        LE::write_u32(&mut b[CRC_FIELD], crc);
    }

    /// How many bytes [`Self::parse`] needs of the header that `bytes` begin with; the
    /// first 64 bytes tell.
    pub(crate) fn needed_len(bytes: &[u8]) -> usize {
        match bytes.get(..UNIT) {
            Some(b) if b[..4] == BLOCK_MAGIC && usize::from(b[5]) <= MAX_STREAMS => block_header_len(b[5].into()),
            _ => UNIT,
        }
    }

    /// Reads the header at the start of `bytes`, which lie at `offset` in the file.
    ///
    /// # Errors
    /// [`Code::Truncated`] if `bytes` is too short, [`Code::Malformed`] or
    /// [`Code::Padding`] if the header is damaged or breaks a rule.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let malformed = |why: &str| Error::new(Code::Malformed, format!("block header: {why}")).at(offset);
        let truncated = || Error::new(Code::Truncated, "the file ends inside a block header").at(offset);
        if bytes.len() < UNIT {
            return Err(truncated());
        }
        if bytes[..4] != BLOCK_MAGIC {
            return Err(malformed("wrong magic"));
        }
        let streams = usize::from(bytes[5]);
        if streams > MAX_STREAMS {
            return Err(malformed("too many streams"));
        }
        let b = bytes.get(..block_header_len(streams)).ok_or_else(truncated)?;
        if LE::read_u32(&b[CRC_FIELD]) != crc32_without(b, CRC_FIELD) {
            return Err(malformed("does not match its checksum"));
        }
        let kind = BlockKind::from_byte(b[4]).ok_or_else(|| malformed("unknown kind of block"))?;
        let entries_end = FIXED_LEN + ENTRY_LEN * streams;
        let mut list = StreamList::default();
        for entry in b[FIXED_LEN..entries_end].chunks_exact(ENTRY_LEN) {
            expect_zero(&entry[2..4], offset + (FIXED_LEN + ENTRY_LEN * list.len + 2) as u64)?;
            list.push(StreamEntry { codec: LE::read_u16(entry), len: LE::read_u32(&entry[4..]) });
        }
        expect_zero(&b[6..8], offset + 6)?;
        expect_zero(&b[36..44], offset + 36)?;
        expect_zero(&b[entries_end..], offset + entries_end as u64)?;
        let header = Self {
            kind,
            ordinal: LE::read_u32(&b[8..]),
            owner: LE::read_u32(&b[12..]),
            payload_distance: LE::read_u32(&b[16..]),
            stored_len: LE::read_u32(&b[20..]),
            decoded_len: LE::read_u32(&b[24..]),
            crc_stored: LE::read_u32(&b[28..]),
            crc_decoded: LE::read_u32(&b[32..]),
            streams: list,
        };
        if u64::from(header.stored_len) != list.payload_len() {
            return Err(malformed("the streams do not fill the payload"));
        }
        if (header.payload_distance as usize) < b.len() {
            return Err(malformed("the payload overlaps the header"));
        }
        Ok(header)
    }

    /// Checks the header of a manifest or table block, whose place the trailer gives.
    pub(crate) fn check_index_block(&self, limits: &Limits) -> Result<()> {
        let malformed = |why: &str| Error::new(Code::Malformed, format!("{:?} block: {why}", self.kind));
        let [stream] = self.streams[..] else { return Err(malformed("not one stream")) };
        if self.ordinal != 0 || self.owner != 0 || self.payload_distance as usize != self.header_len() {
            return Err(malformed("it has an ordinal, an owner or a payload elsewhere"));
        }
        if self.stored_len > self.decoded_len {
            return Err(malformed("stored form longer than decoded form"));
        }
        if self.kind != BlockKind::Table {
            let (len, limit) = (self.decoded_len, limits.manifest_len);
            return if len <= limit {
                Ok(())
            } else {
                Err(Error::limit("the manifest's length", len.into(), limit.into()))
            };
        }
        let is_raw = stream.codec == codec_id::RAW
            && self.decoded_len == self.stored_len
            && self.crc_decoded == self.crc_stored
            && (self.stored_len as usize).is_multiple_of(RECORD_LEN);
        let count = u64::from(self.stored_len) / RECORD_LEN as u64;
        if !is_raw {
            return Err(malformed("not a whole number of records, stored as they are"));
        }
        if count > u64::from(limits.blocks) {
            return Err(Error::limit("the number of blocks", count, limits.blocks.into()));
        }
        Ok(())
    }

    /// Checks that a block of a contiguous run is stored by the codec raw.
    pub(crate) fn check_raw(&self) -> Result<()> {
        if self.streams.iter().all(|stream| stream.codec == codec_id::RAW) {
            return Ok(());
        }
        Err(Error::new(Code::Malformed, "a block of a contiguous run is not stored as it is"))
    }

    /// The streams of this block inside its payload.
    ///
    /// # Errors
    /// [`Code::Truncated`] if `payload` is not `stored_len` bytes long,
    /// [`Code::Padding`] if the bytes between the streams are not zero.
    pub fn split<'a>(&self, payload: &'a [u8]) -> Result<[&'a [u8]; MAX_STREAMS]> {
        if payload.len() != self.stored_len as usize {
            return Err(Error::new(
                Code::Truncated,
                format!("payload of {} bytes, expected {}", payload.len(), self.stored_len),
            ));
        }
        let mut streams = [&payload[..0]; MAX_STREAMS];
        let mut rest = payload;
        let mut start = 0usize;
        for (stream, entry) in streams.iter_mut().zip(self.streams.iter()) {
            let gap = start.next_multiple_of(STREAM_ALIGNMENT) - start;
            let parts = rest.split_at_checked(gap).and_then(|(zeros, from)| {
                let (bytes, behind) = from.split_at_checked(entry.len as usize)?;
                Some((zeros, bytes, behind))
            });
            let Some((zeros, bytes, behind)) = parts else {
                return Err(Error::new(Code::Malformed, "the streams do not fit the payload"));
            };
            if zeros.iter().any(|&b| b != 0) {
                return Err(Error::new(Code::Padding, format!("bytes between streams, before byte {}", start + gap)));
            }
            start += gap + bytes.len();
            (*stream, rest) = (bytes, behind);
        }
        Ok(streams)
    }

    /// Checks the payload against the checksum of the stored bytes.
    ///
    /// # Errors
    /// [`Code::StoredChecksum`].
    pub fn check_stored(&self, payload: &[u8]) -> Result<()> {
        check_crc(Code::StoredChecksum, "stored bytes", self.crc_stored, crc32(payload))
    }

    /// Checks decoded bytes against the checksum of the decoded bytes.
    ///
    /// # Errors
    /// [`Code::DecodedChecksum`].
    pub fn check_decoded(&self, decoded: &[u8]) -> Result<()> {
        check_crc(Code::DecodedChecksum, "decoded bytes", self.crc_decoded, crc32(decoded))
    }
}

fn check_crc(code: Code, what: &str, expected: u32, found: u32) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::new(code, format!("checksum of the {what} is {found:08x}, expected {expected:08x}"))
        .with_help("the file is damaged: fetch it again, or save what is whole with `cmz recover`"))
}

/// A block as an encoder hands it to the [`crate::Writer`].
#[derive(Clone, Debug, Default)]
pub struct EncodedBlock {
    /// The streams of the payload.
    pub streams: StreamList,
    /// The streams' bytes, each stream on a multiple of 16.
    pub payload: Vec<u8>,
    /// Length of what the payload decodes to, in bytes.
    pub decoded_len: u32,
    /// CRC-32 of the payload.
    pub crc_stored: u32,
    /// CRC-32 of what the payload decodes to.
    pub crc_decoded: u32,
}

impl EncodedBlock {
    /// A block of one stream.
    ///
    /// # Panics
    /// If either form has 4 GiB or more, which no block can hold.
    #[must_use]
    pub fn single(codec: u16, payload: Vec<u8>, decoded: &[u8]) -> Self {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a block below 4 GiB");
        Self {
            streams: StreamList::one(codec, len(&payload)),
            decoded_len: len(decoded),
            crc_stored: crc32(&payload),
            crc_decoded: crc32(decoded),
            payload,
        }
    }
}

/// Length of one record of the block table, in bytes.
pub const RECORD_LEN: usize = 32;

/// One record of the block table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// Offset of the block header in the file, in bytes.
    pub offset: u64,
    /// From the block header to the payload, in bytes.
    pub payload_distance: u32,
    /// Length of the payload, in bytes.
    pub stored_len: u32,
    /// Length of what the payload decodes to, in bytes.
    pub decoded_len: u32,
    /// CRC-32 of the payload.
    pub crc_stored: u32,
    /// CRC-32 of what the payload decodes to.
    pub crc_decoded: u32,
    /// What the block holds.
    pub kind: BlockKind,
    /// Number of streams in the payload.
    pub streams: u8,
}

impl BlockRecord {
    /// The record of a block whose header lies at `offset`.
    #[must_use]
    pub fn of(header: &BlockHeader, offset: u64) -> Self {
        Self {
            offset,
            payload_distance: header.payload_distance,
            stored_len: header.stored_len,
            decoded_len: header.decoded_len,
            crc_stored: header.crc_stored,
            crc_decoded: header.crc_decoded,
            kind: header.kind,
            streams: header.streams.count(),
        }
    }

    /// Offset of the payload in the file, in bytes.
    #[must_use]
    pub fn payload_offset(&self) -> u64 {
        self.offset + u64::from(self.payload_distance)
    }

    /// Where the payload lies in the file, in bytes.
    #[must_use]
    pub fn payload_range(&self) -> std::ops::Range<u64> {
        self.payload_offset()..self.payload_offset() + u64::from(self.stored_len)
    }

    /// Length of the block header, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        block_header_len(usize::from(self.streams))
    }

    /// Whether the payload follows its header directly.
    #[must_use]
    pub fn is_adjacent(&self) -> bool {
        self.payload_distance as usize == self.header_len()
    }

    /// Whether the payload is the decoded bytes as they are, in one stream.
    pub(crate) fn is_raw(&self) -> bool {
        self.streams == 1 && self.stored_len == self.decoded_len && self.crc_stored == self.crc_decoded
    }

    /// Checks the lengths and the number of streams against what the kind allows.
    pub(crate) fn check_lengths(&self) -> Result<()> {
        let malformed = |why: &str| Error::new(Code::Malformed, format!("{:?} block: {why}", self.kind));
        if self.decoded_len > MAX_BLOCK_LEN || self.stored_len > MAX_STORED_LEN {
            return Err(malformed("longer than a block may be"));
        }
        match self.kind {
            BlockKind::Literal | BlockKind::Descriptor if self.streams != 1 => Err(malformed("not one stream")),
            BlockKind::Literal | BlockKind::Descriptor if self.stored_len > self.decoded_len => {
                Err(malformed("stored form longer than decoded form"))
            }
            BlockKind::Literal | BlockKind::Descriptor | BlockKind::Data if self.decoded_len == 0 => {
                Err(malformed("it decodes to nothing"))
            }
            _ => Ok(()),
        }
    }

    /// The record as its bytes in the block table.
    pub(crate) fn to_bytes(self) -> [u8; RECORD_LEN] {
        let mut b = [0; RECORD_LEN];
        LE::write_u64(&mut b, self.offset);
        LE::write_u32(&mut b[8..], self.payload_distance);
        LE::write_u32(&mut b[12..], self.stored_len);
        LE::write_u32(&mut b[16..], self.decoded_len);
        LE::write_u32(&mut b[20..], self.crc_stored);
        LE::write_u32(&mut b[24..], self.crc_decoded);
        b[28] = self.kind as u8;
        b[29] = self.streams;
        b
    }

    pub(crate) fn parse(b: &[u8], index: usize) -> Result<Self> {
        let malformed = |why: &str| Error::new(Code::Malformed, format!("block table, record {index}: {why}"));
        let record = Self {
            offset: LE::read_u64(b),
            payload_distance: LE::read_u32(&b[8..]),
            stored_len: LE::read_u32(&b[12..]),
            decoded_len: LE::read_u32(&b[16..]),
            crc_stored: LE::read_u32(&b[20..]),
            crc_decoded: LE::read_u32(&b[24..]),
            kind: BlockKind::from_byte(b[28]).ok_or_else(|| malformed("unknown kind of block"))?,
            streams: b[29],
        };
        if usize::from(record.streams) > MAX_STREAMS || b[30..32] != [0, 0] {
            return Err(malformed("reserved bytes are not zero or there are too many streams"));
        }
        if (record.payload_distance as usize) < record.header_len() {
            return Err(malformed("the payload overlaps the header"));
        }
        let end = record.offset.checked_add(u64::from(record.payload_distance) + u64::from(record.stored_len));
        if !record.offset.is_multiple_of(ALIGNMENT) || end.and_then(|end| align_up(end, ALIGNMENT)).is_none() {
            return Err(malformed("the offset is not aligned or too large"));
        }
        Ok(record)
    }

    /// Checks that the block header in the file says the same as this record.
    ///
    /// # Errors
    /// [`Code::Disagreement`]: neither of the two is preferred, the file is corrupt.
    pub fn check_header(&self, header: &BlockHeader) -> Result<()> {
        if Self::of(header, self.offset) == *self {
            return Ok(());
        }
        Err(Error::new(Code::Disagreement, "the block header and the block table disagree")
            .at(self.offset)
            .with_help("the file is damaged: fetch it again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(streams: usize) -> BlockHeader {
        let mut list = StreamList::default();
        for i in 0..streams {
            list.push(StreamEntry { codec: i as u16, len: 3 * i as u32 });
        }
        BlockHeader {
            kind: BlockKind::Data,
            ordinal: 1,
            owner: 2,
            payload_distance: block_header_len(streams) as u32,
            stored_len: list.payload_len() as u32,
            decoded_len: 5,
            crc_stored: 6,
            crc_decoded: 7,
            streams: list,
        }
    }

    #[test]
    fn headers_come_back() {
        for streams in 0..=MAX_STREAMS {
            let mut bytes = Vec::new();
            header(streams).write(&mut bytes);
            assert_eq!(bytes.len(), block_header_len(streams));
            assert_eq!(BlockHeader::needed_len(&bytes), bytes.len());
            assert_eq!(BlockHeader::parse(&bytes, 0).unwrap(), header(streams));
            let cut = BlockHeader::parse(&bytes[..bytes.len() - 1], 0).unwrap_err();
            assert_eq!(cut.code(), Code::Truncated);
        }
    }

    #[test]
    fn records_come_back() {
        let record = BlockRecord::of(&header(3), 128);
        assert_eq!(BlockRecord::parse(&record.to_bytes(), 0).unwrap(), record);
    }

    #[test]
    fn streams_lie_on_multiples_of_16() {
        let mut header = header(0);
        for len in [0, 5, 16, 1] {
            header.streams.push(StreamEntry { codec: 0, len });
        }
        header.stored_len = 33;
        assert_eq!(header.streams.ranges().collect::<Vec<_>>(), [0..0, 0..5, 16..32, 32..33]);
        let mut payload: Vec<u8> = (0..33).collect();
        payload[5..16].fill(0);
        let streams = header.split(&payload).unwrap();
        assert_eq!(streams[..4], [&[][..], &[0, 1, 2, 3, 4], &payload[16..32], &[32]]);
        payload[15] = 1;
        assert_eq!(header.split(&payload).unwrap_err().code(), Code::Padding);
        assert_eq!(header.split(&payload[..32]).unwrap_err().code(), Code::Truncated);
        // A header that was not parsed may contradict itself.
        header.stored_len = 20;
        assert_eq!(header.split(&payload[..20]).unwrap_err().code(), Code::Malformed);
    }
}
