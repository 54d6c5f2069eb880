//! Files with a tensor of quantized weights whose parameters or components are wrong.

use cmz_codec::Code;
use cmz_codec::encoding::{Encoding, block_scale, codebook, low_rank, permute, sparse};
use serde_json::json;

use super::Found::Read;
use super::Refused;
use crate::cmz::{Storage, write};
use crate::inputs::bf16_weights;
use crate::raw_file::RawFile;
use crate::source::Source;

/// A file of a tensor in five rows of seven, in two blocks, of raw streams, and of another tensor.
fn case(name: &str, about: &str, code: Code, encoding: &dyn Encoding, change: impl FnOnce(&mut RawFile)) -> Refused {
    let source = Source::new()
        .tensor("new", "BF16", &[5, 7], bf16_weights(61, 35))
        .tensor("old", "U8", &[4], [1, 2, 3, 4])
        .build();
    let storage = |entry: &cmz_codec::safetensors::Entry| match entry.name.as_str() {
        "new" => Storage::of(encoding, "BF16", &["raw"], 28),
        _ => Storage::raw("U8", 64),
    };
    let mut file = RawFile::parse(&write(&source, storage).expect("a sound file"));
    change(&mut file);
    Refused::new(name, about, Read(code), file.build())
}

fn params(file: &mut RawFile, key: &str, value: serde_json::Value) {
    file.edit_tensor(0, |tensor| tensor["encoding"]["params"][key] = value);
}

/// Streams of the first block, from number `first` on.
fn set_streams(file: &mut RawFile, first: usize, streams: &[&[u8]]) {
    for ((_, old), new) in file.data(0).streams[first..].iter_mut().zip(streams) {
        *old = new.to_vec();
    }
}

pub(super) fn bad() -> Vec<Refused> {
    let malformed = |name: &str, about, encoding: &dyn Encoding, change: fn(&mut RawFile)| {
        case(&format!("bad-{name}"), about, Code::Malformed, encoding, change)
    };
    let stream = |name: &str, about, encoding: &dyn Encoding, change: fn(&mut RawFile)| {
        case(&format!("bad-{name}"), about, Code::BadStream, encoding, change)
    };
    vec![
        malformed("block-scale-group", "Groups of three dimensions.", &block_scale::FP8, |f| {
            params(f, "group", json!([1, 1, 128]));
        }),
        malformed("codebook-dim", "Binary codes of vectors.", &codebook::BINARY, |f| params(f, "dim", json!(2))),
        malformed("low-rank-rank", "Factors of rank 0.", &low_rank::SIXTEEN, |f| params(f, "rank", json!(0))),
        malformed("sparse-arithmetic", "An arithmetic where nothing is added.", &sparse::REPLACE, |f| {
            params(f, "arithmetic", json!("F32"));
        }),
        malformed("sparse-runs", "Four values in a run of four.", &sparse::TWO_OF_FOUR, |f| params(f, "n", json!(4))),
        stream("permute-twice", "An order that names a column twice.", &permute::Permute, |f| {
            set_streams(f, 1, &[&[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 5, 0]]);
        }),
        stream("permute-outside", "An order that names a column that is not there.", &permute::Permute, |f| {
            set_streams(f, 1, &[&[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 7, 0]]);
        }),
        stream("permute-rows", "A permuted block that ends inside a row.", &permute::Permute, |f| {
            f.edit_tensor(0, |tensor| tensor["shape"] = json!([7, 5]));
        }),
        stream("sparse-bitmap", "A value behind the last element.", &sparse::ADD, |f| {
            set_streams(f, 1, &[&[0, 0, 0, 0x10], &[0; 2]]);
        }),
        stream("sparse-count", "A row with more values than elements.", &sparse::REPLACE, |f| {
            set_streams(f, 1, &[&[8, 0, 0, 0, 0, 0, 0, 0], &[0; 16], &[0; 16]]);
        }),
        stream("sparse-delta", "A value behind the end of its row.", &sparse::REPLACE, |f| {
            set_streams(f, 1, &[&[1, 0, 0, 0, 0, 0, 0, 0], &[7, 0], &[0; 2]]);
        }),
        stream("sparse-values", "Fewer values than places.", &sparse::REPLACE, |f| {
            set_streams(f, 1, &[&[2, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &[0; 2]]);
        }),
        stream("sparse-positions", "Positions that do not ascend.", &sparse::TWO_OF_FOUR, |f| {
            set_streams(f, 0, &[&[1; 16]]);
        }),
    ]
}

pub(super) fn unsupported() -> Vec<Refused> {
    let case = |name: &str, about, encoding: &dyn Encoding, key: &str| {
        case(&format!("unsupported-{name}"), about, Code::UnknownEncoding, encoding, |f| {
            params(f, key, json!("from-the-future"));
        })
    };
    vec![
        case("block-scale-sense", "A use of scales of a later version.", &block_scale::MX, "sense"),
        case("codebook-form", "A form of a later version.", &codebook::SIXTEEN, "form"),
        case("low-rank-factors", "Factors of a type of a later version.", &low_rank::ONE, "factors"),
        case("permute-params", "A parameter where there is none today.", &permute::Permute, "axis"),
        case("sparse-index", "An index of a later version.", &sparse::ADD, "index"),
        case("sparse-mode", "A mode of a later version.", &sparse::REPLACE, "mode"),
    ]
}
