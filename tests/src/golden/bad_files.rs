//! Files damaged as a whole: header, trailer, cuts.

use cmz_codec::Code;

use super::Found::Open;
use super::Refused;
use super::bad_blocks::base;
use crate::raw_file::{RawFile, put_crc};

/// A case that changes the bytes of the base file and mends nothing.
fn bytes(name: &str, about: &str, code: Code, change: impl FnOnce(&mut Vec<u8>)) -> Refused {
    let mut file = base().build();
    change(&mut file);
    Refused::new(&format!("bad-{name}"), about, Open(code), file)
}

/// A case that changes the base file in pieces; what encloses the change is put right.
fn pieces(name: &str, about: &str, code: Code, change: impl FnOnce(&mut RawFile)) -> Refused {
    let mut file = base();
    change(&mut file);
    Refused::new(&format!("bad-{name}"), about, Open(code), file.build())
}

pub(super) fn cases() -> Vec<Refused> {
    let mut cases = header();
    cases.extend(cuts());
    cases.extend(trailer());
    cases
}

fn header() -> Vec<Refused> {
    vec![
        bytes("empty", "No byte at all.", Code::Truncated, Vec::clear),
        bytes("magic", "Another magic.", Code::NotCmz, |f| f[..4].copy_from_slice(b"GGUF")),
        bytes("magic-7-bit", "A transfer cleared the top bit of every byte.", Code::NotCmz, |f| {
            f.iter_mut().for_each(|byte| *byte &= 0x7f);
        }),
        bytes("magic-lf", "A text-mode transfer made CR LF into LF.", Code::NotCmz, |f| {
            *f = replace(f, b"\r\n", b"\n");
        }),
        bytes("magic-crlf", "A text-mode transfer made LF into CR LF.", Code::NotCmz, |f| {
            *f = replace(f, b"\n", b"\r\n");
        }),
        bytes("lfs-pointer", "A Git LFS pointer in place of the file.", Code::NotCmz, |f| {
            *f = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n".to_vec();
        }),
        bytes("web-page", "A web page in place of the file.", Code::NotCmz, |f| {
            *f = b"<!DOCTYPE html><html><title>Log in</title></html>\n".to_vec();
        }),
        bytes("header-checksum", "The checksum of the file header is wrong.", Code::Malformed, |f| f[60] ^= 1),
        bytes(
            "header-version-flip",
            "A flipped bit of the version, not vouched for by the checksum.",
            Code::Malformed,
            |f| {
                f[8] ^= 4;
            },
        ),
        pieces("header-reserved", "A reserved byte of the file header is not zero.", Code::Padding, |f| {
            f.header[12] = 1
        }),
        pieces("header-reserved-end", "The last reserved byte of the file header is not zero.", Code::Padding, |f| {
            f.header[59] = 0x80;
        }),
        bytes("header-other", "The header of another conversion: the root digest covers it.", Code::Digest, |f| {
            f[40] ^= 0x10;
            put_crc(&mut f[..64], 60);
        }),
    ]
}

fn cuts() -> Vec<Refused> {
    let cut = |name, about, len: fn(usize) -> usize| bytes(name, about, Code::Truncated, |f| f.truncate(len(f.len())));
    vec![
        cut("cut-magic", "Cut inside the magic.", |_| 5),
        cut("cut-header", "Cut inside the file header.", |_| 40),
        cut("cut-after-header", "Cut behind the file header.", |_| 64),
        cut("cut-one-block", "Cut behind 128 bytes.", |_| 128),
        cut("cut-half", "Cut in the middle.", |len| len / 2 / 64 * 64),
        cut("cut-trailer", "The trailer is missing.", |len| len - 64),
        cut("cut-last-byte", "The last byte is missing.", |len| len - 1),
        bytes("trailing-byte", "A byte behind the trailer.", Code::Truncated, |f| f.push(0)),
        bytes("trailing-zeros", "64 zeros behind the trailer.", Code::Truncated, |f| f.extend([0; 64])),
        bytes(
            "trailing-file",
            "Another file behind the file: the trailer's offsets are not of this one.",
            Code::Digest,
            |f| {
                let mut other = base();
                other.header[32] ^= 0xff;
                let head = std::mem::replace(f, other.build());
                f.splice(..0, head);
            },
        ),
    ]
}

fn trailer() -> Vec<Refused> {
    let offset = |name, about, at: usize, value: fn(&RawFile) -> u64| {
        pieces(name, about, Code::Malformed, move |f| {
            let value = value(f);
            f.trailer_patches.push((at, value.to_le_bytes().to_vec()));
        })
    };
    vec![
        bytes("trailer-magic", "The magic at the end is damaged.", Code::Truncated, |f| {
            let at = f.len() - 1;
            f[at] ^= 1;
        }),
        bytes("trailer-checksum", "The checksum of the trailer is wrong.", Code::Malformed, |f| {
            let at = f.len() - 64 + 16;
            f[at] ^= 1;
        }),
        pieces("trailer-reserved", "A reserved byte of the trailer is not zero.", Code::Padding, |f| {
            f.trailer_patches.push((21, vec![1]));
        }),
        pieces("trailer-root", "The root digest is another one.", Code::Digest, |f| {
            f.trailer_patches.push((24, vec![0; 32]))
        }),
        offset("trailer-manifest-outside", "The manifest lies behind the end of the file.", 0, |_| 1 << 40),
        offset("trailer-manifest-header", "The manifest lies inside the file header.", 0, |_| 0),
        offset("trailer-manifest-unaligned", "The manifest's offset is no multiple of 64.", 0, |_| 65),
        offset("trailer-table-outside", "The block table lies behind the end of the file.", 8, |_| u64::MAX - 63),
        offset("trailer-table-first", "The block table lies before the manifest.", 8, |_| 64),
        offset("trailer-table-in-trailer", "The block table lies where the trailer does.", 8, |f| {
            f.build().len() as u64 - 64
        }),
        pieces("trailer-table-early", "The trailer points between manifest and table.", Code::Digest, |f| {
            let file = f.build();
            let table = u64::from_le_bytes(std::array::from_fn(|i| file[file.len() - 56 + i]));
            f.trailer_patches.push((8, (table - 64).to_le_bytes().to_vec()));
        }),
    ]
}

fn replace(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = behind;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}
