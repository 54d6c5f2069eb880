//! Laws of references, and manifests that break their rules.

use cmz_format::Dtype;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const OPERATIONS: [Operation; 3] = [Operation::SameAs, Operation::Xor, Operation::Subtract];

fn elements() -> impl Iterator<Item = Element> {
    Dtype::ALL.iter().map(|&dtype| Element::Dtype(dtype)).chain([Element::Opaque])
}

proptest! {
    #[test]
    fn a_difference_gives_back_the_tensor(
        pairs in prop::collection::vec(any::<(u64, u64)>(), 0..40),
        close in any::<bool>(),
    ) {
        let reference: Vec<u8> = pairs.iter().flat_map(|(r, _)| r.to_le_bytes()).collect();
        let near = |(r, x): &(u64, u64)| if close { r.wrapping_add(x % 5).wrapping_sub(2) } else { *x };
        let data: Vec<u8> = pairs.iter().flat_map(|pair| near(pair).to_le_bytes()).collect();
        for element in elements() {
            for operation in OPERATIONS {
                let original = if operation == Operation::SameAs { &reference } else { &data };
                let mut bytes = original.clone();
                operation.take_difference(element, &mut bytes, &reference);
                operation.restore(element, &mut bytes, &reference);
                prop_assert_eq!(&bytes, original);
            }
        }
    }
}

#[test]
fn steps_in_both_directions_are_small_numbers() {
    let difference = |x: u16, r: u16| {
        let mut data = x.to_le_bytes();
        Operation::Subtract.take_difference(Element::Dtype(Dtype::BF16), &mut data, &r.to_le_bytes());
        u16::from_le_bytes(data)
    };
    assert_eq!([(7, 7), (6, 7), (8, 7), (5, 7), (9, 7)].map(|(x, r)| difference(x, r)), [0, 1, 2, 3, 4]);
    assert_eq!([(0, 0x8000), (0x8000, 0), (0, 0xFFFF)].map(|(x, r)| difference(x, r)), [0xFFFF, 0xFFFF, 2]);
}

#[test]
fn units_are_elements_of_whole_machine_words() {
    for (dtype, len) in [(Dtype::BF16, 2), (Dtype::F32, 4), (Dtype::C64, 4), (Dtype::I64, 8), (Dtype::F8_E4M3, 1)] {
        assert_eq!(unit_len(Element::Dtype(dtype)), len, "{dtype}");
    }
    assert_eq!((unit_len(Element::Opaque), unit_len(Element::Dtype(Dtype::F6_E2M3))), (1, 1));
}

#[test]
fn what_is_written_is_read() {
    let inner = Encoding::of_streams("plain", [("data", vec!["raw".to_owned()])]);
    let bases = [None, Some(None), Some(Some("ab".repeat(32)))];
    for (operation, base) in OPERATIONS.into_iter().flat_map(|op| bases.clone().map(|base| (op, base))) {
        let base = base.map(|sha256| BaseId { root: "0f".repeat(32), sha256 });
        let reference = Reference { operation, tensor: "x \u{1F600}".to_owned(), base };
        let difference = (operation != Operation::SameAs).then(|| inner.clone());
        let encoding = reference.to_manifest(difference.clone());
        assert_eq!(Reference::parse(&encoding).unwrap(), Some((reference, difference.as_ref())));
    }
    assert_eq!(Reference::parse(&inner).unwrap(), None);
}

#[test]
fn what_is_no_reference_is_refused() {
    let root = "0f".repeat(32);
    let cases = [
        (json!({"name": "same_as", "components": {}}), Code::Malformed),
        (json!({"name": "same_as", "params": {"tensor": 1}, "components": {}}), Code::Malformed),
        (json!({"name": "same_as", "params": {"tensor": "a"}, "components": {"difference": ["raw"]}}), Code::Malformed),
        (json!({"name": "xor", "params": {"tensor": "a"}, "components": {}}), Code::Malformed),
        (json!({"name": "xor", "params": {"tensor": "a"}, "components": {"difference": ["raw"]}}), Code::Malformed),
        (json!({"name": "same_as", "params": {"tensor": "a", "base_root": "00"}, "components": {}}), Code::Malformed),
        (json!({"name": "same_as", "params": {"tensor": "a", "base_sha256": root}, "components": {}}), Code::Malformed),
        (json!({"name": "same_as", "params": {"tensor": "a", "rows": 3}, "components": {}}), Code::UnknownEncoding),
    ];
    for (json, code) in cases {
        let encoding: Encoding = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(Reference::parse(&encoding).unwrap_err().code(), code, "{json}");
    }
}
