//! Fixed little-endian records, and sections of text that may be compressed.

use std::io::Read;

use crate::{Code, Error, Result, codec_id};

/// Every structure of the file starts on a multiple of this, in bytes.
pub const ALIGNMENT: u64 = 64;
/// Contiguous payloads of [`LARGE_PAYLOAD`] bytes and more start on a multiple of this.
pub const PAGE: u64 = 4096;
/// From this size on, a contiguous payload is aligned to a page, in bytes.
pub const LARGE_PAYLOAD: u64 = 64 << 10;

/// `offset` rounded up to a multiple of `alignment`, unless that overflows.
#[must_use]
pub const fn align_up(offset: u64, alignment: u64) -> Option<u64> {
    offset.checked_next_multiple_of(alignment)
}

/// CRC-32 (IEEE 802.3) of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of a record that holds its own checksum at `field`, counted as zeros there.
pub(crate) fn crc32_without(record: &[u8], field: std::ops::Range<usize>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..field.start]);
    hasher.update(&[0; 4][..field.len()]);
    hasher.update(&record[field.end..]);
    hasher.finalize()
}

/// Fails unless every byte is zero.
pub(crate) fn expect_zero(bytes: &[u8], offset: u64) -> Result<()> {
    match bytes.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(i) => {
            Err(Error::new(Code::Padding, format!("reserved or padding byte is {:#04x} instead of zero", bytes[i]))
                .at(offset + i as u64))
        }
    }
}

/// Level of zstd for manifests, descriptors and literals: they are small.
const SECTION_LEVEL: i32 = 12;

/// Shorter sections gain less than their padding: they are stored as they are.
const SECTION_WORTHWHILE: usize = 1024;

/// Compresses a section with zstd if that makes it smaller.
/// Returns the codec id and the stored bytes.
pub(crate) fn pack_section(bytes: &[u8]) -> (u16, Vec<u8>) {
    if bytes.len() < SECTION_WORTHWHILE {
        return (codec_id::RAW, bytes.to_vec());
    }
    match zstd::bulk::compress(bytes, SECTION_LEVEL) {
        Ok(packed) if packed.len() < bytes.len() => (codec_id::ZSTD, packed),
        _ => (codec_id::RAW, bytes.to_vec()),
    }
}

/// Decodes a section of a literal, descriptor or manifest block.
///
/// # Errors
/// [`Code::BadStream`] if the bytes do not decode to exactly `decoded_len` bytes,
/// [`Code::UnknownCodec`] if the codec is neither raw nor zstd.
pub fn unpack_section(codec: u16, stored: &[u8], decoded_len: u32) -> Result<Vec<u8>> {
    let bad = |why: String| Error::new(Code::BadStream, why);
    let decoded_len = decoded_len as usize;
    let bytes = match codec {
        codec_id::RAW => stored.to_vec(),
        codec_id::ZSTD => {
            let stated = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
            if stated != Some(decoded_len as u64) {
                return Err(bad(format!("zstd frame states {stated:?} bytes, expected {decoded_len}")));
            }
            // Decoded as a stream: memory grows with what really comes out.
            let mut bytes = Vec::new();
            zstd::stream::Decoder::with_buffer(stored)
                .and_then(|decoder| decoder.take(decoded_len as u64 + 1).read_to_end(&mut bytes))
                .map_err(|e| bad(format!("zstd: {e}")))?;
            bytes
        }
        other => {
            return Err(Error::new(
                Code::UnknownCodec,
                format!("section stored with codec {other}, only raw and zstd are allowed"),
            ));
        }
    };
    if bytes.len() != decoded_len {
        return Err(bad(format!("section holds {} bytes, expected {decoded_len}", bytes.len())));
    }
    Ok(bytes)
}
