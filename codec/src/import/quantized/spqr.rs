//! Checkpoints of SpQR's inference library, and what its quantizer saves.

use serde_json::{Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, count};
use crate::safetensors::Entry;

/// The parts of a layer that the quantizer saves, and their roles.
const SAVED: [(&str, &str); 4] = [
    ("quant_weights", "codes"),
    ("perm", "order"),
    ("outliers_matrix.indices", "outlier_places"),
    ("outliers_matrix.values", "outliers"),
];
/// The lists of it, with a tensor for each group.
const LISTS: [(&str, &str); 6] = [
    ("quant_layer_scale", "scales"),
    ("quant_layer_zeros", "zero_points"),
    ("quant_layer_scale_qq_scale", "scale_scales"),
    ("quant_layer_scale_qq_zero", "scale_zero_points"),
    ("quant_layer_zero_qq_scale", "zero_point_scales"),
    ("quant_layer_zero_qq_zero", "zero_point_zero_points"),
];

/// Rows and columns of a tile.
const TILE: u64 = 16;
/// Numbers of a model's configuration that are looked at.
const MOST_NUMBERS: usize = 256;

pub(super) fn views(config: &Quantization, file: &mut File<'_>) {
    let integer = |key: &str| config.config.get(key).and_then(Value::as_u64);
    let known = [("bits", 3), ("beta1", TILE), ("beta2", TILE)].iter().all(|&(key, value)| integer(key) == Some(value));
    for module in file.modules("dense_weights") {
        let name = format!("{module}.weight");
        let of = |tensor: &str| file.of(module, tensor);
        match (of("dense_weights"), of("row_offsets"), of("col_vals"), of("in_perm")) {
            _ if !known => file.unclear(&name, "only 3 bits in tiles of 16 by 16 are known"),
            (Some(codes), Some(offsets), Some(outliers), order) => {
                // An empty order is none.
                let order = order.filter(|order| count(order) > 0);
                let found = candidates(config, codes, offsets, outliers, order);
                file.add(&name, found);
            }
            _ => file.unclear(&name, OTHER_FILE),
        }
    }
}

/// The shapes that the numbers of words, offsets and columns allow. Whether outliers are listed by rows or by tiles is told by the number of offsets alone.
fn candidates(
    config: &Quantization,
    codes: &Entry,
    offsets: &Entry,
    outliers: &Entry,
    order: Option<&Entry>,
) -> Vec<Candidate> {
    let Some(runs) = count(offsets).checked_sub(1) else { return Vec::new() };
    let mut found = Vec::new();
    for (form, rows) in [("csr", Some(runs)), ("ptcsr", runs.checked_mul(TILE))] {
        let Some(rows) = rows.filter(|&rows| rows > 0) else { continue };
        let tiles = count(codes) / TILE / rows.div_ceil(TILE);
        // Without an order of the columns their number must be a size that the model's configuration names.
        let columns = match order {
            Some(order) => Some(count(order).saturating_mul(2)),
            None => tiles.checked_mul(TILE).filter(|columns| is_named(config, *columns) && is_named(config, rows)),
        };
        let Some(columns) = columns else { continue };
        let view = Candidate::new("spqr_tiles", "F16", &[rows, columns], json!({"outliers": form}));
        let view = view.part("codes", codes).part("outlier_offsets", offsets).part("outliers", outliers);
        found.push(if let Some(order) = order { view.part("order", order) } else { view });
    }
    found
}

/// Whether a number stands in the model's configuration, or is a product of two that do: of heads and their size.
fn is_named(config: &Quantization, size: u64) -> bool {
    let named: Vec<u64> = config.model.values().filter_map(Value::as_u64).take(MOST_NUMBERS).collect();
    named.contains(&size) || named.iter().any(|one| named.iter().any(|two| one.checked_mul(*two) == Some(size)))
}

/// One layer, as the quantizer saves it.
pub(super) fn saved(layer: &Quantization, file: &mut File<'_>) {
    let (Some(codes), Some(values)) = (file.tensor(SAVED[0].0), file.tensor(SAVED[3].0)) else { return };
    let Some(sizes @ [_, columns]) = sizes(layer) else { return };
    let integer = |key: &str| layer.config.get(key).and_then(Value::as_u64);
    let name = layer.config.get("sublayer_name").and_then(Value::as_str);
    let name = name.map_or_else(|| "weight".to_owned(), |name| format!("{name}.weight"));
    let (Some(size @ 1..), Some(0)) = (integer("groupsize"), integer("keep_last_columns")) else {
        return file.unclear(&name, "some columns are not quantized, or the size of the groups is not told");
    };
    if codes.shape != sizes {
        return file.unclear(&name, "quant_weights has another shape than weight_shape says");
    }
    let mut view = Candidate::new("spqr_groups", &values.dtype, &sizes, json!({"group_size": size}));
    let numbered = |(list, role): &(&str, &str)| -> Vec<_> {
        (0..columns.div_ceil(size))
            .map_while(|i| Some((format!("{role}.{i}"), file.tensor(&format!("{list}.{i}"))?)))
            .collect()
    };
    let lists = LISTS.iter().flat_map(numbered);
    let fixed = SAVED.iter().filter_map(|(tensor, role)| Some(((*role).to_owned(), file.tensor(tensor)?)));
    for (role, entry) in fixed.chain(lists) {
        view = view.part(role, entry);
    }
    file.add(&name, [view]);
}

/// The numbers of rows and columns that stand beside a layer.
fn sizes(layer: &Quantization) -> Option<[u64; 2]> {
    let sizes = layer.config.get("weight_shape")?.as_array()?.iter().map(Value::as_u64);
    sizes.collect::<Option<Vec<_>>>()?.try_into().ok()
}
