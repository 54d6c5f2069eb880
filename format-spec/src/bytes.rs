//! Fixed little-endian records, and sections of text that may be compressed.

use std::io::Read;

use crate::limits::MAX_WINDOW_LOG;
use crate::{Code, Error, Result, codec_id};

/// Every structure of the file starts on a multiple of this, in bytes.
pub const ALIGNMENT: u64 = 64;
/// Contiguous payloads of [`LARGE_PAYLOAD`] bytes and more start on a multiple of this.
pub const PAGE: u64 = 4096;
/// From this size on, a contiguous payload is aligned to a page, in bytes.
pub const LARGE_PAYLOAD: u64 = 64 << 10;

/// [`ALIGNMENT`] as a length in memory.
pub(crate) const UNIT: usize = 64;
/// As many zeros as any padding can have.
pub(crate) const ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(UNIT as u64 == ALIGNMENT && ZEROS.len() as u64 == PAGE);

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

/// A length of the file as a length in memory.
pub(crate) fn to_usize(len: u64) -> Result<usize> {
    usize::try_from(len).map_err(|_| Error::limit("a length", len, usize::MAX as u64))
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

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// A zstd block decodes to this many bytes, at most.
const ZSTD_BLOCK: u64 = 128 << 10;
/// A zstd block that decodes to anything takes this many bytes, at least.
const ZSTD_BLOCK_MIN: u64 = 4;

/// Decodes a section of a literal, descriptor or manifest block. Memory is bounded by
/// what the stored bytes can decode to at all, whatever `decoded_len` says.
///
/// # Errors
/// [`Code::BadStream`] if the bytes do not decode to exactly `decoded_len` bytes,
/// [`Code::UnknownCodec`] if the codec is neither raw nor zstd.
pub fn unpack_section(codec: u16, stored: &[u8], decoded_len: u32) -> Result<Vec<u8>> {
    let bytes = match codec {
        codec_id::RAW if stored.len() as u64 == u64::from(decoded_len) => stored.to_vec(),
        codec_id::RAW => Vec::new(),
        codec_id::ZSTD => unpack_zstd(stored, decoded_len)?,
        other => {
            return Err(Error::new(
                Code::UnknownCodec,
                format!("section stored with codec {other}, only raw and zstd are allowed"),
            ));
        }
    };
    if bytes.len() as u64 != u64::from(decoded_len) {
        return Err(bad_stream(format!("section does not decode to {decoded_len} bytes")));
    }
    Ok(bytes)
}

/// Decodes exactly one frame, which must state its size and be all there is.
fn unpack_zstd(stored: &[u8], decoded_len: u32) -> Result<Vec<u8>> {
    if !stored.starts_with(&ZSTD_MAGIC) {
        return Err(bad_stream("not a zstd frame"));
    }
    let stated = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
    if stated != Some(u64::from(decoded_len)) {
        return Err(bad_stream(format!("zstd frame states {stated:?} bytes, expected {decoded_len}")));
    }
    if zstd::zstd_safe::find_frame_compressed_size(stored).ok() != Some(stored.len()) {
        return Err(bad_stream("not exactly one zstd frame"));
    }
    // The decoder allocates its window by what the frame states.
    if u64::from(decoded_len) > stored.len() as u64 / ZSTD_BLOCK_MIN * ZSTD_BLOCK {
        return Err(bad_stream(format!("{} bytes of zstd cannot hold {decoded_len} bytes", stored.len())));
    }
    let mut bytes = Vec::new();
    zstd::stream::Decoder::with_buffer(stored)
        .and_then(|mut decoder| decoder.window_log_max(MAX_WINDOW_LOG).map(|()| decoder.single_frame()))
        .and_then(|decoder| decoder.take(u64::from(decoded_len) + 1).read_to_end(&mut bytes))
        .map_err(|e| bad_stream(format!("zstd: {e}")))?;
    Ok(bytes)
}

fn bad_stream(why: impl Into<String>) -> Error {
    Error::new(Code::BadStream, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back() {
        let long: Vec<u8> = (0..20u32 << 20).map(|i| (i >> 12) as u8).collect();
        for bytes in [&b""[..], b"a", &[7; 1000], &long] {
            let (codec, stored) = pack_section(bytes);
            assert!(stored.len() <= bytes.len());
            assert!(unpack_section(codec, &stored, bytes.len() as u32).unwrap() == bytes);
        }
    }

    #[test]
    fn a_zstd_block_decodes_to_no_more_than_is_counted_for() {
        let zeros = vec![0; 16 << 20];
        let (codec, stored) = pack_section(&zeros);
        assert_eq!(codec, codec_id::ZSTD);
        assert!(stored.len() < 1024, "{}", stored.len());
        assert!(unpack_section(codec, &stored, 16 << 20).unwrap() == zeros);
    }

    #[test]
    fn align_up_does_not_wrap() {
        assert_eq!(align_up(0, 64), Some(0));
        assert_eq!(align_up(65, 64), Some(128));
        assert_eq!(align_up(u64::MAX - 63, 64), Some(u64::MAX - 63));
        assert_eq!(align_up(u64::MAX - 62, 64), None);
    }

    #[test]
    fn a_record_counts_its_own_checksum_as_zeros() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32_without(b"1234xxxx9", 4..8), crc32(b"1234\0\0\0\09"));
    }
}
