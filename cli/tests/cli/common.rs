//! What the tests share: running the binary and making checkpoints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

pub(crate) const BF16: &str = "minilm-layer0-bf16";
pub(crate) const ALL: [&str; 3] = ["minilm-layer0-bf16", "minilm-layer3-attention-f16", "minilm-layer5-attention-f32"];

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The one line of JSON that `--json` prints.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Fails unless standard error has each of these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "no {text:?} in\n{}", self.err);
        }
        self
    }
}

/// The command, in a folder, without the caller's environment.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmz"));
    for name in ["CMZ_THREADS", "CMZ_IO", "CMZ_PROGRESS", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

pub(crate) fn cmz(folder: &Path, args: &[&str]) -> Run {
    run(command(folder).args(args))
}

pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let run = Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!run.err.contains("panicked"), "{run:#?}");
    run
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A file of the project's test data.
pub(crate) fn data(stem: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(format!("{stem}.safetensors"))
}

/// A folder with a copy of a test file in it, under the name `model.safetensors`.
pub(crate) fn with_model(stem: &str) -> tempfile::TempDir {
    let folder = folder();
    std::fs::copy(data(stem), folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A folder with a test file and its `.cmz`.
pub(crate) fn with_cmz(stem: &str) -> tempfile::TempDir {
    let folder = with_model(stem);
    cmz(folder.path(), &["c", "model.safetensors"]).expect(0);
    folder
}

/// Name, element type, shape and bytes of a tensor.
pub(crate) type Tensor<'a> = (&'a str, &'a str, Vec<u64>, Vec<u8>);

/// A safetensors file of these tensors.
pub(crate) fn safetensors(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let json = Value::Object(header).to_string();
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.extend_from_slice(&data);
    file
}

/// Numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Bytes that look like weights: BF16 numbers with few exponents.
pub(crate) fn weights(elements: u64, seed: u64) -> Vec<u8> {
    let mut random = Random(seed * 2 + 1);
    let element = |_| {
        let bits = random.next();
        let exponent = 118 + u16::from((bits >> 20) as u8 & 7).min(4);
        ((bits as u16 & 0x807f) | exponent << 7).to_le_bytes()
    };
    (0..elements).flat_map(element).collect()
}

/// Names and contents of the files of a folder.
pub(crate) fn contents(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Tells why a test did not run, on every terminal.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
