//! The directory of a zip archive whose members are stored, not compressed, as PyTorch writes them.

use std::collections::BTreeMap;
use std::ops::Range;

use cmz_format::{Code, Error, Result};

use super::bad;
use crate::io::ReadAt;

/// Members that an archive has at most.
const MAX_MEMBERS: u64 = 1 << 20;
/// Bytes of an archive's directory, at most.
const MAX_DIRECTORY_LEN: u64 = 256 << 20;
const END_LEN: u64 = 22;
const MAX_COMMENT_LEN: u64 = 65_535;
const LOCATOR_LEN: u64 = 20;
const LOCAL_LEN: u64 = 30;

/// The members of an archive, and where their bytes are.
pub(super) type Members = BTreeMap<String, Range<u64>>;

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

fn read(file: &dyn ReadAt, offset: u64, len: u64) -> Result<Vec<u8>> {
    if offset.checked_add(len).is_none_or(|end| end > file.byte_len()) {
        return Err(Error::new(Code::Truncated, "the archive ends before its directory says").at(file.byte_len()));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// Reads the directory of an archive.
pub(super) fn members(file: &dyn ReadAt) -> Result<Members> {
    let (offset, len, count) = directory(file)?;
    if len > MAX_DIRECTORY_LEN || count > MAX_MEMBERS {
        return Err(Error::limit(
            "the size of the archive's directory",
            len.max(count),
            MAX_DIRECTORY_LEN.min(MAX_MEMBERS),
        ));
    }
    let bytes = read(file, offset, len)?;
    let (mut at, mut members) = (0, Members::new());
    for _ in 0..count {
        let entry = bytes.get(at..).filter(|entry| entry.len() >= 46 && entry.starts_with(b"PK\x01\x02"));
        let entry = entry.ok_or_else(|| bad("the archive's directory is damaged"))?;
        let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| u16_at(entry, at) as usize);
        let (name, extra) = (entry.get(46..46 + name_len), entry.get(46 + name_len..46 + name_len + extra_len));
        let (Some(name), Some(extra)) = (name, extra) else { return Err(bad("the archive's directory is damaged")) };
        let name = std::str::from_utf8(name).map_err(|_| bad("a member whose name is not UTF-8"))?;
        if u16_at(entry, 10) != 0 || u16_at(entry, 8) & 1 != 0 {
            return Err(bad(format!("member {name:?} is compressed or encrypted, which PyTorch does not do")));
        }
        let [packed, size, local] = sizes(entry, extra);
        if packed != size {
            return Err(bad(format!("member {name:?} is stored, but of two lengths")));
        }
        let range = data(file, local, size).map_err(|e| bad(format!("member {name:?}: {}", e.message())))?;
        if members.insert(name.to_owned(), range).is_some() {
            return Err(bad(format!("two members are called {name:?}")));
        }
        at += 46 + name_len + extra_len + comment_len;
    }
    let mut ranges: Vec<_> = members.values().filter(|range| !range.is_empty()).collect();
    ranges.sort_by_key(|range| range.start);
    match ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        true => Err(bad("two members of the archive overlap")),
        false => Ok(members),
    }
}

/// Offset and length of the directory, and the number of its entries.
fn directory(file: &dyn ReadAt) -> Result<(u64, u64, u64)> {
    let tail_len = file.byte_len().min(END_LEN + MAX_COMMENT_LEN);
    let tail_start = file.byte_len() - tail_len;
    let tail = read(file, tail_start, tail_len)?;
    let found = (0..=tail.len().saturating_sub(END_LEN as usize)).rev().find(|&at| {
        let end = &tail[at..];
        end.starts_with(b"PK\x05\x06") && u16_at(end, 20) + END_LEN == end.len() as u64
    });
    let Some(at) = found else { return Err(bad("this is no zip archive, or its end is missing")) };
    let end = &tail[at..];
    let (count, len, offset) = (u16_at(end, 10), u32_at(end, 12), u32_at(end, 16));
    let Some(locator) = (tail_start + at as u64).checked_sub(LOCATOR_LEN) else { return Ok((offset, len, count)) };
    let locator = read(file, locator, LOCATOR_LEN)?;
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok((offset, len, count));
    }
    let large = read(file, u64_at(&locator, 8), 56)?;
    if !large.starts_with(b"PK\x06\x06") {
        return Err(bad("the archive's directory is damaged"));
    }
    Ok((u64_at(&large, 48), u64_at(&large, 40), u64_at(&large, 32)))
}

/// Stored length, length, and offset of the local header: where they do not fit 32 bits, they are in the extra field.
fn sizes(entry: &[u8], extra: &[u8]) -> [u64; 3] {
    let mut large: &[u8] = &[];
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, len) = (u16_at(rest, 0), u16_at(rest, 2) as usize);
        let field = &rest[4..(4 + len).min(rest.len())];
        if id == 1 {
            large = field;
        }
        rest = &rest[(4 + len).min(rest.len())..];
    }
    let mut take = |small: u64| match (small, large.split_at_checked(8)) {
        (0xffff_ffff, Some((value, rest))) => {
            large = rest;
            u64_at(value, 0)
        }
        _ => small,
    };
    // In the extra field the length comes before the stored length.
    let size = take(u32_at(entry, 24));
    [take(u32_at(entry, 20)), size, take(u32_at(entry, 42))]
}

/// Where the bytes of a member are: behind its local header.
fn data(file: &dyn ReadAt, local: u64, size: u64) -> Result<Range<u64>> {
    let header = read(file, local, LOCAL_LEN)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err(bad("its header is not where the directory says"));
    }
    let start = local + LOCAL_LEN + u16_at(&header, 26) + u16_at(&header, 28);
    match start.checked_add(size).filter(|&end| end <= file.byte_len()) {
        Some(end) => Ok(start..end),
        None => Err(Error::new(Code::Truncated, "it ends behind the file")),
    }
}
