//! A `.cmz` file in pieces that can be changed one by one and put together again, with
//! all enclosing checksums right, so that exactly the intended rule is broken.
//!
//! The byte offsets here are written down a second time, apart from the format crate.

use serde_json::Value;

const HEADER_CRC: usize = 60;
const TRAILER_CRC: usize = 16;
const BLOCK_CRC: usize = 44;

/// Offsets of fields in a block header, in bytes.
pub mod field {
    /// Kind, one byte.
    pub const KIND: usize = 4;
    /// Number of streams, one byte.
    pub const STREAMS: usize = 5;
    /// Two bytes that are zero.
    pub const RESERVED: usize = 6;
    /// Ordinal.
    pub const ORDINAL: usize = 8;
    /// Owner.
    pub const OWNER: usize = 12;
    /// Distance of the payload.
    pub const DISTANCE: usize = 16;
    /// Length of the payload.
    pub const STORED_LEN: usize = 20;
    /// Length of what it decodes to.
    pub const DECODED_LEN: usize = 24;
    /// Checksum of the payload.
    pub const CRC_STORED: usize = 28;
    /// Checksum of what it decodes to.
    pub const CRC_DECODED: usize = 32;
    /// First stream entry.
    pub const ENTRIES: usize = 48;
}

/// A change of some bytes: where, and to what.
pub type Patch = (usize, Vec<u8>);

/// A block.
#[derive(Clone, Debug, Default)]
pub struct RawBlock {
    /// The header without checksum, lengths as they should be.
    pub header: Vec<u8>,
    /// Codec id and bytes of each stream.
    pub streams: Vec<(u16, Vec<u8>)>,
    /// Number of the run: neighbours with the same number have all their headers first.
    pub run: usize,
    /// Whether the run's first payload starts on a page.
    pub paged: bool,
    /// Changes of the header after everything but its checksum is in place.
    pub header_patches: Vec<Patch>,
    /// Changes of the record in the block table.
    pub record_patches: Vec<Patch>,
    /// Bytes that are put before the header in addition.
    pub gap: Vec<u8>,
    /// Whether the block table has no record of the block.
    pub unlisted: bool,
    /// What stands between the streams of the payload.
    pub filler: u8,
}

impl RawBlock {
    /// Replaces the only stream, and says what it decodes to.
    pub fn set_section(&mut self, codec: u16, stored: Vec<u8>, decoded: &[u8]) {
        self.streams = vec![(codec, stored)];
        put32(&mut self.header, field::DECODED_LEN, decoded.len() as u32);
        put32(&mut self.header, field::CRC_DECODED, crc32fast::hash(decoded));
    }

    /// Replaces the only stream by text, compressed if it is long.
    pub fn set_text(&mut self, text: &[u8]) {
        let (codec, stored) = match zstd::bulk::compress(text, 19) {
            Ok(packed) if text.len() > 4096 => (1, packed),
            _ => (0, text.to_vec()),
        };
        self.set_section(codec, stored, text);
    }

    /// Changes a 32-bit field in the header and, if it has it, in the record.
    pub fn patch(&mut self, field: usize, value: u32) {
        self.header_patches.push((field, value.to_le_bytes().to_vec()));
        if let Some(at) = record_field(field) {
            self.record_patches.push((at, value.to_le_bytes().to_vec()));
        }
    }

    /// The kind of block.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.header[field::KIND]
    }

    fn header_len(&self) -> usize {
        (field::ENTRIES + 8 * self.streams.len()).next_multiple_of(64)
    }

    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for (_, stream) in &self.streams {
            payload.resize(payload.len().next_multiple_of(16), self.filler);
            payload.extend_from_slice(stream);
        }
        payload
    }

    /// The header as it stands in the file when the payload is so far away.
    fn header_bytes(&self, distance: usize) -> Vec<u8> {
        let payload = self.payload();
        let mut b = self.header[..field::ENTRIES].to_vec();
        b[..4].copy_from_slice(b"\xC5BLK");
        b[field::STREAMS] = self.streams.len() as u8;
        put32(&mut b, field::DISTANCE, distance as u32);
        put32(&mut b, field::STORED_LEN, payload.len() as u32);
        put32(&mut b, field::CRC_STORED, crc32fast::hash(&payload));
        for (codec, stream) in &self.streams {
            b.extend_from_slice(&codec.to_le_bytes());
            b.extend_from_slice(&[0, 0]);
            b.extend_from_slice(&(stream.len() as u32).to_le_bytes());
        }
        b.resize(self.header_len(), 0);
        apply(&mut b, &self.header_patches);
        put_crc(&mut b, BLOCK_CRC);
        b
    }

    fn record(&self, offset: usize, distance: usize) -> Vec<u8> {
        let mut record = (offset as u64).to_le_bytes().to_vec();
        let pristine = Self { header_patches: Vec::new(), ..self.clone() }.header_bytes(distance);
        record.extend_from_slice(&pristine[field::DISTANCE..36]);
        record.extend_from_slice(&[pristine[field::KIND], pristine[field::STREAMS], 0, 0]);
        apply(&mut record, &self.record_patches);
        record
    }
}

/// Where the record keeps what the block header keeps at `field`.
fn record_field(at: usize) -> Option<usize> {
    (field::DISTANCE..=field::CRC_DECODED).contains(&at).then(|| at - field::DISTANCE + 8)
}

/// A file in pieces.
#[derive(Clone, Debug, Default)]
pub struct RawFile {
    /// The file header; its checksum is put right.
    pub header: Vec<u8>,
    /// The blocks before the index.
    pub blocks: Vec<RawBlock>,
    /// The manifest block.
    pub manifest: RawBlock,
    /// The table block; its payload is made from the blocks.
    pub table: RawBlock,
    /// Changes of the table's payload.
    pub table_patches: Vec<Patch>,
    /// Bytes behind the table's records.
    pub more_records: Vec<u8>,
    /// Bytes before the manifest in addition.
    pub gap: Vec<u8>,
    /// Changes of the finished index, before the root digest is taken.
    pub index_patches: Vec<Patch>,
    /// Changes of the trailer before its checksum is taken.
    pub trailer_patches: Vec<Patch>,
}

impl RawFile {
    /// Takes a sound file apart.
    ///
    /// # Panics
    /// If it is not sound.
    #[must_use]
    pub fn parse(file: &[u8]) -> Self {
        let trailer = &file[file.len() - 64..];
        let (manifest_at, table_at) = (le64(trailer, 0), le64(trailer, 8));
        let table = block_at(file, table_at, 0);
        let mut blocks: Vec<RawBlock> = Vec::new();
        let mut run = (0, 0);
        for record in table.streams[0].1.chunks_exact(32) {
            let offset = le64(record, 0);
            if offset >= run.1 {
                run = (run.0 + 1, offset + le32(record, 8));
            }
            blocks.push(block_at(file, offset, run.0));
        }
        Self { header: file[..64].to_vec(), blocks, manifest: block_at(file, manifest_at, 0), table, ..Self::default() }
    }

    /// The manifest's text.
    ///
    /// # Panics
    /// If it is not a section of text.
    #[must_use]
    pub fn manifest_text(&self) -> String {
        let (codec, stored) = &self.manifest.streams[0];
        let len = le32(&self.manifest.header, field::DECODED_LEN) as u32;
        let text = cmz_format::unpack_section(*codec, stored, len).expect("a section");
        String::from_utf8(text).expect("JSON")
    }

    /// Replaces the manifest's text.
    pub fn set_manifest(&mut self, text: impl AsRef<[u8]>) {
        self.manifest.set_text(text.as_ref());
    }

    /// Changes the manifest's text.
    pub fn replace_in_manifest(&mut self, from: &str, to: &str) {
        let text = self.manifest_text();
        assert!(text.contains(from), "{from} is not in {text}");
        self.set_manifest(text.replacen(from, to, 1));
    }

    /// Changes the manifest as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn edit_manifest(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_str(&self.manifest_text()).expect("JSON");
        edit(&mut value);
        self.set_manifest(value.to_string());
    }

    /// Changes the description of a tensor in manifest and descriptor alike.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn edit_tensor(&mut self, tensor: usize, edit: impl FnOnce(&mut Value)) {
        let mut described = Value::Null;
        self.edit_manifest(|manifest| {
            edit(&mut manifest["tensors"][tensor]);
            described = manifest["tensors"][tensor].clone();
        });
        let json = described.to_string();
        let at = self.find(2, tensor);
        self.blocks[at].set_text(json.as_bytes());
    }

    /// The number of the `n`-th block of a kind.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn find(&self, kind: u8, n: usize) -> usize {
        let of_kind = self.blocks.iter().enumerate().filter(|(_, block)| block.kind() == kind);
        of_kind.map(|(i, _)| i).nth(n).expect("such a block")
    }

    /// The `n`-th data block.
    ///
    /// # Panics
    /// If there is none.
    pub fn data(&mut self, n: usize) -> &mut RawBlock {
        let at = self.find(4, n);
        &mut self.blocks[at]
    }

    /// Puts the file together.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        if file.len() == 64 {
            put_crc(&mut file, HEADER_CRC);
        }
        let mut records = Vec::new();
        let mut rest = &self.blocks[..];
        while let Some(first) = rest.first() {
            let len = rest.iter().take_while(|block| block.run == first.run).count();
            let (run, behind) = rest.split_at(len);
            build_run(run, &mut file, &mut records);
            rest = behind;
        }
        records.extend_from_slice(&self.more_records);
        apply(&mut records, &self.table_patches);
        pad(&mut file, 64);
        file.extend_from_slice(&self.gap);
        let manifest_at = file.len();
        build_section(&self.manifest, &mut file);
        let table_at = file.len();
        let mut table = self.table.clone();
        let codec = table.streams[0].0;
        table.set_section(codec, records.clone(), &records);
        build_section(&table, &mut file);
        apply(&mut file[manifest_at..], &self.index_patches);
        let trailer = trailer(&file, manifest_at, table_at, &self.trailer_patches);
        file.extend_from_slice(&trailer);
        file
    }
}

fn build_run(run: &[RawBlock], file: &mut Vec<u8>, records: &mut Vec<u8>) {
    pad(file, 64);
    file.extend_from_slice(&run[0].gap);
    let headers: usize = run.iter().map(RawBlock::header_len).sum();
    let mut payload_at = (file.len() + headers).next_multiple_of(if run[0].paged { 4096 } else { 64 });
    for block in run {
        let offset = file.len();
        if !block.unlisted {
            records.extend(block.record(offset, payload_at - offset));
        }
        file.extend(block.header_bytes(payload_at - offset));
        payload_at += block.payload().len();
    }
    pad(file, if run[0].paged { 4096 } else { 64 });
    for block in run {
        file.extend(block.payload());
    }
}

fn build_section(block: &RawBlock, file: &mut Vec<u8>) {
    file.extend(block.header_bytes(block.header_len()));
    file.extend(block.payload());
    pad(file, 64);
}

fn trailer(file: &[u8], manifest_at: usize, table_at: usize, patches: &[Patch]) -> Vec<u8> {
    let mut trailer = vec![0; 64];
    trailer[..8].copy_from_slice(&(manifest_at as u64).to_le_bytes());
    trailer[8..16].copy_from_slice(&(table_at as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..64]);
    hasher.update(&file[manifest_at..]);
    hasher.update(&trailer[..16]);
    trailer[24..56].copy_from_slice(hasher.finalize().as_bytes());
    trailer[56..].copy_from_slice(b"\x89CMZ\r\n\x1a\n");
    apply(&mut trailer, patches);
    put_crc(&mut trailer, TRAILER_CRC);
    trailer
}

fn block_at(file: &[u8], offset: usize, run: usize) -> RawBlock {
    let header = &file[offset..];
    let payload = &header[le32(header, field::DISTANCE)..];
    let mut at = 0usize;
    let streams = header[field::ENTRIES..].chunks_exact(8).take(usize::from(header[field::STREAMS]));
    let streams: Vec<(u16, Vec<u8>)> = streams
        .map(|entry| {
            let start = at.next_multiple_of(16);
            at = start + le32(entry, 4);
            (u16::from_le_bytes([entry[0], entry[1]]), payload[start..at].to_vec())
        })
        .collect();
    let adjacent = (field::ENTRIES + 8 * streams.len()).next_multiple_of(64) == le32(header, field::DISTANCE);
    let paged = !adjacent && (offset + le32(header, field::DISTANCE)).is_multiple_of(4096);
    RawBlock { header: header[..field::ENTRIES].to_vec(), streams, run, paged, ..RawBlock::default() }
}

/// Puts every checksum and digest of a file right that can be found through its trailer
/// and block table, so that changed bytes get past them. Files without a usable trailer
/// are left as they are.
pub fn fix_checksums(file: &mut [u8]) {
    let len = file.len();
    if len < 256 {
        return;
    }
    file[..8].copy_from_slice(b"\x89CMZ\r\n\x1a\n");
    put_crc(&mut file[..64], HEADER_CRC);
    let trailer_at = len - 64;
    let (manifest_at, table_at) = (le64(file, trailer_at), le64(file, trailer_at + 8));
    if manifest_at < 64 || manifest_at >= table_at || table_at + 64 > trailer_at {
        return;
    }
    let mut at = table_at.saturating_add(64);
    while at + 32 <= trailer_at {
        let offset = le64(file, at);
        if let Some((crc, raw)) = fix_block(file, offset, manifest_at) {
            put32(file, at + 20, crc);
            if raw {
                put32(file, at + 24, crc);
            }
        }
        at += 32;
    }
    fix_block(file, manifest_at, table_at);
    fix_block(file, table_at, trailer_at);
    file[len - 8..].copy_from_slice(b"\x89CMZ\r\n\x1a\n");
    let (content, trailer) = file.split_at_mut(trailer_at);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content[..64]);
    hasher.update(&content[manifest_at..]);
    hasher.update(&trailer[..16]);
    trailer[24..56].copy_from_slice(hasher.finalize().as_bytes());
    put_crc(trailer, TRAILER_CRC);
}

/// Puts the checksums of a block right and returns that of its payload, and whether it
/// is the one of the decoded form too, as of a raw stream.
fn fix_block(file: &mut [u8], offset: usize, end: usize) -> Option<(u32, bool)> {
    let header = file.get(offset..end)?;
    if header.len() < 64 {
        return None;
    }
    let streams = usize::from(header[field::STREAMS]).min(32);
    let header_len = (field::ENTRIES + 8 * streams).next_multiple_of(64);
    let payload_at = offset.checked_add(le32(header, field::DISTANCE))?;
    let stored_len = le32(header, field::STORED_LEN);
    let payload = file.get(payload_at..payload_at.checked_add(stored_len)?)?;
    let crc = crc32fast::hash(payload);
    let raw = streams == 1 && le32(header, field::DECODED_LEN) == stored_len;
    let header = file.get_mut(offset..offset.checked_add(header_len)?)?;
    header[..4].copy_from_slice(b"\xC5BLK");
    put32(header, field::CRC_STORED, crc);
    if raw {
        put32(header, field::CRC_DECODED, crc);
    }
    put_crc(header, BLOCK_CRC);
    Some((crc, raw))
}

fn apply(bytes: &mut [u8], patches: &[Patch]) {
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
}

fn pad(file: &mut Vec<u8>, alignment: usize) {
    file.resize(file.len().next_multiple_of(alignment), 0);
}

/// Writes a 32-bit number.
pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Computes the checksum of a record that keeps it at `at`, and puts it there.
pub fn put_crc(record: &mut [u8], at: usize) {
    put32(record, at, 0);
    let crc = crc32fast::hash(record);
    put32(record, at, crc);
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn le64(bytes: &[u8], at: usize) -> usize {
    let number = u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    // Far outside any file, with room for sums.
    usize::try_from(number).unwrap_or(usize::MAX).min(usize::MAX / 4)
}
