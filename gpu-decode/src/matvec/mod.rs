//! Products with quantized matrices, which are read as codes and never decoded.
//!
//! A packed matrix is laid out once, on the host: codes packed row by row, and two numbers for each group of a row. What the product
//! is, and in which order its sums are taken, says `kernels/matvec.cuh`. A compressed one is its stored streams: `ternary`.

use std::ops::Range;
use std::sync::Arc;

use cmz_codec::{Archive, Code, Error, Result};
use cudarc::driver::{CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};

use crate::decoder::{GpuDecoder, Request, request_bytes};
use crate::kernel::Kernel;
use crate::memory::{DeviceMemory, failed};

mod layout;
mod numbers;
mod ternary;

use layout::{Layout, refused};
use ternary::Compressed;

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
    /// `s e`, with `s` in single precision and `e` an entry of the row's table.
    RowTables = 3,
    /// The same, with the number of a table beside `s`.
    Tables = 4,
    /// The same, of entries that are vectors.
    VectorTables = 5,
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
    weights: Weights,
    dim: u32,
    tables: u64,
    row_tables: u64,
    starts: u64,
    outliers: u64,
    order: u64,
}

const _: () = assert!(size_of::<Product>() == 120);

impl Product {
    const NONE: Self = Self {
        codes: 0,
        pairs: 0,
        x: 0,
        y: 0,
        by_group: 0,
        code_row: 0,
        rows: 0,
        columns: 0,
        group: 0,
        groups: 0,
        batch: 0,
        bits: 0,
        weights: Weights::Linear,
        dim: 1,
        tables: 0,
        row_tables: 0,
        starts: 0,
        outliers: 0,
        order: 0,
    };
}

// SAFETY: integers, one of them of an enumeration, without padding, as the kernels declare them.
unsafe impl DeviceRepr for Product {}

/// How a matrix lies in the memory of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// Codes packed row by row, and two numbers for each group of a row: fastest to multiply. Of `bits` bits a code, a weight takes
    /// `bits / 8` bytes (two bits if it is ternary), and its part of the 4 or 8 bytes of a group.
    #[default]
    Packed,
    /// The streams of symbols of a ternary matrix as they are stored, by `tunstall`, `dictionary`, `trits` or `bitpack`, and 4 bytes for each
    /// group of a row: what the file takes, below one bit a weight where most are 0. Streams of other codecs (`rans`) are coded by `tunstall` when
    /// they are read. To that come 160 bytes for each stored
    /// block, 2 KiB more with `tunstall`, and once in a decoder the 512 KiB of the dictionary.
    Compressed,
}

/// A quantized matrix in the memory of the device.
///
/// A product `y = W x` is computed in single precision from the weights as their encoding defines them, before they are rounded to
/// the tensor's type. Let `w = s (c - m) + t` be a weight of a group with scale `s`, where `m` is the middle of the codes' range and
/// `t` what the zero point or the bias makes of it, or `w = s e` with `e` an entry of a codebook or a value of eight bits (`s` is 1 where there is no
/// scale, and the reciprocal where it divides). With outliers it is `w + v` where `v` is added, not rounded in between, and `w + d` where `v` comes in its stead:
/// `d` is `v - w` in single precision, so no code has to stand for nothing, and the sum is off by `2⁻²⁴ |d|`, which the bound has.
///
/// With `n` columns, at most `o` outliers in a row, `u = 2⁻²⁴` and `K = 24 + 2 ⌈n / 1024⌉ + ⌈o / 128⌉`, or `24 + 16 ⌈n / 1024⌉ + ⌈o / 128⌉` where groups are not
/// whole times 8 columns, `16 + d + ⌈n / 128 d⌉ + ⌈o / 128⌉` where entries are vectors of `d` numbers, each `y` differs from the exact product by at most `K u / (1 − K u)` times the sum of `(|s (c − m)| + |t|) |x|` (N. Higham, Accuracy and Stability of Numerical Algorithms, §3.1): every `x`
/// goes through at most so many operations. Of `ternary` and of codebooks, `|w| |x|` takes the place of the summand; of outliers, `|v| |x|` or `|d| |x|` is one more. It holds where nothing overflows or underflows, and all weights are finite.
///
/// Of [`Residency::Compressed`] the order of the sums is another one, and `K = 45 + min(256, ⌈n / 32⌉ + 1) + ⌈n / 57,344⌉`: at most 32 symbols of a word,
/// the words of a lane, of which a step of a warp takes 32, 5 steps of a tree, and the tiles and parts of a row. Symbols that stand for 0 take no part, whatever `x` is there.
#[derive(Debug)]
pub struct QuantizedMatrix(Form);

#[derive(Debug)]
enum Form {
    Packed(Packed),
    Compressed(Compressed),
}

#[derive(Debug)]
struct Packed {
    memory: DeviceMemory,
    product: Product,
    /// Where the sums are taken of codes, or of entries of tables.
    one: CudaFunction,
    several: CudaFunction,
}

impl GpuDecoder {
    /// Reads a matrix and lays it out in device memory. It is stored by `affine`, whose numbers may be encoded in turn, `ternary`, `codebook`, or `block_scale` over a codebook or values of eight bits; on top of that there may be outliers, added or in a weight's stead (`sparse`),
    /// and an order of the columns that is the same in all blocks (`permute`). Of a stack of matrices, a request for one index of the first dimension is one of
    /// them, read without the others; all that are asked for are one matrix, with its rows behind each other. Numbers, and packed codes, are decoded by
    /// the CPU, on `threads` threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor or there are no such rows, it is no such matrix, or cannot be resident so; an error
    /// of the file; [`Code::Device`].
    pub fn quantized_matrix(
        &self,
        archive: &Archive,
        request: &Request,
        residency: Residency,
        threads: usize,
    ) -> Result<QuantizedMatrix> {
        let bytes = request_bytes(archive, request)?;
        let read = || {
            let rows = Rows::of(archive, request.tensor, bytes)?;
            Ok(QuantizedMatrix(match residency {
                Residency::Packed => Form::Packed(self.packed(Layout::read(archive, &rows, threads)?)?),
                Residency::Compressed => Form::Compressed(Compressed::read(self, archive, &rows, threads)?),
            }))
        };
        read().map_err(|e: Error| e.in_tensor(&archive.tensors()[request.tensor].name))
    }

    fn packed(&self, layout: Layout) -> Result<Packed> {
        let product = layout.product;
        let tables: Vec<u8> = layout.tables.iter().flat_map(|x| x.to_le_bytes()).collect();
        let row_tables: Vec<u8> = layout.row_tables.iter().flat_map(|table| table.to_le_bytes()).collect();
        let starts: Vec<u8> = layout.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        let outlier = |(column, value): &(u32, f32)| [column.to_le_bytes(), value.to_le_bytes()].concat();
        let outliers: Vec<u8> = layout.outliers.iter().flat_map(outlier).collect();
        let order: Vec<u8> = layout.order.iter().flat_map(|column| column.to_le_bytes()).collect();
        let arrays = [layout.codes, layout.pairs, tables, row_tables, starts, outliers, order];
        let (memory, [codes, pairs, tables, row_tables, starts, outliers, order]) = self.lay_out(&arrays)?;
        let product = Product { codes, pairs, tables, row_tables, starts, outliers, order, ..product };
        let (one, several) = if matches!(product.weights, Weights::RowTables | Weights::Tables | Weights::VectorTables)
        {
            (Kernel::MatvecTables, Kernel::MatmatTables)
        } else {
            (Kernel::Matvec, Kernel::Matmat)
        };
        Ok(Packed { memory, product, one: self.kernels.get(one)?, several: self.kernels.get(several)? })
    }

    /// Copies arrays to the device; returns their addresses, 0 of one without bytes.
    fn lay_out<const N: usize>(&self, arrays: &[Vec<u8>; N]) -> Result<(DeviceMemory, [u64; N])> {
        let mut len = 0;
        let places = arrays.each_ref().map(|array| {
            let at = len;
            len = (at + array.len()).next_multiple_of(256);
            at
        });
        let stream = self.new_stream()?;
        let mut memory = self.allocate(len)?;
        for (array, at) in arrays.iter().zip(places).filter(|(array, _)| !array.is_empty()) {
            memory.write(&stream, at, array)?;
        }
        let base = memory.address();
        let mut of = arrays.iter().zip(places);
        let addresses = std::array::from_fn(|_| match of.next() {
            Some((array, at)) if !array.is_empty() => base + at as u64,
            _ => 0,
        });
        Ok((memory, addresses))
    }
}

impl QuantizedMatrix {
    /// Number of rows, which is that of the elements of `y`.
    #[must_use]
    pub fn rows(&self) -> usize {
        match &self.0 {
            Form::Packed(packed) => packed.product.rows as usize,
            Form::Compressed(compressed) => compressed.rows() as usize,
        }
    }

    /// Number of columns, which is that of the elements of `x`.
    #[must_use]
    pub fn columns(&self) -> usize {
        match &self.0 {
            Form::Packed(packed) => packed.product.columns as usize,
            Form::Compressed(compressed) => compressed.columns() as usize,
        }
    }

    /// Bytes of device memory.
    #[must_use]
    pub fn device_len(&self) -> usize {
        match &self.0 {
            Form::Packed(packed) => packed.memory.len(),
            Form::Compressed(compressed) => compressed.device_len(),
        }
    }

    /// Submits `y = W x` for `batch` vectors, one behind the other. Nothing is allocated, and nothing waits, so that it can be captured
    /// in a graph. A vector's result does not depend on the others, but of a packed matrix a single one is summed up by another kernel than
    /// several.
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
        // SAFETY: the caller answers for the vectors.
        unsafe {
            match &self.0 {
                Form::Packed(packed) => packed.multiply(stream, x, y, batch),
                Form::Compressed(compressed) => compressed.multiply(stream, x, y, batch),
            }
        }
    }

    /// Waits for `stream` and says whether all products so far could read their codes, of which those of a packed matrix have been checked
    /// before. What the others made of `y` is unspecified.
    ///
    /// # Errors
    /// [`Code::BadStream`] with tensor and block, or [`Code::Device`].
    pub fn check(&self, archive: &Archive, stream: &CudaStream) -> Result<()> {
        match &self.0 {
            Form::Packed(_) => stream.synchronize().map_err(failed("wait for the device")),
            Form::Compressed(compressed) => compressed.check(archive, stream),
        }
    }
}

impl Packed {
    /// # Safety
    /// As [`QuantizedMatrix::multiply`].
    unsafe fn multiply(&self, stream: &Arc<CudaStream>, x: u64, y: u64, batch: u32) -> Result<()> {
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

/// Rows of a tensor that are a matrix: all dimensions but the last are rows of it.
#[derive(Debug)]
struct Rows {
    tensor: usize,
    columns: u32,
    /// Those that are wanted.
    rows: Range<u64>,
    /// Of every stored block but the last.
    block_rows: u64,
    /// The blocks that hold them.
    blocks: Range<usize>,
}

impl Rows {
    /// The rows that these bytes of a tensor are.
    fn of(archive: &Archive, tensor: usize, bytes: Range<u64>) -> Result<Self> {
        let [dimensions @ .., columns] = &archive.tensors()[tensor].shape[..] else {
            return Err(refused("is not a matrix"));
        };
        let Ok(columns @ 1..=0x7fff_fff0) = u32::try_from(*columns) else {
            return Err(refused("has too many columns, or none"));
        };
        if dimensions.is_empty() || bytes.is_empty() {
            return Err(refused("is not a matrix, or has no rows"));
        }
        let row_len = archive.index().tensor_len(tensor) / dimensions.iter().product::<u64>();
        let (block_len, rows) = (archive.block_len(tensor), bytes.start / row_len..bytes.end / row_len);
        let blocks = bytes.start / block_len..bytes.end.div_ceil(block_len);
        if !block_len.is_multiple_of(row_len) && archive.index().tensor_len(tensor) > block_len {
            return Err(refused("has blocks that end inside a row"));
        }
        if rows.end - rows.start > u64::from(u32::MAX) {
            return Err(refused("has too many rows"));
        }
        let blocks = blocks.start as usize..blocks.end as usize;
        Ok(Self { tensor, columns, rows, block_rows: (block_len / row_len).max(1), blocks })
    }

    /// The wanted rows of a block, from its first one on.
    fn of_block(&self, ordinal: usize) -> Range<usize> {
        let first = ordinal as u64 * self.block_rows;
        let within = |row: u64| row.saturating_sub(first).min(self.block_rows) as usize;
        within(self.rows.start)..within(self.rows.end)
    }
}
