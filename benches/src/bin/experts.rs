//! Experts below one bit a weight, end to end: a synthetic stack of Switch-like layers is made, rounded to ternary weights, inspected, and the
//! experts that a token is routed to are decoded and multiplied; beside it the same with the dense weights.
//! `cargo run --release -p cmz-benches --bin experts -- [--gigabytes N] [--recipe RECIPE] [--tokens N] [--experts N] [--d-model N] [--d-ff N] [--threads N] [--folder FOLDER]`
//! With a folder its files are kept, and used again: what was interrupted goes on.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmz_benches::{Gaussian, Random, begin_safetensors};
use cmz_codec::Archive;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::{CompressOptions, compress};
use cmz_codec::io::{IoMode, PlainFile, ReadAt};
use cmz_codec::safetensors::Header;
use cmz_quantize::plan::{Plan, StatisticsFile};
use half::bf16;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A stack of layers.
#[derive(Clone, Copy, Debug)]
struct Stack {
    layers: usize,
    experts: usize,
    d_model: usize,
    d_ff: usize,
    threads: usize,
}

impl Stack {
    /// Bytes of one matrix of an expert, dense.
    fn matrix_len(self) -> usize {
        self.d_model * self.d_ff * 2
    }

    /// The columns and rows of a matrix.
    fn sizes(self, linear: &str) -> (usize, usize) {
        if linear == "wi" { (self.d_model, self.d_ff) } else { (self.d_ff, self.d_model) }
    }

    /// The stacked matrices, in order: layer, name and shape.
    fn tensors(self) -> impl Iterator<Item = (String, [u64; 3])> {
        let of = move |layer: usize, linear: &str| {
            let (columns, rows) = self.sizes(linear);
            (name(layer, linear), [self.experts as u64, rows as u64, columns as u64])
        };
        (0..self.layers).flat_map(move |layer| [of(layer, "wi"), of(layer, "wo")])
    }
}

struct Arguments {
    gigabytes: f64,
    recipe: String,
    tokens: usize,
    folder: Option<PathBuf>,
    stack: Stack,
}

impl Arguments {
    /// Those of a Switch base model of half as many experts, where they are not given.
    fn read() -> Result<Self> {
        let stack = Stack { layers: 0, experts: 64, d_model: 768, d_ff: 3072, threads: 2 };
        let mut all = Self { gigabytes: 1.0, recipe: "ternary".to_owned(), tokens: 32, folder: None, stack };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--gigabytes" => all.gigabytes = value.parse()?,
                "--recipe" => all.recipe = value,
                "--tokens" => all.tokens = value.parse()?,
                "--folder" => all.folder = Some(value.into()),
                "--experts" => all.stack.experts = value.parse()?,
                "--d-model" => all.stack.d_model = value.parse()?,
                "--d-ff" => all.stack.d_ff = value.parse()?,
                "--threads" => all.stack.threads = value.parse()?,
                _ => return Err(format!("{name} is no option").into()),
            }
        }
        let Stack { experts, d_model, d_ff, threads, .. } = all.stack;
        if [experts, threads].contains(&0) || d_model % 16 != 0 || d_ff % 16 != 0 || d_model * d_ff == 0 {
            return Err("sizes are multiples of 16, and there are experts and threads".into());
        }
        let layer = (2 * experts * all.stack.matrix_len()) as f64;
        all.stack.layers = ((all.gigabytes * 1e9 / layer).round() as usize).max(1);
        Ok(all)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let made = || std::env::temp_dir().join(format!("cmz-experts-{}", std::process::id()));
    let folder = arguments.folder.clone().unwrap_or_else(made);
    std::fs::create_dir_all(&folder)?;
    let result = run(&arguments, &folder);
    if arguments.folder.is_none() {
        std::fs::remove_dir_all(&folder)?;
    }
    result
}

fn run(arguments: &Arguments, folder: &Path) -> Result<()> {
    let Arguments { stack, recipe, .. } = arguments;
    let (dense, stored) = (folder.join("dense.safetensors"), folder.join("experts.cmz"));
    let statistics = Some(folder.join("statistics.safetensors")).filter(|_| recipe.contains("gptq"));
    println!("{stack:?}\n\n| step | size | time | peak resident memory |\n|---|---|---|---|");
    if !dense.exists() {
        let (_, time, peak) = measured(|| write_layers(&dense, *stack))?;
        row("make the dense layers, BF16", Some(len(&dense)?), time, peak);
    }
    if let Some(path) = statistics.as_ref().filter(|path| !path.exists()) {
        let (_, time, peak) = measured(|| write_statistics(path, *stack))?;
        row("make statistics of each expert", Some(len(path)?), time, peak);
    }
    if !stored.exists() {
        let (resumed, time, peak) =
            measured(|| convert(&dense, &stored, statistics.as_deref(), recipe, stack.threads))?;
        let resumed = if resumed > 0 { format!(", {resumed} blocks of it taken over") } else { String::new() };
        row(&format!("convert with `{recipe}`, and verify{resumed}"), Some(len(&stored)?), time, peak);
    }
    let (archive, time, peak) = measured(|| Ok(Archive::open(&stored)?))?;
    row("open it", None, time, peak);
    route(arguments, &Dense::open(&dense)?, &archive)?;
    inspect(&archive);
    Ok(())
}

/// Sends tokens through the experts that they are routed to: the dense ones, and the stored ones.
fn route(arguments: &Arguments, dense: &Dense, archive: &Archive) -> Result<()> {
    let Arguments { stack, recipe, tokens, .. } = arguments;
    let (mut times, mut peaks) = ([Duration::ZERO; 4], [0; 2]);
    for token in 0..*tokens {
        let experts: Vec<u64> = (0..stack.layers).map(|layer| expert_of(token, layer, stack.experts)).collect();
        let input = input_of(token, stack.d_model);
        let (weights, read, peak) = measured(|| dense.read(*stack, &experts))?;
        peaks[0] = peaks[0].max(peak);
        let (_, multiply, _) = measured(|| Ok(through(&input, &weights)))?;
        let expected: Vec<[Vec<u8>; 2]> =
            weights.into_iter().map(|[wi, wo]| [rounded(wi, stack.d_model), rounded(wo, stack.d_ff)]).collect();
        let (weights, decode, peak) = measured(|| read_stored(archive, &experts, stack.threads))?;
        peaks[1] = peaks[1].max(peak);
        let (output, multiply_stored, _) = measured(|| Ok(through(&input, &weights)))?;
        for (sum, time) in times.iter_mut().zip([read, multiply, decode, multiply_stored]) {
            *sum += time;
        }
        if !recipe.contains("gptq") && weights != expected {
            return Err(format!("token {token}: the experts are not what they should be rounded to").into());
        }
        if output.iter().any(|x| !x.is_finite()) {
            return Err(format!("token {token}: the output is not finite").into());
        }
    }
    let of = |time: Duration| time / (*tokens).max(1) as u32;
    let steps =
        ["dense: read a token's experts", "dense: multiply", "stored: read and decode them", "stored: multiply"];
    for (i, step) in steps.into_iter().enumerate() {
        row(step, None, of(times[i]), peaks[i / 2]);
    }
    let bytes = (stack.layers * 2 * stack.matrix_len()) as f64 / 1e9;
    let rate = |time: Duration| bytes / of(time).as_secs_f64();
    let (read, decoded) = (rate(times[0]), rate(times[2]));
    println!("\nA token's experts are {bytes:.4} GB of BF16: read at {read:.2} GB/s, decoded at {decoded:.2} GB/s.");
    Ok(())
}

/// What `cmz inspect` tells, in short.
fn inspect(archive: &Archive) {
    let elements: u64 = archive.tensors().iter().filter_map(|tensor| tensor.elements().ok()).sum();
    let file = archive.index().file_len();
    println!(
        "The file has {:.3} bits a weight, everything included; errors of the weights:",
        file as f64 * 8.0 / elements as f64
    );
    for lossy in &archive.index().manifest().lossy {
        println!("  {}: {:.4}", lossy.tensor, lossy.error_ppb as f64 / 1e9);
    }
}

fn len(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn row(step: &str, size: Option<u64>, time: Duration, peak: u64) {
    let size = size.map_or("-".to_owned(), |size| format!("{:.3} GB", size as f64 / 1e9));
    println!("| {step} | {size} | {:.4} s | {} MB |", time.as_secs_f64(), peak >> 20);
}

/// Runs something: what it gives, how long it takes, and the most memory that the process held meanwhile.
fn measured<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration, u64)> {
    // Where the peak cannot be set back, it is that of all steps so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    let made = work()?;
    Ok((made, start.elapsed(), peak()))
}

/// The most memory that the process has held, in bytes; 0 where no `/proc` says.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

fn name(layer: usize, linear: &str) -> String {
    format!("encoder.block.{layer}.layer.1.mlp.experts.{linear}.weight")
}

fn write_layers(path: &Path, stack: Stack) -> Result<()> {
    let tensors: Vec<_> = stack.tensors().collect();
    let described =
        tensors.iter().map(|(name, shape)| (&**name, "BF16", &shape[..], stack.experts * stack.matrix_len()));
    let mut file = begin_safetensors(path, described)?;
    let (gaussian, mut random) = (Gaussian::default(), Random::new(1));
    let mut matrix = vec![0; stack.matrix_len()];
    for _ in 0..tensors.len() * stack.experts {
        gaussian.fill_bf16(&mut random, 0.02, &mut matrix);
        file.write_all(&matrix)?;
    }
    Ok(file.flush()?)
}

/// Inputs that go together, each expert's in another way; every seventh expert has seen none.
fn write_statistics(path: &Path, stack: Stack) -> Result<()> {
    let tensors: Vec<(String, [u64; 3])> = stack
        .tensors()
        .map(|(name, [experts, _, columns])| (format!("{name}.hessian"), [experts, columns, columns]))
        .collect();
    let len = |shape: &[u64; 3]| shape.iter().product::<u64>() as usize * 4;
    let described = tensors.iter().map(|(name, shape)| (&**name, "F32", &shape[..], len(shape)));
    let mut file = begin_safetensors(path, described)?;
    for (_, [experts, columns, _]) in &tensors {
        for expert in 0..*experts {
            let size = |i: u64| if expert % 7 == 3 { 0.0 } else { 0.5 + ((i + expert) % 13) as f32 };
            for i in 0..*columns {
                let element = |j: u64| 0.9f32.powi(i.abs_diff(j) as i32) * size(i) * size(j);
                let row: Vec<u8> = (0..*columns).flat_map(|j| element(j).to_le_bytes()).collect();
                file.write_all(&row)?;
            }
        }
    }
    Ok(file.flush()?)
}

/// Converts; how many blocks were taken over from an interrupted run.
fn convert(source: &Path, target: &Path, statistics: Option<&Path>, recipe: &str, threads: usize) -> Result<usize> {
    let plan = Plan::of_recipe(recipe, &[])?;
    let plan = match statistics {
        Some(path) => plan.with_statistics(StatisticsFile::open(path)?),
        None => plan,
    };
    let options = CompressOptions {
        encode: EncodeOptions::default(),
        threads,
        io: IoMode::Auto,
        replace: false,
        verify: true,
        bases: Vec::new(),
        quantizer: Some(Arc::new(plan)),
    };
    Ok(compress(source, target, &options, &())?.resumed_blocks)
}

/// The expert that a layer's router gives a token: any.
fn expert_of(token: usize, layer: usize, experts: usize) -> u64 {
    Random::new((token * 1009 + layer + 1) as u64).next_u64() % experts as u64
}

fn input_of(token: usize, len: usize) -> Vec<f32> {
    let mut random = Random::new(token as u64 + 1);
    (0..len).map(|_| (random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The dense layers, read as they lie.
struct Dense {
    file: PlainFile,
    header: Header,
}

impl Dense {
    fn open(path: &Path) -> Result<Self> {
        File::open(path)?.sync_all()?;
        let file = PlainFile::open(path)?;
        let header = Header::read(&file)?;
        Ok(Self { file, header })
    }

    /// Both matrices of one expert of each layer.
    fn read(&self, stack: Stack, experts: &[u64]) -> Result<Vec<[Vec<u8>; 2]>> {
        let one = |layer: usize, expert: u64, linear: &str| -> Result<Vec<u8>> {
            let name = name(layer, linear);
            let entry = self.header.tensors.iter().find(|entry| entry.name == name).ok_or("a tensor is missing")?;
            let mut bytes = vec![0; stack.matrix_len()];
            self.file.read_at(entry.range.start + expert * bytes.len() as u64, &mut bytes)?;
            Ok(bytes)
        };
        experts
            .iter()
            .enumerate()
            .map(|(layer, &expert)| Ok([one(layer, expert, "wi")?, one(layer, expert, "wo")?]))
            .collect()
    }
}

/// The same from the `.cmz` file: one call for all experts.
fn read_stored(archive: &Archive, experts: &[u64], threads: usize) -> Result<Vec<[Vec<u8>; 2]>> {
    let mut rows = Vec::new();
    for (layer, &expert) in experts.iter().enumerate() {
        for linear in ["wi", "wo"] {
            rows.push((archive.find(&name(layer, linear))?, expert..expert + 1));
        }
    }
    let mut all = archive.read_each(&rows, threads)?.into_iter();
    Ok(std::iter::from_fn(|| Some([all.next()?, all.next()?])).collect())
}

/// A token's way through the experts, with a residual: x + wo · relu(wi · x), layer by layer.
fn through(input: &[f32], layers: &[[Vec<u8>; 2]]) -> Vec<f32> {
    layers.iter().fold(input.to_vec(), |x, [wi, wo]| {
        let inner: Vec<f32> = product(wi, &x).into_iter().map(|y| y.max(0.0)).collect();
        x.iter().zip(product(wo, &inner)).map(|(x, y)| x + y).collect()
    })
}

/// A matrix of BF16 times a vector.
fn product(matrix: &[u8], vector: &[f32]) -> Vec<f32> {
    const LANES: usize = 16;
    let (vector, _) = vector.as_chunks::<LANES>();
    let dot = |row: &[u8]| {
        let (row, _) = row.as_chunks::<2>();
        let mut sums = [0.0f32; LANES];
        for (weights, x) in row.as_chunks::<LANES>().0.iter().zip(vector) {
            for ((sum, weight), x) in sums.iter_mut().zip(weights).zip(x) {
                *sum += f32::from_bits(u32::from(u16::from_le_bytes(*weight)) << 16) * x;
            }
        }
        sums.iter().sum()
    };
    matrix.chunks_exact(vector.len() * LANES * 2).map(dot).collect()
}

/// What QMoE's grid makes of rows of weights, in plain words: what is more than half of the greatest becomes it, and so with the least.
fn rounded(mut matrix: Vec<u8>, width: usize) -> Vec<u8> {
    for row in matrix.chunks_exact_mut(2 * width) {
        let (weights, _) = row.as_chunks_mut::<2>();
        let value = |bytes: &[u8; 2]| bf16::from_le_bytes(*bytes).to_f32();
        let low = weights.iter().map(value).fold(0.0, f32::min);
        let high = weights.iter().map(value).fold(0.0, f32::max);
        for weight in weights {
            let x = value(weight);
            let near = if x > high / 2.0 {
                high
            } else if x < low / 2.0 {
                low
            } else {
                0.0
            };
            *weight = bf16::from_f32(near).to_le_bytes();
        }
    }
    matrix
}
