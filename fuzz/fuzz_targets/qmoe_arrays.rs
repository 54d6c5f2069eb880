//! See the body, `cmz_tests::fuzz::qmoe_arrays`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cmz_tests::fuzz::qmoe_arrays(data));
