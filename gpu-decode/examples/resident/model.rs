//! A small transformer on the device, with random weights: attention and a gated MLP a layer (no positional encoding), one token at a
//! time. Where a layer's weights are is the caller's business, so that those that stay compressed and those that do not
//! go through the same kernels.
#![expect(unsafe_code, reason = "kernels take device addresses")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmz_codec::{Archive, Code, Error, Result};
use cmz_gpu_decode::{DeviceMemory, GpuDecoder, Layer, ResidentLayers};
use cmz_tests::inputs::{Rng, bf16_weights};
use cmz_tests::source::Source;
use cudarc::driver::{CudaFunction, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// Dimensions of a head, and positions of the cache, as in attention.cu.
const HEAD: u32 = 64;
const MOST_POSITIONS: u32 = 1024;
/// Threads that make a row, as in matvec.cu.
const MATVEC_THREADS: u32 = 128;

/// Sizes of the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    /// Elements of the residual stream: a multiple of 64.
    pub(crate) width: u32,
    /// Elements between the two halves of the MLP.
    pub(crate) hidden: u32,
}

/// The tensors of a layer, in the order of their addresses.
const TENSORS: [&str; 9] = ["norm1", "query", "key", "value", "output", "norm2", "gate", "up", "down"];

impl Shape {
    fn of_tensor(&self, name: &str) -> Vec<u64> {
        let (width, hidden) = (u64::from(self.width), u64::from(self.hidden));
        match name {
            "norm1" | "norm2" => vec![width],
            "gate" | "up" => vec![hidden, width],
            "down" => vec![width, hidden],
            _ => vec![width, width],
        }
    }

    /// A safetensors file with random weights.
    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        let mut source = Source::new();
        for (layer, number) in (0..self.layers).flat_map(|layer| (0..TENSORS.len()).map(move |number| (layer, number)))
        {
            let shape = self.of_tensor(TENSORS[number]);
            let seed = (layer * TENSORS.len() + number) as u64;
            let count = shape.iter().product::<u64>() as usize;
            let bytes = if shape.len() == 1 { norm(seed, count) } else { bf16_weights(seed, count) };
            source = source.tensor(&format!("layers.{layer}.{}", TENSORS[number]), "BF16", &shape, bytes);
        }
        source.build()
    }

    /// The numbers of each layer's tensors.
    ///
    /// # Errors
    /// If the archive is not of such a model.
    pub(crate) fn layers_of(&self, archive: &Archive) -> Result<Vec<Vec<usize>>> {
        let layer =
            |layer| TENSORS.iter().map(|name| archive.find(&format!("layers.{layer}.{name}"))).collect::<Result<_>>();
        (0..self.layers).map(layer).collect()
    }
}

/// Scales near 1, as BF16.
fn norm(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let scales = std::iter::repeat_with(|| ((1.0 + 0.1 * rng.normal()).to_bits() >> 16) as u16).take(count);
    scales.flat_map(u16::to_le_bytes).collect()
}

/// Addresses of a layer's tensors, for work that is submitted from now on.
pub(crate) trait Weights {
    fn layer(&mut self, layer: usize, stream: &Arc<CudaStream>) -> Result<[u64; TENSORS.len()]>;
}

impl Weights for ResidentLayers {
    fn layer(&mut self, layer: usize, stream: &Arc<CudaStream>) -> Result<[u64; TENSORS.len()]> {
        let layer: Layer<'_> = ResidentLayers::layer(self, layer, stream)?;
        Ok(std::array::from_fn(|i| layer.address(i)))
    }
}

/// Weights that lie in the memory of the device as they are.
pub(crate) struct Plain(Vec<Vec<DeviceMemory>>);

impl Plain {
    pub(crate) fn new(decoder: &GpuDecoder, archive: &Archive, layers: &[Vec<usize>]) -> Result<Self> {
        let stream = decoder.new_stream()?;
        let copy = |&tensor: &usize| {
            let bytes = archive.read(&archive.tensors()[tensor].name)?;
            let mut memory = decoder.allocate(bytes.len())?;
            memory.write(&stream, 0, &bytes)?;
            Ok(memory)
        };
        Ok(Self(layers.iter().map(|layer| layer.iter().map(copy).collect()).collect::<Result<_>>()?))
    }

    /// Bytes of device memory.
    pub(crate) fn device_len(&self) -> usize {
        self.0.iter().flatten().map(DeviceMemory::len).sum()
    }
}

impl Weights for Plain {
    fn layer(&mut self, layer: usize, _stream: &Arc<CudaStream>) -> Result<[u64; TENSORS.len()]> {
        Ok(std::array::from_fn(|i| self.0[layer][i].address()))
    }
}

/// The outputs of all tokens, as the bits of F32, and how long each token took.
pub(crate) struct Outcome {
    pub(crate) outputs: Vec<Vec<u8>>,
    pub(crate) token_time: Duration,
}

/// The model without its weights: kernels, activations, cache.
struct Runner<'a> {
    shape: &'a Shape,
    stream: Arc<CudaStream>,
    matvec: CudaFunction,
    attention: CudaFunction,
    activations: [DeviceMemory; 2],
    query: DeviceMemory,
    mixed: DeviceMemory,
    hidden: DeviceMemory,
    /// Keys and values of each layer.
    cache: Vec<[DeviceMemory; 2]>,
}

/// A product: addresses of what goes in, 0 for none, and the output.
#[derive(Default)]
struct Product {
    weights: u64,
    gate: u64,
    norm: u64,
    x: u64,
    residual: u64,
    y: u64,
}

/// Runs `tokens` tokens, each the output of the one before.
///
/// # Errors
/// [`Code::Device`], or what `weights` returns.
///
/// # Panics
/// If the width is not a multiple of 64, or there are more tokens than the cache takes.
pub(crate) fn run(decoder: &GpuDecoder, shape: &Shape, tokens: u32, weights: &mut impl Weights) -> Result<Outcome> {
    assert!(shape.width.is_multiple_of(HEAD) && tokens <= MOST_POSITIONS, "{shape:?}, {tokens} tokens");
    let mut runner = Runner::new(decoder, shape, tokens)?;
    let mut rng = Rng::new(1);
    let first: Vec<u8> = (0..shape.width).flat_map(|_| rng.normal().to_le_bytes()).collect();
    let stream = Arc::clone(&runner.stream);
    runner.activations[0].write(&stream, 0, &first)?;
    let begin = Instant::now();
    let mut outputs = Vec::new();
    for position in 0..tokens {
        for layer in 0..shape.layers {
            let addresses = weights.layer(layer, &stream)?;
            runner.layer(layer, position, addresses)?;
        }
        outputs.push(runner.activations[0].read(&stream)?);
    }
    Ok(Outcome { outputs, token_time: begin.elapsed() / tokens.max(1) })
}

impl<'a> Runner<'a> {
    fn new(decoder: &GpuDecoder, shape: &'a Shape, tokens: u32) -> Result<Self> {
        let function = |name, ptx| {
            let load = || decoder.context().load_module(Ptx::from_src(ptx))?.load_function(name);
            load().map_err(failed)
        };
        let floats = |count: u32| decoder.allocate(4 * count as usize);
        let cache = || Ok([floats(tokens * shape.width)?, floats(tokens * shape.width)?]);
        Ok(Self {
            shape,
            stream: decoder.new_stream()?,
            matvec: function("example_matvec", include_str!("../../ptx/example_matvec.ptx"))?,
            attention: function("example_attention", include_str!("../../ptx/example_attention.ptx"))?,
            activations: [floats(shape.width)?, floats(shape.width)?],
            query: floats(shape.width)?,
            mixed: floats(shape.width)?,
            hidden: floats(shape.hidden)?,
            cache: (0..shape.layers).map(|_| cache()).collect::<Result<_>>()?,
        })
    }

    fn layer(&mut self, layer: usize, position: u32, addresses: [u64; TENSORS.len()]) -> Result<()> {
        let [norm1, query, key, value, output, norm2, gate, up, down] = addresses;
        let Shape { width, hidden, .. } = *self.shape;
        let [x, y] = [0, 1].map(|i| self.activations[i].address());
        let [keys, values] = [0, 1].map(|i| self.cache[layer][i].address());
        let row = u64::from(position) * u64::from(width) * 4;
        for (weights, y) in [(query, self.query.address()), (key, keys + row), (value, values + row)] {
            self.product(width, width, &Product { weights, norm: norm1, x, y, ..Product::default() })?;
        }
        self.attend(keys, values, position + 1)?;
        let mixed = self.mixed.address();
        self.product(width, width, &Product { weights: output, x: mixed, residual: x, y, ..Product::default() })?;
        let inner = self.hidden.address();
        let halves = Product { weights: gate, gate: up, norm: norm2, x: y, y: inner, ..Product::default() };
        self.product(hidden, width, &halves)?;
        self.product(width, hidden, &Product { weights: down, x: inner, residual: y, y: x, ..Product::default() })
    }

    fn product(&self, rows: u32, columns: u32, p: &Product) -> Result<()> {
        let grid = LaunchConfig { grid_dim: (rows, 1, 1), block_dim: (MATVEC_THREADS, 1, 1), shared_mem_bytes: 0 };
        let mut launch = self.stream.launch_builder(&self.matvec);
        launch.arg(&p.weights).arg(&p.gate).arg(&p.norm).arg(&p.x).arg(&p.residual).arg(&p.y).arg(&columns);
        // SAFETY: the kernel's own parameters, and vectors and matrices of `rows` and `columns` elements.
        unsafe { launch.launch(grid) }.map(drop).map_err(failed)
    }

    fn attend(&self, keys: u64, values: u64, positions: u32) -> Result<()> {
        let width = self.shape.width;
        let grid = LaunchConfig { grid_dim: (width / HEAD, 1, 1), block_dim: (HEAD, 1, 1), shared_mem_bytes: 0 };
        let (query, mixed) = (self.query.address(), self.mixed.address());
        let mut launch = self.stream.launch_builder(&self.attention);
        launch.arg(&query).arg(&keys).arg(&values).arg(&mixed).arg(&positions).arg(&width);
        // SAFETY: the kernel's own parameters; the cache holds so many positions of `width` elements.
        unsafe { launch.launch(grid) }.map(drop).map_err(failed)
    }
}

fn failed(error: DriverError) -> Error {
    Error::new(Code::Device, format!("the model cannot be run: the CUDA driver reports {:?}", error.0))
}

/// A model that was run both ways.
pub(crate) struct Comparison {
    pub(crate) plain: Outcome,
    pub(crate) plain_len: usize,
    pub(crate) resident: Outcome,
    pub(crate) resident_len: usize,
}

/// Runs the model of a file with weights that lie plain in device memory, and with weights that stay compressed.
///
/// # Errors
/// An error of the file, or [`Code::Device`].
pub(crate) fn compare(decoder: &GpuDecoder, shape: &Shape, tokens: u32, file: &Path) -> Result<Comparison> {
    let archive = Archive::open(file)?;
    let layers = shape.layers_of(&archive)?;
    let mut plain = Plain::new(decoder, &archive, &layers)?;
    let mut resident = ResidentLayers::new(decoder, &archive, &layers, 2)?;
    // The first token of a process pays for what the driver puts off.
    run(decoder, shape, 1, &mut plain)?;
    Ok(Comparison {
        plain_len: plain.device_len(),
        resident_len: resident.device_len(),
        plain: run(decoder, shape, tokens, &mut plain)?,
        resident: run(decoder, shape, tokens, &mut resident)?,
    })
}
