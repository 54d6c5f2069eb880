//! Which device decodes.

use std::str::FromStr;

use cmz_codec::{Code, Result};
use cmz_gpu_decode::GpuDecoder;

use crate::context::Context;

/// The value of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':').unwrap_or((text, "0")) {
            _ if text == "auto" => Ok(Self::Auto),
            _ if text == "cpu" => Ok(Self::Cpu),
            ("cuda", ordinal) => {
                ordinal.parse().map(Self::Cuda).map_err(|_| "the number of a CUDA device, as in cuda:1")
            }
            _ => Err("auto, cpu, cuda or cuda:N"),
        }
    }
}

impl DeviceArg {
    /// The GPU that is meant; none if the CPU is, or there is no GPU and none was asked for.
    pub(crate) fn open(self, context: &Context) -> Result<Option<GpuDecoder>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(ordinal) => GpuDecoder::open(ordinal).map(Some),
            Self::Auto => match GpuDecoder::open(0) {
                Ok(decoder) => Ok(Some(decoder)),
                Err(e) if e.code() == Code::NoGpu => {
                    context.note(&format!("{}, using the CPU", e.message()));
                    Ok(None)
                }
                Err(e) => Err(e),
            },
        }
    }
}
