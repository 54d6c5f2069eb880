//! Tensors that are no plain floats: what is chosen for integers, indices, and quantized weights with their scales, and what that gains.

use cmz_codec::Archive;
use cmz_codec::choose::EncodeOptions;
use cmz_codec::convert::CompressOptions;
use cmz_codec::stream::Level;
use cmz_tests::check::verify_code;
use cmz_tests::folder::{Folder, options};
use cmz_tests::inputs::{Rng, int4, mxfp4, nvfp4};
use cmz_tests::source::Source;

/// A tensor: name, type, bytes, and, at the levels `fast` and `max`, the encoding that it gets and
/// the most bytes that it may take of a thousand.
type Case = (&'static str, &'static str, Vec<u8>, [(&'static str, u64); 2]);

/// In place of an encoding's name: several are as good.
const EITHER: &str = "";

/// Compresses the tensors at both levels, restores them and checks what became of each.
fn check(cases: &[Case]) {
    let mut source = Source::new();
    for (name, dtype, bytes, ..) in cases {
        let len = cmz_format::Dtype::from_name(dtype).map_or(1, cmz_format::Dtype::bits);
        source = source.tensor(name, dtype, &[bytes.len() as u64 * 8 / len], bytes);
    }
    let source = source.build();
    for (i, level) in [Level::Fast, Level::Max].into_iter().enumerate() {
        let folder = Folder::new();
        let encode = EncodeOptions { level, codec: None };
        folder.compress("file.cmz", &source, &CompressOptions { encode, ..options(2) }).unwrap();
        assert_eq!(verify_code(&folder.path("file.cmz")), None);
        assert!(folder.restore("file.cmz", 2).unwrap() == source, "restored byte for byte");
        let archive = Archive::open(&folder.path("file.cmz")).unwrap();
        for (number, (name, _, bytes, expected)) in cases.iter().enumerate() {
            let index = archive.index();
            let records = &index.table()[index.tensor_blocks(number).data.clone()];
            let stored: u64 = records.iter().map(|record| u64::from(record.stored_len)).sum();
            let tensor = &archive.tensors()[number];
            let found = (tensor.encoding.name.as_str(), stored * 1000 / bytes.len() as u64);
            println!("{name} at {level:?}: {found:?} {:?}", tensor.encoding.components);
            assert!(archive.read(name).unwrap() == *bytes, "{name}");
            assert!(
                [found.0, EITHER].contains(&expected[i].0) && found.1 <= expected[i].1,
                "{name} at {level:?}: {found:?} of a thousand"
            );
        }
    }
}

fn le64(values: impl Iterator<Item = u64>) -> Vec<u8> {
    values.flat_map(u64::to_le_bytes).collect()
}

#[test]
fn integers_are_stored_by_their_bytes_where_that_gains() {
    let mut rng = Rng::new(1);
    // Frequencies of tokens fall about as one over their rank.
    let tokens: Vec<u64> = (0..200_000).map(|_| (50_000 >> (rng.bits() % 16)) ^ (rng.bits() % 256)).collect();
    let sorted = (0..200_000u64).scan(0, |at, _| {
        Some({
            *at += rng.bits() % 90;
            *at
        })
    });
    let sorted: Vec<u8> = sorted.flat_map(|at| (at as u32).to_le_bytes()).collect();
    let mut rng = Rng::new(2);
    let noise = |len| Rng::new(3).bytes(len);
    let small: Vec<u8> = (0..100_000).map(|_| (rng.normal() * 300.0) as i16).flat_map(i16::to_le_bytes).collect();
    check(&[
        ("position_ids", "I64", le64((0..8192).cycle().take(300_000)), [("byte_planes", 20); 2]),
        ("token_ids", "I64", le64(tokens.iter().copied()), [("byte_planes", 300); 2]),
        (
            "token_ids.32",
            "U32",
            tokens.iter().flat_map(|&t| (t as u32).to_le_bytes()).collect(),
            [("byte_planes", 600); 2],
        ),
        ("offsets", "I32", sorted, [("byte_planes", 450); 2]),
        ("small", "I16", small, [("byte_planes", 750); 2]),
        ("zeros", "I64", vec![0; 80_000], [("plain", 10); 2]),
        ("random", "U64", noise(100_000), [("plain", 1000); 2]),
        ("scalar", "I64", vec![3, 0, 0, 0, 0, 0, 0, 0], [("plain", 1000); 2]),
    ]);
}

/// Real weights as other programs quantize them.
#[test]
fn quantized_weights_and_their_scales() {
    let file = std::fs::read(cmz_tests::data_dir().join("minilm-layer0-bf16.safetensors")).unwrap();
    let header = cmz_codec::safetensors::Header::read(&file).unwrap();
    let matrices = header.tensors.iter().filter(|entry| entry.shape.len() == 2);
    let bytes = matrices.flat_map(|entry| &file[entry.range.start as usize..entry.range.end as usize]);
    let bytes: Vec<u8> = bytes.copied().collect();
    let weights: Vec<f32> =
        bytes.as_chunks().0.iter().map(|&[low, high]| f32::from_le_bytes([0, 0, low, high])).collect();
    // Two parts: equal tensors are stored once.
    let (some, others) = weights.split_at(weights.len() / 64 * 32);
    let ((codes, scales), (f4_codes, u8_scales)) = (mxfp4(some), mxfp4(others));
    let ((nv_codes, nv_scales), (nv_f4_codes, _)) = (nvfp4(some), nvfp4(others));
    // Of each four the two smallest are dropped: half of the codes are zeros.
    let mut sparse = weights.clone();
    for four in sparse.chunks_exact_mut(4) {
        let mut sizes: Vec<f32> = four.iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        four.iter_mut().filter(|w| w.abs() <= sizes[1]).for_each(|w| *w = 0.0);
    }
    check(&[
        // 3.94 bits of information in 4: decoding is not worth that.
        ("mxfp4.blocks", "U8", codes, [("plain", 1000); 2]),
        ("mxfp4.codes", "F4", f4_codes, [("plain", 1000); 2]),
        ("mxfp4.scales", "F8_E8M0", scales, [("plain", 200), ("plain", 190)]),
        ("mxfp4.scales.bytes", "U8", u8_scales, [("plain", 160), ("plain", 150)]),
        ("mxfp4.sparse", "F4", mxfp4(&sparse).0, [("plain", 720), ("plain", 710)]),
        ("nvfp4.codes", "U8", nv_codes, [("plain", 1000); 2]),
        ("nvfp4.codes.f4", "F4", nv_f4_codes, [("plain", 1000); 2]),
        ("nvfp4.scales", "F8_E4M3", nv_scales, [("plain", 570), ("float_joint", 570)]),
        ("int4.qweight", "I32", int4(&weights), [(EITHER, 850), (EITHER, 840)]),
    ]);
}
