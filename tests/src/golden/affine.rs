//! Files with an `affine` tensor whose parameters or components are wrong.

use cmz_codec::Code;
use cmz_codec::encoding::affine::ZERO_POINT;
use serde_json::{Value, json};

use super::Found::{self, Read};
use super::Refused;
use crate::cmz::{Storage, write};
use crate::inputs::bf16_weights;
use crate::raw_file::RawFile;
use crate::source::Source;

fn case(name: &str, about: &str, found: Found, change: impl FnOnce(&mut Value)) -> Refused {
    let source = Source::new()
        .tensor("new", "BF16", &[5, 40], bf16_weights(51, 200))
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
        .build();
    let storage = |entry: &cmz_codec::safetensors::Entry| match entry.name.as_str() {
        "new" => Storage::of(&ZERO_POINT, "BF16", &["rans", "raw"], 96),
        _ => Storage::raw("U8", 64),
    };
    let mut file = RawFile::parse(&write(&source, storage).expect("a sound file"));
    file.edit_tensor(0, |tensor| change(&mut tensor["encoding"]));
    Refused::new(name, about, found, file.build())
}

pub(super) fn bad() -> Vec<Refused> {
    let case = |name: &str, about, change: fn(&mut Value)| {
        case(&format!("bad-affine-{name}"), about, Read(Code::Malformed), change)
    };
    vec![
        case("bits", "Codes of 9 bits.", |e| e["params"]["bits"] = json!(9)),
        case("group", "Groups of no rows.", |e| e["params"]["group"] = json!([0, 96])),
        case("group-number", "Groups of a number of elements.", |e| e["params"]["group"] = json!(96)),
        case("fraction", "A number of bits with a fraction.", |e| e["params"]["bits"] = json!(8.0)),
        case("no-params", "An encoding without the parameters that it needs.", |e| e["params"] = json!({})),
        case("form", "Zero points in the form that has none.", |e| e["params"]["form"] = json!("symmetric")),
        case("scales", "Scales that are a stream, not an encoded array.", |e| {
            e["components"]["scales"] = json!(["rans", "raw"]);
        }),
        case("zero-points", "Zero points in an encoding of floating-point elements.", |e| {
            let planes = json!({"exponent": ["raw"], "sign_mantissa": ["raw"]});
            e["components"]["zero_points"] = json!({"name": "float_planes", "components": planes});
        }),
    ]
}

pub(super) fn unsupported() -> Vec<Refused> {
    let case = |name: &str, about, change: fn(&mut Value)| {
        case(&format!("unsupported-affine-{name}"), about, Read(Code::UnknownEncoding), change)
    };
    vec![
        case("form", "A form of a later version.", |e| e["params"]["form"] = json!("from-the-future")),
        case("arithmetic", "An arithmetic of a later version.", |e| e["params"]["arithmetic"] = json!("BF16")),
        case("scale", "Scales of a type of a later version.", |e| e["params"]["scale"] = json!("F8_E8M0")),
        case("params", "One more parameter.", |e| e["params"]["axis"] = json!(0)),
    ]
}
