//! `int2` to `int8`: integers with a scale for each group of a row.

use cmz_codec::array::Parts;
use cmz_format::{Component, Encoding, Result};

use super::rounding::{Choosing, DAMPING, ORDER, SOLVER, round};
use super::streams::{Float, encoded, floats, group, row_share, symbols};
use super::{Entry, Kind, Method, Param, Shape, Task, group_param};
use crate::solver::Grid;

/// The recipe.
pub(super) const ENTRY: Entry = Entry {
    family: "int",
    bits: Some(2..=8),
    about: "integers with a scale for each group",
    params: &[
        group_param("128"),
        Param {
            name: "form",
            default: "symmetric",
            kind: Kind::Word(FORMS),
            about: "whether codes count from the middle, from a zero point, or from a bias",
        },
        Param { name: "scale", default: "F16", kind: Kind::Word(Float::WORDS), about: "type of scales and biases" },
        Param {
            name: "fit",
            default: "error",
            kind: Kind::Word(&["error", "range"]),
            about: "scales with the least squared error, or those that reach all weights",
        },
        SOLVER,
        ORDER,
        DAMPING,
    ],
    build: |bits, params| {
        let form = match params.word("form") {
            "symmetric" => Form::Symmetric,
            "zero_point" => Form::ZeroPoint,
            _ => Form::Bias,
        };
        Ok(Box::new(Int {
            bits,
            group: params.integer("group"),
            form,
            scale: Float::from_word(params.word("scale")),
            search: params.word("fit") == "error",
            choosing: Choosing::of(params),
        }))
    },
};

const FORMS: &[&str] = &["symmetric", "zero_point", "bias"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Symmetric,
    ZeroPoint,
    Bias,
}

#[derive(Clone, Copy, Debug)]
struct Int {
    bits: u8,
    group: u32,
    form: Form,
    scale: Float,
    search: bool,
    choosing: Choosing,
}

/// What is stored of a group: a code `q` decodes to `(q − zero) · scale + bias`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntGroup {
    scale: f32,
    zero: f32,
    bias: f32,
}

impl IntGroup {
    fn value(&self, code: f32) -> f32 {
        (code - self.zero) * self.scale + self.bias
    }
}

/// Shares of the range that are tried as scales where the least error is looked for, in 32nds.
const SHARES: std::ops::RangeInclusive<u8> = 16..=32;

impl Int {
    fn max_code(&self) -> f32 {
        f32::from(u8::MAX >> (8 - self.bits))
    }

    fn columns(&self, shape: Shape) -> usize {
        row_share(self.group, shape)
    }

    /// The group that reaches `share` of the way to the outermost weights.
    fn group(&self, (low, high): (f32, f32), share: f64) -> IntGroup {
        let (low, high) = (f64::from(low), f64::from(high));
        let most = f64::from(self.max_code());
        match self.form {
            Form::Symmetric => {
                // The weight of the greatest magnitude gets code 0, which has no counterpart of the opposite sign.
                let middle = (most + 1.0) / 2.0;
                let greatest = if -low >= high { low } else { high };
                IntGroup { scale: self.scale.round(-greatest * share / middle), zero: middle as f32, bias: 0.0 }
            }
            Form::ZeroPoint => {
                let (low, high) = (low.min(0.0) * share, high.max(0.0) * share);
                let scale = self.scale.round((high - low) / most);
                let zero = if scale == 0.0 { 0.0 } else { (-low / f64::from(scale)).round_ties_even() };
                IntGroup { scale, zero: zero.clamp(0.0, most) as f32, bias: 0.0 }
            }
            Form::Bias => {
                let cut = (high - low) * (1.0 - share) / 2.0;
                let bias = self.scale.round(low + cut);
                let scale = self.scale.round((high - cut - f64::from(bias)) / most);
                IntGroup { scale, zero: 0.0, bias }
            }
        }
    }

    fn quotient(&self, group: &IntGroup, weight: f32) -> f32 {
        if group.scale == 0.0 {
            return group.zero;
        }
        ((weight - group.bias) / group.scale + group.zero).round_ties_even().clamp(0.0, self.max_code())
    }

    fn squared_error(&self, group: &IntGroup, weights: &[f32]) -> f64 {
        let error = |&weight: &f32| {
            let error = f64::from(group.value(self.quotient(group, weight))) - f64::from(weight);
            error * error
        };
        weights.iter().map(error).sum()
    }
}

impl Grid for Int {
    type Group = IntGroup;

    fn fit(&self, weights: &[f32]) -> IntGroup {
        let range =
            weights.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &w| (low.min(w), high.max(w)));
        let widest = self.group(range, 1.0);
        if !self.search {
            return widest;
        }
        let shares = SHARES.rev().map(|share| self.group(range, f64::from(share) / 32.0));
        let errors = shares.map(|group| (self.squared_error(&group, weights), group));
        errors.min_by(|(a, _), (b, _)| a.total_cmp(b)).map_or(widest, |(_, group)| group)
    }

    fn code(&self, group: &IntGroup, weight: f32) -> u8 {
        self.quotient(group, weight) as u8
    }

    fn value(&self, group: &IntGroup, code: u8) -> f32 {
        group.value(code.into())
    }
}

impl Method for Int {
    fn encoding(&self, shape: Shape) -> Result<Encoding> {
        let form = FORMS[self.form as usize];
        let mut encoding = encoded(
            "affine",
            [
                ("bits", self.bits.into()),
                ("form", form.into()),
                ("group", group(1, self.columns(shape))),
                ("scale", self.scale.dtype().name().into()),
                ("arithmetic", "F32".into()),
            ],
            [("codes", symbols()), ("scales", floats(self.scale.dtype()))],
        );
        let zeros: Option<(&str, Component)> = match self.form {
            Form::Symmetric => None,
            Form::ZeroPoint => Some(("zero_points", symbols())),
            Form::Bias => Some(("biases", floats(self.scale.dtype()))),
        };
        encoding.components.extend(zeros.map(|(name, component)| (name.to_owned(), component)));
        Ok(encoding)
    }

    fn needs_statistics(&self) -> bool {
        self.choosing.needs_statistics()
    }

    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>> {
        let blocks = round(task, self, self.columns(task.shape), self.choosing)?;
        let parts = blocks.into_iter().map(|block| {
            let numbers =
                |number: fn(&IntGroup) -> f32| Parts::Whole(self.scale.bytes(block.groups.iter().map(number)));
            let scales = numbers(|group| group.scale);
            let zeros = match self.form {
                Form::Symmetric => None,
                Form::ZeroPoint => Some(Parts::Whole(block.groups.iter().map(|group| group.zero as u8).collect())),
                Form::Bias => Some(numbers(|group| group.bias)),
            };
            Parts::Components([Parts::Whole(block.codes), scales].into_iter().chain(zeros).collect())
        });
        Ok(parts.collect())
    }
}
