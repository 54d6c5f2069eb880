//! The parameters of the kernels that put arrays together, byte by byte: the structures of their `decode.cu`.

use cmz_codec::device::{
    DeviceAffine, DeviceBlockScale, DeviceCodebook, DeviceIndex, DeviceLowRank, DeviceMode, DevicePermute, DeviceSparse,
};

use crate::job::{Groups, Job};

/// For the kernels' `divide`.
fn put_divisor(divisor: u32, out: &mut Vec<u8>) {
    out.extend((u64::MAX / u64::from(divisor.max(1))).to_le_bytes());
}

fn put(numbers: &[u32], out: &mut Vec<u8>) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

/// The parameters of `cmz_affine`, for `elements` elements.
pub(crate) fn affine(affine: &DeviceAffine, elements: u32) -> Vec<u8> {
    let mut table = Vec::new();
    Groups::of(affine.groups).put(&mut table);
    put(&[affine.groups.count(elements) as u32], &mut table);
    table.extend([
        affine.element as u8,
        affine.scale as u8,
        affine.shift as u8,
        affine.bits | u8::from(affine.half) << 4,
    ]);
    table
}

/// The parameters of `cmz_block_scale`, for `elements` elements.
pub(crate) fn block_scale(scheme: &DeviceBlockScale, elements: u32) -> Vec<u8> {
    let mut table = Vec::new();
    Groups::of(scheme.groups).put(&mut table);
    put(&[scheme.groups.count(elements) as u32], &mut table);
    table.extend([scheme.element as u8, scheme.values as u8, scheme.scale as u8, scheme.divide.into()]);
    table
}

/// The parameters of `cmz_codebook`.
pub(crate) fn codebook(codebook: &DeviceCodebook) -> Vec<u8> {
    let &DeviceCodebook { dim, row, vectors, bits, .. } = codebook;
    let count = codebook.groups.count(vectors) as u32;
    // All the tables of a block have no more than 2^24 bytes.
    let entries = (count << bits) * dim;
    let numbers = if codebook.binary { count * u32::from(bits) } else { entries };
    let mut table = Vec::new();
    Groups::of(codebook.groups).put(&mut table);
    put_divisor(row, &mut table);
    put_divisor(dim, &mut table);
    put(&[row, row.div_ceil(dim), dim, vectors, count, numbers], &mut table);
    table.extend([codebook.element as u8, codebook.table as u8, bits, codebook.binary.into()]);
    put(&[entries], &mut table);
    table
}

/// The parameters of `cmz_permute`; where each column comes from, as it has been told, follows.
pub(crate) fn permute(permute: &DevicePermute, told: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    put_divisor(permute.row, &mut table);
    put(&[permute.row, permute.element_len], &mut table);
    table.extend(told);
    table
}

/// The parameters of `cmz_low_rank`, for `elements` elements.
pub(crate) fn low_rank(product: &DeviceLowRank, elements: u32) -> Vec<u8> {
    let mut table = Vec::new();
    put_divisor(product.row, &mut table);
    put(&[product.row, elements.div_ceil(product.row.max(1)), product.rank], &mut table);
    table.extend([product.element as u8, product.factors as u8, 0, 0]);
    table
}

/// What `cmz_sparse` counts its work in: elements, pieces of rows, or runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    row: u32,
    unit: u32,
    of_row: u32,
    elements: u32,
}

impl Units {
    pub(crate) fn new(sparse: &DeviceSparse, elements: u32) -> Self {
        let row = sparse.row.max(1);
        let unit = match sparse.index {
            DeviceIndex::Bitmap => 1,
            DeviceIndex::Rows { piece } => piece,
            DeviceIndex::NOfM { m, .. } => m,
        };
        Self { row, unit, of_row: row.div_ceil(unit), elements }
    }

    /// The unit of an element, or their number.
    fn of(&self, element: u32) -> u32 {
        let (row, column) = (element / self.row, element % self.row);
        row * self.of_row + column.div_ceil(self.unit)
    }

    /// Sets what a job decodes: its elements are units, those of a tile together about 4096 elements.
    pub(crate) fn put(&self, job: &mut Job) {
        let units = self.of(self.elements);
        let of_tile = (4096 * u64::from(units)).div_ceil(u64::from(self.elements.max(1))).next_power_of_two();
        job.tile_log = of_tile.ilog2() as u8;
        job.elements = units;
        let first = job.begin / self.row * self.of_row + job.begin % self.row / self.unit;
        (job.begin, job.end) = if job.begin < job.end { (first, self.of(job.end)) } else { (0, 0) };
    }
}

/// The parameters of `cmz_sparse`, for `count` values, of which those of the elements of `job` are wanted; what has been told follows.
pub(crate) fn sparse(sparse: &DeviceSparse, job: &Job, count: u32, told: &[u8]) -> Vec<u8> {
    let units = Units::new(sparse, job.elements);
    let (index, of_unit) = match sparse.index {
        DeviceIndex::Bitmap => (0, 0),
        DeviceIndex::Rows { .. } => (1, 0),
        DeviceIndex::NOfM { n, .. } => (2, n),
    };
    let of_row = units.row / units.unit * of_unit + of_unit.min(units.row % units.unit);
    let mode = match sparse.mode {
        DeviceMode::Replace | DeviceMode::Fill => 0,
        DeviceMode::Add => 1,
        DeviceMode::AddHalf => 2,
    };
    let mut table = Vec::new();
    put_divisor(units.of_row, &mut table);
    let numbers = [units.row, units.of_row, units.unit, job.elements, job.begin, job.end, count, of_row, of_unit];
    put(&numbers, &mut table);
    table.extend([sparse.element as u8, sparse.values as u8, mode, index]);
    table.extend(told);
    table
}
