//! The loops against the page, number by number.

use cmz_format::Code;

use super::*;
use crate::encoding::testing::{FLOATS, SHAPES, array, bytes, check_params, join, numbers, random_parts, split};

#[test]
fn the_example_of_the_page() {
    let low_rank = LowRank::new(2, Float::F16);
    let array = array(Float::F32, 4, 2);
    let (left, right) = ([1.0, 2.0, 0.0, -1.0], [1.0, 0.5, 0.25, 4.0]);
    let parts = [bytes(Float::F32, &[1.0, 1.0, 1.0, 1.0]), bytes(Float::F16, &left), bytes(Float::F16, &right)];
    let found = join(&low_rank, array, &parts).unwrap();
    assert_eq!(numbers(Float::F32, &found), [2.5, 9.5, 0.75, -3.0]);
}

/// Products and sums of single precision that are computed in double precision are rounded as if at once.
#[test]
fn every_factor_decodes_as_the_page_says() {
    let mut state = 1;
    for factors in FLOATS {
        for element in FLOATS {
            for (i, (elements, row)) in SHAPES.into_iter().enumerate() {
                let low_rank = LowRank::new([1, 3, 20][i % 3], factors);
                let array = array(element, elements, row);
                let parts = random_parts(&low_rank, array, &mut state);
                let [base, left, right]: [Vec<f32>; 3] =
                    [(element, 0), (factors, 1), (factors, 2)].map(|(float, i)| numbers(float, &parts[i]));
                let (row, rank) = (row.min(elements), low_rank.rank as usize);
                let value = |i: usize| {
                    (0..rank).fold(base[i], |sum, k| {
                        let product = f64::from(left[i / row * rank + k]) * f64::from(right[k * row + i % row]);
                        (f64::from(sum) + f64::from(product as f32)) as f32
                    })
                };
                let expected = bytes(element, &(0..elements).map(value).collect::<Vec<_>>());
                assert!(join(&low_rank, array, &parts).unwrap() == expected, "{low_rank:?}, {element:?}, {row}");
                let factors = Factors { rank, left, right };
                for version in Version::all() {
                    let mut data = vec![0x5a; array.byte_len];
                    super::join(version, row, element, &parts[0], &factors, &mut data);
                    assert!(data == expected, "{version:?}, {low_rank:?}");
                }
            }
        }
    }
}

#[test]
fn a_base_alone_stays_what_it_is() {
    for element in FLOATS {
        let data = bytes(element, &[1.5, -2.0, 0.0, 3.0, f32::INFINITY, 1e-30]);
        let array = array(element, 6, 4);
        assert_eq!(join(&SIXTEEN, array, &split(&SIXTEEN, array, &data)).unwrap(), data);
    }
}

#[test]
fn parameters_and_sizes_are_checked() {
    check_params(
        &SIXTEEN,
        &[
            ("\"rank\":16", "\"rank\":0", Code::Malformed),
            ("\"rank\":16", "\"rank\":1025", Code::Malformed),
            (r#""F16""#, r#""F8_E4M3""#, Code::UnknownEncoding),
            (r#""rank""#, r#""order""#, Code::UnknownEncoding),
        ],
    );
    check_params(&ONE, &[]);
    // A factor is no longer than a block can be.
    let low_rank = LowRank::new(MAX_RANK, Float::F32);
    assert!(low_rank.components(array(Float::F16, 1 << 12, 1 << 12)).is_some());
    assert!(low_rank.components(array(Float::F16, (1 << 12) + 1, (1 << 12) + 1)).is_none());
    assert!(low_rank.components(array(Float::F16, (1 << 12) + 1, 1)).is_none());
}
