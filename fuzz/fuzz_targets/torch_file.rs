//! See the body, `cmz_tests::fuzz::torch_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cmz_tests::fuzz::torch_file(data));
