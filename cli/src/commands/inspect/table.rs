//! The list of tensors.

use cmz_format::Escaped;
use serde_json::{Value, json};

use crate::args::{Inspect, SortKey};
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
    pub(super) blocks: usize,
}

impl Row {
    fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.stored_len as f64 * 8.0 / self.elements as f64)
    }

    fn ratio(&self) -> f64 {
        ratio(self.stored_len, self.byte_len)
    }

    fn cells(&self) -> Vec<String> {
        let dims: Vec<_> = self.shape.iter().map(u64::to_string).collect();
        vec![
            Escaped(&self.name).to_string(),
            Escaped(&self.dtype).to_string(),
            if dims.is_empty() { "scalar".to_owned() } else { dims.join("x") },
            self.bits_per_weight().map_or("-".to_owned(), |bpw| format!("{bpw:.2}")),
            format!("{:.3}", self.ratio()),
            Escaped(&self.encoding).to_string(),
            self.blocks.to_string(),
        ]
    }

    pub(super) fn json(&self) -> Value {
        json!({
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
        })
    }
}

/// Whether tensors are listed at all.
pub(super) fn wanted(args: &Inspect) -> bool {
    args.tensors || args.blocks || args.sort.is_some() || args.top.is_some()
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
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    text::table(&["tensor", "dtype", "shape", "bpw", "ratio", "encoding", "blocks"], &[3, 4, 6], &cells)
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
