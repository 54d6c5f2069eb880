//! The tests of the decoders, for any device: what the GPU decodes equals what the CPU decodes, bit for bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cmz_codec::{Archive, Code, OpenOptions};
use cmz_gpu_decode::{DeviceMemory, GpuDecoder, LoadOptions, Placement, Request, ResidentLayers, Target};

pub(crate) mod bank;
mod experts;
mod products;
pub(crate) mod quantized;

pub(crate) use experts::*;
pub(crate) use products::*;

/// Makes a test of each function here, for a device.
macro_rules! tests {
    ($decoder:ident) => {
        common::tests!($decoder:
            plans_decode_like_the_cpu,
            loads_decode_like_the_cpu,
            real_weights_decode_like_on_the_cpu,
            packed_symbols_decode_like_on_the_cpu,
            nested_arrays_decode_like_on_the_cpu,
            quantized_arrays_decode_like_on_the_cpu,
            special_numbers_decode_like_on_the_cpu,
            row_ranges_write_their_bytes_only,
            tensors_go_where_they_are_told,
            only_memory_of_the_device_is_its_own,
            damaged_streams_are_reported_with_tensor_and_block,
            wrong_decoded_checksums_are_reported,
            loads_can_be_cancelled,
            resident_layers_alternate,
            verify_compares_every_byte,
            products_are_within_their_bound,
            products_with_outliers_and_codebooks_are_within_their_bound,
            products_that_cannot_be_are_refused,
            compressed_products_of_long_rows,
            products_of_an_expert,
            products_report_damaged_codes,
            products_refuse_what_the_cpu_refuses,
            experts_decode_in_one_launch,
        );
    };
    ($decoder:ident: $($test:ident,)*) => {
        $(#[test]
        fn $test() {
            if let Some(decoder) = $decoder() {
                common::$test(&decoder);
            }
        })*
    };
}
pub(crate) use tests;

/// What memory holds that nobody writes to.
const UNTOUCHED: u8 = 0xa5;

fn open(bytes: Vec<u8>) -> Archive {
    Archive::from_reader(Box::new(bytes), OpenOptions::default()).expect("a sound file")
}

/// Device memory full of [`UNTOUCHED`].
fn memory(decoder: &GpuDecoder, len: usize) -> DeviceMemory {
    let mut memory = decoder.allocate(len).unwrap();
    memory.write(&decoder.new_stream().unwrap(), 0, &vec![UNTOUCHED; len]).unwrap();
    memory
}

fn all(archive: &Archive) -> Vec<Request> {
    (0..archive.tensors().len()).map(Request::whole).collect()
}

fn name(archive: &Archive, tensor: usize) -> &str {
    &archive.tensors()[tensor].name
}

/// Decodes all tensors by a plan, twice, and compares them.
fn check_plan(decoder: &GpuDecoder, what: &str, archive: &Archive) {
    let stream = decoder.new_stream().unwrap();
    let plan =
        decoder.plan(archive, &all(archive), Placement::Packed, true, 2).unwrap_or_else(|e| panic!("{what}: {e}"));
    let output = memory(decoder, plan.output_len() as usize + 64);
    for _ in 0..2 {
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        plan.check(archive, &stream).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    let decoded = output.read(&stream).unwrap();
    let mut wanted = vec![UNTOUCHED; decoded.len()];
    for (tensor, &offset) in plan.offsets().iter().enumerate() {
        let bytes = archive.read(name(archive, tensor)).unwrap();
        let found = &decoded[offset as usize..][..bytes.len()];
        if let Some(at) = found.iter().zip(&bytes).position(|(a, b)| a != b) {
            panic!("{what}, {}: byte {at} is {:#x}, not {:#x}", name(archive, tensor), found[at], bytes[at]);
        }
        wanted[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    assert!(decoded == wanted, "{what}: bytes between the tensors were written");
}

/// Loads all tensors and compares them.
fn check_load(decoder: &GpuDecoder, what: &str, archive: &Archive, options: &LoadOptions<'_>) {
    let stream = decoder.new_stream().unwrap();
    let lens: Vec<usize> =
        all(archive).iter().map(|r| cmz_gpu_decode::request_len(archive, r).unwrap() as usize).collect();
    let memories: Vec<DeviceMemory> = lens.iter().map(|&len| memory(decoder, len)).collect();
    let targets: Vec<Target> =
        all(archive).into_iter().zip(&memories).map(|(request, m)| Target { request, address: m.address() }).collect();
    // SAFETY: each memory is as long as its tensor.
    let report = unsafe { decoder.load(archive, &targets, &stream, options) }.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(report.decoded, lens.iter().sum::<usize>() as u64);
    for (tensor, memory) in memories.iter().enumerate() {
        let wanted = archive.read(name(archive, tensor)).unwrap();
        assert!(memory.read(&stream).unwrap() == wanted, "{what}, {}", name(archive, tensor));
    }
}

pub(crate) fn plans_decode_like_the_cpu(decoder: &GpuDecoder) {
    for (what, file) in bank::files() {
        check_plan(decoder, &what, &open(file));
    }
}

pub(crate) fn loads_decode_like_the_cpu(decoder: &GpuDecoder) {
    for (i, (what, file)) in bank::files().into_iter().enumerate() {
        // Slots from too small for a block to large enough for everything.
        let options = LoadOptions {
            threads: 1 + i % 3,
            slots: 2 + i % 2,
            slot_len: 20_000 << (i % 7),
            check_decoded: i % 2 == 0,
            ..LoadOptions::default()
        };
        check_load(decoder, &what, &open(file), &options);
    }
}

pub(crate) fn real_weights_decode_like_on_the_cpu(decoder: &GpuDecoder) {
    for (what, file) in bank::real() {
        let archive = open(file);
        check_plan(decoder, &what, &archive);
        check_load(decoder, &what, &archive, &LoadOptions { slot_len: 1 << 20, ..LoadOptions::default() });
    }
}

pub(crate) fn nested_arrays_decode_like_on_the_cpu(decoder: &GpuDecoder) {
    for (what, file) in bank::nested() {
        let archive = open(file);
        check_plan(decoder, &what, &archive);
        check_load(decoder, &what, &archive, &LoadOptions { slot_len: 50_000, ..LoadOptions::default() });
    }
}

pub(crate) fn packed_symbols_decode_like_on_the_cpu(decoder: &GpuDecoder) {
    for (what, file) in bank::packed() {
        let archive = open(file);
        assert!(archive.device_shapes(0).unwrap().is_some(), "{what}: decoded by the CPU");
        check_plan(decoder, &what, &archive);
        check_load(decoder, &what, &archive, &LoadOptions { slot_len: 30_000, ..LoadOptions::default() });
    }
}

/// The files' checksums of decoded bytes are of other numbers.
pub(crate) fn quantized_arrays_decode_like_on_the_cpu(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    for (what, file) in quantized::files() {
        let archive = open(file);
        assert!(archive.device_shapes(0).unwrap().is_some(), "{what}: decoded by the CPU");
        let wanted = archive.read("w").unwrap_or_else(|e| panic!("{what}: {e}"));
        let plan = decoder
            .plan(&archive, &all(&archive), Placement::Packed, false, 2)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        let output = memory(decoder, wanted.len() + 64);
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        plan.check(&archive, &stream).unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = output.read(&stream).unwrap();
        let differs = found.iter().zip(&wanted).position(|(a, b)| a != b);
        assert!(differs.is_none(), "{what}: byte {differs:?} of {}", wanted.len());
        assert!(found[wanted.len()..].iter().all(|&byte| byte == UNTOUCHED), "{what}: wrote behind the output");
        let options = LoadOptions { slot_len: 30_000, check_decoded: false, ..LoadOptions::default() };
        check_load(decoder, &what, &archive, &options);
    }
}

pub(crate) fn special_numbers_decode_like_on_the_cpu(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    for (what, file) in bank::special_numbers() {
        let archive = open(file);
        // The file's checksums of decoded bytes are of other numbers.
        let plan = decoder.plan(&archive, &all(&archive), Placement::Packed, false, 1).unwrap();
        let output = memory(decoder, plan.output_len() as usize);
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        plan.check(&archive, &stream).unwrap();
        assert!(plan.device_len() < output.len(), "{what}: the block travels decoded");
        assert!(output.read(&stream).unwrap() == archive.read("w").unwrap(), "{what}");
    }
}

pub(crate) fn row_ranges_write_their_bytes_only(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    let quantized = quantized::files().into_iter().step_by(5);
    let packed = bank::packed().into_iter().step_by(3);
    for (what, file) in bank::matrices().into_iter().chain(bank::nested()).chain(quantized).chain(packed) {
        let archive = open(file);
        for tensor in 0..archive.tensors().len() {
            let rows = archive.tensors()[tensor].shape[0];
            for rows in [0..1, rows / 7..rows / 7 + 1, 0..rows, rows - 1..rows, rows / 3..rows / 2 + 1, 1..1] {
                let request = Request { tensor, rows: Some(rows.clone()) };
                let wanted = archive.read_rows(name(&archive, tensor), rows.clone()).unwrap();
                // An address that is no multiple of 16 forbids wide stores.
                for shift in [0, 64, 2] {
                    let output = memory(decoder, wanted.len() + 128);
                    let plan = decoder
                        .plan(&archive, std::slice::from_ref(&request), Placement::At(&[shift]), false, 1)
                        .unwrap();
                    // SAFETY: the output is as long as the rows and the shift.
                    unsafe { plan.decode(&stream, output.address()) }.unwrap();
                    plan.check(&archive, &stream).unwrap();
                    let decoded = output.read(&stream).unwrap();
                    let (before, rest) = decoded.split_at(shift as usize);
                    let (found, after) = rest.split_at(wanted.len());
                    assert!(found == wanted, "{what}, {}: rows {rows:?}, shift {shift}", name(&archive, tensor));
                    assert!(before.iter().chain(after).all(|&byte| byte == UNTOUCHED), "{what}: rows {rows:?}");
                }
            }
        }
    }
}

pub(crate) fn tensors_go_where_they_are_told(decoder: &GpuDecoder) {
    let archive = open(bank::matrices().remove(0).1);
    let stream = decoder.new_stream().unwrap();
    let memories: Vec<DeviceMemory> =
        (0..archive.tensors().len()).map(|t| memory(decoder, archive.index().tensor_len(t) as usize)).collect();
    let addresses: Vec<u64> = memories.iter().map(DeviceMemory::address).collect();
    let plan = decoder.plan(&archive, &all(&archive), Placement::At(&addresses), false, 1).unwrap();
    // SAFETY: each memory is as long as its tensor.
    unsafe { plan.decode(&stream, 0) }.unwrap();
    plan.check(&archive, &stream).unwrap();
    for (tensor, memory) in memories.iter().enumerate() {
        assert!(memory.read(&stream).unwrap() == archive.read(name(&archive, tensor)).unwrap());
    }
    let none = Request { tensor: 0, rows: Some(7..1 << 40) };
    let e = decoder.plan(&archive, &[none], Placement::Packed, false, 1).unwrap_err();
    assert_eq!(e.code(), Code::InvalidArgument);
}

/// Streams with flipped bits and right checksums: the GPU reports those that the CPU refuses, writes nothing outside, and decodes
/// the others to the same bytes.
pub(crate) fn damaged_streams_are_reported_with_tensor_and_block(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    let (mut refused, mut decoded_anyway) = (0, 0);
    for (what, file) in bank::damaged().into_iter().chain(quantized::damaged()) {
        let archive = open(file);
        let plan = match decoder.plan(&archive, &all(&archive), Placement::Packed, false, 1) {
            Ok(plan) => plan,
            Err(e) => {
                // What the host relies on is checked before anything is launched.
                assert!(
                    archive.read(name(&archive, 0)).is_err(),
                    "{what}: only the device's host code refuses it: {e}"
                );
                refused += 1;
                continue;
            }
        };
        let output = memory(decoder, plan.output_len() as usize + 64);
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        let checked = plan.check(&archive, &stream);
        let bytes = output.read(&stream).unwrap();
        assert!(
            bytes[plan.output_len() as usize..].iter().all(|&byte| byte == UNTOUCHED),
            "{what}: wrote behind the output"
        );
        match (archive.read(name(&archive, 0)), checked) {
            (Ok(wanted), Ok(())) => {
                assert!(bytes[..wanted.len()] == wanted, "{what}");
                decoded_anyway += 1;
            }
            (Err(_), Err(e)) => {
                assert_eq!(e.code(), Code::BadStream);
                assert!(e.to_string().contains(name(&archive, 0)) && e.to_string().contains("block"), "{e}");
                refused += 1;
            }
            (cpu, gpu) => panic!("{what}: CPU {:?}, GPU {gpu:?}", cpu.map(|_| ())),
        }
    }
    assert!(refused > 50 && decoded_anyway > 10, "{refused} refused, {decoded_anyway} decoded");
}

pub(crate) fn wrong_decoded_checksums_are_reported(decoder: &GpuDecoder) {
    let archive = open(bank::wrong_decoded_checksum());
    let stream = decoder.new_stream().unwrap();
    for check in [false, true] {
        let plan = decoder.plan(&archive, &all(&archive), Placement::Packed, check, 1).unwrap();
        let output = memory(decoder, plan.output_len() as usize);
        // SAFETY: the output is as long as the plan says.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        let result = plan.check(&archive, &stream);
        assert_eq!(result.err().map(|e| e.code()), check.then_some(Code::DecodedChecksum));
    }
}

pub(crate) fn loads_can_be_cancelled(decoder: &GpuDecoder) {
    let archive = open(bank::matrices().remove(0).1);
    let stream = decoder.new_stream().unwrap();
    let memories: Vec<DeviceMemory> =
        (0..archive.tensors().len()).map(|t| memory(decoder, archive.index().tensor_len(t) as usize)).collect();
    let targets: Vec<Target> =
        all(&archive).into_iter().zip(&memories).map(|(request, m)| Target { request, address: m.address() }).collect();
    let cancel = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total);
        calls.fetch_add(1, Ordering::Relaxed);
        cancel.store(true, Ordering::Relaxed);
    };
    for threads in [1, 3] {
        cancel.store(false, Ordering::Relaxed);
        let options = LoadOptions {
            threads,
            slots: 2,
            slot_len: 1,
            cancel: Some(&cancel),
            progress: Some(&progress),
            ..LoadOptions::default()
        };
        // SAFETY: each memory is as long as its tensor.
        let e = unsafe { decoder.load(&archive, &targets, &stream, &options) }.unwrap_err();
        assert_eq!(e.code(), Code::Interrupted, "{e}");
    }
    assert!(calls.load(Ordering::Relaxed) >= 2);
}

pub(crate) fn only_memory_of_the_device_is_its_own(decoder: &GpuDecoder) {
    let memory = decoder.allocate(100).unwrap();
    decoder.check_address(memory.address()).unwrap();
    decoder.check_address(memory.address() + 99).unwrap();
    let host = [0u8; 16];
    for address in [0, host.as_ptr().addr() as u64] {
        assert_eq!(decoder.check_address(address).unwrap_err().code(), Code::InvalidArgument);
    }
}

pub(crate) fn resident_layers_alternate(decoder: &GpuDecoder) {
    let archive = open(bank::layers());
    let layers: Vec<Vec<usize>> = (0..archive.tensors().len()).step_by(2).map(|t| vec![t, t + 1]).collect();
    let mut resident = ResidentLayers::new(decoder, &archive, &layers, 1).unwrap();
    assert_eq!(resident.len(), layers.len());
    let compute = decoder.new_stream().unwrap();
    // In order twice, then out of order.
    let order = (0..layers.len()).chain(0..layers.len()).chain([2, 0, 0, layers.len() - 1, 1]);
    for i in order {
        let layer = resident.layer(i, &compute).unwrap();
        for (k, &tensor) in layers[i].iter().enumerate() {
            let wanted = archive.read(name(&archive, tensor)).unwrap();
            assert!(read_at(decoder, &compute, layer.address(k), wanted.len()) == wanted, "layer {i}, tensor {k}");
        }
    }
}

pub(crate) fn verify_compares_every_byte(decoder: &GpuDecoder) {
    let archive = open(bank::layers());
    let total: u64 = (0..archive.tensors().len()).map(|tensor| archive.index().tensor_len(tensor)).sum();
    let mut told = 0;
    assert_eq!(decoder.verify(&archive, 2, &mut |bytes| told += bytes).unwrap(), total);
    assert_eq!(told, total);
    let e = decoder.verify(&open(bank::wrong_decoded_checksum()), 1, &mut |_| ()).unwrap_err();
    assert_eq!(e.code(), Code::DecodedChecksum);
    let measured = decoder.measure(&archive, 1, 1).unwrap();
    assert_eq!((measured.tensors, measured.decoded), (archive.tensors().len(), total));
}

/// Bytes at an address, behind the work of `stream`.
fn read_at(decoder: &GpuDecoder, stream: &Arc<cudarc::driver::CudaStream>, address: u64, len: usize) -> Vec<u8> {
    let copy = decoder.allocate(len).unwrap();
    // SAFETY: both are memory of the device, at least `len` bytes long.
    unsafe { cudarc::driver::result::memcpy_dtod_async(copy.address(), address, len, stream.cu_stream()) }.unwrap();
    copy.read(stream).unwrap()
}
