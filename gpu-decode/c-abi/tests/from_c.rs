//! A C program against the header and the library, on the emulator.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cmz_codec::{Archive, OpenOptions};
use cmz_tests::folder::{Folder, options};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The library, which cargo builds for tests of this crate and puts beside them.
fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libcmz_gpu.so");
    assert!(library.exists(), "{}", library.display());
    library
}

/// The C compiler, with every warning an error.
fn compile(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]).arg(Path::new(ROOT).join("include"));
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn the_header_is_c_and_cpp() {
    let folder = Folder::new();
    let source = folder.write("header.c", b"#include \"cmz_gpu.h\"\nint unused(void) { return CMZ_OK; }\n");
    for language in ["-std=c99 -xc", "-std=c++11 -xc++"] {
        let arguments: Vec<&str> = language.split(' ').chain(["-fsyntax-only"]).collect();
        run(compile(&arguments).arg(&source));
    }
}

#[test]
fn a_c_program_decodes() {
    let folder = Folder::new();
    let source = std::fs::read(cmz_tests::data_dir().join("minilm-layer0-bf16.safetensors")).unwrap();
    let file = folder.compress("file.cmz", &source, &options(2)).unwrap();
    let archive = Archive::from_reader(Box::new(file), OpenOptions::default()).unwrap();
    let longest = archive.tensors().iter().max_by_key(|tensor| tensor.shape.iter().product::<u64>()).unwrap();
    let expected = folder.write("expected", &archive.read(&longest.name).unwrap());
    let (program, library) = (folder.path("decode"), library());
    run(compile(&["-std=c99", "-pthread", "-o"])
        .args([&program, &Path::new(ROOT).join("tests/decode.c")])
        .arg(&library)
        .arg(cmz_gpu_emulator::library_path()));
    let printed = run(Command::new(&program)
        .args([&folder.path("file.cmz"), Path::new(&longest.name), &expected])
        .env("LD_PRELOAD", cmz_gpu_emulator::library_path())
        .env("LD_LIBRARY_PATH", library.parent().unwrap()));
    assert_eq!(printed, "ok\n");
}
