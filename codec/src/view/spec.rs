//! What a manifest says of a view and of the tensors that it comes from.

use std::collections::BTreeMap;

use cmz_format::{Dtype, Result, View};

use super::number::{Float, element};
use super::params::Params;
use super::{malformed, unknown};

/// Type and shape of a tensor that is part of a view.
#[derive(Clone, Copy, Debug)]
pub struct PartSpec<'a> {
    /// Name of the element type.
    pub dtype: &'a str,
    /// Size of each dimension, in elements.
    pub shape: &'a [u64],
}

/// A view with types and shapes of its parts.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    view: &'a View,
    parts: BTreeMap<&'a str, PartSpec<'a>>,
}

/// The dimensions of a view: so many matrices of `rows` rows and `columns` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dims {
    pub(super) stack: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Dims {
    pub(super) fn elements(self) -> usize {
        self.stack * self.rows * self.columns
    }
}

impl<'a> Spec<'a> {
    /// A view whose parts `find` describes; `None` if there is one that it does not know.
    pub fn new(view: &'a View, find: impl Fn(&str) -> Option<PartSpec<'a>>) -> Option<Self> {
        let parts = view.parts.iter().map(|(role, name)| Some((role.as_str(), find(name)?)));
        Some(Self { view, parts: parts.collect::<Option<_>>()? })
    }

    /// Checks that the roles of the parts are those of a layout, and returns its parameters.
    pub(super) fn roles(&self, required: &[&str], optional: &[&str], params: &[&str]) -> Result<Params<'a>> {
        self.check_roles(required, |role| optional.contains(&role), params)
    }

    /// The same, where there may be parts of roles with a number from 0 on behind them: `role.0`, `role.1` …, as many as [`Self::count_of`] is told.
    pub(super) fn numbered_roles(&self, required: &[&str], numbered: &[&str], params: &[&str]) -> Result<Params<'a>> {
        let is_numbered = |role: &str| {
            let split = role.rsplit_once('.').and_then(|(name, i)| Some((name, i, i.parse::<usize>().ok()?)));
            split.is_some_and(|(name, digits, i)| numbered.contains(&name) && digits == i.to_string())
        };
        self.check_roles(required, is_numbered, params)
    }

    /// Checks that there are `count` parts of a numbered role, those of the first numbers.
    pub(super) fn count_of(&self, role: &str, count: usize) -> Result<()> {
        let of_role = |name: &&&str| name.rsplit_once('.').is_some_and(|(name, _)| name == role);
        let found = self.parts.keys().filter(of_role).count();
        if found != count || (0..count).any(|i| !self.has(&format!("{role}.{i}"))) {
            return Err(malformed(format!("a view with {found} parts {role:?}, the layout needs {count}")));
        }
        Ok(())
    }

    fn check_roles(&self, required: &[&str], optional: impl Fn(&str) -> bool, params: &[&str]) -> Result<Params<'a>> {
        if let Some(role) = self.parts.keys().find(|role| !required.contains(role) && !optional(role)) {
            return Err(unknown(format!("a view with a part of unknown role {role:?}")));
        }
        if let Some(role) = required.iter().find(|role| !self.has(role)) {
            return Err(malformed(format!("a view without its part {role:?}")));
        }
        Params::new(params, &self.view.params)
    }

    pub(super) fn has(&self, role: &str) -> bool {
        self.parts.contains_key(role)
    }

    /// Stacked matrices, or one of them.
    pub(super) fn dims(&self) -> Result<Dims> {
        let [stack @ .., rows, columns] = self.view.shape.as_slice() else {
            return Err(malformed("a view of this layout has at least two dimensions"));
        };
        let fits = |n: u64| usize::try_from(n).map_err(|_| malformed("a view that is too large for this machine"));
        let stack = if self.view.shape.contains(&0) { u64::from(!stack.contains(&0)) } else { stack.iter().product() };
        let dims = Dims { stack: fits(stack)?, rows: fits(*rows)?, columns: fits(*columns)? };
        // With room for the bytes of each, also where another dimension is 0.
        let rows = dims.stack.checked_mul(dims.rows).and_then(|n| n.checked_mul(8));
        let product = rows.and_then(|n| n.checked_mul(dims.columns)).and(dims.columns.checked_mul(8));
        product.map(|_| dims).ok_or_else(|| malformed("a view that is too large for this machine"))
    }

    /// One matrix.
    pub(super) fn matrix(&self) -> Result<Dims> {
        if self.view.shape.len() != 2 {
            return Err(malformed("a view of this layout has two dimensions"));
        }
        self.dims()
    }

    /// The type of the elements.
    pub(super) fn float(&self) -> Result<Float> {
        let float = self.view.known_dtype().and_then(element);
        float.ok_or_else(|| unknown(format!("a view of elements of type {:?}", self.view.dtype)))
    }

    /// The size of a dimension of a part.
    pub(super) fn dimension(&self, role: &str, dimension: usize) -> Result<usize> {
        let size = self.parts.get(role).and_then(|part| part.shape.get(dimension));
        let size = size.and_then(|&size| usize::try_from(size).ok());
        size.ok_or_else(|| malformed(format!("part {role:?} has no dimension {dimension}")))
    }

    /// Number of elements of a part.
    pub(super) fn count(&self, role: &str) -> Result<usize> {
        let shape = self.parts.get(role).map_or(&[][..], |part| part.shape);
        let product =
            if shape.contains(&0) { Some(0) } else { shape.iter().try_fold(1, |n: u64, &d| n.checked_mul(d)) };
        let fitting = product.and_then(|n| usize::try_from(n).ok());
        fitting.ok_or_else(|| malformed(format!("part {role:?} is too large for this machine")))
    }

    /// Checks type and shape of a part and returns the type.
    pub(super) fn part(&self, role: &str, dtypes: &[Dtype], shape: &[usize]) -> Result<Dtype> {
        let dtype = self.dtype(role, dtypes)?;
        let found = self.parts.get(role).map_or(&[][..], |part| part.shape);
        if found.iter().copied().eq(shape.iter().map(|&n| n as u64)) {
            return Ok(dtype);
        }
        Err(malformed(format!("part {role:?} has the shape {found:?}, the layout needs {shape:?}")))
    }

    /// Checks type and number of elements of a part and returns the type.
    pub(super) fn part_of(&self, role: &str, dtypes: &[Dtype], elements: usize) -> Result<Dtype> {
        let (dtype, found) = (self.dtype(role, dtypes)?, self.count(role)?);
        if found == elements {
            return Ok(dtype);
        }
        Err(malformed(format!("part {role:?} has {found} elements, the layout needs {elements}")))
    }

    /// Checks type and length of a part that holds bytes of something else.
    pub(super) fn part_of_bytes(&self, role: &str, dtypes: &[Dtype], bytes: usize) -> Result<()> {
        let (dtype, found) = (self.dtype(role, dtypes)?, self.count(role)?);
        match dtype.byte_len(found as u64) {
            Some(len) if len == bytes as u64 => Ok(()),
            _ => Err(malformed(format!("part {role:?} has {found} elements, the layout needs {bytes} bytes of them"))),
        }
    }

    fn dtype(&self, role: &str, dtypes: &[Dtype]) -> Result<Dtype> {
        let name = self.parts.get(role).map_or("", |part| part.dtype);
        let dtype = Dtype::from_name(name).filter(|dtype| dtypes.contains(dtype));
        dtype.ok_or_else(|| unknown(format!("a view whose part {role:?} is of type {name:?}")))
    }
}
