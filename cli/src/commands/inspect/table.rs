//! The list of tensors.

use cmz_codec::{ComponentEntropy, TensorEntropy};
use cmz_format::{Escaped, Lossy};
use serde_json::{Value, json};

use super::{Measured, decimal};
use crate::args::{Inspect, SortKey};
use crate::lossy;
use crate::text::{self, ratio};

/// A tensor in the list.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Number of the tensor in its file.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) elements: u64,
    /// Length as stored and in memory, in bytes.
    pub(super) stored_len: u64,
    pub(super) byte_len: u64,
    pub(super) encoding: String,
    /// The same as the table shows it.
    pub(super) outline: String,
    /// Whether the elements are those of ternary weights.
    pub(super) is_ternary: bool,
    pub(super) blocks: usize,
    /// With --entropy, unless the tensor cannot be decoded.
    pub(super) entropy: Option<TensorEntropy>,
    /// What was done to the tensor, if it was rounded.
    pub(super) lossy: Option<Lossy>,
}

impl Row {
    fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.stored_len as f64 * 8.0 / self.elements as f64)
    }

    fn ratio(&self) -> f64 {
        ratio(self.stored_len, self.byte_len)
    }

    /// Entropy beside the length of the streams.
    pub(super) fn measured(&self) -> Option<Measured> {
        let of = |entropy: &TensorEntropy| Measured {
            elements: self.elements,
            bits: entropy.bits(),
            stored_len: entropy.stored_len(),
        };
        self.entropy.as_ref().map(of)
    }

    fn entropy_cells(&self) -> [String; 2] {
        let measured = self.measured();
        [decimal(measured.and_then(Measured::entropy), 3), decimal(measured.and_then(Measured::above), 2)]
    }

    /// The share of zeros among the symbols of ternary weights, on which their length depends.
    fn zero_share(&self) -> Option<f64> {
        let symbols = |component: &&ComponentEntropy| component.name == "symbols";
        let measured = self.entropy.as_ref().filter(|_| self.is_ternary)?;
        measured.components.iter().find(symbols)?.zero_share()
    }

    fn lossy_cells(&self) -> [String; 3] {
        let error = |ppb: Option<u64>| ppb.map_or("-".to_owned(), lossy::error);
        let lossy = self.lossy.as_ref();
        [
            error(lossy.map(|lossy| lossy.error_ppb)),
            error(lossy.and_then(|lossy| lossy.output_error_ppb)),
            lossy.map_or("-".to_owned(), |lossy| Escaped(&lossy.recipe).to_string()),
        ]
    }

    fn cells(&self) -> Vec<String> {
        let dims: Vec<_> = self.shape.iter().map(u64::to_string).collect();
        vec![
            Escaped(&self.name).to_string(),
            Escaped(&self.dtype).to_string(),
            if dims.is_empty() { "scalar".to_owned() } else { dims.join("x") },
            decimal(self.bits_per_weight(), 2),
            format!("{:.3}", self.ratio()),
            Escaped(&self.outline).to_string(),
            self.blocks.to_string(),
        ]
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "name": self.name,
            "dtype": self.dtype,
            "shape": self.shape,
            "elements": self.elements,
            "byte_len": self.byte_len,
            "stored_len": self.stored_len,
            "bits_per_weight": self.bits_per_weight(),
            "ratio": self.ratio(),
            "encoding": self.encoding,
            "blocks": self.blocks,
        });
        if let Some(lossy) = &self.lossy {
            json["lossy"] = lossy::json(lossy);
        }
        if let (Some(entropy), Some(measured)) = (&self.entropy, self.measured()) {
            json["entropy"] = measured.json();
            json["entropy"]["components"] = entropy.components.iter().map(component_json).collect();
            if let Some(zeros) = self.zero_share() {
                json["zero_share"] = zeros.into();
            }
        }
        json
    }
}

fn component_json(component: &ComponentEntropy) -> Value {
    json!({
        "name": component.name,
        "width": component.width.bits(),
        "symbols": component.symbols,
        "entropy_bits": component.bits,
        "stored_len": component.stored_len,
    })
}

/// Whether tensors are listed at all.
pub(super) fn wanted(args: &Inspect) -> bool {
    args.tensors || args.entropy || args.blocks || args.sort.is_some() || args.top.is_some()
}

/// The tensors to list, in the order asked for.
pub(super) fn select(mut rows: Vec<Row>, args: &Inspect) -> Vec<Row> {
    let bpw = |row: &Row| row.bits_per_weight().unwrap_or(0.0);
    match args.sort {
        None => {}
        Some(SortKey::Name) => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        Some(SortKey::Size) => rows.sort_by_key(|row| std::cmp::Reverse(row.stored_len)),
        Some(SortKey::Bpw) => rows.sort_by(|a, b| bpw(b).total_cmp(&bpw(a))),
        Some(SortKey::Ratio) => rows.sort_by(|a, b| b.ratio().total_cmp(&a.ratio())),
    }
    rows.truncate(args.top.unwrap_or(usize::MAX));
    rows
}

pub(super) fn text(rows: &[Row]) -> String {
    let mut cells: Vec<_> = rows.iter().map(Row::cells).collect();
    let mut head = vec!["tensor", "dtype", "shape", "bpw", "ratio", "encoding", "blocks"];
    if rows.iter().any(|row| row.entropy.is_some()) {
        head.extend(["entropy", "above %"]);
        cells.iter_mut().zip(rows).for_each(|(cells, row)| cells.extend(row.entropy_cells()));
    }
    let mut right = vec![3, 4, 6, 7, 8];
    if rows.iter().any(|row| row.zero_share().is_some()) {
        right.push(head.len());
        head.push("zeros %");
        let percent = |row: &Row| decimal(row.zero_share().map(|share| 100.0 * share), 1);
        cells.iter_mut().zip(rows).for_each(|(cells, row)| cells.push(percent(row)));
    }
    if rows.iter().any(|row| row.lossy.is_some()) {
        head.extend(["error", "output error", "recipe"]);
        cells.iter_mut().zip(rows).for_each(|(cells, row)| cells.extend(row.lossy_cells()));
    }
    text::table(&head, &right, &cells)
}

/// Tensors and bytes of each element type.
pub(super) fn dtypes(rows: &[Row]) -> Vec<(String, u64, u64)> {
    let mut sums: std::collections::BTreeMap<&str, (u64, u64)> = std::collections::BTreeMap::new();
    for row in rows {
        let sum = sums.entry(&row.dtype).or_default();
        *sum = (sum.0 + 1, sum.1 + row.byte_len);
    }
    let mut list: Vec<_> = sums.into_iter().map(|(dtype, (n, bytes))| (dtype.to_owned(), n, bytes)).collect();
    list.sort_by_key(|&(_, _, bytes)| std::cmp::Reverse(bytes));
    list
}
