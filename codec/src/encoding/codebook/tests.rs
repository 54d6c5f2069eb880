//! Every form against the page, number by number.

use cmz_format::Code;

use super::*;
use crate::encoding::testing::{SHAPES, array, bytes, check_params, group_of, join, numbers, random_parts, split};

#[test]
fn the_example_of_the_page() {
    let codebook = Codebook::new(1, Form::Table, 2, Float::F16, [1, 2]);
    let table = bytes(Float::F16, &[2.0, 2.0, -1.0, 0.5, 7.0, 7.0, 0.0, 7.0]);
    assert_eq!(table[..8], [0x00, 0x40, 0x00, 0x40, 0x00, 0xbc, 0x00, 0x38]);
    assert_eq!(table[8..], [0x00, 0x47, 0x00, 0x47, 0x00, 0x00, 0x00, 0x47]);
    let found = join(&codebook, array(Float::BF16, 5, 5), &[vec![1, 0, 1], table]).unwrap();
    assert_eq!(found, bytes(Float::BF16, &[-1.0, 0.5, 2.0, 2.0, 0.0]));
}

/// What the page says of element `i`.
fn naive(codebook: Codebook, elements: usize, row: usize, parts: &[Vec<u8>], i: usize) -> f32 {
    let (row, dim, bits) = (row.min(elements), codebook.dim as usize, usize::from(codebook.bits));
    let vectors = row.div_ceil(dim);
    let vector = i / row * vectors + i % row / dim;
    let group = group_of(vector, parts[0].len(), vectors, codebook.group);
    let index = usize::from(parts[0][vector]);
    let number = |component: usize, i: usize| codebook.table.get(&parts[component], i);
    match codebook.form {
        Form::Table => number(1, (group * (1 << bits) + index) * dim + i % row % dim),
        Form::Binary => {
            let sign = |bit: usize| if index >> bit & 1 == 1 { 1.0 } else { -1.0 };
            let sum = (1..bits)
                .fold(sign(0) * number(1, group * bits), |x, bit| x + sign(bit) * number(1, group * bits + bit));
            sum + number(2, group)
        }
    }
}

/// Every width, vector, type and group, in every shape, with random bits.
#[test]
fn every_codebook_decodes_as_the_page_says() {
    let mut state = 1;
    let groups = [[1, 1], [16, 1], [1, 32], [3, 7], [1, MAX_GROUP], [MAX_GROUP, MAX_GROUP]];
    for bits in 1..=8 {
        for (i, dim) in [1, 1, 2, 3, 8, 50].into_iter().enumerate() {
            let form = if i == 0 { Form::Binary } else { Form::Table };
            for (j, (elements, row)) in SHAPES.into_iter().enumerate() {
                for (k, (_, element)) in VALUES.into_iter().enumerate() {
                    let n = usize::from(bits) + i + j + k;
                    let codebook = Codebook::new(bits, form, dim, VALUES[n % 5].1, groups[n % 6]);
                    let array = array(element, elements, row);
                    // Tables of more than a block.
                    if codebook.components(array).is_none() {
                        continue;
                    }
                    let parts = random_parts(&codebook, array, &mut state);
                    let expected: Vec<f32> = (0..elements).map(|i| naive(codebook, elements, row, &parts, i)).collect();
                    let found = join(&codebook, array, &parts).unwrap();
                    assert!(found == bytes(element, &expected), "{codebook:?}, {element:?}, {row}");
                }
            }
        }
    }
}

/// No element is further from its weight than half the distance of two entries, and what rounding adds.
#[test]
fn rounding_is_to_the_nearest() {
    let weights: Vec<f32> = (0..2000usize).map(|i| ((i * i * 7919 % 10_007) as f32 / 10_007.0 - 0.4) * 0.02).collect();
    let array = array(Float::F32, 2000, 100);
    for bits in 1..=8 {
        for form in [Form::Table, Form::Binary] {
            let codebook = Codebook::new(bits, form, 1, Float::F32, [1, 50]);
            let parts = split(&codebook, array, &bytes(Float::F32, &weights));
            let found = numbers(Float::F32, &join(&codebook, array, &parts).unwrap());
            let step = 0.02 / f32::from(u8::MAX >> (8 - bits));
            let near = |(found, weight): (&f32, &f32)| (found - weight).abs() <= step * 0.501;
            assert!(found.iter().zip(&weights).all(near), "{codebook:?}");
        }
    }
}

/// Anything can be taken apart, and zeros stay zeros.
#[test]
fn every_pattern_is_rounded_to_something() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for codebook in [SIXTEEN, BY_ROW, VECTORS, BINARY] {
        for (_, element) in VALUES {
            let all = array(element, patterns.len() / element.len(), 100);
            join(&codebook, all, &split(&codebook, all, &patterns)).unwrap();
            let zeros = array(element, 100, 10);
            let data = vec![0; zeros.byte_len];
            assert_eq!(join(&codebook, zeros, &split(&codebook, zeros, &data)).unwrap(), data);
        }
    }
}

#[test]
fn parameters_and_sizes_are_checked() {
    check_params(
        &VECTORS,
        &[
            (r#""bits":5"#, r#""bits":9"#, Code::Malformed),
            (r#""bits":5"#, r#""bits":0"#, Code::Malformed),
            (r#""dim":3"#, r#""dim":0"#, Code::Malformed),
            (r#""dim":3"#, r#""dim":257"#, Code::Malformed),
            (r#""form":"table""#, r#""form":"binary""#, Code::Malformed),
            (r#""form":"table""#, r#""form":"trellis""#, Code::UnknownEncoding),
            ("BF16", "F8_E8M0", Code::UnknownEncoding),
            ("[2,2]", "2", Code::Malformed),
            (r#""dim""#, r#""dims""#, Code::UnknownEncoding),
        ],
    );
    [SIXTEEN, BY_ROW, BINARY].iter().for_each(|codebook| check_params(codebook, &[]));
    // The tables of a block are no longer than a block can be.
    let codebook = Codebook::new(8, Form::Table, 1, Float::F32, [1, 1]);
    assert!(codebook.components(array(Float::F16, 1 << 14, 1 << 14)).is_some());
    assert!(codebook.components(array(Float::F16, (1 << 14) + 1, (1 << 14) + 1)).is_none());
}
