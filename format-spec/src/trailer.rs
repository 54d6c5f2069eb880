//! The last 64 bytes of a file.

use byteorder::{ByteOrder, LE};

use crate::bytes::{ALIGNMENT, crc32_without};
use crate::header::{HEADER_LEN, MAGIC};
use crate::{Code, Error, Result};

/// Length of the trailer, in bytes.
pub const TRAILER_LEN: usize = 64;
const CRC_FIELD: std::ops::Range<usize> = 16..20;
/// Bytes at the start of the trailer that the root digest covers.
const ROOTED_LEN: usize = 16;

/// The trailer: where the manifest and the block table are, and the root digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the manifest block's header, in bytes.
    pub manifest_offset: u64,
    /// Offset of the table block's header, in bytes.
    pub table_offset: u64,
    /// BLAKE3 over the file header, the manifest and table blocks (with headers and
    /// padding) and the two offsets above.
    pub root: [u8; 32],
}

impl Trailer {
    /// The trailer of a file with this header and this index (the bytes from
    /// `manifest_offset` to the trailer).
    #[must_use]
    pub fn new(manifest_offset: u64, table_offset: u64, header: &[u8], index: &[u8]) -> Self {
        let mut trailer = Self { manifest_offset, table_offset, root: [0; 32] };
        trailer.root = trailer.digest(header, index);
        trailer
    }

    /// The root digest that these bytes should have.
    fn digest(&self, header: &[u8], index: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        hasher.update(index);
        self.finish_digest(&mut hasher)
    }

    /// The root digest, given a hasher that header and index went into.
    fn finish_digest(&self, hasher: &mut blake3::Hasher) -> [u8; 32] {
        hasher.update(&self.to_bytes()[..ROOTED_LEN]);
        *hasher.finalize().as_bytes()
    }

    /// Checks the root digest.
    ///
    /// # Errors
    /// [`Code::Digest`] if the header or the index is not what the writer wrote.
    pub fn check_root(&self, header: &[u8], index: &[u8]) -> Result<()> {
        self.compare_root(self.digest(header, index))
    }

    /// Checks the root digest, given a hasher that header and index went into.
    pub(crate) fn check_root_hash(&self, hasher: &mut blake3::Hasher) -> Result<()> {
        self.compare_root(self.finish_digest(hasher))
    }

    fn compare_root(&self, found: [u8; 32]) -> Result<()> {
        if found == self.root {
            return Ok(());
        }
        Err(Error::new(Code::Digest, "the index does not match the root digest in the trailer")
            .with_help("the file is damaged: fetch it again, or save what is whole with `cmz recover`"))
    }

    /// The trailer's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TRAILER_LEN] {
        let mut b = [0; TRAILER_LEN];
        LE::write_u64(&mut b, self.manifest_offset);
        LE::write_u64(&mut b[8..], self.table_offset);
        b[24..56].copy_from_slice(&self.root);
        b[56..].copy_from_slice(&MAGIC);
        let crc = crc32_without(&b, CRC_FIELD);
        LE::write_u32(&mut b[CRC_FIELD], crc);
        b
    }

    /// Reads the trailer of a file of `file_len` bytes.
    ///
    /// # Errors
    /// [`Code::Truncated`] if the file does not end in a trailer, [`Code::Malformed`]
    /// or [`Code::Padding`] if the trailer is damaged or points outside the file.
    pub fn parse(b: &[u8; TRAILER_LEN], file_len: u64) -> Result<Self> {
        let offset = file_len.saturating_sub(TRAILER_LEN as u64);
        if b[56..] != MAGIC {
            return Err(Error::new(
                Code::Truncated,
                "the file does not end in a trailer: it was cut short, or its end is damaged",
            )
            .at(file_len)
            .with_help("fetch the file again; `cmz recover` saves the tensors that are whole"));
        }
        let malformed = |why: &str| Error::new(Code::Malformed, format!("trailer: {why}")).at(offset);
        if LE::read_u32(&b[CRC_FIELD]) != crc32_without(b, CRC_FIELD) {
            return Err(malformed("does not match its checksum"));
        }
        crate::bytes::expect_zero(&b[20..24], offset + 20)?;
        let mut root = [0; 32];
        root.copy_from_slice(&b[24..56]);
        let trailer = Self { manifest_offset: LE::read_u64(b), table_offset: LE::read_u64(&b[8..]), root };
        let aligned = [trailer.manifest_offset, trailer.table_offset, file_len].iter().all(|o| o % ALIGNMENT == 0);
        let ordered = trailer.manifest_offset >= HEADER_LEN as u64
            && trailer.manifest_offset < trailer.table_offset
            && trailer.table_offset < offset;
        if !aligned || !ordered {
            return Err(malformed("the index lies outside the file"));
        }
        Ok(trailer)
    }
}
