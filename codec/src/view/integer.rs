//! What layouts of packed integers share: an element is a code less the zero point of its group, times the group's scale.

use std::fmt;
use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::params::Params;
use super::spec::Spec;
use super::{Decoder, malformed};

/// Where the codes, zero points and scales of a matrix are. Rows are those of the view.
pub(super) trait Packed: fmt::Debug + Send + Sync {
    fn code(&self, row: usize, column: usize) -> u32;
    /// The same, bit by bit.
    fn code_naive(&self, row: usize, column: usize) -> u32;
    fn zero_point(&self, group: usize, row: usize) -> i32;
    fn scale(&self, group: usize, row: usize) -> f32;
}

/// Which columns share a scale.
#[derive(Debug)]
pub(super) enum Groups {
    /// So many consecutive ones.
    Size(usize),
    /// Those of the same number.
    Index(Vec<u32>),
}

/// How the groups of `columns` columns are told, before the parts are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupSpec {
    /// Columns of a group; `None` if the part `groups` says which group each column belongs to.
    size: Option<usize>,
    /// Number of groups.
    pub(super) count: usize,
}

impl GroupSpec {
    /// The groups by the parameter `group_size` or the part `groups`, of which there is one. `scales` is the dimension of the scales that
    /// counts the groups.
    pub(super) fn new(spec: &Spec<'_>, params: Params<'_>, columns: usize, scales: usize) -> Result<Self> {
        match (params.has("group_size"), spec.has("groups")) {
            (true, false) => {
                let size = params.count("group_size")?;
                Ok(Self { size: Some(size), count: columns.div_ceil(size) })
            }
            (false, true) => {
                spec.part("groups", &[Dtype::I32], &[columns])?;
                Ok(Self { size: None, count: spec.dimension("scales", scales)? })
            }
            _ => Err(malformed("a view whose groups are told by a size or by a part, not by both")),
        }
    }

    /// The groups, given the bytes of the part `groups`.
    pub(super) fn load(self, groups: &[u8]) -> Result<Groups> {
        if let Some(size) = self.size {
            return Ok(Groups::Size(size));
        }
        let index: Vec<u32> = groups.as_chunks().0.iter().map(|&group| u32::from_le_bytes(group)).collect();
        match index.iter().enumerate().find(|&(_, &group)| group as usize >= self.count) {
            Some((column, group)) => {
                let group = group.cast_signed();
                Err(malformed(format!("column {column} is in group {group}, and there are {}", self.count)))
            }
            None => Ok(Groups::Index(index)),
        }
    }
}

impl Groups {
    fn of(&self, column: usize) -> usize {
        match self {
            Self::Size(size) => column / size,
            Self::Index(index) => index[column] as usize,
        }
    }
}

/// A matrix of packed integers.
#[derive(Debug)]
pub(super) struct Integers<P> {
    pub(super) packed: P,
    pub(super) groups: Groups,
    pub(super) group_count: usize,
    pub(super) columns: usize,
}

impl<P: Packed> Decoder for Integers<P> {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let of_groups = || (0..self.group_count).flat_map(|group| rows.clone().map(move |row| (group, row)));
        let scales: Vec<f32> = of_groups().map(|(group, row)| self.packed.scale(group, row)).collect();
        let zeros: Vec<i32> = of_groups().map(|(group, row)| self.packed.zero_point(group, row)).collect();
        // Layouts that pack columns of codes have the rows side by side.
        for column in 0..self.columns {
            let first = self.groups.of(column) * rows.len();
            let (scales, zeros) = (&scales[first..][..rows.len()], &zeros[first..][..rows.len()]);
            let column_of = values[column..].iter_mut().step_by(self.columns);
            for (((value, row), scale), zero) in column_of.zip(rows.clone()).zip(scales).zip(zeros) {
                *value = (self.packed.code(row, column).cast_signed() - zero) as f32 * scale;
            }
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let group = self.groups.of(column);
        let code = self.packed.code_naive(row, column).cast_signed();
        (code - self.packed.zero_point(group, row)) as f32 * self.packed.scale(group, row)
    }
}

/// 32-bit words in memory.
#[derive(Debug)]
pub(super) struct Words(pub(super) Vec<u8>);

impl Words {
    #[inline]
    pub(super) fn get(&self, i: usize) -> u32 {
        u32::from_le_bytes(self.0.as_chunks().0[i])
    }

    /// The `bits` bits from bit `at` on, where word `i` of the run of bits is word `first + i * stride` here.
    #[inline]
    pub(super) fn field(&self, first: usize, stride: usize, at: usize, bits: u32) -> u32 {
        let (word, shift) = (at / 32, (at % 32) as u32);
        let low = self.get(first + word * stride) >> shift;
        let high = if shift + bits > 32 { self.get(first + (word + 1) * stride) << (32 - shift) } else { 0 };
        (low | high) & (u32::MAX >> (32 - bits))
    }

    /// The same, bit by bit.
    pub(super) fn field_naive(&self, first: usize, stride: usize, at: usize, bits: u32) -> u32 {
        let bit = |at: usize| self.get(first + at / 32 * stride) >> (at % 32) & 1;
        (0..bits).map(|i| bit(at + i as usize) << i).sum()
    }
}
