//! Products with ternary matrices that stay compressed in the memory of the device: what `kernels/ternary_matvec.cu` is told.

use std::ops::Range;
use std::sync::Arc;

use cmz_codec::device::DeviceGroups;
use cmz_codec::{Archive, Code, Error, Result, pipeline};
use cudarc::driver::{CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};

use super::Rows;
use super::layout::{group_of, refused};
use crate::block::{ALIGNMENT, SymbolBlock, symbols_of};
use crate::decoder::GpuDecoder;
use crate::job::{Job, Launch, THREADS, status_text};
use crate::kernel::Kernel;
use crate::memory::{DeviceMemory, failed};
use crate::tables::Tables;

/// Symbols that a CTA has room for, wherever they begin.
const MOST_SYMBOLS: u32 = 7 * 8192;
/// Rows of a CTA, at most.
const MOST_ROWS: u32 = 32;

/// What the kernel takes: `struct TernaryProduct` of `ternary_matvec.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct TernaryProduct {
    launch: Launch,
    pairs: u64,
    x: u64,
    y: u64,
    by_group: u64,
    rows: u32,
    columns: u32,
    group: u32,
    groups: u32,
    batch: u32,
    cta_rows: u32,
    block_ctas: u32,
    spare: u32,
}

const _: () = assert!(size_of::<TernaryProduct>() == 112);

// SAFETY: integers without padding, as the kernel declares them.
unsafe impl DeviceRepr for TernaryProduct {}

/// A ternary matrix whose symbols are the streams of its blocks.
#[derive(Debug)]
pub(super) struct Compressed {
    memory: DeviceMemory,
    status: DeviceMemory,
    product: TernaryProduct,
    blocks: Range<usize>,
    tensor: usize,
    function: CudaFunction,
    /// Which the jobs name by address.
    _tables: Arc<Tables>,
}

impl Compressed {
    pub(super) fn read(decoder: &GpuDecoder, archive: &Archive, rows: &Rows, threads: usize) -> Result<Self> {
        let mut image = Image { pairs: Vec::new(), bytes: Vec::new(), jobs: Vec::new(), group: None, most_rows: 0 };
        pipeline::ordered(
            threads,
            rows.blocks.clone(),
            |ordinal, scratch| match symbols_of(archive, rows.tensor, ordinal, &decoder.tables, scratch)? {
                Some(block) => Ok((ordinal, block)),
                None => Err(refused("is not ternary")),
            },
            |(ordinal, block)| image.add(rows, ordinal, block),
        )?;
        image.copy(decoder, rows)
    }

    pub(super) fn device_len(&self) -> usize {
        self.memory.len() + self.status.len()
    }

    pub(super) fn rows(&self) -> u32 {
        self.product.rows
    }

    pub(super) fn columns(&self) -> u32 {
        self.product.columns
    }

    /// # Safety
    /// As `QuantizedMatrix::multiply`.
    pub(super) unsafe fn multiply(&self, stream: &Arc<CudaStream>, x: u64, y: u64, batch: u32) -> Result<()> {
        let product = TernaryProduct { x, y, batch, ..self.product };
        let grid = LaunchConfig {
            grid_dim: (self.blocks.len() as u32 * product.block_ctas, 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the kernel takes one `TernaryProduct`; all but the vectors is the matrix's, and the caller answers for these.
        unsafe { stream.launch_builder(&self.function).arg(&product).launch(grid) }
            .map_err(failed("launch a kernel"))?;
        Ok(())
    }

    pub(super) fn check(&self, archive: &Archive, stream: &CudaStream) -> Result<()> {
        let words = self.status.read(stream)?;
        for (word, ordinal) in words.as_chunks().0.iter().zip(self.blocks.clone()) {
            let status = u32::from_le_bytes(*word);
            if status != 0 {
                return Err(archive.in_block(Error::new(Code::BadStream, status_text(status)), self.tensor, ordinal));
            }
        }
        Ok(())
    }
}

/// The matrix on the host, block behind block.
struct Image {
    pairs: Vec<u8>,
    bytes: Vec<u8>,
    jobs: Vec<Job>,
    /// Columns of a group.
    group: Option<u32>,
    /// Rows of the block that has the most.
    most_rows: u32,
}

impl Image {
    fn add(&mut self, rows: &Rows, ordinal: usize, block: SymbolBlock) -> Result<()> {
        let wanted = rows.of_block(ordinal);
        let group = group_of(block.ternary.groups, rows.columns);
        if *self.group.get_or_insert(group) != group {
            return Err(refused("has groups that are not the same in all blocks"));
        }
        let [minima, maxima] = block.numbers.each_ref().map(|numbers| numbers.as_chunks::<2>().0);
        push_pairs(&mut self.pairs, wanted.clone(), rows.columns, block.ternary.groups, |i| {
            [minima[i], maxima[i]].concat()
        });
        let at = self.bytes.len() as u64;
        let mut job = block.job;
        job.first.offset += at;
        if block.kernel.has_table_in_image() {
            job.table += at;
        }
        job.status = self.jobs.len() as u32;
        // Of a job, these count rows here.
        (job.begin, job.end) = (wanted.start as u32, wanted.end as u32);
        job.out = (ordinal as u64 * rows.block_rows).wrapping_sub(rows.rows.start);
        self.most_rows = self.most_rows.max(job.end - job.begin);
        self.jobs.push(job);
        self.bytes.extend(block.image);
        Ok(())
    }

    fn copy(mut self, decoder: &GpuDecoder, rows: &Rows) -> Result<Compressed> {
        let stream = decoder.new_stream()?;
        let jobs_at = self.bytes.len();
        self.jobs.iter().for_each(|job| job.put(&mut self.bytes));
        let pairs_at = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(pairs_at, 0);
        self.bytes.extend(&self.pairs);
        let mut memory = decoder.allocate(self.bytes.len())?;
        memory.write(&stream, 0, &self.bytes)?;
        let mut status = decoder.allocate(4 * self.jobs.len())?;
        status.write(&stream, 0, &vec![0; status.len()])?;
        let (image, group) = (memory.address(), self.group.unwrap_or(1));
        let launch =
            Launch { image, scratch: 0, output: 0, jobs: image + jobs_at as u64, spans: 0, status: status.address() };
        let cta_rows = (MOST_SYMBOLS / rows.columns).clamp(1, MOST_ROWS);
        let product = TernaryProduct {
            launch,
            pairs: image + pairs_at as u64,
            x: 0,
            y: 0,
            by_group: u64::MAX / u64::from(group),
            rows: (rows.rows.end - rows.rows.start) as u32,
            columns: rows.columns,
            group,
            groups: rows.columns.div_ceil(group),
            batch: 0,
            cta_rows,
            block_ctas: self.most_rows.div_ceil(cta_rows),
            spare: 0,
        };
        Ok(Compressed {
            memory,
            status,
            product,
            blocks: rows.blocks.clone(),
            tensor: rows.tensor,
            function: decoder.kernels.get(Kernel::TernaryMatvec)?,
            _tables: Arc::clone(&decoder.tables),
        })
    }
}

/// Appends the pairs of every group of these rows.
fn push_pairs(
    pairs: &mut Vec<u8>,
    rows: Range<usize>,
    columns: u32,
    of: DeviceGroups,
    pair_of: impl Fn(usize) -> Vec<u8>,
) {
    for first in rows.map(|row| row * columns as usize) {
        for column in (0..columns as usize).step_by(group_of(of, columns) as usize) {
            pairs.extend(pair_of(of.of((first + column) as u64) as usize));
        }
    }
}
