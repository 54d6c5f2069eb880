//! `sparse`: values at some places of an array. See `SPEC.md` in this folder.

use arrayvec::ArrayVec;
use cmz_format::Result;
use serde_json::{Map, Value};

use super::number::{ARITHMETICS, VALUES, with_number};
pub use super::number::{Arithmetic, Float};
use super::params::{Params, entries, name_of};
use super::versions::Version;
use super::{Array, Component, Components, Element, Encoding};
use crate::device::DeviceNode;
use crate::stream::{StreamError, Width};

mod decode;
mod device;
mod places;
#[cfg(test)]
mod tests;

use self::places::Places;

/// The `sparse` encoding with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sparse {
    mode: Mode,
    index: Index,
    /// Type of the values.
    values: Float,
}

/// What a value does to the element at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is added, in this precision.
    Add(Arithmetic),
    /// It comes in its stead.
    Replace,
    /// It is the element; all others are zeros.
    Fill,
}

/// How the places are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// A bit for each element.
    Bitmap,
    /// Their number in each row, and the distance of each from the one before it.
    Rows,
    /// A fixed number in each run of a row.
    NOfM {
        /// Places in a run.
        n: u8,
        /// Elements of a run: 2 to 256.
        m: u16,
    },
}

/// Outliers that come in an element's stead.
pub static REPLACE: Sparse = Sparse::new(Mode::Replace, Index::Rows, Float::F16);
/// Outliers that are added, as SpQR's kernels do.
pub static ADD: Sparse = Sparse::new(Mode::Add(Arithmetic::F16), Index::Bitmap, Float::F16);
/// Two of four.
pub static TWO_OF_FOUR: Sparse = Sparse::new(Mode::Fill, Index::NOfM { n: 2, m: 4 }, Float::F16);
/// Three of seven, which divide nothing, that are added.
pub static THREE_OF_SEVEN: Sparse = Sparse::new(Mode::Add(Arithmetic::F32), Index::NOfM { n: 3, m: 7 }, Float::F32);

const MODES: [(&str, Mode); 3] =
    [("add", Mode::Add(Arithmetic::F32)), ("replace", Mode::Replace), ("fill", Mode::Fill)];
const INDICES: [(&str, Index); 3] =
    [("bitmap", Index::Bitmap), ("rows", Index::Rows), ("n_of_m", Index::NOfM { n: 1, m: 2 })];

impl Sparse {
    /// Values of a type, and what they do where.
    ///
    /// # Panics
    /// If runs have not 2 to 256 elements, or not at least one and fewer values than that, or the values are `F8_E8M0`.
    #[must_use]
    pub const fn new(mode: Mode, index: Index, values: Float) -> Self {
        if let Index::NOfM { n, m } = index {
            assert!(m >= 2 && m <= 256, "a run has 2 to 256 elements");
            assert!(n >= 1 && (n as u16) < m, "a run has fewer values than elements");
        }
        assert!(!matches!(values, Float::E8M0), "values have a mantissa");
        Self { mode, index, values }
    }

    /// The element type and where values can be; `None` if this is no array of elements that values can be.
    fn shape(self, array: Array) -> Option<(Float, Places)> {
        let element = Float::of_value(array.element)?;
        let elements = array.byte_len / element.len();
        array.byte_len.is_multiple_of(element.len()).then(|| (element, Places::new(self.index, elements, array.row)))
    }

    /// Number of components that are before those that tell the places.
    fn bases(self) -> usize {
        usize::from(self.mode != Mode::Fill)
    }
}

impl Encoding for Sparse {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn params(&self) -> Map<String, Value> {
        let kind = |index: &Index| {
            INDICES.iter().position(|(_, i)| std::mem::discriminant(i) == std::mem::discriminant(index))
        };
        let mode = match self.mode {
            Mode::Add(_) => Mode::Add(Arithmetic::F32),
            mode => mode,
        };
        let mut params = entries([
            ("mode", name_of(&MODES, &mode)),
            ("index", kind(&self.index).map_or("", |i| INDICES[i].0).into()),
            ("values", name_of(&VALUES, &self.values)),
        ]);
        if let Mode::Add(arithmetic) = self.mode {
            params.insert("arithmetic".to_owned(), name_of(&ARITHMETICS, &arithmetic));
        }
        if let Index::NOfM { n, m } = self.index {
            params.extend(entries([("n", n.into()), ("m", m.into())]));
        }
        params
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Option<Box<dyn Encoding>>> {
        let params = Params::new(self.name(), &["mode", "index", "values", "arithmetic", "n", "m"], params)?;
        let mode = match params.one_of("mode", &MODES)? {
            Mode::Add(_) => Mode::Add(params.one_of("arithmetic", &ARITHMETICS)?),
            mode => mode,
        };
        let index = match params.one_of("index", &INDICES)? {
            Index::NOfM { .. } => {
                let m = params.integer("m", 2..=256)?;
                Index::NOfM { n: params.integer("n", 1..=m - 1)? as u8, m: m as u16 }
            }
            index => index,
        };
        if !matches!(mode, Mode::Add(_)) {
            params.absent("arithmetic")?;
        }
        if !matches!(index, Index::NOfM { .. }) {
            params.absent("n")?;
            params.absent("m")?;
        }
        Ok(Some(Box::new(Self { mode, index, values: params.one_of("values", &VALUES)? })))
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn components(&self, array: Array) -> Option<Components> {
        let (_, places) = self.shape(array)?;
        Some(self.components_of(array, places.components(), places.least()))
    }

    fn longest_components(&self, array: Array) -> Option<Components> {
        let (_, places) = self.shape(array)?;
        Some(self.components_of(array, places.longest_components(), places.most()))
    }

    fn component_array(&self, array: Array, number: usize, before: &[&[u8]]) -> Result<Array, StreamError> {
        let components = self.components(array).ok_or(StreamError::Length)?;
        let (_, places) = self.shape(array).ok_or(StreamError::Length)?;
        match components[number].name {
            "deltas" => Ok(places.deltas(places.count(before[self.bases()])?)),
            "values" => Ok(self.values_array(places.count(before[self.bases()])?)),
            _ => Ok(components[number].array),
        }
    }

    fn split(&self, array: Array, data: &[u8], components: &mut [&mut [u8]]) {
        let (element, places) = self.shape(array).expect("components() has a rule for this array");
        let mut rest = components;
        if self.mode != Mode::Fill {
            let (base, others) = rest.split_first_mut().expect("components() has a base");
            base.copy_from_slice(data);
            rest = others;
        }
        // No place at all, unless some are fixed in number.
        let (index, others) = rest.split_first_mut().expect("components() has an index");
        index.fill(0);
        if let ([values], Index::NOfM { .. }) = (others, self.index) {
            let mut next = 0;
            places.choose(
                index,
                |i| element.get(data, i).abs(),
                |i| {
                    let kept = if let Mode::Add(_) = self.mode { 0.0 } else { element.get(data, i) };
                    self.values.set(values, next, kept.into());
                    next += 1;
                },
            );
        }
    }

    fn join(&self, array: Array, components: &[&[u8]], data: &mut [u8]) -> Result<(), StreamError> {
        let (element, places) = self.shape(array).ok_or(StreamError::Length)?;
        let (index, values) = (&components[self.bases()..components.len() - 1], components[components.len() - 1]);
        match self.mode {
            Mode::Fill => {}
            Mode::Add(_) | Mode::Replace => data.copy_from_slice(components[0]),
        }
        let mut numbers = vec![0.0; values.len() / self.values.len()];
        decode::widen(Version::best(), self.values, values, &mut numbers);
        with_number!(element, T => decode::join::<T>(self.mode, element, &places, index, &numbers, data))
    }

    fn device_node(&self, array: Array) -> Option<DeviceNode> {
        self.node(array)
    }

    fn told_len(&self, array: Array, number: usize) -> Option<usize> {
        let (_, places) = self.shape(array)?;
        (number == self.bases()).then(|| places.told_len()).flatten()
    }

    fn tell(&self, array: Array, _: usize, index: &[u8]) -> Result<Vec<u8>, StreamError> {
        let (_, places) = self.shape(array).ok_or(StreamError::Length)?;
        places.tell(index)
    }

    fn places(&self, array: Array, components: &[&[u8]]) -> Result<Vec<u32>, StreamError> {
        let (_, places) = self.shape(array).ok_or(StreamError::Length)?;
        let mut all = Vec::new();
        places.for_each(&components[self.bases()..components.len() - 1], |i| all.push(i as u32))?;
        Ok(all)
    }
}

impl Sparse {
    fn components_of(&self, array: Array, index: ArrayVec<(&'static str, Array), 2>, values: usize) -> Components {
        let base = (self.mode != Mode::Fill).then_some(("base", array));
        let values = ("values", self.values_array(values));
        let all = base.into_iter().chain(index).chain([values]);
        all.map(|(name, array)| Component { name, array }).collect()
    }

    fn values_array(self, count: usize) -> Array {
        Array::vector(Element::Dtype(self.values.dtype()), count * self.values.len())
    }
}

/// Symbols of 16 bits.
const SIXTEEN: Width = Width::new(16);
