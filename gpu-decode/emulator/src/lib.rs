//! Runs CUDA kernels on the CPU, for tests: directly ([`launch`]), or behind cudarc, whose calls go to a stand-in
//! for the driver after [`install_fake_driver`].
//!
//! Every thread of a CTA is a fiber. They are switched only at barriers and warp collectives, in an [`Order`] that
//! tests choose, and what CUDA leaves undefined ends the process with a message: divergent barriers, shuffles from
//! lanes outside the mask, `cp.async` never waited for. Device memory and shared memory are poisoned; with
//! `CMZ_EMU_SANITIZE` set when this crate is built, sanitizers find accesses out of bounds and data races.
//!
//! What a thread has not set by [`Settings`] comes from the environment:
//!
//! | variable | |
//! |---|---|
//! | `CUDA_EMU_ORDER` | `forward` (default), `reverse`, `random` |
//! | `CUDA_EMU_SEED` | of the random order; 1 |
//! | `CUDA_EMU_WORKERS` | CTAs that run at the same time; the number of CPUs |
//! | `CUDA_EMU_STREAM` | `lazy` (default): work is run as late as the interface allows; `eager`: when it is submitted |
//! | `CUDA_EMU_FAIL_ALLOCATION` | the number, from 1, of the allocation that fails with out of memory |
//! | `CUDA_EMU_NO_DEVICE` | set: the driver reports that there is no device |
#![expect(unsafe_code, reason = "the emulator is a C++ library")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::{Library, Symbol};

/// In which order threads that can run, and CTAs, are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By index.
    #[default]
    Forward,
    /// By index, from the last.
    Reverse,
    /// Pseudorandom, by the seed.
    Random,
}

/// How the emulator runs what the calling thread launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Order of threads and CTAs.
    pub order: Order,
    /// Seed of [`Order::Random`].
    pub seed: u64,
    /// CTAs that run at the same time; at least 1.
    pub workers: u32,
    /// Whether streams run their work when it is submitted.
    pub eager: bool,
    /// Whether the driver reports that there is no device.
    pub no_device: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: Order::Forward, seed: 1, workers: 2, eager: false, no_device: false }
    }
}

impl Settings {
    /// Every combination of order and stream mode.
    pub fn all() -> impl Iterator<Item = Self> {
        let orders = [Order::Forward, Order::Reverse, Order::Random];
        orders.into_iter().flat_map(|order| [false, true].map(|eager| Self { order, eager, ..Self::default() }))
    }

    /// Applies to all that this thread does from now on, instead of the environment. Work in a stream runs on the
    /// thread that waits for it.
    pub fn apply(self) {
        let set: Symbol<'_, unsafe extern "C" fn(c_int, u64, c_uint, c_int, c_int)> = symbol("emu_override_settings");
        // SAFETY: the function has this type; it stores the numbers.
        unsafe { set(self.order as c_int, self.seed, self.workers, self.eager.into(), self.no_device.into()) }
    }
}

/// Makes the `number`-th allocation, from 1, that this thread makes from now on fail: device memory, pinned memory.
/// 0 takes it back.
pub fn fail_allocation(number: u64) {
    // SAFETY: the function has this type; it stores the number.
    unsafe { symbol::<unsafe extern "C" fn(u64)>("emu_fail_allocation")(number) }
}

/// What the process has from the driver and has not given back: allocations, streams, events, graphs.
pub fn live_objects() -> u64 {
    // SAFETY: the function has this type; it counts.
    unsafe { symbol::<unsafe extern "C" fn() -> u64>("emu_live_objects")() }
}

/// The library that stands in for the driver, for programs that load it themselves: with `LD_PRELOAD` a program finds it
/// when it looks for libcuda.
#[must_use]
pub fn library_path() -> &'static str {
    env!("CMZ_FAKE_CUDA")
}

/// Makes cudarc find the emulator when it looks for the CUDA driver. To be called before anything of cudarc is.
pub fn install_fake_driver() {
    library();
}

/// The kernels of gpu-decode/kernels/list.txt.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    env!("CMZ_KERNELS").split_whitespace()
}

/// Bytes of each parameter of a kernel; none when there is no such kernel.
pub fn parameter_bytes(kernel: &str) -> Option<Vec<u32>> {
    let name = CString::new(kernel).ok()?;
    let parameters: Symbol<'_, unsafe extern "C" fn(*const c_char, *mut c_uint, c_uint) -> c_uint> =
        symbol("emu_parameters");
    let mut bytes = vec![0; 64];
    // SAFETY: the function writes at most as many integers as it is told.
    let count = unsafe { parameters(name.as_ptr(), bytes.as_mut_ptr(), 64) };
    bytes.truncate(usize::try_from(count).ok().filter(|&count| count <= 64)?);
    Some(bytes)
}

/// Runs a kernel to its end. `grid` is in CTAs and `block` in threads, x before y before z; `shared` is the dynamic
/// shared memory of a CTA in bytes.
///
/// # Panics
/// When there is no such kernel, it has another number of parameters, or CUDA would refuse the dimensions.
///
/// # Safety
/// `arguments` must point to values of the kernel's own types, and pointers among these to memory as large as the
/// kernel uses.
pub unsafe fn launch(kernel: &str, grid: [u32; 3], block: [u32; 3], shared: u32, arguments: &mut [*mut c_void]) {
    let parameters = parameter_bytes(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
    assert_eq!(arguments.len(), parameters.len(), "arguments of {kernel}");
    let name = CString::new(kernel).expect("a name that was found");
    type Launch = unsafe extern "C" fn(*const c_char, *const u32, *const u32, u32, *mut *mut c_void) -> c_int;
    let launch: Symbol<'_, Launch> = symbol("emu_launch");
    // SAFETY: the caller answers for the arguments; grid and block are three integers each.
    let status = unsafe { launch(name.as_ptr(), grid.as_ptr(), block.as_ptr(), shared, arguments.as_mut_ptr()) };
    assert_eq!(status, 0, "{kernel}: CUDA would refuse grid {grid:?}, block {block:?}, {shared} bytes");
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: the library is the one that build.rs made; its initializers only register kernels.
        unsafe { Library::new(library_path()) }.expect("the library that the build script made")
    })
}

fn symbol<F>(name: &str) -> Symbol<'static, F> {
    // SAFETY: `F` is the type that launch.cpp gives the function.
    unsafe { library().get(name.as_bytes()) }.expect("a function of the emulator")
}
