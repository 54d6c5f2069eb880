//! See the body, `cmz_tests::fuzz::stream_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cmz_tests::fuzz::stream_decode(data));
