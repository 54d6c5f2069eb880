//! Files of other programs, and what weights quantized tensors stand for.

use std::collections::BTreeMap;

use cmz_codec::import::quantized::{Quantization, of_torch};
use cmz_codec::import::{qmoe, torch};
use cmz_codec::registry::layout_by_name;
use cmz_codec::safetensors::Header;
use cmz_codec::view::{OpenView, PartSpec, Parts, Spec};
use cmz_format::{Dtype, View};

/// Bytes of a view's parts and elements of a view, at most.
const MOST: u64 = 1 << 20;

/// Splits what stands behind a length of two bytes from the rest.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([low, high], rest) = data.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes([*low, *high]).into())
}

/// Two texts with the length of the first before them: inputs of [`views`] and [`quantized`].
#[must_use]
pub fn join(first: &[u8], rest: &[u8]) -> Vec<u8> {
    [&(first.len() as u16).to_le_bytes(), first, rest].concat()
}

/// Reads the input as a file of `torch.save`: tensors lie inside it, apart from each other, and views are sound.
pub fn torch_file(data: &[u8]) {
    let file = data.to_vec();
    let Ok(torch::Contents { header, attributes }) = torch::read(&file) else { return };
    let mut end = 0;
    for tensor in &header.tensors {
        assert!(tensor.range.start >= end || tensor.range.is_empty(), "tensors do not overlap");
        assert_eq!(tensor.byte_len(), Dtype::from_name(&tensor.dtype).map_or(0, |dtype| len_of(dtype, &tensor.shape)));
        end = end.max(tensor.range.end);
    }
    assert!(end <= data.len() as u64, "tensors lie inside the file");
    check_views(&of_torch(&header, attributes, &file).views, &header, data);
}

pub(super) fn len_of(dtype: Dtype, shape: &[u64]) -> u64 {
    dtype.byte_len(product(shape)).expect("a shape that was checked")
}

fn product(shape: &[u64]) -> u64 {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |n, &size| n.saturating_mul(size)) }
}

/// A configuration, and a safetensors file: every view that is found can be read.
pub fn quantized(data: &[u8]) {
    let Some((config, file)) = split(data) else { return };
    let Ok(Some(quantization)) = Quantization::of_files(|name| Ok((name == "config.json").then(|| config.to_vec())))
    else {
        return;
    };
    let Ok(header) = Header::read(&file.to_vec()) else { return };
    check_views(&quantization.views(&header, &file.to_vec()).views, &header, file);
}

fn check_views(views: &[View], header: &Header, file: &[u8]) {
    for view in views {
        let entry = |name: &str| header.tensors.iter().find(|entry| entry.name == name);
        let part = |name: &str| entry(name).map(|entry| PartSpec { dtype: &entry.dtype, shape: &entry.shape });
        let bytes = |name: &str, _| {
            let range = entry(name).expect("a part").range.clone();
            file[range.start as usize..range.end as usize].to_vec()
        };
        assert!(open_view(view, part, bytes).is_some(), "{view:?}: a view that an import names is one");
    }
}

/// Layout, element type, shape and parameters of a view, and types and shapes of its parts by their roles.
type Described =
    (String, String, Vec<u64>, serde_json::Map<String, serde_json::Value>, BTreeMap<String, (String, Vec<u64>)>);

/// Takes the first part of the input as a view and the rest for the bytes of its parts, one behind the other: the decoders
/// agree, or the view is refused.
pub fn views(data: &[u8]) {
    let Some((described, mut rest)) = split(data) else { return };
    let Ok((layout, dtype, shape, params, parts)) = serde_json::from_slice::<Described>(described) else { return };
    let roles = parts.keys().map(|role| (role.clone(), role.clone())).collect();
    let view = View { name: "view".to_owned(), dtype, shape, layout, params, parts: roles };
    let part = |name: &str| parts.get(name).map(|(dtype, shape)| PartSpec { dtype, shape });
    let bytes = |_: &str, len: usize| {
        let (taken, others) = rest.split_at(len.min(rest.len()));
        rest = others;
        let mut bytes = taken.to_vec();
        bytes.resize(len, 0);
        bytes
    };
    open_view(&view, part, bytes);
}

/// Opens a view whose parts are small, and reads it in every way; `None` if its parts are not those of its layout.
fn open_view<'a>(
    view: &'a View,
    part: impl Fn(&str) -> Option<PartSpec<'a>>,
    mut bytes: impl FnMut(&str, usize) -> Vec<u8>,
) -> Option<()> {
    let (layout, spec) = (layout_by_name(&view.layout)?, Spec::new(view, &part)?);
    layout.check(&spec).ok()?;
    let (mut parts, mut total) = (Parts::default(), 0);
    for (role, name) in &view.parts {
        let PartSpec { dtype, shape } = part(name)?;
        let len = Dtype::from_name(dtype)?.byte_len(product(shape))?;
        total += len.min(MOST);
        if total >= MOST {
            return Some(());
        }
        parts.insert(role, bytes(name, len as usize));
    }
    let elements = product(&view.shape);
    let Ok(open) = OpenView::new(layout, view, &spec, parts) else { return Some(()) };
    if elements > MOST / 16 {
        return Some(());
    }
    let rows = view.shape.first().copied().unwrap_or(0);
    let whole = open.read_rows(0..rows).expect("all rows");
    assert!(whole == open.read_naive(), "{view:?}: the decoders differ");
    assert_eq!(whole.len(), open.byte_len());
    let half = open.read_rows(0..rows / 2).expect("some rows");
    assert!(whole.starts_with(&half), "{view:?}: rows are part of the whole");
    Some(())
}

/// Takes the input as the three arrays of a QMoE matrix, which are refused or unpacked; what is packed again is the same weights.
pub fn qmoe_arrays(data: &[u8]) {
    let Some(([width_low, width_high, rows], rest)) = data.split_first_chunk() else { return };
    let (width, rows) = (usize::from(u16::from_le_bytes([*width_low, *width_high])), usize::from(*rows));
    let Some((offsets, rest)) = rest.split_at_checked((rows + 1) * 4) else { return };
    let Some((extremes, codewords)) = rest.split_at_checked(rows * 4) else { return };
    let Ok(matrix) = qmoe::Matrix::read(codewords, offsets, extremes) else { return };
    assert_eq!(matrix.to_bytes(), [codewords, offsets, extremes], "the arrays come back");
    let unpacked = matrix.unpack(width);
    assert_eq!(unpacked.is_ok(), matrix.components(width).is_ok());
    let Ok(weights) = unpacked else { return };
    assert_eq!(weights.len(), rows * width * 2);
    if let Ok(again) = qmoe::Matrix::pack(&weights, width) {
        assert!(again.unpack(width).expect("what was packed") == weights, "the weights come back");
    }
}
