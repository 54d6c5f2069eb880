//! Checkpoints of SpQR's inference library.

use serde_json::{Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, count};
use crate::safetensors::Entry;

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
