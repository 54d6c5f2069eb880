//! Quantized checkpoints.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::common::{cmz, contents, folder};

/// A GPTQ checkpoint of one module: eight rows of the codes 0 to 7, four times, less a zero point of 4, by halves.
fn gptq(dir: &Path, quantization: &serde_json::Value) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let scales: Vec<u8> = 0x3800_u16.to_le_bytes().repeat(4 * 8);
    let parts = [
        ("qweight", "I32", json!([4, 8]), words(&[0x7654_3210; 4 * 8])),
        ("qzeros", "I32", json!([4, 1]), words(&[0x3333_3333; 4])),
        ("scales", "F16", json!([4, 8]), scales),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in parts {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(format!("up.{name}"), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    fs::create_dir_all(dir.join("model")).unwrap();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(dir.join("model/model.safetensors"), file).unwrap();
    fs::write(dir.join("model/config.json"), json!({"quantization_config": quantization}).to_string()).unwrap();
}

fn row() -> Vec<u8> {
    [0xc000, 0xbe00, 0xbc00, 0xb800, 0x0000, 0x3800, 0x3c00, 0x3e00_u16]
        .iter()
        .flat_map(|half| half.to_le_bytes())
        .collect::<Vec<_>>()
        .repeat(4)
}

#[test]
fn weights_of_a_quantized_checkpoint_are_views() {
    let dir = folder();
    gptq(dir.path(), &json!({"quant_method": "gptq", "bits": 4, "group_size": 8}));
    let json = cmz(dir.path(), &["import", "auto", "model", "-o", "out", "--json"]).expect(0).json();
    assert_eq!((&json["schema"], &json["files"][0]["views"]), (&"cmz.import/1".into(), &1.into()));
    let json = cmz(dir.path(), &["inspect", "out", "--json"]).expect(0).json();
    let view = &json["files"][0]["views"][0];
    assert_eq!(
        (&view["name"], &view["layout"], &view["readable"]),
        (&"up.weight".into(), &"gptq".into(), &true.into())
    );
    let text = cmz(dir.path(), &["inspect", "out", "--tensors"]).expect(0).out;
    assert!(text.contains("1 view") && text.contains("gptq[bits=4 group_size=8 zero_points=minus_one]"), "{text}");

    let extract = ["extract", "out", "up.weight", "--format", "raw", "-o", "dense.bin", "-f"];
    cmz(dir.path(), &extract).expect(0);
    assert_eq!(fs::read(dir.path().join("dense.bin")).unwrap(), row().repeat(8));
    cmz(dir.path(), &[&extract[..], &["--rows", "2:5"]].concat()).expect(0);
    assert_eq!(fs::read(dir.path().join("dense.bin")).unwrap(), row().repeat(3));
    cmz(dir.path(), &["extract", "out", "up.weight[2:9]"]).expect(2).says(&["rows 2:9 of 8"]);
    cmz(dir.path(), &["extract", "out", "up.weight"]).expect(0);
    let npy = fs::read(dir.path().join("up.weight.npy")).unwrap();
    assert!(npy.ends_with(&row().repeat(8)) && String::from_utf8_lossy(&npy).contains("'shape': (8, 32)"));
    cmz(dir.path(), &["extract", "out", "down.weight"]).expect(2).says(&["there is no such tensor"]);

    cmz(dir.path(), &["verify", "out"]).expect(0);
    cmz(dir.path(), &["decompress", "out", "-o", "back"]).expect(0);
    assert!(contents(&dir.path().join("back")) == contents(&dir.path().join("model")));
    // What is whole of the tensors is whole of the views.
    cmz(dir.path(), &["recover", "out/model.cmz", "-o", "saved.cmz"]).expect(0);
    cmz(dir.path(), &["extract", "saved.cmz", "up.weight", "-f", "-o", "saved.npy"]).expect(0);
    assert_eq!(fs::read(dir.path().join("saved.npy")).unwrap(), npy);
}

#[test]
fn plain_compression_adds_views_and_notes() {
    let dir = folder();
    gptq(dir.path(), &json!({"quant_method": "gptq", "bits": 4, "group_size": 8}));
    let run = cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(0);
    assert!(run.err.is_empty(), "{run:?}");
    cmz(dir.path(), &["compress", "model/model.safetensors", "-o", "one.cmz"]).expect(0);
    cmz(dir.path(), &["extract", "one.cmz", "up.weight"]).expect(0);
    // A checkpoint whose views have changed is no longer up to date.
    gptq(dir.path(), &json!({"quant_method": "gptq", "bits": 4, "group_size": 8, "checkpoint_format": "gptq_v2"}));
    fs::remove_file(dir.path().join("out/config.json")).unwrap();
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(5).says(&["error[CMZ5001]"]);

    gptq(dir.path(), &json!({"quant_method": "gptq", "bits": 3, "group_size": 8}));
    let run = cmz(dir.path(), &["compress", "model", "-o", "other"]).expect(0);
    run.says(&["no view of up.weight"]);
    cmz(dir.path(), &["import", "auto", "model", "-o", "x"]).expect(3).says(&["error[CMZ3008]", "cmz compress"]);
    cmz(dir.path(), &["import", "awq", "model", "-o", "x"]).expect(3).says(&["is of gptq, not awq"]);
    assert!(!dir.path().join("x").exists());
}

/// Weights of QMoE's arrays, rounded to what they are already, are these arrays again.
#[test]
fn ternary_weights_are_exported_as_qmoe_has_them() {
    use cmz_codec::import::qmoe::Matrix;
    let dir = folder();
    let (rows, width) = (40, 64);
    let of = |row: usize, column: usize| match (row * 31 + column * 17 + row * column) % 11 {
        0 => -0.5 - row as f32,
        3 => 0.25 + row as f32,
        _ => 0.0,
    };
    let bf16 = |x: f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
    let matrix =
        |seed: usize| (0..rows * width).flat_map(|i| bf16(of(i / width + seed, i % width))).collect::<Vec<u8>>();
    let experts = [matrix(0), matrix(3)];
    let header =
        json!({"wi.weight": {"dtype": "BF16", "shape": [2, rows, width], "data_offsets": [0, 4 * rows * width]}});
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &experts.concat()].concat();
    fs::write(dir.path().join("dense.safetensors"), file).unwrap();
    cmz(dir.path(), &["compress", "dense.safetensors", "--recipe", "ternary", "-o", "dense.cmz"]).expect(0);
    let export = ["export", "qmoe", "dense.cmz", "-o", "arrays.safetensors", "--json"];
    let json = cmz(dir.path(), &export).expect(0).json();
    assert_eq!((&json["schema"], &json["matrices"]), (&"cmz.export/1".into(), &2.into()));
    let file = fs::read(dir.path().join("arrays.safetensors")).unwrap();
    let packed = experts.iter().flat_map(|expert| Matrix::pack(expert, width).unwrap().to_bytes()).collect::<Vec<_>>();
    assert!(file.ends_with(&packed.concat()), "other arrays");
    // And these have views, which are what was rounded, and are exported as they are.
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::rename(dir.path().join("arrays.safetensors"), model.join("model.safetensors")).unwrap();
    fs::write(model.join("config.json"), json!({"d_model": width, "d_ff": rows}).to_string()).unwrap();
    let json = cmz(dir.path(), &["import", "auto", "model", "-o", "out", "--json"]).expect(0).json();
    assert_eq!(json["files"][0]["views"], 2);
    let extract = ["extract", "out", "wi.1.weight.dequantized", "--format", "raw", "-o", "dense.bin"];
    cmz(dir.path(), &extract).expect(0);
    assert!(fs::read(dir.path().join("dense.bin")).unwrap() == experts[1]);
    cmz(dir.path(), &["export", "qmoe", "out/model.cmz", "-o", "again.safetensors"]).expect(0);
    assert!(fs::read(dir.path().join("again.safetensors")).unwrap() == file);
    cmz(dir.path(), &["export", "qmoe", "out/model.cmz", "-o", "again.safetensors"]).expect(5).says(&["exists"]);
    cmz(dir.path(), &["export", "qmoe", "dense.cmz", "-o", "-"]).expect(2).says(&["standard output"]);
    // Stack `s` has a matrix 0, too.
    let header = json!({
        "s.weight": {"dtype": "BF16", "shape": [1, rows, width], "data_offsets": [0, 2 * rows * width]},
        "s.0.weight": {"dtype": "BF16", "shape": [rows, width], "data_offsets": [2 * rows * width, 4 * rows * width]},
    });
    let header = header.to_string();
    let twice = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &experts.concat()].concat();
    fs::write(dir.path().join("twice.safetensors"), twice).unwrap();
    cmz(dir.path(), &["compress", "twice.safetensors", "--recipe", "ternary"]).expect(0);
    cmz(dir.path(), &["export", "qmoe", "twice.cmz", "-o", "t.safetensors"]).expect(2).says(&["s.0.w_comp"]);
    assert!(!dir.path().join("t.safetensors").exists());
    let text = cmz(dir.path(), &["inspect", "dense.cmz", "--entropy"]).expect(0).out;
    assert!(text.contains("zeros %"), "{text}");
    let json = cmz(dir.path(), &["inspect", "dense.cmz", "--entropy", "--json"]).expect(0).json();
    let zeros = experts.concat().chunks(2).filter(|weight| *weight == [0, 0]).count();
    let share = json["files"][0]["tensors"][0]["zero_share"].as_f64().unwrap();
    assert!((share - zeros as f64 / (2 * rows * width) as f64).abs() < 1e-9, "{share}");
}
