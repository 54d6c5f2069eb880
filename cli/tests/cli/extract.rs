//! `extract`.

use std::fs;

use crate::common::{BF16, cmz, command, data, folder, safetensors, weights, with_cmz};

const TENSOR: &str = "encoder.layer.0.output.dense.weight";
const ROW: usize = 1536 * 2;

/// The bytes of the tensor in the source file.
fn original() -> Vec<u8> {
    let file = fs::read(data(BF16)).unwrap();
    let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + len]).unwrap();
    let offset = |i: usize| header[TENSOR]["data_offsets"][i].as_u64().unwrap() as usize + 8 + len;
    file[offset(0)..offset(1)].to_vec()
}

#[test]
fn raw_bytes_are_those_of_the_source() {
    let (dir, expected) = (with_cmz(BF16), original());
    cmz(dir.path(), &["extract", "model.cmz", TENSOR, "--format", "raw"]).expect(0);
    assert_eq!(fs::read(dir.path().join(format!("{TENSOR}.bin"))).unwrap(), expected);
    for (rows, range) in [("0:1", 0..1), ("100:200", 100..200), ("383:", 383..384), (":", 0..384), ("7:7", 0..0)] {
        let name = format!("{TENSOR}[{rows}]");
        let expected = &expected[range.start * ROW..range.end * ROW];
        cmz(dir.path(), &["extract", "-f", "model.cmz", &name, "--format", "raw", "-o", "rows.bin"]).expect(0);
        assert_eq!(fs::read(dir.path().join("rows.bin")).unwrap(), expected, "{rows}");
        cmz(dir.path(), &["extract", "-f", "model.cmz", TENSOR, "--rows", rows, "--format", "raw", "-o", "rows.bin"])
            .expect(0);
        assert_eq!(fs::read(dir.path().join("rows.bin")).unwrap(), expected, "{rows}");
    }
    let piped =
        command(dir.path()).args(["extract", "model.cmz", TENSOR, "--format", "raw", "-o", "-"]).output().unwrap();
    assert_eq!(piped.stdout, expected);
}

#[test]
fn npy_has_a_header_and_a_note_on_types() {
    let (dir, expected) = (with_cmz(BF16), original());
    let run = cmz(dir.path(), &["extract", "model.cmz", &format!("{TENSOR}[2:5]"), "-o", "x.npy"]).expect(0);
    run.says(&["NumPy has no BF16", "u2"]);
    let file = fs::read(dir.path().join("x.npy")).unwrap();
    let header = String::from_utf8_lossy(&file[10..128]).into_owned();
    assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
    assert!(header.starts_with("{'descr': '<u2', 'fortran_order': False, 'shape': (3, 1536), }"), "{header}");
    assert_eq!(&file[128..], &expected[2 * ROW..5 * ROW]);
}

#[test]
fn npy_of_every_kind_of_type() {
    let dir = folder();
    let tensors = [
        ("f32", "F32", vec![2, 2], vec![1; 16]),
        ("bool", "BOOL", vec![3], vec![1, 0, 1]),
        ("fp8", "F8_E4M3", vec![4], vec![9; 4]),
        ("fp4", "F4", vec![2, 4], vec![8; 4]),
        ("new", "F12_NEW", vec![2], vec![7; 3]),
        ("scalar", "I64", vec![], vec![5; 8]),
        ("empty", "F16", vec![0, 4], vec![]),
    ];
    fs::write(dir.path().join("m.safetensors"), safetensors(&tensors)).unwrap();
    cmz(dir.path(), &["c", "m.safetensors"]).expect(0);
    let expected = [
        ("f32", "'<f4'", "(2, 2)"),
        ("bool", "'|b1'", "(3,)"),
        ("fp8", "'|u1'", "(4,)"),
        ("fp4", "'|u1'", "(4,)"),
        ("new", "'|u1'", "(3,)"),
        ("scalar", "'<i8'", "()"),
        ("empty", "'<f2'", "(0, 4)"),
    ];
    for ((name, descr, shape), (_, _, _, bytes)) in expected.into_iter().zip(&tensors) {
        cmz(dir.path(), &["extract", "m.cmz", name]).expect(0);
        let file = fs::read(dir.path().join(format!("{name}.npy"))).unwrap();
        let header = String::from_utf8_lossy(&file[10..file.len() - bytes.len()]).into_owned();
        assert!(header.contains(descr) && header.contains(shape), "{name}: {header}");
        assert!(file.ends_with(bytes));
    }
    cmz(dir.path(), &["extract", "m.cmz", "scalar[0:1]"]).expect(2).says(&["no rows"]);
}

#[test]
fn a_name_with_brackets_is_tried_first() {
    let dir = folder();
    let tensors = [("w[0:1]", "BF16", vec![4, 2], weights(8, 1)), ("w", "BF16", vec![4, 2], weights(8, 2))];
    fs::write(dir.path().join("m.safetensors"), safetensors(&tensors)).unwrap();
    cmz(dir.path(), &["c", "m.safetensors"]).expect(0);
    cmz(dir.path(), &["extract", "m.cmz", "w[0:1]", "--format", "raw", "-o", "x"]).expect(0);
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), tensors[0].3);
    cmz(dir.path(), &["extract", "m.cmz", "w[0:2]", "--format", "raw", "-o", "x", "-f"]).expect(0);
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), tensors[1].3[..8]);
}

#[test]
fn json_says_what_was_written() {
    let dir = with_cmz(BF16);
    let json = cmz(dir.path(), &["extract", "--json", "model.cmz", TENSOR, "-o", "x.npy"]).expect(0).json();
    assert_eq!((&json["schema"], &json["shape"]), (&"cmz.extract/1".into(), &serde_json::json!([384, 1536])));
    cmz(dir.path(), &["extract", "model.cmz", TENSOR, "-o", "x.npy"]).expect(5).says(&["error[CMZ5001]"]);
}
