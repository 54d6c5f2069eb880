//! Rules of the repository that a lint does not keep.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use cmz_codec::registry::{ENCODINGS, LAYOUTS, REFERENCES, STREAMS};

/// The files that may hold unsafe code, from the repository's root.
const UNSAFE: &[&str] = &[
    "codec/src/encoding/versions.rs",
    "codec/src/io/mmap.rs",
    "codec/src/prefetch.rs",
    "codec/src/stream/bitpack/avx512.rs",
    "codec/src/stream/bitpack/bmi2.rs",
    "codec/src/stream/huffman/bmi2.rs",
    "codec/src/stream/rans/avx2.rs",
    "codec/src/stream/rans/avx512.rs",
    "codec/src/stream/rans/avx512_encode.rs",
    "codec/src/stream/tiered/avx2.rs",
    "codec/src/stream/tiered/avx512.rs",
    "codec/src/stream/tiered/feature_kernel.rs",
    "codec/src/stream/tiered/neon.rs",
    "codec/tests/steady_state.rs",
    "format-spec/tests/allocation.rs",
    // Functions for C take pointers of C.
    "gpu-decode/c-abi/src/archive.rs",
    "gpu-decode/c-abi/src/error.rs",
    "gpu-decode/c-abi/src/gpu.rs",
    "gpu-decode/c-abi/src/plan.rs",
    "gpu-decode/c-abi/src/pointer.rs",
    "gpu-decode/emulator/src/lib.rs",
    "gpu-decode/emulator/tests/detections.rs",
    "gpu-decode/emulator/tests/driver.rs",
    "gpu-decode/emulator/tests/kernels.rs",
    "gpu-decode/examples/products.rs",
    "gpu-decode/examples/resident/model.rs",
    "gpu-decode/src/batch.rs",
    "gpu-decode/src/bench.rs",
    "gpu-decode/src/context.rs",
    "gpu-decode/src/decoder.rs",
    "gpu-decode/src/device.rs",
    "gpu-decode/src/job.rs",
    "gpu-decode/src/load.rs",
    "gpu-decode/src/matvec/mod.rs",
    "gpu-decode/src/matvec/ternary.rs",
    "gpu-decode/src/memory.rs",
    "gpu-decode/src/plan.rs",
    "gpu-decode/src/resident.rs",
    "gpu-decode/src/verify.rs",
    "gpu-decode/tests/common/experts.rs",
    "gpu-decode/tests/common/mod.rs",
    "gpu-decode/tests/common/products.rs",
    "gpu-decode/tests/emulated_only.rs",
    // Addresses of tensors and streams come from Python as numbers, memory by the buffer protocol.
    "python/src/gpu.rs",
    "python/src/memory.rs",
    "tests/tests/allocation.rs",
];

/// Lines that a source file has, about, at most.
const MOST_LINES: usize = 650;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of the repository, with its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    assert!(found.len() > 40);
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, found);
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push((relative, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Words of a text that is not in comments or string literals, as far as a line tells.
fn code_words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    let outside = code.split('"').step_by(2);
    outside.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

#[test]
fn unsafe_code_is_in_named_files() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let used = text.lines().any(|line| code_words(line).any(|word| word == "unsafe"));
        if used && !UNSAFE.contains(&path.as_str()) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "unsafe code in {wrong:?}: name the files here if they must have it");
    let named = UNSAFE.iter().filter(|path| !root().join(path).exists());
    assert_eq!(named.collect::<Vec<_>>(), Vec::<&&str>::new(), "named, but not there");
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("dbg", "!(")];
    for (path, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{path}: {mark}");
        }
    }
}

#[test]
fn files_are_of_readable_length() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{path} has {lines} lines");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!") || text.starts_with("#!"), "{path} begins with a sentence about itself");
    }
}

#[test]
fn every_codec_folder_has_a_page() {
    // The encodings that refer to another tensor share a folder.
    for (kind, count) in [("stream", STREAMS.len()), ("encoding", ENCODINGS.len() + 1), ("view", LAYOUTS.len())] {
        let folder = root().join("codec/src").join(kind);
        let folders: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        for folder in &folders {
            let page = fs::read_to_string(folder.join("SPEC.md")).unwrap_or_default();
            assert!(page.starts_with("# ") && page.len() > 200, "{}/SPEC.md", folder.display());
        }
        assert_eq!(folders.len(), count, "every folder in {kind} is in the registry");
    }
}

/// The lines of the tables in SPEC.md's chapter of that name, cell by cell.
fn tables(spec: &str, chapter: &str) -> Vec<Vec<String>> {
    let lines = spec.lines().skip_while(|line| !(line.starts_with("## ") && line.ends_with(chapter))).skip(1);
    lines
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn the_specification_lists_the_registry() {
    let spec = fs::read_to_string(root().join("format-spec/SPEC.md")).unwrap();
    let listed = tables(&spec, "Registry");
    let page = |kind: &str, name: &str| format!("[codec/src/{kind}/{name}](../codec/src/{kind}/{name}/SPEC.md)");
    let since = |(major, minor): (u16, u16)| format!("{major}.{minor}");
    let streams = STREAMS.iter().map(|entry| {
        let (id, name) = (entry.codec.id(), entry.codec.name());
        vec![id.to_string(), format!("`{name}`"), since(entry.since), page("stream", name)]
    });
    let encodings = ENCODINGS.iter().map(|entry| {
        let name = entry.encoding.name();
        vec![format!("`{name}`"), since(entry.since), page("encoding", name)]
    });
    let references = REFERENCES
        .iter()
        .map(|entry| vec![format!("`{}`", entry.operation.name()), since(entry.since), page("encoding", "reference")]);
    let layouts = LAYOUTS.iter().map(|entry| {
        let name = entry.layout.name();
        vec![format!("`{name}`"), since(entry.since), page("view", name)]
    });
    let expected: Vec<Vec<String>> = streams.chain(encodings).chain(references).chain(layouts).collect();
    let rows: Vec<Vec<String>> =
        listed.into_iter().filter(|row| row.iter().any(|cell| cell.starts_with('`'))).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_documents_are_there() {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "format-spec/SPEC.md"]
    {
        assert!(fs::metadata(root().join(name)).is_ok_and(|file| file.len() > 200), "{name}");
    }
}

/// Every fuzz target has its file and is built, and no other is there.
#[test]
fn fuzz_targets_are_all_there() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut files: Vec<String> = fs::read_dir(root().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut targets: Vec<&str> = cmz_tests::fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    targets.sort_unstable();
    assert_eq!(files, targets);
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is in fuzz/Cargo.toml");
    }
}
