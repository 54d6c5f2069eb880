//! The decoders on the emulator: the kernels' sources and the unmodified host code, on the CPU.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "decoding takes device addresses")]

mod common;

use cmz_gpu_decode::GpuDecoder;

fn decoder() -> Option<GpuDecoder> {
    cmz_gpu_emulator::install_fake_driver();
    Some(GpuDecoder::open(0).expect("the emulator is a device"))
}

common::tests!(decoder);
