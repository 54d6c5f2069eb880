//! The blocks of one decode: their jobs and spans in the order of the launches, and what the kernels said of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cmz_codec::{Archive, Code, Error, Result};
use cudarc::driver::{CudaFunction, CudaStream, LaunchConfig, PushKernelArg};

use crate::block::{ALIGNMENT, Piece, Prepared, Step};
use crate::job::{BAD_CHECKSUM, Job, Launch, Place, Span, THREADS, TILES_OF_SPAN, status_text};
use crate::kernel::{Kernel, Kernels};
use crate::memory::failed;

/// Jobs of blocks, to be run together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    jobs: Vec<Job>,
    /// Spans by step and kernel, which is the order of the launches.
    spans: BTreeMap<(Step, Kernel), Vec<Span>>,
    /// Tensor and number of each block; its index is that of its status word.
    blocks: Vec<(usize, usize)>,
    scratch_len: usize,
}

/// A launch: the kernel, where its spans begin in the image, and how many there are.
#[derive(Clone, Debug)]
pub(crate) struct KernelLaunch {
    function: CudaFunction,
    spans: u64,
    count: u32,
}

/// Addresses that a decode works with, on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) image: u64,
    /// Of the jobs and spans, from the start of the image.
    pub(crate) head: u64,
    pub(crate) scratch: u64,
    pub(crate) output: u64,
    pub(crate) status: u64,
}

impl Batch {
    /// Adds a block whose region begins at `image_at` of the image.
    pub(crate) fn add(&mut self, piece: &Piece, prepared: &Prepared, image_at: u64) {
        for task in &prepared.tasks {
            let mut job = task.job;
            for plane in [&mut job.first].into_iter().chain(&mut job.others) {
                plane.offset += if plane.place == Place::Scratch { self.scratch_len as u64 } else { image_at };
            }
            if task.kernel.has_table_in_image() {
                job.table += image_at;
            }
            if job.out_place == Place::Scratch {
                job.out += self.scratch_len as u64;
            }
            job.status = self.blocks.len() as u32;
            let number = self.jobs.len() as u32;
            let last = (job.end.max(job.begin + 1) - 1) >> job.tile_log;
            let tiles = job.begin >> job.tile_log..=last;
            let spans = tiles.step_by(TILES_OF_SPAN as usize).map(|tile| Span { job: number, tile });
            self.spans.entry((task.step, task.kernel)).or_default().extend(spans);
            self.jobs.push(job);
        }
        self.blocks.push((piece.tensor, piece.ordinal));
        self.scratch_len += prepared.scratch_len;
    }

    /// Number of blocks, and of status words.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of scratch memory.
    pub(crate) fn scratch_len(&self) -> usize {
        self.scratch_len
    }

    /// The head of the image: jobs, then spans.
    pub(crate) fn put_head(&self, head: &mut Vec<u8>) {
        self.jobs.iter().for_each(|job| job.put(head));
        for span in self.spans.values().flatten() {
            span.put(head);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The launches.
    pub(crate) fn launches(&self, kernels: &Kernels) -> Result<Vec<KernelLaunch>> {
        let mut spans = (self.jobs.len() * Job::LEN) as u64;
        let launch = |(&(_, kernel), list): (&(Step, Kernel), &Vec<Span>)| {
            let launch = KernelLaunch { function: kernels.get(kernel)?, spans, count: list.len() as u32 };
            spans += (list.len() * Span::LEN) as u64;
            Ok(launch)
        };
        self.spans.iter().map(launch).collect()
    }

    /// What the status words say: the first block that failed.
    ///
    /// # Errors
    /// [`Code::BadStream`] or [`Code::DecodedChecksum`], with tensor and block.
    pub(crate) fn check(&self, archive: &Archive, status: &[u8]) -> Result<()> {
        for (word, &(tensor, ordinal)) in status.chunks_exact(4).zip(&self.blocks) {
            let status = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if status != 0 {
                let code = if status == BAD_CHECKSUM { Code::DecodedChecksum } else { Code::BadStream };
                return Err(archive.in_block(Error::new(code, status_text(status)), tensor, ordinal));
            }
        }
        Ok(())
    }
}

/// Submits launches to a stream: nothing is allocated, and nothing waits.
///
/// # Safety
/// The addresses are of live memory of the stream's device, as large as the batch says, until the work has ended; the
/// image holds the batch's head and regions.
pub(crate) unsafe fn submit(launches: &[KernelLaunch], stream: &Arc<CudaStream>, addresses: Addresses) -> Result<()> {
    for launch in launches {
        let head = addresses.image + addresses.head;
        let argument = Launch {
            image: addresses.image,
            scratch: addresses.scratch,
            output: addresses.output,
            jobs: head,
            spans: head + launch.spans,
            status: addresses.status,
        };
        let grid = LaunchConfig { grid_dim: (launch.count, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel takes one `Launch`, and the caller answers for what it says.
        unsafe { stream.launch_builder(&launch.function).arg(&argument).launch(grid) }
            .map_err(failed("launch a kernel"))?;
    }
    Ok(())
}
