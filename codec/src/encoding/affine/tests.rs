//! The decoder against a formula in double precision, and the encoder against its bounds.

use cmz_format::Dtype;

use super::*;
use crate::encoding::Element;

const FORMS: [Form; 4] = [Form::Symmetric, Form::ZeroPoint, Form::Zero, Form::Bias];
const ARITHMETICS: [Arithmetic; 2] = [Arithmetic::F32, Arithmetic::F16];
const FLOATS: [Float; 3] = [Float::F16, Float::BF16, Float::F32];

/// A number of an array, by the `half` crate.
fn number(float: Float, array: &[u8], i: usize) -> f32 {
    let bytes = &array[i * float.len()..][..float.len()];
    match float {
        Float::F16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Float::BF16 => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        _ => f32::from_le_bytes(bytes.try_into().unwrap()),
    }
}

/// The bytes of a number.
fn bytes(float: Float, x: f32) -> Vec<u8> {
    match float {
        Float::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        Float::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

/// What the page says, element by element. A product and a sum of two numbers of single
/// precision, rounded to double and then to single precision, are rounded as if at once
/// (Figueroa, "When is double rounding innocuous?"); so are those of half precision.
fn join_naive(affine: Affine, element: Float, row: usize, components: &[&[u8]]) -> Vec<u8> {
    let row = row.min(components[0].len()).max(1);
    let [rows, columns] = affine.group.map(|n| n as usize);
    let round = |x: f64| match affine.arithmetic {
        Arithmetic::F32 => f64::from(x as f32),
        Arithmetic::F16 => half::f16::from_f64(x).to_f64(),
    };
    let value = |(i, &code): (usize, &u8)| {
        let group = i / row / rows * row.div_ceil(columns) + i % row / columns;
        let float = |component: usize| round(number(affine.scale, components[component], group).into());
        let (code, scale) = (f64::from(code), float(1));
        let x = match affine.form {
            Form::Symmetric => round((code - f64::from(1 << (affine.bits - 1))) * scale),
            Form::ZeroPoint => round((code - f64::from(components[2][group])) * scale),
            Form::Zero => round(round(code - float(2)) * scale),
            Form::Bias => round(round(code * scale) + float(2)),
        } as f32;
        if x.is_nan() { bytes(element, f32::from_bits(0x7fc0_0000)) } else { bytes(element, x) }
    };
    components[0].iter().enumerate().flat_map(value).collect()
}

fn array(element: Float, elements: usize, row: usize) -> Array {
    Array::new(Element::Dtype(element.dtype()), elements * element.len(), row)
}

/// What all versions of the loops say.
fn join(affine: Affine, element: Float, row: usize, components: &[&[u8]]) -> Vec<u8> {
    let array = array(element, components[0].len(), row);
    let lens: Vec<usize> = affine.components(array).unwrap().iter().map(|c| c.array.byte_len).collect();
    assert_eq!(components.iter().map(|c| c.len()).collect::<Vec<_>>(), lens);
    let mut data = vec![0xa5; array.byte_len];
    affine.join(array, components, &mut data).unwrap();
    for version in Version::all() {
        let mut again = vec![0x5a; array.byte_len];
        decode::join(version, affine, affine.grid(array).unwrap().1, element, components, &mut again);
        assert!(data == again, "{version:?}, {affine:?}");
    }
    data
}

fn split(affine: Affine, element: Float, row: usize, data: &[u8]) -> Vec<Vec<u8>> {
    let array = array(element, data.len() / element.len(), row);
    let mut parts: Vec<Vec<u8>> =
        affine.components(array).unwrap().iter().map(|c| vec![0xa5; c.array.byte_len]).collect();
    affine.split(array, data, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    parts
}

fn slices(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

#[test]
fn the_example_of_the_page() {
    let affine = Affine::new(4, Form::Symmetric, [1, 2], Float::F16, Arithmetic::F32);
    let weights = [1.0f32, -0.5, 0.25, 2.0, -1.0, -3.0];
    let data: Vec<u8> = weights.iter().flat_map(|&w| bytes(Float::BF16, w)).collect();
    let parts = split(affine, Float::BF16, 3, &data);
    assert_eq!(parts[0], [0, 12, 0, 0, 12, 0]);
    assert_eq!(parts[1], [0x00, 0xb0, 0x00, 0xa8, 0x00, 0xb4, 0x00, 0x36]);
    let decoded = join(affine, Float::BF16, 3, &slices(&parts));
    assert_eq!(decoded, [0x80, 0x3f, 0x00, 0xbf, 0x80, 0x3e, 0x00, 0x40, 0x80, 0xbf, 0x40, 0xc0]);
}

/// A zero between two codes, every step in half precision: 3 − 2.4 is .6001, times 1.1 is .6602 (and
/// .66 if only the end is rounded).
#[test]
fn steps_are_rounded_to_half_precision() {
    let affine = Affine::new(3, Form::Zero, [1, 16], Float::F16, Arithmetic::F16);
    let (scale, zero) = (bytes(Float::F16, 1.1), bytes(Float::F16, 2.4));
    let difference = half::f16::from_f32(3.0 - number(Float::F16, &zero, 0));
    let expected = half::f16::from_f32(difference.to_f32() * number(Float::F16, &scale, 0));
    assert_eq!(join(affine, Float::F16, 1, &[&[3], &scale, &zero]), expected.to_le_bytes());
    assert_eq!(split(affine, Float::F16, 2, &[0; 4]), [vec![0; 2], vec![0; 2], vec![0; 2]]);
}

/// Every code with every scale of 16 bits, to every type, and with those of single precision of
/// every sign and exponent; zero points 0 and 15 give every difference.
#[test]
fn every_code_of_four_bits_decodes_as_the_page_says() {
    for scale in FLOATS {
        let patterns: Vec<Vec<u8>> = (0..=u16::MAX)
            .map(|pattern| match scale {
                Float::F32 => {
                    (u32::from(pattern) << 16 | (u32::from(pattern) * 40_503) & 0xffff).to_le_bytes().to_vec()
                }
                _ => pattern.to_le_bytes().to_vec(),
            })
            .collect();
        for form in FORMS {
            for arithmetic in ARITHMETICS {
                check_patterns(Affine::new(4, form, [1, 16], scale, arithmetic), &patterns);
            }
        }
    }
}

fn check_patterns(affine: Affine, patterns: &[Vec<u8>]) {
    let scales = patterns.concat();
    let codes: Vec<u8> = (0..patterns.len() * 16).map(|i| (i % 16) as u8).collect();
    let thirds: Vec<Vec<u8>> = match affine.form {
        Form::Symmetric => vec![vec![]],
        Form::ZeroPoint => [0, 15].map(|zero| vec![zero; patterns.len()]).to_vec(),
        // Another number of every kind.
        Form::Zero | Form::Bias => [1, 7919]
            .map(|step| (0..patterns.len()).flat_map(|i| patterns[i * step % patterns.len()].clone()).collect())
            .to_vec(),
    };
    for third in &thirds {
        let mut parts = vec![&codes[..], &scales];
        parts.extend((affine.form != Form::Symmetric).then_some(&third[..]));
        for element in FLOATS {
            let expected = join_naive(affine, element, usize::MAX, &parts);
            assert!(join(affine, element, usize::MAX, &parts) == expected, "{affine:?}, {element:?}");
        }
    }
}

/// Any width, row and group, with shorter groups and a shorter row in the end.
#[test]
fn every_width_and_group_decodes_as_the_page_says() {
    let mut state = 1u64;
    let mut random = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let shapes = [(1203, usize::MAX), (1203, 1), (1203, 31), (1203, 400), (5, 9), (1203, 601), (0, 4)];
    let groups = [[1, 1], [1, 16], [16, 1], [3, 7], [1, 128], [2, 300], [4, 1000], [MAX_GROUP, MAX_GROUP]];
    for (elements, row) in shapes {
        for (i, group) in groups.into_iter().enumerate() {
            for (j, form) in FORMS.into_iter().enumerate() {
                for (scale, element) in FLOATS.into_iter().flat_map(|s| FLOATS.map(|e| (s, e))) {
                    let affine = Affine::new(1 + ((i + j) % 8) as u8, form, group, scale, ARITHMETICS[(i + j / 2) % 2]);
                    let components = affine.components(array(element, elements, row)).unwrap();
                    let mut parts: Vec<Vec<u8>> = components.iter().map(|c| random(c.array.byte_len)).collect();
                    for (part, component) in parts.iter_mut().zip(&components) {
                        if matches!(component.array.element, Element::Symbol(_)) {
                            part.iter_mut().for_each(|symbol| *symbol &= affine.max_code());
                        }
                    }
                    let parts = slices(&parts);
                    let expected = join_naive(affine, element, row, &parts);
                    assert!(join(affine, element, row, &parts) == expected, "{affine:?}, {element:?}, {row}");
                }
            }
        }
    }
}

/// The scales of a group are an array whose rows are those of groups, so that they can be grouped in turn.
#[test]
fn numbers_of_groups_lie_in_rows() {
    let array = array(Float::F16, 64 * 1000, 1000);
    let components = ZERO.components(array).unwrap();
    let numbers = Array::new(Element::Dtype(Dtype::F16), 64 * 63 * 2, 63);
    assert_eq!([components[1].array, components[2].array], [numbers; 2]);
    let second = Affine::new(3, Form::Zero, [16, 1], Float::F16, Arithmetic::F16);
    assert_eq!(second.components(numbers).unwrap()[1].array, Array::new(numbers.element, 4 * 63 * 2, 63));
}

/// Weights like those of a layer, whatever the type.
fn weights(element: Float, elements: usize) -> Vec<u8> {
    let weight = |i: usize| ((i * i * 7919 % 10_007) as f32 / 10_007.0 - 0.4) * (1 + i / 500) as f32 * 0.02;
    (0..elements).flat_map(|i| bytes(element, weight(i))).collect()
}

/// No element is further from its weight than half a step, and what rounding the scale, the
/// zero and the element adds; a whole step where a code is clamped.
#[test]
fn rounding_is_to_the_nearest() {
    for bits in 2..=8 {
        for form in FORMS {
            for (scale, element) in FLOATS.into_iter().flat_map(|s| FLOATS.map(|e| (s, e))) {
                let affine = Affine::new(bits, form, [1, 64], scale, Arithmetic::F32);
                let data = weights(element, 2000);
                let parts = split(affine, element, 2000, &data);
                let decoded = join(affine, element, 2000, &slices(&parts));
                for i in 0..2000 {
                    let step = number(scale, &parts[1], i / 64).abs();
                    let (weight, found) = (number(element, &data, i), number(element, &decoded, i));
                    let steps = if matches!(parts[0][i], 0) || parts[0][i] == affine.max_code() { 1.1 } else { 0.51 };
                    let rounding = weight.abs().max(step) / 200.0;
                    assert!(
                        (weight - found).abs() <= steps * step + rounding,
                        "{affine:?}, {element:?}: {weight}, {found}"
                    );
                }
            }
        }
    }
}

/// Anything can be taken apart: no pattern makes the encoder panic, and zeros stay zeros.
#[test]
fn every_pattern_is_rounded_to_something() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for form in FORMS {
        for scale in FLOATS {
            for element in FLOATS {
                for group in [[1, 1], [5, 3], [1, 64], [1 << 20, 1 << 20]] {
                    let affine = Affine::new(4, form, group, scale, Arithmetic::F16);
                    let parts = split(affine, element, 128, &patterns);
                    join(affine, element, 128, &slices(&parts));
                }
                let affine = Affine::new(4, form, [1, 64], scale, Arithmetic::F32);
                let zeros = vec![0; 100 * element.len()];
                assert_eq!(join(affine, element, 100, &slices(&split(affine, element, 100, &zeros))), zeros);
            }
        }
    }
}

#[test]
fn parameters_are_checked() {
    use cmz_format::Code;
    let parse = |json: &str| {
        let encoding = SYMMETRIC.with_params(&serde_json::from_str(json).unwrap());
        encoding.map(|encoding| encoding.unwrap().params()).map_err(|e| e.code())
    };
    for affine in [SYMMETRIC, ZERO_POINT, BIAS, ZERO, RECTANGLE] {
        assert_eq!(parse(&serde_json::to_string(&affine.params()).unwrap()), Ok(affine.params()));
    }
    let good = r#"{"bits":4,"form":"bias","group":[1,128],"scale":"F16","arithmetic":"F32"}"#;
    assert!(parse(good).is_ok());
    for (from, to, code) in [
        ("4", "0", Code::Malformed),
        ("4", "9", Code::Malformed),
        ("4", "-4", Code::Malformed),
        ("4", "4.0", Code::Malformed),
        ("4", "\"4\"", Code::Malformed),
        ("128", "0", Code::Malformed),
        ("128", "16777217", Code::Malformed),
        ("128", "4294967424", Code::Malformed),
        (r#""bits":4,"#, "", Code::Malformed),
        (r#","group":[1,128]"#, "", Code::Malformed),
        ("[1,128]", "128", Code::Malformed),
        ("[1,128]", "[128]", Code::Malformed),
        ("[1,128]", "[1,1,128]", Code::Malformed),
        ("[1,128]", "[0,128]", Code::Malformed),
        (r#","arithmetic":"F32""#, "", Code::Malformed),
        (r#""F32""#, r#""BF16""#, Code::UnknownEncoding),
        (r#""F16""#, "16", Code::Malformed),
        (r#""F16""#, r#""F8_E4M3""#, Code::UnknownEncoding),
        (r#""bias""#, r#""new""#, Code::UnknownEncoding),
        (r#"{"bits""#, r#"{"axis":0,"bits""#, Code::UnknownEncoding),
    ] {
        assert_eq!(parse(&good.replace(from, to)), Err(code), "{from} -> {to}");
    }
    assert_eq!(parse("{}"), Err(Code::Malformed));
}
