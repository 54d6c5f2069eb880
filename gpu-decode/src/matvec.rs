//! Products with quantized matrices, which are read as codes and never decoded.
//!
//! The matrix is laid out once, on the host: codes packed row by row, and two numbers for each group of a row. What the product
//! is, and in which order its sums are taken, says `kernels/matvec.cuh`.

use std::sync::Arc;

use cmz_codec::device::{DecodedComponent, DeviceAffine, DeviceFloat, DeviceGroups, DeviceNode, DeviceShift};
use cmz_codec::{Archive, Code, Error, Result, pipeline};
use cudarc::driver::{CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};
use half::{bf16, f16};

use crate::decoder::GpuDecoder;
use crate::kernel::Kernel;
use crate::memory::{DeviceMemory, failed};

/// Rows of a CTA.
const ROWS: u32 = 4;
/// Threads of a CTA.
const THREADS: u32 = 128;
/// Vectors that `cmz_matmat` takes at a time.
const VECTORS: u32 = 4;
/// Columns whose codes are packed into whole bytes.
const GRANULE: usize = 8;
/// Vectors of one product, at most.
const MOST_VECTORS: u32 = 16;

/// What the codes and the two numbers of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Weights {
    /// `s (c - m) + t`, with `s` and `t` in single precision and `m` the middle of the codes' range.
    Linear = 0,
    /// `s (c - z)`, with `s` and `z` in half precision.
    LinearHalf = 1,
    /// 0 and two brain floats.
    Ternary = 2,
}

/// What the kernels take: `struct Product` of `matvec.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Product {
    codes: u64,
    pairs: u64,
    x: u64,
    y: u64,
    by_group: u64,
    code_row: u64,
    rows: u32,
    columns: u32,
    group: u32,
    groups: u32,
    batch: u32,
    bits: u32,
    weights: u32,
    spare: u32,
}

const _: () = assert!(size_of::<Product>() == 80);

// SAFETY: integers without padding, as the kernels declare them.
unsafe impl DeviceRepr for Product {}

/// A quantized matrix in the memory of the device.
///
/// A product `y = W x` is computed in single precision from the weights as their encoding defines them, before they are rounded to
/// the tensor's type. Let `w = s (c - m) + t` be a weight of a group with scale `s`, where `m` is the middle of the codes' range and
/// `t` what the zero point or the bias makes of it. With `n` columns, `u = 2⁻²⁴` and `K = 24 + 2 ⌈n / 1024⌉`, or `24 + 16 ⌈n / 1024⌉` where groups are not
/// whole times 8 columns, each `y` differs from the exact product by at most `K u / (1 − K u)` times the sum of `(|s (c − m)| + |t|) |x|` (N. Higham, Accuracy and Stability of Numerical Algorithms, §3.1): every `x`
/// goes through at most so many operations. Of `ternary`, `|w| |x|` takes the place of the summand. It holds where nothing overflows or underflows.
#[derive(Debug)]
pub struct QuantizedMatrix {
    memory: DeviceMemory,
    product: Product,
    one: CudaFunction,
    several: CudaFunction,
}

impl GpuDecoder {
    /// Reads a matrix that is stored by `affine`, nested or not, or `ternary`, and lays it out in device memory. Its components are
    /// decoded by the CPU, on `threads` threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor, or it is no such matrix; an error of the file; [`Code::Device`].
    pub fn quantized_matrix(&self, archive: &Archive, tensor: usize, threads: usize) -> Result<QuantizedMatrix> {
        let Some(description) = archive.tensors().get(tensor) else {
            return Err(Error::new(Code::InvalidArgument, format!("there is no tensor {tensor}")));
        };
        let layout = Layout::read(archive, tensor, threads).map_err(|e| e.in_tensor(&description.name))?;
        let stream = self.new_stream()?;
        let pairs_at = layout.codes.len().next_multiple_of(256);
        let mut memory = self.allocate(pairs_at + layout.pairs.len())?;
        memory.write(&stream, 0, &layout.codes)?;
        memory.write(&stream, pairs_at, &layout.pairs)?;
        let product = Product { codes: memory.address(), pairs: memory.address() + pairs_at as u64, ..layout.product };
        Ok(QuantizedMatrix {
            memory,
            product,
            one: self.kernels.get(Kernel::Matvec)?,
            several: self.kernels.get(Kernel::Matmat)?,
        })
    }
}

impl QuantizedMatrix {
    /// Number of rows, which is that of the elements of `y`.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.product.rows as usize
    }

    /// Number of columns, which is that of the elements of `x`.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.product.columns as usize
    }

    /// Bytes of device memory.
    #[must_use]
    pub fn device_len(&self) -> usize {
        self.memory.len()
    }

    /// Submits `y = W x` for `batch` vectors, one behind the other. Nothing is allocated, and nothing waits, so that it can be captured
    /// in a graph. A vector's result does not depend on the others, but a single one is summed up by another kernel than several.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if `batch` is not 1 to 16, or [`Code::Device`].
    ///
    /// # Safety
    /// `x` and `y` are addresses of the matrix's device, multiples of 4, of `batch` times [`Self::columns`] and [`Self::rows`] numbers of
    /// single precision that live, as the matrix, until the work has ended, and do not overlap.
    pub unsafe fn multiply(&self, stream: &Arc<CudaStream>, x: u64, y: u64, batch: u32) -> Result<()> {
        if !(1..=MOST_VECTORS).contains(&batch) {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("{batch} vectors: a product has 1 to {MOST_VECTORS}"),
            ));
        }
        stream.context().bind_to_thread().map_err(failed("use the device"))?;
        let product = Product { x, y, batch, ..self.product };
        let (function, vectors) = if batch == 1 { (&self.one, 1) } else { (&self.several, VECTORS) };
        let grid = LaunchConfig {
            grid_dim: (product.rows.div_ceil(ROWS), batch.div_ceil(vectors), 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the kernel takes one `Product`; codes and pairs are the matrix's, and the caller answers for the vectors.
        unsafe { stream.launch_builder(function).arg(&product).launch(grid) }.map_err(failed("launch a kernel"))?;
        Ok(())
    }
}

/// A matrix as the kernels read it.
struct Layout {
    codes: Vec<u8>,
    pairs: Vec<u8>,
    /// Without addresses.
    product: Product,
}

impl Layout {
    fn read(archive: &Archive, tensor: usize, threads: usize) -> Result<Self> {
        let description = &archive.tensors()[tensor];
        let [rows, columns] = description.shape[..] else { return Err(refused("is not a matrix")) };
        let (Ok(rows), Ok(columns @ 1..=0x7fff_fff0)) = (u32::try_from(rows), u32::try_from(columns)) else {
            return Err(refused("has too many rows or columns, or none"));
        };
        let blocks = archive.index().tensor_len(tensor).div_ceil(archive.block_len(tensor)) as usize;
        let mut layout: Option<Self> = None;
        pipeline::ordered(
            threads,
            0..blocks,
            |ordinal, scratch| match archive.read_components(tensor, ordinal, scratch)? {
                Some(array) => {
                    let parts: Option<Vec<Vec<u8>>> = array
                        .components
                        .into_iter()
                        .map(|component| match component {
                            DecodedComponent::Bytes(bytes) => Some(bytes),
                            DecodedComponent::Array(_) => None,
                        })
                        .collect();
                    Self::of_block(&array.node, &parts.unwrap_or_default(), columns)
                }
                None => Err(refused("is stored by an encoding that has no product")),
            },
            |block| match &mut layout {
                None => {
                    layout = Some(block);
                    Ok(())
                }
                Some(layout) => layout.append(block),
            },
        )?;
        match layout {
            Some(layout) if layout.product.rows == rows => Ok(layout),
            Some(_) => Err(refused("has blocks that end inside a row")),
            None => Err(refused("has no elements")),
        }
    }

    /// Puts the rows of another block behind these.
    fn append(&mut self, block: Self) -> Result<()> {
        let kind = |p: &Product| (p.group, p.bits, p.weights);
        if kind(&self.product) != kind(&block.product) {
            return Err(refused("has groups that are not the same in all blocks"));
        }
        self.codes.extend(block.codes);
        self.pairs.extend(block.pairs);
        self.product.rows += block.product.rows;
        Ok(())
    }

    fn of_block(node: &DeviceNode, parts: &[Vec<u8>], columns: u32) -> Result<Self> {
        match (node, parts) {
            (DeviceNode::Affine(affine), [codes, numbers @ ..]) => {
                let (weights, pair_of) = linear(affine, numbers);
                Self::new(codes, affine.bits, columns, affine.groups, weights, pair_of)
            }
            (DeviceNode::Ternary(ternary), [symbols, minima, maxima]) => {
                if symbols.iter().any(|&symbol| symbol > 2) {
                    return Err(Error::new(Code::BadStream, "a symbol that is not ternary"));
                }
                let (minima, maxima) = (minima.as_chunks::<2>().0, maxima.as_chunks::<2>().0);
                let pair_of = |i: usize| [minima[i], maxima[i]].concat();
                Self::new(symbols, 2, columns, ternary.groups, Weights::Ternary, pair_of)
            }
            _ => Err(refused("is stored by an encoding that has no product")),
        }
    }

    /// Packs the codes of whole rows, and expands the pairs of the groups to every row that they have a part in.
    fn new(
        codes: &[u8],
        bits: u8,
        columns: u32,
        of: DeviceGroups,
        weights: Weights,
        pair_of: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Self> {
        let row = columns as usize;
        if !codes.len().is_multiple_of(row) {
            return Err(refused("has blocks that end inside a row"));
        }
        // Where rows of the matrix are not those that the groups are counted in, some of a row are of one group.
        let group = if of.row == columns { of.columns } else { common_divisor(columns, of.columns) };
        let code_row = (row.div_ceil(GRANULE) * usize::from(bits)).next_multiple_of(8);
        let (mut packed, mut pairs) = (Vec::with_capacity(codes.len() / row * code_row), Vec::new());
        for (number, codes) in codes.chunks_exact(row).enumerate() {
            for granule in codes.chunks(GRANULE) {
                let together = granule.iter().rev().fold(0u64, |sum, &code| sum << bits | u64::from(code));
                packed.extend_from_slice(&together.to_le_bytes()[..usize::from(bits)]);
            }
            packed.resize((number + 1) * code_row, 0);
            for column in (0..row).step_by(group as usize) {
                pairs.extend(pair_of(of.of((number * row + column) as u64) as usize));
            }
        }
        let product = Product {
            codes: 0,
            pairs: 0,
            x: 0,
            y: 0,
            by_group: u64::MAX / u64::from(group),
            code_row: code_row as u64,
            rows: (codes.len() / row) as u32,
            columns,
            group,
            groups: columns.div_ceil(group),
            batch: 0,
            bits: bits.into(),
            weights: weights as u32,
            spare: 0,
        };
        Ok(Self { codes: packed, pairs, product })
    }
}

/// How the numbers of a group are laid out, and those of each group.
fn linear<'a>(affine: &'a DeviceAffine, numbers: &'a [Vec<u8>]) -> (Weights, impl Fn(usize) -> Vec<u8> + 'a) {
    let middle = f32::from(1u16 << (affine.bits - 1));
    let in_half = affine.half || affine.scale == DeviceFloat::F16;
    let weights = match affine.shift {
        DeviceShift::Bias => Weights::Linear,
        _ if in_half => Weights::LinearHalf,
        _ => Weights::Linear,
    };
    let float = move |component: usize, i: usize| {
        let x = number(&numbers[component], affine.scale, i);
        if affine.half { f16::from_f32(x).to_f32() } else { x }
    };
    let pair_of = move |i: usize| {
        let scale = float(0, i);
        let zero = match affine.shift {
            DeviceShift::Middle => middle,
            DeviceShift::ZeroPoint => numbers[1][i].into(),
            DeviceShift::Zero => float(1, i),
            DeviceShift::Bias => 0.0,
        };
        if weights == Weights::LinearHalf {
            return [scale, zero].map(|x| f16::from_f32(x).to_le_bytes()).concat();
        }
        let of_code = f64::from(scale) * f64::from(middle - zero);
        let bias = if affine.shift == DeviceShift::Bias { float(1, i).into() } else { 0.0 };
        [scale, (of_code + bias) as f32].map(f32::to_le_bytes).concat()
    };
    (weights, pair_of)
}

/// Number `i` of an array.
fn number(array: &[u8], kind: DeviceFloat, i: usize) -> f32 {
    match kind {
        DeviceFloat::F16 => f16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        DeviceFloat::Bf16 => bf16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        _ => f32::from_le_bytes(array.as_chunks().0[i]),
    }
}

/// Euclid's.
const fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn refused(why: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("the tensor {why}"))
        .with_help("decode it, and multiply the decoded matrix")
}
