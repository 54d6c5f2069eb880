//! The conversions against the `half` crate and against formulas in double precision.

use super::number::*;

/// Numbers of single precision of every sign and exponent, with mantissas at and beside the points where
/// rounding changes.
fn singles() -> impl Iterator<Item = f32> {
    (0..=u16::MAX).flat_map(|top| {
        [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff]
            .map(|low| f32::from_bits(u32::from(top) << 16 | low))
    })
}

#[test]
fn every_half_is_converted_as_by_the_half_crate() {
    for pattern in 0..=u16::MAX {
        let expected = half::f16::from_bits(pattern).to_f32();
        let found = F16::to_f32(pattern.to_le_bytes());
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{pattern:04x}");
    }
    for x in singles() {
        let expected = if x.is_nan() { 0x7e00 } else { half::f16::from_f32(x).to_bits() };
        assert_eq!(u16::from_le_bytes(F16::from_f32(x)), expected, "{x:e}");
        let expected = if x.is_nan() { 0x7fc0 } else { half::bf16::from_f32(x).to_bits() };
        assert_eq!(u16::from_le_bytes(Bf16::from_f32(x)), expected, "{x:e}");
        let rounded = round_to_half(x);
        assert!(
            rounded.to_bits() == half::f16::from_f32(x).to_f32().to_bits() || rounded.is_nan() && x.is_nan(),
            "{x:e}"
        );
    }
}

/// Value of a byte with `mantissa` bits of mantissa and a bias; the byte's magnitude is below the special ones.
fn value(byte: u8, mantissa: i32, bias: i32) -> f64 {
    let (exponent, fraction) = (i32::from(byte & 0x7f) >> mantissa, f64::from(i32::from(byte) & ((1 << mantissa) - 1)));
    let scaled = fraction / f64::from(1 << mantissa);
    let magnitude =
        if exponent == 0 { scaled * 2f64.powi(1 - bias) } else { (1.0 + scaled) * 2f64.powi(exponent - bias) };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// What `x` rounds to: the nearer one of two neighbours, the even one if both are as near.
fn nearest(x: f32, mantissa: i32, bias: i32, over: u8) -> u8 {
    let magnitude = f64::from(x.abs());
    let above = (0..over).find(|&byte| value(byte, mantissa, bias) >= magnitude).unwrap_or(over);
    let below = above.saturating_sub(1);
    let (up, down) = (value(above, mantissa, bias) - magnitude, magnitude - value(below, mantissa, bias));
    let byte = if up < down || up == down && above % 2 == 0 { above } else { below };
    byte | if x.is_sign_negative() { 0x80 } else { 0 }
}

#[test]
fn every_byte_is_converted_as_the_formula_says() {
    for byte in 0..=u8::MAX {
        let (four, five) = (E4m3::to_f32([byte]), E5m2::to_f32([byte]));
        if byte & 0x7f == 0x7f {
            assert!(four.is_nan());
        } else {
            assert_eq!(f64::from(four).to_bits(), value(byte, 3, 7).to_bits(), "{byte:02x}");
        }
        match byte & 0x7f {
            0x7c => assert_eq!(five.abs(), f32::INFINITY),
            0x7d..=0x7f => assert!(five.is_nan()),
            _ => assert_eq!(f64::from(five).to_bits(), value(byte, 2, 15).to_bits(), "{byte:02x}"),
        }
        let power = E8m0::to_f32([byte]);
        assert!(if byte == 0xff { power.is_nan() } else { f64::from(power) == 2f64.powi(i32::from(byte) - 127) });
    }
    for x in singles() {
        let (four, five) = if x.is_nan() {
            (0x7f, 0x7e)
        } else {
            let four = nearest(x.clamp(-480.0, 480.0), 3, 7, 0x7f);
            (if four & 0x7f == 0x7f { 0x7f } else { four }, nearest(x.clamp(-65_536.0, 65_536.0), 2, 15, 0x7c))
        };
        assert_eq!(E4m3::from_f32(x), [four], "{x:e}");
        assert_eq!(E5m2::from_f32(x), [five], "{x:e}");
    }
}

#[test]
fn scales_are_rounded_up_to_powers_of_two() {
    for x in singles().filter(|x| x.is_finite() && *x <= 2f32.powi(127)) {
        let [byte] = E8m0::from_f32(x);
        assert!(E8m0::to_f32([byte]) >= x, "{x:e}");
        assert!(byte == 0 || E8m0::to_f32([byte - 1]) < x, "{x:e}");
    }
    assert_eq!(E8m0::from_f32(f32::NAN), [0xff]);
}
