//! Every element type and every bit pattern comes back as it was.

use cmz_codec::Archive;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::CompressOptions;
use cmz_codec::registry::STREAMS;
use cmz_codec::stream::Level;
use cmz_format::Dtype;
use cmz_tests::check::verify_code;
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, bf16_weights, f32_weights, skewed};
use cmz_tests::source::Source;

/// Compresses, verifies and restores a source, and returns the `.cmz` file.
fn there_and_back(source: &[u8], options: &CompressOptions) -> Vec<u8> {
    let folder = Folder::new();
    let file = folder.compress("file.cmz", source, options).unwrap();
    assert_eq!(verify_code(&folder.path("file.cmz")), None);
    assert!(folder.restore("file.cmz", 2).unwrap() == source, "restored byte for byte");
    assert_eq!(folder.names(), ["file.cmz", "restored.safetensors", "source.safetensors"], "nothing else is left");
    file
}

/// All element types at both levels and with every codec forced.
fn encode_options() -> Vec<EncodeOptions> {
    let forced = STREAMS.iter().map(|entry| EncodeOptions { level: Level::Fast, codec: Some(entry.codec) });
    let levels = [Level::Fast, Level::Max].map(|level| EncodeOptions { level, codec: None });
    levels.into_iter().chain(forced).collect()
}

#[test]
fn every_dtype() {
    let mut source = Source::new();
    for (i, dtype) in Dtype::ALL.iter().enumerate() {
        let len = |elements| dtype.byte_len(elements).unwrap() as usize;
        source = source
            .tensor(&format!("{dtype}.skewed"), dtype.name(), &[25, 40], skewed(i as u64, len(1000)))
            .tensor(&format!("{dtype}.random"), dtype.name(), &[8], Rng::new(i as u64).bytes(len(8)))
            .tensor(&format!("{dtype}.zeros"), dtype.name(), &[3, 8, 8], vec![0; len(192)])
            .tensor(&format!("{dtype}.empty"), dtype.name(), &[8, 0], []);
    }
    for encode in encode_options() {
        there_and_back(&source.build(), &CompressOptions { encode, ..options(2) });
    }
}

#[test]
fn every_pattern_of_16_bit_floats() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let shuffled: Vec<u8> = (0..=u16::MAX).flat_map(|i| i.wrapping_mul(40_503).to_le_bytes()).collect();
    let source = Source::new()
        .tensor("bf16", "BF16", &[256, 256], &patterns)
        .tensor("f16", "F16", &[256, 256], &patterns)
        .tensor("bf16.shuffled", "BF16", &[65_536], &shuffled)
        .tensor("f16.shuffled", "F16", &[65_536], &shuffled);
    for encode in encode_options() {
        there_and_back(&source.build(), &CompressOptions { encode, ..options(2) });
    }
}

/// NaNs of both kinds with every bit of payload, infinities, zeros, subnormals and normals.
#[test]
fn special_values_of_wide_floats() {
    let f32s = (0..32).flat_map(|bit| [1u32 << bit, !(1 << bit), 0x7f80_0000 | 1 << bit, 0xff80_0000 | 1 << bit]);
    let f64s = (0..64).flat_map(|bit| [1u64 << bit, !(1 << bit), 0x7ff0 << 48 | 1 << bit, 0xfff0 << 48 | 1 << bit]);
    let narrow: Vec<u8> = f32s.chain([0, 1 << 31]).flat_map(u32::to_le_bytes).collect();
    let wide: Vec<u8> = f64s.flat_map(u64::to_le_bytes).collect();
    let source = Source::new()
        .tensor("f32", "F32", &[narrow.len() as u64 / 4], &narrow)
        .tensor("c64", "C64", &[narrow.len() as u64 / 8], &narrow[..narrow.len() / 8 * 8])
        .tensor("f64", "F64", &[wide.len() as u64 / 8], &wide);
    for encode in encode_options() {
        there_and_back(&source.build(), &CompressOptions { encode, ..options(1) });
    }
}

#[test]
fn every_pattern_of_8_bit_floats() {
    let patterns: Vec<u8> = (0..=u8::MAX).collect();
    let mut source = Source::new();
    for dtype in Dtype::ALL.iter().filter(|dtype| dtype.bits() == 8) {
        source = source.tensor(dtype.name(), dtype.name(), &[256], &patterns);
    }
    for encode in encode_options() {
        there_and_back(&source.build(), &CompressOptions { encode, ..options(1) });
    }
}

/// Several blocks of each kind: contiguous, compressed, and a last one that is shorter.
#[test]
fn tensors_of_several_blocks_are_the_same_for_any_thread_count() {
    let source = Source::new()
        .metadata("format", "pt")
        .tensor("random", "U8", &[2_500_001], Rng::new(1).bytes(2_500_001))
        .tensor("bf16", "BF16", &[700, 1001], bf16_weights(2, 700_700))
        .tensor("f32", "F32", &[300_000], f32_weights(3, 300_000))
        .gap(&[7; 1 << 21])
        .build();
    let files: Vec<_> = [1, 2, 3, 8].map(|threads| there_and_back(&source, &options(threads))).to_vec();
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn real_weights_come_back_and_shrink() {
    let most = [("minilm-layer0-bf16", 70), ("minilm-layer3-attention-f16", 90), ("minilm-layer5-attention-f32", 86)];
    for (name, percent) in most {
        let source = std::fs::read(cmz_tests::data_dir().join(format!("{name}.safetensors"))).unwrap();
        let file = there_and_back(&source, &options(2));
        assert!(file.len() * 100 < source.len() * percent, "{name}: {} of {}", file.len(), source.len());
    }
}

/// What the safetensors library writes is what this library reads, tensor by tensor.
#[test]
fn files_of_the_safetensors_library() {
    use safetensors::{Dtype as Theirs, SafeTensors, tensor::TensorView};
    let data = f32_weights(5, 600);
    let view = |dtype, shape: &[usize], len| TensorView::new(dtype, shape.to_vec(), &data[..len]).unwrap();
    let tensors = [
        ("a.weight", view(Theirs::F32, &[20, 30], 2400)),
        ("b.weight", view(Theirs::BF16, &[100], 200)),
        ("c.scalar", view(Theirs::I64, &[], 8)),
        ("d.empty", view(Theirs::U8, &[0, 4], 0)),
    ];
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let source = safetensors::serialize(tensors, Some(metadata)).unwrap();
    let folder = Folder::new();
    folder.compress("file.cmz", &source, &options(2)).unwrap();
    let restored = folder.restore("file.cmz", 1).unwrap();
    assert!(restored == source);
    let archive = Archive::open(&folder.path("file.cmz")).unwrap();
    let theirs = SafeTensors::deserialize(&restored).unwrap();
    assert_eq!(theirs.names().len(), archive.tensors().len());
    for (name, view) in theirs.tensors() {
        let tensor = &archive.tensors()[archive.find(&name).unwrap()];
        assert_eq!(tensor.shape, view.shape().iter().map(|&dim| dim as u64).collect::<Vec<_>>());
        assert_eq!(tensor.dtype, format!("{:?}", view.dtype()));
        assert!(archive.read(&name).unwrap() == view.data());
    }
}

/// What the safetensors library refuses although nothing in it is ambiguous is restored
/// byte for byte.
#[test]
fn files_that_the_safetensors_library_refuses() {
    let base = || Source::new().tensor("a", "U8", &[3], b"abc").tensor("b", "U8", &[2], b"de");
    let refused = [
        base().gap(b"trailing").build(),
        Source::new().gap(b"hole").tensor("a", "U8", &[3], b"abc").build(),
        Source::new().tensor("a", "U8", &[3], b"abc").gap(b"hole").tensor("b", "U8", &[2], b"de").build(),
        Source::new().tensor("a", "F3", &[3], b"abc").build(),
    ];
    for source in refused {
        assert!(safetensors::SafeTensors::deserialize(&source).is_err());
        there_and_back(&source, &options(1));
    }
    there_and_back(&base().reversed().build(), &options(1));
}

/// One header length in some 8,000 looks like the start of a pickle.
#[test]
fn every_length_of_header() {
    let source = Source::new().tensor("a", "U8", &[3], b"abc");
    for len in (80..2000).chain((2000..70_000).step_by(8)).chain([0x0403_4b50]) {
        let file = source.clone().header_len(len).build();
        let header = cmz_codec::safetensors::Header::read(&file).unwrap_or_else(|e| panic!("{len}: {e}"));
        assert_eq!(header.len, 8 + len as u64);
    }
}
