//! The loops against the page, number by number.

use cmz_format::Code;

use super::*;
use crate::encoding::testing::{
    FLOATS, SHAPES, array, bytes, check_params, group_of, join, numbers, random_parts, split,
};

#[test]
fn the_example_of_the_page() {
    let scheme = BlockScale::new(Float::E4M3, Float::E8M0, [1, 2], Sense::Multiply);
    let data = bytes(Float::BF16, &[448.0, -28.0, 0.5, 1.0]);
    let array = array(Float::BF16, 4, 4);
    let parts = split(&scheme, array, &data);
    assert_eq!(parts, [[0x7e, 0xde, 0x70, 0x78].to_vec(), [0x7f, 0x77].to_vec()]);
    assert_eq!(join(&scheme, array, &parts).unwrap(), data);
}

/// Every type of values, scales and elements, in every shape, with random bits; a product and a quotient of
/// single precision that are computed in double precision are rounded as if at once.
#[test]
fn every_scheme_decodes_as_the_page_says() {
    let mut state = 1;
    let groups = [[1, 1], [16, 1], [1, 32], [3, 7], [MAX_GROUP, MAX_GROUP]];
    for (i, (_, values)) in VALUES.into_iter().enumerate() {
        for (j, (_, scale)) in SCALES.into_iter().enumerate() {
            for element in FLOATS {
                for (k, (elements, row)) in SHAPES.into_iter().enumerate() {
                    let sense = if (j + k) % 2 == 0 { Sense::Multiply } else { Sense::Divide };
                    let scheme = BlockScale::new(values, scale, groups[(i + j + k) % groups.len()], sense);
                    let array = array(element, elements, row);
                    let parts = random_parts(&scheme, array, &mut state);
                    let (v, s) = (numbers(values, &parts[0]), numbers(scale, &parts[1]));
                    let value = |i: usize| {
                        let (v, s) = (f64::from(v[i]), f64::from(s[group_of(i, elements, row, scheme.group)]));
                        (if sense == Sense::Multiply { v * s } else { v / s }) as f32
                    };
                    let expected = bytes(element, &(0..elements).map(value).collect::<Vec<_>>());
                    assert!(join(&scheme, array, &parts).unwrap() == expected, "{scheme:?}, {element:?}, {row}");
                    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    for version in Version::all() {
                        let mut data = vec![0x5a; array.byte_len];
                        super::join(version, scheme, scheme.grid(array).unwrap().1, element, &slices, &mut data);
                        assert!(data == expected, "{version:?}, {scheme:?}");
                    }
                }
            }
        }
    }
}

/// Values of eight bits keep an eighth, or a quarter, of a weight's lowest binary digit apart from those that are
/// small in their group.
#[test]
fn rounding_is_to_the_nearest() {
    let weights: Vec<f32> = (0..2000usize).map(|i| ((i * i * 7919 % 10_007) as f32 / 10_007.0 - 0.4) * 0.02).collect();
    for (values, tolerance) in [(Float::E4M3, 1.0 / 16.0), (Float::E5M2, 1.0 / 8.0), (Float::BF16, 1.0 / 256.0)] {
        for scale in [Float::E8M0, Float::E4M3, Float::BF16, Float::F32] {
            for sense in [Sense::Multiply, Sense::Divide] {
                // E4M3 has no scale as small, or as great, as these weights ask for.
                if scale == Float::E4M3 {
                    continue;
                }
                let scheme = BlockScale::new(values, scale, [2, 50], sense);
                let array = array(Float::F32, 2000, 100);
                let parts = split(&scheme, array, &bytes(Float::F32, &weights));
                let found = numbers(Float::F32, &join(&scheme, array, &parts).unwrap());
                for (found, weight) in found.into_iter().zip(&weights) {
                    // A divisor that is rounded up puts the greatest weights out of range.
                    let clamped = scale == Float::E8M0 && sense == Sense::Divide;
                    let tolerance = if clamped { 0.51 } else { tolerance * 1.01 };
                    assert!(
                        (found - weight).abs() <= weight.abs() * tolerance + 0.01 / 448.0,
                        "{scheme:?}: {weight}, {found}"
                    );
                }
            }
        }
    }
}

/// Anything can be taken apart, and zeros stay zeros.
#[test]
fn every_pattern_is_rounded_to_something() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (_, values) in VALUES {
        for (_, scale) in SCALES {
            for (element, sense) in FLOATS.into_iter().flat_map(|e| [(e, Sense::Multiply), (e, Sense::Divide)]) {
                let scheme = BlockScale::new(values, scale, [2, 20], sense);
                let all = array(element, patterns.len() / element.len(), 64);
                join(&scheme, all, &split(&scheme, all, &patterns)).unwrap();
                let zeros = array(element, 100, 10);
                let data = vec![0; zeros.byte_len];
                assert_eq!(join(&scheme, zeros, &split(&scheme, zeros, &data)).unwrap(), data);
            }
        }
    }
}

#[test]
fn parameters_are_checked() {
    for scheme in [FP8, MX, DIVISOR, RECTANGLE] {
        check_params(
            &scheme,
            &[("multiply", "add", Code::UnknownEncoding)][..usize::from(scheme.sense == Sense::Multiply)],
        );
    }
    check_params(
        &FP8,
        &[
            ("F8_E4M3", "F8_E8M0", Code::UnknownEncoding),
            ("F32", "F8_E5M2", Code::UnknownEncoding),
            ("[128,128]", "[128,0]", Code::Malformed),
            (r#""multiply""#, "1", Code::Malformed),
            (r#""scale""#, r#""size""#, Code::UnknownEncoding),
        ],
    );
}
