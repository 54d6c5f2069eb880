//! A file whose tensors stand for weights, by every layout; and views that break a rule.

use cmz_codec::Code;
use cmz_codec::safetensors::Entry;
use serde_json::{Value, json};

use super::Found::Open;
use super::{Good, Refused};
use crate::cmz::{Storage, write};
use crate::fuzz::join;
use crate::raw_file::RawFile;
use crate::source::Source;

/// A part of a view: role, type, shape.
type Part = (&'static str, &'static str, Vec<u64>);

/// A view without its parts.
fn view(name: &str, dtype: &str, shape: &[u64], layout: &str, params: Value) -> Value {
    json!({"name": name, "dtype": dtype, "shape": shape, "layout": layout, "params": params})
}

/// Views and their parts.
fn views() -> Vec<(Value, Vec<Part>)> {
    [views_of_integers(), views_of_floats(), vec![experts(), saved_layer()]].concat()
}

fn views_of_integers() -> Vec<(Value, Vec<Part>)> {
    let gptq = |codes: u64, zeros: u64| {
        vec![("codes", "I32", vec![codes, 8]), ("zero_points", "I32", vec![2, zeros]), ("scales", "F16", vec![2, 8])]
    };
    vec![
        (view("awq", "F16", &[8, 6], "awq", json!({"bits": 4, "group_size": 3})), gptq_like_awq()),
        (
            view("gptq", "F16", &[8, 40], "gptq", json!({"bits": 3, "group_size": 20, "zero_points": "minus_one"})),
            gptq(4, 1),
        ),
        (
            view("ordered", "F32", &[8, 4], "gptq", json!({"bits": 8, "zero_points": "stored"})),
            [gptq(1, 2), vec![("groups", "I32", vec![4])]].concat(),
        ),
        (
            view(
                "dense",
                "BF16",
                &[3, 11],
                "compressed_tensors_int",
                json!({"bits": 3, "group_size": 4, "packing": "dense"}),
            ),
            vec![("codes", "I32", vec![3, 2]), ("scales", "BF16", vec![3, 3]), ("zero_points", "I32", vec![1, 3])],
        ),
        (
            view(
                "padded",
                "F32",
                &[3, 11],
                "compressed_tensors_int",
                json!({"bits": 5, "group_size": 11, "packing": "padded"}),
            ),
            vec![("codes", "I32", vec![3, 2]), ("scales", "F32", vec![3, 1])],
        ),
    ]
}

fn views_of_floats() -> Vec<(Value, Vec<Part>)> {
    vec![
        (
            view("fp8", "BF16", &[2, 5, 7], "block_scaled", json!({"block_rows": 2, "block_columns": 4})),
            vec![("codes", "F8_E4M3", vec![2, 5, 7]), ("scales", "F32", vec![2, 3, 2])],
        ),
        (
            view("int8", "F16", &[5, 7], "block_scaled", json!({"block_rows": 1, "block_columns": 7})),
            vec![("codes", "I8", vec![5, 7]), ("scales", "F16", vec![5, 1])],
        ),
        (
            view("llm.int8", "F16", &[5, 7], "bitsandbytes_8bit", json!({})),
            vec![("codes", "I8", vec![5, 7]), ("magnitudes", "F32", vec![5])],
        ),
        (
            view("nf4", "BF16", &[5, 27], "bitsandbytes_4bit", json!({"block_size": 64})),
            vec![("codes", "U8", vec![68, 1]), ("table", "F32", vec![16]), ("magnitudes", "F32", vec![3])],
        ),
        (
            view(
                "nested",
                "F16",
                &[4, 30],
                "bitsandbytes_4bit",
                json!({"block_size": 16, "nested_block_size": 5, "nested_offset_bits": 0x3d80_0000}),
            ),
            vec![
                ("codes", "U8", vec![60, 1]),
                ("table", "F32", vec![16]),
                ("magnitudes", "U8", vec![8]),
                ("nested_table", "F32", vec![256]),
                ("nested_magnitudes", "F32", vec![2]),
            ],
        ),
        (
            view("nvfp4", "BF16", &[3, 32], "nvfp4", json!({"group_size": 16, "global_scale": "divisor"})),
            vec![("codes", "U8", vec![3, 16]), ("scales", "F8_E4M3", vec![3, 2]), ("global_scale", "F32", vec![1])],
        ),
        (
            view("mxfp4", "BF16", &[2, 32, 3], "mxfp4", json!({"group_size": 32, "order": "transposed"})),
            vec![("codes", "U8", vec![2, 3, 1, 16]), ("scales", "U8", vec![2, 3, 1])],
        ),
        (
            view("spqr", "F16", &[16, 18], "spqr_tiles", json!({"outliers": "ptcsr"})),
            vec![
                ("codes", "I64", vec![32]),
                ("outlier_offsets", "I32", vec![2]),
                ("outliers", "I32", vec![32]),
                ("order", "I32", vec![9]),
            ],
        ),
    ]
}

/// A matrix of QMoE.
fn experts() -> (Value, Vec<Part>) {
    (
        view("qmoe", "BF16", &[3, 13], "qmoe", json!({})),
        vec![("codewords", "I16", vec![11]), ("row_offsets", "I32", vec![4]), ("extremes", "BF16", vec![6])],
    )
}

/// A layer as SpQR's quantizer saves it.
fn saved_layer() -> (Value, Vec<Part>) {
    (
        view("spqr_saved", "F16", &[4, 18], "spqr_groups", json!({"group_size": 10})),
        vec![
            ("codes", "I8", vec![4, 18]),
            ("order", "I32", vec![18]),
            ("outlier_places", "I64", vec![2, 3]),
            ("outliers", "F16", vec![3]),
            ("scales.0", "I8", vec![2, 2]),
            ("scales.1", "I8", vec![2, 2]),
            ("scale_scales.0", "F16", vec![2, 1]),
            ("scale_scales.1", "F16", vec![2, 1]),
            ("scale_zero_points.0", "F16", vec![2, 1]),
            ("scale_zero_points.1", "F16", vec![2, 1]),
            ("zero_points.0", "I8", vec![2, 2]),
            ("zero_points.1", "I8", vec![2, 2]),
            ("zero_point_scales.0", "F16", vec![2, 1]),
            ("zero_point_scales.1", "F16", vec![2, 1]),
            ("zero_point_zero_points.0", "F16", vec![2, 1]),
            ("zero_point_zero_points.1", "F16", vec![2, 1]),
        ],
    )
}

fn gptq_like_awq() -> Vec<Part> {
    vec![("codes", "I32", vec![6, 1]), ("zero_points", "I32", vec![2, 1]), ("scales", "F16", vec![2, 8])]
}

/// Bytes of a part: any, but for scales of moderate size and indices that lead somewhere.
fn bytes(role: &str, dtype: &str, elements: usize, seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as u32
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let halves = |halves: &[u16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    match (role, dtype) {
        // Twelve zeros and a pair; single pairs; twelve zeros and a zero with its neighbour left out.
        ("codewords", _) => halves(&[5, 12, 12, 13, 14, 15, 326, 327, 329, 5, 0]),
        ("row_offsets", _) => words(&[0, 2, 9, 11]),
        // The least and the greatest weight of each row: one without negative weights, one without any.
        ("extremes", _) => halves(&[0xbe80, 0x3f00, 0, 0x4000, 0, 0]),
        ("order", _) if elements == 18 => words(&(0..18).map(|i| i * 7 % 18).collect::<Vec<_>>()),
        ("outlier_places", _) => [0u64, 1, 3, 5, 0, 17].iter().flat_map(|place| place.to_le_bytes()).collect(),
        ("outliers", "F16") => halves(&[0, 0x3c00, 0xbc00]),
        ("groups", _) => words(&[1, 0, 1, 0]),
        ("outlier_offsets", _) => words(&[0, 32]),
        ("outliers", _) => {
            (0..elements).flat_map(|_| (0x3800_0000 | (next() % 18) | ((next() % 1024) << 16)).to_le_bytes()).collect()
        }
        ("order", _) => (0..18u16).flat_map(|i| (i * 7 % 18 + i / 18).to_le_bytes()).collect(),
        (_, "F16") => (0..elements).flat_map(|_| (0x2c00 | (next() % 0x1000) as u16).to_le_bytes()).collect(),
        (_, "BF16") => (0..elements).flat_map(|_| (0x3d00 | (next() % 0x100) as u16).to_le_bytes()).collect(),
        (_, "F32") => (0..elements).flat_map(|_| (0x3d00_0000 | (next() % 0x0100_0000)).to_le_bytes()).collect(),
        ("scales", "F8_E4M3") => (0..elements).map(|_| 0x20 | (next() % 32) as u8).collect(),
        ("scales", _) => (0..elements).map(|_| 100 + (next() % 40) as u8).collect(),
        (_, dtype) => {
            let size = if dtype == "I64" {
                8
            } else if dtype == "I32" {
                4
            } else {
                1
            };
            (0..elements * size).map(|_| next() as u8).collect()
        }
    }
}

/// Inputs of the fuzz target `views`: each view, and the bytes of its parts.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seed = 7;
    let input = |(view, parts): (Value, Vec<Part>)| {
        let sizes: serde_json::Map<_, _> =
            parts.iter().map(|(role, dtype, shape)| ((*role).to_owned(), json!([dtype, shape]))).collect();
        let described = json!([view["layout"], view["dtype"], view["shape"], view["params"], sizes]);
        // In the order of their roles.
        let mut parts = parts;
        parts.sort_by_key(|(role, ..)| *role);
        let mut of =
            |(role, dtype, shape): &Part| bytes(role, dtype, shape.iter().product::<u64>() as usize, &mut seed);
        join(described.to_string().as_bytes(), &parts.iter().map(&mut of).collect::<Vec<_>>().concat())
    };
    views().into_iter().map(input).collect()
}

fn source(count: usize) -> Vec<u8> {
    let (mut source, mut seed) = (Source::new(), 7);
    for (view, parts) in views().into_iter().take(count) {
        let name = view["name"].as_str().expect("a name");
        for (role, dtype, shape) in parts {
            let elements = shape.iter().product::<u64>() as usize;
            source = source.tensor(&format!("{name}.{role}"), dtype, &shape, bytes(role, dtype, elements, &mut seed));
        }
    }
    source.build()
}

fn storage(entry: &Entry) -> Storage {
    Storage::raw(&entry.dtype, 1 << 10)
}

/// The file of the first views, with these changed.
fn file(count: usize, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file = RawFile::parse(&write(&source(count), storage).expect("a sound file"));
    let described = views().into_iter().take(count).map(|(mut view, parts)| {
        let name = view["name"].as_str().expect("a name").to_owned();
        let parts = parts.iter().map(|(role, ..)| ((*role).to_owned(), json!(format!("{name}.{role}"))));
        view["parts"] = Value::Object(parts.collect());
        view
    });
    file.edit_manifest(|manifest| {
        manifest["views"] = described.collect();
        change(&mut manifest["views"]);
    });
    file.build()
}

pub(super) fn good() -> Vec<Good> {
    let about = "Tensors that stand for weights, by every layout of views.";
    let newer = "A view by a layout of a later version, and one that its parts do not allow: the tensors are sound.";
    let unreadable = file(2, |views| {
        views[0]["layout"] = json!("from-the-future");
        views[1]["shape"] = json!([8, 41]);
    });
    vec![
        Good::new("views", about, file(usize::MAX, |_| {}), source(usize::MAX)),
        Good::new("views-unreadable", newer, unreadable, source(2)),
    ]
}

pub(super) fn bad() -> Vec<Refused> {
    let case = |name: &str, about, change: fn(&mut Value)| {
        Refused::new(&format!("bad-view-{name}"), about, Open(Code::Malformed), file(2, change))
    };
    vec![
        case("name", "A view with the name of a tensor.", |v| v[0]["name"] = json!("gptq.codes")),
        case("twice", "Two views of one name.", |v| v[0]["name"] = json!("gptq")),
        case("part", "A view of a tensor that is not there.", |v| v[0]["parts"]["codes"] = json!("missing")),
        case("parts", "A view of no tensors.", |v| v[0]["parts"] = json!({})),
        case("shape", "A view of more elements than there can be.", |v| {
            v[0]["shape"] = json!([1u64 << 32, 1u64 << 32])
        }),
        case("array", "Views that are arrays.", |v| v[0] = json!(["awq"])),
    ]
}
