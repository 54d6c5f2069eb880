//! `cmz extract`.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cmz_codec::convert::{Phase, Progress, Target};
use cmz_codec::{Archive, Code, Error, Result, checkpoint};
use cmz_format::{Dtype, Escaped};
use serde_json::{Value, json};

use crate::args::{Extract, Format};
use crate::context::Context;
use crate::npy;
use crate::report::Report;
use crate::text::{path, size};

pub(crate) fn run(args: &Extract, context: &Context) -> Report {
    extract(args, context).into()
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, why)
}

/// A tensor, or a view: weights that come from quantized tensors.
struct Found {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    /// Number of the tensor, if it is one.
    tensor: Option<usize>,
}

impl Found {
    fn in_archive(archive: &Archive, name: &str) -> Result<Self> {
        if let Some(view) = archive.index().find_view(name) {
            let (name, dtype, shape) = (view.name.clone(), view.dtype.clone(), view.shape.clone());
            return Ok(Self { name, dtype, shape, tensor: None });
        }
        let tensor = archive.find(name)?;
        let stored = &archive.tensors()[tensor];
        let (name, dtype, shape) = (stored.name.clone(), stored.dtype.clone(), stored.shape.clone());
        Ok(Self { name, dtype, shape, tensor: Some(tensor) })
    }

    fn form(&self) -> npy::Npy {
        npy::of_dtype(Dtype::from_name(&self.dtype))
    }
}

/// What is to be written.
struct Piece<'a> {
    archive: &'a Archive,
    found: &'a Found,
    rows: Option<Range<u64>>,
    npy: bool,
}

fn extract(args: &Extract, context: &Context) -> Result<Report> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && context.json {
        return Err(invalid("--json and -o - would both write to standard output"));
    }
    let (archive, found, rows) = find(args, context)?;
    let piece = Piece { archive: &archive, found: &found, rows, npy: args.format == Format::Npy };
    let form = found.form();
    if piece.npy && form.substitute {
        let how = if form.flat { "bytes" } else { &form.descr[1..] };
        context.note(&format!("NumPy has no {}: the elements are written as {how}", Escaped(&found.dtype)));
    }
    context.progress.file(&args.input, 0, 1);
    if to_stdout {
        piece.write(&mut std::io::stdout().lock(), context)?;
        return Ok(Report::default());
    }
    let target_path = target_path(args, &found.name);
    let target = Target::create(&target_path, args.force)?;
    let bytes = piece.write(&mut target.file(), context).map_err(|e| e.in_file(target.partial()))?;
    target.commit(args.force)?;
    let shape = piece.shape()?;
    let text = format!("{}  {} {shape:?}  {}\n", path(&target_path), Escaped(&found.dtype), size(bytes));
    let mut report = Report { text, ..Report::default() };
    let entries: [(&str, Value); 7] = [
        ("tensor", found.name.clone().into()),
        ("dtype", found.dtype.clone().into()),
        ("shape", json!(shape)),
        ("rows", piece.rows.as_ref().map_or(Value::Null, |rows| json!([rows.start, rows.end]))),
        ("format", if piece.npy { "npy" } else { "raw" }.into()),
        ("target", target_path.to_string_lossy().into()),
        ("len", bytes.into()),
    ];
    report.json.extend(entries.map(|(key, value)| (key.to_owned(), value)));
    Ok(report)
}

/// Finds the tensor or view in the file, or in the files of a folder, and the rows wanted.
fn find(args: &Extract, context: &Context) -> Result<(Archive, Found, Option<Range<u64>>)> {
    // A name may itself end with brackets: the whole argument is tried first.
    let (name, brackets) = match args.name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        Some((name, rows)) => (name, Some(rows)),
        None => (args.name.as_str(), None),
    };
    let open = context.open_options(&args.base)?;
    let files = checkpoint::files_of(&args.input)?;
    let mut missing = None;
    for file in &files {
        let archive = Archive::open_with(file, open.clone())?;
        for (name, brackets) in [(args.name.as_str(), None), (name, brackets)] {
            match Found::in_archive(&archive, name) {
                Ok(found) => {
                    if brackets.is_some() && args.rows.is_some() {
                        return Err(invalid("the rows are given twice: in brackets and with --rows"));
                    }
                    let count = found.shape.first().copied();
                    let rows = brackets.or(args.rows.as_deref()).map(|rows| parse_rows(rows, count)).transpose()?;
                    return Ok((archive, found, rows));
                }
                Err(error) => missing = Some(error),
            }
        }
    }
    Err(missing.unwrap_or_else(|| invalid("there is no such tensor")))
}

/// Parses `a:b`, where either may be missing, or a single row.
fn parse_rows(text: &str, count: Option<u64>) -> Result<Range<u64>> {
    let bad = || invalid(format!("rows are given as a:b, not {text:?}"));
    let count = count.ok_or_else(|| invalid("a tensor without dimensions has no rows"))?;
    let number = |part: &str, missing: u64| match part.trim() {
        "" => Ok(missing),
        digits => digits.parse().map_err(|_| bad()),
    };
    let (start, end) = text.split_once(':').ok_or_else(bad)?;
    let rows = number(start, 0)?..number(end, count)?;
    if rows.start > rows.end || rows.end > count {
        return Err(invalid(format!("rows {}:{} of {count}", rows.start, rows.end)));
    }
    Ok(rows)
}

/// Where the piece is written: a name made from the tensor's can only be a plain file name.
fn target_path(args: &Extract, tensor: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = tensor.chars().map(plain).take(200).collect();
    let name = name.trim_start_matches('.');
    let extension = if args.format == Format::Npy { "npy" } else { "bin" };
    let default = format!("{}.{extension}", if name.is_empty() { "tensor" } else { name });
    match &args.output {
        Some(output) if output.is_dir() => output.join(default),
        Some(output) => output.clone(),
        None => PathBuf::from(default),
    }
}

impl Piece<'_> {
    /// Shape of the piece; rows replace the first dimension.
    fn shape(&self) -> Result<Vec<u64>> {
        let mut shape = self.found.shape.clone();
        if let (Some(rows), Some(first)) = (&self.rows, shape.first_mut()) {
            *first = rows.end - rows.start;
        }
        Ok(shape)
    }

    /// Writes the piece and returns its length in bytes.
    fn write(&self, sink: &mut dyn Write, context: &Context) -> Result<u64> {
        let failed = |e| Error::io("cannot write the tensor", e);
        let mut sink = BufWriter::with_capacity(1 << 20, sink);
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            len += bytes.len() as u64;
            sink.write_all(bytes).map_err(failed)
        };
        match (self.found.tensor, &self.rows) {
            (None, rows) => {
                let view = self.archive.open_view(&self.found.name)?;
                context.progress.begin(Phase::Decompressing, view.byte_len() as u64);
                let rows = rows.clone().unwrap_or(0..self.found.shape.first().copied().unwrap_or(0));
                put(&self.head(view.byte_len() as u64)?)?;
                view.for_each_piece(rows, |bytes| {
                    context.progress.advance(bytes.len() as u64);
                    put(bytes)
                })?;
            }
            (Some(_), Some(rows)) => {
                let bytes = self.archive.read_rows(&self.found.name, rows.clone())?;
                put(&self.head(bytes.len() as u64)?)?;
                put(&bytes)?;
            }
            (Some(tensor), None) => {
                let total = self.archive.index().tensor_len(tensor);
                context.progress.begin(Phase::Decompressing, total);
                self.archive.check_readable(tensor)?;
                put(&self.head(total)?)?;
                self.archive.for_each_block([tensor], context.threads, |block| {
                    context.progress.advance(block.bytes.len() as u64);
                    put(block.bytes)
                })?;
            }
        }
        sink.flush().map_err(failed)?;
        Ok(len)
    }

    /// What comes before the elements.
    fn head(&self, bytes: u64) -> Result<Vec<u8>> {
        if !self.npy {
            return Ok(Vec::new());
        }
        let form = self.found.form();
        Ok(npy::header(form.descr, &if form.flat { vec![bytes] } else { self.shape()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_parsed() {
        for (text, rows) in [("0:4", 0..4), (":", 0..9), ("3:", 3..9), (":2", 0..2), ("9:9", 9..9)] {
            assert_eq!(parse_rows(text, Some(9)).unwrap(), rows);
        }
        for text in ["", "1", "a:b", "3:2", "0:10", "-1:2", "1:2:3", "99999999999999999999:"] {
            assert_eq!(parse_rows(text, Some(9)).unwrap_err().code(), Code::InvalidArgument, "{text}");
        }
    }
}
