//! Folders and sharded checkpoints.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::common::{cmz, contents, folder, safetensors, weights};

/// A checkpoint of three shards, with the other files that come with one.
fn sharded(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 1..=3u64 {
        let names = [format!("layer.{shard}.weight"), format!("layer.{shard}.bias")];
        let file = format!("model-{shard:05}-of-00003.safetensors");
        let tensors = [
            (names[0].as_str(), "BF16", vec![64, 96], weights(64 * 96, shard)),
            (names[1].as_str(), "BF16", vec![96], weights(96, shard + 10)),
        ];
        fs::write(path.join(&file), safetensors(&tensors)).unwrap();
        map.extend(names.into_iter().map(|name| (name, file.clone().into())));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::write(path.join("config.json"), "{\"hidden\": 96}\n").unwrap();
    fs::write(path.join("tokenizer.model"), [0, 159, 146, 150]).unwrap();
    fs::create_dir(path.join("onnx")).unwrap();
    fs::write(path.join("onnx/config.json"), "{}").unwrap();
}

#[test]
fn a_sharded_checkpoint_comes_back_byte_for_byte() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    let run = cmz(dir.path(), &["compress", "model"]).expect(0).says(&["onnx is left out"]);
    assert!(run.out.contains("model-cmz  3 files"), "{}", run.out);
    let out = dir.path().join("model-cmz");
    let names: Vec<_> = contents(&out).into_keys().collect();
    let expected = [
        "config.json",
        "model-00001-of-00003.cmz",
        "model-00002-of-00003.cmz",
        "model-00003-of-00003.cmz",
        "model.cmz.index.json",
        "model.safetensors.index.json",
        "tokenizer.model",
    ];
    assert_eq!(names, expected);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("model.cmz.index.json")).unwrap()).unwrap();
    assert_eq!(index["schema"], "cmz.index/1");
    assert_eq!(index["weight_map"]["layer.2.bias"], "model-00002-of-00003.cmz");
    let keys: Vec<_> = index["shards"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["file", "len", "root", "source", "source_sha256"]);

    cmz(dir.path(), &["verify", "model-cmz", "--against", "model"]).expect(0);
    cmz(dir.path(), &["inspect", "model-cmz"]).expect(0);
    cmz(dir.path(), &["extract", "model-cmz", "layer.3.weight"]).expect(0);
    cmz(dir.path(), &["decompress", "model-cmz", "-o", "back"]).expect(0);
    assert_eq!(contents(&dir.path().join("back")), contents(&dir.path().join("model")));
    cmz(dir.path(), &["decompress", "model-cmz/model.cmz.index.json", "-o", "back2", "-q"]).expect(0);
    assert_eq!(contents(&dir.path().join("back2")).len(), 4);
    // Next to the original, everything is there already.
    let again = cmz(dir.path(), &["decompress", "model-cmz", "--json"]).expect(0).json();
    assert!(again["files"].as_array().unwrap().iter().all(|file| file["kept"] == true));
}

#[test]
fn an_index_stands_for_its_shards() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    cmz(dir.path(), &["compress", "model/model.safetensors.index.json", "-o", "out"]).expect(0);
    let names: Vec<_> = contents(&dir.path().join("out")).into_keys().collect();
    assert_eq!(names.len(), 5, "{names:?}");
    cmz(dir.path(), &["compress", "model", "-o", "bare", "--no-aux"]).expect(0);
    assert!(!dir.path().join("bare/config.json").exists());
}

#[test]
fn a_rerun_keeps_what_is_done() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(0);
    let whole = contents(&dir.path().join("out"));
    fs::remove_file(dir.path().join("out/model.cmz.index.json")).unwrap();
    fs::remove_file(dir.path().join("out/model-00003-of-00003.cmz")).unwrap();
    let json = cmz(dir.path(), &["compress", "model", "-o", "out", "--json"]).expect(0).json();
    let kept: Vec<_> = json["files"].as_array().unwrap().iter().map(|file| file["kept"].as_bool().unwrap()).collect();
    assert_eq!(kept, [true, true, false]);
    assert_eq!(contents(&dir.path().join("out")), whole);

    // A source that has changed meanwhile is not passed over.
    let source = dir.path().join("model/model-00001-of-00003.safetensors");
    let mut bytes = fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&source, bytes).unwrap();
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(5).says(&["error[CMZ5001]", "model-00001"]);
    cmz(dir.path(), &["compress", "model", "-o", "out", "-f"]).expect(0);
    cmz(dir.path(), &["verify", "out", "--against", "model"]).expect(0);
}

#[test]
fn removing_sources_keeps_the_rest_of_the_folder() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    let before = contents(&dir.path().join("model"));
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(0);
    cmz(dir.path(), &["compress", "model", "-o", "out", "--rm"]).expect(0);
    let left: Vec<_> = contents(&dir.path().join("model")).into_keys().collect();
    assert_eq!(left, ["config.json", "model.safetensors.index.json", "tokenizer.model"]);
    cmz(dir.path(), &["decompress", "--rm", "out", "-o", "model"]).expect(0);
    assert_eq!(contents(&dir.path().join("model")), before);
    let left: Vec<_> = contents(&dir.path().join("out")).into_keys().collect();
    assert_eq!(left, ["config.json", "model.safetensors.index.json", "tokenizer.model"]);
}

#[test]
fn bad_shard_indexes_are_refused() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    let index = dir.path().join("model/model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    let first = "model-00001-of-00003.safetensors";
    let entry = format!("\"layer.1.bias\":\"{first}\"");
    assert!(text.contains(&entry));
    let cases = [
        (text.replace(first, "../model-00001-of-00003.safetensors"), "not the name of a .safetensors file"),
        (text.replace(first, "/etc/x.safetensors"), "not the name of a .safetensors file"),
        (text.replace(first, "..\\\\x.safetensors"), "not the name of a .safetensors file"),
        (text.replace(first, "config.json"), "not the name of a .safetensors file"),
        (text.replace(first, "gone.safetensors"), "the shard gone.safetensors, which is not there"),
        (text.replace(&entry, &format!("{entry},{entry}")), "occurs twice"),
        (text.replacen('{', "{\"metadata\":{},", 1), "occurs twice"),
        (text.replace("layer.1.bias", "layer.1.lost"), "tensor layer.1.lost"),
        ("{}".to_owned(), "weight_map"),
        ("[".to_owned(), "the index"),
        (text.replace(first, "\\u001b[31m.safetensors"), "\\u{1b}[31m.safetensors"),
    ];
    for (text, says) in cases {
        fs::write(&index, text).unwrap();
        for input in ["model", "model/model.safetensors.index.json"] {
            let run = cmz(dir.path(), &["compress", input, "-o", "out"]).expect(3);
            run.says(&["error[CMZ3008]", says, "model.safetensors.index.json"]);
        }
        assert!(!dir.path().join("out").exists(), "nothing is written");
    }
}

#[test]
fn damaged_or_missing_shards_of_a_converted_folder_are_named() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(0);
    let shard = dir.path().join("out/model-00002-of-00003.cmz");
    let good = fs::read(&shard).unwrap();
    fs::remove_file(&shard).unwrap();
    for command in ["verify", "decompress"] {
        cmz(dir.path(), &[command, "out"]).expect(3).says(&["model-00002-of-00003.cmz, which is not there"]);
    }
    fs::copy(dir.path().join("out/model-00001-of-00003.cmz"), &shard).unwrap();
    for command in ["verify", "decompress"] {
        cmz(dir.path(), &[command, "out"])
            .expect(3)
            .says(&["error[CMZ3006]", "not the one that the folder's index describes"]);
    }
    fs::write(&shard, good).unwrap();
    let index = dir.path().join("out/model.cmz.index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("\"source\": \"model-00001", "\"source\": \"../../model-00001")).unwrap();
    cmz(dir.path(), &["decompress", "out", "-o", "x"]).expect(3).says(&["error[CMZ3008]", "not the name"]);
    fs::remove_file(&index).unwrap();
    fs::write(dir.path().join("out/x.cmz.partial"), "").unwrap();
    cmz(dir.path(), &["decompress", "out", "-o", "x"]).expect(5).says(&["error[CMZ5005]", "not finished"]);
}

#[test]
fn two_sources_of_one_target_are_refused() {
    let dir = folder();
    sharded(&dir.path().join("model"));
    fs::write(dir.path().join("model/model-00001-of-00003.cmz"), "something").unwrap();
    cmz(dir.path(), &["compress", "model", "-o", "out"]).expect(2).says(&["would both be written", "model-00001"]);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_folder_without_index_and_in_place() {
    let dir = folder();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("model.safetensors"), safetensors(&[("a", "BF16", vec![64], weights(64, 1))])).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    cmz(&model, &["compress", ".", "-o", "."]).expect(0);
    let names: Vec<_> = contents(&model).into_keys().collect();
    assert_eq!(names, ["config.json", "model.cmz", "model.cmz.index.json", "model.safetensors"]);
    cmz(&model, &["compress", ".", "-o", ".", "-q"]).expect(0);
    cmz(&model, &["decompress", "model.cmz.index.json", "-o", "../back"]).expect(0);
    let back = fs::read(dir.path().join("back/model.safetensors")).unwrap();
    assert_eq!(back, fs::read(model.join("model.safetensors")).unwrap());
}

#[cfg(unix)]
#[test]
fn links_are_followed_to_regular_files_only() {
    use std::os::unix::fs::symlink;
    let dir = folder();
    let (model, blobs) = (dir.path().join("model"), dir.path().join("blobs"));
    fs::create_dir(&model).unwrap();
    fs::create_dir(&blobs).unwrap();
    fs::write(blobs.join("0a1b"), safetensors(&[("a", "BF16", vec![64], weights(64, 1))])).unwrap();
    symlink("../blobs/0a1b", model.join("model.safetensors")).unwrap();
    symlink("../blobs", model.join("folder")).unwrap();
    symlink("/dev/zero", model.join("zero.safetensors")).unwrap();
    cmz(dir.path(), &["compress", "model", "-o", "out"])
        .expect(0)
        .says(&["folder is left out", "zero.safetensors is left out"]);
    cmz(dir.path(), &["decompress", "out", "-o", "back"]).expect(0);
    assert_eq!(fs::read(dir.path().join("back/model.safetensors")).unwrap(), fs::read(blobs.join("0a1b")).unwrap());
    symlink("nowhere", model.join("config.json")).unwrap();
    cmz(dir.path(), &["compress", "model", "-o", "out2"]).expect(1).says(&["error[CMZ1001]", "config.json"]);
}
