//! When streams run their work. Alone in its process, because a thread that waits for the whole device, as cudarc does
//! for the first stream of a context, runs the work of all.
#![allow(clippy::unwrap_used, reason = "tests")]

use cmz_gpu_emulator::{Settings, install_fake_driver};
use cudarc::driver::CudaContext;

#[test]
fn lazy_streams_run_nothing_early() {
    install_fake_driver();
    for eager in [false, true] {
        Settings { eager, ..Settings::default() }.apply();
        let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
        let _slice = stream.alloc_zeros::<u32>(1000).unwrap();
        let event = stream.record_event(None).unwrap();
        assert_eq!(event.is_complete(), eager);
        event.synchronize().unwrap();
        assert!(event.is_complete());
    }
}
