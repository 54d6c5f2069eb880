//! The C header of the CUDA decoders, made of the crate that exports the functions.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};
use cmz_format::Code;

/// The crate, from the repository's root, and the header in it.
const CRATE: &str = "gpu-decode/c-abi";
const HEADER: &str = "include/cmz_gpu.h";

const HEAD: &str = "\
/* C interface of the cmz CUDA decoders (libcmz_gpu): .cmz files straight into device memory.
 *
 * Made by `cargo xtask header` of gpu-decode/c-abi/src: not to be edited.
 *
 *     CmzArchive *archive; CmzGpu *gpu; CmzPlan *plan; size_t number;
 *     CMZ(cmz_archive_open(\"model.cmz\", NULL, &archive));
 *     CMZ(cmz_gpu_open(0, &gpu));
 *     CMZ(cmz_archive_find(archive, \"lm_head.weight\", &number));
 *     CmzRequest request = {number, 0, CMZ_ALL_ROWS, address};
 *     CMZ(cmz_plan_open(gpu, archive, &request, 1, 0, 0, &plan));
 *     CMZ(cmz_plan_decode(plan, 0, stream));
 *     CMZ(cmz_plan_check(plan, stream));
 *
 * Functions that return int32_t return CMZ_OK or the number of an error, whose text is cmz_last_error(), one a thread. No
 * function changes the thread's current CUDA context. Handles are closed by the caller, in any order: a plan keeps what
 * it needs. No handle may be closed while a function uses it. */";

/// Writes the header.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let (path, text) = (path(root), generate(root)?);
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{CRATE}/{HEADER}");
    Ok(())
}

/// Compares the header with the code.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    if fs::read_to_string(path(root)).ok() == Some(generate(root)?) {
        return Ok(());
    }
    Err(format!("{CRATE}/{HEADER} is stale: run `cargo xtask header` and commit it"))
}

fn path(root: &Path) -> PathBuf {
    root.join(CRATE).join(HEADER)
}

fn generate(root: &Path) -> Result<String, String> {
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        style: Style::Both,
        documentation_style: DocumentationStyle::C99,
        usize_is_size_t: true,
        line_length: 120,
        header: Some(HEAD.to_owned()),
        include_guard: Some("CMZ_GPU_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(codes()),
        ..Config::default()
    };
    let mut builder = Builder::new().with_config(config);
    for name in ["error", "archive", "gpu", "plan"] {
        builder = builder.with_src(root.join(CRATE).join("src").join(name).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder.generate().map_err(|e| format!("the header cannot be made: {e}"))?.write(&mut text);
    String::from_utf8(text).map_err(|e| format!("the header is not text: {e}"))
}

/// The numbers of errors, from the one list of codes.
fn codes() -> String {
    let mut text = String::from(
        "\n/* Numbers of errors. The thousands digit says who must act: 1 the operation failed, 2 the request\n",
    );
    text.push_str(" * is wrong, 3 the data is wrong, 4 newer software is needed, 5 refused. */");
    for code in Code::ALL {
        text.push_str(&format!("\n/* {} */\n#define CMZ_ERROR_{} {}", code.meaning(), Shouted(*code), code.number()));
    }
    text
}

/// The name of a code in the spelling of C's constants.
struct Shouted(Code);

impl fmt::Display for Shouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in format!("{:?}", self.0).char_indices() {
            let gap = if i > 0 && c.is_uppercase() { "_" } else { "" };
            write!(f, "{gap}{}", c.to_ascii_uppercase())?;
        }
        Ok(())
    }
}
