//! `cmz inspect`.

mod cmz;
mod source;
mod table;

use std::io::Read;
use std::path::Path;

use cmz_codec::{Code, Error, Result, checkpoint, registry};
use cmz_format::MAGIC;
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::context::Context;
use crate::report::Report;
use crate::text::{self, count, ratio, size};

pub(crate) fn run(args: &Inspect, context: &Context) -> Report {
    let mut report = Report::default();
    if args.codecs {
        codecs(&mut report);
    }
    let mut files = Vec::new();
    for input in &args.inputs {
        let inside = checkpoint::files_of(input).unwrap_or_else(|error| {
            report.errors.push(error);
            Vec::new()
        });
        for file in inside {
            match inspect(&file, args, context) {
                Ok(shown) => {
                    report.text.push_str(&shown.text);
                    files.push(shown);
                }
                Err(error) => report.errors.push(error),
            }
        }
    }
    if !args.inputs.is_empty() {
        let totals = Totals::sum(files.iter().map(|file| &file.totals));
        if files.len() > 1 {
            report.text.push_str(&format!("{}\n{}", count(files.len() as u64, "file"), totals.text()));
        }
        report.json.insert("totals".to_owned(), totals.json());
        report.json.insert("files".to_owned(), files.into_iter().map(|file| file.json).collect());
    }
    report
}

/// What is shown of a file.
struct Shown {
    text: String,
    json: Value,
    totals: Totals,
}

/// Sums over files.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    files: u64,
    tensors: u64,
    elements: u64,
    file_len: u64,
    source_len: u64,
    /// With --entropy.
    measured: Option<Measured>,
}

/// Tensors whose entropy has been measured.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    elements: u64,
    /// Order-0 entropy of the component arrays, in bits.
    bits: u64,
    /// Length as stored, in bytes.
    stored_len: u64,
}

impl Measured {
    fn sum(all: impl Iterator<Item = Self>) -> Option<Self> {
        all.reduce(|sum, one| Self {
            elements: sum.elements.saturating_add(one.elements),
            bits: sum.bits + one.bits,
            stored_len: sum.stored_len + one.stored_len,
        })
    }

    /// Entropy in bits per weight.
    fn entropy(self) -> Option<f64> {
        (self.elements > 0).then(|| self.bits as f64 / self.elements as f64)
    }

    /// What is stored, in bits per weight.
    fn stored(self) -> Option<f64> {
        (self.elements > 0).then(|| self.stored_len as f64 * 8.0 / self.elements as f64)
    }

    /// In percent, what is stored above the entropy.
    fn above(self) -> Option<f64> {
        (self.bits > 0).then(|| (self.stored_len as f64 * 8.0 / self.bits as f64 - 1.0) * 100.0)
    }

    fn json(self) -> Value {
        json!({
            "bits_per_weight": self.entropy(),
            "stored_bits_per_weight": self.stored(),
            "percent_above": self.above(),
        })
    }
}

/// A number with its decimals, or that there is none.
fn decimal(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

impl Totals {
    fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            files: sum.files + one.files,
            tensors: sum.tensors + one.tensors,
            elements: sum.elements.saturating_add(one.elements),
            file_len: sum.file_len + one.file_len,
            source_len: sum.source_len.saturating_add(one.source_len),
            measured: Measured::sum(sum.measured.into_iter().chain(one.measured)),
        })
    }

    fn bits_per_weight(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.file_len as f64 * 8.0 / self.elements as f64)
    }

    fn text(&self) -> String {
        let bpw = decimal(self.bits_per_weight(), 2);
        let mut text = format!(
            "  size             {} ({} bytes)\n  uncompressed     {} ({} bytes)\n  ratio            {:.4}\n  \
             bits per weight  {bpw}\n  tensors          {}\n  elements         {}\n",
            size(self.file_len),
            self.file_len,
            size(self.source_len),
            self.source_len,
            ratio(self.file_len, self.source_len),
            self.tensors,
            self.elements,
        );
        if let Some(measured) = self.measured {
            text.push_str(&format!(
                "  entropy          {} bits per weight; the streams have {}, {} % more\n",
                decimal(measured.entropy(), 3),
                decimal(measured.stored(), 3),
                decimal(measured.above(), 2),
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "files": self.files,
            "file_len": self.file_len,
            "source_len": self.source_len,
            "ratio": ratio(self.file_len, self.source_len),
            "bits_per_weight": self.bits_per_weight(),
            "tensors": self.tensors,
            "elements": self.elements,
        });
        if let Some(measured) = self.measured {
            json["entropy"] = measured.json();
        }
        json
    }
}

fn inspect(file: &Path, args: &Inspect, context: &Context) -> Result<Shown> {
    let mut start = Vec::new();
    // A file that cannot be read fails below, with the reason.
    let _ = std::fs::File::open(file).map(|file| file.take(8).read_to_end(&mut start));
    let is_cmz = start.starts_with(&MAGIC) || file.extension().is_some_and(|e| e == "cmz");
    if is_cmz {
        return cmz::show(&context.open(file)?, file, args, context.threads);
    }
    if args.entropy {
        let why = "--entropy is about component arrays, which only .cmz files have";
        return Err(Error::new(Code::InvalidArgument, why).in_file(file));
    }
    source::show(file, args)
}

/// Prints the registry.
fn codecs(report: &mut Report) {
    let version = |(major, minor): (u16, u16)| format!("{major}.{minor}");
    let cuda = |kernel: Option<&str>| kernel.unwrap_or("-").to_owned();
    let streams = registry::STREAMS.iter().map(|entry| {
        let id = entry.codec.id().to_string();
        vec![
            "stream".to_owned(),
            id,
            entry.codec.name().to_owned(),
            version(entry.since),
            cuda(entry.cuda_kernel),
            about(entry.spec),
        ]
    });
    let encodings = registry::ENCODINGS.iter().map(|entry| {
        let name = entry.encoding.name().to_owned();
        vec![
            "encoding".to_owned(),
            "-".to_owned(),
            name,
            version(entry.since),
            cuda(entry.cuda.then_some("joined")),
            about(entry.spec),
        ]
    });
    let references = registry::REFERENCES.iter().map(|entry| {
        let name = entry.operation.name().to_owned();
        vec!["encoding".to_owned(), "-".to_owned(), name, version(entry.since), cuda(None), about(entry.spec)]
    });
    let layouts = registry::LAYOUTS.iter().map(|entry| {
        let name = entry.layout.name().to_owned();
        vec!["layout".to_owned(), "-".to_owned(), name, version(entry.since), cuda(None), about(entry.spec)]
    });
    let rows: Vec<_> = streams.chain(encodings).chain(references).chain(layouts).collect();
    report.text.push_str(&text::table(&["kind", "id", "name", "since", "cuda", "what"], &[1], &rows));
    let stream_json = |entry: &registry::StreamEntry| json!({"id": entry.codec.id(), "name": entry.codec.name(), "since": version(entry.since), "cuda_kernel": entry.cuda_kernel});
    let encoding_json = |entry: &registry::EncodingEntry| json!({"name": entry.encoding.name(), "since": version(entry.since), "cuda": entry.cuda});
    report.json.insert("streams".to_owned(), registry::STREAMS.iter().map(stream_json).collect());
    let reference_json = |entry: &registry::ReferenceEntry| json!({"name": entry.operation.name(), "since": version(entry.since), "cuda": false});
    let encodings = registry::ENCODINGS.iter().map(encoding_json);
    let encodings = encodings.chain(registry::REFERENCES.iter().map(reference_json));
    report.json.insert("encodings".to_owned(), encodings.collect());
    let layout_json =
        |entry: &registry::LayoutEntry| json!({"name": entry.layout.name(), "since": version(entry.since)});
    report.json.insert("layouts".to_owned(), registry::LAYOUTS.iter().map(layout_json).collect());
}

/// The beginning of a specification, up to the first stop.
fn about(spec: &str) -> String {
    let lines = spec.lines().skip_while(|line| line.is_empty() || line.starts_with('#'));
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    paragraph.split(['.', ':', ';', '(']).next().unwrap_or_default().trim_end().to_owned()
}
