//! The decoder against the page, and the encoder against what it may round to.

use cmz_format::Dtype;
use half::{bf16, f16};

use super::*;
use crate::encoding::Element;
use crate::encoding::testing::group_of;
use crate::stream::laws::Random;

const FLOATS: [(Float, Dtype); 3] = [(Float::F16, Dtype::F16), (Float::BF16, Dtype::BF16), (Float::F32, Dtype::F32)];

fn bytes(float: Float, x: f32) -> Vec<u8> {
    match float {
        Float::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        Float::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

fn split(ternary: Ternary, array: Array, data: &[u8]) -> Vec<Vec<u8>> {
    let components = ternary.components(array).unwrap();
    let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0xa5; c.array.byte_len]).collect();
    ternary.split(array, data, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    parts
}

fn join(ternary: Ternary, array: Array, parts: &[Vec<u8>]) -> Result<Vec<u8>, StreamError> {
    let mut data = vec![0xa5; array.byte_len];
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let result = ternary.join(array, &slices, &mut data);
    let (element, grid) = ternary.grid(array).unwrap();
    for version in Version::all() {
        let (mut other, mut threes) = (vec![0x5a; array.byte_len], 0);
        decode::join(version, element, grid, slices[0], [slices[1], slices[2]], &mut other, &mut threes);
        assert_eq!(threes == 0, result.is_ok(), "{version:?}");
        assert!(result.is_err() || other == data, "{version:?}");
    }
    result.map(|()| data)
}

#[test]
fn the_example_of_the_page() {
    let array = Array::new(Element::Dtype(Dtype::BF16), 12, 3);
    let data: Vec<u8> = [2.0, 0.0, -1.0, 0.0, 0.0, 3.0].iter().flat_map(|&w| bytes(Float::BF16, w)).collect();
    let parts = split(Ternary::new(1, 4), array, &data);
    assert_eq!(parts, [vec![2, 0, 1, 0, 0, 2], vec![0x80, 0xbf, 0, 0], vec![0, 0x40, 0x40, 0x40]]);
    assert_eq!(join(Ternary::new(1, 4), array, &parts).unwrap(), data);
}

/// Every shape of rows and groups, the last ones shorter, with any numbers.
#[test]
fn decodes_as_the_page_says() {
    let mut random = Random(1);
    for (float, dtype) in FLOATS {
        for elements in [0, 1, 5, 12, 16, 64, 100, 333] {
            for (row, group) in [
                (usize::MAX, [1, 16]),
                (1, [1, 1]),
                (4, [1, 1 << 24]),
                (5, [2, 2]),
                (7, [3, 7]),
                (16, [1, 5]),
                (100, [4, 33]),
                (1000, [1 << 24, 1 << 24]),
            ] {
                let ternary = Ternary::new(group[0], group[1]);
                let array = Array::new(Element::Dtype(dtype), elements * float.len(), row);
                let lens: Vec<usize> = ternary.components(array).unwrap().iter().map(|c| c.array.byte_len).collect();
                let w = row.min(elements).max(1);
                let groups = elements.div_ceil(w).div_ceil(group[0] as usize) * w.div_ceil(group[1] as usize);
                assert_eq!(lens, [elements, 2 * groups, 2 * groups], "{elements}, {row}, {group:?}");
                let mut parts: Vec<Vec<u8>> =
                    lens.iter().map(|&len| (0..len).map(|_| random.next() as u8).collect()).collect();
                parts[0].iter_mut().for_each(|symbol| *symbol %= 3);
                let number = |i: usize| {
                    let part = match parts[0][i] {
                        0 => return vec![0; float.len()],
                        symbol => &parts[usize::from(symbol)],
                    };
                    let number = bf16::from_le_bytes(part.as_chunks().0[group_of(i, elements, row, group)]);
                    match float {
                        Float::BF16 => number.to_le_bytes().to_vec(),
                        Float::F16 if number.is_nan() => vec![0x00, 0x7e],
                        Float::F16 => bytes(float, number.to_f32()),
                        _ => (u32::from(number.to_bits()) << 16).to_le_bytes().to_vec(),
                    }
                };
                let expected: Vec<u8> = (0..elements).flat_map(number).collect();
                assert_eq!(join(ternary, array, &parts).unwrap(), expected, "{elements}, {row}, {group:?}");
            }
        }
    }
}

#[test]
fn symbols_that_are_not_ternary_are_refused() {
    let array = Array::new(Element::Dtype(Dtype::BF16), 200, 40);
    let data: Vec<u8> = (0..100).flat_map(|i| bytes(Float::BF16, (i % 7) as f32 - 3.0)).collect();
    let mut parts = split(BY_ROW, array, &data);
    for i in [0, 39, 40, 99] {
        let kept = std::mem::replace(&mut parts[0][i], 3);
        assert!(join(BY_ROW, array, &parts).is_err());
        parts[0][i] = kept;
    }
    assert!(join(BY_ROW, array, &parts).is_ok());
}

/// What is ternary already comes back, zeros as +0.
#[test]
fn ternary_weights_are_exact() {
    let mut random = Random(2);
    for (float, dtype) in FLOATS {
        for levels in [[-0.75, 1.5], [0.0, 0.5], [-3.0, 0.0], [0.0, 0.0], [-1.0, 1.0], [-1e-3, 1e4]] {
            let levels = levels.map(|x: f32| bf16::from_f32(x).to_f32());
            let weight = |r: u64| [0.0, levels[0], levels[1]][(r % 3) as usize] + 0.0;
            let data: Vec<u8> = (0..500).flat_map(|_| bytes(float, weight(random.next()))).collect();
            let array = Array::new(Element::Dtype(dtype), data.len(), 50);
            let decoded = join(BY_ROW, array, &split(BY_ROW, array, &data)).unwrap();
            assert!(decoded == data, "{float:?}, {levels:?}");
        }
    }
}

/// Every pattern is rounded to something, and what came of it stays as it is.
#[test]
fn rounding_twice_changes_nothing() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (_, dtype) in FLOATS {
        for ternary in [BY_ROW, GROUPED, Ternary::new(2, 100)] {
            let array = Array::new(Element::Dtype(dtype), patterns.len(), 1000);
            let once = join(ternary, array, &split(ternary, array, &patterns)).unwrap();
            let twice = join(ternary, array, &split(ternary, array, &once)).unwrap();
            assert!(once == twice, "{dtype:?}, {ternary:?}");
            let float = Float::of(array.element).unwrap();
            assert!((0..once.len() / float.len()).all(|i| float.get(&once, i).is_finite()));
        }
    }
}

#[test]
fn weights_are_rounded_to_the_nearest() {
    let mut random = Random(3);
    let weights: Vec<f32> = (0..4000).map(|_| (random.next() >> 40) as f32 / (1 << 23) as f32 - 0.9).collect();
    let data: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let array = Array::new(Element::Dtype(Dtype::F32), data.len(), 200);
    let parts = split(BY_ROW, array, &data);
    let decoded = join(BY_ROW, array, &parts).unwrap();
    for (i, &weight) in weights.iter().enumerate() {
        let number = |part: &[u8]| bf16::from_le_bytes(part.as_chunks().0[i / 200]).to_f32();
        let nearest = [0.0, number(&parts[1]), number(&parts[2])].map(|level| (weight - level).abs());
        let error = (weight - Float::F32.get(&decoded, i)).abs();
        assert!(error <= nearest.into_iter().fold(f32::MAX, f32::min) + 1e-6, "{weight}");
    }
}

#[test]
fn parameters_are_checked() {
    use cmz_format::Code;
    let parse = |json: &str| {
        let encoding = BY_ROW.with_params(&serde_json::from_str(json).unwrap());
        encoding.map(|encoding| encoding.unwrap().params()).map_err(|e| e.code())
    };
    for ternary in [BY_ROW, GROUPED] {
        assert_eq!(parse(&serde_json::to_string(&ternary.params()).unwrap()), Ok(ternary.params()));
    }
    for (bad, code) in [
        ("{}", Code::Malformed),
        (r#"{"group":128}"#, Code::Malformed),
        (r#"{"group":[1]}"#, Code::Malformed),
        (r#"{"group":[1,2,3]}"#, Code::Malformed),
        (r#"{"group":[0,2]}"#, Code::Malformed),
        (r#"{"group":[1,16777217]}"#, Code::Malformed),
        (r#"{"group":[1,2.0]}"#, Code::Malformed),
        (r#"{"group":[1,-2]}"#, Code::Malformed),
        (r#"{"group":[1,2],"axis":0}"#, Code::UnknownEncoding),
    ] {
        assert_eq!(parse(bad), Err(code), "{bad}");
    }
}
