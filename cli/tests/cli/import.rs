//! Checkpoints of other programs.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::common::{BF16, Random, cmz, contents, data, folder};

#[path = "../../../codec/src/import/dfloat11/generator.rs"]
mod generator;

use generator::{Stored, compressed, config, safetensors, tensors_of};

const LAYER: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

/// The BF16 test file as a DFloat11 checkpoint `df11`, and its header alone.
fn real() -> tempfile::TempDir {
    let (dir, original) = (folder(), fs::read(data(BF16)).unwrap());
    let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
    fs::write(dir.path().join("model.safetensors"), &original[..header]).unwrap();
    let tensors = compressed(&tensors_of(&original), &[("encoder.layer.0", &LAYER)]);
    write(&dir.path().join("df11"), &[("model.safetensors", &tensors)], json!({r"encoder\.layer\.\d+": LAYER}));
    dir
}

fn write(folder: &Path, files: &[(&str, &[Stored])], patterns: serde_json::Value) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("config.json"), config(patterns)).unwrap();
    for (name, tensors) in files {
        fs::write(folder.join(name), safetensors(None, tensors)).unwrap();
    }
}

#[test]
fn a_dfloat11_checkpoint_gives_the_original_file() {
    let dir = real();
    let import = ["import", "dfloat11", "df11", "--like", "model.safetensors", "-o", "model.cmz"];
    let json = cmz(dir.path(), &[&import[..], &["--json"]].concat()).expect(0).json();
    assert_eq!(json["schema"], "cmz.import/1");
    let file = &json["files"][0];
    assert_eq!((&file["source"], &file["like"]), (&"df11".into(), &"model.safetensors".into()));
    assert_eq!((&file["tensors"], &file["verified"]), (&16.into(), &true.into()));
    cmz(dir.path(), &["verify", "model.cmz", "--against", data(BF16).to_str().unwrap()]).expect(0);
    cmz(dir.path(), &["decompress", "model.cmz", "-o", "back.safetensors"]).expect(0);
    assert!(fs::read(dir.path().join("back.safetensors")).unwrap() == fs::read(data(BF16)).unwrap());

    // The same bytes as from the original itself, for any number of threads.
    cmz(dir.path(), &["compress", data(BF16).to_str().unwrap(), "-o", "direct.cmz", "-T", "1"]).expect(0);
    assert!(fs::read(dir.path().join("direct.cmz")).unwrap() == fs::read(dir.path().join("model.cmz")).unwrap());
    cmz(dir.path(), &import).expect(5).says(&["error[CMZ5001]", "-f"]);
    let text = cmz(dir.path(), &[&import[..], &["-f", "--level", "max", "-T", "3"]].concat()).expect(0);
    assert!(text.out.contains("verified: every bit") && text.err.is_empty(), "{text:?}");
}

#[test]
fn an_interrupted_import_goes_on() {
    let dir = real();
    let import = ["import", "dfloat11", "df11", "--like", "model.safetensors", "-o", "model.cmz", "--json"];
    cmz(dir.path(), &import).expect(0);
    let whole = fs::read(dir.path().join("model.cmz")).unwrap();
    fs::remove_file(dir.path().join("model.cmz")).unwrap();
    fs::write(dir.path().join("model.cmz.partial"), &whole[..whole.len() / 2]).unwrap();
    let json = cmz(dir.path(), &import).expect(0).json();
    assert!(json["files"][0]["resumed_blocks"].as_u64() > Some(10), "{json}");
    assert!(fs::read(dir.path().join("model.cmz")).unwrap() == whole);
}

/// Shards of an original, and the checkpoint made of them.
fn sharded(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut random = Random(7);
    let mut matrix = |name: String, rows: u64| {
        let bytes = (0..rows * 32).flat_map(|_| ((random.next() as u16 & 0x83ff) | 0x3c00).to_le_bytes()).collect();
        Stored { name, dtype: "BF16", shape: vec![rows, 32], bytes }
    };
    let mut shards: Vec<Vec<Stored>> = Vec::new();
    for i in 0..2 {
        shards.push(vec![matrix(format!("layers.{i}.up.weight"), 96), matrix(format!("layers.{i}.norm.weight"), 1)]);
    }
    shards.push((0..2).map(|i| matrix(format!("layers.{i}.down.weight"), 64)).collect());
    shards.push(vec![matrix("lm_head.weight".to_owned(), 200)]);
    fs::create_dir(dir.join("original")).unwrap();
    let (mut map, mut files) = (serde_json::Map::new(), Vec::new());
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-00004.safetensors", i + 1);
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
        let bytes = safetensors(Some(json!({"format": "pt"})), shard);
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        fs::write(dir.join("original").join(&name), &bytes[..header]).unwrap();
        files.push((name, bytes));
    }
    let index = json!({"weight_map": map}).to_string();
    fs::write(dir.join("original/model.safetensors.index.json"), &index).unwrap();
    files.push(("model.safetensors.index.json".to_owned(), index.into_bytes()));
    let paths: &[&str] = &["up", "down"];
    let made = compressed(&shards.concat(), &[("layers.0", paths), ("layers.1", paths), ("lm_head", &[])]);
    let split = [("layers_0.safetensors", &made[..6]), ("model.safetensors", &made[6..])];
    write(&dir.join("df11"), &split, json!({r"layers\.\d": paths, "lm_head": []}));
    files
}

#[test]
fn shards_come_back_as_shards() {
    let dir = folder();
    let files = sharded(dir.path());
    for like in ["original", "original/model.safetensors.index.json"] {
        let run = cmz(dir.path(), &["import", "dfloat11", "df11", "--like", like, "-o", "out", "-f"]).expect(0);
        assert!(run.out.contains("out  4 files"), "{}", run.out);
        cmz(dir.path(), &["verify", "out"]).expect(0);
        cmz(dir.path(), &["decompress", "out", "-o", "back", "-f"]).expect(0);
        assert!(contents(&dir.path().join("back")) == files.iter().cloned().collect());
    }
    // What is done already is kept.
    fs::remove_file(dir.path().join("out/model-00003-of-00004.cmz")).unwrap();
    let again = cmz(dir.path(), &["import", "dfloat11", "df11", "--like", "original", "-o", "out", "--json"]);
    let json = again.expect(0).json();
    let kept: Vec<_> = json["files"].as_array().unwrap().iter().map(|file| file["kept"].as_bool().unwrap()).collect();
    assert_eq!(kept, [true, true, false, true]);
    // Without the index, every safetensors file of the folder counts.
    fs::remove_file(dir.path().join("original/model.safetensors.index.json")).unwrap();
    cmz(dir.path(), &["import", "dfloat11", "df11", "--like", "original", "-o", "plain"]).expect(0);
    cmz(dir.path(), &["verify", "plain"]).expect(0);
    // One shard alone does not say all shapes.
    let one = "original/model-00001-of-00004.safetensors";
    let run = cmz(dir.path(), &["import", "dfloat11", "df11", "--like", one, "-o", "one.cmz"]).expect(3);
    run.says(&["error[CMZ3008]", "layers.0.down.weight", "its shape is unknown", "headers of all files"]);
    assert!(!dir.path().join("one.cmz").exists() && !dir.path().join("one.cmz.partial").exists());
}

#[test]
fn what_cannot_be_imported_is_said() {
    let dir = real();
    let with = |input: &str, like: &str, more: &[&str]| {
        let args = [&["import", "dfloat11", input, "--like", like, "-o", "x.cmz"], more].concat();
        cmz(dir.path(), &args)
    };
    cmz(dir.path(), &["import", "dfloat11", "df11", "-o", "x.cmz"]).expect(2).says(&["--like"]);
    cmz(dir.path(), &["import", "gguf", "df11"]).expect(2);
    with("df11", "model.safetensors", &["--codec", "nonsense"]).expect(2).says(&["there is no stream codec"]);
    for target in ["df11/model.safetensors", "model.safetensors"] {
        let args = ["import", "dfloat11", "df11", "--like", "model.safetensors", "-f", "-o", target];
        cmz(dir.path(), &args).expect(2).says(&["the target is"]);
    }
    with("df11", "missing.safetensors", &[]).expect(1).says(&["missing.safetensors"]);
    with("missing", "model.safetensors", &[]).expect(1).says(&["missing"]);
    let config = dir.path().join("df11/config.json");
    fs::rename(&config, dir.path().join("layout.json")).unwrap();
    with("df11", "model.safetensors", &[]).expect(3).says(&["error[CMZ3008]", "config.json", "--config"]);
    with("df11/model.safetensors", "model.safetensors", &["--config", "layout.json"]).expect(0);
    let newer = fs::read_to_string(dir.path().join("layout.json")).unwrap().replace("0.5.0", "9.9.9");
    fs::write(&config, newer).unwrap();
    with("df11", "model.safetensors", &["-f"]).expect(4).says(&["error[CMZ4001]", "9.9.9", "0.5.0"]);
    fs::rename(dir.path().join("df11/model.safetensors"), dir.path().join("df11/model.pkl")).unwrap();
    with("df11", "model.safetensors", &["-f"]).expect(1).says(&["error[CMZ1003]", "DFloat11 0.1"]);
}

#[test]
fn damage_is_reported_with_the_tensor() {
    let dir = real();
    let path = dir.path().join("df11/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let stream = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // DFloat11 has no checksums: a single wrong bit may leave as many codes as there were.
    bytes[stream + 100_000..][..100].fill(0x55);
    fs::write(&path, bytes).unwrap();
    let import = ["import", "dfloat11", "df11", "--like", "model.safetensors", "-o", "model.cmz"];
    let run = cmz(dir.path(), &import).expect(3);
    run.says(&["error[CMZ3008]", "df11/model.safetensors", "encoder.layer.0.encoded_exponent"]);
    assert!(!dir.path().join("model.cmz").exists());
}
