//! The decoders on a real device. Without one the tests say so and do nothing; under `CMZ_REQUIRE_GPU=1` they fail.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "decoding takes device addresses")]

mod common;

use cmz_codec::Code;
use cmz_gpu_decode::GpuDecoder;

fn decoder() -> Option<GpuDecoder> {
    match GpuDecoder::open(0) {
        Ok(decoder) => Some(decoder),
        Err(e) if std::env::var_os("CMZ_REQUIRE_GPU").is_some() => panic!("CMZ_REQUIRE_GPU is set: {e}"),
        Err(e) => {
            assert_eq!(e.code(), Code::NoGpu);
            eprintln!("SKIPPED, there is no GPU: {e}");
            None
        }
    }
}

common::tests!(decoder);
