//! A matrix as the kernels of products read it, from blocks that the CPU has decoded.

use std::collections::HashMap;
use std::ops::Range;

use cmz_codec::device::{
    DecodedArray, DecodedComponent, DeviceAffine, DeviceBlockScale, DeviceCodebook, DeviceFloat, DeviceGroups,
    DeviceMode, DeviceNode, DeviceShift, DeviceSparse,
};
use cmz_codec::{Archive, Code, Error, Result, pipeline};
use half::f16;

use super::numbers::{entries, number, of_byte};
use super::{GRANULE, Product, Rows, Weights};

/// A matrix, or the rows of a block.
pub(super) struct Layout {
    pub(super) codes: Vec<u8>,
    pub(super) pairs: Vec<u8>,
    /// The numbers of tables, 2 to the power of the codes' bits each.
    pub(super) tables: Vec<f32>,
    /// The table of each row, where it has one.
    pub(super) row_tables: Vec<u32>,
    /// Columns and values that are added to the rows, in order.
    pub(super) outliers: Vec<(u32, f32)>,
    /// Where those of each row begin, and where the last ones end; empty if there are none.
    pub(super) starts: Vec<u32>,
    /// The column of `x` that each column takes; empty if its own.
    pub(super) order: Vec<u16>,
    /// Without addresses.
    pub(super) product: Product,
}

impl Layout {
    pub(super) fn read(archive: &Archive, rows: &Rows, threads: usize) -> Result<Self> {
        let mut layout: Option<Self> = None;
        let mut tables = HashMap::new();
        pipeline::ordered(
            threads,
            rows.blocks.clone(),
            |ordinal, scratch| match archive.read_components(rows.tensor, ordinal, scratch)? {
                Some(array) => Ok(Self::of_array(&array, rows.columns)?.rows_of(rows.of_block(ordinal))),
                None => Err(refused("is stored by an encoding that has no product")),
            },
            |mut block| {
                block.share_tables(&mut tables, layout.as_ref().map_or(0, |layout| layout.tables.len()));
                match &mut layout {
                    None => {
                        layout = Some(block);
                        Ok(())
                    }
                    Some(layout) => layout.append(block),
                }
            },
        )?;
        layout.ok_or_else(|| refused("has no elements"))
    }

    /// Some of its rows.
    fn rows_of(mut self, wanted: Range<usize>) -> Self {
        let rows = self.product.rows as usize;
        if wanted == (0..rows) {
            return self;
        }
        let of = |len: usize| len / rows * wanted.start..len / rows * wanted.end;
        self.codes = self.codes[of(self.codes.len())].to_vec();
        self.pairs = self.pairs[of(self.pairs.len())].to_vec();
        self.row_tables = self.row_tables[of(self.row_tables.len())].to_vec();
        if !self.starts.is_empty() {
            let starts = &self.starts[wanted.start..=wanted.end];
            let (first, end) = (starts[0], starts[wanted.len()]);
            self.outliers = self.outliers[first as usize..end as usize].to_vec();
            self.starts = starts.iter().map(|start| start - first).collect();
        }
        self.product.rows = wanted.len() as u32;
        self
    }

    /// Leaves out the tables that there have been before, `len` numbers of them, and counts on from those.
    fn share_tables(&mut self, known: &mut HashMap<Vec<u32>, u32>, len: usize) {
        let entries = (self.product.dim as usize) << self.product.bits;
        let mut new = Vec::new();
        let numbers: Vec<u32> = self
            .tables
            .chunks_exact(entries)
            .map(|table| {
                let next = ((len + new.len()) / entries) as u32;
                let number = *known.entry(table.iter().map(|x| x.to_bits()).collect()).or_insert(next);
                if number == next {
                    new.extend_from_slice(table);
                }
                number
            })
            .collect();
        self.tables = new;
        self.row_tables.iter_mut().for_each(|table| *table = numbers[*table as usize]);
        if matches!(self.product.weights, Weights::Tables | Weights::VectorTables) {
            for [_, table] in self.pairs.as_chunks_mut::<4>().0.as_chunks_mut::<2>().0 {
                *table = numbers[u32::from_le_bytes(*table) as usize].to_le_bytes();
            }
        }
    }

    /// Puts the rows of another block behind these.
    fn append(&mut self, block: Self) -> Result<()> {
        let kind = |p: &Product| (p.group, p.bits, p.weights);
        if kind(&self.product) != kind(&block.product) {
            return Err(refused("has groups that are not the same in all blocks"));
        }
        if self.order != block.order {
            return Err(refused("has columns whose order is not the same in all blocks"));
        }
        self.codes.extend(block.codes);
        self.pairs.extend(block.pairs);
        self.tables.extend(block.tables);
        self.row_tables.extend(block.row_tables);
        let before = self.outliers.len() as u32;
        self.starts.pop();
        self.starts.extend(block.starts.iter().map(|start| before + start));
        self.outliers.extend(block.outliers);
        self.product.rows += block.product.rows;
        Ok(())
    }

    fn of_array(array: &DecodedArray, columns: u32) -> Result<Self> {
        let inner = match array.components.first() {
            Some(DecodedComponent::Array(inner)) => Some(&**inner),
            _ => None,
        };
        let parts: Vec<&[u8]> = array.components.iter().map(bytes).collect();
        match (&array.node, inner) {
            (DeviceNode::Affine(affine), None) => {
                let (weights, pair_of) = linear(affine, &parts[1..]);
                Self::new(parts[0], affine.bits, columns, group_of(affine.groups, columns), weights, |i| {
                    pair_of(affine.groups.of(i) as usize)
                })
            }
            (DeviceNode::Ternary(ternary), None) => {
                if parts[0].iter().any(|&symbol| symbol > 2) {
                    return Err(Error::new(Code::BadStream, "a symbol that is not ternary"));
                }
                let numbers = [parts[1], parts[2]].map(|array| array.as_chunks::<2>().0);
                let group = group_of(ternary.groups, columns);
                Self::new(parts[0], 2, columns, group, Weights::Ternary, |i| {
                    let group = ternary.groups.of(i) as usize;
                    [numbers[0][group], numbers[1][group]].concat()
                })
            }
            (DeviceNode::Codebook(codebook), None) => {
                Self::looked_up(codebook, parts[0], entries(codebook, &parts, false), None, columns)
            }
            (DeviceNode::BlockScale(scheme), inner) => Self::scaled(scheme, inner, &parts, columns),
            (DeviceNode::Sparse(sparse), Some(inner)) => {
                let mut layout = Self::of_array(inner, columns)?;
                let values = parts.last().copied().unwrap_or_default();
                layout.put_outliers(sparse, &array.places, values)?;
                Ok(layout)
            }
            (DeviceNode::Permute(permute), Some(inner)) if permute.row == columns => {
                let mut layout = Self::of_array(inner, columns)?;
                if !layout.order.is_empty() {
                    return Err(refused("has columns in two orders"));
                }
                layout.order = parts[1].as_chunks().0.iter().map(|&column| u16::from_le_bytes(column)).collect();
                for (column, _) in &mut layout.outliers {
                    *column = layout.order[*column as usize].into();
                }
                Ok(layout)
            }
            _ => Err(refused("is stored by an encoding that has no product")),
        }
    }

    /// Values of eight bits, or of a codebook, with scales.
    fn scaled(scheme: &DeviceBlockScale, inner: Option<&DecodedArray>, parts: &[&[u8]], columns: u32) -> Result<Self> {
        let scale_of = |i: u64| {
            let scale = number(parts[1], scheme.scale, scheme.groups.of(i) as usize);
            if scheme.divide { 1.0 / scale } else { scale }
        };
        let scales: Scales<'_> = (scheme.groups, &scale_of);
        match inner {
            Some(DecodedArray { node: DeviceNode::Codebook(codebook), components, .. }) => {
                let parts: Vec<&[u8]> = components.iter().map(bytes).collect();
                Self::looked_up(codebook, parts[0], entries(codebook, &parts, true), Some(scales), columns)
            }
            None if matches!(scheme.values, DeviceFloat::E4M3 | DeviceFloat::E5M2) => {
                // Every value is its own index.
                let elements = u32::try_from(parts[0].len()).map_err(|_| refused("has blocks that are too long"))?;
                let codebook = DeviceCodebook {
                    element: scheme.values,
                    table: scheme.values,
                    bits: 8,
                    binary: false,
                    dim: 1,
                    row: columns,
                    vectors: elements,
                    groups: DeviceGroups { row: elements, rows: 1, columns: elements },
                };
                let table = (0..=u8::MAX).map(|byte| of_byte(byte, scheme.values)).collect();
                Self::looked_up(&codebook, parts[0], table, Some(scales), columns)
            }
            _ => Err(refused("has scaled values that are neither of eight bits nor of a codebook")),
        }
    }

    /// Indices of tables, with scales or without.
    fn looked_up(
        codebook: &DeviceCodebook,
        indices: &[u8],
        tables: Vec<f32>,
        scales: Option<Scales<'_>>,
        columns: u32,
    ) -> Result<Self> {
        if codebook.dim != 1 {
            return Self::vectors(codebook, indices, tables, scales, columns);
        }
        let of_tables = group_of(codebook.groups, columns);
        let of_scales = scales.map_or(columns, |(groups, _)| group_of(groups, columns));
        let group = within_both(of_tables, of_scales, columns);
        let scale = |i: u64| scales.map_or(1.0, |(_, scale_of)| scale_of(i)).to_le_bytes();
        let table = |i: u64| codebook.groups.of(i) as u32;
        let mut layout = if of_tables >= columns {
            Self::new(indices, codebook.bits, columns, group, Weights::RowTables, |i| scale(i).to_vec())?
        } else {
            let pair = |i| [scale(i), table(i).to_le_bytes()].concat();
            Self::new(indices, codebook.bits, columns, group, Weights::Tables, pair)?
        };
        if layout.product.weights == Weights::RowTables {
            layout.row_tables =
                (0..u64::from(layout.product.rows)).map(|row| table(row * u64::from(columns))).collect();
        }
        layout.tables = tables;
        Ok(layout)
    }

    /// Indices of tables whose entries are vectors, with scales or without.
    fn vectors(
        codebook: &DeviceCodebook,
        indices: &[u8],
        tables: Vec<f32>,
        scales: Option<Scales<'_>>,
        columns: u32,
    ) -> Result<Self> {
        let (dim, of_row) = (codebook.dim, columns.div_ceil(codebook.dim));
        let of_scales = scales.map_or(columns, |(groups, _)| group_of(groups, columns));
        if codebook.row != columns || of_scales < columns && !of_scales.is_multiple_of(dim) {
            return Err(refused("has vectors of a codebook that are cut by its rows or its scales"));
        }
        let group = within_both(group_of(codebook.groups, of_row), of_scales.div_ceil(dim), of_row);
        let mut layout = Self::new(indices, codebook.bits, of_row, group, Weights::VectorTables, |i| {
            let (row, vector) = (i / u64::from(of_row), i % u64::from(of_row));
            let first = row * u64::from(columns) + vector * u64::from(dim);
            let scale = scales.map_or(1.0, |(_, scale_of)| scale_of(first));
            [scale.to_le_bytes(), (codebook.groups.of(i) as u32).to_le_bytes()].concat()
        })?;
        (layout.product.columns, layout.product.dim) = (columns, dim);
        layout.tables = tables;
        Ok(layout)
    }

    /// Packs the codes of whole rows, and the pairs of the groups of every row; `pair_of` gives that of an element.
    fn new(
        codes: &[u8],
        bits: u8,
        columns: u32,
        group: u32,
        weights: Weights,
        pair_of: impl Fn(u64) -> Vec<u8>,
    ) -> Result<Self> {
        let row = columns as usize;
        if !codes.len().is_multiple_of(row) {
            return Err(refused("has blocks that end inside a row"));
        }
        let code_row = (row.div_ceil(GRANULE) * usize::from(bits)).next_multiple_of(8);
        let (mut packed, mut pairs) = (Vec::with_capacity(codes.len() / row * code_row), Vec::new());
        for (number, codes) in codes.chunks_exact(row).enumerate() {
            for granule in codes.chunks(GRANULE) {
                let together = granule.iter().rev().fold(0u64, |sum, &code| sum << bits | u64::from(code));
                packed.extend_from_slice(&together.to_le_bytes()[..usize::from(bits)]);
            }
            packed.resize((number + 1) * code_row, 0);
            for column in (0..row).step_by(group as usize) {
                pairs.extend(pair_of((number * row + column) as u64));
            }
        }
        let product = Product {
            by_group: u64::MAX / u64::from(group),
            code_row: code_row as u64,
            rows: (codes.len() / row) as u32,
            columns,
            group,
            groups: columns.div_ceil(group),
            bits: bits.into(),
            weights,
            ..Product::NONE
        };
        let (tables, row_tables, outliers) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { codes: packed, pairs, tables, row_tables, outliers, starts: Vec::new(), order: Vec::new(), product })
    }

    /// Values that are added, or by which those that come in a weight's stead differ from it.
    fn put_outliers(&mut self, sparse: &DeviceSparse, places: &[u32], values: &[u8]) -> Result<()> {
        if !self.starts.is_empty() {
            return Err(refused("has outliers on top of outliers"));
        }
        let (rows, columns) = (self.product.rows as usize, self.product.columns);
        let mut inverse = vec![0u32; self.order.len()];
        self.order.iter().enumerate().for_each(|(i, &column)| inverse[usize::from(column)] = i as u32);
        self.starts = vec![0; rows + 1];
        for (i, &place) in places.iter().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let value = number(values, sparse.values, i);
            let value = if sparse.mode == DeviceMode::Replace {
                let stored = inverse.get(column as usize).copied().unwrap_or(column);
                (f64::from(value) - self.weight(row as usize, stored as usize)) as f32
            } else {
                value
            };
            self.outliers.push((column, value));
            self.starts[row as usize + 1] += 1;
        }
        for row in 0..rows {
            self.starts[row + 1] += self.starts[row];
        }
        Ok(())
    }

    /// What the kernels take for the weight of a column as it is stored.
    fn weight(&self, row: usize, column: usize) -> f64 {
        let Product { bits, group, groups, dim, .. } = self.product;
        let (at, within) = (column / dim as usize, column % dim as usize);
        let bit = at * bits as usize;
        let codes = &self.codes[row * self.product.code_row as usize..];
        let wide = u16::from_le_bytes([codes[bit / 8], codes.get(bit / 8 + 1).copied().unwrap_or(0)]);
        let code = u32::from(wide >> (bit % 8)) & ((1 << bits) - 1);
        let pair = row * groups as usize + at / group as usize;
        let single = |i| f64::from(number(&self.pairs, DeviceFloat::F32, i));
        let half = |i| f64::from(number(&self.pairs, DeviceFloat::F16, i));
        let table = |table: usize| f64::from(self.tables[((table << bits) + code as usize) * dim as usize + within]);
        let moved = f64::from(code) - f64::from(1u32 << bits >> 1);
        let brain = |i| f64::from(number(&self.pairs, DeviceFloat::Bf16, i));
        match self.product.weights {
            Weights::Linear => single(2 * pair) * moved + single(2 * pair + 1),
            Weights::LinearHalf => half(2 * pair) * (f64::from(code) - half(2 * pair + 1)),
            Weights::Ternary => [0.0, brain(2 * pair), brain(2 * pair + 1)][code as usize],
            Weights::RowTables => single(pair) * table(self.row_tables[row] as usize),
            Weights::Tables | Weights::VectorTables => {
                let number = u32::from_le_bytes(self.pairs.as_chunks().0[2 * pair + 1]);
                single(2 * pair) * table(number as usize)
            }
        }
    }
}

/// The groups of scales, and the scale of an element.
type Scales<'a> = (DeviceGroups, &'a dyn Fn(u64) -> f32);

fn bytes(component: &DecodedComponent) -> &[u8] {
    match component {
        DecodedComponent::Bytes(bytes) => bytes,
        DecodedComponent::Array(_) => &[],
    }
}

/// Columns of a group of a row of the matrix. Where its rows are not those that the groups are counted in, some of a row are of one group.
pub(super) fn group_of(groups: DeviceGroups, columns: u32) -> u32 {
    if groups.row == columns { groups.columns } else { common_divisor(columns, groups.columns) }
}

/// Columns of groups that lie in groups of `a` and in groups of `b` columns, in rows of `row`.
const fn within_both(a: u32, b: u32, row: u32) -> u32 {
    match (a >= row, b >= row) {
        (true, _) => b,
        (false, true) => a,
        (false, false) => common_divisor(a, b),
    }
}

/// How the numbers of a group are laid out, and those of each group.
fn linear<'a>(affine: &'a DeviceAffine, numbers: &'a [&'a [u8]]) -> (Weights, impl Fn(usize) -> Vec<u8> + 'a) {
    let middle = f32::from(1u16 << (affine.bits - 1));
    let in_half = affine.half || affine.scale == DeviceFloat::F16;
    let weights = match affine.shift {
        DeviceShift::Bias => Weights::Linear,
        _ if in_half => Weights::LinearHalf,
        _ => Weights::Linear,
    };
    let float = move |component: usize, i: usize| {
        let x = number(numbers[component], affine.scale, i);
        if affine.half { f16::from_f32(x).to_f32() } else { x }
    };
    let pair_of = move |i: usize| {
        let scale = float(0, i);
        let zero = match affine.shift {
            DeviceShift::Middle => middle,
            DeviceShift::ZeroPoint => numbers[1][i].into(),
            DeviceShift::Zero => float(1, i),
            DeviceShift::Bias => 0.0,
        };
        if weights == Weights::LinearHalf {
            return [scale, zero].map(|x| f16::from_f32(x).to_le_bytes()).concat();
        }
        let of_code = f64::from(scale) * f64::from(middle - zero);
        let bias = if affine.shift == DeviceShift::Bias { float(1, i).into() } else { 0.0 };
        [scale, (of_code + bias) as f32].map(f32::to_le_bytes).concat()
    };
    (weights, pair_of)
}

/// Euclid's.
const fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

pub(super) fn refused(why: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("the tensor {why}"))
        .with_help("decode it, and multiply the decoded matrix")
}
