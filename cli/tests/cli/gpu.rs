//! The commands that use a GPU, without one and on the emulator.

use std::process::Command;

use crate::common::{BF16, Run, cmz, command, run, with_cmz};

/// The command, which finds the emulator when it looks for the driver.
fn emulated(folder: &std::path::Path) -> Command {
    let mut command = command(folder);
    command.env("LD_PRELOAD", cmz_gpu_emulator::library_path());
    command
}

fn without_gpu(folder: &std::path::Path, args: &[&str]) -> Run {
    run(emulated(folder).env("CUDA_EMU_NO_DEVICE", "1").args(args))
}

#[test]
fn doctor_says_what_there_is() {
    let folder = with_cmz(BF16);
    let run = run(emulated(folder.path()).args(["doctor", "--json"])).expect(0);
    let json = run.json();
    assert_eq!(json["gpu"]["name"], "cuda_emu (CPU)");
    assert_eq!(json["gpu"]["compute_capability"][0], 9);
    assert!(json["instructions"].as_array().unwrap().iter().any(|path| path == "portable"));
    let none = without_gpu(folder.path(), &["doctor"]).expect(0);
    assert!(none.out.contains("gpu") && none.out.contains("none:"), "{}", none.out);
}

#[test]
fn the_gpu_decodes_the_same_bits() {
    let folder = with_cmz(BF16);
    let file = "model.cmz";
    let verified = run(emulated(folder.path()).args(["verify", file, "--device", "cuda"])).expect(0);
    assert!(verified.out.contains("the same on cuda_emu"), "{}", verified.out);
    let none = without_gpu(folder.path(), &["verify", file, "--device", "cuda:0"]).expect(1);
    none.says(&["CMZ1004", "everything works on the CPU"]);
    without_gpu(folder.path(), &["verify", file, "--device", "auto"]).expect(0).says(&["using the CPU"]);
    cmz(folder.path(), &["verify", file, "--device", "tpu"]).expect(2).says(&["cuda:N"]);
}

#[test]
fn bench_measures_both() {
    let folder = with_cmz(BF16);
    let file = "model.cmz";
    let gpu = run(emulated(folder.path()).args(["bench", file, "--device", "cuda", "--runs", "1", "--json"])).expect(0);
    assert!(gpu.json()["measured"]["decode_seconds"].as_f64().unwrap() > 0.0);
    let cpu = cmz(folder.path(), &["bench", file, "--device", "cpu", "--runs", "1"]).expect(0);
    assert!(cpu.out.contains("memcpy") && cpu.out.contains("decode, 1 thread,"), "{}", cpu.out);
}
