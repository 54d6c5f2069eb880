//! From a stored block to the jobs that decode it.

use std::ops::Range;

use arrayvec::ArrayVec;
use cmz_codec::device::{DeviceBlock, DeviceComponent, DeviceForm, DeviceJoin};
use cmz_codec::stream::StreamCodec;
use cmz_codec::{Archive, Code, Error, Result, Scratch};

use crate::job::{Job, OTHERS, Place, Plane};
use crate::kernel::Kernel;

/// Alignment of everything that kernels read, in bytes.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes of the largest table of a stream.
const TABLE_LEN: usize = 1024;
/// Elements of a tile of `cmz_direct`: 2 to this power.
const DIRECT_TILE_LOG: u8 = 12;
/// Components of a block that a device joins.
const COMPONENTS: usize = 1 + OTHERS;

/// When a job runs: those of a later step read what an earlier one wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Components into scratch memory.
    Component,
    /// Elements into the output.
    Elements,
    /// Checksums of the output.
    Check,
}

/// A job and who runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) step: Step,
    pub(crate) kernel: Kernel,
    pub(crate) job: Job,
}

/// A block that is to be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) tensor: usize,
    pub(crate) ordinal: usize,
    /// Which of its decoded bytes are wanted.
    pub(crate) wanted: Range<u32>,
    /// Where the first of them goes, in bytes of the output.
    pub(crate) out: u64,
}

/// A block in memory, with its jobs. Their places in the image count from the start of the block's region, those in
/// scratch memory from 0.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tasks: ArrayVec<Task, { COMPONENTS + 1 }>,
    /// Bytes of the region that the device needs.
    pub(crate) image_len: usize,
    pub(crate) scratch_len: usize,
}

/// Bytes of the region that a block needs at most.
pub(crate) fn region_len(archive: &Archive, tensor: usize, ordinal: usize) -> usize {
    let stored = archive.stored_len(tensor, ordinal).next_multiple_of(ALIGNMENT);
    stored + TABLE_LEN * COMPONENTS + if may_need_cpu(archive, tensor) { cpu_len(archive, tensor) } else { 0 }
}

/// Bytes of scratch memory that a block needs at most: none if every component but the first can be read where it is.
pub(crate) fn scratch_len(archive: &Archive, tensor: usize) -> usize {
    let in_place = |codecs: &&[&dyn StreamCodec]| codecs.iter().all(|&codec| Kernel::of(codec) == Some(Kernel::Direct));
    match archive.streams(tensor) {
        Ok(Some(streams)) if !streams.iter().skip(1).all(in_place) => cpu_len(archive, tensor),
        _ => 0,
    }
}

/// Bytes of the components of a block as they lie in memory, at most: they take no more than two bytes for each of the element.
fn cpu_len(archive: &Archive, tensor: usize) -> usize {
    2 * archive.block_len(tensor) as usize + COMPONENTS * ALIGNMENT
}

/// Whether the CPU may have to decode a stream of the tensor's blocks, or all of them.
fn may_need_cpu(archive: &Archive, tensor: usize) -> bool {
    // The kernel of rANS has no room for some tables.
    let on_device = |codec: &&dyn StreamCodec| !matches!(Kernel::of(*codec), None | Some(Kernel::Rans));
    !matches!(archive.streams(tensor), Ok(Some(streams)) if streams.iter().copied().flatten().all(on_device))
}

/// A region of the image that is being filled.
struct Region<'a> {
    free: &'a mut [u8],
    /// Where `free` begins in the region.
    at: usize,
}

impl<'a> Region<'a> {
    /// Takes `len` bytes; they begin on a multiple of [`ALIGNMENT`] of the region.
    fn take(&mut self, len: usize) -> (u64, &'a mut [u8]) {
        let free = std::mem::take(&mut self.free);
        let (taken, rest) = free.split_at_mut(len.next_multiple_of(ALIGNMENT).min(free.len()));
        let at = self.at;
        self.at += taken.len();
        self.free = rest;
        (at as u64, &mut taken[..len])
    }
}

/// Reads and checks a block into `region`, decodes there what only the CPU decodes, and makes the jobs for the rest.
///
/// # Errors
/// An error of the file, with tensor and block.
pub(crate) fn prepare(
    archive: &Archive,
    piece: &Piece,
    check: bool,
    region: &mut [u8],
    scratch: &mut Scratch,
) -> Result<Prepared> {
    let (tensor, ordinal) = (piece.tensor, piece.ordinal);
    let stored_len = archive.stored_len(tensor, ordinal).next_multiple_of(ALIGNMENT);
    let (stored, free) = region.split_at_mut(stored_len);
    let (header, payload) = archive.read_stored(tensor, ordinal, stored)?;
    let mut region = Region { free, at: stored_len };
    let mut builder = Builder { tasks: ArrayVec::new(), scratch_len: 0 };
    match archive.device_block(tensor, ordinal, &header, &stored[payload.clone()])? {
        Some(block) if block.components.len() <= COMPONENTS => {
            let at = |stream: &[u8]| (stream.as_ptr().addr() - stored.as_ptr().addr()) as u64;
            builder.add(&block, at, piece, &mut region, scratch).map_err(|e| archive.in_block(e, tensor, ordinal))?;
        }
        _ => {
            let (offset, bytes) = region.take(header.decoded_len as usize);
            archive.read_block(tensor, ordinal, scratch, bytes)?;
            let whole = Plane { offset, stride: 8, length: header.decoded_len, ..Plane::NONE };
            builder.add_elements(Kernel::Direct, DeviceJoin::Bytes, Source::plane(whole, 8), &[], bytes.len(), piece);
        }
    }
    if check && piece.wanted == (0..header.decoded_len) {
        builder.add_check(piece.out, header.decoded_len, header.crc_decoded);
    }
    Ok(Prepared { tasks: builder.tasks, image_len: region.at, scratch_len: builder.scratch_len })
}

/// What a kernel decodes first: a plane, or a stream and its tiles.
struct Source {
    plane: Plane,
    width: u8,
    tile_log: u8,
    table: u64,
    table_len: u32,
    tiles_at: u32,
    payload_words: u32,
}

impl Source {
    fn plane(plane: Plane, width: u8) -> Self {
        Self { plane, width, tile_log: DIRECT_TILE_LOG, table: 0, table_len: 0, tiles_at: 0, payload_words: 0 }
    }
}

struct Builder {
    tasks: ArrayVec<Task, { COMPONENTS + 1 }>,
    scratch_len: usize,
}

impl Builder {
    fn add(
        &mut self,
        block: &DeviceBlock<'_>,
        at: impl Fn(&[u8]) -> u64,
        piece: &Piece,
        region: &mut Region<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let [first, others @ ..] = &block.components[..] else {
            return Err(Error::new(Code::BadStream, "the block has no component"));
        };
        let mut planes: ArrayVec<Plane, OTHERS> = ArrayVec::new();
        for component in others {
            let (kernel, source) = source(component, at(component.stream), block.elements, region, scratch)?;
            // Kernels read components of 8 bits as bytes, and others where they are packed, too.
            let indexed = kernel == Kernel::Direct && (source.plane.stride != 0 || source.width < 8);
            planes.push(if indexed { source.plane } else { self.add_component(kernel, source, block.elements) });
        }
        let (kernel, source) = source(first, at(first.stream), block.elements, region, scratch)?;
        self.add_elements(kernel, block.join, source, &planes, block.elements, piece);
        Ok(())
    }

    /// Decodes a component into scratch memory, a byte a symbol.
    fn add_component(&mut self, kernel: Kernel, source: Source, elements: usize) -> Plane {
        let offset = self.scratch_len as u64;
        self.scratch_len += elements.next_multiple_of(ALIGNMENT);
        let job = job(source, DeviceJoin::Bytes, &[], elements, 0..elements as u32, (Place::Scratch, offset));
        self.tasks.push(Task { step: Step::Component, kernel, job });
        Plane { offset, place: Place::Scratch, stride: 8, constant: 0, length: elements as u32 }
    }

    fn add_elements(
        &mut self,
        kernel: Kernel,
        join: DeviceJoin,
        source: Source,
        planes: &[Plane],
        elements: usize,
        piece: &Piece,
    ) {
        let len = join.element_len() as u32;
        let wanted = piece.wanted.start / len..piece.wanted.end.div_ceil(len);
        let out = piece.out.wrapping_sub(u64::from(wanted.start * len));
        let job = job(source, join, planes, elements, wanted, (Place::Output, out));
        self.tasks.push(Task { step: Step::Elements, kernel, job });
    }

    /// Compares the CRC-32 of decoded bytes.
    fn add_check(&mut self, out: u64, len: u32, crc: u32) {
        let mut job =
            job(Source::plane(Plane::NONE, 8), DeviceJoin::Bytes, &[], len as usize, 0..len, (Place::Output, out));
        (job.table, job.tile_log) = (crc.into(), 31);
        self.tasks.push(Task { step: Step::Check, kernel: Kernel::Crc32, job });
    }
}

fn job(
    source: Source,
    join: DeviceJoin,
    planes: &[Plane],
    elements: usize,
    wanted: Range<u32>,
    (out_place, out): (Place, u64),
) -> Job {
    let mut others = [Plane::NONE; OTHERS];
    others[..planes.len()].copy_from_slice(planes);
    Job {
        first: source.plane,
        others,
        out,
        table: source.table,
        table_len: source.table_len,
        tiles_at: source.tiles_at,
        payload_words: source.payload_words,
        elements: elements as u32,
        begin: wanted.start,
        end: wanted.end,
        out_place,
        join,
        width: source.width,
        tile_log: source.tile_log,
        status: 0,
    }
}

/// How a kernel gets at the symbols of a component whose stream lies at `offset` of the region.
fn source(
    component: &DeviceComponent<'_>,
    offset: u64,
    elements: usize,
    region: &mut Region<'_>,
    scratch: &mut Scratch,
) -> Result<(Kernel, Source)> {
    let width = component.width.bits();
    let plane = Plane { offset, length: component.stream.len() as u32, ..Plane::NONE };
    Ok(match (&component.form, Kernel::of(component.codec)) {
        (Some(DeviceForm::Indexed { stride }), _) => {
            (Kernel::Direct, Source::plane(Plane { stride: *stride, ..plane }, width))
        }
        (Some(DeviceForm::Constant(constant)), _) => {
            (Kernel::Direct, Source::plane(Plane { stride: 0, constant: *constant, ..plane }, width))
        }
        (Some(DeviceForm::Tiled(tiles)), Some(kernel)) => {
            let (table, bytes) = region.take(4 * tiles.table.len());
            for (bytes, entry) in bytes.chunks_exact_mut(4).zip(&tiles.table) {
                bytes.copy_from_slice(&entry.to_le_bytes());
            }
            let source = Source {
                plane,
                width,
                tile_log: tiles.log,
                table,
                table_len: tiles.table.len() as u32,
                tiles_at: tiles.ends_at,
                payload_words: tiles.payload_words,
            };
            (kernel, source)
        }
        (Some(DeviceForm::Tiled(_)) | None, _) => {
            let (offset, bytes) = region.take(elements * component.width.bytes());
            let decoded = component.codec.decode(component.stream, component.width, scratch, bytes);
            decoded.map_err(|e| Error::new(Code::BadStream, e.to_string()))?;
            let stride = 8 * component.width.bytes() as u8;
            (Kernel::Direct, Source::plane(Plane { offset, stride, length: bytes.len() as u32, ..Plane::NONE }, width))
        }
    })
}
