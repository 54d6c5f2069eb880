//! Every recipe, from weights to a file and back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{CompressOptions, Compressed, VerifyDepth, VerifyOptions, compress, verify};
use cmz_codec::io::IoMode;
use cmz_codec::{Archive, Code};
use cmz_format::Dtype;
use cmz_quantize::Matrix;
use cmz_quantize::plan::{Plan, StatisticsFile};
use cmz_quantize::recipe::{RECIPES, Recipe};
use cmz_quantize::solver::weight_error;
use half::{bf16, f16};
use serde_json::json;

fn options(plan: Plan, threads: usize) -> CompressOptions {
    CompressOptions {
        encode: EncodeOptions::default(),
        threads,
        io: IoMode::Auto,
        replace: true,
        verify: true,
        bases: Vec::new(),
        quantizer: Some(Arc::new(plan)),
    }
}

/// Weights as layers have them: nearly normal, with heavy tails.
fn weights(rows: usize, columns: usize, seed: u64) -> Vec<f32> {
    let mut state = seed * 2 + 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let element = |i: usize| (0..6).map(|_| next()).sum::<f32>() * if i % 97 == 5 { 0.15 } else { 0.05 };
    (0..rows * columns).map(element).collect()
}

fn bytes(dtype: &str, weights: &[f32]) -> Vec<u8> {
    match dtype {
        "F16" => weights.iter().flat_map(|&w| f16::from_f32(w).to_le_bytes()).collect(),
        "BF16" => weights.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect(),
        _ => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
    }
}

fn safetensors(name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let header = json!({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, bytes.len()]}}).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), bytes].concat()
}

/// What a recipe made of a matrix: the file, bits per weight, and the decoded bytes.
struct Stored {
    done: Compressed,
    file: Vec<u8>,
    bits: f64,
    decoded: Vec<u8>,
}

fn store(folder: &Path, source: &[u8], recipe: &str, threads: usize) -> cmz_codec::Result<Stored> {
    fs::write(folder.join("source.safetensors"), source).unwrap();
    let plan = Plan::of_recipe(recipe, &[])?;
    let plan = match folder.join("statistics.safetensors") {
        path if path.exists() => plan.with_statistics(StatisticsFile::open(&path)?),
        _ => plan,
    };
    let target = folder.join("file.cmz");
    let done = compress(&folder.join("source.safetensors"), &target, &options(plan, threads), &())?;
    let how = VerifyOptions { depth: VerifyDepth::Decoded, threads: 1, io: IoMode::Auto, bases: Vec::new() };
    assert_eq!(verify(&target, &how, &())?.sha256.as_ref(), Some(&done.sha256));
    let archive = Archive::open(&target)?;
    let blocks = archive.index().tensor_blocks(0).data.clone();
    let stored: u64 = archive.index().table()[blocks].iter().map(|record| u64::from(record.stored_len)).sum();
    let bits = stored as f64 * 8.0 / archive.tensors()[0].elements()? as f64;
    Ok(Stored { done, file: fs::read(&target).unwrap(), bits, decoded: archive.read("w")? })
}

/// Recipes with the most bits per weight and the greatest relative error that they may have.
const CASES: &[(&str, f64, f64)] = &[
    ("int2", 2.2, 0.65),
    ("int3", 3.2, 0.35),
    ("int4", 4.2, 0.20),
    ("int4:form=zero_point", 4.3, 0.20),
    ("int4:form=bias", 4.4, 0.20),
    ("int4:group=0", 4.1, 0.30),
    ("int5:scale=BF16", 5.2, 0.12),
    ("int6:scale=F32", 6.4, 0.08),
    ("int7:group=32", 7.6, 0.03),
    ("int8:fit=range", 8.2, 0.02),
    ("nf4", 4.3, 0.15),
    ("nf4:scale=F32,fit=range", 4.6, 0.17),
    ("mxfp4", 4.2, 0.17),
    ("mxfp4:fit=range", 4.2, 0.20),
    ("nvfp4", 4.6, 0.15),
    ("fp8", 7.5, 0.04),
    ("fp8:rows=1,columns=64", 8.0, 0.04),
    ("kmeans3", 3.7, 0.25),
    ("kmeans4:outliers=0.005", 5.2, 0.13),
    ("kmeans4:rows=64,table=BF16", 4.2, 0.2),
    ("bcq1", 1.3, 0.80),
    ("bcq2", 2.5, 0.50),
    ("bcq3:group=64", 4.1, 0.30),
    ("bcq4:scale=F32", 5.4, 0.20),
    ("spqr2", 2.95, 0.50),
    ("spqr3", 3.95, 0.22),
    ("spqr4:group=32,rows=8,scale_bits=5,zero_bits=4,outliers=0", 4.8, 0.13),
    ("spqr3:threshold=0.3,order=activation", 4.3, 0.30),
];

#[test]
fn recipes_keep_to_their_bits_and_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (320, 384);
    let original = weights(rows, columns, 1);
    for dtype in ["BF16", "F16", "F32"] {
        let original = bytes(dtype, &original);
        let source = safetensors("w", dtype, &[rows, columns], &original);
        let matrix = |bytes: &[u8]| Matrix::from_bytes(Dtype::from_name(dtype).unwrap(), rows, columns, bytes).unwrap();
        for &(recipe, most_bits, most_error) in CASES {
            let stored = store(folder.path(), &source, recipe, 2).unwrap();
            let error = weight_error(&matrix(&original), &matrix(&stored.decoded));
            let (bits, lossy) = (stored.bits, &stored.done.lossy[0]);
            assert!(bits < most_bits && error < most_error && error > 0.0, "{recipe} of {dtype}: {bits} bits, {error}");
            assert_eq!(lossy.error_ppb, (error * 1e9).round() as u64);
            assert_eq!(lossy.recipe, Recipe::parse(recipe).unwrap().to_string());
        }
    }
}

#[test]
fn every_recipe_takes_every_shape_and_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for shape in [&[1, 1][..], &[3, 5], &[17, 33], &[2, 9, 50], &[130, 257], &[1, 70_000], &[3000, 300]] {
        let columns = shape[shape.len() - 1];
        let rows = shape.iter().product::<usize>() / columns;
        let source = safetensors("w", "BF16", shape, &bytes("BF16", &weights(rows, columns, 3)));
        for recipe in ["int4", "nf4", "mxfp4", "nvfp4", "fp8", "kmeans3:outliers=0.01", "bcq2", "spqr3"] {
            let one = store(folder.path(), &source, recipe, 1).unwrap_or_else(|e| panic!("{recipe} of {shape:?}: {e}"));
            let three = store(folder.path(), &source, recipe, 3).unwrap();
            assert!(one.file == three.file, "{recipe} of {shape:?}");
        }
    }
}

/// Zeros, one value, and the least and greatest numbers.
/// 3 bits, 6 for 16 weights, 64 for 256; and 16 bits for each outlier with 8 or fewer for its place.
#[test]
fn spqr_takes_the_bits_that_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (256, 1024);
    let source = safetensors("w", "BF16", &[rows, columns], &bytes("BF16", &weights(rows, columns, 9)));
    let bits = |recipe: &str| store(folder.path(), &source, recipe, 2).unwrap().bits;
    let (dense, with_outliers) = (bits("spqr3:outliers=0"), bits("spqr3:outliers=0.01"));
    assert!(dense <= 3.63, "{dense} bits without outliers");
    assert!(with_outliers <= 3.88 && with_outliers > dense, "{with_outliers} bits with 1 % outliers");
    let each = (with_outliers - dense) / 0.01;
    assert!(each <= 25.0, "{each} bits an outlier");
}

#[test]
fn weights_out_of_the_ordinary() {
    let folder = tempfile::tempdir().unwrap();
    type Pattern = (&'static str, fn(usize) -> f32);
    let patterns: [Pattern; 4] = [
        ("zeros", |_| 0.0),
        ("ones", |_| 1.0),
        ("tiny", |i| if i % 3 == 0 { 1e-38 } else { -2e-38 }),
        ("one large", |i| if i == 70 { 60_000.0 } else { 0.001 }),
    ];
    let recipes =
        ["int4", "int3:form=zero_point", "int8:form=bias", "nf4", "mxfp4", "nvfp4", "fp8", "kmeans3", "bcq2", "spqr3"];
    for (name, element) in patterns {
        let elements: Vec<f32> = (0..64 * 96).map(element).collect();
        let source = safetensors("w", "F32", &[64, 96], &bytes("F32", &elements));
        for recipe in recipes {
            let stored = store(folder.path(), &source, recipe, 1).unwrap_or_else(|e| panic!("{recipe} of {name}: {e}"));
            let finite = stored.decoded.as_chunks().0.iter().all(|&four| f32::from_le_bytes(four).is_finite());
            let lossy = &stored.done.lossy[0];
            assert!(finite && lossy.error_ppb <= 1_010_000_000, "{recipe} of {name}: {lossy:?}");
        }
    }
}

/// A file of statistics of inputs that are correlated, some of which were always 0.
fn write_statistics(folder: &Path, columns: usize) {
    let element = |at: usize| {
        let (i, j) = (at / columns, at % columns);
        let size = |i: usize| if i % 50 == 7 { 0.0 } else { 0.1 + (i % 13) as f32 };
        0.9f32.powi(i.abs_diff(j) as i32) * size(i) * size(j)
    };
    let hessian: Vec<f32> = (0..columns * columns).map(element).collect();
    let file = safetensors("w.hessian", "F32", &[columns, columns], &bytes("F32", &hessian));
    fs::write(folder.join("statistics.safetensors"), file).unwrap();
}

#[test]
fn statistics_make_the_outputs_of_every_solver_better() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (96, 160);
    let source = safetensors("w", "BF16", &[rows, columns], &bytes("BF16", &weights(rows, columns, 4)));
    write_statistics(folder.path(), columns);
    let error = |recipe: &str| {
        let stored = store(folder.path(), &source, recipe, 2).unwrap_or_else(|e| panic!("{recipe}: {e}"));
        stored.done.lossy[0].output_error_ppb.unwrap()
    };
    for recipe in
        ["int3:group=32", "int4:form=zero_point,group=32", "nf4:group=32", "mxfp4:", "nvfp4:", "bcq3:group=32"]
    {
        let nearest = error(recipe);
        for order in ["stored", "activation"] {
            let solved = error(&format!("{recipe},solver=gptq,order={order}"));
            assert!(solved < nearest * 9 / 10, "{recipe} in {order} order: {solved} of {nearest}");
        }
    }
    assert!(error("spqr3") < error("int3:group=16,solver=gptq"));
    assert!(error("spqr3:order=activation") < error("int3:group=16"));
}

#[test]
fn what_a_recipe_cannot_do_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let matrix = |elements: &[f32], shape: &[usize]| safetensors("w", "BF16", shape, &bytes("BF16", elements));
    let refuses = |source: &[u8], recipe: &str| {
        let code = store(folder.path(), source, recipe, 1).map(drop).map_err(|e| e.code());
        assert_eq!(code, Err(Code::InvalidArgument), "{recipe}");
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut elements = weights(8, 8, 5);
        elements[30] = bad;
        for recipe in ["int4", "nf4", "fp8", "kmeans2", "bcq2", "spqr2"] {
            refuses(&matrix(&elements, &[8, 8]), recipe);
        }
    }
    // Not finite in half precision, in which SpQR computes.
    refuses(&matrix(&[1e30; 64], &[8, 8]), "spqr3");
    // Rows that belong together must fit one block, and their order 16 bits.
    refuses(&matrix(&weights(2, 70_000, 6), &[2, 70_000]), "spqr3:order=activation");
    refuses(&matrix(&weights(200, 50_000, 6), &[200, 50_000]), "fp8:rows=65536");
    refuses(&matrix(&weights(8, 8, 7), &[8, 8]), "int4:solver=gptq");
}

#[test]
fn recipes_are_text_and_back() {
    for entry in RECIPES {
        let bits = entry.bits.clone().map_or(vec![String::new()], |bits| bits.map(|b| b.to_string()).collect());
        for bits in bits {
            let text = Recipe::parse(&format!("{}{bits}", entry.family)).unwrap().to_string();
            assert_eq!(Recipe::parse(&text).unwrap().to_string(), text);
            let states = |name, value| text.contains(&format!("{name}={value}"));
            assert!(entry.params.iter().all(|param| states(param.name, param.default)), "{text}");
        }
        assert!(!entry.about.is_empty() && entry.params.iter().all(|param| !param.about.is_empty()));
    }
    let bad = ["", "int", "int04", "int+4", "int1", "int9", "nf5", "nf4x", "int4:group=1.5", "kmeans4:outliers=nan"];
    for text in bad.into_iter().chain(["int4:=3", "int4:group=", "int4:group=1;scale=F16"]) {
        assert_eq!(Recipe::parse(text).map(drop).map_err(|e| e.code()), Err(Code::InvalidArgument), "{text:?}");
    }
}

/// The table of docs/quantize.md is the one in the code.
#[test]
fn the_documentation_lists_every_recipe() {
    let text = include_str!("../../docs/quantize.md");
    for entry in RECIPES {
        let params: Vec<String> = entry.params.iter().map(|p| format!("`{}={}`", p.name, p.default)).collect();
        let row = format!("| `{}` | {} | {} |\n", entry.names(), entry.about, params.join(", "));
        assert!(text.contains(&row), "no row\n{row}");
    }
}
