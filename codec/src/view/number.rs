//! Numbers in parts to single precision, and single precision to the elements of a view.

use cmz_format::Dtype;

/// A type of numbers, each of which single precision holds exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    BF16,
    F32,
    E4M3,
    E5M2,
    E8M0,
    I8,
}

impl Number {
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F32 => Self::F32,
            Dtype::F8_E4M3 => Self::E4M3,
            Dtype::F8_E5M2 => Self::E5M2,
            Dtype::F8_E8M0 => Self::E8M0,
            Dtype::I8 => Self::I8,
            _ => return None,
        })
    }

    /// Number `i` of an array.
    pub(super) fn get(self, array: &[u8], i: usize) -> f32 {
        let two = || u16::from_le_bytes(array.as_chunks().0[i]);
        match self {
            Self::F16 => half::f16::from_bits(two()).to_f32(),
            Self::BF16 => f32::from_bits(u32::from(two()) << 16),
            Self::F32 => f32::from_le_bytes(array.as_chunks().0[i]),
            Self::E4M3 => e4m3(array[i]),
            Self::E5M2 => half::f16::from_bits(u16::from(array[i]) << 8).to_f32(),
            Self::E8M0 => e8m0(array[i]),
            Self::I8 => f32::from(array[i].cast_signed()),
        }
    }

    /// All numbers of an array.
    pub(super) fn all(self, array: &[u8]) -> Vec<f32> {
        let len = match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::E4M3 | Self::E5M2 | Self::E8M0 | Self::I8 => 1,
        };
        (0..array.len() / len).map(|i| self.get(array, i)).collect()
    }

    /// The number that each byte is, of a type of one byte.
    pub(super) fn of_bytes(self) -> Vec<f32> {
        self.all(&(0..=u8::MAX).collect::<Vec<_>>())
    }
}

/// Four bits of exponent, three of mantissa, no infinities.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(byte >> 3 & 15), u32::from(byte & 7));
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    if byte >> 7 == 1 { -magnitude } else { magnitude }
}

/// A power of two.
pub(super) fn e8m0(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

/// The numbers of E2M1, by their codes.
pub(super) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The type of a view's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    BF16,
    F32,
}

impl Float {
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
        }
    }

    /// Rounds values to elements. What is not a number has one pattern.
    pub(super) fn round(self, values: &[f32], out: &mut [u8]) {
        match self {
            Self::F16 => values.iter().zip(out.as_chunks_mut().0).for_each(|(&x, element)| {
                let bits = if x.is_nan() { 0x7e00 } else { half::f16::from_f32(x).to_bits() };
                *element = bits.to_le_bytes();
            }),
            Self::BF16 => values.iter().zip(out.as_chunks_mut().0).for_each(|(&x, element)| {
                let bits = x.to_bits();
                let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
                *element = if x.is_nan() { 0x7fc0 } else { rounded }.to_le_bytes();
            }),
            Self::F32 => values.iter().zip(out.as_chunks_mut().0).for_each(|(&x, element)| {
                let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
                *element = bits.to_le_bytes();
            }),
        }
    }
}

/// Half precision, by its rounding: what a step in half precision gives.
pub(super) fn half(x: f32) -> f32 {
    half::f16::from_f32(x).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_are_what_their_bits_say() {
        for byte in 0..=u8::MAX {
            let sign = if byte >> 7 == 1 { -1.0 } else { 1.0 };
            let (e, m) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
            let expected = match (e, byte & 7) {
                (15, 7) => f64::NAN,
                (0, _) => m / 8.0 * 2f64.powi(-6),
                _ => (1.0 + m / 8.0) * 2f64.powi(e - 7),
            };
            let found = f64::from(e4m3(byte));
            assert!(
                found.to_bits() == (sign * expected).to_bits() || (found.is_nan() && expected.is_nan()),
                "{byte:#x}"
            );
            let power = f64::from(e8m0(byte));
            assert!(power == 2f64.powi(i32::from(byte) - 127) || byte == 255 && power.is_nan(), "{byte:#x}");
        }
        let e5m2 = |byte: u8| Number::E5M2.get(&[byte], 0);
        assert_eq!((e5m2(0x3c), e5m2(0x7b), e5m2(0x01)), (1.0, 57344.0, 2f32.powi(-16)));
        assert!(e5m2(0xfc) == f32::NEG_INFINITY && e5m2(0x7f).is_nan());
    }

    #[test]
    fn elements_are_rounded_to_nearest_even() {
        let round = |float: Float, x: f32| {
            let mut out = vec![0; float.len()];
            float.round(&[x], &mut out);
            out.iter().rev().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
        };
        assert_eq!(round(Float::BF16, f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(round(Float::BF16, f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(round(Float::BF16, f32::MAX), 0x7f80);
        assert_eq!(round(Float::F16, 65_520.0), 0x7c00);
        assert_eq!(round(Float::F16, -0.0), 0x8000);
        for (float, bits) in [(Float::F16, 0x7e00), (Float::BF16, 0x7fc0), (Float::F32, 0x7fc0_0000)] {
            assert_eq!(round(float, f32::from_bits(0xffff_ffff)), bits);
        }
    }
}
