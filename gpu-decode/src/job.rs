//! What the kernels are told: the structures of `kernels/job.cuh`, byte by byte.

use std::mem::{offset_of, size_of};

use cmz_codec::device::{DeviceFloat, DeviceGroups, DeviceJoin, DeviceTernary};
use cudarc::driver::DeviceRepr;

use crate::kernel::Kernel;

/// Threads of a CTA.
pub(crate) const THREADS: u32 = 256;
/// Tiles that a CTA decodes.
pub(crate) const TILES_OF_SPAN: u32 = THREADS / 32;
/// Components that are joined with the first one, at most.
pub(crate) const OTHERS: usize = 3;

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    Image = 0,
    Scratch = 1,
    Output = 2,
}

/// A component whose symbols can be read at any index, or a stream.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Plane {
    /// In bytes, from its place.
    pub(crate) offset: u64,
    pub(crate) place: Place,
    /// Bits from one symbol to the next; 0 if all are `constant`.
    pub(crate) stride: u8,
    pub(crate) constant: u16,
    /// In bytes.
    pub(crate) length: u32,
}

impl Plane {
    pub(crate) const NONE: Self = Self { offset: 0, place: Place::Image, stride: 0, constant: 0, length: 0 };
}

/// One array to decode.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Job {
    pub(crate) first: Plane,
    pub(crate) others: [Plane; OTHERS],
    pub(crate) out: u64,
    pub(crate) table: u64,
    pub(crate) table_len: u32,
    pub(crate) tiles_at: u32,
    pub(crate) payload_words: u32,
    pub(crate) elements: u32,
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) out_place: Place,
    pub(crate) join: Join,
    pub(crate) width: u8,
    pub(crate) tile_log: u8,
    pub(crate) status: u32,
    /// Of [`Join::ternary`].
    pub(crate) ternary: Ternary,
}

/// How elements are put together: one of [`DeviceJoin`], or [`Self::ternary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Join(u8);

impl Join {
    /// 0 and the two numbers of a group, as elements of this type.
    pub(crate) const fn ternary(element: DeviceFloat) -> Self {
        Self(9 + element as u8)
    }

    /// What `ternary_matvec.cu` has in its place: how symbols are coded. `None` if it does not read that code.
    pub(crate) const fn symbol_code(kernel: Kernel) -> Option<Self> {
        match kernel {
            Kernel::Direct => Some(Self(0)),
            Kernel::Tunstall => Some(Self(1)),
            Kernel::Dictionary => Some(Self(2)),
            Kernel::Trits => Some(Self(3)),
            _ => None,
        }
    }
}

impl From<DeviceJoin> for Join {
    fn from(join: DeviceJoin) -> Self {
        Self(join as u8)
    }
}

/// The groups of an array as the kernels take them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Groups {
    by: [u64; 3],
    row: u32,
    rows: u32,
    columns: u32,
    of_row: u32,
}

/// What the join of `ternary` is told besides.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Ternary {
    groups: Groups,
    /// Groups.
    count: u32,
    spare: u32,
}

/// The work of one CTA: some tiles of a job.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Span {
    pub(crate) job: u32,
    pub(crate) tile: u32,
}

/// What every kernel takes: device addresses.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Launch {
    pub(crate) image: u64,
    pub(crate) scratch: u64,
    pub(crate) output: u64,
    pub(crate) jobs: u64,
    pub(crate) spans: u64,
    pub(crate) status: u64,
}

// SAFETY: six integers without padding, as the kernels declare them.
unsafe impl DeviceRepr for Launch {}

const _: () = {
    assert!(size_of::<Plane>() == 16 && size_of::<Span>() == 8 && size_of::<Launch>() == 48);
    assert!(offset_of!(Plane, place) == 8 && offset_of!(Plane, stride) == 9 && offset_of!(Plane, constant) == 10);
    assert!(offset_of!(Plane, length) == 12);
    assert!(size_of::<Job>() == Job::LEN && offset_of!(Job, others) == 16 && offset_of!(Job, out) == 64);
    assert!(offset_of!(Job, table) == 72 && offset_of!(Job, table_len) == 80 && offset_of!(Job, tiles_at) == 84);
    assert!(offset_of!(Job, payload_words) == 88 && offset_of!(Job, elements) == 92 && offset_of!(Job, begin) == 96);
    assert!(offset_of!(Job, end) == 100 && offset_of!(Job, out_place) == 104 && offset_of!(Job, join) == 105);
    assert!(offset_of!(Job, width) == 106 && offset_of!(Job, tile_log) == 107 && offset_of!(Job, status) == 108);
    assert!(size_of::<Ternary>() == 48 && offset_of!(Job, ternary) == 112);
};

impl Plane {
    /// The same bytes as numbers.
    pub(crate) const fn of_numbers(self, kind: DeviceFloat) -> Self {
        Self { stride: 8 * kind.bytes() as u8, ..self }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.offset.to_le_bytes());
        out.extend([self.place as u8, self.stride]);
        out.extend(self.constant.to_le_bytes());
        out.extend(self.length.to_le_bytes());
    }
}

impl Job {
    /// Bytes of a job.
    pub(crate) const LEN: usize = 160;

    /// Appends its bytes as they lie in the device's memory.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.first.put(out);
        self.others.iter().for_each(|plane| plane.put(out));
        out.extend(self.out.to_le_bytes());
        out.extend(self.table.to_le_bytes());
        for number in [self.table_len, self.tiles_at, self.payload_words, self.elements, self.begin, self.end] {
            out.extend(number.to_le_bytes());
        }
        out.extend([self.out_place as u8, self.join.0, self.width, self.tile_log]);
        out.extend(self.status.to_le_bytes());
        self.ternary.put(out);
    }
}

impl Groups {
    pub(crate) fn of(groups: DeviceGroups) -> Self {
        let DeviceGroups { row, rows, columns } = groups;
        Self {
            by: [row, rows, columns].map(|divisor| u64::MAX / u64::from(divisor.max(1))),
            row,
            rows,
            columns,
            of_row: groups.of_row(),
        }
    }

    /// Appends their bytes as they lie in the device's memory.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.by.iter().for_each(|reciprocal| out.extend(reciprocal.to_le_bytes()));
        for number in [self.row, self.rows, self.columns, self.of_row] {
            out.extend(number.to_le_bytes());
        }
    }
}

impl Ternary {
    /// Of other joins.
    pub(crate) const NONE: Self =
        Self { groups: Groups { by: [0; 3], row: 0, rows: 0, columns: 0, of_row: 0 }, count: 0, spare: 0 };

    /// Of `count` groups.
    pub(crate) fn of(ternary: &DeviceTernary, count: u32) -> Self {
        Self { groups: Groups::of(ternary.groups), count, spare: 0 }
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.groups.put(out);
        out.extend(self.count.to_le_bytes());
        out.extend(self.spare.to_le_bytes());
    }
}

impl Span {
    /// Bytes of a span.
    pub(crate) const LEN: usize = 8;

    /// Appends its bytes as they lie in the device's memory.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.job.to_le_bytes());
        out.extend(self.tile.to_le_bytes());
    }
}

/// What a status word says.
pub(crate) fn status_text(status: u32) -> &'static str {
    match status {
        1 => "a tile lies outside its stream",
        2 => "a tile is shorter or longer than its symbols",
        3 => "bits that must be zero are not",
        4 => "a symbol has bits above its width",
        5 => "a state of rANS is not what it must be",
        6 => "the decoded bytes do not match their checksum",
        7 => "a value is outside of its row, or not behind the one before it",
        _ => "the kernel failed",
    }
}

/// The status of decoded bytes whose checksum is wrong.
pub(crate) const BAD_CHECKSUM: u32 = 6;

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use super::*;

    /// Runs `cmz_direct` on one job whose plane says that it has so many bytes.
    fn status_of_plane(length: u32, elements: u32) -> u32 {
        let (image, mut output) = ([7u64; 8], [0u64; 8]);
        let job = Job {
            first: Plane { stride: 8, length, ..Plane::NONE },
            others: [Plane::NONE; OTHERS],
            out: 0,
            table: 0,
            table_len: 0,
            tiles_at: 0,
            payload_words: 0,
            elements,
            begin: 0,
            end: elements,
            out_place: Place::Output,
            join: DeviceJoin::Bytes.into(),
            width: 8,
            tile_log: 12,
            status: 0,
            ternary: Ternary::NONE,
        };
        let span = Span { job: 0, tile: 0 };
        let mut status = 0u32;
        let mut launch = Launch {
            image: image.as_ptr().expose_provenance() as u64,
            scratch: 0,
            output: output.as_mut_ptr().expose_provenance() as u64,
            jobs: (&raw const job).expose_provenance() as u64,
            spans: (&raw const span).expose_provenance() as u64,
            status: (&raw mut status).expose_provenance() as u64,
        };
        let argument = (&raw mut launch).cast::<c_void>();
        // SAFETY: the kernel takes one `Launch`, whose addresses are of live memory as large as the job says.
        unsafe { cmz_gpu_emulator::launch("cmz_direct", [1, 1, 1], [THREADS, 1, 1], 0, &mut [argument]) };
        let written = output.iter().flat_map(|word| word.to_le_bytes()).filter(|&byte| byte != 0).count();
        assert!(written == 0 || status == 0);
        status
    }

    #[test]
    fn a_plane_that_is_too_short_is_not_read() {
        assert_eq!(status_of_plane(64, 64), 0);
        assert_eq!(status_text(status_of_plane(63, 64)), "a tile is shorter or longer than its symbols");
        assert_ne!(status_of_plane(0, 1), 0);
    }
}
