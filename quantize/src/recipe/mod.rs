//! Recipes: named ways to store a matrix in few bits, with parameters, in one table.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use cmz_codec::array::Parts;
use cmz_format::{Code, Dtype, Encoding, Error, Result};

use crate::Matrix;
use crate::solver::Statistics;

mod bcq;
mod fp8;
mod int;
mod kmeans;
mod params;
mod rounding;
mod small;
mod spqr;
mod streams;
mod table;
mod ternary;

pub use params::{Kind, Param, Value};
use params::{Params, closest};

/// A family of recipes.
#[derive(Debug)]
pub struct Entry {
    /// Name, without the bits of a code where they are part of it.
    pub family: &'static str,
    /// Bits of a code that may follow the family's name.
    pub bits: Option<RangeInclusive<u8>>,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Makes it, with checked parameters.
    build: fn(bits: u8, params: &Params<'_>) -> Result<Box<dyn Method>>,
}

/// All recipes.
pub static RECIPES: &[Entry] = &[
    int::ENTRY,
    table::NF4,
    table::MXFP4,
    table::NVFP4,
    fp8::ENTRY,
    kmeans::ENTRY,
    bcq::ENTRY,
    spqr::ENTRY,
    ternary::ENTRY,
];

/// The parameter of recipes with groups in rows.
const fn group_param(default: &'static str) -> Param {
    Param {
        name: "group",
        default,
        kind: Kind::Integer(0, 1 << 24),
        about: "weights of a row that share a scale; 0 for whole rows, whose last group may be shorter",
    }
}

impl Entry {
    /// The names of its recipes, for people.
    #[must_use]
    pub fn names(&self) -> String {
        match &self.bits {
            None => self.family.to_owned(),
            Some(bits) => format!("{0}{1} … {0}{2}", self.family, bits.start(), bits.end()),
        }
    }
}

/// A matrix as far as it is known before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Type of the elements: `F16`, `BF16` or `F32`.
    pub dtype: Dtype,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
}

/// A matrix to be rounded.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Its shape.
    pub shape: Shape,
    /// Its elements, all finite.
    pub weights: &'a Matrix,
    /// Rows of each block but the last: a multiple of [`Method::unit_rows`].
    pub block_rows: usize,
    /// What is known of the layer's inputs.
    pub statistics: Option<&'a dyn Inputs>,
    /// Threads to work on. The result does not depend on it.
    pub threads: usize,
}

/// What is known of the inputs of a matrix's rows: of all of them the same, or of each expert's.
pub trait Inputs: fmt::Debug + Sync {
    /// Statistics of the inputs of a row, and the rows that have the same inputs; there may be fewer rows.
    ///
    /// # Errors
    /// Why they cannot be read, or are none.
    fn of_row(&self, row: usize) -> Result<(Range<usize>, Arc<Statistics>)>;
}

impl Inputs for Arc<Statistics> {
    fn of_row(&self, _: usize) -> Result<(Range<usize>, Arc<Statistics>)> {
        Ok((0..usize::MAX, Self::clone(self)))
    }
}

/// What of a tensor can be rounded without the rest of it, to the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// Any [unit](Method::unit_rows) of rows.
    Rows,
    /// A matrix of a stack.
    Matrices,
    /// The whole tensor alone.
    Tensors,
}

/// What a recipe with its parameters does.
pub trait Method: fmt::Debug + Send + Sync {
    /// How a matrix is stored.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if it cannot be stored so.
    fn encoding(&self, shape: Shape) -> Result<Encoding>;

    /// Rows that belong together: a block has a multiple of them.
    fn unit_rows(&self) -> usize {
        1
    }

    /// What can be rounded by itself.
    fn apart(&self) -> Apart {
        Apart::Rows
    }

    /// Whether [`Task::statistics`] are needed.
    fn needs_statistics(&self) -> bool {
        false
    }

    /// Components of each block.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the weights cannot be stored so.
    fn quantize(&self, task: Task<'_>) -> Result<Vec<Parts>>;
}

/// A recipe with its parameters.
#[derive(Debug)]
pub struct Recipe {
    entry: &'static Entry,
    bits: u8,
    /// Each parameter of the entry, in its order.
    values: Vec<Value>,
    method: Box<dyn Method>,
}

impl fmt::Display for Recipe {
    /// The recipe as [`Recipe::parse`] reads it, with all parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.entry, self.bits))?;
        for (i, (param, value)) in self.entry.params.iter().zip(&self.values).enumerate() {
            write!(f, "{}{}={value}", if i == 0 { ':' } else { ',' }, param.name)?;
        }
        Ok(())
    }
}

fn name(entry: &Entry, bits: u8) -> String {
    match &entry.bits {
        None => entry.family.to_owned(),
        Some(_) => format!("{}{bits}", entry.family),
    }
}

impl Recipe {
    /// Reads `NAME` or `NAME:param=value,param=value`. Parameters that are not given have their defaults.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there is no such recipe or parameter, or a value is out of range.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, params) = text.split_once(':').unwrap_or((text, ""));
        let (entry, bits) = find(name.trim())?;
        let values = params::parse(entry.params, params)
            .map_err(|e| invalid(format!("recipe {text:?}: {}", e.message()), e.help()))?;
        Self::new(entry, bits, values)
    }

    fn new(entry: &'static Entry, bits: u8, values: Vec<Value>) -> Result<Self> {
        let method = (entry.build)(bits, &Params { params: entry.params, values: &values })?;
        Ok(Self { entry, bits, values, method })
    }

    /// The same with codes of every number of bits that its family has, ascending; only itself, if it has no such number.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the parameters do not go with some number of bits.
    pub fn with_all_bits(&self) -> Result<Vec<Self>> {
        let bits = self.entry.bits.clone().unwrap_or(self.bits..=self.bits);
        bits.map(|bits| Self::new(self.entry, bits, self.values.clone())).collect()
    }

    /// What it does.
    #[must_use]
    pub fn method(&self) -> &dyn Method {
        &*self.method
    }
}

/// The family and the bits of a recipe's name.
fn find(name: &str) -> Result<(&'static Entry, u8)> {
    let known = |entry: &&'static Entry| match &entry.bits {
        None => (entry.family == name).then_some((*entry, 0)),
        Some(range) => {
            let bits = name.strip_prefix(entry.family)?.parse().ok().filter(|bits| range.contains(bits))?;
            (self::name(entry, bits) == name).then_some((*entry, bits))
        }
    };
    RECIPES.iter().find_map(|entry| known(&entry)).ok_or_else(|| {
        let all: Vec<String> = RECIPES
            .iter()
            .flat_map(|entry| entry.bits.clone().unwrap_or(0..=0).map(|bits| self::name(entry, bits)))
            .collect();
        let is_of = |entry: &&Entry| {
            let bits = name.strip_prefix(entry.family).filter(|_| entry.bits.is_some());
            bits.is_some_and(|bits| bits.bytes().all(|digit| digit.is_ascii_digit()))
        };
        let family = RECIPES.iter().find(is_of);
        let help = match (family, closest(&name.to_lowercase(), all.iter().map(String::as_str))) {
            (Some(family), _) => format!("there are {}", family.names()),
            (None, Some(near)) => format!("did you mean {near:?}?"),
            (None, None) => {
                format!("the recipes are {}", RECIPES.iter().map(Entry::names).collect::<Vec<_>>().join(", "))
            }
        };
        invalid(format!("there is no recipe {name:?}"), Some(&help))
    })
}

/// Something was asked for that cannot be done.
pub(crate) fn invalid(why: impl Into<String>, help: Option<&str>) -> Error {
    let error = Error::new(Code::InvalidArgument, why);
    match help {
        Some(help) => error.with_help(help),
        None => error,
    }
}
