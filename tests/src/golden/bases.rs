//! Files with tensors that refer to ones of another file, their base.

use cmz_codec::encoding::reference::Operation;
use cmz_codec::safetensors::Entry;
use cmz_codec::{Archive, Code};
use serde_json::json;

use super::Found::Read;
use super::{Found, Good, Refused};
use crate::check::open_bytes;
use crate::cmz::{Storage, write, write_against};
use crate::inputs::bf16_weights;
use crate::raw_file::RawFile;
use crate::source::Source;

const BASE: &str = "good-base";
const DAMAGED: &str = "bad-base-damaged";

fn base_source() -> Source {
    Source::new().tensor("a", "BF16", &[96], bf16_weights(51, 96)).tensor("b", "I32", &[40], [3; 160])
}

/// The base, with `a` in three blocks.
fn base() -> Vec<u8> {
    let storage = |entry: &Entry| match entry.name.as_str() {
        "a" => Storage::new("float_planes", "BF16", &["raw"], 40),
        _ => Storage::raw(&entry.dtype, 40),
    };
    write(&base_source().build(), storage).expect("a sound file")
}

fn open_base() -> Archive {
    open_bytes(&base()).expect("a sound file")
}

/// A checkpoint trained on from the base: told by the base's tensors, by bytes and in other
/// blocks, and by one of its own that is told so.
fn source() -> Source {
    let near: Vec<u8> = bf16_weights(51, 96).iter().enumerate().map(|(i, byte)| byte ^ u8::from(i % 6 == 0)).collect();
    Source::new()
        .tensor("same", "BF16", &[96], bf16_weights(51, 96))
        .tensor("xor", "BF16", &[96], &near)
        .tensor("subtract", "BF16", &[8, 12], &near)
        .tensor("again", "U8", &[192], &near)
        .tensor("b", "I32", &[40], [3; 160])
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
}

fn storage(entry: &Entry, base: &Archive) -> Storage {
    let by = |operation, tensor| Storage::by_reference(operation, tensor, &["zstd", "raw"], 64);
    match entry.name.as_str() {
        "same" => by(Operation::SameAs, "a").of_base(base),
        "xor" => by(Operation::Xor, "a").of_base(base),
        "subtract" => by(Operation::Subtract, "a").of_base(base),
        "again" => by(Operation::SameAs, "xor"),
        "b" => by(Operation::SameAs, "b").of_base(base),
        _ => Storage::raw(&entry.dtype, 5),
    }
}

fn against() -> Vec<u8> {
    let base = open_base();
    write_against(&source().build(), &base, |entry| storage(entry, &base)).expect("a sound file")
}

pub(super) fn good() -> Vec<Good> {
    let about = "Tensors stored as ones of a base, and as differences from them, in other blocks.";
    vec![
        Good::new("base", "A file that others are stored against.", base(), base_source().build()),
        Good { base: Some(BASE), ..Good::new("against-base", about, against(), source().build()) },
    ]
}

fn file(change: impl FnOnce(&mut RawFile)) -> Vec<u8> {
    let mut file = RawFile::parse(&against());
    change(&mut file);
    file.build()
}

pub(super) fn bad() -> Vec<Refused> {
    let case = |name: &str, about, found: Found, base, bytes| Refused {
        base,
        ..Refused::new(&format!("bad-base-{name}"), about, found, bytes)
    };
    // Tensor 1 is `xor`.
    let param = |name: &str, value: &str| file(|f| f.edit_tensor(1, |t| t["encoding"]["params"][name] = json!(value)));
    let index = open_base().index().clone();
    let at = index.table()[index.tensor_blocks(0).data.start].payload_offset() as usize;
    let mut damaged = base();
    damaged[at + 9] ^= 0x20;
    vec![
        case("missing", "A sound file whose base is not given.", Read(Code::MissingBase), None, against()),
        case("wrong", "A base of another root digest.", Read(Code::WrongBase), Some(BASE), {
            param("base_root", &"0123456789abcdef".repeat(4))
        }),
        case(
            "other",
            "The file itself is given as its base.",
            Read(Code::WrongBase),
            Some("bad-base-other"),
            against(),
        ),
        case("unknown", "A tensor that refers to one that the base lacks.", Read(Code::Malformed), Some(BASE), {
            param("tensor", "c")
        }),
        case(
            "length",
            "A tensor that refers to one of the base of another length.",
            Read(Code::Malformed),
            Some(BASE),
            param("tensor", "b"),
        ),
        case("damaged", "A base with a flipped bit.", Read(Code::StoredChecksum), None, damaged),
        case("against-damaged", "A sound file whose base is damaged.", Read(Code::StoredChecksum), Some(DAMAGED), {
            against()
        }),
    ]
}
