//! Checkpoints of compressed-tensors (llm-compressor).

use serde_json::{Map, Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization};
use crate::safetensors::Entry;

/// How the weights of some modules are quantized: an entry of `config_groups`. Which modules are meant is told by their types and shapes.
#[derive(Clone, Debug)]
struct Scheme {
    format: String,
    bits: u64,
    symmetric: bool,
    strategy: String,
    group_size: u64,
    /// Rows and columns of a block.
    block: Option<(u64, u64)>,
}

impl Scheme {
    fn new(group: &Value, format: &str) -> Option<Self> {
        let weights = group.get("weights")?.as_object()?;
        let text = |key: &str| weights.get(key).and_then(Value::as_str).unwrap_or_default().to_lowercase();
        let own = group.get("format").and_then(Value::as_str);
        // A list of two, or `128x128`.
        let block = match weights.get("block_structure") {
            Some(Value::Array(block)) => {
                block.first().and_then(Value::as_u64).zip(block.get(1).and_then(Value::as_u64))
            }
            Some(Value::String(block)) => {
                block.split_once('x').and_then(|(rows, columns)| rows.parse().ok().zip(columns.parse().ok()))
            }
            _ => None,
        };
        Some(Self {
            format: own.unwrap_or(format).to_owned(),
            bits: weights.get("num_bits")?.as_u64()?,
            symmetric: weights.get("symmetric").and_then(Value::as_bool).unwrap_or(true),
            strategy: text("strategy"),
            group_size: weights.get("group_size").and_then(Value::as_u64).unwrap_or(0),
            block,
        })
    }
}

pub(super) fn views(config: &Quantization, file: &mut File<'_>) {
    let format = config.text("format").unwrap_or_default();
    let groups = config.config.get("config_groups").and_then(Value::as_object);
    let schemes: Vec<Scheme> =
        groups.into_iter().flat_map(Map::values).filter_map(|group| Scheme::new(group, &format)).collect();
    let sparsity = config.config.get("sparsity_config").and_then(|sparsity| sparsity.get("format")?.as_str());
    let sparse = sparsity.is_some_and(|format| format != "dense") || format.contains("24") || format.contains("sparse");
    for module in file.modules("weight_packed") {
        let name = format!("{module}.weight");
        match packed(config, file, module, &schemes) {
            _ if sparse => file.unclear(&name, "sparse formats are not known"),
            Ok(candidates) => file.add(&name, candidates),
            Err(why) => file.unclear(&name, why),
        }
    }
    for module in file.modules("weight") {
        let (Some(codes), scales) = (file.of(module, "weight"), file.of(module, "weight_scale")) else { continue };
        if !["I8", "F8_E4M3"].contains(&codes.dtype.as_str()) {
            continue;
        }
        match scales {
            _ if sparse => file.unclear(&codes.name, "sparse formats are not known"),
            None => file.unclear(&codes.name, OTHER_FILE),
            Some(scales) => {
                let zeros = file.of(module, "weight_zero_point");
                let schemes = schemes.iter().filter(|scheme| scheme.symmetric || zeros.is_none());
                let found: Vec<_> = schemes.filter_map(|scheme| whole(config, codes, scales, scheme)).collect();
                file.add(&codes.name, found);
            }
        }
    }
}

/// What weights are that take less than a byte.
fn packed(
    config: &Quantization,
    file: &File<'_>,
    module: &str,
    schemes: &[Scheme],
) -> Result<Vec<Candidate>, &'static str> {
    let of = |tensor: &str| file.of(module, tensor);
    let (Some(codes), Some(scales)) = (of("weight_packed"), of("weight_scale")) else { return Err(OTHER_FILE) };
    let dtype = config.dtype().unwrap_or("BF16");
    let [stack @ .., row] = codes.shape.as_slice() else { return Err("its codes have no dimensions") };
    let unpacked: Vec<u64> = stack.iter().copied().chain([2 * (row & u64::MAX >> 1)]).collect();
    let mut found = Vec::new();
    for scheme in schemes {
        let with = |layout, params| {
            Candidate::new(layout, dtype, &unpacked, params).part("codes", codes).part("scales", scales)
        };
        match (scheme.format.as_str(), codes.dtype.as_str()) {
            ("pack-quantized", "I32") => found.extend(pack_quantized(file, module, codes, scales, scheme)?),
            ("nvfp4-pack-quantized", "U8") => {
                let global = of("weight_global_scale").ok_or(OTHER_FILE)?;
                let params = json!({"group_size": scheme.group_size, "global_scale": "divisor"});
                found.push(with("nvfp4", params).part("global_scale", global));
            }
            ("mxfp4-pack-quantized", "U8") => {
                found.push(with("mxfp4", json!({"group_size": scheme.group_size, "order": "rows"})));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn pack_quantized(
    file: &File<'_>,
    module: &str,
    codes: &Entry,
    scales: &Entry,
    scheme: &Scheme,
) -> Result<Vec<Candidate>, &'static str> {
    let shape = file.of(module, "weight_shape").ok_or(OTHER_FILE)?;
    let shape = file.bytes(shape).filter(|_| shape.dtype == "I64").ok_or("weight_shape cannot be read")?;
    let shape: Vec<u64> = shape.as_chunks().0.iter().map(|&size| u64::from_le_bytes(size)).collect();
    let &[_, columns] = shape.as_slice() else { return Err("weight_shape is not that of a matrix") };
    // −1 in it says that groups are runs of columns after all.
    let index = file.of(module, "weight_g_idx");
    let index = match index {
        Some(index) => {
            let bytes = file.bytes(index).ok_or("weight_g_idx cannot be read")?;
            Some(index).filter(|_| !bytes.as_chunks().0.contains(&(-1i32).to_le_bytes()))
        }
        None => None,
    };
    let group_size = match scheme.strategy.as_str() {
        "group" => scheme.group_size,
        "channel" => columns,
        _ => return Ok(Vec::new()),
    };
    let zeros = file.of(module, "weight_zero_point").filter(|_| !scheme.symmetric);
    if zeros.is_none() && !scheme.symmetric {
        return Err(OTHER_FILE);
    }
    // Where both packings are the same, or their words are as many, the shape does not tell them apart.
    let packings: &[&str] = if 32 % scheme.bits.max(1) == 0 { &["dense"] } else { &["dense", "padded"] };
    let candidate = |packing: &&str| {
        let mut params = json!({"bits": scheme.bits, "packing": packing});
        if index.is_none() {
            params["group_size"] = group_size.into();
        }
        let mut view = Candidate::new("compressed_tensors_int", &scales.dtype, &shape, params);
        view = view.part("codes", codes).part("scales", scales);
        view = if let Some(zeros) = zeros { view.part("zero_points", zeros) } else { view };
        if let Some(index) = index { view.part("groups", index) } else { view }
    };
    Ok(packings.iter().map(candidate).collect())
}

/// What weights of one byte are.
fn whole(config: &Quantization, codes: &Entry, scales: &Entry, scheme: &Scheme) -> Option<Candidate> {
    let known = ["float-quantized", "int-quantized", "naive-quantized"].contains(&scheme.format.as_str());
    let [.., rows, columns] = *codes.shape.as_slice() else { return None };
    if !known || scheme.bits != 8 {
        return None;
    }
    let (block_rows, block_columns) = match scheme.strategy.as_str() {
        "tensor" => (rows, columns),
        "channel" => (1, columns),
        "group" => (1, scheme.group_size),
        "block" => scheme.block?,
        _ => return None,
    };
    let dtype = match scales.dtype.as_str() {
        "F32" => config.dtype().unwrap_or("BF16"),
        other => other,
    };
    let params = json!({"block_rows": block_rows, "block_columns": block_columns});
    let view = Candidate::new("block_scaled", dtype, &codes.shape, params);
    Some(view.part("codes", codes).part("scales", scales))
}
