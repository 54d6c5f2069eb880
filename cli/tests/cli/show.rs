//! `inspect`, `verify` and `recover`.

use std::fs;

use crate::common::{ALL, BF16, Random, cmz, data, folder, safetensors, with_cmz, with_model};

#[test]
fn inspect_shows_totals_and_tensors() {
    let dir = with_cmz(BF16);
    let totals = cmz(dir.path(), &["inspect", "model.cmz"]).expect(0).out;
    for text in [
        "size ",
        "ratio ",
        "bits per weight ",
        "tensors          16",
        "source sha256    97d57e49",
        "root digest ",
        "written by       cmz ",
        "format           0.1",
        "BF16",
        "metadata         format = pt",
    ] {
        assert!(totals.contains(text), "{text} in\n{totals}");
    }
    let list = cmz(dir.path(), &["inspect", "--tensors", "model.cmz"]).expect(0).out;
    let head = list.lines().find(|line| line.starts_with("tensor ")).unwrap();
    let columns: Vec<_> = head.split_whitespace().collect();
    assert_eq!(columns, ["tensor", "dtype", "shape", "bpw", "ratio", "encoding", "blocks"]);
    assert_eq!(list.lines().filter(|line| line.starts_with("encoder.")).count(), 16);
}

#[test]
fn inspect_prints_versioned_json() {
    let dir = with_cmz(BF16);
    let json = cmz(dir.path(), &["inspect", "--json", "--blocks", "model.cmz"]).expect(0).json();
    assert_eq!(json["schema"], "cmz.inspect/1");
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["errors", "files", "ok", "schema", "totals"]);
    let totals = ["bits_per_weight", "elements", "file_len", "files", "ratio", "source_len", "tensors"];
    assert_eq!(keys(&json["totals"]), totals);
    let file = &json["files"][0];
    let expected = [
        "bases",
        "blocks",
        "dtypes",
        "file",
        "format",
        "generator",
        "kind",
        "lossy",
        "lossy_bits_per_weight",
        "metadata",
        "root",
        "source",
        "tensors",
        "totals",
    ];
    assert_eq!(keys(file), expected);
    let tensor = [
        "bits_per_weight",
        "blocks",
        "byte_len",
        "dtype",
        "elements",
        "encoding",
        "name",
        "ratio",
        "shape",
        "stored_len",
    ];
    assert_eq!(keys(&file["tensors"][0]), tensor);
    let block = ["block", "crc_decoded", "crc_stored", "decoded_len", "offset", "stored_len", "streams", "tensor"];
    assert_eq!(keys(&file["blocks"][0]), block);
    assert!(json["totals"]["ratio"].as_f64().unwrap() < 0.7);
}

#[test]
fn inspect_measures_the_entropy() {
    let dir = folder();
    let mut random = Random(1);
    let five: Vec<u8> = (0..10_000).flat_map(|_| (0x3f80 + random.below(5) as u16).to_le_bytes()).collect();
    let tensors = [("even", "U8", vec![4096], [7, 9].repeat(2048)), ("five", "BF16", vec![100, 100], five)];
    fs::write(dir.path().join("model.safetensors"), safetensors(&tensors)).unwrap();
    cmz(dir.path(), &["c", "model.safetensors"]).expect(0);
    let json = cmz(dir.path(), &["inspect", "--entropy", "--json", "model.cmz"]).expect(0).json();
    let tensor = &json["files"][0]["tensors"][0];
    let of = |tensor: &serde_json::Value, key: &str| tensor["entropy"][key].as_f64().unwrap();
    assert_eq!((of(tensor, "bits_per_weight"), &tensor["entropy"]["components"][0]["width"]), (1.0, &8.into()));
    let stored = tensor["entropy"]["components"][0]["stored_len"].as_f64().unwrap();
    assert!((of(tensor, "stored_bits_per_weight") - stored * 8.0 / 4096.0).abs() < 1e-9);
    assert!((of(tensor, "percent_above") - (stored * 8.0 / 4096.0 - 1.0) * 100.0).abs() < 1e-9);
    // One exponent, five mantissas.
    let second = of(&json["files"][0]["tensors"][1], "bits_per_weight");
    assert!((second - 5f64.log2()).abs() < 0.01, "{second}");
    let total = of(&json["totals"], "bits_per_weight");
    assert!((total - (4096.0 + second * 10_000.0) / 14_096.0).abs() < 1e-9, "{total}");
    let shown = cmz(dir.path(), &["inspect", "--entropy", "model.cmz"]).expect(0).out;
    assert!(shown.contains("entropy          ") && shown.contains("bits per weight; the streams have"), "{shown}");
    let head = shown.lines().find(|line| line.starts_with("tensor ")).unwrap();
    assert!(head.ends_with("entropy  above %"), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("even ") && line.contains("  1.000  ")), "{shown}");
    cmz(dir.path(), &["inspect", "--entropy", "model.safetensors"]).expect(2).says(&["only .cmz files"]);
}

#[test]
fn inspect_sorts_and_cuts() {
    let dir = with_cmz(BF16);
    let values = |key: &str, field: &str| -> Vec<f64> {
        let json = cmz(dir.path(), &["inspect", "--json", "--sort", key, "--top", "5", "model.cmz"]).expect(0).json();
        let tensors = json["files"][0]["tensors"].as_array().unwrap().clone();
        tensors.iter().map(|tensor| tensor[field].as_f64().unwrap()).collect()
    };
    for (key, field) in [("size", "stored_len"), ("bpw", "bits_per_weight"), ("ratio", "ratio")] {
        let values = values(key, field);
        assert_eq!(values.len(), 5);
        assert!(values.is_sorted_by(|a, b| a >= b), "{key}: {values:?}");
    }
    let json = cmz(dir.path(), &["inspect", "--json", "--sort", "name", "model.cmz"]).expect(0).json();
    let names: Vec<_> = json["files"][0]["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.is_sorted() && names.len() == 16);
}

#[test]
fn inspect_reads_safetensors_and_the_registry() {
    for stem in ALL {
        let dir = with_model(stem);
        let json = cmz(dir.path(), &["inspect", "--tensors", "--json", "model.safetensors"]).expect(0).json();
        assert_eq!((&json["files"][0]["kind"], &json["totals"]["ratio"]), (&"safetensors".into(), &1.0.into()));
    }
    let dir = crate::common::folder();
    let table = cmz(dir.path(), &["inspect", "--codecs"]).expect(0).out;
    for name in ["raw", "zstd", "tiered", "plain", "float_planes"] {
        assert!(table.contains(name), "{table}");
    }
    let json = cmz(dir.path(), &["inspect", "--codecs", "--json"]).expect(0).json();
    assert!(json["streams"].as_array().unwrap().len() >= 3 && json["encodings"].as_array().unwrap().len() >= 2);
}

#[test]
fn verify_proves_and_compares() {
    for stem in ALL {
        let dir = with_cmz(stem);
        let json =
            cmz(dir.path(), &["verify", "--json", "model.cmz", "--against", "model.safetensors"]).expect(0).json();
        assert_eq!((&json["schema"], &json["files"][0]["depth"]), (&"cmz.verify/1".into(), &"decoded".into()));
        assert_eq!(json["files"][0]["source_sha256"].as_str().unwrap().len(), 64);
        cmz(dir.path(), &["verify", "--quick", "model.cmz"]).expect(0);
    }
}

#[test]
fn verify_against_another_file_exits_with_3() {
    let dir = with_cmz(BF16);
    let original = fs::read(data(BF16)).unwrap();
    let compare = || cmz(dir.path(), &["verify", "--quick", "model.cmz", "--against", "other"]);
    for at in [0, 9, original.len() / 2, original.len() - 1] {
        let mut other = original.clone();
        other[at] ^= 0x80;
        fs::write(dir.path().join("other"), other).unwrap();
        compare().expect(3).says(&["error[CMZ3011]", &format!("byte {at}\n")]);
    }
    fs::write(dir.path().join("other"), &original[..original.len() - 1]).unwrap();
    compare().expect(3).says(&["error[CMZ3011]", &format!("byte {}\n", original.len() - 1)]);
    fs::write(dir.path().join("other"), [&original[..], b"x"].concat()).unwrap();
    compare().expect(3).says(&["error[CMZ3011]", &format!("byte {}\n", original.len())]);
    fs::write(dir.path().join("other"), original).unwrap();
    compare().expect(0);
}

#[test]
fn recover_refuses_an_existing_target() {
    let dir = with_cmz(BF16);
    fs::write(dir.path().join("model.recovered.cmz"), "precious").unwrap();
    cmz(dir.path(), &["recover", "model.cmz"]).expect(5).says(&["error[CMZ5001]"]);
    assert_eq!(fs::read(dir.path().join("model.recovered.cmz")).unwrap(), b"precious");
}

#[test]
fn recover_saves_what_is_whole() {
    let dir = with_cmz(BF16);
    let whole = fs::read(dir.path().join("model.cmz")).unwrap();
    fs::write(dir.path().join("cut.cmz"), &whole[..whole.len() / 2]).unwrap();
    let run = cmz(dir.path(), &["recover", "cut.cmz", "--json"]);
    let json = run.json();
    assert_eq!((&json["schema"], &json["source_whole"]), (&"cmz.recover/1".into(), &false.into()));
    let saved = json["saved"].as_array().unwrap();
    assert!(saved.len() > 3 && saved.len() < 16, "{json}");
    assert_eq!(run.code, if json["lost"].as_array().unwrap().is_empty() { 0 } else { 3 });
    cmz(dir.path(), &["verify", "cut.recovered.cmz"]).expect(0);
    for name in saved {
        let name = name.as_str().unwrap();
        let extract = |file, to| cmz(dir.path(), &["extract", "-f", file, name, "-o", to]).expect(0);
        extract("model.cmz", "a.npy");
        extract("cut.recovered.cmz", "b.npy");
        assert_eq!(fs::read(dir.path().join("a.npy")).unwrap(), fs::read(dir.path().join("b.npy")).unwrap());
    }
    // With only the trailer lost, everything is saved.
    fs::write(dir.path().join("cut.cmz"), &whole[..whole.len() - 1]).unwrap();
    cmz(dir.path(), &["recover", "cut.cmz", "-f"]).expect(0);
    cmz(dir.path(), &["verify", "cut.recovered.cmz", "--against", "model.safetensors"]).expect(0);
    cmz(dir.path(), &["recover", "cut.cmz", "-f", "-o", "cut.cmz"]).expect(2);
    fs::write(dir.path().join("cut.cmz"), "nothing of the kind").unwrap();
    cmz(dir.path(), &["recover", "cut.cmz", "-o", "x"]).expect(3).says(&["error[CMZ3009]"]);
}
