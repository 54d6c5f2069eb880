//! Checkpoints of QMoE, as safetensors and as it publishes them.

use std::fs;
use std::path::Path;

use half::bf16;
use serde_json::json;

use crate::Archive;
use crate::checkpoint::{Plan, compress, decompress, plan_compress, plan_decompress, plan_quantized};
use crate::convert::{CompressOptions, DecompressOptions};
use crate::import::qmoe::Matrix;
use crate::import::torch::testing::{self, Tensor};
use crate::stream::laws;

const D_MODEL: usize = 40;
const D_FF: usize = 96;

/// Weights of an expert's matrix, `[rows, width]`.
fn weights(rows: usize, width: usize, seed: u64) -> Vec<u8> {
    let symbols = laws::ternary(886, rows * width, seed);
    let value = |(at, symbol): (usize, u8)| match symbol {
        0 => 0.0,
        1 => -0.5 - (at / width) as f32,
        _ => 0.25 + (at / width) as f32,
    };
    symbols.into_iter().enumerate().flat_map(|at| bf16::from_f32(value(at)).to_le_bytes()).collect()
}

fn module(layer: usize, expert: usize, linear: &str) -> String {
    format!("encoder.block.{layer}.layer.1.mlp.experts.expert_{expert}.{linear}")
}

/// The matrices of a layer of three experts: name, rows, width, weights.
fn matrices(layer: usize) -> Vec<(String, usize, usize, Vec<u8>)> {
    let of = |expert: usize| {
        let seed = (10 * layer + expert) as u64;
        [
            (module(layer, expert, "wi"), D_FF, D_MODEL, weights(D_FF, D_MODEL, seed)),
            (module(layer, expert, "wo"), D_MODEL, D_FF, weights(D_MODEL, D_FF, seed + 5)),
        ]
    };
    (0..3).flat_map(of).collect()
}

fn tensors(layer: usize) -> Vec<Tensor<'static>> {
    let of = |(name, rows, width, weights): (String, usize, usize, Vec<u8>)| {
        let [w_comp, row_off, ter_minmax] = Matrix::pack(&weights, width).expect("ternary weights").to_bytes();
        [
            (format!("{name}.w_comp"), "I16", vec![w_comp.len() as u64 / 2], w_comp),
            (format!("{name}.row_off"), "I32", vec![rows as u64 + 1], row_off),
            (format!("{name}.ter_minmax"), "BF16", vec![2 * rows as u64], ter_minmax),
            (format!("{name}.weight"), "BF16", vec![0], Vec::new()),
        ]
    };
    matrices(layer).into_iter().flat_map(of).collect()
}

fn write_config(folder: &Path, d_model: usize) {
    let config =
        json!({"model_type": "switch_transformers", "d_model": d_model, "d_ff": D_FF, "torch_dtype": "bfloat16"});
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
}

fn safetensors(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn compress_options() -> CompressOptions {
    CompressOptions {
        encode: Default::default(),
        threads: 2,
        io: Default::default(),
        replace: true,
        verify: true,
        bases: Vec::new(),
        quantizer: None,
    }
}

/// Converts, restores, and compares with the files of `folder`.
fn there_and_back(plan: &Plan, folder: &Path, out: &Path) {
    compress(plan, &compress_options(), &()).expect("a conversion");
    let back = folder.join("back");
    let plan = plan_decompress(out, Some(&back), true).expect("a plan");
    let options = DecompressOptions { threads: 1, replace: true };
    decompress(&plan, crate::OpenOptions::default(), &options, &()).expect("a restoration");
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    for path in files.filter(|path| path.is_file()) {
        let name = path.file_name().expect("a name");
        assert!(fs::read(&path).expect("a file") == fs::read(back.join(name)).expect("a file"), "{name:?}");
    }
}

fn check(archive: &Archive, layer: usize) {
    let matrices = matrices(layer);
    assert_eq!(archive.views().len(), matrices.len());
    for (name, rows, width, weights) in matrices {
        let view = format!("{name}.weight.dequantized");
        archive.check_view(&view).expect("a readable view");
        assert!(archive.read_view(&view).expect("a view") == weights, "{name}");
        let some = archive.read_view_rows(&view, 3..rows as u64).expect("rows");
        assert!(some == weights[3 * 2 * width..], "{name}");
    }
}

#[test]
fn safetensors_of_qmoe_have_views_by_any_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path(), folder.path().join("out"));
    fs::write(path.join("model.safetensors"), safetensors(&tensors(1))).expect("a file");
    write_config(path, D_MODEL);
    for method in [Some("qmoe"), None] {
        let plan = plan_quantized(method, path, Some(&out)).expect("a plan");
        assert_eq!((plan.views.concat().len(), &plan.notes), (6, &Vec::new()));
    }
    let plan = plan_compress(path, Some(&out), true).expect("a plan");
    there_and_back(&plan, path, &out);
    check(&Archive::open(&out.join("model.cmz")).expect("a file"), 1);
}

#[test]
fn the_published_files_come_back_and_have_views() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path(), folder.path().join("out"));
    for layer in 0..2 {
        fs::write(path.join(format!("exp{layer:02}.pt")), testing::file(&tensors(layer), &[])).expect("a file");
    }
    let dense = ("shared.weight".to_owned(), "BF16", vec![2, 2], vec![1; 8]);
    fs::write(path.join("noexp.pt"), testing::file(&[dense], &[])).expect("a file");
    // Numbers alone: a pickle without tensors is copied.
    fs::write(path.join("sizes.pt"), testing::file(&[], &[("a.w_comp", 7)])).expect("a file");
    write_config(path, D_MODEL);
    let plan = plan_quantized(Some("qmoe"), path, Some(&out)).expect("a plan");
    assert_eq!((plan.jobs.len(), plan.copies.len(), plan.views.concat().len()), (3, 2, 12));
    there_and_back(&plan, path, &out);
    for layer in 0..2 {
        check(&Archive::open(&out.join(format!("exp{layer:02}.pt.cmz"))).expect("a file"), layer);
    }
    let alone = plan_decompress(&out.join("exp01.pt.cmz"), None, false).expect("a plan");
    assert_eq!(alone.jobs[0].target, out.join("exp01.pt"));
    let one = plan_quantized(None, &path.join("exp01.pt"), Some(&path.join("one.cmz"))).expect("a plan");
    assert_eq!((one.jobs.len(), one.views.concat().len()), (1, 6));
    compress(&one, &compress_options(), &()).expect("a conversion");
    let back = plan_decompress(&path.join("one.cmz"), None, false).expect("a plan");
    assert_eq!(back.jobs[0].target, path.join("one.pt"), "named for what it is");
}

/// Arrays that do not agree with the configuration or with each other have no view, and an import of nothing else fails.
#[test]
fn arrays_that_lie_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |d_model: usize, change: &dyn Fn(&mut Vec<Tensor<'static>>), why: &str| {
        let mut tensors = tensors(0)[..4].to_vec();
        change(&mut tensors);
        fs::write(folder.path().join("model.safetensors"), safetensors(&tensors)).expect("a file");
        write_config(folder.path(), d_model);
        let error = plan_quantized(Some("qmoe"), folder.path(), Some(&folder.path().join("out"))).expect_err(why);
        assert!(error.to_string().contains(why), "{error}, not {why:?}");
    };
    refused(D_MODEL, &|t| t[1].3[4..8].copy_from_slice(&(-1i32).to_le_bytes()), "negative offset");
    refused(D_MODEL, &|t| t[1].3[4..8].copy_from_slice(&9999i32.to_le_bytes()), "does not ascend");
    refused(D_MODEL, &|t| t[0].3[..2].copy_from_slice(&[0; 2]), "row 0 are not those of 40 weights");
    refused(D_MODEL + 2, &|_| (), "are not those of 42 weights");
    refused(D_FF, &|_| (), "are not those of 96 weights");
    refused(D_MODEL, &|t| t[0].1 = "BF16", "of type \"BF16\"");
    (0..3).for_each(|part| refused(D_MODEL, &|t| drop(t.remove(part)), "not in this file"));
    refused(D_MODEL, &|t| t[1].2 = vec![97, 1], "has the shape");
    fs::remove_file(folder.path().join("config.json")).expect("a file");
    let error = plan_quantized(None, folder.path(), Some(&folder.path().join("out"))).expect_err("no configuration");
    assert!(error.to_string().contains("no configuration"), "{error}");
    let error = plan_quantized(Some("qmoe"), folder.path(), None).expect_err("no configuration");
    assert!(error.to_string().contains("d_model and d_ff"), "{error}");
    fs::remove_file(folder.path().join("model.safetensors")).expect("a file");
    let error = plan_quantized(Some("qmoe"), folder.path(), None).expect_err("no weights");
    assert!(error.to_string().contains(".pt file with tensors"), "{error}");
}
