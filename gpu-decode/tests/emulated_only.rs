//! What only the emulator can show: that a decode may be captured in a graph, and what happens when memory runs out.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "decoding takes device addresses")]

#[expect(dead_code, reason = "some of the files are enough here")]
#[path = "common/bank.rs"]
mod bank;

use std::sync::{Mutex, MutexGuard, PoisonError};

use cmz_codec::{Archive, Code, OpenOptions, Result};
use cmz_gpu_decode::{
    DeviceMemory, GpuDecoder, LoadOptions, Placement, Request, Residency, ResidentLayers, Target, request_len,
};
use cmz_gpu_emulator::{Settings, fail_allocation, live_objects};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

/// Live objects are counted for the whole process: one test at a time.
fn decoder() -> (MutexGuard<'static, ()>, GpuDecoder) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    cmz_gpu_emulator::install_fake_driver();
    (turn, GpuDecoder::open(0).expect("the emulator is a device"))
}

fn open(bytes: Vec<u8>) -> Archive {
    Archive::from_reader(Box::new(bytes), OpenOptions::default()).expect("a sound file")
}

fn all(archive: &Archive) -> Vec<Request> {
    (0..archive.tensors().len()).map(Request::whole).collect()
}

fn assert_decoded(archive: &Archive, offsets: &[u64], output: &[u8], what: &str) {
    for (tensor, &offset) in archive.tensors().iter().zip(offsets) {
        let wanted = archive.read(&tensor.name).unwrap();
        assert!(output[offset as usize..][..wanted.len()] == wanted, "{what}, {}", tensor.name);
    }
}

/// The graph holds addresses and no bytes: it decodes whatever the output held before.
#[test]
fn a_captured_decode_is_replayed() {
    let (_turn, decoder) = decoder();
    let stream = decoder.new_stream().unwrap();
    for (what, file) in bank::matrices() {
        let archive = open(file);
        let plan = decoder.plan(&archive, &all(&archive), Placement::Packed, true, 1).unwrap();
        let mut output = decoder.allocate(plan.output_len() as usize).unwrap();
        output.write(&stream, 0, &vec![0; output.len()]).unwrap();

        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        // SAFETY: the output is as long as the plan says and lives longer than the graph.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags).unwrap().expect("a graph");
        assert!(output.read(&stream).unwrap().iter().all(|&byte| byte == 0), "{what}: a capture runs nothing");

        for before in [0, 0xa5] {
            output.write(&stream, 0, &vec![before; output.len()]).unwrap();
            graph.launch().unwrap();
            plan.check(&archive, &stream).unwrap();
            assert_decoded(&archive, plan.offsets(), &output.read(&stream).unwrap(), &what);
        }
    }
}

/// Nothing of a product is allocated or waited for, whichever way the matrix is resident.
#[test]
fn a_captured_product_is_replayed() {
    let (_turn, decoder) = decoder();
    let stream = decoder.new_stream().unwrap();
    let (_, file) = bank::matrices().into_iter().find(|(what, _)| what.contains("ternary")).unwrap();
    let archive = open(file);
    for (residency, batch) in [(Residency::Packed, 1), (Residency::Compressed, 1), (Residency::Compressed, 3)] {
        let matrix = decoder.quantized_matrix(&archive, &Request::whole(0), residency, 1).unwrap();
        let mut x = decoder.allocate(4 * batch * matrix.columns()).unwrap();
        x.write(&stream, 0, &1f32.to_le_bytes().repeat(x.len() / 4)).unwrap();
        let mut y = decoder.allocate(4 * batch * matrix.rows()).unwrap();
        y.write(&stream, 0, &vec![0; y.len()]).unwrap();
        let multiply = || {
            // SAFETY: both are as long as the matrix says and live longer than the graph.
            unsafe { matrix.multiply(&stream, x.address(), y.address(), batch as u32) }.unwrap();
        };
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        multiply();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags).unwrap().expect("a graph");
        assert!(y.read(&stream).unwrap().iter().all(|&byte| byte == 0), "a capture runs nothing");
        graph.launch().unwrap();
        let replayed = y.read(&stream).unwrap();
        assert!(replayed.iter().any(|&byte| byte != 0));
        multiply();
        assert!(y.read(&stream).unwrap() == replayed);
        matrix.check(&archive, &stream).unwrap();
    }
}

/// Calls `work`, which allocates, with its first, second … allocation failing, until it succeeds. Each failure is reported as what it
/// is and leaves nothing behind.
fn fail_each_allocation<T>(what: &str, mut work: impl FnMut() -> Result<T>) -> T {
    for number in 1.. {
        let before = live_objects();
        fail_allocation(number);
        let result = work();
        fail_allocation(0);
        match result {
            Ok(value) => {
                assert!(number > 3, "{what} allocates more than {} times", number - 1);
                return value;
            }
            Err(e) => {
                assert_eq!(e.code(), Code::Device, "{what}, allocation {number}: {e}");
                assert!(e.to_string().contains("OUT_OF_MEMORY") && e.help().is_some(), "{e}");
                assert_eq!(live_objects(), before, "{what}, allocation {number} fails: something is left");
            }
        }
    }
    unreachable!("numbers do not end")
}

#[test]
fn a_plan_without_memory_leaves_nothing() {
    let (_turn, decoder) = decoder();
    let before = live_objects();
    {
        let archive = open(bank::matrices().remove(1).1);
        let make = || {
            let plan = decoder.plan(&archive, &all(&archive), Placement::Packed, true, 2)?;
            let output = decoder.allocate(plan.output_len() as usize)?;
            Ok((plan, output))
        };
        let (plan, output) = fail_each_allocation("a plan", make);
        let stream = decoder.new_stream().unwrap();
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        plan.check(&archive, &stream).unwrap();
        assert_decoded(&archive, plan.offsets(), &output.read(&stream).unwrap(), "after failures");
    }
    assert_eq!(live_objects(), before);
}

#[test]
fn a_load_without_memory_leaves_nothing() {
    let (_turn, decoder) = decoder();
    let before = live_objects();
    {
        let archive = open(bank::matrices().remove(2).1);
        let stream = decoder.new_stream().unwrap();
        let memories: Vec<DeviceMemory> = all(&archive)
            .iter()
            .map(|request| decoder.allocate(request_len(&archive, request).unwrap() as usize).unwrap())
            .collect();
        let targets: Vec<Target> = all(&archive)
            .into_iter()
            .zip(&memories)
            .map(|(request, memory)| Target { request, address: memory.address() })
            .collect();
        let options = LoadOptions { threads: 2, slots: 3, slot_len: 40_000, ..LoadOptions::default() };
        // SAFETY: each memory is as long as its tensor.
        fail_each_allocation("a load", || unsafe { decoder.load(&archive, &targets, &stream, &options) });
        for (memory, tensor) in memories.iter().zip(archive.tensors()) {
            assert!(memory.read(&stream).unwrap() == archive.read(&tensor.name).unwrap(), "{}", tensor.name);
        }
    }
    assert_eq!(live_objects(), before);
}

#[test]
fn resident_layers_without_memory_leave_nothing() {
    let (_turn, decoder) = decoder();
    let before = live_objects();
    let archive = open(bank::layers());
    let layers: Vec<Vec<usize>> = (0..archive.tensors().len()).step_by(2).map(|t| vec![t, t + 1]).collect();
    let resident = fail_each_allocation("resident layers", || ResidentLayers::new(&decoder, &archive, &layers, 1));
    assert_eq!(resident.len(), layers.len());
    assert!(live_objects() >= before + 3 * layers.len() as u64, "three allocations a plan");
    drop(resident);
    assert_eq!(live_objects(), before);
}

/// A thread has no context before it makes one current.
#[test]
fn any_thread_decodes() {
    let (_turn, decoder) = decoder();
    let archive = open(bank::matrices().remove(1).1);
    let plan = decoder.plan(&archive, &all(&archive), Placement::Packed, true, 1).unwrap();
    let stream = decoder.new_stream().unwrap();
    let mut output = decoder.allocate(plan.output_len() as usize).unwrap();
    let on_new_thread = |work: &mut (dyn FnMut() + Send)| std::thread::scope(|scope| scope.spawn(work).join().unwrap());
    on_new_thread(&mut || output.write(&stream, 0, &[0; 100]).unwrap());
    // SAFETY: the output is as long as the plan says, and `check` waits.
    on_new_thread(&mut || unsafe { plan.decode(&stream, output.address()) }.unwrap());
    on_new_thread(&mut || plan.check(&archive, &stream).unwrap());
    on_new_thread(&mut || assert_decoded(&archive, plan.offsets(), &output.read(&stream).unwrap(), "on a new thread"));
}

#[test]
fn without_a_device_there_is_no_decoder() {
    let (_turn, _decoder) = decoder();
    // Settings are those of a thread.
    let opened = std::thread::spawn(|| {
        Settings { no_device: true, ..Settings::default() }.apply();
        GpuDecoder::open(0).map(|_| ())
    });
    let e = opened.join().unwrap().unwrap_err();
    assert_eq!(e.code(), Code::NoGpu);
    assert!(e.to_string().contains("NO_DEVICE") && e.help().is_some(), "{e}");
    assert_eq!(GpuDecoder::open(1).map(|_| ()).unwrap_err().code(), Code::NoGpu);
}
