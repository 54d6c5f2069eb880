//! Grids that formats use: affine, codebooks, ternary rows.

use half::{bf16, f16};

use super::Grid;

/// Codes of `bits` bits with a scale in half precision and a zero point of `bits` bits: `(code − zero) · scale` in single
/// precision. It is the form `zero_point` of the encoding `affine`: the range of a group holds 0, so that 0 is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    bits: u8,
}

/// A group of [`Affine`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineGroup {
    /// What a step of the code is worth; not negative.
    pub scale: f16,
    /// The code of 0.
    pub zero: u8,
}

impl Affine {
    /// A grid of 2^`bits` values.
    ///
    /// # Panics
    /// If `bits` is not 1 to 8.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        assert!((1..=8).contains(&bits), "codes of {bits} bits");
        Self { bits }
    }

    fn most(self) -> f32 {
        f32::from(u8::MAX >> (8 - self.bits))
    }
}

impl Grid for Affine {
    type Group = AffineGroup;

    fn fit(&self, weights: &[f32]) -> AffineGroup {
        let (low, high) = weights.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
        // Halves first, because the difference of two finite numbers may not be finite.
        let scale = finite_f16((high / 2.0 - low / 2.0) / self.most() * 2.0);
        let zero = steps(-low, scale.to_f32()).round_ties_even().clamp(0.0, self.most());
        AffineGroup { scale, zero: zero as u8 }
    }

    fn code(&self, group: &AffineGroup, weight: f32) -> u8 {
        let code = steps(weight, group.scale.to_f32()).round_ties_even() + f32::from(group.zero);
        code.clamp(0.0, self.most()) as u8
    }

    fn value(&self, group: &AffineGroup, code: u8) -> f32 {
        (f32::from(code) - f32::from(group.zero)) * group.scale.to_f32()
    }
}

/// How many steps a weight is from 0.
fn steps(weight: f32, scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { weight / scale }
}

/// The nearest number in half precision that is finite.
pub(super) fn finite_f16(x: f32) -> f16 {
    f16::from_f32(x.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()))
}

/// Codes that are indices into a table of values in [−1, 1], which a group's greatest magnitude scales: NF4, FP4 (Dettmers et al.,
/// "QLoRA", 2023, §3). The product is in single precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    values: Vec<f32>,
    /// The codes in ascending order of their values.
    sorted: Vec<u8>,
}

impl Codebook {
    /// A grid of the values of a table. Of equal values the first is used.
    ///
    /// # Panics
    /// If there are not 1 to 256 values, or one is not finite.
    #[must_use]
    pub fn new(values: Vec<f32>) -> Self {
        assert!((1..=256).contains(&values.len()), "a table of {} values", values.len());
        assert!(values.iter().all(|value| value.is_finite()), "a value is not finite");
        // With 0 added, −0 is 0.
        let value = |code: u8| values[usize::from(code)] + 0.0;
        let mut sorted: Vec<u8> = (0..=255).take(values.len()).collect();
        sorted.sort_by(|&a, &b| value(a).total_cmp(&value(b)));
        sorted.dedup_by_key(|code| value(*code));
        Self { values, sorted }
    }
}

impl Grid for Codebook {
    /// The greatest magnitude of the group.
    type Group = f32;

    fn fit(&self, weights: &[f32]) -> f32 {
        weights.iter().fold(0.0, |most, weight| weight.abs().max(most))
    }

    fn code(&self, &scale: &f32, weight: f32) -> u8 {
        let share = steps(weight, scale);
        let value = |at: usize| self.values[usize::from(self.sorted[at])];
        let above = self.sorted.partition_point(|&code| self.values[usize::from(code)] < share);
        match above {
            0 => self.sorted[0],
            at if at == self.sorted.len() => self.sorted[at - 1],
            at if value(at) - share < share - value(at - 1) => self.sorted[at],
            at => self.sorted[at - 1],
        }
    }

    fn value(&self, &scale: &f32, code: u8) -> f32 {
        self.values[usize::from(code)] * scale
    }
}

/// The three values of QMoE (Frantar & Alistarh, 2023, §3.2 and its quantizer): 0, and the least and the greatest weight of a row,
/// in bfloat16. Its groups are whole rows. Most weights become 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ternary;

/// A row of [`Ternary`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TernaryRow {
    /// What code 1 stands for; not positive.
    pub low: bf16,
    /// What code 2 stands for; not negative.
    pub high: bf16,
}

impl Grid for Ternary {
    type Group = TernaryRow;

    fn fit(&self, weights: &[f32]) -> TernaryRow {
        let (low, high) = weights.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
        let finite = |x: f32| bf16::from_f32(x.clamp(-bf16::MAX.to_f32(), bf16::MAX.to_f32()));
        TernaryRow { low: finite(low), high: finite(high) }
    }

    /// 0 is code 0, also in a row without weights of one sign.
    fn code(&self, row: &TernaryRow, weight: f32) -> u8 {
        let (low, high) = (row.low.to_f32(), row.high.to_f32());
        if weight > high / 2.0 && high > 0.0 {
            2
        } else if weight < low / 2.0 && low < 0.0 {
            1
        } else {
            0
        }
    }

    fn value(&self, row: &TernaryRow, code: u8) -> f32 {
        [0.0, row.low.to_f32(), row.high.to_f32()][usize::from(code)]
    }
}
