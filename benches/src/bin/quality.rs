//! What quantizing does to a real model: bits, errors of its layers' outputs, time, method by method. Run it with
//! `cargo run --release -p cmz-benches --bin quality -- MODEL STATISTICS [--held-out STATISTICS] [--write FOLDER] [--threads N]`;
//! docs/quantize.md has the rest. It fails if the errors are not what they should be.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::Dtype;
use cmz_quantize::Matrix;
use cmz_quantize::solver::{
    Affine, Fit, Order, Outliers, Solver, SolverOptions, SpqrOptions, Statistics, output_error, weight_error,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Matrices with fewer rows or columns are left as they are.
const LEAST: u64 = 16;
/// Bits of an outlier: its value, and its column as a byte counted from the one before.
const OUTLIER_BITS: u32 = 24;

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let model = Model::read(&arguments)?;
    println!(
        "{} matrices of {} weights, {} with statistics",
        model.layers.len(),
        model.weights(),
        model.known().count()
    );
    println!(
        "| method | bits | output error | worst layer | held-out text | weight error | seconds |\n|---|---|---|---|---|---|---|"
    );
    let mut results = Vec::new();
    for method in METHODS {
        let result = model.measure(method, &arguments)?;
        println!("{result}");
        results.push(result);
    }
    judge(&results)
}

struct Arguments {
    model: PathBuf,
    statistics: PathBuf,
    held_out: Option<PathBuf>,
    folder: Option<PathBuf>,
    threads: usize,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut paths = Vec::new();
        let (mut held_out, mut folder, mut threads) = (None, None, SolverOptions::default().threads);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match &*argument {
                "--held-out" => held_out = Some(value()?.into()),
                "--write" => folder = Some(value()?.into()),
                "--threads" => threads = value()?.parse()?,
                _ => paths.push(PathBuf::from(argument)),
            }
        }
        let [model, statistics] = <[PathBuf; 2]>::try_from(paths).map_err(|_| "give MODEL and STATISTICS")?;
        Ok(Self { model, statistics, held_out, folder, threads })
    }
}

/// A safetensors file.
struct File(PlainFile, Header);

impl File {
    fn open(path: &Path) -> Result<Self> {
        let file = PlainFile::open(path)?;
        let header = Header::read(&file)?;
        Ok(Self(file, header))
    }

    fn bytes(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.byte_len() as usize];
        self.0.read_at(entry.range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// The Hessian for a tensor of `columns` columns, if there is one.
    fn statistics(&self, tensor: &str, columns: usize) -> Result<Option<Statistics>> {
        let name = format!("{tensor}.hessian");
        let Some(entry) = self.1.tensors.iter().find(|entry| entry.name == name) else { return Ok(None) };
        Ok(Some(Statistics::from_bytes(columns, &entry.shape, &self.bytes(entry)?)?))
    }
}

struct Layer {
    name: String,
    weights: Matrix,
    statistics: Option<Statistics>,
    held_out: Option<Statistics>,
}

struct Model {
    file: File,
    layers: Vec<Layer>,
}

impl Model {
    fn read(arguments: &Arguments) -> Result<Self> {
        let file = File::open(&arguments.model)?;
        let statistics = File::open(&arguments.statistics)?;
        let held_out = arguments.held_out.as_deref().map(File::open).transpose()?;
        let mut layers = Vec::new();
        for entry in &file.1.tensors {
            let &[rows, columns] = &*entry.shape else { continue };
            let Some(dtype) = Dtype::from_name(&entry.dtype) else { continue };
            if rows < LEAST || columns < LEAST {
                continue;
            }
            let columns = columns as usize;
            let Some(weights) = Matrix::from_bytes(dtype, rows as usize, columns, &file.bytes(entry)?) else {
                continue;
            };
            let held_out = held_out.as_ref().map(|file| file.statistics(&entry.name, columns)).transpose()?.flatten();
            let statistics = statistics.statistics(&entry.name, columns)?;
            layers.push(Layer { name: entry.name.clone(), weights, statistics, held_out });
        }
        Ok(Self { file, layers })
    }

    fn weights(&self) -> usize {
        self.layers.iter().map(|layer| layer.weights.data().len()).sum()
    }

    fn known(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| layer.statistics.is_some())
    }

    fn measure(&self, method: &'static Method, arguments: &Arguments) -> Result<Measured> {
        let start = Instant::now();
        let mut decoded = Vec::new();
        let mut bits = 0.0;
        for layer in &self.layers {
            let (matrix, per_weight) = method.quantize(layer, arguments.threads)?;
            bits += per_weight * matrix.data().len() as f64 / self.weights() as f64;
            decoded.push(matrix);
        }
        let seconds = start.elapsed().as_secs_f64();
        let pairs = || self.layers.iter().zip(&decoded);
        let errors = |of: fn(&Layer) -> Option<&Statistics>| -> Vec<f64> {
            let known = pairs().filter_map(|(layer, matrix)| Some((layer, matrix, of(layer)?)));
            known.map(|(layer, matrix, statistics)| output_error(&layer.weights, matrix, statistics)).collect()
        };
        let outputs = errors(|layer| layer.statistics.as_ref());
        let weights: Vec<f64> = pairs().map(|(layer, matrix)| weight_error(&layer.weights, matrix)).collect();
        if let Some(folder) = &arguments.folder {
            self.write(&folder.join(format!("{}.safetensors", method.file_name())), &decoded)?;
        }
        Ok(Measured {
            method,
            bits,
            output: mean(&outputs),
            worst: outputs.iter().copied().fold(0.0, f64::max),
            held_out: mean(&errors(|layer| layer.held_out.as_ref())),
            weight: mean(&weights),
            seconds,
        })
    }

    /// Writes the model with these matrices, in F32, and all else as it is.
    fn write(&self, path: &Path, decoded: &[Matrix]) -> Result<()> {
        let found = |entry: &Entry| self.layers.iter().position(|layer| layer.name == entry.name);
        let tensors = self.file.1.tensors.iter().map(|entry| match found(entry) {
            Some(at) => (&*entry.name, "F32", &*entry.shape, decoded[at].data().len() * 4),
            None => (&*entry.name, &*entry.dtype, &*entry.shape, entry.byte_len() as usize),
        });
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = cmz_benches::begin_safetensors(path, tensors)?;
        for entry in &self.file.1.tensors {
            match found(entry) {
                Some(at) => decoded[at].data().iter().try_for_each(|weight| file.write_all(&weight.to_le_bytes()))?,
                None => file.write_all(&self.file.bytes(entry)?)?,
            }
        }
        Ok(file.flush()?)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How matrices are quantized.
struct Method {
    name: &'static str,
    bits: u8,
    kind: Kind,
}

enum Kind {
    /// To nearest, in groups of so many columns.
    Nearest(usize),
    Gptq(usize),
    /// With this share of outliers.
    Spqr(f64),
}

/// The groups of 28 and of 24 have as many bits as SpQR with its outliers, or a few more.
const METHODS: &[Method] = &[
    Method { name: "round to nearest, 4 bits, groups of 32", bits: 4, kind: Kind::Nearest(32) },
    Method { name: "round to nearest, 4 bits, groups of 28", bits: 4, kind: Kind::Nearest(28) },
    Method { name: "GPTQ, 4 bits, groups of 32", bits: 4, kind: Kind::Gptq(32) },
    Method { name: "GPTQ, 4 bits, groups of 28", bits: 4, kind: Kind::Gptq(28) },
    Method { name: "SpQR, 4 bits", bits: 4, kind: Kind::Spqr(0.0) },
    Method { name: "SpQR, 4 bits, 0.3 % outliers", bits: 4, kind: Kind::Spqr(0.003) },
    Method { name: "round to nearest, 3 bits, groups of 32", bits: 3, kind: Kind::Nearest(32) },
    Method { name: "round to nearest, 3 bits, groups of 24", bits: 3, kind: Kind::Nearest(24) },
    Method { name: "GPTQ, 3 bits, groups of 32", bits: 3, kind: Kind::Gptq(32) },
    Method { name: "GPTQ, 3 bits, groups of 24", bits: 3, kind: Kind::Gptq(24) },
    Method { name: "SpQR, 3 bits", bits: 3, kind: Kind::Spqr(0.0) },
    Method { name: "SpQR, 3 bits, 0.6 % outliers", bits: 3, kind: Kind::Spqr(0.006) },
];

impl Method {
    fn file_name(&self) -> String {
        let name: String = self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        name.to_lowercase().split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// The weights that a layer's codes decode to, and bits of a weight.
    fn quantize(&self, layer: &Layer, threads: usize) -> Result<(Matrix, f64)> {
        let columns = layer.weights.columns();
        let statistics = match self.kind {
            Kind::Nearest(_) => None,
            _ => layer.statistics.clone(),
        };
        let statistics = statistics.unwrap_or_else(|| Statistics::identity(columns));
        let solver = Solver::new(&statistics, SolverOptions { threads, order: Order::Activation, damping: 0.01 })?;
        match self.kind {
            Kind::Nearest(group) | Kind::Gptq(group) => {
                let grid = Affine::new(self.bits);
                let solved = solver.gptq(&layer.weights, &grid, group, Fit::Static)?;
                // Of each group a scale of 16 bits and a zero point.
                let groups = columns.div_ceil(group) as f64 / columns as f64;
                let bits = f64::from(self.bits) + f64::from(16 + self.bits) * groups;
                Ok((solved.decode(&grid), bits))
            }
            Kind::Spqr(share) => {
                let options =
                    SpqrOptions { bits: self.bits, outliers: Outliers::Share(share), ..SpqrOptions::default() };
                let solved = solver.spqr(&layer.weights, options)?;
                Ok((solved.decode(), solved.bits_per_weight(OUTLIER_BITS)))
            }
        }
    }
}

struct Measured {
    method: &'static Method,
    bits: f64,
    output: f64,
    worst: f64,
    held_out: f64,
    weight: f64,
    seconds: f64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method: Method { name, .. }, bits, output, worst, held_out, weight, seconds } = self;
        let held_out = if held_out.is_nan() { "–".to_owned() } else { format!("{held_out:.6}") };
        write!(f, "| {name} | {bits:.3} | {output:.6} | {worst:.6} | {held_out} | {weight:.4} | {seconds:.1} |")
    }
}

/// Compares each SpQR with all methods of its width that have as many bits or more.
fn judge(results: &[Measured]) -> Result<()> {
    let mut failed = Vec::new();
    for spqr in results.iter().filter(|result| matches!(result.method.kind, Kind::Spqr(_))) {
        for other in results.iter().filter(|other| other.bits >= spqr.bits && other.method.bits == spqr.method.bits) {
            let at_most = match other.method.kind {
                Kind::Nearest(_) => 0.5,
                Kind::Gptq(_) => 1.0,
                Kind::Spqr(_) => continue,
            };
            let share = spqr.output / other.output;
            println!(
                "{}: {share:.3} of the output error of {}, at most {at_most}",
                spqr.method.name, other.method.name
            );
            if share > at_most {
                failed.push(spqr.method.name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not good enough: {failed:?}").into()) }
}
