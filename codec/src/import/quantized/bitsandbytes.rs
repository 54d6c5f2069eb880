//! Checkpoints of bitsandbytes: four bits (NF4, FP4) and LLM.int8.

use serde_json::{Map, Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, torch_dtype};
use crate::safetensors::Entry;

/// The tensors that tell how four-bit weights are to be read, in JSON.
const STATES: [&str; 2] = ["quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4"];

pub(super) fn views(config: &Quantization, file: &mut File<'_>) {
    for state in STATES {
        for name in file.modules(state) {
            match four_bits(file, name, state) {
                Ok(view) => file.add(name, Some(view)),
                Err(why) => file.unclear(name, why),
            }
        }
    }
    for module in file.modules("SCB") {
        let name = format!("{module}.weight");
        let format = file.of(module, "weight_format").and_then(|format| file.bytes(format));
        match (file.of(module, "weight"), file.of(module, "SCB")) {
            (Some(codes), Some(magnitudes)) if format.is_none_or(|format| format.iter().all(|&byte| byte == 0)) => {
                let dtype = config.dtype().unwrap_or("F16");
                let view = Candidate::new("bitsandbytes_8bit", dtype, &codes.shape, json!({}));
                file.add(&name, Some(view.part("codes", codes).part("magnitudes", magnitudes)));
            }
            (Some(_), Some(_)) => file.unclear(&name, "its weight_format is not by rows"),
            _ => file.unclear(&name, OTHER_FILE),
        }
    }
}

fn four_bits(file: &File<'_>, name: &str, state: &str) -> Result<Candidate, &'static str> {
    let of = |tensor: &str| file.of(name, tensor).ok_or(OTHER_FILE);
    let state = file.bytes(of(state)?).ok_or("its quant_state cannot be read")?;
    let state: Map<String, Value> = serde_json::from_slice(&state).map_err(|_| "its quant_state cannot be read")?;
    let integer = |key: &str| state.get(key).and_then(Value::as_u64);
    let shape = state.get("shape").and_then(Value::as_array).into_iter().flatten().map(Value::as_u64);
    let shape: Vec<u64> = shape.collect::<Option<_>>().ok_or("its quant_state has no shape")?;
    let dtype =
        state.get("dtype").and_then(Value::as_str).and_then(torch_dtype).ok_or("its element type is not known")?;
    let codes: &Entry = file.tensor(name).ok_or(OTHER_FILE)?;
    let mut params = json!({"block_size": integer("blocksize")});
    let nested = state.contains_key("nested_blocksize");
    if nested {
        let offset = state.get("nested_offset").and_then(Value::as_f64).ok_or("its nested_offset is not a number")?;
        params["nested_block_size"] = integer("nested_blocksize").into();
        params["nested_offset_bits"] = (offset as f32).to_bits().into();
    }
    let view = Candidate::new("bitsandbytes_4bit", dtype, &shape, params);
    let view = view.part("codes", codes).part("magnitudes", of("absmax")?).part("table", of("quant_map")?);
    if !nested {
        return Ok(view);
    }
    Ok(view.part("nested_magnitudes", of("nested_absmax")?).part("nested_table", of("nested_quant_map")?))
}
