//! The example that runs a transformer with compressed weights, on the emulator.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/resident/model.rs"]
mod model;

use cmz_codec::Archive;
use cmz_codec::convert::compress;
use cmz_gpu_decode::GpuDecoder;
use cmz_tests::folder::{Folder, options};
use model::{Plain, Shape};

#[test]
fn a_transformer_with_compressed_weights_gives_the_same_bits() {
    cmz_gpu_emulator::install_fake_driver();
    let decoder = GpuDecoder::open(0).unwrap();
    let shape = Shape { layers: 3, width: 128, hidden: 64 };
    let folder = Folder::new();
    let source = folder.write("model.safetensors", &shape.checkpoint());
    let file = folder.path("model.cmz");
    compress(&source, &file, &options(2), &()).unwrap();
    let compared = model::compare(&decoder, &shape, 2, &file).unwrap();
    let outputs = &compared.plain.outputs;
    assert!(*outputs == compared.resident.outputs);
    assert!(compared.plain_len > 0 && compared.resident_len > 0);
    assert!(!compared.plain.token_time.is_zero() && !compared.resident.token_time.is_zero());

    // Outputs that say something: numbers, other ones for each token, and moved by the last layer.
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    assert!(outputs.iter().flat_map(|output| values(output)).all(|value| value.is_finite() && value != 0.0));
    assert!(outputs.windows(2).all(|pair| pair[0] != pair[1]));
    let shorter = Shape { layers: shape.layers - 1, ..shape };
    let archive = Archive::open(&file).unwrap();
    let mut plain = Plain::new(&decoder, &archive, &shorter.layers_of(&archive).unwrap()).unwrap();
    let shorter = model::run(&decoder, &shorter, 1, &mut plain).unwrap();
    assert_ne!(shorter.outputs[0], outputs[0]);
}
