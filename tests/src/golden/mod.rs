//! The golden files: what each is, how it is made, and what must come of it.

mod affine;
mod bad_blocks;
mod bad_files;
mod bad_index;
mod bad_streams;
mod bases;
mod good;
mod quantized;
mod references;
mod ternary;
mod unsupported;
mod views;

pub use views::seeds as view_seeds;

use std::fmt::Write;
use std::sync::LazyLock;

use cmz_codec::Code;
use cmz_codec::safetensors::Header;
use sha2::{Digest, Sha256};

use crate::check::open_bytes;

/// A file that must be read.
pub struct Good {
    /// Name without ending.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// The safetensors file that it was made from.
    pub source: Vec<u8>,
    /// Name of the file that is given as its base.
    pub base: Option<&'static str>,
}

impl Good {
    fn new(name: &str, about: &str, bytes: Vec<u8>, source: Vec<u8>) -> Self {
        Self { name: format!("good-{name}"), about: about.to_owned(), bytes, source, base: None }
    }
}

/// Where an error must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// When the file is opened.
    Open(Code),
    /// When everything in it is read.
    Read(Code),
    /// When it is verified: no read needs the bytes concerned.
    Verify(Code),
}

impl Found {
    /// The error's code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Open(code) | Self::Read(code) | Self::Verify(code) => code,
        }
    }
}

/// A file that must be refused, or that needs newer software.
pub struct Refused {
    /// Name without ending.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Which error must show, and where.
    pub found: Found,
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Name of the file that is given as its base.
    pub base: Option<&'static str>,
}

impl Refused {
    fn new(name: &str, about: &str, found: Found, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), about: about.to_owned(), found, bytes, base: None }
    }
}

/// Every file that must be read.
#[must_use]
pub fn good() -> &'static [Good] {
    static CASES: LazyLock<Vec<Good>> = LazyLock::new(|| {
        [good::cases(), ternary::good(), references::good(), bases::good(), views::good()]
            .into_iter()
            .flatten()
            .collect()
    });
    &CASES
}

/// Every file that must be refused.
#[must_use]
pub fn bad() -> &'static [Refused] {
    static CASES: LazyLock<Vec<Refused>> = LazyLock::new(|| {
        let parts = [
            bad_files::cases(),
            bad_index::cases(),
            bad_blocks::cases(),
            bad_streams::cases(),
            references::bad(),
            affine::bad(),
            ternary::bad(),
            quantized::bad(),
            bases::bad(),
            views::bad(),
        ];
        parts.into_iter().flatten().collect()
    });
    &CASES
}

/// Every file that needs newer software.
#[must_use]
pub fn unsupported() -> &'static [Refused] {
    static CASES: LazyLock<Vec<Refused>> = LazyLock::new(|| {
        [unsupported::cases(), references::unsupported(), affine::unsupported(), quantized::unsupported()]
            .into_iter()
            .flatten()
            .collect()
    });
    &CASES
}

/// The folder's contents: file names with their bytes, README.md and the digests of the tensors among them.
#[must_use]
pub fn files() -> Vec<(String, Vec<u8>)> {
    let mut readme = String::from(HEAD);
    let mut files = Vec::new();
    for case in good() {
        let about = about(&case.about, case.base);
        let _ = writeln!(readme, "| `{}.cmz` | {about} |", case.name);
        files.push((format!("{}.cmz", case.name), case.bytes.clone()));
    }
    for (title, cases) in [("bad", bad()), ("unsupported", unsupported())] {
        let _ = write!(readme, "\n## {title}\n\n| file | error | found by | |\n|---|---|---|---|\n");
        for case in cases {
            let (code, by) = (case.found.code(), place(case.found));
            let about = about(&case.about, case.base);
            let _ = writeln!(readme, "| `{}.cmz` | CMZ{} {code:?} | {by} | {about} |", case.name, code.number());
            files.push((format!("{}.cmz", case.name), case.bytes.clone()));
        }
    }
    files.push(("README.md".to_owned(), readme.into_bytes()));
    files.push(("tensors.sha256".to_owned(), digests().into_bytes()));
    files.push(("views.sha256".to_owned(), view_digests().into_bytes()));
    files
}

fn about(about: &str, base: Option<&str>) -> String {
    base.map_or(about.to_owned(), |base| format!("{about} The base given is `{base}.cmz`."))
}

/// For readers in other languages: the SHA-256 of each good file's tensors, in file order, one after the other.
fn digests() -> String {
    let mut text = String::new();
    for case in good() {
        let header = Header::read(&case.source).expect("a sound file");
        let mut ranges: Vec<_> = header.tensors.iter().map(|entry| entry.range.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        let mut hasher = Sha256::new();
        ranges.iter().for_each(|range| hasher.update(&case.source[range.start as usize..range.end as usize]));
        let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{digest}  {}", case.name);
    }
    text
}

/// And of the elements of each view that can be read.
fn view_digests() -> String {
    let mut text = String::new();
    for case in good() {
        let archive = open_bytes(&case.bytes).expect("a sound file");
        for view in archive.views().iter().filter(|view| archive.check_view(&view.name).is_ok()) {
            let digest = Sha256::digest(archive.read_view(&view.name).expect("a readable view"));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "{digest}  {} {}", case.name, view.name);
        }
    }
    text
}

fn place(found: Found) -> &'static str {
    match found {
        Found::Open(_) => "open",
        Found::Read(_) => "read",
        Found::Verify(_) => "verify",
    }
}

const HEAD: &str = "# Golden files

Written by `cargo run -p cmz-tests --bin make-golden` and compared with what it writes by the tests, so that no byte of the format
changes unnoticed. This page is written by it too. *good* files restore their source byte for byte; *bad* files break one rule each, with
all checksums around the broken place put right, and raise exactly the error named here; *unsupported* files are sound and need newer
software. A file that is stored against another one is read with the base that is named here, if any. An error is found by *open*, or only when everything is *read*, or only by *verify*, which looks at every byte.
`tensors.sha256` holds a digest of what the tensors of each good file decode to, `views.sha256` one of each view that can be read.

## good

| file | |
|---|---|
";
