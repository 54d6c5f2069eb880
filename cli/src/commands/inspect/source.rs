//! What is shown of a safetensors file.

use std::path::Path;

use cmz_codec::Result;
use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::Escaped;
use serde_json::json;

use super::table::{self, Row};
use super::{Shown, Totals};
use crate::args::Inspect;
use crate::text::{count, path, size};

pub(super) fn show(path_of_file: &Path, args: &Inspect) -> Result<Shown> {
    let file = PlainFile::open(path_of_file)?;
    let header = Header::read(&file).map_err(|e| e.in_file(path_of_file))?;
    let rows: Vec<Row> = header.tensors.iter().enumerate().map(row).collect();
    let totals = Totals {
        files: 1,
        tensors: rows.len() as u64,
        elements: rows.iter().map(|row| row.elements).sum(),
        file_len: file.byte_len(),
        source_len: file.byte_len(),
        measured: None,
    };
    let dtypes = table::dtypes(&rows);
    let mut text = format!("{} (safetensors)\n{}", path(path_of_file), totals.text());
    for (dtype, tensors, bytes) in &dtypes {
        let dtype = Escaped(dtype).to_string();
        text.push_str(&format!("  {dtype:<15}  {}, {}\n", count(*tensors, "tensor"), size(*bytes)));
    }
    text.push_str(&format!("  header           {} bytes\n", header.len));
    for (key, value) in &header.metadata {
        text.push_str(&format!("  metadata         {} = {}\n", Escaped(key), Escaped(value)));
    }
    let mut json = json!({
        "file": path_of_file.to_string_lossy(),
        "kind": "safetensors",
        "header_len": header.len,
        "metadata": header.metadata,
        "dtypes": dtypes.iter().map(|(dtype, n, bytes)| json!({"dtype": dtype, "tensors": n, "bytes": bytes})).collect::<Vec<_>>(),
        "totals": totals.json(),
    });
    if table::wanted(args) {
        let listed = table::select(rows, args);
        text.push('\n');
        text.push_str(&table::text(&listed));
        json["tensors"] = listed.iter().map(Row::json).collect();
    }
    text.push('\n');
    Ok(Shown { text, json, totals })
}

fn row((number, entry): (usize, &Entry)) -> Row {
    let byte_len = entry.range.end - entry.range.start;
    // The header's checks have seen that the product fits.
    let product = entry.shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    Row {
        number,
        name: entry.name.clone(),
        dtype: entry.dtype.clone(),
        shape: entry.shape.clone(),
        elements: if entry.shape.contains(&0) { 0 } else { product.unwrap_or(0) },
        stored_len: byte_len,
        byte_len,
        encoding: "-".to_owned(),
        outline: "-".to_owned(),
        is_ternary: false,
        blocks: 0,
        entropy: None,
        lossy: None,
    }
}
