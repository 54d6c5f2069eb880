//! Compressed tensors in the memory of the device, decoded as often as needed.

use std::sync::{Arc, Mutex};

use cmz_codec::{Archive, Result, pipeline};
use cudarc::driver::{CudaStream, result};

use crate::batch::{Addresses, Batch, KernelLaunch, submit};
use crate::block::{ALIGNMENT, Needs, Piece, prepare};
use crate::decoder::{GpuDecoder, Request, pieces, request_len};
use crate::memory::{DeviceMemory, failed};
use crate::tables::Tables;

/// Where the tensors of a plan go.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// One behind the other, each on a multiple of 256 bytes: [`DecodePlan::offsets`] says where.
    Packed,
    /// To these addresses, or offsets, in bytes. The output address of a decode is added to them; with addresses it is 0.
    /// Multiples of 16 are decoded fastest.
    At(&'a [u64]),
}

/// Compressed tensors in the memory of the device with all that decoding them needs, so that a decode is some launches.
///
/// A decode allocates nothing and waits for nothing: it can be captured in a CUDA graph. Decodes of one plan must not
/// overlap: they share scratch memory and status words.
#[derive(Debug)]
pub struct DecodePlan {
    batch: Batch,
    launches: Vec<KernelLaunch>,
    image: DeviceMemory,
    head: u64,
    scratch: DeviceMemory,
    status: DeviceMemory,
    /// Which the jobs name by address.
    _tables: Arc<Tables>,
    offsets: Vec<u64>,
    output_len: u64,
}

impl GpuDecoder {
    /// Reads and checks the blocks of tensors on `threads` threads and copies them, compressed, to the device. With
    /// `check`, every decode compares the checksums of the decoded bytes.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](cmz_codec::Code::InvalidArgument) if there is no such tensor or there are no such rows, an
    /// error of the file, or [`Code::Device`](cmz_codec::Code::Device).
    ///
    /// # Panics
    /// If `placement` has not one offset for each request.
    pub fn plan(
        &self,
        archive: &Archive,
        requests: &[Request],
        placement: Placement<'_>,
        check: bool,
        threads: usize,
    ) -> Result<DecodePlan> {
        let (offsets, output_len) = place(archive, requests, placement)?;
        let mut list = Vec::new();
        for (request, &offset) in requests.iter().zip(&offsets) {
            list.extend(pieces(archive, request, offset)?);
        }
        let (batch, mut image) = build(archive, &list, check, &self.tables, threads)?;
        let head = image.len() as u64;
        batch.put_head(&mut image);
        let launches = batch.launches(&self.kernels)?;
        let stream = self.new_stream()?;
        let mut memory = self.allocate(image.len())?;
        memory.write(&stream, 0, &image)?;
        Ok(DecodePlan {
            launches,
            image: memory,
            head,
            scratch: self.allocate(batch.scratch_len())?,
            status: self.allocate(4 * batch.blocks())?,
            _tables: Arc::clone(&self.tables),
            batch,
            offsets,
            output_len,
        })
    }
}

/// The offset of each request, and behind the last byte.
fn place(archive: &Archive, requests: &[Request], placement: Placement<'_>) -> Result<(Vec<u64>, u64)> {
    let mut end = 0u64;
    let mut offsets = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let len = request_len(archive, request)?;
        let offset = match placement {
            Placement::Packed => end.next_multiple_of(256),
            Placement::At(offsets) => {
                assert_eq!(offsets.len(), requests.len(), "an offset for each request");
                offsets[i]
            }
        };
        offsets.push(offset);
        end = end.max(offset.saturating_add(len));
    }
    Ok((offsets, end))
}

/// The image of the blocks, without its head, and their jobs.
fn build(archive: &Archive, list: &[Piece], check: bool, tables: &Tables, threads: usize) -> Result<(Batch, Vec<u8>)> {
    let (mut batch, mut image) = (Batch::default(), Vec::new());
    let regions = Mutex::new(Vec::new());
    pipeline::ordered(
        threads,
        list.iter(),
        |piece, scratch| {
            let spare = regions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let mut region: Vec<u8> = spare.unwrap_or_default();
            let needs = Needs::of(archive, piece.tensor);
            region.resize(needs.region_len(archive, piece.tensor, piece.ordinal), 0);
            let prepared = prepare(archive, piece, check, &mut region, tables, scratch)?;
            Ok((piece, prepared, region))
        },
        |(piece, prepared, region)| {
            batch.add(piece, &prepared, image.len() as u64);
            image.extend_from_slice(&region[..prepared.image_len]);
            image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
            regions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(region);
            Ok(())
        },
    )?;
    Ok((batch, image))
}

impl DecodePlan {
    /// Where each tensor begins in the output, in bytes.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Bytes of the output.
    #[must_use]
    pub fn output_len(&self) -> u64 {
        self.output_len
    }

    /// Kernels that a decode launches: one for each step of an encoding and each codec, however many tensors there are.
    #[must_use]
    pub fn launches(&self) -> usize {
        self.launches.len()
    }

    /// Bytes of device memory that the plan holds.
    #[must_use]
    pub fn device_len(&self) -> usize {
        self.image.len() + self.scratch.len() + self.status.len()
    }

    /// Submits a decode to `stream`. [`Self::check`] tells later whether it succeeded.
    ///
    /// # Errors
    /// [`Code::Device`](cmz_codec::Code::Device).
    ///
    /// # Safety
    /// `output` plus each offset is the address of memory of the plan's device, writable for the tensor's bytes, which, as
    /// the plan, lives until the work has ended. No other decode of this plan is under way.
    pub unsafe fn decode(&self, stream: &Arc<CudaStream>, output: u64) -> Result<()> {
        if self.batch.blocks() == 0 {
            return Ok(());
        }
        stream.context().bind_to_thread().map_err(failed("use the device"))?;
        // SAFETY: the status words are the plan's.
        unsafe { result::memset_d8_async(self.status.address(), 0, self.status.len(), stream.cu_stream()) }
            .map_err(failed("clear the status words"))?;
        let addresses = Addresses {
            image: self.image.address(),
            head: self.head,
            scratch: self.scratch.address(),
            output,
            status: self.status.address(),
        };
        // SAFETY: image, scratch memory and status words were made for this batch; the caller answers for the output.
        unsafe { submit(&self.launches, stream, addresses) }
    }

    /// Waits for `stream` and says whether the last decode succeeded. If not, what it wrote is unspecified.
    ///
    /// # Errors
    /// [`Code::BadStream`](cmz_codec::Code::BadStream) or [`Code::DecodedChecksum`](cmz_codec::Code::DecodedChecksum) with
    /// tensor and block, or [`Code::Device`](cmz_codec::Code::Device).
    pub fn check(&self, archive: &Archive, stream: &Arc<CudaStream>) -> Result<()> {
        self.batch.check(archive, &self.status.read(stream)?)
    }
}
