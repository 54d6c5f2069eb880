//! What is shown of a `.cmz` file.

use std::path::Path;

use cmz_codec::encoding::reference::Reference;
use cmz_codec::{Archive, Result, registry};
use cmz_format::{Component, Encoding, Escaped, VERSION, View};
use serde_json::{Value, json};

use super::table::{self, Row};
use super::{Measured, Shown, Totals, decimal};
use crate::args::Inspect;
use crate::lossy;
use crate::text::{self, count, path, size};

pub(super) fn show(archive: &Archive, file: &Path, args: &Inspect, threads: usize) -> Result<Shown> {
    let index = archive.index();
    let mut rows: Vec<Row> = (0..archive.tensors().len()).map(|tensor| row(archive, tensor)).collect();
    // Both are in the order of the tensors.
    let mut unlisted = rows.iter_mut();
    for lossy in &index.manifest().lossy {
        if let Some(row) = unlisted.find(|row| row.name == lossy.tensor) {
            row.lossy = Some(lossy.clone());
        }
    }
    if args.entropy {
        measure(archive, &mut rows, threads)?;
    }
    let data_len: u64 = rows.iter().map(|row| row.byte_len).sum();
    let totals = Totals {
        files: 1,
        tensors: rows.len() as u64,
        elements: rows.iter().map(|row| row.elements).sum(),
        file_len: index.file_len(),
        source_len: archive.source().map_or(data_len, |source| source.len),
        measured: Measured::sum(rows.iter().filter_map(Row::measured)),
    };
    let dtypes = table::dtypes(&rows);
    let mut text = format!("{}\n{}", path(file), totals.text());
    for (dtype, tensors, bytes) in &dtypes {
        let dtype = Escaped(dtype).to_string();
        text.push_str(&format!("  {dtype:<15}  {}, {}\n", count(*tensors, "tensor"), size(*bytes)));
    }
    let lossy = &index.manifest().lossy;
    if let Some(rounded) = lossy::summary(lossy) {
        let bpw = decimal(rounded_bits(&rows), 3);
        text.push_str(&format!("  lossy            {rounded}, at {bpw} bits per weight\n"));
    }
    text.push_str(&identity(archive));
    let mut json = json!({
        "file": file.to_string_lossy(),
        "kind": "cmz",
        "format": format!("{}.{}", VERSION.0, VERSION.1),
        "generator": index.manifest().generator,
        "root": hex(index.root()),
        "source": archive.source().ok().map(|s| json!({"kind": s.kind, "len": s.len, "sha256": s.sha256})),
        "bases": archive.bases().iter().map(|base| json!({"root": base.root, "source_sha256": base.sha256})).collect::<Vec<_>>(),
        "lossy": lossy.iter().map(lossy::json).collect::<Vec<_>>(),
        "lossy_bits_per_weight": rounded_bits(&rows),
        "metadata": index.manifest().metadata,
        "dtypes": dtypes.iter().map(|(dtype, n, bytes)| json!({"dtype": dtype, "tensors": n, "bytes": bytes})).collect::<Vec<_>>(),
        "totals": totals.json(),
    });
    if !archive.views().is_empty() {
        json["views"] = archive.views().iter().map(|view| view_json(archive, view)).collect();
    }
    if table::wanted(args) {
        let listed = table::select(rows, args);
        text.push('\n');
        text.push_str(&table::text(&listed));
        json["tensors"] = listed.iter().map(Row::json).collect();
        if !archive.views().is_empty() {
            text.push('\n');
            text.push_str(&views(archive));
        }
        if args.blocks {
            let (blocks_text, blocks_json) = blocks(archive, &listed)?;
            text.push('\n');
            text.push_str(&blocks_text);
            json["blocks"] = blocks_json;
        }
    }
    text.push('\n');
    Ok(Shown { text, json, totals })
}

/// What the rounded tensors take, in bits per weight.
fn rounded_bits(rows: &[Row]) -> Option<f64> {
    let rounded = || rows.iter().filter(|row| row.lossy.is_some());
    let elements: u64 = rounded().map(|row| row.elements).sum();
    let stored: u64 = rounded().map(|row| row.stored_len).sum();
    (elements > 0).then(|| stored as f64 * 8.0 / elements as f64)
}

fn identity(archive: &Archive) -> String {
    let manifest = archive.index().manifest();
    let source = archive.source().map_or("-", |source| &source.sha256);
    let mut text = format!(
        "  source sha256    {source}\n  root digest      {}\n  written by       {}\n  format           {}.{}\n",
        hex(archive.index().root()),
        Escaped(&manifest.generator),
        VERSION.0,
        VERSION.1,
    );
    for base in archive.bases() {
        let source = base.sha256.as_deref().unwrap_or("-");
        text.push_str(&format!("  needs base       {}, made from sha256 {source}\n", base.root));
    }
    if !archive.views().is_empty() {
        text.push_str(&format!("  views            {}\n", count(archive.views().len() as u64, "view")));
    }
    for (key, value) in &manifest.metadata {
        text.push_str(&format!("  metadata         {} = {}\n", Escaped(key), Escaped(value)));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row(archive: &Archive, number: usize) -> Row {
    let (index, tensor) = (archive.index(), &archive.tensors()[number]);
    let records = &index.table()[index.tensor_blocks(number).data.clone()];
    Row {
        number,
        name: tensor.name.clone(),
        dtype: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
        elements: tensor.elements().unwrap_or(0),
        stored_len: records.iter().map(|record| u64::from(record.stored_len)).sum(),
        byte_len: index.tensor_len(number),
        encoding: encoding(&tensor.encoding),
        outline: outline(&tensor.encoding),
        is_ternary: tensor.encoding.name == "ternary",
        blocks: records.len(),
        entropy: None,
        lossy: None,
    }
}

/// Measures the tensors that this version can decode.
fn measure(archive: &Archive, rows: &mut [Row], threads: usize) -> Result<()> {
    let able: Vec<usize> = (0..rows.len()).filter(|&tensor| archive.check_supported(tensor).is_ok()).collect();
    for (&tensor, entropy) in able.iter().zip(archive.entropy(&able, threads)?) {
        rows[tensor].entropy = Some(entropy);
    }
    Ok(())
}

/// An encoding with its parameters or the tensor that it refers to, and the codecs that its streams may have.
fn encoding(encoding: &Encoding) -> String {
    let reference = Reference::parse(encoding).ok().flatten().map(|(reference, _)| match reference.base {
        Some(_) => "base".to_owned(),
        None => reference.tensor,
    });
    let component = |(name, component): (&String, &Component)| match component {
        Component::Stream(codecs) => format!("{name}={}", codecs.join("|")),
        Component::Encoded(inner) => format!("{name}={}", self::encoding(inner)),
    };
    let params = match reference {
        None if !encoding.params.is_empty() => {
            let params = encoding.params.iter().map(|(key, value)| match value {
                Value::String(text) => format!("{key}={}", Escaped(text)),
                other => format!("{key}={other}"),
            });
            format!("[{}]", params.collect::<Vec<_>>().join(" "))
        }
        _ => String::new(),
    };
    let components: Vec<_> = reference.into_iter().chain(encoding.components.iter().map(component)).collect();
    format!("{}{params}({})", encoding.name, components.join(" "))
}

/// The same in short where encodings are inside each other: their names.
fn outline(whole: &Encoding) -> String {
    let is_reference = Reference::parse(whole).ok().flatten().is_some();
    let is_nested = whole.components.values().any(|component| matches!(component, Component::Encoded(_)));
    if is_nested && !is_reference { names(whole) } else { encoding(whole) }
}

fn names(encoding: &Encoding) -> String {
    let inner: Vec<_> = encoding
        .components
        .values()
        .filter_map(|component| match component {
            Component::Encoded(inner) => Some(names(inner)),
            Component::Stream(_) => None,
        })
        .collect();
    if inner.is_empty() { encoding.name.clone() } else { format!("{}({})", encoding.name, inner.join(" ")) }
}

/// What the tensors stand for.
fn views(archive: &Archive) -> String {
    let row = |view: &View| {
        let params = view.params.iter().map(|(key, value)| match value {
            Value::String(text) => format!("{key}={}", Escaped(text)),
            other => format!("{key}={other}"),
        });
        let shape: Vec<_> = view.shape.iter().map(u64::to_string).collect();
        vec![
            Escaped(&view.name).to_string(),
            Escaped(&view.dtype).to_string(),
            shape.join("x"),
            format!("{}[{}]", Escaped(&view.layout), params.collect::<Vec<_>>().join(" ")),
            if archive.check_view(&view.name).is_ok() { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = archive.views().iter().map(row).collect();
    text::table(&["view", "dtype", "shape", "layout", "readable"], &[], &rows)
}

fn view_json(archive: &Archive, view: &View) -> Value {
    json!({
        "name": view.name,
        "dtype": view.dtype,
        "shape": view.shape,
        "layout": view.layout,
        "params": view.params,
        "parts": view.parts,
        "readable": archive.check_view(&view.name).is_ok(),
    })
}

/// The data blocks of tensors, with the codecs that they really use.
fn blocks(archive: &Archive, rows: &[Row]) -> Result<(String, Value)> {
    let index = archive.index();
    let (mut cells, mut json) = (Vec::new(), Vec::new());
    for row in rows {
        let records = &index.table()[index.tensor_blocks(row.number).data.clone()];
        for (ordinal, record) in records.iter().enumerate() {
            let header = archive.block_header(row.number, ordinal)?;
            let name = |id| registry::stream_by_id(id).map_or(format!("unknown {id}"), |codec| codec.name().to_owned());
            let streams: Vec<_> = header.streams.iter().map(|s| format!("{}:{}", name(s.codec), s.len)).collect();
            cells.push(vec![
                Escaped(&row.name).to_string(),
                format!("{}/{}", ordinal + 1, records.len()),
                record.offset.to_string(),
                record.stored_len.to_string(),
                record.decoded_len.to_string(),
                format!("{:08x}", record.crc_stored),
                streams.join(" "),
            ]);
            json.push(json!({
                "tensor": row.name,
                "block": ordinal,
                "offset": record.offset,
                "stored_len": record.stored_len,
                "decoded_len": record.decoded_len,
                "crc_stored": format!("{:08x}", record.crc_stored),
                "crc_decoded": format!("{:08x}", record.crc_decoded),
                "streams": header.streams.iter().map(|s| json!({"codec": name(s.codec), "len": s.len})).collect::<Vec<_>>(),
            }));
        }
    }
    let head = ["tensor", "block", "offset", "stored", "decoded", "crc", "streams"];
    Ok((text::table(&head, &[1, 2, 3, 4], &cells), json.into()))
}
