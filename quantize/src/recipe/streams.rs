//! Pieces of encoding trees, and bytes of components.

use cmz_format::{Component, Dtype, Encoding};
use half::{bf16, f16};
use serde_json::Value;

use super::Shape;

/// Symbols: entropy coded where that gains, packed where not.
pub(super) fn symbols() -> Component {
    stream(&["rans", "bitpack", "raw"])
}

/// A stream by the codec that makes it smallest.
pub(super) fn stream(codecs: &[&str]) -> Component {
    Component::Stream(codecs.iter().map(|&codec| codec.to_owned()).collect())
}

/// An encoded array.
pub(super) fn encoded<const P: usize, const C: usize>(
    name: &str,
    params: [(&str, Value); P],
    components: [(&str, Component); C],
) -> Encoding {
    Encoding {
        name: name.to_owned(),
        params: params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        components: components.into_iter().map(|(name, component)| (name.to_owned(), component)).collect(),
    }
}

/// Bytes as they are.
pub(super) fn raw() -> Component {
    stream(&["raw"])
}

/// The rows and columns of a group.
pub(super) fn group(rows: usize, columns: usize) -> Value {
    vec![rows, columns].into()
}

/// A group that is a whole block: more than any has.
pub(super) fn whole_block() -> Value {
    group(1 << 24, 1 << 24)
}

/// Elements of a row that share a scale, of a parameter for which 0 means all.
pub(super) fn row_share(group: u32, shape: Shape) -> usize {
    if group == 0 { shape.columns } else { (group as usize).min(shape.columns) }
}

/// Elements of a few bytes, such as a table, stored as they are.
pub(super) fn plain_raw() -> Component {
    Component::Encoded(encoded("plain", [], [("data", raw())]))
}

/// Floating-point numbers such as scales, stored exactly.
pub(super) fn floats(dtype: Dtype) -> Component {
    let names: &[&str] = match dtype {
        Dtype::F32 => &["exponent", "sign_mantissa", "mantissa_1", "mantissa_0"],
        Dtype::F16 => &["exponent", "sign_mantissa", "mantissa_0"],
        Dtype::BF16 => &["exponent", "sign_mantissa"],
        _ => return Component::Encoded(encoded("plain", [], [("data", symbols())])),
    };
    let components = names.iter().map(|&name| (name.to_owned(), symbols())).collect();
    Component::Encoded(Encoding { name: "float_planes".to_owned(), params: serde_json::Map::new(), components })
}

/// A type of scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    BF16,
    F32,
}

impl Float {
    /// The type of a tensor's elements.
    pub(super) const fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            _ => Self::F32,
        }
    }

    /// The words for these types.
    pub(super) const WORDS: &[&str] = &["F16", "BF16", "F32"];

    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            _ => Self::F32,
        }
    }

    pub(super) const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }

    /// The nearest number of this type that is finite.
    pub(super) fn round(self, x: f64) -> f32 {
        let within = |most: f64| x.clamp(-most, most);
        match self {
            Self::F16 => f16::from_f64(within(f16::MAX.to_f64())).to_f32(),
            Self::BF16 => bf16::from_f64(within(bf16::MAX.to_f64())).to_f32(),
            Self::F32 => within(f32::MAX.into()) as f32,
        }
    }

    /// The bytes of numbers of this type.
    pub(super) fn bytes(self, numbers: impl Iterator<Item = f32>) -> Vec<u8> {
        match self {
            Self::F16 => numbers.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
            Self::BF16 => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            Self::F32 => numbers.flat_map(f32::to_le_bytes).collect(),
        }
    }
}
