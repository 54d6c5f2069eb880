//! From a stored block to the jobs that decode it.

use std::ops::Range;

use arrayvec::ArrayVec;
use cmz_codec::device::{
    DeviceArray, DeviceComponent, DeviceForm, DeviceJoin, DeviceNode, DeviceShape, DeviceStream, DeviceTernary,
};
use cmz_codec::stream::tunstall::Tunstall;
use cmz_codec::stream::{Level, StreamCodec, StreamError};
use cmz_codec::{Archive, Code, Error, Result, Scratch};

use crate::job::{Job, Join, OTHERS, Place, Plane, Span, TILES_OF_SPAN, Ternary};
use crate::kernel::Kernel;
use crate::tables::Tables;

mod arrays;

/// Alignment of everything that kernels read, in bytes.
pub(crate) const ALIGNMENT: usize = 64;
/// Bytes of the largest table of a stream.
const TABLE_LEN: usize = 2048;
/// Elements of a tile of `cmz_direct`: 2 to this power.
const DIRECT_TILE_LOG: u8 = 12;

/// When a job runs: it reads what those of earlier steps wrote.
pub(crate) type Step = u8;
/// Checksums of the output come last.
const CHECK: Step = Step::MAX;

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
    pub(crate) tasks: Vec<Task>,
    /// Bytes of the region that the device needs.
    pub(crate) image_len: usize,
    pub(crate) scratch_len: usize,
}

/// What blocks of a tensor need at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Bytes of the head of the image: jobs and spans.
    pub(crate) head: usize,
    /// Bytes of the region, besides the stored block.
    region: usize,
    /// Bytes of scratch memory: none if every component but the first can be read where it is.
    pub(crate) scratch: usize,
}

impl Needs {
    pub(crate) fn of(archive: &Archive, tensor: usize) -> Self {
        let decoded = archive.block_len(tensor) as usize;
        // The elements, zeros where their values are to be put, and the checksum.
        let mut needs = Self { head: 3 * head_len(decoded), region: TABLE_LEN, scratch: 0 };
        let Ok(Some(shapes)) = archive.device_shapes(tensor) else {
            return Self { region: decoded + TABLE_LEN, ..needs };
        };
        let kernels = |shape: &DeviceShape<'_>| shape.codecs.iter().map(|&codec| Kernel::of(codec)).collect::<Vec<_>>();
        let mut on_device = true;
        for shape in &shapes {
            let kernels = kernels(shape);
            let in_place = !kernels.is_empty() && kernels.iter().all(|&kernel| kernel == Some(Kernel::Direct));
            let len = shape.byte_len.next_multiple_of(ALIGNMENT);
            // An array may be filled with zeros before its values come to their places.
            needs.head += 2 * head_len(shape.byte_len);
            needs.scratch += if in_place || shape.joined { 0 } else { len };
            // The kernel of rANS has no room for some tables.
            let may_need_cpu = kernels.iter().any(|kernel| matches!(kernel, None | Some(Kernel::Rans)));
            on_device &= !may_need_cpu;
            needs.region += TABLE_LEN + shape.told.next_multiple_of(ALIGNMENT) + if may_need_cpu { len } else { 0 };
        }
        if !on_device {
            needs.region += decoded.next_multiple_of(ALIGNMENT);
        }
        needs
    }

    /// Bytes of the region of a block.
    pub(crate) fn region_len(&self, archive: &Archive, tensor: usize, ordinal: usize) -> usize {
        archive.stored_len(tensor, ordinal).next_multiple_of(ALIGNMENT) + self.region
    }
}

/// Bytes of the head that a job of so many bytes adds, at most: a tile has at least 4096 elements, of at least a byte.
const fn head_len(byte_len: usize) -> usize {
    Job::LEN + Span::LEN * (byte_len / (TILES_OF_SPAN as usize * 4096) + 2)
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
    tables: &Tables,
    scratch: &mut Scratch,
) -> Result<Prepared> {
    let (tensor, ordinal) = (piece.tensor, piece.ordinal);
    let stored_len = archive.stored_len(tensor, ordinal).next_multiple_of(ALIGNMENT);
    let (stored, free) = region.split_at_mut(stored_len);
    let (header, payload) = archive.read_stored(tensor, ordinal, stored)?;
    let region = Region { free, at: stored_len };
    let mut builder = Builder { stored, region, tables, scratch, tasks: Vec::new(), scratch_len: 0 };
    match archive.device_block(tensor, ordinal, &header, &stored[payload])? {
        Some(array) => {
            let to = Destination::of_piece(piece);
            builder.array(&array, to).map_err(|e| archive.in_block(e, tensor, ordinal))?;
        }
        None => {
            let (offset, bytes) = builder.region.take(header.decoded_len as usize);
            archive.read_block(tensor, ordinal, builder.scratch, bytes)?;
            let whole = Plane { offset, stride: 8, length: header.decoded_len, ..Plane::NONE };
            let (source, len) = (Source::plane(whole, 8), header.decoded_len as usize);
            builder.join(Kernel::Direct, DeviceJoin::Bytes, source, &[], len, Destination::of_piece(piece), 0);
        }
    }
    if check && piece.wanted == (0..header.decoded_len) {
        builder.add_check(piece.out, header.decoded_len, header.crc_decoded);
    }
    Ok(Prepared { tasks: builder.tasks, image_len: builder.region.at, scratch_len: builder.scratch_len })
}

/// A block of a ternary matrix whose symbols are read as they are stored.
#[derive(Debug)]
pub(crate) struct SymbolBlock {
    pub(crate) kernel: Kernel,
    /// Where the symbols lie in the image, and how they are coded in place of the join.
    pub(crate) job: Job,
    /// Their stream and its table, a multiple of [`ALIGNMENT`].
    pub(crate) image: Vec<u8>,
    pub(crate) ternary: DeviceTernary,
    /// Minima and maxima.
    pub(crate) numbers: [Vec<u8>; 2],
}

/// Reads and checks a block of a ternary matrix; `None` if it is none. A stream that no product reads is decoded, and coded by `tunstall`.
///
/// # Errors
/// An error of the file, with tensor and block.
pub(crate) fn symbols_of(
    archive: &Archive,
    tensor: usize,
    ordinal: usize,
    tables: &Tables,
    scratch: &mut Scratch,
) -> Result<Option<SymbolBlock>> {
    let mut stored = vec![0; archive.stored_len(tensor, ordinal)];
    let (header, payload) = archive.read_stored(tensor, ordinal, &mut stored)?;
    let payload = &stored[payload];
    let Some(array) = archive.device_block(tensor, ordinal, &header, payload)? else { return Ok(None) };
    let (DeviceNode::Ternary(ternary), [DeviceComponent::Stream(stream), ..]) = (array.node, &array.components[..])
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let coded;
    let stream = if is_read_by_products(stream) {
        stream
    } else {
        coded = code_again(stream, scratch, &mut bytes).map_err(|e| archive.in_block(e, tensor, ordinal))?;
        &coded
    };
    let len = stream.stream.len().next_multiple_of(ALIGNMENT);
    let mut image = vec![0; len + TABLE_LEN];
    let (own, free) = image.split_at_mut(len);
    own[..stream.stream.len()].copy_from_slice(stream.stream);
    let region = Region { free, at: len };
    let mut builder = Builder { stored: stream.stream, region, tables, scratch, tasks: Vec::new(), scratch_len: 0 };
    let (kernel, source) = builder.source(stream)?;
    let used = builder.region.at;
    let Some(code) = Join::symbol_code(kernel) else { return Ok(None) };
    let numbers = archive.encoded_components(tensor, ordinal, &header, payload, scratch)?;
    let Ok([_, minima, maxima]) = <[Vec<u8>; 3]>::try_from(numbers) else { return Ok(None) };
    let job = job(source, code, &[], stream.symbols, 0..0, (Place::Output, 0));
    image.truncate(used);
    Ok(Some(SymbolBlock { kernel, job, image, ternary, numbers: [minima, maxima] }))
}

fn is_read_by_products(stream: &DeviceStream<'_>) -> bool {
    match stream.form {
        Some(DeviceForm::Tiled(_)) => Kernel::of(stream.codec).and_then(Join::symbol_code).is_some(),
        Some(_) => true,
        None => false,
    }
}

/// The symbols of a stream by `tunstall`, in `bytes`.
fn code_again<'a>(
    stream: &DeviceStream<'_>,
    scratch: &mut Scratch,
    bytes: &'a mut Vec<u8>,
) -> Result<DeviceStream<'a>> {
    let &DeviceStream { width, symbols, .. } = stream;
    let mut decoded = vec![0; symbols * width.bytes()];
    let bad = |e: StreamError| Error::new(Code::BadStream, e.to_string());
    stream.codec.decode(stream.stream, width, scratch, &mut decoded).map_err(bad)?;
    Tunstall.encode(&decoded, width, Level::default(), scratch, bytes);
    let form = Tunstall.device_form(bytes, width, symbols).map_err(bad)?;
    Ok(DeviceStream { codec: &Tunstall, width, symbols, stream: bytes, form })
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

/// Where decoded elements go.
#[derive(Clone, Debug)]
struct Destination {
    place: Place,
    /// The first of the wanted bytes.
    out: u64,
    /// Which bytes are wanted; all if `None`.
    wanted: Option<Range<u32>>,
}

impl Destination {
    fn of_piece(piece: &Piece) -> Self {
        Self { place: Place::Output, out: piece.out, wanted: Some(piece.wanted.clone()) }
    }

    /// The wanted ones of `elements` elements of `len` bytes, and where element 0 would go.
    fn elements(&self, elements: usize, len: usize) -> (Range<u32>, u64) {
        let Some(wanted) = &self.wanted else { return (0..elements as u32, self.out) };
        let wanted = wanted.start / len as u32..wanted.end.div_ceil(len as u32);
        let out = self.out.wrapping_sub(u64::from(wanted.start) * len as u64);
        (wanted, out)
    }
}

/// A plane, and the first step at which it can be read.
type Ready = (Plane, Step);

struct Builder<'a> {
    /// The block as it is stored, at the beginning of the region.
    stored: &'a [u8],
    region: Region<'a>,
    tables: &'a Tables,
    scratch: &'a mut Scratch,
    tasks: Vec<Task>,
    scratch_len: usize,
}

impl Builder<'_> {
    fn joined(&mut self, array: &DeviceArray<'_>, join: DeviceJoin, to: Destination) -> Result<Step> {
        let elements = array.byte_len / join.element_len();
        let [DeviceComponent::Stream(first), others @ ..] = &array.components[..] else {
            return Err(Error::new(Code::BadStream, "the array has no stream"));
        };
        let mut planes: ArrayVec<Plane, OTHERS> = ArrayVec::new();
        let mut ready = 0;
        for component in others {
            let DeviceComponent::Stream(stream) = component else {
                return Err(Error::new(Code::BadStream, "a joined component is not a stream"));
            };
            // Kernels read components of 8 bits as bytes, and others where they are packed, too.
            let (plane, step) = self.stream(stream, |source| source.plane.stride != 0 || source.width < 8)?;
            ready = ready.max(step);
            planes.push(plane);
        }
        let (kernel, source) = self.source(first)?;
        self.join(kernel, join, source, &planes, elements, to, ready);
        Ok(ready)
    }

    /// The symbols of a stream or the numbers of an array as a plane: where they lie, if they can be read there at any index.
    fn component(&mut self, component: &DeviceComponent<'_>) -> Result<Ready> {
        match component {
            DeviceComponent::Stream(stream) => self.stream(stream, |_| true),
            DeviceComponent::Array(array) => {
                if let (DeviceNode::Join(DeviceJoin::Bytes), [DeviceComponent::Stream(bytes)]) =
                    (array.node, &array.components[..])
                {
                    let (plane, ready) = self.stream(bytes, |source| source.plane.stride == 8)?;
                    return Ok((plane, ready));
                }
                let offset = self.reserve(array.byte_len);
                let step = self.array(array, Destination { place: Place::Scratch, out: offset, wanted: None })?;
                let length = array.byte_len as u32;
                Ok((Plane { offset, place: Place::Scratch, stride: 8, constant: 0, length }, step + 1))
            }
        }
    }

    /// The symbols of a stream as a plane, where they lie if that is `good`, or else decoded into scratch memory, a byte a symbol.
    fn stream(&mut self, stream: &DeviceStream<'_>, good: impl Fn(&Source) -> bool) -> Result<Ready> {
        let (kernel, source) = self.source(stream)?;
        if kernel == Kernel::Direct && good(&source) {
            return Ok((source.plane, 0));
        }
        let offset = self.reserve(stream.symbols);
        let to = Destination { place: Place::Scratch, out: offset, wanted: None };
        self.join(kernel, DeviceJoin::Bytes, source, &[], stream.symbols, to, 0);
        let length = stream.symbols as u32;
        Ok((Plane { offset, place: Place::Scratch, stride: 8, constant: 0, length }, 1))
    }

    /// Adds a job, unless there is nothing to do: of an array that may be empty, as that of the values of `sparse`.
    fn push(&mut self, task: Task) {
        if task.job.elements > 0 {
            self.tasks.push(task);
        }
    }

    /// Takes `len` bytes of scratch memory.
    fn reserve(&mut self, len: usize) -> u64 {
        let offset = self.scratch_len;
        self.scratch_len += len.next_multiple_of(ALIGNMENT);
        offset as u64
    }

    #[expect(clippy::too_many_arguments, reason = "what a job says")]
    fn join(
        &mut self,
        kernel: Kernel,
        join: DeviceJoin,
        source: Source,
        planes: &[Plane],
        elements: usize,
        to: Destination,
        step: Step,
    ) {
        let (wanted, out) = to.elements(elements, join.element_len());
        let job = job(source, join.into(), planes, elements, wanted, (to.place, out));
        self.push(Task { step, kernel, job });
    }

    /// Compares the CRC-32 of decoded bytes.
    fn add_check(&mut self, out: u64, len: u32, crc: u32) {
        let mut job = job(
            Source::plane(Plane::NONE, 8),
            DeviceJoin::Bytes.into(),
            &[],
            len as usize,
            0..len,
            (Place::Output, out),
        );
        (job.table, job.tile_log) = (crc.into(), 31);
        self.tasks.push(Task { step: CHECK, kernel: Kernel::Crc32, job });
    }

    /// How a kernel gets at the symbols of a stream.
    fn source(&mut self, stream: &DeviceStream<'_>) -> Result<(Kernel, Source)> {
        let width = stream.width.bits();
        let offset = (stream.stream.as_ptr().addr() - self.stored.as_ptr().addr()) as u64;
        let plane = Plane { offset, length: stream.stream.len() as u32, ..Plane::NONE };
        Ok(match (&stream.form, Kernel::of(stream.codec)) {
            (Some(DeviceForm::Indexed { begin, stride }), _) => {
                let (offset, length) = (offset + u64::from(*begin), plane.length - begin);
                (Kernel::Direct, Source::plane(Plane { offset, length, stride: *stride, ..plane }, width))
            }
            (Some(DeviceForm::Constant(constant)), _) => {
                (Kernel::Direct, Source::plane(Plane { stride: 0, constant: *constant, ..plane }, width))
            }
            (Some(DeviceForm::Tiled(tiles)), Some(kernel)) => {
                let (mut table, bytes) = self.region.take(4 * tiles.table.len());
                for (bytes, entry) in bytes.chunks_exact_mut(4).zip(&tiles.table) {
                    bytes.copy_from_slice(&entry.to_le_bytes());
                }
                if kernel == Kernel::Dictionary {
                    table = self.tables.dictionary()?;
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
                let (offset, bytes) = self.region.take(stream.symbols * stream.width.bytes());
                let decoded = stream.codec.decode(stream.stream, stream.width, self.scratch, bytes);
                decoded.map_err(|e| Error::new(Code::BadStream, e.to_string()))?;
                let stride = 8 * stream.width.bytes() as u8;
                let plane = Plane { offset, stride, length: bytes.len() as u32, ..Plane::NONE };
                (Kernel::Direct, Source::plane(plane, width))
            }
        })
    }
}

fn job(
    source: Source,
    join: Join,
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
        ternary: Ternary::NONE,
    }
}
