//! Floating-point types of elements and of the numbers that encodings use, to and from single
//! precision: rounded to nearest, ties to even. A result that is not a number has one pattern on
//! every machine. The conversions have no branches, so that loops over them become vector code.

use cmz_format::Dtype;

use super::Element;
use crate::device::DeviceFloat;

/// A type of floating-point numbers that fits single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// IEEE half precision.
    F16,
    /// Brain float.
    BF16,
    /// IEEE single precision.
    F32,
    /// Eight bits, four of them exponent, without infinities.
    E4M3,
    /// Eight bits, five of them exponent.
    E5M2,
    /// A power of two.
    E8M0,
}

/// The precision in which an encoding computes: every step is rounded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Single.
    F32,
    /// Half.
    F16,
}

/// The values of a parameter that names a type of elements.
pub(super) const ELEMENTS: [(&str, Float); 3] = [("F16", Float::F16), ("BF16", Float::BF16), ("F32", Float::F32)];
/// The values of a parameter that names a type of numbers with a mantissa.
pub(super) const VALUES: [(&str, Float); 5] = [
    ("F16", Float::F16),
    ("BF16", Float::BF16),
    ("F32", Float::F32),
    ("F8_E4M3", Float::E4M3),
    ("F8_E5M2", Float::E5M2),
];
/// The values of a parameter `arithmetic`.
pub(super) const ARITHMETICS: [(&str, Arithmetic); 2] = [("F32", Arithmetic::F32), ("F16", Arithmetic::F16)];

/// Numbers of one type in memory.
pub(crate) trait Number {
    /// The bytes of a number.
    type Bytes: Copy + Default;

    /// The numbers of an array.
    fn of(array: &[u8]) -> &[Self::Bytes];

    /// The numbers of an array, to change.
    fn of_mut(array: &mut [u8]) -> &mut [Self::Bytes];

    /// Exactly.
    fn to_f32(bytes: Self::Bytes) -> f32;

    /// The nearest number.
    fn from_f32(x: f32) -> Self::Bytes;
}

pub(crate) struct F16;
pub(crate) struct Bf16;
pub(crate) struct F32;
pub(crate) struct E4m3;
pub(crate) struct E5m2;
pub(crate) struct E8m0;
/// Symbols of up to eight bits.
pub(super) struct Byte;

/// The items that are the same for every type of `$len` bytes.
macro_rules! arrays {
    ($len:literal) => {
        type Bytes = [u8; $len];

        #[inline(always)]
        fn of(array: &[u8]) -> &[[u8; $len]] {
            array.as_chunks().0
        }

        #[inline(always)]
        fn of_mut(array: &mut [u8]) -> &mut [[u8; $len]] {
            array.as_chunks_mut().0
        }
    };
}

impl Number for F32 {
    arrays!(4);

    #[inline(always)]
    fn to_f32(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 4] {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        bits.to_le_bytes()
    }
}

impl Number for Bf16 {
    arrays!(2);

    #[inline(always)]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 2] {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        if x.is_nan() { 0x7fc0u16 } else { rounded }.to_le_bytes()
    }
}

impl Number for F16 {
    arrays!(2);

    #[inline(always)]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        let half = u32::from(u16::from_le_bytes(bytes));
        let bits = (half & 0x7fff) << 13;
        let magnitude = if half & 0x7c00 == 0x7c00 { bits | 0x7f80_0000 } else { widen(bits, 112) };
        f32::from_bits(magnitude | (half & 0x8000) << 16)
    }

    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 2] {
        let rounded = narrow(x, 10, 113, 65_536.0) | (x.to_bits() >> 16 & 0x8000);
        (if x.is_nan() { 0x7e00 } else { rounded } as u16).to_le_bytes()
    }
}

impl Number for E5m2 {
    arrays!(1);

    #[inline(always)]
    fn to_f32([byte]: [u8; 1]) -> f32 {
        F16::to_f32([0, byte])
    }

    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 1] {
        let rounded = narrow(x, 2, 113, 65_536.0) | (x.to_bits() >> 24 & 0x80);
        [if x.is_nan() { 0x7e } else { rounded } as u8]
    }
}

impl Number for E4m3 {
    arrays!(1);

    #[inline(always)]
    fn to_f32([byte]: [u8; 1]) -> f32 {
        let byte = u32::from(byte);
        let magnitude = if byte & 0x7f == 0x7f { 0x7fc0_0000 } else { widen((byte & 0x7f) << 20, 120) };
        f32::from_bits(magnitude | (byte & 0x80) << 24)
    }

    /// What rounds to 480 or more is not a number.
    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 1] {
        let rounded = narrow(x, 3, 121, 480.0) | (x.to_bits() >> 24 & 0x80);
        [if x.is_nan() || rounded & 0x7f == 0x7f { 0x7f } else { rounded } as u8]
    }
}

impl Number for E8m0 {
    arrays!(1);

    #[inline(always)]
    fn to_f32([byte]: [u8; 1]) -> f32 {
        let bits = if byte == 0 { 1 << 22 } else { u32::from(byte) << 23 };
        f32::from_bits(if byte == 0xff { 0x7fc0_0000 } else { bits })
    }

    /// The least power of two that is not less: scales are rounded up.
    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 1] {
        let above = x.to_bits().wrapping_add(0x7f_ffff) >> 23;
        [if x <= E8m0::to_f32([0]) { 0 } else { above.min(0xff) as u8 }]
    }
}

impl Number for Byte {
    arrays!(1);

    #[inline(always)]
    fn to_f32([byte]: [u8; 1]) -> f32 {
        byte.into()
    }

    #[inline(always)]
    fn from_f32(x: f32) -> [u8; 1] {
        [x as u8]
    }
}

/// The magnitude, as bits of single precision, of a finite number of a type with a shorter exponent:
/// `bits` has its exponent and mantissa in the places of single precision, whose bias is greater by `bias`.
#[inline(always)]
fn widen(bits: u32, bias: u32) -> u32 {
    // A subnormal number is what its bits add to the least normal one.
    let least = f32::from_bits((bias + 1) << 23);
    let subnormal = f32::from_bits(bits + ((bias + 1) << 23)) - least;
    if bits < 1 << 23 { subnormal.to_bits() } else { bits + (bias << 23) }
}

/// The magnitude of `x` in a type with `mantissa` bits of mantissa, whose least exponent is `least` in
/// single precision's biased form, rounded; `over` and what is more as `over`.
#[inline(always)]
fn narrow(x: f32, mantissa: u32, least: u32, over: f32) -> u32 {
    let (magnitude, step) = with_step(x, mantissa, least, over);
    // A sum with a number whose last bit counts for a step counts steps.
    let steps = (magnitude + step).to_bits() - step.to_bits();
    let exponent = (step.to_bits() >> 23) - (23 - mantissa) - least;
    steps + (exponent << mantissa)
}

/// The magnitude of `x`, at most `over`, and a power of two whose unit in the last place is the step between
/// numbers of the type of [`narrow`] there.
#[inline(always)]
fn with_step(x: f32, mantissa: u32, least: u32, over: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let magnitude = if magnitude < over { magnitude } else { over };
    let exponent = (magnitude.to_bits() >> 23).max(least);
    (magnitude, f32::from_bits((exponent + 23 - mantissa) << 23))
}

/// Rounds to what half precision has.
#[inline(always)]
pub(crate) fn round_to_half(x: f32) -> f32 {
    let (magnitude, step) = with_step(x, 10, 113, 65_536.0);
    let rounded = magnitude + step - step;
    let finite = if rounded >= 65_536.0 { f32::INFINITY } else { rounded };
    if x.is_nan() { x } else { finite.copysign(x) }
}

/// Evaluates an expression with `$T` as the type of numbers that a [`Float`] says.
macro_rules! with_number {
    ($float:expr, $T:ident => $value:expr) => {
        match $float {
            $crate::encoding::number::Float::F16 => {
                type $T = $crate::encoding::number::F16;
                $value
            }
            $crate::encoding::number::Float::BF16 => {
                type $T = $crate::encoding::number::Bf16;
                $value
            }
            $crate::encoding::number::Float::F32 => {
                type $T = $crate::encoding::number::F32;
                $value
            }
            $crate::encoding::number::Float::E4M3 => {
                type $T = $crate::encoding::number::E4m3;
                $value
            }
            $crate::encoding::number::Float::E5M2 => {
                type $T = $crate::encoding::number::E5m2;
                $value
            }
            $crate::encoding::number::Float::E8M0 => {
                type $T = $crate::encoding::number::E8m0;
                $value
            }
        }
    };
}
pub(crate) use with_number;

impl Float {
    /// The same for a device.
    pub(super) const fn on_device(self) -> DeviceFloat {
        match self {
            Self::F16 => DeviceFloat::F16,
            Self::BF16 => DeviceFloat::Bf16,
            Self::F32 => DeviceFloat::F32,
            Self::E4M3 => DeviceFloat::E4M3,
            Self::E5M2 => DeviceFloat::E5M2,
            Self::E8M0 => DeviceFloat::E8M0,
        }
    }

    /// Every type.
    pub(crate) const ALL: [Self; 6] = [Self::F16, Self::BF16, Self::F32, Self::E4M3, Self::E5M2, Self::E8M0];

    /// The type of elements of `F16`, `BF16` or `F32`.
    pub(crate) const fn of(element: Element) -> Option<Self> {
        match element {
            Element::Dtype(Dtype::F16) => Some(Self::F16),
            Element::Dtype(Dtype::BF16) => Some(Self::BF16),
            Element::Dtype(Dtype::F32) => Some(Self::F32),
            _ => None,
        }
    }

    /// The type of elements of one of the types of [`VALUES`].
    pub(super) const fn of_value(element: Element) -> Option<Self> {
        match element {
            Element::Dtype(Dtype::F8_E4M3) => Some(Self::E4M3),
            Element::Dtype(Dtype::F8_E5M2) => Some(Self::E5M2),
            _ => Self::of(element),
        }
    }

    /// The element type.
    #[must_use]
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
            Self::E4M3 => Dtype::F8_E4M3,
            Self::E5M2 => Dtype::F8_E5M2,
            Self::E8M0 => Dtype::F8_E8M0,
        }
    }

    /// Bytes of a number.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::E4M3 | Self::E5M2 | Self::E8M0 => 1,
        }
    }

    /// Number `i` of an array.
    pub(crate) fn get(self, array: &[u8], i: usize) -> f32 {
        with_number!(self, T => T::to_f32(T::of(array)[i]))
    }

    /// Sets number `i` of an array to the nearest one to `x`, and returns it.
    pub(super) fn put(self, array: &mut [u8], i: usize, x: f32) -> f32 {
        with_number!(self, T => T::of_mut(array)[i] = T::from_f32(x));
        self.get(array, i)
    }

    /// Sets number `i` of an array to the nearest finite one to `x`, and returns it; the least one, +0 where
    /// there is one, if `x` is not a number or rounds to a zero.
    pub(super) fn set(self, array: &mut [u8], i: usize, x: f64) -> f32 {
        let max = match self {
            Self::F16 => 65_504.0,
            Self::BF16 => f32::from_bits(0x7f7f_0000),
            Self::F32 => f32::MAX,
            Self::E4M3 => 448.0,
            Self::E5M2 => 57_344.0,
            Self::E8M0 => f32::from_bits(0x7f00_0000),
        };
        let rounded = self.put(array, i, (x as f32).clamp(-max, max));
        if rounded != 0.0 && !rounded.is_nan() { rounded } else { self.put(array, i, 0.0) }
    }
}
