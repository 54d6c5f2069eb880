//! Half precision and brain floats to and from single precision, rounded to nearest, ties to
//! even. A result that is not a number has one pattern on every machine.

use super::Float;

/// Numbers of one type in memory.
pub(super) trait Number {
    /// The bytes of a number.
    type Bytes: Copy + Default + AsRef<[u8]>;

    /// Exactly.
    fn to_f32(bytes: Self::Bytes) -> f32;

    /// The nearest number.
    fn from_f32(x: f32) -> Self::Bytes;
}

pub(super) struct F16;
pub(super) struct Bf16;
pub(super) struct F32;

impl Number for F32 {
    type Bytes = [u8; 4];

    #[inline]
    fn to_f32(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }

    #[inline]
    fn from_f32(x: f32) -> [u8; 4] {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        bits.to_le_bytes()
    }
}

impl Number for Bf16 {
    type Bytes = [u8; 2];

    #[inline]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
    }

    #[inline]
    fn from_f32(x: f32) -> [u8; 2] {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        if x.is_nan() { 0x7fc0u16 } else { rounded }.to_le_bytes()
    }
}

impl Number for F16 {
    type Bytes = [u8; 2];

    #[inline]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        half::f16::from_le_bytes(bytes).to_f32()
    }

    #[inline]
    fn from_f32(x: f32) -> [u8; 2] {
        let rounded = half::f16::from_f32(x).to_bits();
        if x.is_nan() { 0x7e00 } else { rounded }.to_le_bytes()
    }
}

impl Float {
    /// Number `i` of an array.
    pub(super) fn get(self, array: &[u8], i: usize) -> f32 {
        match self {
            Self::F16 => F16::to_f32(array.as_chunks().0[i]),
            Self::BF16 => Bf16::to_f32(array.as_chunks().0[i]),
            Self::F32 => F32::to_f32(array.as_chunks().0[i]),
        }
    }

    /// Sets number `i` of an array to the nearest finite one to `x`, and returns it; +0 if `x`
    /// is not a number or rounds to a zero.
    pub(super) fn set(self, array: &mut [u8], i: usize, x: f64) -> f32 {
        let max = match self {
            Self::F16 => 65_504.0,
            Self::BF16 => f32::from_bits(0x7f7f_0000),
            Self::F32 => f32::MAX,
        };
        self.put(array, i, (x as f32).clamp(-max, max));
        let rounded = self.get(array, i);
        if rounded != 0.0 && !rounded.is_nan() {
            return rounded;
        }
        self.put(array, i, 0.0);
        0.0
    }

    fn put(self, array: &mut [u8], i: usize, x: f32) {
        match self {
            Self::F16 => array.as_chunks_mut().0[i] = F16::from_f32(x),
            Self::BF16 => array.as_chunks_mut().0[i] = Bf16::from_f32(x),
            Self::F32 => array.as_chunks_mut().0[i] = F32::from_f32(x),
        }
    }
}
