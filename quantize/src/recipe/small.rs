//! Small floating-point types: E2M1, E4M3, E8M0.

/// The numbers of E2M1 by their codes.
pub(super) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The numbers of NF4 by their codes (Dettmers et al., "QLoRA", 2023, appendix E).
pub(super) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The greatest number of E4M3.
pub(super) const E4M3_MAX: f32 = 448.0;

/// A number of E4M3 that is not negative, by its code, which is below 0x7f.
pub(super) fn e4m3_value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3), f32::from(code & 7));
    match exponent {
        0 => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    }
}

/// The code of the nearest number of E4M3, ties to even codes; what is beyond the greatest becomes it.
pub(super) fn e4m3_code(x: f32) -> u8 {
    let magnitude = x.abs().min(E4M3_MAX);
    let exponent = (((magnitude.to_bits() >> 23) as i32) - 127).max(-6);
    // Numbers of this binade are a step apart; the first beyond it has the next code.
    let step = 2f32.powi(exponent - 3);
    let steps = (magnitude / step).round_ties_even() as u8;
    let code = if exponent == -6 { steps } else { ((exponent + 6) as u8) * 8 + steps };
    code | u8::from(x.is_sign_negative()) << 7
}

/// The code of the least power of two in E8M0 that is not less than a positive number; the least of all for 0.
pub(super) fn e8m0_code(x: f64) -> u8 {
    let exponent = (x.to_bits() >> 52) as i64 - 1023;
    let is_power = x.to_bits().trailing_zeros() >= 52;
    (exponent + i64::from(!is_power) + 127).clamp(0, 254) as u8
}

/// A power of two by its code, which is below 0xff.
pub(super) fn e8m0_value(code: u8) -> f64 {
    2f64.powi(i32::from(code) - 127)
}
