//! A model that stays compressed in device memory: each layer is decoded just before it is used, the next one meanwhile.
//!
//! The idea is DFloat11's (T. Zhang et al., arXiv 2504.11651, §2.3.3), which decodes a transformer block at a time on the stream of
//! the computation; here a second stream decodes ahead, into the other one of two buffers.

use std::sync::Arc;

use cmz_codec::{Archive, Result};
use cudarc::driver::{CudaEvent, CudaStream};

use crate::decoder::{GpuDecoder, Request};
use crate::memory::{DeviceMemory, failed};
use crate::plan::{DecodePlan, Placement};

/// Layers, compressed in device memory, and two buffers that they are decoded into in turn.
#[derive(Debug)]
pub struct ResidentLayers {
    plans: Vec<DecodePlan>,
    buffers: [Buffer; 2],
    side: Arc<CudaStream>,
}

#[derive(Debug)]
struct Buffer {
    memory: DeviceMemory,
    /// The layer that is in it, or on its way.
    layer: Option<usize>,
    /// Behind the decode into it.
    decoded: CudaEvent,
    /// Behind the computations that use it.
    used: CudaEvent,
}

/// A decoded layer: where its tensors are on the device.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    base: u64,
    offsets: &'a [u64],
}

impl Layer<'_> {
    /// Address of the layer's tensor `i`, in the order in which the layer was given.
    ///
    /// # Panics
    /// If there is no such tensor.
    #[must_use]
    pub fn address(&self, i: usize) -> u64 {
        self.base + self.offsets[i]
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether the layer has no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
}

impl ResidentLayers {
    /// Copies layers, each a list of tensor numbers, to the device, and decodes each once to see that they can be.
    ///
    /// # Errors
    /// As [`GpuDecoder::plan`] and [`DecodePlan::check`].
    pub fn new(decoder: &GpuDecoder, archive: &Archive, layers: &[Vec<usize>], threads: usize) -> Result<Self> {
        let plan = |layer: &Vec<usize>| {
            let requests: Vec<Request> = layer.iter().copied().map(Request::whole).collect();
            decoder.plan(archive, &requests, Placement::Packed, false, threads)
        };
        let plans: Vec<DecodePlan> = layers.iter().map(plan).collect::<Result<_>>()?;
        let len = plans.iter().map(DecodePlan::output_len).max().unwrap_or(0) as usize;
        let side = decoder.new_stream()?;
        let buffer = || {
            let event = || decoder.context().new_event(None).map_err(failed("make an event"));
            Ok(Buffer { memory: decoder.allocate(len)?, layer: None, decoded: event()?, used: event()? })
        };
        let resident = Self { plans, buffers: [buffer()?, buffer()?], side };
        for plan in &resident.plans {
            // SAFETY: the buffer is as long as the longest layer, and `check` waits.
            unsafe { plan.decode(&resident.side, resident.buffers[0].memory.address())? };
            plan.check(archive, &resident.side)?;
        }
        Ok(resident)
    }

    /// Number of layers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there are no layers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Bytes of device memory: compressed layers and both buffers.
    #[must_use]
    pub fn device_len(&self) -> usize {
        let compressed: usize = self.plans.iter().map(DecodePlan::device_len).sum();
        compressed + self.buffers.iter().map(|buffer| buffer.memory.len()).sum::<usize>()
    }

    /// Makes work that is submitted to `compute` from now on see layer `i`, and begins to decode the layer after it.
    /// Nothing waits on the host. Addresses are valid for work submitted before the next but one call.
    ///
    /// # Errors
    /// [`Code::Device`](cmz_codec::Code::Device).
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn layer(&mut self, i: usize, compute: &Arc<CudaStream>) -> Result<Layer<'_>> {
        let current = match self.buffers.iter().position(|buffer| buffer.layer == Some(i)) {
            Some(current) => current,
            None => {
                self.begin(i, i % 2, compute)?;
                i % 2
            }
        };
        compute.wait(&self.buffers[current].decoded).map_err(failed("order streams"))?;
        let next = (i + 1) % self.plans.len();
        let other = 1 - current;
        if self.plans.len() > 1 && self.buffers[other].layer != Some(next) {
            self.begin(next, other, compute)?;
        }
        let base = self.buffers[current].memory.address();
        Ok(Layer { base, offsets: self.plans[i].offsets() })
    }

    /// Decodes a layer into a buffer, behind all that `compute` has been given, which may use the buffer.
    fn begin(&mut self, layer: usize, buffer: usize, compute: &Arc<CudaStream>) -> Result<()> {
        let buffer = &mut self.buffers[buffer];
        let ordered = buffer.used.record(compute).and_then(|()| self.side.wait(&buffer.used));
        ordered.map_err(failed("order streams"))?;
        buffer.layer = None;
        // SAFETY: the buffer is as long as the longest layer and lives as long as the side stream; decodes of one plan follow
        // each other there.
        unsafe { self.plans[layer].decode(&self.side, buffer.memory.address())? };
        buffer.decoded.record(&self.side).map_err(failed("order streams"))?;
        buffer.layer = Some(layer);
        Ok(())
    }
}

impl Drop for ResidentLayers {
    fn drop(&mut self) {
        // Memory is freed behind the work that writes it. A failure cannot be reported from here.
        let _ = self.side.synchronize();
    }
}
