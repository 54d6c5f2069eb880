//! Checkpoints of QMoE: experts of Switch transformers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, count};
use crate::safetensors::Entry;

pub(super) fn views(config: &Quantization, file: &mut File<'_>) {
    let size = |key: &str| config.model.get(key).and_then(Value::as_u64);
    let sizes = size("d_model").zip(size("d_ff"));
    let modules: BTreeSet<&str> =
        ["w_comp", "row_off", "ter_minmax"].iter().flat_map(|part| file.modules(part)).collect();
    for module in modules {
        let name = format!("{module}.weight");
        let of = |tensor: &str| file.of(module, tensor);
        match (of("w_comp"), of("row_off"), of("ter_minmax"), sizes) {
            (.., None) => file.unclear(&name, "the configuration does not tell d_model and d_ff"),
            (Some(codewords), Some(offsets), Some(extremes), Some(sizes)) => {
                match candidate([codewords, offsets, extremes], sizes) {
                    Ok(found) => file.add(&name, [found]),
                    Err(why) => file.unclear(&name, why),
                }
            }
            _ => file.unclear(&name, OTHER_FILE),
        }
    }
}

/// The width of the rows is in no tensor: the configuration proposes it, and the layout sees whether every row decodes to it.
fn candidate([codewords, offsets, extremes]: [&Entry; 3], (d_model, d_ff): (u64, u64)) -> Result<Candidate, String> {
    let rows = count(offsets).saturating_sub(1);
    let width = match rows {
        _ if rows == d_ff => d_model,
        _ if rows == d_model => d_ff,
        _ => return Err(format!("it has {rows} rows, and the configuration d_model = {d_model} and d_ff = {d_ff}")),
    };
    let view = Candidate::new("qmoe", "BF16", &[rows, width], json!({}));
    Ok(view.part("codewords", codewords).part("row_offsets", offsets).part("extremes", extremes))
}
