//! Estimates come close to what conversions make.

use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::estimate;
use cmz_codec::stream::Level;
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, bf16_weights};
use cmz_tests::source::Source;

#[test]
fn estimates_come_within_two_percent() {
    let weights = bf16_weights(3, 1_900_000);
    let source = Source::new()
        .tensor("weights", "BF16", &[1_900_000], &weights)
        .tensor("noise", "U8", &[1_100_000], Rng::new(2).bytes(1_100_000))
        .tensor("again", "BF16", &[1_900_000], &weights)
        .build();
    for level in [Level::Fast, Level::Max] {
        let encode = EncodeOptions { level, codec: None };
        let mut conversion = options(2);
        conversion.encode = encode.clone();
        let real = Folder::new().compress("file.cmz", &source, &conversion).unwrap().len() as f64;
        let tensors = estimate(&source, &encode, 2, &()).unwrap();
        let estimated = tensors.iter().map(|tensor| tensor.stored_len).sum::<u64>() as f64;
        assert!((estimated / real - 1.0).abs() < 0.02, "{level:?}: estimated {estimated}, real {real}");
        assert_eq!(tensors[2].stored_len, 0);
    }
}
