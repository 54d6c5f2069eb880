//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use cmz_codec::io::IoMode;
use cmz_codec::stream::Level;

use crate::device::DeviceArg;

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the data is wrong, 4 a newer cmz is needed, 5 refused.

Examples:
  cmz compress model.safetensors            writes model.cmz, decodes it and compares every bit
  cmz inspect model.cmz --tensors
  cmz verify model.cmz
  cmz decompress model.cmz -o back/         restores the same file, byte for byte";

/// Compresses neural-network checkpoints without losing a bit, and restores them.
#[derive(Debug, Parser)]
#[command(name = "cmz", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    /// Threads that work; 0 means all processors.
    #[arg(short = 'T', long, global = true, env = "CMZ_THREADS", default_value_t = 0, value_name = "N")]
    pub(crate) threads: usize,
    /// How files are read; auto maps local .cmz files and reads those on network file systems,
    /// and whatever is read only once, as by compress and verify.
    #[arg(long, global = true, env = "CMZ_IO", default_value = "auto", value_name = "HOW")]
    pub(crate) io: Io,
    /// Print the result, or the error, as JSON on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How progress is shown on standard error; auto shows a bar on a terminal.
    #[arg(long, global = true, env = "CMZ_PROGRESS", default_value = "auto", value_name = "HOW")]
    pub(crate) progress: ProgressMode,
    /// Neither progress nor notes.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// More notes.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to use colour; auto honours NO_COLOR.
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    Auto,
    Mmap,
    Pread,
}

impl From<Io> for IoMode {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Mmap => Self::Mmap,
            Io::Pread => Self::Pread,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    Auto,
    Bar,
    Plain,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Makes this the choice for both output streams.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "c")]
    Compress(Compress),
    #[command(visible_alias = "d")]
    Decompress(Decompress),
    #[command(visible_alias = "ls")]
    Inspect(Inspect),
    #[command(visible_alias = "test")]
    Verify(Verify),
    Extract(Extract),
    Recover(Recover),
    Import(Import),
    Export(Export),
    Bench(Bench),
    /// Show what cmz finds on this machine: instructions, CUDA driver, GPU.
    Doctor,
    Completions(Completions),
}

/// Compress safetensors files to .cmz.
///
/// An input is a file, a folder, or the *.safetensors.index.json of a sharded checkpoint. The
/// result is decoded and compared with the source before it appears under its name; the source
/// stays. An interrupted run goes on where it stopped when it is started again. Nothing is lost
/// unless --recipe or --plan asks for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz compress model.safetensors                writes model.cmz
  cmz compress model/ -o model-cmz/             a whole checkpoint, with its other files
  cmz compress model.safetensors.index.json -o out/
  cmz compress a.safetensors b.safetensors -o out/ --level max
  cmz compress tuned.safetensors --base model.cmz
  cmz compress model.safetensors --recipe int4:group=128 --only '*.mlp.*.weight'
  cmz compress model/ -o model-4bit/ --plan plan.toml
  cmz compress model.safetensors --recipe spqr3 --statistics stats.safetensors --target-bpw 4.5")]
pub(crate) struct Compress {
    /// Files, folders or shard indexes.
    #[arg(required = true, value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// File to write, or folder to write into.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove each source once its .cmz has been decoded and compared with it.
    #[arg(long, conflicts_with = "no_verify")]
    pub(crate) rm: bool,
    /// Keep the source (the default).
    #[arg(short, long)]
    pub(crate) keep: bool,
    /// Fast: decodes at the speed of memory. Max: the smallest files.
    #[arg(long, default_value = "fast")]
    pub(crate) level: LevelArg,
    /// Use this stream codec wherever possible (`cmz inspect --codecs` lists them).
    #[arg(long, value_name = "NAME")]
    pub(crate) codec: Option<String>,
    /// Do not decode and compare the result.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Store only what differs from this .cmz file (or the best of a folder), which is needed to restore the result.
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Vec<PathBuf>,
    /// Do not copy the other files of a folder.
    #[arg(long)]
    pub(crate) no_aux: bool,
    #[command(flatten)]
    pub(crate) rounding: Rounding,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rounding weights (docs/quantize.md)")]
pub(crate) struct Rounding {
    /// Round matrices by this recipe; everything else is stored exactly.
    #[arg(long, value_name = "NAME[:PARAM=VALUE,…]", conflicts_with = "plan")]
    pub(crate) recipe: Option<String>,
    /// Round only tensors whose names match this pattern.
    #[arg(long, value_name = "GLOB", requires = "recipe")]
    pub(crate) only: Vec<String>,
    /// Round as this plan file says.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Second-order statistics of the layers' inputs, for recipes that need them and to measure outputs.
    #[arg(long, value_name = "FILE")]
    pub(crate) statistics: Option<PathBuf>,
    /// Spread bits over the rounded tensors of each file so that they have this many for a weight.
    #[arg(long, value_name = "BITS", conflicts_with = "target_size")]
    pub(crate) target_bpw: Option<f64>,
    /// Spread bits over the rounded tensors so that the file has about this many bytes.
    #[arg(long, value_name = "BYTES")]
    pub(crate) target_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    Fast,
    Max,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Fast => Self::Fast,
            LevelArg::Max => Self::Max,
        }
    }
}

/// Restore what was compressed, byte for byte.
///
/// A file appears under its name only if its SHA-256 is the one of the source.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz decompress model.cmz                      writes model.safetensors
  cmz decompress model-cmz/ -o back/            a whole checkpoint
  cmz decompress tuned.cmz --base model.cmz")]
pub(crate) struct Decompress {
    /// .cmz files, or folders of them.
    #[arg(required = true, value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// File to write, or folder to write into.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove each .cmz file once it has been restored.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep the source (the default).
    #[arg(short, long)]
    pub(crate) keep: bool,
    /// File, or folder of files, that the input was compressed against. Give its own base before it.
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Vec<PathBuf>,
    /// Do not copy the other files of a folder.
    #[arg(long)]
    pub(crate) no_aux: bool,
}

/// Show what a .cmz or safetensors file holds, without decoding it unless --entropy is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz inspect model.cmz                         totals
  cmz inspect model.cmz --sort bpw --top 10     the ten tensors that compress least
  cmz inspect model.cmz --json | jq .totals
  cmz inspect model.cmz --entropy               how near it comes to what codes can reach
  cmz inspect --codecs")]
pub(crate) struct Inspect {
    /// Files or folders.
    #[arg(required_unless_present = "codecs", value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// List the tensors, and the views that come from them.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// List the tensors in this order: by name, or the largest value first.
    #[arg(long, value_name = "KEY")]
    pub(crate) sort: Option<SortKey>,
    /// List only the first N tensors.
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// List the blocks of the tensors, too.
    #[arg(long)]
    pub(crate) blocks: bool,
    /// List the tensors of .cmz files with the order-0 entropy of their component arrays, in bits per
    /// weight, and what more is stored. Everything is decoded for it.
    #[arg(long)]
    pub(crate) entropy: bool,
    /// List the stream codecs, encodings and layouts of views that this cmz knows.
    #[arg(long)]
    pub(crate) codecs: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortKey {
    Name,
    Size,
    Bpw,
    Ratio,
}

/// Check that .cmz files are whole.
///
/// Every byte is read, every block decoded, and the SHA-256 of the source compared. Damage is
/// reported block by block.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz verify model.cmz
  cmz verify model-cmz/ --quick                 checksums of what is stored, nothing is decoded
  cmz verify model.cmz --against model.safetensors
  cmz verify model.cmz --device cuda            the GPU decodes the same bits, too")]
pub(crate) struct Verify {
    /// Files or folders.
    #[arg(required = true, value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Check the stored bytes only, without decoding.
    #[arg(long)]
    pub(crate) quick: bool,
    /// File, or folder of files, that the input was compressed against. Give its own base before it.
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Vec<PathBuf>,
    /// Compare with this safetensors file (or folder of them), byte by byte.
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// Decode on this device, too, and compare with the CPU: cpu (not), cuda, cuda:N, or auto.
    #[arg(long, default_value = "cpu", value_name = "DEVICE", conflicts_with = "quick")]
    pub(crate) device: DeviceArg,
}

/// Write one tensor or view, or rows of it, as .npy or raw bytes.
///
/// Only the blocks that hold the rows are read and decoded. Element types that NumPy lacks are
/// written as unsigned integers of the same width (BF16 as u2) or as bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz extract model.cmz lm_head.weight                     writes lm_head.weight.npy
  cmz extract model.cmz 'lm_head.weight[0:128]' -o rows.npy
  cmz extract model.cmz lm_head.weight --format raw -o - | sha256sum")]
pub(crate) struct Extract {
    /// File or folder.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// Tensor or view, or rows of it: `NAME` or `NAME[a:b]`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Rows a to b - 1 of the first dimension; either may be left out.
    #[arg(long, value_name = "a:b")]
    pub(crate) rows: Option<String>,
    /// File to write, folder to write into, or - for standard output.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// File, or folder of files, that the input was compressed against. Give its own base before it.
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Vec<PathBuf>,
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// What to write.
    #[arg(long, default_value = "npy")]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Npy,
    Raw,
}

/// Save what is whole of a damaged or cut .cmz file.
///
/// Writes a new .cmz file with every tensor that is whole and lists those that are lost. The
/// exit code is 3 if any is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz recover model.cmz                         writes model.recovered.cmz
  cmz recover model.cmz.partial -o whole.cmz")]
pub(crate) struct Recover {
    /// The damaged file.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// File to write.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Make .cmz files of a checkpoint that another program has compressed or quantized.
///
/// Compressed weights come back bit for bit, under their original names. Quantized ones stay what
/// they are, file by file, byte for byte; the .cmz files also say what weights they stand for, which
/// `cmz extract` computes. The checkpoint stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz import dfloat11 model-DF11/ --like model/ -o model-cmz/
  cmz import auto model-GPTQ/ -o model-cmz/")]
pub(crate) struct Import {
    #[command(subcommand)]
    pub(crate) kind: ImportKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportKind {
    Dfloat11(ImportDfloat11),
    /// Import a quantized checkpoint, by whatever program its configuration names.
    Auto(ImportQuantized),
    /// Import a checkpoint of AWQ (GEMM kernels).
    Awq(ImportQuantized),
    /// Import a checkpoint of bitsandbytes: NF4, FP4 or LLM.int8.
    Bitsandbytes(ImportQuantized),
    /// Import a checkpoint of compressed-tensors: integers, FP8, NVFP4 or MXFP4.
    CompressedTensors(ImportQuantized),
    /// Import an FP8 checkpoint, as those of DeepSeek.
    Fp8(ImportQuantized),
    /// Import a checkpoint of GPTQ, version 1 or 2.
    Gptq(ImportQuantized),
    /// Import a checkpoint of ModelOpt: FP8 or NVFP4.
    Modelopt(ImportQuantized),
    /// Import an MXFP4 checkpoint, as gpt-oss.
    Mxfp4(ImportQuantized),
    /// Import a checkpoint of QMoE: safetensors, or the .pt files that it publishes.
    Qmoe(ImportQuantized),
    /// Import a checkpoint of SpQR's inference library.
    Spqr(ImportQuantized),
    Torch(ImportTorch),
}

/// What every import of a quantized checkpoint is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz import auto model-GPTQ/ -o model-cmz/
  cmz inspect model-cmz/ --tensors                                          lists the weights as views
  cmz extract model-cmz/ model.layers.0.mlp.down_proj.weight                computes them
  cmz decompress model-cmz/ -o back/                                        restores the quantized files")]
pub(crate) struct ImportQuantized {
    /// Folder of the checkpoint, one of its safetensors or .pt files, or its *.safetensors.index.json.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// File to write, or folder to write into.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) writing: ImportWriting,
}

/// How every import writes its files.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportWriting {
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Fast: decodes at the speed of memory. Max: the smallest files.
    #[arg(long, default_value = "fast")]
    pub(crate) level: LevelArg,
    /// Use this stream codec wherever possible (`cmz inspect --codecs` lists them).
    #[arg(long, value_name = "NAME")]
    pub(crate) codec: Option<String>,
    /// Do not decode and compare the result.
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// Import a DFloat11 checkpoint (versions 0.2 to 0.5).
///
/// DFloat11 keeps no shapes, and its own names: --like gives those of the original. Only the
/// headers of its safetensors files are read, so each may be cut off behind its header. There
/// is one .cmz file for each of them. Where a checkpoint holds just the tensors of the
/// original, `cmz decompress` restores the original file, byte for byte. DFloat11 has no
/// checksums: compare its SHA-256 with a published one where there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz import dfloat11 model-DF11/ --like model.safetensors -o model.cmz
  cmz import dfloat11 model-DF11/ --like model.safetensors.index.json -o model-cmz/
  cmz import dfloat11 flux-DF11.safetensors --config layout.json --like flux.safetensors -o flux.cmz

The header alone of a published file: its first 8 bytes are a number n, the lowest byte first;
then fetch bytes 0 to n + 7, as with `curl -r 0-$((n + 7)) URL -o model.safetensors`.")]
pub(crate) struct ImportDfloat11 {
    /// Folder of a checkpoint, or its one safetensors file.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// The original: a safetensors file, a folder of them or their *.safetensors.index.json.
    #[arg(long, value_name = "ORIGINAL")]
    pub(crate) like: PathBuf,
    /// File to write, or folder to write into.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// File with the dfloat11_config, in place of the config.json next to the checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) writing: ImportWriting,
}

/// Import a file of torch.save: a state_dict, or dicts and lists of tensors.
///
/// Nothing in the file is executed: its pickle is read for what dicts of tensors need, and anything else in it is an error.
/// `cmz decompress FILE -o NAME.pt` restores the file, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cmz import torch pytorch_model.bin -o model.cmz")]
pub(crate) struct ImportTorch {
    /// The file.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// File to write.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) writing: ImportWriting,
}

/// Write tensors of a .cmz file as another program wants them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cmz export qmoe model.cmz -o experts.safetensors")]
pub(crate) struct Export {
    #[command(subcommand)]
    pub(crate) kind: ExportKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExportKind {
    Qmoe(ExportQmoe),
}

/// Write ternary weights as QMoE stores them, in a safetensors file.
///
/// Each matrix becomes w_comp, row_off, ter_minmax and an empty weight; those of a stack behind the tensor's name and their
/// number. Weights that came from such arrays become the same arrays again, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cmz export qmoe model.cmz -o experts.safetensors")]
pub(crate) struct ExportQmoe {
    /// A .cmz file.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// File to write.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Replace what is there.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Measure how fast a .cmz file is decoded, beside how fast memory is copied.
///
/// On a GPU: decoding from device memory to device memory, and loading from the file. Figures are
/// of the best run, in bytes of decoded data.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cmz bench model.cmz
  cmz bench model.cmz --device cuda")]
pub(crate) struct Bench {
    /// A .cmz file.
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,
    /// What decodes: cpu, cuda, cuda:N, or auto.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: DeviceArg,
    /// Runs of each measurement; one more does not count.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) runs: usize,
    /// File, or folder of files, that the input was compressed against. Give its own base before it.
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Vec<PathBuf>,
}

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cmz completions bash > ~/.local/share/bash-completion/completions/cmz")]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}
