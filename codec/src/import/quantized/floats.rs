//! Checkpoints of FP8 (DeepSeek-V3, fine-grained FP8 of Transformers), of ModelOpt, and MXFP4 of gpt-oss.

use cmz_format::Dtype;
use serde_json::{Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, count, dtype};
use crate::safetensors::Entry;

/// Columns that share a scale of MXFP4.
const GROUP: u64 = 32;

pub(super) fn fp8(config: &Quantization, file: &mut File<'_>) {
    let block = config.config.get("weight_block_size").and_then(Value::as_array);
    let block = block.and_then(|block| Some((block.first()?.as_u64()?, block.get(1)?.as_u64()?)));
    for codes in &file.header.tensors {
        let float = matches!(dtype(codes), Some(Dtype::F8_E4M3 | Dtype::F8_E5M2));
        let scales = scales_of(file, codes);
        match (float, scales) {
            (true, Some(scales)) => {
                let found = match block {
                    Some(block) => Some(block_scaled(config, codes, scales, block)),
                    None => by_tensor_or_row(config, codes, scales),
                };
                file.add(&codes.name, found);
            }
            (true, None) => file.unclear(&codes.name, "an FP8 tensor without scales in the same file"),
            // Some experts are packed in four bits; a byte is not an FP8 number for being a byte.
            (false, Some(scales)) if dtype(codes) == Some(Dtype::I8) => {
                let found = dtype(scales).filter(|&dtype| dtype == Dtype::F8_E8M0).and_then(|_| {
                    let [stack @ .., row] = codes.shape.as_slice() else { return None };
                    let shape: Vec<u64> = stack.iter().copied().chain([row.checked_mul(2)?]).collect();
                    let params = json!({"group_size": GROUP, "order": "rows"});
                    let view = Candidate::new("mxfp4", config.dtype().unwrap_or("BF16"), &shape, params);
                    Some(view.part("codes", codes).part("scales", scales))
                });
                file.add(&codes.name, found);
            }
            _ => {}
        }
    }
}

/// The scales of a tensor. `weight_scale_inv` multiplies, too, whatever its name says.
fn scales_of<'a>(file: &File<'a>, codes: &Entry) -> Option<&'a Entry> {
    let own = ["_scale_inv", "_scale"].into_iter().find_map(|end| file.tensor(&format!("{}{end}", codes.name)));
    own.or_else(|| file.of(codes.name.strip_suffix(".weight")?, "scale"))
}

fn block_scaled(config: &Quantization, codes: &Entry, scales: &Entry, (rows, columns): (u64, u64)) -> Candidate {
    let params = json!({"block_rows": rows, "block_columns": columns});
    let view = Candidate::new("block_scaled", config.dtype().unwrap_or("BF16"), &codes.shape, params);
    view.part("codes", codes).part("scales", scales)
}

/// One scale for a tensor, or for each row of a matrix.
fn by_tensor_or_row(config: &Quantization, codes: &Entry, scales: &Entry) -> Option<Candidate> {
    let &[rows, columns] = codes.shape.as_slice() else { return None };
    let block = if count(scales) == 1 { (rows, columns) } else { (1, columns) };
    Some(block_scaled(config, codes, scales, block))
}

pub(super) fn modelopt(config: &Quantization, file: &mut File<'_>) {
    let algorithm = config.text("quant_algo").unwrap_or_default();
    let known = ["fp8", "nvfp4", "mixed_precision"].contains(&algorithm.as_str());
    for module in file.modules("weight") {
        let of = |tensor: &str| file.of(module, tensor);
        let Some(codes) = of("weight") else { continue };
        let quantized = matches!(dtype(codes), Some(Dtype::U8 | Dtype::F8_E4M3));
        if !quantized {
            continue;
        }
        let (scales, global) = (of("weight_scale"), of("weight_scale_2"));
        match (dtype(codes), scales, global) {
            _ if !known => file.unclear(&codes.name, format!("quant_algo {algorithm:?} is not known")),
            (Some(Dtype::F8_E4M3), Some(scales), None) => {
                let found = by_tensor_or_row(config, codes, scales);
                file.add(&codes.name, found);
            }
            (Some(Dtype::U8), Some(scales), Some(global)) => {
                let &[rows, bytes] = codes.shape.as_slice() else {
                    file.unclear(&codes.name, "its codes are not a matrix");
                    continue;
                };
                let params = json!({"group_size": 16, "global_scale": "multiplier"});
                let shape = [rows, bytes.saturating_mul(2)];
                let view = Candidate::new("nvfp4", config.dtype().unwrap_or("BF16"), &shape, params);
                let view = view.part("codes", codes).part("scales", scales).part("global_scale", global);
                file.add(&codes.name, Some(view));
            }
            _ => file.unclear(&codes.name, OTHER_FILE),
        }
    }
}

/// gpt-oss, as the Transformers library has it: experts are stacked, and their weights transposed.
pub(super) fn mxfp4(config: &Quantization, file: &mut File<'_>) {
    for codes in &file.header.tensors {
        let Some(name) = codes.name.strip_suffix("_blocks") else { continue };
        let Some(scales) = file.tensor(&format!("{name}_scales")) else {
            file.unclear(name, OTHER_FILE);
            continue;
        };
        let found = match *codes.shape.as_slice() {
            [stack, rows, groups, 16] => {
                let shape = [stack, groups.saturating_mul(GROUP), rows];
                let params = json!({"group_size": GROUP, "order": "transposed"});
                let view = Candidate::new("mxfp4", config.dtype().unwrap_or("BF16"), &shape, params);
                Some(view.part("codes", codes).part("scales", scales))
            }
            _ => None,
        };
        file.add(name, found);
    }
}
