//! The entropy of component arrays, of tensors for which it is known.

use cmz_codec::encoding::reference::Operation;
use cmz_codec::{Code, TensorEntropy};
use cmz_format::Component;
use cmz_tests::check::open_bytes;
use cmz_tests::cmz::{Storage, write};
use cmz_tests::raw_file::RawFile;
use cmz_tests::source::Source;

/// Name, bits of a symbol, symbols, bits of entropy and bytes stored of each component.
fn components(entropy: &TensorEntropy) -> Vec<(&str, u8, u64, u64, u64)> {
    entropy.components.iter().map(|c| (&*c.name, c.width.bits(), c.symbols, c.bits, c.stored_len)).collect()
}

/// 1024 elements with each of four exponents and each of 256 other bytes, and as many that are equal.
fn floats() -> Vec<u8> {
    let various = (0..1024u16).map(|i| (i & 0x80) << 8 | (124 + (i >> 8)) << 7 | i & 0x7f);
    various.chain([0x3f80; 1024]).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn entropy_is_that_of_the_symbols_block_by_block() {
    let pairs: Vec<u8> = (0..1000).map(|i| if i % 2 == 0 { 3 } else { 200 }).collect();
    let source = Source::new()
        .tensor("floats", "BF16", &[2048], floats())
        .tensor("one block", "BF16", &[2048], floats())
        .tensor("joint", "BF16", &[2048], floats())
        .tensor("pairs", "U8", &[1000], &pairs)
        .tensor("ids", "U16", &[512], (0..512u16).flat_map(u16::to_le_bytes).collect::<Vec<_>>())
        .tensor("same", "U8", &[1000], &pairs)
        .tensor("xor", "U8", &[1000], pairs.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>())
        .tensor("empty", "U8", &[0], [])
        .build();
    let file = write(&source, |entry| match entry.name.as_str() {
        "floats" => Storage::new("float_planes", "BF16", &["raw"], 1024),
        "one block" => Storage::new("float_planes", "BF16", &["raw"], 2048),
        "joint" => Storage::new("float_joint", "BF16", &["raw"], 1024),
        "ids" => Storage::new("byte_planes", "U16", &["bitpack"], 512),
        "same" => Storage::by_reference(Operation::SameAs, "pairs", &["raw"], 1000),
        "xor" => Storage::by_reference(Operation::Xor, "pairs", &["raw"], 1000),
        _ => Storage::new("plain", "U8", &["raw"], 500),
    });
    let archive = open_bytes(&file.unwrap()).unwrap();
    let all: Vec<usize> = (0..archive.tensors().len()).collect();
    let found = archive.entropy(&all, 1).unwrap();
    assert_eq!(archive.entropy(&all, 3).unwrap(), found);
    let [floats, one, joint, pairs, ids, same, xor, empty] = &found[..] else { panic!("one for each") };

    let of_two_blocks = [("exponent", 8, 2048, 2 * 1024, 2048), ("sign_mantissa", 8, 2048, 8 * 1024, 2048)];
    assert_eq!(components(floats), of_two_blocks);
    assert_eq!((floats.bits(), floats.stored_len()), (10 * 1024, 4096));
    // Shares of 1/8 three times, and of 5/8; shares of 1/512 for 255 symbols, and of 257/512.
    let share = |n: f64, of: f64| -(n * (n / of).log2());
    let expected =
        [3.0 * share(256.0, 2048.0) + share(1280.0, 2048.0), 255.0 * share(4.0, 2048.0) + share(1028.0, 2048.0)];
    for (component, expected) in one.components.iter().zip(expected) {
        assert!((component.bits as f64 - expected).abs() < 2.0, "{component:?}, {expected}");
    }
    // Ten bits: exponent and two of the mantissa, 16 pairs; six: the sign and five, 64 values.
    let joint_parts = [("exponent_mantissa", 10, 2048, 4 * 1024, 4096), ("sign_mantissa", 6, 2048, 6 * 1024, 2048)];
    assert_eq!(components(joint), joint_parts);
    assert_eq!(components(pairs), [("data", 8, 1000, 1000, 1000)]);
    let [high, low] = &components(ids)[..] else { panic!("two planes") };
    assert_eq!((high.0, high.3, low.0, low.3), ("byte_1", 512, "byte_0", 8 * 512));
    assert_eq!(same, &TensorEntropy::default());
    assert_eq!(components(xor), [("data", 8, 1000, 0, 1000)], "of the difference");
    assert_eq!(empty, &TensorEntropy::default());
}

#[test]
fn components_of_components_have_long_names() {
    let source = Source::new().tensor("w", "U8", &[256], (0..=255).collect::<Vec<u8>>()).build();
    let mut file = RawFile::parse(&write(&source, |_| Storage::new("plain", "U8", &["zstd"], 256)).unwrap());
    file.edit_tensor(0, |tensor| {
        let inner = tensor["encoding"].clone();
        tensor["encoding"]["components"]["data"] = inner;
    });
    let archive = open_bytes(&file.build()).unwrap();
    assert!(matches!(archive.tensors()[0].encoding.components["data"], Component::Encoded(_)));
    let entropy = archive.entropy(&[0], 1).unwrap().remove(0);
    assert_eq!((&*entropy.components[0].name, entropy.bits()), ("data.data", 2048));
}

#[test]
fn damage_is_found() {
    let source = Source::new().tensor("w", "BF16", &[2048], floats()).build();
    let mut file = write(&source, |_| Storage::new("float_planes", "BF16", &["raw"], 1024)).unwrap();
    let archive = open_bytes(&file).unwrap();
    let second = archive.index().table()[archive.index().tensor_blocks(0).data.start + 1].payload_offset();
    file[second as usize] ^= 1;
    let error = open_bytes(&file).unwrap().entropy(&[0], 2).unwrap_err();
    assert_eq!((error.code(), error.tensor(), error.block()), (Code::StoredChecksum, Some("w"), Some(1)));
}
