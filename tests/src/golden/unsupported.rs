//! Sound files that need newer software.

use cmz_codec::Code;
use serde_json::json;

use super::Found::{Open, Read};
use super::{Found, Refused};
use crate::cmz::{Storage, write};
use crate::inputs::bf16_weights;
use crate::raw_file::RawFile;
use crate::source::Source;

/// An id and a name that no codec will get.
const UNKNOWN_ID: u16 = 0xFFFE;

fn case(name: &str, about: &str, found: Found, change: impl FnOnce(&mut RawFile)) -> Refused {
    let source = Source::new()
        .tensor("new", "BF16", &[8, 8], bf16_weights(31, 64))
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
        .build();
    let storage = |entry: &cmz_codec::safetensors::Entry| match entry.name.as_str() {
        "new" => Storage::new("float_planes", "BF16", &["tiered", "raw"], 64),
        _ => Storage::raw("U8", 64),
    };
    let mut file = RawFile::parse(&write(&source, storage).expect("a sound file"));
    change(&mut file);
    Refused::new(&format!("unsupported-{name}"), about, found, file.build())
}

pub(super) fn cases() -> Vec<Refused> {
    vec![
        case("version-minor", "A later minor version.", Open(Code::Version), |f| f.header[10] = 99),
        case("version-major", "A later major version.", Open(Code::Version), |f| f.header[8] = 99),
        case("version-reserved", "A later version that uses what is reserved today.", Open(Code::Version), |f| {
            f.header[8] = 9;
            f.header[50] = 7;
        }),
        case("feature-0", "Required feature bit 0.", Open(Code::Feature), |f| f.header[16] = 1),
        case("feature-63", "Required feature bit 63.", Open(Code::Feature), |f| f.header[23] = 0x80),
        case("codec-name", "A stream codec of an unknown name.", Read(Code::UnknownCodec), |f| {
            f.edit_tensor(0, |t| t["encoding"]["components"]["exponent"] = json!(["from-the-future", "raw"]));
        }),
        case("codec-id", "A stream of an unknown codec id.", Read(Code::UnknownCodec), |f| {
            f.edit_tensor(0, |t| t["encoding"]["components"]["exponent"] = json!(["from-the-future"]));
            f.data(0).streams[0].0 = UNKNOWN_ID;
        }),
        case("codec-id-alone", "A stream of an unknown codec id, under a known name.", Read(Code::UnknownCodec), |f| {
            f.data(0).streams[0].0 = UNKNOWN_ID;
        }),
        case("encoding", "An encoding of an unknown name.", Read(Code::UnknownEncoding), |f| {
            f.edit_tensor(0, |t| t["encoding"]["name"] = json!("from_the_future"));
        }),
        case("params", "Parameters of an encoding that has none today.", Read(Code::UnknownEncoding), |f| {
            f.edit_tensor(0, |t| t["encoding"]["params"] = json!({"group": 128}));
        }),
        case("encoding-nested", "A component in an encoding of an unknown name.", Read(Code::UnknownEncoding), |f| {
            f.edit_tensor(0, |t| {
                let inner = json!({"name": "from_the_future", "components": {"data": ["raw"]}});
                t["encoding"]["components"]["exponent"] = inner;
            });
        }),
        case(
            "dtype-encoding",
            "An unknown element type in an encoding that needs to know it.",
            Read(Code::UnknownEncoding),
            |f| {
                f.edit_tensor(0, |t| t["dtype"] = json!("F12"));
            },
        ),
    ]
}
