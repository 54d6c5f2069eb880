//! What a command has to say: its result, and errors.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use cmz_codec::{Archive, Code, Error};
use cmz_format::{Escaped, MAGIC};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::text;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HELP: Style = AnsiColor::Green.on_default();
pub(crate) const NOTE: Style = AnsiColor::Cyan.on_default();
/// Errors printed one by one, at most.
const MAX_PRINTED: usize = 20;

/// The result of a command.
#[derive(Default)]
pub(crate) struct Report {
    /// For people, on standard output.
    pub(crate) text: String,
    /// For programs, on standard output.
    pub(crate) json: Map<String, Value>,
    /// What went wrong.
    pub(crate) errors: Vec<Error>,
}

impl From<cmz_codec::Result<Self>> for Report {
    fn from(result: cmz_codec::Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self { errors: vec![error], ..Self::default() })
    }
}

impl Report {
    /// Prints everything and says how the process ends.
    pub(crate) fn finish(self, command: &str, context: &Context) -> ExitCode {
        let errors: Vec<Error> = self.errors.into_iter().filter(|error| !is_broken_pipe(error)).map(clarify).collect();
        let status = status(&errors);
        let output = if context.json {
            let mut json = Map::new();
            json.insert("schema".to_owned(), format!("cmz.{command}/1").into());
            json.insert("ok".to_owned(), (status == 0).into());
            json.extend(self.json);
            let mut places = Places::default();
            json.insert("errors".to_owned(), errors.iter().map(|error| error_json(error, &mut places)).collect());
            format!("{}\n", Value::Object(json))
        } else {
            self.text
        };
        let printed = print(&output);
        if !context.json {
            print_errors(&errors);
        }
        match printed {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                print_errors(&[Error::io("cannot write the result", e)]);
                ExitCode::from(status.max(1))
            }
            _ => ExitCode::from(status),
        }
    }
}

/// Data that is wrong counts more than anything else that failed.
fn status(errors: &[Error]) -> u8 {
    let statuses = || errors.iter().map(|error| error.code().exit_status());
    statuses().find(|&status| status == 3).or_else(|| statuses().next()).unwrap_or(0)
}

fn print(output: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout();
    stdout.write_all(output.as_bytes())?;
    stdout.flush()
}

fn print_errors(errors: &[Error]) {
    let mut places = Places::default();
    let mut text: String = errors.iter().take(MAX_PRINTED).map(|error| render(error, &mut places)).collect();
    if errors.len() > MAX_PRINTED {
        let _ = writeln!(text, "{NOTE}note:{NOTE:#} {} more errors", errors.len() - MAX_PRINTED);
    }
    // A closed standard error is no reason to fail otherwise.
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// Somebody stopped reading our output: that is their right.
fn is_broken_pipe(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// Says what a file is that should have been a `.cmz` file.
fn clarify(error: Error) -> Error {
    let Some(file) = error.file().filter(|_| error.code() == Code::NotCmz) else { return error };
    let mut start = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, 9), &mut start));
    if read.is_err() || start.starts_with(&MAGIC) || start.get(8) != Some(&b'{') {
        return error;
    }
    let help = format!("`cmz compress {}` makes a .cmz file of it", text::path(file));
    Error::new(Code::NotCmz, "this is a safetensors file, not a .cmz file").in_file(file).with_help(help)
}

/// An error as text.
fn render(error: &Error, places: &mut Places) -> String {
    let mut text = format!("{ERROR}error[CMZ{}]:{ERROR:#} {}\n", error.code().number(), tame(error.message()));
    let place = places.find(error);
    if let Some(file) = error.file() {
        let _ = write!(text, "  --> {}", text::path(file));
        if let Some(offset) = error.offset() {
            let _ = write!(text, ", byte {offset}");
        }
        match (error.block(), &place) {
            (Some(block), Some(place)) => drop(write!(text, " (block {} of {})", block + 1, place.blocks)),
            (Some(block), None) => drop(write!(text, " (block {})", block + 1)),
            (None, _) => {}
        }
        text.push('\n');
    }
    if let Some(tensor) = error.tensor() {
        let _ = write!(text, "   |  tensor {}", Escaped(tensor));
        if let Some((start, end)) = place.and_then(|place| place.rows) {
            let _ = write!(text, ", rows {start}..{end}");
        }
        text.push('\n');
    }
    if let Some(help) = error.help() {
        let _ = writeln!(text, "  {HELP}help:{HELP:#} {}", tame(help));
    }
    text
}

/// Escapes what could drive a terminal in a message, where names are escaped already.
fn tame(message: &str) -> String {
    message.split('\\').map(|part| Escaped(part).to_string()).collect::<Vec<_>>().join("\\")
}

fn error_json(error: &Error, places: &mut Places) -> Value {
    let place = places.find(error);
    json!({
        "code": format!("CMZ{}", error.code().number()),
        "exit": error.code().exit_status(),
        "meaning": error.code().meaning(),
        "message": error.message(),
        "file": error.file().map(|file| file.to_string_lossy()),
        "offset": error.offset(),
        "tensor": error.tensor(),
        "block": error.block(),
        "rows": place.and_then(|place| place.rows).map(|(start, end)| json!([start, end])),
        "help": error.help(),
    })
}

/// What is wrong with the command line, as JSON.
pub(crate) fn usage_json(error: &clap::Error) -> Value {
    let message = error.render().to_string();
    json!({
        "schema": "cmz.usage/1",
        "ok": false,
        "errors": [{"code": "CMZ2001", "exit": 2, "message": message.trim_end()}],
    })
}

/// Where a block is in its tensor.
struct Place {
    blocks: u64,
    rows: Option<(u64, u64)>,
}

/// Looks blocks up in the files that errors name, and keeps the last file open.
#[derive(Default)]
struct Places {
    path: PathBuf,
    archive: Option<Archive>,
}

impl Places {
    fn find(&mut self, error: &Error) -> Option<Place> {
        let (file, name, block) = (error.file()?, error.tensor()?, error.block()?);
        if self.path != file {
            self.path = file.to_owned();
            self.archive = Archive::open(file).ok();
        }
        let archive = self.archive.as_ref()?;
        let number = archive.index().find(name)?;
        let blocks = archive.index().tensor_blocks(number).data.len() as u64;
        Some(Place { blocks, rows: block_rows(&archive.tensors()[number], block) })
    }
}

/// The rows that a block holds, in part or whole.
fn block_rows(tensor: &cmz_format::Tensor, block: u64) -> Option<(u64, u64)> {
    let rows = *tensor.shape.first()?;
    let elements = tensor.elements().ok()?;
    let row = elements.checked_div(rows).filter(|&row| row > 0)?;
    tensor.known_dtype()?;
    let start = block.checked_mul(tensor.block_elements)?;
    let end = start.checked_add(tensor.block_elements)?.min(elements);
    Some((start / row, end.div_ceil(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_drive_the_terminal() {
        let error = Error::new(Code::BadSource, "the key \"\\u{1b}\" and \u{1b}[31m").in_tensor("a\u{1b}]0;x\u{7}\nb");
        let text = render(&error, &mut Places::default());
        assert!(text.contains("\\u{1b}\" and \\u{1b}[31m"), "{text}");
        assert!(text.contains("tensor a\\u{1b}]0;x\\u{7}\\nb"), "{text}");
    }

    #[test]
    fn wrong_data_decides_the_exit_code() {
        let of = |codes: &[Code]| status(&codes.iter().map(|&code| Error::new(code, "")).collect::<Vec<_>>());
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[Code::UnknownCodec, Code::StoredChecksum]), 3);
        assert_eq!(of(&[Code::Exists, Code::Io]), 5);
    }
}
