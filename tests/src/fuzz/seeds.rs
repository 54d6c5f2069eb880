//! What fuzzing begins with.

use cmz_codec::Scratch;
use cmz_codec::import::qmoe;
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::stream::{Level, Width};
use cmz_format::Dtype;
use serde_json::{Value, json};

use super::imports::{join, len_of};
use crate::golden;
use crate::inputs::skewed;
use crate::source::Source;

/// Inputs to begin with: what each target makes something of.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "open" | "open_fixed" => {
            golden::files().into_iter().map(|(_, bytes)| bytes).filter(|b| b.len() < 20_000).collect()
        }
        "safetensors" => golden::good().iter().map(|case| case.source.clone()).filter(|b| b.len() < 20_000).collect(),
        "encodings" => encodings(),
        "torch_file" => torch_files(),
        "quantized" => quantized_seeds(),
        "views" => golden::view_seeds(),
        "qmoe_arrays" => qmoe_seeds(),
        _ => streams(),
    }
}

/// Files that PyTorch has written.
fn torch_files() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../codec/src/import/torch/fixtures");
    let paths = std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "pt")).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it is there")).collect()
}

/// Streams of every codec with the four bytes that say which and of how many symbols.
fn streams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (i, entry) in STREAMS.iter().enumerate() {
        for bits in 1..=16u8 {
            let width = Width::new(bits);
            for len in [0usize, 5, 300] {
                if !entry.codec.supports(width) {
                    continue;
                }
                let mut symbols = skewed(u64::from(bits), len * width.bytes());
                symbols.iter_mut().for_each(|symbol| *symbol &= 1);
                let mut seed = vec![i as u8, bits - 1, len as u8, (len >> 8) as u8];
                entry.codec.encode(&symbols, width, Level::Fast, &mut Scratch::new(), &mut seed);
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// Parameters and elements of every encoding, with the three bytes that say which it is and
/// of which elements.
fn encodings() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (i, entry) in ENCODINGS.iter().enumerate() {
        for (variant, encoding) in entry.variants.iter().enumerate() {
            for dtype in 0..Dtype::ALL.len() {
                let head = [i as u8, variant as u8, dtype as u8];
                seeds.push([&head[..], &serde_json::to_vec(&encoding.params()).expect("it is there")].concat());
                seeds.push([&head[..], &skewed(dtype as u64, 480)].concat());
            }
        }
    }
    seeds
}

/// Inputs of [`super::quantized`]: a checkpoint of each program.
fn quantized_seeds() -> Vec<Vec<u8>> {
    let state = r#"{"blocksize":64,"dtype":"bfloat16","shape":[4,33]}"#;
    let checkpoints: [(Value, &[Tensor]); 9] = [
        (
            json!({"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": true}),
            &[
                ("qweight", "I32", &[4, 8]),
                ("qzeros", "I32", &[2, 1]),
                ("scales", "F16", &[2, 8]),
                ("g_idx", "I32", &[32]),
            ],
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}),
            &[("qweight", "I32", &[32, 1]), ("qzeros", "I32", &[2, 1]), ("scales", "F16", &[2, 8])],
        ),
        (
            json!({"format": "pack-quantized", "config_groups": {"g": {"targets": ["Linear"], "weights": {
                "num_bits": 4, "type": "int", "strategy": "group", "group_size": 16, "symmetric": false}}}}),
            &[
                ("weight_packed", "I32", &[8, 4]),
                ("weight_scale", "BF16", &[8, 2]),
                ("weight_zero_point", "I32", &[1, 2]),
                ("weight_shape", "I64", &[2]),
            ],
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": [4, 8]}),
            &[("weight", "F8_E4M3", &[6, 20]), ("weight_scale_inv", "F32", &[2, 3])],
        ),
        (
            json!({"load_in_4bit": true}),
            &[
                ("weight", "U8", &[66, 1]),
                ("weight.absmax", "F32", &[3]),
                ("weight.quant_map", "F32", &[16]),
                ("weight.quant_state.bitsandbytes__nf4", "U8", &[50]),
            ],
        ),
        (
            json!({"load_in_8bit": true}),
            &[("weight", "I8", &[6, 20]), ("SCB", "F32", &[6]), ("weight_format", "U8", &[])],
        ),
        (
            json!({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
            &[("weight", "U8", &[4, 16]), ("weight_scale", "F8_E4M3", &[4, 2]), ("weight_scale_2", "F32", &[])],
        ),
        (
            json!({"quant_method": "mxfp4"}),
            &[("down_proj_blocks", "U8", &[2, 6, 2, 16]), ("down_proj_scales", "U8", &[2, 6, 2])],
        ),
        (
            json!({"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16}),
            &[
                ("dense_weights", "I64", &[64]),
                ("row_offsets", "I32", &[33]),
                ("col_vals", "I32", &[0]),
                ("in_perm", "I32", &[16]),
            ],
        ),
    ];
    let seed = |(config, tensors): &(Value, &[Tensor])| {
        let mut file = Source::new();
        for &(name, dtype, shape) in *tensors {
            let len = len_of(Dtype::from_name(dtype).expect("a type"), shape) as usize;
            let bytes = match name {
                "in_perm" => (0..32u16).flat_map(u16::to_le_bytes).collect(),
                "weight_shape" => [8u64, 32].iter().flat_map(|n| n.to_le_bytes()).collect(),
                _ if name.contains("quant_state") => state.as_bytes().to_vec(),
                _ => vec![0; len],
            };
            file = file.tensor(&format!("m.{name}"), dtype, shape, bytes);
        }
        join(json!({"torch_dtype": "bfloat16", "quantization_config": config}).to_string().as_bytes(), &file.build())
    };
    checkpoints.iter().map(seed).collect()
}

/// Name, element type and shape.
type Tensor = (&'static str, &'static str, &'static [u64]);

/// Inputs of [`super::qmoe_arrays`]: matrices of a few rows.
fn qmoe_seeds() -> Vec<Vec<u8>> {
    let seed = |(rows, width): (u8, u16)| {
        let weight = |i: usize| [[0, 0], [0x80, 0xbf], [0x40, 0x3f]][i * i % 11 % 3];
        let weights: Vec<u8> = (0..usize::from(rows) * usize::from(width)).flat_map(weight).collect();
        let matrix = qmoe::Matrix::pack(&weights, width.into()).expect("ternary weights");
        let [codewords, offsets, extremes] = matrix.to_bytes();
        [&width.to_le_bytes()[..], &[rows], &offsets, &extremes, &codewords].concat()
    };
    [(0, 5), (1, 1), (1, 100), (2, 28), (3, 57), (7, 300)].map(seed).to_vec()
}
