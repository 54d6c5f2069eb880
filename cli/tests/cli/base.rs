//! Compressing against a base.

use std::fs;
use std::path::Path;

use crate::common::{ALL, BF16, cmz, data, folder};

/// A folder with `old.cmz`, and with `new.safetensors`, in which the last weights differ.
fn with_base(stem: &str) -> tempfile::TempDir {
    let dir = folder();
    cmz(dir.path(), &["c", data(stem).to_str().unwrap(), "-o", "old.cmz"]).expect(0);
    let mut bytes = fs::read(data(stem)).unwrap();
    let end = bytes.len();
    bytes[end - 1000..].iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
    fs::write(dir.path().join("new.safetensors"), bytes).unwrap();
    dir
}

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

#[test]
fn there_and_back_against_a_base() {
    for stem in ALL {
        let dir = with_base(stem);
        let dir = dir.path();
        let json = cmz(dir, &["c", "new.safetensors", "--base", "old.cmz", "--json"]).expect(0).json();
        assert!(json["files"][0]["ratio"].as_f64().unwrap() < 0.02, "{json}");
        let out = cmz(dir, &["verify", "new.cmz", "--base", "old.cmz", "--against", "new.safetensors"]).expect(0).out;
        assert!(out.contains("identical to"), "{out}");
        cmz(dir, &["d", "new.cmz", "--base", "old.cmz", "-o", "back.safetensors"]).expect(0);
        assert!(read(dir, "back.safetensors") == read(dir, "new.safetensors"));
    }
}

#[test]
fn without_the_base_what_is_needed_is_said() {
    let dir = with_base(BF16);
    let dir = dir.path();
    cmz(dir, &["c", "new.safetensors", "--base", "old.cmz"]).expect(0);
    let root = |file: &str| cmz(dir, &["inspect", file, "--json"]).expect(0).json()["files"][0].clone();
    let (old, new) = (root("old.cmz"), root("new.cmz"));
    assert_eq!(old["bases"], serde_json::json!([]));
    assert_eq!(new["bases"][0]["root"], old["root"]);
    assert_eq!(new["bases"][0]["source_sha256"], old["source"]["sha256"]);
    let shown = cmz(dir, &["inspect", "new.cmz", "--tensors"]).expect(0).out;
    let base = old["root"].as_str().unwrap();
    assert!(shown.contains(&format!("needs base       {base}")) && shown.contains("same_as(base)"), "{shown}");

    cmz(dir, &["d", "new.cmz", "-o", "back.safetensors"]).expect(2).says(&["error[CMZ2002]", base, "--base"]);
    cmz(dir, &["verify", "new.cmz"]).expect(2).says(&["error[CMZ2002]", base]);
    cmz(dir, &["verify", "new.cmz", "--quick"]).expect(0);
    cmz(dir, &["c", data(ALL[1]).to_str().unwrap(), "-o", "wrong.cmz"]).expect(0);
    cmz(dir, &["d", "new.cmz", "--base", "wrong.cmz", "-o", "back.safetensors"]).expect(3).says(&["error[CMZ3012]"]);
    assert!(!dir.join("back.safetensors").exists());
    // The right one of several is found, in a folder too.
    cmz(dir, &["d", "new.cmz", "--base", ".", "-o", "back.safetensors"]).expect(0);
    cmz(dir, &["c", "-f", "new.safetensors", "-o", "old.cmz", "--base", "old.cmz"]).expect(2).says(&["the base"]);
}

#[test]
fn one_tensor_against_a_base() {
    let dir = with_base(BF16);
    let dir = dir.path();
    cmz(dir, &["c", "new.safetensors", "--base", "old.cmz"]).expect(0);
    cmz(dir, &["c", "new.safetensors", "-o", "alone.cmz"]).expect(0);
    let json = cmz(dir, &["inspect", "new.cmz", "--tensors", "--json"]).expect(0).json();
    for tensor in json["files"][0]["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        cmz(dir, &["extract", "new.cmz", name, "--base", "old.cmz", "-o", "a.npy", "-f", "-q"]).expect(0);
        cmz(dir, &["extract", "alone.cmz", name, "-o", "b.npy", "-f", "-q"]).expect(0);
        assert!(read(dir, "a.npy") == read(dir, "b.npy"), "{name}");
        let run = cmz(dir, &["extract", "new.cmz", name, "-o", "-", "-q"]).expect(2).says(&["error[CMZ2002]"]);
        assert!(run.out.is_empty(), "nothing is written before the base is missed");
    }
}

#[test]
fn a_folder_against_a_folder() {
    let dir = folder();
    let dir = dir.path();
    for (folder, changed) in [("old", false), ("new", true)] {
        fs::create_dir(dir.join(folder)).unwrap();
        for stem in ALL {
            let mut bytes = fs::read(data(stem)).unwrap();
            let end = bytes.len();
            bytes[end - 1] ^= u8::from(changed);
            fs::write(dir.join(folder).join(format!("{stem}.safetensors")), bytes).unwrap();
        }
    }
    cmz(dir, &["c", "old", "-q"]).expect(0);
    let json = cmz(dir, &["c", "new", "--base", "old-cmz", "--json", "-q"]).expect(0).json();
    assert!(json["files"].as_array().unwrap().iter().all(|f| f["ratio"].as_f64() < Some(0.02)), "{json}");
    let again = cmz(dir, &["c", "new", "--base", "old-cmz", "--json", "-q"]).expect(0).json();
    assert!(again["files"].as_array().unwrap().iter().all(|f| f["kept"] == true), "{again}");
    // What needs a base that is not given is not up to date.
    cmz(dir, &["c", "new", "-q"]).expect(5).says(&["error[CMZ5001]"]);
    cmz(dir, &["d", "new-cmz", "--base", "old-cmz", "-o", "back", "-q"]).expect(0);
    for stem in ALL {
        let file = format!("{stem}.safetensors");
        assert!(read(&dir.join("back"), &file) == read(&dir.join("new"), &file));
    }
}

#[test]
fn duplicates_are_shown() {
    let bytes: Vec<u8> = (0..4000u32).map(|i| ((i * i) >> 7) as u8).collect();
    let tensor = |name| (name, "U8", vec![4000], bytes.clone());
    let dir = folder();
    let source = crate::common::safetensors(&[tensor("embed"), tensor("lm_head")]);
    fs::write(dir.path().join("tied.safetensors"), source).unwrap();
    cmz(dir.path(), &["c", "tied.safetensors"]).expect(0);
    let shown = cmz(dir.path(), &["inspect", "tied.cmz", "--blocks"]).expect(0).out;
    assert!(shown.contains("same_as(embed)"), "{shown}");
    let out = cmz(dir.path(), &["recover", "tied.cmz"]).expect(0).out;
    assert!(out.contains("2 tensors"), "{out}");
}
