//! Every mode and index against the page, and what must be refused.

use cmz_format::Code;

use super::*;
use crate::encoding::testing::{SHAPES, array, bytes, check_params, join, numbers, random, split};

fn symbols(symbols: &[u16]) -> Vec<u8> {
    symbols.iter().flat_map(|symbol| symbol.to_le_bytes()).collect()
}

#[test]
fn the_example_of_the_page() {
    let array = array(Float::F16, 5, 3);
    let (base, values) = (bytes(Float::F16, &[1.0; 5]), bytes(Float::BF16, &[3.0, 4.0, 5.0]));
    let expected = bytes(Float::F16, &[1.0, 1.0, 3.0, 4.0, 5.0]);
    let rows = Sparse::new(Mode::Replace, Index::Rows, Float::BF16);
    let parts = [base.clone(), symbols(&[1, 2]), symbols(&[2, 0, 0]), values.clone()];
    assert_eq!(join(&rows, array, &parts).unwrap(), expected);
    let bitmap = Sparse::new(Mode::Replace, Index::Bitmap, Float::BF16);
    assert_eq!(join(&bitmap, array, &[base, vec![0x1c], values]).unwrap(), expected);
}

/// The components that tell places, as the page has it.
fn index_of(index: Index, elements: usize, row: usize, places: &[bool]) -> Vec<Vec<u8>> {
    let row = row.min(elements).max(1);
    match index {
        Index::Bitmap => {
            let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
            vec![places.chunks(8).map(byte).collect()]
        }
        Index::Rows => {
            let (mut counts, mut deltas) = (Vec::new(), Vec::new());
            for piece in places.chunks(row).flat_map(|row| row.chunks(32_768)) {
                let set: Vec<usize> = (0..piece.len()).filter(|&i| piece[i]).collect();
                counts.push(set.len() as u16);
                let mut next = 0;
                for place in set {
                    deltas.push((place - next) as u16);
                    next = place + 1;
                }
            }
            vec![symbols(&counts), symbols(&deltas)]
        }
        Index::NOfM { m, .. } => {
            let runs = places.chunks(row).flat_map(|row| row.chunks(m.into()));
            vec![runs.flat_map(|run| (0..run.len()).filter(|&i| run[i]).map(|i| i as u8)).collect()]
        }
    }
}

/// Places of the kind that an index can tell, by chance.
fn some_places(index: Index, elements: usize, row: usize, one_in: u8, state: &mut u64) -> Vec<bool> {
    let row = row.min(elements).max(1);
    let mut places: Vec<bool> = random(state, elements).into_iter().map(|byte| byte % one_in == 0).collect();
    if let Index::NOfM { n, m } = index {
        for run in places.chunks_mut(row).flat_map(|row| row.chunks_mut(m.into())) {
            let n = run.len().min(n.into());
            while run.iter().filter(|&&set| set).count() != n {
                let at = usize::from(random(state, 1)[0]) % run.len();
                run[at] = run.iter().filter(|&&set| set).count() < n;
            }
        }
    }
    places
}

#[test]
fn every_kind_decodes_as_the_page_says() {
    let mut state = 1;
    let modes = [Mode::Replace, Mode::Fill, Mode::Add(Arithmetic::F32), Mode::Add(Arithmetic::F16)];
    let indices = [
        Index::Bitmap,
        Index::Rows,
        Index::NOfM { n: 2, m: 4 },
        Index::NOfM { n: 3, m: 7 },
        Index::NOfM { n: 1, m: 256 },
    ];
    for (i, (elements, row)) in SHAPES.into_iter().chain([(70_000, usize::MAX), (66_000, 33_000)]).enumerate() {
        for (mode, index) in modes.into_iter().flat_map(|mode| indices.map(|index| (mode, index))) {
            for (j, (_, element)) in VALUES.into_iter().enumerate() {
                let sparse = Sparse::new(mode, index, VALUES[(i + j) % 5].1);
                let array = array(element, elements, row);
                let places = some_places(index, elements, row, [1, 3, 100][j % 3], &mut state);
                let count = places.iter().filter(|&&set| set).count();
                let (base, values) =
                    (random(&mut state, array.byte_len), random(&mut state, count * sparse.values.len()));
                let mut parts = if mode == Mode::Fill { vec![] } else { vec![base.clone()] };
                parts.extend(index_of(index, elements, row, &places));
                parts.push(values.clone());
                let found = join(&sparse, array, &parts).unwrap();
                let mut values = numbers(sparse.values, &values).into_iter();
                let half = |x: f64| half::f16::from_f64(x).to_f64();
                for (i, &set) in places.iter().enumerate() {
                    let old = &base[i * element.len()..][..element.len()];
                    let expected = if set {
                        let (x, value) = (f64::from(element.get(&base, i)), values.next().unwrap());
                        bytes(
                            element,
                            &[match mode {
                                Mode::Replace | Mode::Fill => value,
                                Mode::Add(Arithmetic::F32) => (x + f64::from(value)) as f32,
                                Mode::Add(Arithmetic::F16) => half(half(x) + half(value.into())) as f32,
                            }],
                        )
                    } else if mode == Mode::Fill {
                        vec![0; element.len()]
                    } else {
                        old.to_vec()
                    };
                    assert_eq!(
                        found[i * element.len()..][..element.len()],
                        expected,
                        "{sparse:?}, {element:?}, {row}, {i}"
                    );
                }
            }
        }
    }
}

/// What no writer makes is refused, and nothing makes a decoder panic or ask for more than there can be.
#[test]
fn places_that_cannot_be_are_refused() {
    let array = array(Float::F16, 10, 5);
    let values = |count: usize| vec![0; 2 * count];
    let rows = Sparse::new(Mode::Fill, Index::Rows, Float::F16);
    assert!(join(&rows, array, &[symbols(&[1, 1]), symbols(&[4, 0]), values(2)]).is_ok());
    for (counts, deltas) in [
        (vec![1, 1], vec![5, 0]),
        (vec![2, 0], vec![0, 4]),
        (vec![2, 0], vec![4, 0]),
        (vec![2, 0], vec![0, u16::MAX]),
        (vec![6, 0], vec![0; 6]),
        (vec![u16::MAX, 0], vec![]),
    ] {
        let count = deltas.len();
        assert!(join(&rows, array, &[symbols(&counts), symbols(&deltas), values(count)]).is_err(), "{counts:?}");
    }
    let bitmap = Sparse::new(Mode::Fill, Index::Bitmap, Float::F16);
    assert!(join(&bitmap, array, &[vec![0xff, 0x03], values(10)]).is_ok());
    assert!(join(&bitmap, array, &[vec![0xff, 0x04], values(9)]).is_err());
    // Runs of four and one.
    let two_of_four = Sparse::new(Mode::Fill, Index::NOfM { n: 2, m: 4 }, Float::F16);
    let positions = |positions: [u8; 6]| join(&two_of_four, array, &[positions.to_vec(), values(6)]);
    assert!(positions([0, 3, 0, 1, 2, 0]).is_ok());
    for wrong in [[0, 0, 0, 1, 2, 0], [1, 0, 0, 1, 2, 0], [0, 1, 1, 1, 2, 0], [0, 1, 0, 1, 2, 1]] {
        assert!(positions(wrong).is_err(), "{wrong:?}");
    }
    // Values that are not as many as the places.
    let (mut data, index) = (vec![0; 20], [0xff, 0x03]);
    for count in [0, 9, 11] {
        assert!(bitmap.join(array, &[&index, &values(count)], &mut data).is_err());
    }
}

/// Any bytes in place of an index: refused, or as many values as there are places.
#[test]
fn any_index_is_taken_or_refused() {
    let mut state = 7;
    let (mut taken, mut refused) = (0, 0);
    for index in [Index::Bitmap, Index::Rows, Index::NOfM { n: 2, m: 4 }] {
        let sparse = Sparse::new(Mode::Fill, index, Float::E4M3);
        for elements in (0..40).cycle().take(4000) {
            let array = array(Float::F16, elements, 9);
            let mut parts: Vec<Vec<u8>> = Vec::new();
            let components = sparse.components(array).unwrap();
            let result = (0..components.len()).try_for_each(|i| {
                let before: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let component = sparse.component_array(array, i, &before)?;
                assert!(component.byte_len <= 2 * elements.max(1));
                let small = |byte: u8| if index == Index::Rows { byte % 2 * (byte % 3) } else { byte % 4 };
                let mut part: Vec<u8> = random(&mut state, component.byte_len).into_iter().map(small).collect();
                if component.element == Element::Symbol(SIXTEEN) {
                    part.chunks_mut(2).for_each(|symbol| symbol[1] = 0);
                }
                parts.push(part);
                Ok(())
            });
            match result.and_then(|()| join(&sparse, array, &parts)) {
                Ok(_) => taken += 1,
                Err::<_, StreamError>(_) => refused += 1,
            }
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn what_is_taken_apart_is_there_again() {
    let mut state = 3;
    for sparse in [REPLACE, ADD, TWO_OF_FOUR, THREE_OF_SEVEN] {
        for element in [Float::F16, Float::BF16, Float::F32] {
            let array = array(element, 100, 10);
            let weights: Vec<f32> = random(&mut state, 100).into_iter().map(|byte| f32::from(byte) - 99.5).collect();
            let data = bytes(element, &weights);
            let found = numbers(element, &join(&sparse, array, &split(&sparse, array, &data)).unwrap());
            for (i, (&found, &weight)) in found.iter().zip(&numbers(element, &data)).enumerate() {
                let run = &weights[i / 10 * 10 + i % 10 / 4 * 4..][..4.min(10 - i % 10 / 4 * 4)];
                let greater = run.iter().filter(|other| other.abs() > weights[i].abs()).count();
                if sparse.mode == Mode::Fill && greater >= 2 {
                    assert_eq!(found, 0.0);
                } else if sparse.mode != Mode::Fill || found != 0.0 {
                    assert_eq!(found, weight, "{sparse:?}");
                }
            }
        }
    }
}

#[test]
fn parameters_are_checked() {
    check_params(
        &TWO_OF_FOUR,
        &[
            (r#""n":2"#, r#""n":0"#, Code::Malformed),
            (r#""n":2"#, r#""n":4"#, Code::Malformed),
            (r#""m":4"#, r#""m":257"#, Code::Malformed),
            (r#""n":2,"#, "", Code::Malformed),
            (r#""n_of_m""#, r#""rows""#, Code::Malformed),
            (r#""n_of_m""#, r#""columns""#, Code::UnknownEncoding),
            (r#""fill""#, r#""add""#, Code::Malformed),
            (r#""fill""#, r#""times""#, Code::UnknownEncoding),
            (r#""values":"F16""#, r#""values":"F8_E8M0""#, Code::UnknownEncoding),
        ],
    );
    check_params(
        &ADD,
        &[(r#""add""#, r#""replace""#, Code::Malformed), (r#""F16""#, r#""BF16""#, Code::UnknownEncoding)],
    );
    check_params(&REPLACE, &[(r#""replace""#, r#""add""#, Code::Malformed)]);
    check_params(&THREE_OF_SEVEN, &[]);
}
