//! From a file to the memory of the device: reading, copying and decoding overlap.
//!
//! Blocks are read by several threads into *slots*, a ring of pinned buffers. A full slot is copied, still compressed, to its twin on
//! the device, and decoded there into the targets, while the next slot is filled. A slot is filled again when its decode has ended.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cmz_codec::{Archive, Code, Error, Result, Scratch, pipeline};
use cudarc::driver::{CudaEvent, CudaStream, result};

use crate::batch::{Addresses, Batch, submit};
use crate::block::{ALIGNMENT, Needs, Piece, Prepared, prepare};
use crate::decoder::{GpuDecoder, Request, pieces, request_len};
use crate::memory::{DeviceMemory, PinnedMemory, failed};

/// Ranges of a slot with less than so many bytes between them are copied as one.
const MOST_GAP: usize = 64 << 10;

/// What is to be loaded, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The tensor, or rows of it.
    pub request: Request,
    /// Address of device memory for its bytes. A multiple of 16 is decoded fastest.
    pub address: u64,
}

/// How to load.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Threads that read and check blocks; at least 1.
    pub threads: usize,
    /// Buffers of the ring, at least 2. Each takes its length twice: pinned, and on the device.
    pub slots: usize,
    /// Length of a buffer in bytes. One that is too small for a block is made larger.
    pub slot_len: usize,
    /// Whether the device compares the checksums of the decoded bytes, besides those of the stored bytes, which the CPU
    /// compares as they pass.
    pub check_decoded: bool,
    /// Told, after each slot, how many of the decoded bytes have been submitted, and how many there are.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
    /// Ends the load with [`Code::Interrupted`] soon after it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        Self { threads, slots: 3, slot_len: 32 << 20, check_decoded: false, progress: None, cancel: None }
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Decoded bytes, now in the memory of the device.
    pub decoded: u64,
    /// Bytes that were copied to the device for it.
    pub copied: u64,
    /// Memory of the ring in bytes, on the host and as much on the device.
    pub ring: u64,
}

impl GpuDecoder {
    /// Decodes tensors into device memory and waits until they are there. The stored checksums are verified on the way.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such tensor or there are no such rows, an error of the file with tensor
    /// and block, [`Code::Device`], or [`Code::Interrupted`]. What the targets then hold is unspecified, but nothing is written
    /// to them any more.
    ///
    /// # Safety
    /// Each address is that of memory of this device, writable for the bytes of its request.
    pub unsafe fn load(
        &self,
        archive: &Archive,
        targets: &[Target],
        stream: &Arc<CudaStream>,
        options: &LoadOptions<'_>,
    ) -> Result<LoadReport> {
        let mut total = 0;
        let mut list = Vec::new();
        for target in targets {
            total += request_len(archive, &target.request)?;
            list.extend(pieces(archive, &target.request, target.address)?);
        }
        if list.is_empty() {
            return Ok(LoadReport::default());
        }
        let layout = Layout::new(archive, list, options.slot_len);
        let slots: Vec<Slot> =
            (0..options.slots.max(2).min(layout.batches)).map(|_| Slot::new(self, &layout)).collect::<Result<_>>()?;
        let ring = (slots.len() * layout.slot_len) as u64;
        let load = Load {
            decoder: self,
            archive,
            check_decoded: options.check_decoded,
            cancel: options.cancel,
            slots,
            progress: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut submitter = Submitter {
            load: &load,
            progress: options.progress,
            stream,
            total,
            report: LoadReport { ring, ..LoadReport::default() },
            batch: Batch::default(),
            ranges: Vec::new(),
            running: Vec::new(),
        };
        let result = pipeline::ordered(
            options.threads,
            layout.places.iter(),
            |place, scratch| load.fill(place, scratch).map(|prepared| (place, prepared)),
            |(place, prepared)| submitter.take(place, &prepared),
        );
        // Memory of the ring and of the targets is free again when nothing runs any more.
        let ended = stream.synchronize().map_err(failed("wait for the device"));
        result?;
        ended?;
        submitter.finish()
    }
}

/// Where a piece lies in the ring.
#[derive(Debug)]
struct PiecePlace {
    piece: Piece,
    batch: usize,
    region: Range<usize>,
    last_of_batch: bool,
}

/// How the pieces are dealt to slots.
struct Layout {
    places: Vec<PiecePlace>,
    batches: usize,
    /// Of the largest batch.
    slot_len: usize,
    scratch_len: usize,
    blocks: usize,
}

impl Layout {
    fn new(archive: &Archive, list: Vec<Piece>, slot_len: usize) -> Self {
        let mut layout = Self { places: Vec::new(), batches: 0, slot_len: 0, scratch_len: 0, blocks: 0 };
        let (mut first, mut head, mut regions) = (0, 0, 0);
        let sizes = |piece: &Piece| {
            let needs = Needs::of(archive, piece.tensor);
            let region = needs.region_len(archive, piece.tensor, piece.ordinal).next_multiple_of(ALIGNMENT);
            (needs.head, region)
        };
        for piece in list {
            let (head_of_block, region) = sizes(&piece);
            if layout.places.len() > first && head + regions + head_of_block + region > slot_len {
                layout.end_batch(archive, first, head);
                (first, head, regions) = (layout.places.len(), 0, 0);
            }
            head += head_of_block;
            layout.places.push(PiecePlace {
                piece,
                batch: layout.batches,
                region: regions..regions + region,
                last_of_batch: false,
            });
            regions += region;
        }
        layout.end_batch(archive, first, head);
        layout
    }

    /// Puts the regions of a batch behind its head.
    fn end_batch(&mut self, archive: &Archive, first: usize, head: usize) {
        let head = head.next_multiple_of(ALIGNMENT);
        let places = &mut self.places[first..];
        let mut scratch = 0;
        for place in places.iter_mut() {
            place.region = place.region.start + head..place.region.end + head;
            scratch += Needs::of(archive, place.piece.tensor).scratch;
        }
        if let Some(last) = places.last_mut() {
            last.last_of_batch = true;
            self.slot_len = self.slot_len.max(last.region.end);
        }
        self.scratch_len = self.scratch_len.max(scratch);
        self.blocks = self.blocks.max(places.len());
        self.batches += 1;
    }
}

/// A buffer of the ring, with its twin on the device.
struct Slot {
    pinned: PinnedMemory,
    image: DeviceMemory,
    scratch: DeviceMemory,
    status: DeviceMemory,
    status_pinned: PinnedMemory,
    /// Recorded behind the last work that uses the slot.
    ended: CudaEvent,
}

impl Slot {
    fn new(decoder: &GpuDecoder, layout: &Layout) -> Result<Self> {
        let context = decoder.context();
        Ok(Self {
            pinned: PinnedMemory::new(context, layout.slot_len)?,
            image: decoder.allocate(layout.slot_len)?,
            scratch: decoder.allocate(layout.scratch_len)?,
            status: decoder.allocate(4 * layout.blocks)?,
            status_pinned: PinnedMemory::new(context, 4 * layout.blocks)?,
            ended: context.new_event(None).map_err(failed("make an event"))?,
        })
    }
}

#[derive(Default)]
struct Progress {
    /// Batches submitted so far.
    submitted: usize,
    /// Nobody submits any more.
    stopped: bool,
}

/// What threads share.
struct Load<'a> {
    decoder: &'a GpuDecoder,
    archive: &'a Archive,
    check_decoded: bool,
    cancel: Option<&'a AtomicBool>,
    slots: Vec<Slot>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Load<'_> {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => {
                Err(Error::new(Code::Interrupted, "the load was cancelled"))
            }
            _ => Ok(()),
        }
    }

    /// Reads and prepares a piece in its slot, once that is free.
    fn fill(&self, place: &PiecePlace, scratch: &mut Scratch) -> Result<Prepared> {
        let stop = StopOnDrop(self);
        self.check_cancelled()?;
        self.wait_for_slot(place.batch)?;
        let slot = &self.slots[place.batch % self.slots.len()];
        // SAFETY: regions of a batch do not overlap, and the slot's last work has ended.
        let region = unsafe { slot.pinned.slice_mut(place.region.clone()) };
        let prepared = prepare(self.archive, &place.piece, self.check_decoded, region, &self.decoder.tables, scratch)?;
        std::mem::forget(stop);
        Ok(prepared)
    }

    /// Waits until the batch that had this one's slot before has been submitted and has ended.
    fn wait_for_slot(&self, batch: usize) -> Result<()> {
        let Some(before) = batch.checked_sub(self.slots.len()) else { return Ok(()) };
        let mut progress = self.lock();
        while progress.submitted <= before && !progress.stopped {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if progress.stopped {
            return Err(Error::new(Code::Interrupted, "the load has failed elsewhere"));
        }
        drop(progress);
        self.slots[batch % self.slots.len()].ended.synchronize().map_err(failed("wait for the device"))
    }
}

/// Wakes those who wait for a slot if a piece fails or panics.
struct StopOnDrop<'a>(&'a Load<'a>);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

/// Takes prepared pieces in order and submits full batches.
struct Submitter<'a> {
    load: &'a Load<'a>,
    progress: Option<&'a dyn Fn(u64, u64)>,
    stream: &'a Arc<CudaStream>,
    total: u64,
    report: LoadReport,
    /// The batch that is being collected, and which ranges of its slot the device needs.
    batch: Batch,
    ranges: Vec<Range<usize>>,
    /// Batches by their slots, whose status words are still to be looked at.
    running: Vec<Batch>,
}

impl Submitter<'_> {
    fn take(&mut self, place: &PiecePlace, prepared: &Prepared) -> Result<()> {
        let stop = StopOnDrop(self.load);
        self.batch.add(&place.piece, prepared, place.region.start as u64);
        let used = place.region.start..place.region.start + prepared.image_len;
        match self.ranges.last_mut() {
            Some(last) if used.start - last.end < MOST_GAP => last.end = used.end,
            _ => self.ranges.push(used),
        }
        self.report.decoded += u64::from(place.piece.wanted.end - place.piece.wanted.start);
        if place.last_of_batch {
            self.load.check_cancelled()?;
            self.submit(place.batch)?;
            if let Some(progress) = self.progress {
                progress(self.report.decoded, self.total);
            }
        }
        std::mem::forget(stop);
        Ok(())
    }

    fn submit(&mut self, number: usize) -> Result<()> {
        let load = self.load;
        let index = number % load.slots.len();
        let slot = &load.slots[index];
        let batch = std::mem::take(&mut self.batch);
        // The slot was free before its regions were filled, so its last batch has ended.
        if let Some(before) = self.running.get(index) {
            check(load.archive, before, slot)?;
        }
        let mut head = Vec::new();
        batch.put_head(&mut head);
        // SAFETY: the head lies before all regions, and the slot's last work has ended.
        unsafe { slot.pinned.slice_mut(0..head.len()) }.copy_from_slice(&head);
        let ranges = std::iter::once(0..head.len()).chain(self.ranges.drain(..));
        let launches = batch.launches(&load.decoder.kernels)?;
        let status_len = 4 * batch.blocks();
        let addresses = Addresses {
            image: slot.image.address(),
            head: 0,
            scratch: slot.scratch.address(),
            output: 0,
            status: slot.status.address(),
        };
        for range in ranges {
            self.report.copied += range.len() as u64;
            let to = slot.image.address() + range.start as u64;
            // SAFETY: nobody writes the slot until this work has ended, and the twin is as long.
            unsafe { result::memcpy_htod_async(to, slot.pinned.slice(range), self.stream.cu_stream()) }
                .map_err(failed("copy to the device"))?;
        }
        // SAFETY: the status words are the slot's; the image is there in the order of the stream, and scratch memory was made for
        // the largest batch; the caller of `load` answers for the targets.
        unsafe {
            result::memset_d8_async(slot.status.address(), 0, status_len, self.stream.cu_stream())
                .map_err(failed("clear the status words"))?;
            submit(&launches, self.stream, addresses)?;
            let words = slot.status_pinned.slice_mut(0..status_len);
            result::memcpy_dtoh_async(words, slot.status.address(), self.stream.cu_stream())
                .map_err(failed("copy from the device"))?;
        }
        slot.ended.record(self.stream).map_err(failed("record an event"))?;
        match self.running.get_mut(index) {
            Some(running) => *running = batch,
            None => self.running.push(batch),
        }
        load.lock().submitted += 1;
        load.changed.notify_all();
        Ok(())
    }

    /// Looks at the status words of the last batches; all work has ended.
    fn finish(self) -> Result<LoadReport> {
        for (batch, slot) in self.running.iter().zip(&self.load.slots) {
            check(self.load.archive, batch, slot)?;
        }
        Ok(self.report)
    }
}

fn check(archive: &Archive, batch: &Batch, slot: &Slot) -> Result<()> {
    // SAFETY: the work that writes the words has ended.
    batch.check(archive, unsafe { slot.status_pinned.slice(0..4 * batch.blocks()) })
}
