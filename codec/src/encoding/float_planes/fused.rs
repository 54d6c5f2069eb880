//! Decoding and joining, or splitting and encoding, in one pass: a tile of every plane
//! at a time, so that what lies between is never further away than the first cache.

use arrayvec::ArrayVec;

use super::super::{Array, Component, Element, Encoding, MAX_COMPONENTS, StreamRef};
use super::{FloatPlanes, Layout, Version, planes};
use crate::stream::tiered::prefetch::{self, LINE};
use crate::stream::tiered::{Buffers, Decoder, Encoder, Path, TILE, Tiered};
use crate::stream::{StreamCodec, StreamError, Width};
use crate::{Scratch, registry};

/// Elements that are joined at once.
const PIECE: usize = 256;

/// Where the symbols of a plane come from.
enum Source<'a> {
    /// The stream is the plane.
    Raw(&'a [u8]),
    /// Decoded before the others.
    Decoded(Vec<u8>),
    /// Decoded tile by tile.
    Tiered(Decoder<'a>),
}

/// A tile of every plane.
struct Tiles([[u8; TILE]; MAX_COMPONENTS]);

impl Default for Tiles {
    fn default() -> Self {
        Self([[0; TILE]; MAX_COMPONENTS])
    }
}

/// See [`Encoding::decode_fused`].
pub(super) fn decode(
    path: Path,
    array: Array,
    streams: &[StreamRef<'_>],
    scratch: &mut Scratch,
    data: &mut [u8],
) -> Option<Result<(), StreamError>> {
    let layout = Layout::of(array.element)?;
    let components = FloatPlanes.components(array)?;
    let known = |(component, stream): (&Component, &StreamRef<'_>)| {
        registry::stream_by_id(stream.0).is_some_and(|codec| codec.supports(width(component)))
    };
    if components.len() != streams.len() || !components.iter().zip(streams).all(known) {
        return None;
    }
    let mut sources = ArrayVec::<_, MAX_COMPONENTS>::new();
    for (component, &stream) in components.iter().zip(streams) {
        match source(path, component, stream, scratch) {
            Ok(source) => sources.push(source),
            Err(error) => return Some(Err(error)),
        }
    }
    let mut buffers = scratch.take::<Buffers>();
    let mut tiles = scratch.take::<Tiles>();
    let result = join_tiles(path, layout, &sources, &mut buffers, &mut tiles, data);
    scratch.put(tiles);
    scratch.put(buffers);
    for source in sources {
        if let Source::Decoded(plane) = source {
            scratch.recycle(plane);
        }
    }
    Some(result)
}

fn source<'a>(
    path: Path,
    component: &Component,
    (id, stream): StreamRef<'a>,
    scratch: &mut Scratch,
) -> Result<Source<'a>, StreamError> {
    let (width, len) = (width(component), component.array.byte_len);
    if id == Tiered.id() {
        return Ok(Source::Tiered(Decoder::new(path, stream, width, len)?));
    }
    if id == cmz_format::codec_id::RAW {
        return raw_source(stream, width, len);
    }
    let codec = registry::stream_by_id(id).ok_or(StreamError::Invalid("unknown stream codec"))?;
    let mut plane = scratch.buffer(len);
    codec.decode(stream, width, scratch, &mut plane)?;
    Ok(Source::Decoded(plane))
}

/// A plane that the stream holds as it is; symbols are of one byte in this encoding.
fn raw_source(stream: &[u8], width: Width, len: usize) -> Result<Source<'_>, StreamError> {
    if stream.len() != len {
        return Err(StreamError::Length);
    }
    if width != Width::BYTE && stream.iter().fold(0, |all, s| all | s) >> width.bits() != 0 {
        return Err(StreamError::Invalid("a symbol has bits above its width"));
    }
    Ok(Source::Raw(stream))
}

fn join_tiles(
    path: Path,
    layout: Layout,
    sources: &[Source<'_>],
    buffers: &mut Buffers,
    tiles: &mut Tiles,
    data: &mut [u8],
) -> Result<(), StreamError> {
    let version = Version::of(path);
    for (t, data) in data.chunks_mut(TILE * layout.element_len()).enumerate() {
        let len = data.len() / layout.element_len();
        let range = TILE * t..TILE * t + len;
        if let (Layout::Bytes(2), [Source::Tiered(exponent), Source::Raw(rest)]) = (layout, sources)
            && let (Ok(rest), Ok(data)) = (rest[range.clone()].try_into(), (&mut *data).try_into())
        {
            exponent.tile_bf16(t, buffers, rest, data)?;
            continue;
        }
        let mut planes = ArrayVec::<&[u8], MAX_COMPONENTS>::new();
        for (source, tile) in sources.iter().zip(&mut tiles.0) {
            planes.push(match source {
                Source::Raw(plane) => &plane[range.clone()],
                Source::Decoded(plane) => &plane[range.clone()],
                Source::Tiered(decoder) => {
                    let tile = &mut tile[..len];
                    decoder.tile(t, buffers, tile)?;
                    decoder.check_width(tile)?;
                    tile
                }
            });
        }
        join_tile(version, layout, &planes, data);
    }
    Ok(())
}

/// Joins a tile piece by piece, and asks for the same piece of the next tile.
fn join_tile(version: Version, layout: Layout, planes: &[&[u8]], data: &mut [u8]) {
    let element_len = layout.element_len();
    for (i, data) in data.chunks_mut(PIECE * element_len).enumerate() {
        let range = PIECE * i..PIECE * i + data.len() / element_len;
        let mut piece = ArrayVec::<&[u8], MAX_COMPONENTS>::new();
        piece.extend(planes.iter().map(|plane| &plane[range.clone()]));
        for at in (0..PIECE).step_by(LINE) {
            piece.iter().for_each(|plane| prefetch::read(plane, TILE + at));
        }
        for at in (0..PIECE * element_len).step_by(LINE) {
            prefetch::write(data, TILE * element_len + at);
        }
        version.join(layout, &piece, data);
    }
}

/// See [`Encoding::encode_fused`]. There is a faster way if the first component is
/// `tiered` and all others are `raw`.
pub(super) fn encode(
    path: Path,
    array: Array,
    data: &[u8],
    codecs: &[u16],
    scratch: &mut Scratch,
    streams: &mut [Vec<u8>],
) -> bool {
    let (Some(layout), Some(components)) = (Layout::of(array.element), FloatPlanes.components(array)) else {
        return false;
    };
    let [tiered, raw @ ..] = codecs else { return false };
    let fits = *tiered == Tiered.id() && raw.iter().all(|&id| id == cmz_format::codec_id::RAW);
    if !fits || codecs.len() != components.len() || streams.len() != components.len() {
        return false;
    }
    let [exponent, others @ ..] = streams else { return false };
    let mut buffers = scratch.take::<Buffers>();
    let mut tiles = scratch.take::<Tiles>();
    split_tiles(path, layout, data, exponent, others, &mut buffers, &mut tiles);
    scratch.put(tiles);
    scratch.put(buffers);
    true
}

fn split_tiles(
    path: Path,
    layout: Layout,
    data: &[u8],
    exponent: &mut Vec<u8>,
    others: &mut [Vec<u8>],
    buffers: &mut Buffers,
    tiles: &mut Tiles,
) {
    let element_len = layout.element_len();
    let len = data.len() / element_len;
    let exponents = |run: std::ops::Range<usize>| {
        let run = &data[run.start * element_len..run.end * element_len];
        run.chunks_exact(element_len).map(|element| planes::exponent(layout, element))
    };
    let ask = |run: std::ops::Range<usize>| prefetch::all(&data[run.start * element_len..run.end * element_len]);
    let version = Version::of(path);
    exponent.reserve(len / 2);
    for out in &mut *others {
        out.reserve(len);
    }
    let mut encoder = Encoder::new(path, len, exponents, ask, exponent);
    for data in data.chunks(TILE * element_len) {
        let len = data.len() / element_len;
        let [_, rest, ..] = &mut tiles.0;
        if let (Layout::Bytes(2), Ok(data), [out]) = (layout, data.try_into(), &mut *others) {
            for at in (0..TILE).step_by(LINE) {
                prefetch::write(out, out.len() + at);
            }
            encoder.tile_bf16(data, buffers, rest);
            out.extend_from_slice(rest);
            continue;
        }
        let mut planes = ArrayVec::<&mut [u8], MAX_COMPONENTS>::new();
        planes.extend(tiles.0.iter_mut().map(|tile| &mut tile[..len]).take(1 + others.len()));
        version.split(layout, data, &mut planes);
        encoder.tile(planes[0], buffers);
        for (plane, out) in planes[1..].iter().zip(&mut *others) {
            out.extend_from_slice(plane);
        }
    }
}

fn width(component: &Component) -> Width {
    match component.array.element {
        Element::Symbol(width) => width,
        Element::Dtype(_) | Element::Opaque => Width::BYTE,
    }
}
