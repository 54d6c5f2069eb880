//! Kernels that are right give the same results in every order.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "kernels take pointers")]

use std::ffi::c_void;

use cmz_gpu_emulator::{Order, Settings, launch, parameter_bytes};

const FULL: u32 = u32::MAX;

fn argument<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

/// Runs `test` in every order, with several seeds where it is random, on one worker and on three.
fn in_all_orders(test: impl Fn()) {
    for (order, seeds) in [(Order::Forward, 1), (Order::Reverse, 1), (Order::Random, 8)] {
        for seed in 0..seeds {
            for workers in [1, 3] {
                Settings { order, seed, workers, ..Settings::default() }.apply();
                test();
            }
        }
    }
}

/// Launches a kernel whose only argument is a pointer to `words`.
fn launch_on(kernel: &str, grid: u32, block: [u32; 3], words: &mut [u32]) {
    let pointer = words.as_mut_ptr();
    // SAFETY: each caller passes as many words as the kernel uses.
    unsafe { launch(kernel, [grid, 1, 1], block, 0, &mut [argument(&pointer)]) }
}

#[test]
fn prefix_sums_over_a_cta() {
    let input: Vec<u32> = (0..256 * 5).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 20).collect();
    in_all_orders(|| {
        let mut output = vec![0u32; input.len()];
        let mut total = 0u32;
        let pointers = (input.as_ptr(), output.as_mut_ptr(), &raw mut total);
        let mut arguments = [argument(&pointers.0), argument(&pointers.1), argument(&pointers.2)];
        // SAFETY: 256 words a CTA for input and output, and one word for the total.
        unsafe { launch("self_scan", [5, 1, 1], [256, 1, 1], 0, &mut arguments) };
        for (input, output) in input.chunks(256).zip(output.chunks(256)) {
            let mut sum = 0;
            for (value, prefix) in input.iter().zip(output) {
                assert_eq!(*prefix, sum);
                sum += value;
            }
        }
        assert_eq!(total, input.iter().sum::<u32>());
    });
}

/// What `self_warp` gives lane `lane`, from the definitions in the CUDA programming guide.
fn expected_of_warp(lane: u32) -> [u32; 16] {
    let half_lane = lane % 16;
    let diverged = match lane {
        0..8 => [0xaaaa, 7],
        8..16 => [0xaaaa, 8],
        _ => [(16..32).sum(), 99],
    };
    [
        (0..32).filter(|l| l % 3 == 0).map(|l| 1 << l).sum(),
        1,
        0,
        (lane / 8 * 8 + (lane + 1) % 8) * 10,
        if half_lane + 3 < 16 { (lane + 3) * 10 } else { lane * 10 },
        (lane ^ 5) * 10,
        0xf << (lane / 4 * 4),
        FULL.wrapping_add(1),
        (0..32).sum(),
        3 << 16 | 31,
        FULL ^ 31,
        (1 << 8) + 11,
        diverged[0],
        diverged[1],
        FULL,
        lane.saturating_sub(1),
    ]
}

#[test]
fn warp_primitives() {
    in_all_orders(|| {
        let mut output = vec![0u32; 16 * 32];
        launch_on("self_warp", 1, [32, 1, 1], &mut output);
        for (lane, words) in (0u32..).zip(output.chunks(16)) {
            assert_eq!(words, expected_of_warp(lane), "lane {lane}");
        }
    });
}

#[test]
fn barriers_reduce_and_forget_threads_that_left() {
    in_all_orders(|| {
        let mut output = vec![0u32; 64];
        launch_on("self_barriers", 1, [16, 10, 1], &mut output);
        assert_eq!(output, [32 << 16 | 1 << 8 | 64; 64]);
    });
}

#[test]
fn threads_wait_for_each_other() {
    in_all_orders(|| {
        let (mut flags, mut output) = ([0u32; 3], [0u32; 3]);
        let pointers = (flags.as_mut_ptr(), output.as_mut_ptr());
        // SAFETY: one word a CTA in each.
        unsafe {
            launch("self_spin", [3, 1, 1], [96, 1, 1], 0, &mut [argument(&pointers.0), argument(&pointers.1)]);
        }
        assert_eq!(output, [1; 3]);
    });
}

#[test]
fn atomics() {
    in_all_orders(|| {
        let mut words = [0, 0, FULL, 0, 0, FULL, 0];
        launch_on("self_atomics", 200, [1, 1, 1], &mut words);
        let parity = (0..200).fold(0, |bits, cta| bits ^ 1u32 << (cta % 32));
        assert_eq!(words, [199 * 200 / 2, 199, 0, FULL, parity, 0xffff_0000, 400]);
    });
}

#[test]
fn staged_copies() {
    #[repr(align(16))]
    struct Aligned([u32; 128]);
    let input = Aligned(std::array::from_fn(|i| u32::try_from(i).unwrap()));
    in_all_orders(|| {
        let mut output = vec![0u32; 128];
        let pointers = (input.0.as_ptr(), output.as_mut_ptr());
        // SAFETY: 64 words a CTA, aligned to 16 bytes.
        unsafe {
            launch("self_stage", [2, 1, 1], [64, 1, 1], 256, &mut [argument(&pointers.0), argument(&pointers.1)]);
        }
        for (input, output) in input.0.chunks(64).zip(output.chunks(64)) {
            assert!(input.iter().rev().eq(output));
        }
    });
}

/// PTX's `prmt` in its default mode.
fn byte_perm(a: u32, b: u32, selectors: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let byte = |i: u32| {
        let selector = selectors >> (4 * i);
        let byte = (bytes >> (8 * (selector & 7))) as u8;
        if selector & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
    };
    u32::from_le_bytes([0, 1, 2, 3].map(byte))
}

#[test]
fn integer_intrinsics() {
    let samples = [0, 1, 2, 31, 32, 33, 63, 0x8000_0000, FULL, 0x1234_5678, 0xdead_beef];
    for (a, b) in samples.iter().flat_map(|&a| samples.map(|b| (a, b))) {
        let mut output = [0u32; 9];
        let pointer = output.as_mut_ptr();
        // SAFETY: the kernel writes nine words.
        unsafe {
            let mut arguments = [argument(&a), argument(&b), argument(&pointer)];
            launch("self_integers", [1; 3], [1; 3], 0, &mut arguments);
        }
        let both = u64::from(b) << 32 | u64::from(a);
        let first = if a == 0 { 0 } else { a.trailing_zeros() + 1 };
        let clamped = (b & 63).min(32);
        let expected = [
            a.count_ones() | a.leading_zeros() << 8 | first << 16,
            a.reverse_bits(),
            ((u64::from(a) * u64::from(b)) >> 32) as u32,
            byte_perm(a, b, 0x7250),
            byte_perm(a, b, 0x8a1f),
            ((both << (b & 31)) >> 32) as u32,
            (both >> (b & 31)) as u32,
            ((u128::from(both) << clamped) >> 32) as u32,
            (both >> clamped) as u32,
        ];
        assert_eq!(output, expected, "{a:#x}, {b:#x}");
    }
}

#[test]
fn parameters_are_known() {
    assert_eq!(parameter_bytes("self_scale"), Some(vec![8, 8, 8, 1]));
    assert_eq!(parameter_bytes("no_such_kernel"), None);
}
