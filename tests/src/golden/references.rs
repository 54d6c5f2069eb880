//! Files with tensors that refer to other ones.

use cmz_codec::Code;
use cmz_codec::encoding::reference::Operation;
use cmz_codec::safetensors::Entry;
use serde_json::json;

use super::Found::Read;
use super::{Good, Refused};
use crate::cmz::{Storage, write};
use crate::inputs::bf16_weights;
use crate::raw_file::RawFile;
use crate::source::Source;

/// Tensors that are told by `a`: by its bytes in other blocks, and by differences from it.
fn source() -> Source {
    let weights = bf16_weights(41, 96);
    let near: Vec<u8> = weights.iter().enumerate().map(|(i, byte)| byte ^ u8::from(i % 6 == 0)).collect();
    Source::new()
        .tensor("a", "BF16", &[96], &weights)
        .tensor("same", "U8", &[192], &weights)
        .tensor("xor", "BF16", &[96], &near)
        .tensor("subtract", "BF16", &[8, 12], &near)
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
}

fn storage(entry: &Entry) -> Storage {
    let by = |operation| Storage::by_reference(operation, "a", &["zstd", "raw"], 40);
    match entry.name.as_str() {
        "a" => Storage::new("float_planes", "BF16", &["tiered", "raw"], 64),
        "same" => by(Operation::SameAs),
        "xor" => by(Operation::Xor),
        "subtract" => by(Operation::Subtract),
        _ => Storage::raw(&entry.dtype, 5),
    }
}

pub(super) fn good() -> Vec<Good> {
    let about = "Tensors stored as another one of the file, and as differences from it, in other blocks.";
    let source = source().build();
    let bytes = write(&source, storage).expect("a sound file");
    vec![Good::new("references", about, bytes, source)]
}

fn file(change: impl FnOnce(&mut RawFile)) -> Vec<u8> {
    let mut file = RawFile::parse(&write(&source().build(), storage).expect("a sound file"));
    change(&mut file);
    file.build()
}

pub(super) fn bad() -> Vec<Refused> {
    let case =
        |name: &str, about, bytes| Refused::new(&format!("bad-reference-{name}"), about, Read(Code::Malformed), bytes);
    // Tensor 2 is `xor`.
    let to = |tensor: &str| file(|f| f.edit_tensor(2, |t| t["encoding"]["params"]["tensor"] = json!(tensor)));
    let same = json!({"name": "same_as", "params": {"tensor": "a"}, "components": {}});
    vec![
        case("itself", "A tensor that refers to itself.", to("xor")),
        case("later", "A tensor that refers to a later one.", to("subtract")),
        case("chain", "A tensor that refers to one that refers to another one.", to("same")),
        case("unknown", "A tensor that refers to one that is not in the file.", to("b")),
        case("length", "A tensor that refers to one of another length.", {
            file(|f| f.edit_tensor(4, |t| t["encoding"] = same.clone()))
        }),
        case("no-name", "A reference without the name of a tensor.", {
            file(|f| f.edit_tensor(2, |t| t["encoding"]["params"] = json!({})))
        }),
        case("digest", "A base by a root digest of three digits.", {
            file(|f| f.edit_tensor(2, |t| t["encoding"]["params"]["base_root"] = json!("abc")))
        }),
        case("streams", "Streams in a tensor that is the same as another one.", {
            file(|f| f.edit_tensor(2, |t| t["encoding"] = same.clone()))
        }),
        case("no-streams", "No streams in a tensor that differs from another one.", {
            file(|f| f.edit_tensor(1, |t| t["encoding"]["name"] = json!("xor")))
        }),
        case("component", "A difference that is a stream, not an encoding.", {
            file(|f| f.edit_tensor(2, |t| t["encoding"]["components"]["difference"] = json!(["zstd", "raw"])))
        }),
    ]
}

pub(super) fn unsupported() -> Vec<Refused> {
    let about = "A reference with a parameter that has no meaning today.";
    let bytes = file(|f| f.edit_tensor(1, |t| t["encoding"]["params"]["rows"] = json!([0, 4])));
    vec![Refused::new("unsupported-reference-params", about, Read(Code::UnknownEncoding), bytes)]
}
