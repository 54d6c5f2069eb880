//! The decoder against a formula in double precision, and the encoder against its bounds.

use super::*;

const FLOATS: [Float; 3] = [Float::F16, Float::BF16, Float::F32];

/// A number of an array, by the `half` crate.
fn number(float: Float, array: &[u8], i: usize) -> f32 {
    let bytes = &array[i * float.len()..][..float.len()];
    match float {
        Float::F16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Float::BF16 => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Float::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
    }
}

/// The bytes of a number.
fn bytes(float: Float, x: f32) -> Vec<u8> {
    match float {
        Float::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        Float::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        Float::F32 => x.to_le_bytes().to_vec(),
    }
}

/// What the page says, element by element. A product and a sum of two numbers of single
/// precision, rounded to double and then to single precision, are rounded as if at once
/// (Figueroa, "When is double rounding innocuous?").
fn join_naive(affine: Affine, element: Float, components: &[&[u8]]) -> Vec<u8> {
    let value = |(i, &code): (usize, &u8)| {
        let group = i / affine.group as usize;
        let zero = match affine.form {
            Form::Symmetric => 1 << (affine.bits - 1),
            Form::ZeroPoint => i32::from(components[2][group]),
            Form::Bias => 0,
        };
        let mut x = (f64::from(i32::from(code) - zero) * f64::from(number(affine.scale, components[1], group))) as f32;
        if affine.form == Form::Bias {
            x = (f64::from(x) + f64::from(number(affine.scale, components[2], group))) as f32;
        }
        if x.is_nan() { bytes(element, f32::from_bits(0x7fc0_0000)) } else { bytes(element, x) }
    };
    components[0].iter().enumerate().flat_map(value).collect()
}

fn array(element: Float, elements: usize) -> Array {
    Array::vector(Element::Dtype(element.dtype()), elements * element.len())
}

fn join(affine: Affine, element: Float, components: &[&[u8]]) -> Vec<u8> {
    let array = array(element, components[0].len());
    let lens: Vec<usize> = affine.components(array).unwrap().iter().map(|c| c.array.byte_len).collect();
    assert_eq!(components.iter().map(|c| c.len()).collect::<Vec<_>>(), lens);
    let mut data = vec![0xa5; array.byte_len];
    affine.join(array, components, &mut data).unwrap();
    data
}

fn split(affine: Affine, element: Float, data: &[u8]) -> Vec<Vec<u8>> {
    let array = array(element, data.len() / element.len());
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
    let affine = Affine::new(4, 4, Form::Symmetric, Float::F16);
    let weights = [1.0f32, -0.5, 0.25, 2.0, 0.0, -3.0];
    let data: Vec<u8> = weights.iter().flat_map(|&w| bytes(Float::BF16, w)).collect();
    let parts = split(affine, Float::BF16, &data);
    assert_eq!(parts[0], [4, 10, 7, 0, 8, 0]);
    assert_eq!(parts[1], [0x00, 0xb4, 0x00, 0x36]);
    let decoded = join(affine, Float::BF16, &slices(&parts));
    assert_eq!(decoded, [0x80, 0x3f, 0x00, 0xbf, 0x80, 0x3e, 0x00, 0x40, 0x00, 0x00, 0x40, 0xc0]);
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
        for form in [Form::Symmetric, Form::ZeroPoint, Form::Bias] {
            // Too short for a table, and long enough.
            for repeats in [1, 2] {
                let affine = Affine::new(4, 16 * repeats, form, scale);
                check_patterns(affine, &patterns);
            }
        }
    }
}

fn check_patterns(affine: Affine, patterns: &[Vec<u8>]) {
    let scales = patterns.concat();
    let codes: Vec<u8> = (0..patterns.len() * affine.group as usize).map(|i| (i % 16) as u8).collect();
    let thirds: Vec<Vec<u8>> = match affine.form {
        Form::Symmetric => vec![vec![]],
        Form::ZeroPoint => [0, 15].map(|zero| vec![zero; patterns.len()]).to_vec(),
        // Another number of every kind.
        Form::Bias => [1, 7919]
            .map(|step| (0..patterns.len()).flat_map(|i| patterns[i * step % patterns.len()].clone()).collect())
            .to_vec(),
    };
    for third in &thirds {
        let mut parts = vec![&codes[..], &scales];
        parts.extend((affine.form != Form::Symmetric).then_some(&third[..]));
        for element in FLOATS {
            assert!(join(affine, element, &parts) == join_naive(affine, element, &parts), "{affine:?}, {element:?}");
        }
    }
}

/// Any width and group, with a shorter group in the end.
#[test]
fn every_width_decodes_as_the_page_says() {
    let mut state = 1u64;
    let mut random = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    for bits in 1..=8 {
        for group in [1, 2, 7, 32, 64, 600, 5000] {
            for form in [Form::Symmetric, Form::ZeroPoint, Form::Bias] {
                for (scale, element) in FLOATS.into_iter().flat_map(|s| FLOATS.map(|e| (s, e))) {
                    let affine = Affine::new(bits, group, form, scale);
                    let components = affine.components(array(element, 1203)).unwrap();
                    let mut parts: Vec<Vec<u8>> = components.iter().map(|c| random(c.array.byte_len)).collect();
                    for (part, component) in parts.iter_mut().zip(&components) {
                        if component.array.element == Element::Symbol(Width::new(bits)) {
                            part.iter_mut().for_each(|symbol| *symbol &= affine.max_code());
                        }
                    }
                    let parts = slices(&parts);
                    let expected = join_naive(affine, element, &parts);
                    assert!(join(affine, element, &parts) == expected, "{affine:?}, {element:?}");
                }
            }
        }
    }
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
        for form in [Form::Symmetric, Form::ZeroPoint, Form::Bias] {
            for (scale, element) in FLOATS.into_iter().flat_map(|s| FLOATS.map(|e| (s, e))) {
                let affine = Affine::new(bits, 64, form, scale);
                let data = weights(element, 2000);
                let parts = split(affine, element, &data);
                let decoded = join(affine, element, &slices(&parts));
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
    for form in [Form::Symmetric, Form::ZeroPoint, Form::Bias] {
        for scale in FLOATS {
            for element in FLOATS {
                for group in [1, 5, 64, 1 << 20] {
                    let affine = Affine::new(4, group, form, scale);
                    let parts = split(affine, element, &patterns);
                    join(affine, element, &slices(&parts));
                }
                let affine = Affine::new(4, 64, form, scale);
                let zeros = vec![0; 100 * element.len()];
                assert_eq!(join(affine, element, &slices(&split(affine, element, &zeros))), zeros);
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
    for affine in [SYMMETRIC, ZERO_POINT, BIAS] {
        assert_eq!(parse(&serde_json::to_string(&affine.params()).unwrap()), Ok(affine.params()));
    }
    let good = r#"{"bits":4,"form":"bias","group":128,"scale":"F16"}"#;
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
        (r#","group":128"#, "", Code::Malformed),
        (r#""F16""#, "16", Code::Malformed),
        (r#""F16""#, r#""F8_E4M3""#, Code::UnknownEncoding),
        (r#""bias""#, r#""new""#, Code::UnknownEncoding),
        (r#"{"bits""#, r#"{"axis":0,"bits""#, Code::UnknownEncoding),
    ] {
        assert_eq!(parse(&good.replace(from, to)), Err(code), "{from} -> {to}");
    }
    assert_eq!(parse("{}"), Err(Code::Malformed));
}
