//! cudarc, unmodified, on the stand-in for the driver.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "launches and raw allocations")]

use std::sync::Arc;

use cmz_gpu_emulator::{Settings, fail_allocation, install_fake_driver};
use cudarc::driver::sys::{CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// As much of a PTX text as the stand-in looks at: kernels are found by name.
const PTX: &str = ".version 8.0\n.visible .entry self_scale(\n.visible .entry no_such_kernel(\n";

const COUNT: usize = 1000;
const UNTIMED: Option<CUevent_flags> = None;

fn context() -> Arc<CudaContext> {
    install_fake_driver();
    CudaContext::new(0).unwrap()
}

fn scale(context: &Arc<CudaContext>) -> CudaFunction {
    context.load_module(Ptx::from_src(PTX)).unwrap().load_function("self_scale").unwrap()
}

fn launch(stream: &Arc<CudaStream>, f: &CudaFunction, from: &CudaSlice<u32>, to: &mut CudaSlice<u32>, bias: u8) {
    let count = from.len() as u64;
    let config =
        LaunchConfig { grid_dim: (count.div_ceil(128) as u32, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel's own parameters; both slices have `count` elements.
    unsafe { stream.launch_builder(f).arg(from).arg(to).arg(&count).arg(&bias).launch(config) }.unwrap();
}

fn input() -> Vec<u32> {
    (0..COUNT as u32).map(|i| i * i).collect()
}

fn scaled(input: &[u32], bias: u32) -> Vec<u32> {
    input.iter().map(|i| i * 3 + bias).collect()
}

#[test]
fn the_device() {
    let context = context();
    assert_eq!(context.name().unwrap(), "cuda_emu (CPU)");
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    assert!(context.total_mem().unwrap() > 0);
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert!(CudaContext::new(1).is_err());
}

#[test]
fn a_machine_without_a_device() {
    install_fake_driver();
    Settings { no_device: true, ..Settings::default() }.apply();
    assert_eq!(CudaContext::device_count().unwrap_err(), DriverError(CUresult::CUDA_ERROR_NO_DEVICE));
}

#[test]
fn copies_launches_and_events() {
    for settings in Settings::all() {
        settings.apply();
        let context = context();
        let stream = context.new_stream().unwrap();
        let function = scale(&context);
        let input = input();
        // SAFETY: written whole before it is read.
        let mut pinned = unsafe { context.alloc_pinned::<u32>(COUNT) }.unwrap();
        pinned.as_mut_slice().unwrap().copy_from_slice(&input);
        let mut from = stream.alloc_zeros::<u32>(COUNT).unwrap();
        let mut to = stream.alloc_zeros::<u32>(COUNT).unwrap();
        stream.memcpy_htod(&pinned, &mut from).unwrap();
        let start = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        launch(&stream, &function, &from, &mut to, 7);
        let end = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        assert_eq!(stream.clone_dtoh(&to).unwrap(), scaled(&input, 7));
        assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    }
}

#[test]
fn streams_are_ordered_by_events() {
    for settings in Settings::all() {
        settings.apply();
        let context = context();
        let function = scale(&context);
        let (first, second) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let from = first.clone_htod(&input()).unwrap();
        let mut between = first.alloc_zeros::<u32>(COUNT).unwrap();
        launch(&first, &function, &from, &mut between, 1);
        second.wait(&first.record_event(UNTIMED).unwrap()).unwrap();
        let mut to = second.alloc_zeros::<u32>(COUNT).unwrap();
        launch(&second, &function, &between, &mut to, 2);
        assert_eq!(second.clone_dtoh(&to).unwrap(), scaled(&scaled(&input(), 1), 2));
    }
}

#[test]
fn a_kernel_must_be_in_the_image_and_in_the_emulator() {
    let module = context().load_module(Ptx::from_src(PTX)).unwrap();
    let not_found = Some(DriverError(CUresult::CUDA_ERROR_NOT_FOUND));
    assert_eq!(module.load_function("self_scan").err(), not_found);
    assert_eq!(module.load_function("no_such_kernel").err(), not_found);
    assert!(context().load_module(Ptx::from_src("not PTX")).is_err());
}

#[test]
fn shared_memory_beyond_48_kilobytes_is_asked_for() {
    let context = context();
    let stream = context.new_stream().unwrap();
    let function = scale(&context);
    let (from, mut to) = (stream.clone_htod(&input()).unwrap(), stream.alloc_zeros::<u32>(COUNT).unwrap());
    let (count, bias) = (0u64, 0u8);
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 64 * 1024 };
    let mut run = || {
        // SAFETY: the kernel's own parameters; it does nothing for a count of 0.
        unsafe { stream.launch_builder(&function).arg(&from).arg(&mut to).arg(&count).arg(&bias).launch(config) }
            .map(|_| ())
    };
    assert_eq!(run(), Err(DriverError(CUresult::CUDA_ERROR_INVALID_VALUE)));
    let most = cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(most, 64 * 1024).unwrap();
    assert_eq!(run(), Ok(()));
}

#[test]
fn allocations_fail_when_asked_to() {
    let stream = context().new_stream().unwrap();
    fail_allocation(2);
    let results: Vec<_> = (0..3).map(|_| stream.alloc_zeros::<u8>(10).err()).collect();
    assert_eq!(results, [None, Some(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)), None]);
    // SAFETY: there is no allocation.
    assert!(unsafe { stream.alloc::<u8>(1 << 40) }.is_err(), "a terabyte");
    fail_allocation(1);
    // SAFETY: nothing is read from it.
    assert!(unsafe { context().alloc_pinned::<u8>(10) }.is_err());
}

/// Begins a capture on a stream of its own, with events disabled: a capture may not wait for what came before it.
fn capturing(mode: CUstreamCaptureMode) -> (Arc<CudaContext>, Arc<CudaStream>) {
    let context = context();
    // SAFETY: each test uses one stream, or orders its streams itself.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    stream.begin_capture(mode).unwrap();
    (context, stream)
}

#[test]
fn a_graph_runs_what_was_captured_each_time_it_is_launched() {
    let context = context();
    // SAFETY: one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let function = scale(&context);
    let mut from = stream.clone_htod(&input()).unwrap();
    let mut to = stream.alloc_zeros::<u32>(COUNT).unwrap();
    stream.synchronize().unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    launch(&stream, &function, &from, &mut to, 5);
    let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&to).unwrap(), [0; COUNT], "a capture runs nothing");
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&to).unwrap(), scaled(&input(), 5));
    let other: Vec<u32> = input().iter().map(|i| i + 9).collect();
    stream.memcpy_htod(&other, &mut from).unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&to).unwrap(), scaled(&other, 5));
}

#[test]
fn captures_follow_events_to_other_streams() {
    for join in [true, false] {
        let (context, stream) = capturing(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED);
        let side = context.new_stream().unwrap();
        let mut words = context.default_stream().clone_htod(&[1u32; 4]).unwrap();
        context.default_stream().synchronize().unwrap();
        side.wait(&stream.record_event(UNTIMED).unwrap()).unwrap();
        side.memset_zeros(&mut words).unwrap();
        if join {
            stream.wait(&side.record_event(UNTIMED).unwrap()).unwrap();
        }
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        if join {
            graph.unwrap().unwrap().launch().unwrap();
            stream.synchronize().unwrap();
            assert_eq!(context.default_stream().clone_dtoh(&words).unwrap(), [0; 4]);
        } else {
            assert_eq!(graph.err(), Some(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED)));
        }
    }
}

/// What each call is told, during a capture, that cannot be in a graph; and that the capture is lost by it.
#[test]
fn what_cannot_be_captured_is_refused() {
    type Call = fn(&Arc<CudaContext>, &Arc<CudaStream>, &mut CudaSlice<u32>) -> Result<(), DriverError>;
    // SAFETY: nothing is read from the allocations.
    let calls: [(&str, Call); 7] = [
        ("allocation", |_, stream, _| unsafe { stream.alloc::<u8>(8) }.map(drop)),
        ("pinned allocation", |context, _, _| unsafe { context.alloc_pinned::<u8>(8) }.map(drop)),
        ("stream", |_, stream, _| stream.synchronize()),
        ("context", |context, _, _| context.synchronize()),
        ("copy to pageable memory", |_, stream, words| stream.memcpy_dtoh(words, &mut [0u32; 4])),
        ("copy from pageable memory", |_, stream, words| stream.memcpy_htod(&[0u32; 4], words)),
        ("free", |_, stream, _| {
            // SAFETY: the address is not used: the call is refused.
            unsafe { cudarc::driver::result::free_async(1 << 40, stream.cu_stream()) }
        }),
    ];
    for (what, call) in calls {
        let before = context();
        let mut words = before.default_stream().clone_htod(&[1u32; 4]).unwrap();
        let (context, stream) = capturing(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        let refused = call(&context, &stream, &mut words);
        assert_eq!(refused, Err(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)), "{what}");
        let ended = stream.end_capture(CUgraphInstantiate_flags(0)).err();
        assert_eq!(ended, Some(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)), "{what}");
    }
}

#[test]
fn a_capture_does_not_wait_for_what_came_before_it() {
    let context = context();
    let earlier = context.new_stream().unwrap().record_event(UNTIMED).unwrap();
    let stream = context.new_stream().unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    assert_eq!(stream.wait(&earlier), Err(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION)));
    assert!(stream.end_capture(CUgraphInstantiate_flags(0)).is_err());
}
