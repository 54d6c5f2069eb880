//! Each planted bug ends the process with its message, so each runs in a process of its own.
#![allow(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "kernels take pointers")]

use std::env;
use std::ffi::c_void;
use std::process::{Command, Output};

use cmz_gpu_emulator::launch;

/// Names the kernel for the process that is to run it.
const KERNEL: &str = "CMZ_EMU_TEST_KERNEL";

fn argument<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

/// Not a test of its own: what the others run in another process. Prints the first words of the output.
#[test]
fn run_one() {
    #[repr(align(16))]
    struct Aligned([u32; 256]);
    let Ok(kernel) = env::var(KERNEL) else { return };
    let input = Aligned([0x0403_0201; 256]);
    let mut output = [0u32; 64];
    let (from, to) = (input.0.as_ptr(), output.as_mut_ptr());
    let threads = if kernel == "self_bug_missing_barrier" { 64 } else { 32 };
    let parameters = cmz_gpu_emulator::parameter_bytes(&kernel).unwrap().len();
    let mut arguments = if parameters == 2 { vec![argument(&from), argument(&to)] } else { vec![argument(&to)] };
    // SAFETY: the planted bugs read at most 1 KiB and write one word a thread; what they do else, the engine stops.
    unsafe { launch(&kernel, [1; 3], [threads, 1, 1], 0, &mut arguments) };
    println!("finished: {output:?}");
}

fn run(kernel: &str, order: &str) -> Output {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "run_one", "--nocapture"]).env(KERNEL, kernel).env("CUDA_EMU_ORDER", order);
    child.output().unwrap()
}

#[test]
fn undefined_behaviour_ends_the_process() {
    let bugs = [
        ("self_bug_divergent_barrier", "DEADLOCK"),
        ("self_bug_half_warp_shuffle", "lanes of one mask meet in different operations"),
        ("self_bug_source_outside_mask", "reads a lane outside the mask"),
        ("self_bug_lane_outside_mask", "the calling lane is not in its mask"),
        ("self_bug_exited_lane", "names a lane that has exited"),
        ("self_bug_mixed_operations", "lanes of one mask meet in different operations"),
        ("self_bug_mixed_barriers", "different kinds of __syncthreads"),
        ("self_bug_active_mask", "pass an explicit mask"),
        ("self_bug_copy_never_waited_for", "never waited for"),
        ("self_bug_misaligned_copy", "misaligned address"),
        ("self_bug_no_dynamic_shared", "dynamic shared memory"),
    ];
    for (kernel, message) in bugs {
        for order in ["forward", "reverse", "random"] {
            let output = run(kernel, order);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && errors.contains(message), "{kernel}, {order}: {errors}");
        }
    }
}

/// A kernel that lacks a barrier can be right by luck in one order, but not in both.
#[test]
fn a_missing_barrier_shows_in_some_order() {
    let outputs = ["forward", "reverse"].map(|order| run("self_bug_missing_barrier", order));
    assert!(outputs.iter().all(|output| output.status.success() || instrumented()));
    assert_ne!(outputs[0].stdout, outputs[1].stdout);
}

/// Whether the kernels were built with a sanitizer, which then finds the missing barrier first.
fn instrumented() -> bool {
    option_env!("CMZ_EMU_SANITIZE").is_some_and(|names| !names.is_empty())
}

/// What only sanitizers see: out of bounds, misaligned loads, races.
#[test]
fn sanitizers_see_what_is_theirs() {
    let sanitizers = option_env!("CMZ_EMU_SANITIZE").unwrap_or_default();
    let bugs = [
        ("address", "self_bug_shared_overflow", "heap-buffer-overflow"),
        ("undefined", "self_bug_misaligned_load", "misaligned address"),
        ("thread", "self_bug_missing_barrier", "data race"),
    ];
    for (sanitizer, kernel, message) in bugs {
        if sanitizers.split(',').any(|name| name == sanitizer) {
            let output = run(kernel, "forward");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && errors.contains(message), "{kernel}: {errors}");
        }
    }
}
