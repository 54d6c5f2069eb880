//! The first 64 bytes of a file.

use byteorder::{ByteOrder, LE};

use crate::bytes::{crc32_without, expect_zero};
use crate::{Code, Error, Result};

/// Length of the file header, in bytes.
pub const HEADER_LEN: usize = 64;
/// The first eight bytes of every `.cmz` file.
pub const MAGIC: [u8; 8] = *b"\x89CMZ\r\n\x1a\n";
/// Version of the format that this crate writes: major, minor.
pub const VERSION: (u16, u16) = (0, 1);

/// Features of the file that a reader must know to read it at all. None is defined yet.
const KNOWN_FEATURES: u64 = 0;
const CRC_FIELD: std::ops::Range<usize> = 60..64;

/// The file header: version, features, and which conversion wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Features that a reader may ignore, one bit each.
    pub optional_features: u64,
    /// Digest of the source's identity and the options, so that an interrupted
    /// conversion is continued only by the same conversion.
    pub fingerprint: [u8; 16],
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[..8].copy_from_slice(&MAGIC);
        LE::write_u16(&mut b[8..], VERSION.0);
        LE::write_u16(&mut b[10..], VERSION.1);
        LE::write_u64(&mut b[16..], 0);
        LE::write_u64(&mut b[24..], self.optional_features);
        b[32..48].copy_from_slice(&self.fingerprint);
        let crc = crc32_without(&b, CRC_FIELD);
        LE::write_u32(&mut b[CRC_FIELD], crc);
        b
    }

    /// Reads a header from the first bytes of a file.
    ///
    /// # Errors
    /// [`Code::NotCmz`] if the magic is wrong, [`Code::Truncated`] if there are fewer
    /// than 64 bytes, [`Code::Version`] or [`Code::Feature`] if the file is too new,
    /// [`Code::Malformed`] or [`Code::Padding`] if the header is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let known = bytes.len().min(8);
        if bytes[..known] != MAGIC[..known] {
            return Err(not_cmz(bytes));
        }
        let Some(b) = bytes.get(..HEADER_LEN) else {
            return Err(Error::new(
                Code::Truncated,
                format!("the file ends inside its header: {} of {HEADER_LEN} bytes", bytes.len()),
            )
            .at(bytes.len() as u64));
        };
        if LE::read_u32(&b[CRC_FIELD]) != crc32_without(b, CRC_FIELD) {
            return Err(Error::new(Code::Malformed, "the file header does not match its checksum").at(0));
        }
        let version = (LE::read_u16(&b[8..]), LE::read_u16(&b[10..]));
        if version != VERSION {
            return Err(Error::new(
                Code::Version,
                format!("format version {}.{}; this is a reader of {}.{}", version.0, version.1, VERSION.0, VERSION.1),
            )
            .at(8)
            .with_help("use the cmz release that wrote the file; before 1.0 each minor version stands alone"));
        }
        let unknown = LE::read_u64(&b[16..]) & !KNOWN_FEATURES;
        if unknown != 0 {
            let bits: Vec<_> = (0..64).filter(|bit| unknown >> bit & 1 == 1).map(|bit| bit.to_string()).collect();
            return Err(Error::new(Code::Feature, format!("unknown required feature bit {}", bits.join(", ")))
                .at(16)
                .with_help("use a newer cmz"));
        }
        expect_zero(&b[12..16], 12)?;
        expect_zero(&b[48..60], 48)?;
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&b[32..48]);
        Ok(Self { optional_features: LE::read_u64(&b[24..]), fingerprint })
    }
}

fn not_cmz(bytes: &[u8]) -> Error {
    let error = Error::new(Code::NotCmz, "not a .cmz file: the first eight bytes are not its magic").at(0);
    if bytes.starts_with(b"version https://git-lfs") {
        error.with_help("this is a Git LFS pointer: run `git lfs pull`")
    } else if bytes.len() >= 4 && bytes[1..4] == *b"CMZ" {
        error.with_help("the magic is damaged as by a text-mode transfer: fetch the file again in binary mode")
    } else {
        error.with_help("`cmz compress` makes .cmz files from .safetensors files")
    }
}
