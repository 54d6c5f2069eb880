//! Files of quantized matrices whose components hold whatever they may hold.

use cmz_codec::stream::Level;
use cmz_format::{Dtype, Encoding};
use cmz_tests::cmz::{Storage, write_at};
use cmz_tests::inputs::Rng;
use cmz_tests::raw_file::{RawBlock, RawFile, field};
use cmz_tests::source::Source;
use serde_json::{Value, json};

use super::bank::File;

/// What a stream is filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    /// Any bytes.
    Noise,
    /// Numbers of half precision, or of single precision, round 1, of both signs.
    Numbers(Dtype),
    /// Symbols of so many bits, one to a byte.
    Symbols(u8),
    /// One of so many bits is set.
    Bitmap(usize),
    /// The counts of one of so many places, and the distances in the next stream.
    Counts(usize),
    /// What the stream before has set.
    Deltas,
    /// Positions of so many values in runs of so many elements.
    Positions(usize, usize),
    /// Values of so many bytes: as many as there are places.
    Values(usize),
    /// Values near 1, of half precision.
    HalfValues,
    /// The numbers of the columns, in another order.
    Order,
}

/// A matrix stored raw in blocks of some rows, the streams of each filled.
pub(crate) fn filled(
    dtype: Dtype,
    [rows, columns]: [usize; 2],
    block_rows: usize,
    encoding: &Value,
    fills: &[Fill],
) -> Vec<u8> {
    let encoding: Encoding = serde_json::from_value(encoding.clone()).expect("an encoding");
    let len = dtype.byte_len((rows * columns) as u64).unwrap() as usize;
    let source = Source::new().tensor("w", dtype.name(), &[rows as u64, columns as u64], vec![0; len]).build();
    let storage = |_: &cmz_codec::safetensors::Entry| Storage {
        encoding: encoding.clone(),
        block_elements: (block_rows * columns) as u64,
    };
    let mut raw = RawFile::parse(&write_at(Level::Fast, &source, storage).expect("a sound file"));
    let size = len / (rows * columns);
    // The order of the columns is the same in all blocks.
    let mut rng = Rng::new(columns as u64);
    let mut order: Vec<u16> = (0..columns.min(1 << 16)).map(|column| column as u16).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i + 1));
    }
    for block in raw.blocks.iter_mut().filter(|block| block.header[field::KIND] == 4) {
        let decoded_len = u32::from_le_bytes(block.header[field::DECODED_LEN..][..4].try_into().unwrap()) as usize;
        fill(block, fills, decoded_len / size, columns, &order, &mut rng);
    }
    raw.build()
}

fn fill(block: &mut RawBlock, fills: &[Fill], elements: usize, columns: usize, order: &[u16], rng: &mut Rng) {
    assert_eq!(block.streams.len(), fills.len(), "streams");
    let (mut deltas, mut count) = (Vec::new(), 0);
    for ((_, stream), &fill) in block.streams.iter_mut().zip(fills) {
        *stream = match fill {
            Fill::Noise => rng.bytes(stream.len()),
            Fill::Numbers(dtype) => near_one(dtype, stream.len(), rng),
            Fill::Symbols(bits) => rng.bytes(stream.len()).iter().map(|byte| byte >> (8 - bits)).collect(),
            Fill::Bitmap(one_in) => {
                let mut bytes = vec![0; elements.div_ceil(8)];
                count = 0;
                for i in 0..elements {
                    if rng.below(one_in) == 0 {
                        bytes[i / 8] |= 1 << (i % 8);
                        count += 1;
                    }
                }
                bytes
            }
            Fill::Counts(one_in) => {
                let mut counts = Vec::new();
                count = 0;
                for start in (0..elements).step_by(columns) {
                    let row = columns.min(elements - start);
                    for piece in (0..row).step_by(1 << 15) {
                        let places: Vec<usize> =
                            (0..(row - piece).min(1 << 15)).filter(|_| rng.below(one_in) == 0).collect();
                        counts.extend((places.len() as u16).to_le_bytes());
                        count += places.len();
                        let mut next = 0;
                        for place in places {
                            deltas.extend(((place - next) as u16).to_le_bytes());
                            next = place + 1;
                        }
                    }
                }
                counts
            }
            Fill::Deltas => std::mem::take(&mut deltas),
            Fill::Positions(n, m) => {
                let mut positions = Vec::new();
                for start in (0..elements).step_by(columns) {
                    let row = columns.min(elements - start);
                    for run in (0..row).step_by(m) {
                        let mut places: Vec<u8> = (0..(row - run).min(m)).map(|place| place as u8).collect();
                        while places.len() > n {
                            places.remove(rng.below(places.len()));
                        }
                        positions.extend(places);
                    }
                }
                count = positions.len();
                positions
            }
            Fill::Values(len) => rng.bytes(count * len),
            Fill::HalfValues => near_one(Dtype::F16, 2 * count, rng),
            Fill::Order => order.iter().flat_map(|column| column.to_le_bytes()).collect(),
        };
    }
}

fn near_one(dtype: Dtype, len: usize, rng: &mut Rng) -> Vec<u8> {
    let mut one = || (rng.below(4001) as f32 - 2000.5) / 1500.0;
    match dtype {
        Dtype::F32 => (0..len / 4).flat_map(|_| one().to_le_bytes()).collect(),
        Dtype::BF16 => (0..len / 2).flat_map(|_| half::bf16::from_f32(one()).to_le_bytes()).collect(),
        Dtype::F8_E8M0 => (0..len).map(|_| 124 + rng.below(6) as u8).collect(),
        Dtype::F8_E4M3 => (0..len).map(|_| 0x20 + rng.below(0x20) as u8 + 0x80 * rng.below(2) as u8).collect(),
        _ => (0..len / 2).flat_map(|_| half::f16::from_f32(one()).to_le_bytes()).collect(),
    }
}

/// Numbers as they lie in memory.
pub(crate) fn raw() -> Value {
    json!({"name": "plain", "components": {"data": ["raw"]}})
}

pub(crate) fn affine(params: &Value, numbers: &[(&str, Value)]) -> Value {
    let mut components = json!({"codes": ["raw"]});
    numbers.iter().for_each(|(name, value)| components[*name] = value.clone());
    json!({"name": "affine", "params": params, "components": components})
}

/// SpQR's numbers of two levels.
pub(crate) fn two_levels(arithmetic: &str) -> Value {
    let params =
        |group: [u32; 2]| json!({"bits": 3, "form": "zero", "group": group, "scale": "F16", "arithmetic": arithmetic});
    let second = affine(&params([16, 1]), &[("scales", raw()), ("zeros", raw())]);
    affine(&params([1, 16]), &[("scales", second.clone()), ("zeros", second)])
}

/// What the streams of [`two_levels`] are filled with.
pub(crate) const TWO_LEVELS: [Fill; 7] = [
    Fill::Symbols(3),
    Fill::Symbols(3),
    Fill::Numbers(Dtype::F16),
    Fill::Numbers(Dtype::F16),
    Fill::Symbols(3),
    Fill::Numbers(Dtype::F16),
    Fill::Numbers(Dtype::F16),
];

/// `sparse` over a base, or alone; the index is `bitmap`, `rows`, or `[n, m]`.
pub(crate) fn sparse(mode: &str, arithmetic: Option<&str>, index: &Value, values: &str, base: Option<Value>) -> Value {
    let mut params = json!({"mode": mode, "values": values});
    let mut components = json!({"values": raw()});
    match index {
        Value::Array(numbers) => {
            params["index"] = "n_of_m".into();
            (params["n"], params["m"]) = (numbers[0].clone(), numbers[1].clone());
            components["positions"] = json!(["raw"]);
        }
        index => {
            params["index"] = index.clone();
            let names = if index == "rows" { &["counts", "deltas"][..] } else { &["bitmap"] };
            names.iter().for_each(|&name| components[name] = json!(["raw"]));
        }
    }
    if let Some(arithmetic) = arithmetic {
        params["arithmetic"] = arithmetic.into();
    }
    if let Some(base) = base {
        components["base"] = base;
    }
    json!({"name": "sparse", "params": params, "components": components})
}

pub(crate) fn permuted(array: &Value) -> Value {
    json!({"name": "permute", "components": {"array": array, "order": ["raw"]}})
}

fn low_rank(rank: u32, factors: &str, base: &Value, left: &Value) -> Value {
    json!({"name": "low_rank", "params": {"rank": rank, "factors": factors},
        "components": {"base": base, "left": left, "right": raw()}})
}

pub(crate) fn codebook(bits: u8, form: &str, dim: u32, table: &str, group: [u32; 2]) -> Value {
    let numbers = if form == "table" { json!({"table": raw()}) } else { json!({"alphas": raw(), "biases": raw()}) };
    let mut components = json!({"indices": ["raw"]});
    numbers.as_object().unwrap().iter().for_each(|(name, value)| components[name] = value.clone());
    let params = json!({"bits": bits, "form": form, "dim": dim, "table": table, "group": group});
    json!({"name": "codebook", "params": params, "components": components})
}

pub(crate) fn block_scale(types: [&str; 2], group: [u32; 2], sense: &str, values: &Value, scales: &Value) -> Value {
    let params = json!({"values": types[0], "scale": types[1], "group": group, "sense": sense});
    json!({"name": "block_scale", "params": params, "components": {"values": values, "scales": scales}})
}

/// All rows, or columns.
pub(crate) const ALL: u32 = 1 << 24;

/// Trees that have products, with numbers round 1, and the types of their tensors.
pub(crate) fn products() -> Vec<(String, Dtype, Value, Vec<Fill>)> {
    use Fill::{Bitmap, Counts, Deltas, HalfValues, Numbers, Order, Symbols};
    let mut trees = Vec::new();
    let mut add =
        |what: &str, dtype, tree: Value, fills: &[Fill]| trees.push((what.to_owned(), dtype, tree, fills.to_vec()));
    let e2m1 = |values: &str| codebook(4, "table", 1, values, [ALL, ALL]);
    let (half, single, e4m3) = (Numbers(Dtype::F16), Numbers(Dtype::F32), Numbers(Dtype::F8_E4M3));

    let spqr = permuted(&sparse("add", Some("F16"), &json!("bitmap"), "F16", Some(two_levels("F16"))));
    let fills: Vec<Fill> = TWO_LEVELS.into_iter().chain([Bitmap(100), HalfValues, Order]).collect();
    add("SpQR, add", Dtype::F16, spqr, &fills);
    let params = json!({"bits": 4, "form": "symmetric", "group": [1, 64], "scale": "F32", "arithmetic": "F32"});
    let four = affine(&params, &[("scales", raw())]);
    let over = sparse("replace", None, &json!("rows"), "F16", Some(permuted(&four)));
    add("replaced over an order", Dtype::F32, over, &[Symbols(4), single, Order, Counts(2), Deltas, HalfValues]);
    let ternary = json!({"name": "ternary", "params": {"group": [1, ALL]},
        "components": {"symbols": ["raw"], "minima": raw(), "maxima": raw()}});
    let replaced = sparse("replace", None, &json!("rows"), "F16", Some(ternary));
    let brain = Numbers(Dtype::BF16);
    add("ternary, replaced", Dtype::F32, replaced, &[Symbols(1), brain, brain, Counts(50), Deltas, HalfValues]);

    let mx = block_scale(["F16", "F8_E8M0"], [1, 32], "multiply", &e2m1("F16"), &raw());
    add("MXFP4", Dtype::BF16, mx, &[Symbols(4), half, Numbers(Dtype::F8_E8M0)]);
    let scales = block_scale(["F8_E4M3", "F32"], [ALL, ALL], "divide", &raw(), &raw());
    let nv = block_scale(["F8_E4M3", "F32"], [1, 16], "multiply", &e2m1("F8_E4M3"), &scales);
    add("NVFP4", Dtype::F32, nv, &[Symbols(4), e4m3, e4m3, single]);
    let nf4 = block_scale(["F16", "BF16"], [1, 64], "divide", &e2m1("F32"), &raw());
    add("NF4 of halves, divided", Dtype::F32, nf4, &[Symbols(4), single, brain]);
    add("FP8", Dtype::F32, block_scale(["F8_E4M3", "F32"], [128, 128], "multiply", &raw(), &raw()), &[e4m3, single]);

    let palette = |bits, group| codebook(bits, "table", 1, "F16", group);
    let rows = sparse("replace", None, &json!("bitmap"), "F16", Some(palette(4, [1, ALL])));
    add("palettes of rows, replaced", Dtype::F32, rows, &[Symbols(4), half, Bitmap(60), HalfValues]);
    add("a palette of all", Dtype::BF16, palette(8, [ALL, ALL]), &[Symbols(8), half]);
    let seven = sparse("add", Some("F32"), &json!("rows"), "F16", Some(palette(3, [2, 7])));
    add("palettes, ragged", Dtype::F32, seven, &[Symbols(3), half, Counts(40), Deltas, HalfValues]);
    add("binary codes", Dtype::F32, codebook(3, "binary", 1, "F32", [1, 128]), &[Symbols(3), single, single]);
    let both = block_scale(["F16", "F32"], [1, 16], "multiply", &palette(2, [1, 64]), &raw());
    add("scaled palettes", Dtype::F32, both, &[Symbols(2), half, single]);

    let vectors = |bits, dim, group| codebook(bits, "table", dim, "F16", group);
    add("vectors of 8", Dtype::BF16, vectors(8, 8, [ALL, ALL]), &[Symbols(8), half]);
    let over = permuted(&sparse("replace", None, &json!("rows"), "F16", Some(vectors(6, 3, [2, 7]))));
    add("vectors of 3, replaced", Dtype::F32, over, &[Symbols(6), half, Counts(40), Deltas, HalfValues, Order]);
    let scaled = block_scale(["F16", "F32"], [1, 24], "divide", &vectors(3, 4, [1, 9]), &raw());
    add("vectors of 4, scaled", Dtype::F32, scaled, &[Symbols(3), half, single]);
    let rows = block_scale(["F16", "F16"], [1, ALL], "multiply", &vectors(1, 256, [1, ALL]), &raw());
    add("vectors of 256, scaled", Dtype::F16, rows, &[Symbols(1), half, half]);
    trees
}

/// Trees of encodings and what their streams are filled with.
fn trees() -> Vec<(String, Value, Vec<Fill>)> {
    use Fill::{Bitmap, Counts, Deltas, Noise, Numbers, Order, Positions, Symbols, Values};
    let mut trees = Vec::new();
    let mut add = |what: &str, tree: Value, fills: &[Fill]| trees.push((what.to_owned(), tree, fills.to_vec()));
    let e2m1 = |values: &str| codebook(4, "table", 1, values, [ALL, ALL]);
    add(
        "MXFP4",
        block_scale(["F16", "F8_E8M0"], [1, 32], "multiply", &e2m1("F16"), &raw()),
        &[Symbols(4), Noise, Noise],
    );
    for sense in ["multiply", "divide"] {
        let scales = block_scale(["F8_E4M3", "F32"], [ALL, ALL], sense, &raw(), &raw());
        let tree = block_scale(["F8_E4M3", "F32"], [1, 16], "multiply", &e2m1("F8_E4M3"), &scales);
        add(&format!("NVFP4, {sense}"), tree, &[Symbols(4), Noise, Noise, Noise]);
    }
    let nf4 = block_scale(["F32", "BF16"], [1, 64], "divide", &e2m1("F32"), &raw());
    add("NF4", nf4, &[Symbols(4), Noise, Noise]);
    add("FP8", block_scale(["F8_E4M3", "F32"], [128, 128], "multiply", &raw(), &raw()), &[Noise; 2]);
    add("FP8 E5M2", block_scale(["F8_E5M2", "F8_E4M3"], [2, 3], "divide", &raw(), &raw()), &[Noise; 2]);
    add("BF16 scaled", block_scale(["BF16", "F16"], [3, 8], "multiply", &raw(), &raw()), &[Noise; 2]);
    for (bits, form, dim, table, group) in [
        (4, "table", 1, "F16", [1, ALL]),
        (8, "table", 1, "BF16", [ALL, ALL]),
        (8, "table", 1, "F32", [5, 100]),
        (3, "table", 8, "F8_E5M2", [ALL, ALL]),
        (6, "table", 3, "F8_E4M3", [2, 7]),
        (1, "table", 256, "F32", [1, 1]),
        (3, "binary", 1, "F16", [1, 128]),
        (8, "binary", 1, "BF16", [ALL, ALL]),
        (2, "binary", 1, "F32", [4, 5]),
    ] {
        let fills = [Symbols(bits), Noise, Noise];
        let what = format!("codebook of {bits} bits, {form}, {dim}, {table}, {group:?}");
        add(&what, codebook(bits, form, dim, table, group), &fills[..if form == "table" { 2 } else { 3 }]);
    }
    let wide = json!([100, 256]);
    for (mode, arithmetic) in [("replace", None), ("add", Some("F32")), ("add", Some("F16")), ("fill", None)] {
        for (index, values, index_fills) in [
            (json!("bitmap"), "F16", &[Bitmap(90), Values(2)][..]),
            (json!("bitmap"), "F32", &[Bitmap(2), Values(4)]),
            (json!("rows"), "F8_E4M3", &[Counts(60), Deltas, Values(1)]),
            (json!("rows"), "BF16", &[Counts(3), Deltas, Values(2)]),
            (json!([2, 4]), "F16", &[Positions(2, 4), Values(2)]),
            (wide.clone(), "F8_E5M2", &[Positions(100, 256), Values(1)]),
        ] {
            let base = (mode != "fill").then(raw);
            let fills: Vec<Fill> = base.iter().map(|_| Noise).chain(index_fills.iter().copied()).collect();
            let tree = sparse(mode, arithmetic, &index, values, base);
            add(&format!("sparse, {mode} {arithmetic:?}, {index}, {values}"), tree, &fills);
        }
    }
    add("permuted", permuted(&raw()), &[Noise, Order]);
    for (mode, arithmetic) in [("add", Some("F16")), ("replace", None)] {
        let tree = permuted(&sparse(mode, arithmetic, &json!("bitmap"), "F16", Some(two_levels("F16"))));
        let fills: Vec<Fill> = TWO_LEVELS.into_iter().chain([Bitmap(100), Values(2), Order]).collect();
        add(&format!("SpQR, {mode}"), tree, &fills);
    }
    add("low rank", low_rank(5, "F16", &raw(), &raw()), &[Noise; 3]);
    add("low rank of brain floats", low_rank(1, "BF16", &raw(), &raw()), &[Noise; 3]);
    let coded = low_rank(
        33,
        "F32",
        &codebook(4, "table", 1, "F16", [1, ALL]),
        &block_scale(["F32", "F16"], [1, 8], "multiply", &raw(), &raw()),
    );
    let numbers = Numbers(Dtype::F32);
    add("low rank over a palette", coded, &[Symbols(4), Numbers(Dtype::F16), numbers, Numbers(Dtype::F16), numbers]);
    let alone = sparse("fill", None, &json!("rows"), "F16", None);
    let on_top = sparse("add", Some("F32"), &json!("bitmap"), "F16", Some(permuted(&alone)));
    add("sparse over a permuted sparse one", on_top, &[Counts(9), Deltas, Values(2), Order, Bitmap(50), Values(2)]);
    trees
}

/// Matrices of several blocks whose rows are no whole groups, of each tree.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    for (i, (what, tree, fills)) in trees().into_iter().enumerate() {
        let small = tree["name"] == "codebook" || tree["name"] == "sparse" || tree["name"] == "permute";
        let dtype = [Dtype::BF16, Dtype::F16, Dtype::F32][i % 3];
        files.push((format!("{what}, {dtype}"), filled(dtype, [61, 333], 15, &tree, &fills)));
        if small && i % 2 == 0 && !what.contains("SpQR") {
            let dtype = [Dtype::F8_E4M3, Dtype::F8_E5M2][i / 2 % 2];
            files.push((format!("{what}, {dtype}"), filled(dtype, [19, 256], 8, &tree, &fills)));
        }
        let long = ["SpQR, add", "MXFP4"].contains(&what.as_str()) || i % 9 == 4;
        if long {
            files.push((format!("{what}, long rows"), filled(dtype, [2, 33_001], 1, &tree, &fills)));
        }
    }
    // Rows that are whole granules, as most are.
    for (dtype, factors) in [(Dtype::BF16, "F16"), (Dtype::F16, "F32"), (Dtype::F32, "BF16")] {
        let tree = low_rank(16, factors, &raw(), &raw());
        files.push((format!("low rank, {dtype}, even rows"), filled(dtype, [40, 320], 15, &tree, &[Fill::Noise; 3])));
    }
    let of_eight = permuted(&raw());
    files.push(("permuted I64".to_owned(), filled(Dtype::I64, [20, 100], 7, &of_eight, &[Fill::Noise, Fill::Order])));
    let column = sparse("add", Some("F32"), &json!("rows"), "F16", Some(raw()));
    let fills = [Fill::Noise, Fill::Counts(3), Fill::Deltas, Fill::Values(2)];
    files.push(("rows of one".to_owned(), filled(Dtype::BF16, [5000, 1], 4000, &column, &fills)));
    files
}

/// Files with a changed index, order or table: places that are not in their row, runs that do not ascend, orders with a column
/// twice, bits behind the end, values that are missing.
pub(crate) fn damaged() -> Vec<File> {
    let mut files = Vec::new();
    let mut rng = Rng::new(23);
    for (what, tree, fills) in trees() {
        let wanted =
            what.starts_with("sparse") || what.contains("SpQR") || what == "permuted" || what.contains("of 6 bits");
        if !wanted {
            continue;
        }
        let file = filled(Dtype::F16, [9, 333], 9, &tree, &fills);
        for number in 0..6 {
            let mut raw = RawFile::parse(&file);
            let block = raw.blocks.iter_mut().find(|block| block.header[field::KIND] == 4).expect("a data block");
            // Not the numbers, which may be anything.
            let told = |fill: &Fill| !matches!(fill, Fill::Noise | Fill::Numbers(_) | Fill::Values(_));
            let streams: Vec<usize> = (0..fills.len()).filter(|&i| told(&fills[i])).collect();
            let stream = &mut block.streams[streams[rng.below(streams.len())]].1;
            let at = if number % 2 == 0 { stream.len() - 1 } else { rng.below(stream.len()) };
            match number {
                5 => stream.truncate(at),
                _ => stream[at] ^= 1 << rng.below(8),
            }
            files.push((format!("{what}, damage {number}"), raw.build()));
        }
    }
    files
}
