//! The kernels: their names, their PTX, and the functions once a device has them.

use std::sync::{Arc, OnceLock};

use cmz_codec::registry;
use cmz_codec::stream::StreamCodec;
use cudarc::driver::{CudaContext, CudaFunction};
use cudarc::nvrtc::Ptx;

use crate::device::driver_error;

macro_rules! kernels {
    ($($kernel:ident $name:literal,)*) => {
        /// A kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kernel {
            $($kernel,)*
        }

        impl Kernel {
            pub(crate) const ALL: &[Self] = &[$(Self::$kernel,)*];

            /// Its name in the module, and in the registry.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kernel => $name,)* }
            }

            /// Its source for the driver, which compiles it for the device.
            pub(crate) fn ptx(self) -> &'static str {
                match self { $(Self::$kernel => include_str!(concat!("../ptx/", $name, ".ptx")),)* }
            }
        }
    };
}

kernels! {
    Direct "cmz_direct",
    Tiered "cmz_tiered",
    Huffman "cmz_huffman",
    Rans "cmz_rans",
    Tunstall "cmz_tunstall",
    Dictionary "cmz_dictionary",
    Trits "cmz_trits",
    Affine "cmz_affine",
    BlockScale "cmz_block_scale",
    Codebook "cmz_codebook",
    Sparse "cmz_sparse",
    Permute "cmz_permute",
    LowRank "cmz_low_rank",
    Crc32 "cmz_crc32",
    Matvec "cmz_matvec",
    Matmat "cmz_matmat",
    MatvecTables "cmz_matvec_tables",
    MatmatTables "cmz_matmat_tables",
    TernaryMatvec "cmz_ternary_matvec",
}

impl Kernel {
    /// Whether a job's table lies in the image: of others it is the address of a table of the decoder, or a number.
    pub(crate) fn has_table_in_image(self) -> bool {
        !matches!(self, Self::Dictionary | Self::Crc32)
    }

    /// The kernel that the registry names for a stream codec.
    pub(crate) fn of(codec: &dyn StreamCodec) -> Option<Self> {
        let entry = registry::STREAMS.iter().find(|entry| entry.codec.id() == codec.id())?;
        Self::ALL.iter().copied().find(|kernel| Some(kernel.name()) == entry.cuda_kernel)
    }
}

/// The kernels of a device, each loaded when it is first asked for.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Arc<CudaContext>,
    functions: [OnceLock<CudaFunction>; Kernel::ALL.len()],
}

impl Kernels {
    pub(crate) fn new(context: Arc<CudaContext>) -> Self {
        Self { context, functions: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// The function of a kernel.
    pub(crate) fn get(&self, kernel: Kernel) -> cmz_codec::Result<CudaFunction> {
        let cell = &self.functions[kernel as usize];
        if let Some(function) = cell.get() {
            return Ok(function.clone());
        }
        let load = || self.context.load_module(Ptx::from_src(kernel.ptx()))?.load_function(kernel.name());
        let function = load().map_err(|e| driver_error(e).with_help("cmz's kernels need a driver from 525 on"))?;
        Ok(cell.get_or_init(|| function).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_and_the_kernels_name_each_other() {
        for entry in registry::STREAMS {
            assert_eq!(Kernel::of(entry.codec).map(Kernel::name), entry.cuda_kernel, "{}", entry.codec.name());
        }
    }

    /// One parameter: a `Launch`, a `Product` or a `TernaryProduct`.
    #[test]
    fn every_kernel_takes_what_it_is_given() {
        for &kernel in Kernel::ALL {
            let len = match kernel {
                Kernel::Matvec | Kernel::Matmat | Kernel::MatvecTables | Kernel::MatmatTables => "[120]",
                Kernel::TernaryMatvec => "[112]",
                _ => "[48]",
            };
            let ptx = kernel.ptx();
            let entry = ptx.split_once(&format!(".entry {}(", kernel.name())).map(|(_, rest)| rest).unwrap();
            let parameters = entry.split_once(')').map(|(list, _)| list.trim()).unwrap();
            assert!(parameters.starts_with(".param .align 8 .b8") && parameters.ends_with(len), "{parameters}");
        }
    }
}
