//! `compress` and `decompress` of single files.

use std::fs;

use crate::common::{ALL, BF16, cmz, command, data, folder, run, safetensors, skipped, weights, with_cmz, with_model};

#[test]
fn every_test_file_comes_back() {
    for stem in ALL {
        let dir = with_model(stem);
        let json = cmz(dir.path(), &["compress", "model.safetensors", "--json"]).expect(0).json();
        assert_eq!(json["schema"], "cmz.compress/1");
        assert_eq!(json["ok"], true);
        let keys: Vec<_> = json["files"][0].as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "bits_per_weight",
            "kept",
            "len",
            "lossy",
            "ratio",
            "resumed_blocks",
            "source",
            "source_len",
            "source_sha256",
            "target",
            "tensors",
            "verified",
        ];
        assert_eq!(keys, expected);
        let len = fs::metadata(dir.path().join("model.cmz")).unwrap().len();
        assert_eq!((json["files"][0]["len"].as_u64(), json["files"][0]["verified"].as_bool()), (Some(len), Some(true)));

        let json = cmz(dir.path(), &["decompress", "model.cmz", "-o", "back/", "--json"]).expect(0).json();
        assert_eq!(json["schema"], "cmz.decompress/1");
        let keys: Vec<_> = json["files"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["kept", "len", "lossy", "sha256", "source", "target"]);
        assert_eq!(fs::read(dir.path().join("back/model.safetensors")).unwrap(), fs::read(data(stem)).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is left behind");
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_io() {
    let dir = with_model(BF16);
    let mut all = Vec::new();
    for threads in ["1", "2", "3", "8"] {
        cmz(dir.path(), &["c", "-f", "model.safetensors", "-T", threads]).expect(0);
        all.push(fs::read(dir.path().join("model.cmz")).unwrap());
        for io in ["mmap", "pread", "auto"] {
            cmz(dir.path(), &["d", "-f", "model.cmz", "-o", "back.safetensors", "-T", threads, "--io", io]).expect(0);
            assert_eq!(fs::read(dir.path().join("back.safetensors")).unwrap(), fs::read(data(BF16)).unwrap());
        }
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn levels_and_codecs() {
    let dir = with_model(BF16);
    for args in [&["--level", "max"][..], &["--codec", "zstd"], &["--codec", "raw"], &["--no-verify"]] {
        let args = [&["c", "-f", "model.safetensors"], args].concat();
        cmz(dir.path(), &args).expect(0);
        cmz(dir.path(), &["verify", "model.cmz", "--against", "model.safetensors"]).expect(0);
    }
    cmz(dir.path(), &["c", "-f", "model.safetensors", "--codec", "none"])
        .expect(2)
        .says(&["there is no stream codec", "tiered"]);
}

#[test]
fn a_target_that_exists_is_replaced_only_on_demand() {
    let dir = with_model(BF16);
    let target = dir.path().join("model.cmz");
    fs::write(&target, "precious").unwrap();
    cmz(dir.path(), &["c", "model.safetensors"]).expect(5).says(&["error[CMZ5001]", "model.cmz", "pass -f"]);
    // A socket stands for a device, which a file must not take the place of.
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let target = ["c", "-f", "model.safetensors", "-o", "socket"];
        cmz(dir.path(), &target).expect(5).says(&["error[CMZ5001]", "not a file"]);
        assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert!(!dir.path().join("model.cmz.partial").exists());
    cmz(dir.path(), &["c", "model.safetensors", "-f"]).expect(0);
    cmz(dir.path(), &["d", "model.cmz"]).expect(5);
    assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), fs::read(data(BF16)).unwrap());
    cmz(dir.path(), &["d", "model.cmz", "-f"]).expect(0);
}

#[test]
fn a_folder_as_target_gets_the_file_inside() {
    let dir = with_model(BF16);
    fs::create_dir(dir.path().join("out")).unwrap();
    cmz(dir.path(), &["c", "model.safetensors", "-o", "out"]).expect(0);
    assert!(dir.path().join("out/model.cmz").is_file());
    cmz(dir.path(), &["d", "out/model.cmz", "-o", "new/folder/"]).expect(0);
    assert!(dir.path().join("new/folder/model.safetensors").is_file());
}

#[test]
fn several_inputs_go_into_one_folder() {
    let dir = folder();
    fs::write(dir.path().join("a.safetensors"), safetensors(&[("a", "BF16", vec![64], weights(64, 1))])).unwrap();
    fs::write(dir.path().join("b.safetensors"), safetensors(&[("b", "BF16", vec![64], weights(64, 2))])).unwrap();
    let json = cmz(dir.path(), &["c", "a.safetensors", "b.safetensors", "-o", "out", "--json"]).expect(0).json();
    assert_eq!(json["files"].as_array().unwrap().len(), 2);
    assert!(dir.path().join("out/a.cmz").is_file() && dir.path().join("out/b.cmz").is_file());
    cmz(dir.path(), &["c", "a.safetensors", "./a.safetensors", "-o", "twice"])
        .expect(2)
        .says(&["would both be written"]);
    // One failure does not keep the others from being done.
    fs::write(dir.path().join("bad.safetensors"), "bad").unwrap();
    let json =
        cmz(dir.path(), &["c", "-f", "bad.safetensors", "a.safetensors", "-o", "out", "--json"]).expect(3).json();
    assert_eq!((json["files"].as_array().unwrap().len(), json["ok"].as_bool()), (1, Some(false)));
}

#[test]
fn sources_are_removed_only_after_success() {
    let dir = with_model(BF16);
    let source = dir.path().join("model.safetensors");
    fs::write(dir.path().join("model.cmz"), "in the way").unwrap();
    cmz(dir.path(), &["c", "--rm", "model.safetensors"]).expect(5);
    assert!(source.is_file());
    cmz(dir.path(), &["c", "--rm", "-f", "model.safetensors"]).expect(0);
    assert!(!source.exists());

    let cmz_file = dir.path().join("model.cmz");
    let good = fs::read(&cmz_file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&cmz_file, &bad).unwrap();
    cmz(dir.path(), &["d", "--rm", "model.cmz"]).expect(3);
    assert!(cmz_file.is_file() && !source.exists());
    fs::write(&cmz_file, &good).unwrap();
    cmz(dir.path(), &["d", "--rm", "model.cmz"]).expect(0);
    assert!(!cmz_file.exists());
    assert_eq!(fs::read(&source).unwrap(), fs::read(data(BF16)).unwrap());
}

#[test]
fn a_second_writer_is_refused() {
    let dir = with_model(BF16);
    let partial = fs::File::create(dir.path().join("model.cmz.partial")).unwrap();
    partial.lock().unwrap();
    cmz(dir.path(), &["c", "model.safetensors"]).expect(5).says(&["error[CMZ5004]", "another process"]);
    cmz(dir.path(), &["c", "-f", "model.safetensors"]).expect(5).says(&["error[CMZ5004]"]);
    drop(partial);
    cmz(dir.path(), &["c", "model.safetensors"]).expect(0);
}

#[test]
fn many_writers_at_once_leave_one_whole_file() {
    let dir = with_model("minilm-layer3-attention-f16");
    let expected = with_cmz("minilm-layer3-attention-f16");
    let children: Vec<_> = (0..6)
        .map(|_| {
            command(dir.path())
                .args(["c", "-f", "-q", "-T", "1", "model.safetensors"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 5))) && codes.contains(&Some(0)), "{codes:?}");
    assert_eq!(fs::read(dir.path().join("model.cmz")).unwrap(), fs::read(expected.path().join("model.cmz")).unwrap());
}

#[test]
fn an_unfinished_file_of_another_conversion_is_in_the_way() {
    let dir = with_cmz(BF16);
    let whole = fs::read(dir.path().join("model.cmz")).unwrap();
    fs::remove_file(dir.path().join("model.cmz")).unwrap();
    fs::write(dir.path().join("model.cmz.partial"), &whole[..whole.len() / 2]).unwrap();
    cmz(dir.path(), &["c", "--level", "max", "model.safetensors"]).expect(5).says(&["error[CMZ5005]", "pass -f"]);
    let json = cmz(dir.path(), &["c", "--json", "model.safetensors"]).expect(0).json();
    assert!(json["files"][0]["resumed_blocks"].as_u64() > Some(10), "{json}");
    assert_eq!(fs::read(dir.path().join("model.cmz")).unwrap(), whole);
}

/// A small file system of its own, taken away at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = folder();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder.path().to_str().unwrap()]);
        mounted.then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

fn mount(args: &[&str]) -> bool {
    std::process::Command::new("mount").args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = with_cmz(BF16);
    let Some(disk) = SmallDisk::new() else {
        return skipped("a_full_disk_loses_nothing", "cannot mount a small file system here");
    };
    let path = disk.0.path().to_str().unwrap();
    let full = cmz(dir.path(), &["c", "model.safetensors", "-o", path]).expect(5).says(&["error[CMZ5002]"]);
    assert!(full.err.contains("model.cmz.partial"), "{}", full.err);
    assert!(!disk.0.path().join("model.cmz").exists());
    cmz(dir.path(), &["d", "model.cmz", "-o", path]).expect(5);
    assert!(!disk.0.path().join("model.safetensors").exists());
    assert!(mount(&["-o", "remount,size=64m", path]));
    let json = cmz(dir.path(), &["c", "--json", "model.safetensors", "-o", path]).expect(0).json();
    assert!(json["files"][0]["resumed_blocks"].as_u64() > Some(0), "{json}");
    assert_eq!(fs::read(disk.0.path().join("model.cmz")).unwrap(), fs::read(dir.path().join("model.cmz")).unwrap());
}

#[cfg(unix)]
#[test]
fn an_unreadable_source_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = with_model(BF16);
    let allow = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // Root reads everything: somebody else has to try.
    let binary = dir.path().join("cmz");
    fs::copy(env!("CARGO_BIN_EXE_cmz"), &binary).unwrap();
    allow(dir.path(), 0o777);
    allow(&dir.path().join("model.safetensors"), 0o000);
    let mut command = std::process::Command::new(&binary);
    command.current_dir(dir.path()).args(["compress", "model.safetensors"]);
    if fs::read(dir.path().join("model.safetensors")).is_ok() {
        command.uid(65534);
    }
    if command.output().is_err() {
        return skipped("an_unreadable_source_is_an_error", "cannot run as another user here");
    }
    run(&mut command).expect(1).says(&["error[CMZ1001]", "model.safetensors", "ermission denied"]);
}
