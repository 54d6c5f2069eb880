//! Input that is damaged, hostile or something else altogether.

use std::fs;

use crate::common::{BF16, cmz, folder, safetensors, weights, with_cmz};

#[test]
fn what_is_not_weights_is_named() {
    let dir = folder();
    let pickle = [&b"PK\x03\x04"[..], &[0; 40]].concat();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    let cases: [(&[u8], &str, &str); 5] = [
        (pointer, "Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page", "download"),
        (&pickle, "pickle", "safetensors"),
        (b"\x80\x02}q\x00.", "pickle", "safetensors"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF", "safetensors"),
    ];
    for (bytes, what, help) in cases {
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        cmz(dir.path(), &["compress", "model.safetensors"]).expect(1).says(&["error[CMZ1003]", what, help, "help:"]);
        cmz(dir.path(), &["inspect", "model.safetensors"]).expect(1).says(&["error[CMZ1003]"]);
        for args in [&["decompress", "model.safetensors", "-o", "x"][..], &["verify", "model.safetensors"]] {
            cmz(dir.path(), args).expect(3).says(&["error[CMZ3009]"]);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is written");
    }
}

#[test]
fn the_wrong_command_says_which_is_right() {
    let dir = with_cmz(BF16);
    cmz(dir.path(), &["compress", "model.cmz", "-o", "x.cmz"])
        .expect(1)
        .says(&["a .cmz file already", "cmz decompress"]);
    for args in [
        &["decompress", "model.safetensors", "-o", "x"][..],
        &["verify", "model.safetensors"],
        &["extract", "model.safetensors", "x"],
    ] {
        let help = "`cmz compress model.safetensors`";
        cmz(dir.path(), args).expect(3).says(&["error[CMZ3009]: this is a safetensors file", help]);
    }
}

#[test]
fn missing_inputs_and_folders_are_errors() {
    let dir = folder();
    for args in [
        &["compress", "gone"][..],
        &["decompress", "gone"],
        &["inspect", "gone"],
        &["verify", "gone"],
        &["extract", "gone", "x"],
    ] {
        cmz(dir.path(), args).expect(1).says(&["error[CMZ1001]", "--> gone"]);
    }
    fs::create_dir(dir.path().join("empty")).unwrap();
    cmz(dir.path(), &["compress", "empty"]).expect(1).says(&["error[CMZ1003]", "no .safetensors", "not entered"]);
}

#[test]
fn truncated_sources_are_found() {
    let dir = folder();
    let whole = safetensors(&[("a", "BF16", vec![64], weights(64, 1)), ("b", "BF16", vec![64], weights(64, 2))]);
    let path = dir.path().join("model.safetensors");
    for len in [0, 1, 7, 8, 9, 60, whole.len() - 129, whole.len() - 128, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        cmz(dir.path(), &["compress", "model.safetensors"]).expect(3).says(&["error[CMZ3003]", "model.safetensors"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn damage_is_named_with_place_tensor_and_rows() {
    let dir = with_cmz(BF16);
    let path = dir.path().join("model.cmz");
    let list = cmz(dir.path(), &["inspect", "model.cmz", "--blocks", "--json"]).expect(0).json();
    let blocks = list["files"][0]["blocks"].as_array().unwrap();
    let tensor = "encoder.layer.0.intermediate.dense.weight";
    let of_tensor: Vec<_> = blocks.iter().filter(|block| block["tensor"] == tensor).collect();
    let block = of_tensor.last().unwrap();
    let (offset, stored) = (block["offset"].as_u64().unwrap(), block["stored_len"].as_u64().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[(offset + stored / 2) as usize] ^= 0x10;
    fs::write(&path, &bytes).unwrap();

    let place = format!("--> model.cmz, byte {offset} (block {} of {})", of_tensor.len(), of_tensor.len());
    let rows = format!("tensor {tensor}, rows ");
    for args in [
        &["verify", "model.cmz"][..],
        &["verify", "--quick", "model.cmz"],
        &["decompress", "model.cmz", "-o", "x"],
        &["extract", "model.cmz", tensor],
    ] {
        cmz(dir.path(), args).expect(3).says(&[
            "error[CMZ3001]: checksum of the stored bytes is",
            &place,
            &rows,
            "help: the file is damaged",
        ]);
    }
    let run = cmz(dir.path(), &["verify", "model.cmz", "--json"]).expect(3);
    let json = run.json();
    let error = &json["errors"][0];
    assert_eq!(run.err.lines().filter(|line| line.contains("error")).count(), 0);
    assert_eq!((&error["code"], &error["exit"], &error["tensor"]), (&"CMZ3001".into(), &3.into(), &tensor.into()));
    let keys: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["block", "code", "exit", "file", "help", "meaning", "message", "offset", "rows", "tensor"]);
    assert_eq!((json["files"][0]["damaged_blocks"].as_u64(), json["files"][0]["ok"].as_bool()), (Some(1), Some(false)));
    // The other tensors are still there.
    cmz(dir.path(), &["extract", "model.cmz", "encoder.layer.0.output.dense.weight"]).expect(0);
}

#[test]
fn a_cut_file_says_what_to_do() {
    let dir = with_cmz(BF16);
    let path = dir.path().join("model.cmz");
    let bytes = fs::read(&path).unwrap();
    for len in [0, 63, 64, 200, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..len]).unwrap();
        for command in ["verify", "inspect", "decompress"] {
            cmz(dir.path(), &[command, "model.cmz"]).expect(3).says(&["error[CMZ3003]", "model.cmz"]);
        }
    }
}

#[test]
fn a_newer_format_exits_with_4() {
    let dir = with_cmz(BF16);
    let path = dir.path().join("model.cmz");
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] += 1;
    bytes[60..64].fill(0);
    let crc = cmz_format::crc32(&bytes[..64]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    for args in [&["verify", "model.cmz"][..], &["inspect", "model.cmz"], &["decompress", "model.cmz", "-o", "x"]] {
        cmz(dir.path(), args).expect(4).says(&["error[CMZ4001]", "format version"]);
    }
}

#[test]
fn hostile_names_do_not_reach_the_terminal_or_the_folder_above() {
    let dir = folder();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let names =
        ["\u{1b}]0;owned\u{7}\u{1b}[31m\nerror[CMZ0000]: x", "../../evil", "/etc/evil", "a\u{202e}b", "..", "\\u{1b}"];
    let tensors: Vec<_> = names.iter().map(|name| (*name, "BF16", vec![64], weights(64, 7))).collect();
    fs::write(inner.join("model.safetensors"), safetensors(&tensors)).unwrap();
    cmz(&inner, &["compress", "model.safetensors"]).expect(0);
    let tame = |text: &str| !text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    for file in ["model.cmz", "model.safetensors"] {
        let run = cmz(&inner, &["inspect", "--tensors", file]).expect(0);
        assert!(tame(&run.out) && run.out.contains("\\u{1b}]0;owned\\u{7}"), "{}", run.out);
    }
    assert!(tame(&cmz(&inner, &["inspect", "--blocks", "model.cmz"]).expect(0).out));
    for name in names {
        let run = cmz(&inner, &["extract", "-f", "model.cmz", name]).expect(0);
        assert!(tame(&run.out) && tame(&run.err), "{run:?}");
        let run = cmz(&inner, &["extract", "model.cmz", &format!("{name}[0:99]")]).expect(2);
        assert!(tame(&run.err), "{run:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "everything stays in the folder");
    let mut bytes = fs::read(inner.join("model.cmz")).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle..middle + 512].fill(0x1b);
    fs::write(inner.join("model.cmz"), &bytes).unwrap();
    let run = cmz(&inner, &["verify", "model.cmz"]).expect(3);
    assert!(tame(&run.err) && tame(&run.out), "{run:?}");
}

#[test]
fn ambiguous_and_overflowing_sources_are_refused() {
    let dir = folder();
    let file =
        |json: &str, data: usize| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat();
    let twice =
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let overlap =
        r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    let huge = r#"{"a":{"dtype":"U8","shape":[9223372036854775807,3],"data_offsets":[0,1]}}"#;
    let backwards = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#;
    let short = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#;
    for json in [twice, overlap, huge, backwards, short, "{", "[]", "{\"a\":1}"] {
        fs::write(dir.path().join("model.safetensors"), file(json, 4)).unwrap();
        cmz(dir.path(), &["compress", "model.safetensors"]).expect(3).says(&["error[CMZ3008]", "model.safetensors"]);
    }
    fs::write(dir.path().join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
    cmz(dir.path(), &["compress", "model.safetensors"]).expect(3).says(&["error[CMZ3008]"]);
}

#[test]
fn damage_to_a_reference_is_reported_once() {
    let dir = folder();
    let names = ["first", "a", "b", "c", "d", "e", "f"];
    let data: Vec<u8> = (0..5000u32).map(|i| (i * i / 128) as u8).collect();
    let tensors = names.map(|name| (name, "U8", vec![data.len() as u64], data.clone()));
    fs::write(dir.path().join("twins.safetensors"), safetensors(&tensors)).unwrap();
    cmz(dir.path(), &["c", "twins.safetensors"]).expect(0);
    let list = cmz(dir.path(), &["inspect", "twins.cmz", "--blocks", "--json"]).expect(0).json();
    let block = &list["files"][0]["blocks"][0];
    let mut bytes = fs::read(dir.path().join("twins.cmz")).unwrap();
    bytes[(block["offset"].as_u64().unwrap() + 64) as usize] ^= 1;
    fs::write(dir.path().join("twins.cmz"), &bytes).unwrap();
    for io in ["auto", "mmap", "pread"] {
        let run = cmz(dir.path(), &["verify", "twins.cmz", "--io", io]).expect(3);
        assert_eq!(run.err.matches("error[").count(), 1, "{}", run.err);
        run.says(&[
            "1 of 15 blocks damaged; 6 tensors stored by reference to damaged ones: a, b, c, d, e, 1 more; the",
        ]);
    }
    let json = cmz(dir.path(), &["verify", "twins.cmz", "--json"]).expect(3).json();
    assert_eq!(json["files"][0]["dependants"], serde_json::json!(names[1..]));
    assert_eq!(json["files"][0]["damaged_blocks"], 1);
}
