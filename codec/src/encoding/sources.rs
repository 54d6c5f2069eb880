//! Where the components of an array come from while it is joined tile by tile: what lies between
//! is never further away than the first cache, if the stream's codec can be asked for tiles.

use std::ops::Range;

use arrayvec::ArrayVec;
use cmz_format::codec_id;

use super::{Component, Components, Element, MAX_COMPONENTS, StreamRef};
use crate::prefetch::{self, LINE, PIECE};
use crate::stream::bitpack::{self, Bitpack};
use crate::stream::tiered::{Buffers, Decoder, Path, TILE, Tiered};
use crate::stream::{StreamCodec, StreamError, Width};
use crate::{Scratch, registry};

/// Bytes of a tile of symbols, at most.
const TILE_LEN: usize = 2 * TILE;

/// Where the symbols of a component come from.
pub(super) enum Source<'a> {
    /// The stream is the component.
    Raw(&'a [u8]),
    /// Decoded before the others.
    Decoded(Vec<u8>),
    /// Decoded tile by tile.
    Tiered(Decoder<'a>),
    /// Unpacked tile by tile.
    Packed(bitpack::Decoder<'a>),
}

/// A tile of every component.
pub(super) struct Tiles(pub(super) [[u8; TILE_LEN]; MAX_COMPONENTS]);

impl Default for Tiles {
    fn default() -> Self {
        Self([[0; TILE_LEN]; MAX_COMPONENTS])
    }
}

/// The sources of all components of an array.
pub(super) struct Sources<'a> {
    pub(super) all: ArrayVec<Source<'a>, MAX_COMPONENTS>,
    widths: ArrayVec<Width, MAX_COMPONENTS>,
}

impl<'a> Sources<'a> {
    /// Opens the streams of `components`; `None` if there is one that this knows nothing about.
    pub(super) fn open(
        path: Path,
        components: &Components,
        streams: &[StreamRef<'a>],
        scratch: &mut Scratch,
    ) -> Option<Result<Self, StreamError>> {
        let known = |(component, stream): (&Component, &StreamRef<'_>)| {
            registry::stream_by_id(stream.0).is_some_and(|codec| codec.supports(width(component)))
        };
        if components.len() != streams.len() || !components.iter().zip(streams).all(known) {
            return None;
        }
        let mut sources = Self { all: ArrayVec::new(), widths: components.iter().map(width).collect() };
        for (component, &stream) in components.iter().zip(streams) {
            match source(path, component, stream, scratch) {
                Ok(source) => sources.all.push(source),
                Err(error) => {
                    sources.close(scratch);
                    return Some(Err(error));
                }
            }
        }
        Some(Ok(sources))
    }

    /// The symbols `range` of each component, which are tile `t`.
    pub(super) fn tile<'b>(
        &'b self,
        t: usize,
        range: Range<usize>,
        buffers: &mut Buffers,
        tiles: &'b mut Tiles,
    ) -> Result<ArrayVec<&'b [u8], MAX_COMPONENTS>, StreamError> {
        let mut parts = ArrayVec::new();
        for ((source, width), tile) in self.all.iter().zip(&self.widths).zip(&mut tiles.0) {
            let bytes = range.start * width.bytes()..range.end * width.bytes();
            let tile = &mut tile[..bytes.len()];
            parts.push(match source {
                Source::Raw(plane) => &plane[bytes],
                Source::Decoded(plane) => &plane[bytes],
                Source::Tiered(decoder) => {
                    decoder.tile(t, buffers, tile)?;
                    decoder.check_width(tile)?;
                    tile
                }
                Source::Packed(decoder) => {
                    decoder.unpack(range.start, tile);
                    tile
                }
            });
        }
        Ok(parts)
    }

    /// Joins a tile of elements of `element_len` bytes piece by piece, and asks for the same piece of
    /// the next tile.
    pub(super) fn join(
        &self,
        parts: &[&[u8]],
        element_len: usize,
        data: &mut [u8],
        join: impl Fn(&[&[u8]], &mut [u8]),
    ) {
        for (i, data) in data.chunks_mut(PIECE * element_len).enumerate() {
            let range = PIECE * i..PIECE * i + data.len() / element_len;
            let mut pieces = ArrayVec::<&[u8], MAX_COMPONENTS>::new();
            for (part, width) in parts.iter().zip(&self.widths) {
                let piece = &part[range.start * width.bytes()..range.end * width.bytes()];
                for at in (0..PIECE * width.bytes()).step_by(LINE) {
                    prefetch::read(piece, TILE * width.bytes() + at);
                }
                pieces.push(piece);
            }
            for at in (0..PIECE * element_len).step_by(LINE) {
                prefetch::write(data, TILE * element_len + at);
            }
            join(&pieces, data);
        }
    }

    /// Gives the memory back.
    pub(super) fn close(self, scratch: &mut Scratch) {
        for source in self.all {
            if let Source::Decoded(plane) = source {
                scratch.recycle(plane);
            }
        }
    }
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
    if id == Bitpack.id() {
        return Ok(Source::Packed(bitpack::Decoder::new(stream, width, len)?));
    }
    if id == codec_id::RAW && width == Width::BYTE {
        return if stream.len() == len { Ok(Source::Raw(stream)) } else { Err(StreamError::Length) };
    }
    let codec = registry::stream_by_id(id).ok_or(StreamError::Invalid("unknown stream codec"))?;
    let mut plane = scratch.buffer(len);
    match codec.decode(stream, width, scratch, &mut plane) {
        Ok(()) => Ok(Source::Decoded(plane)),
        Err(error) => {
            scratch.recycle(plane);
            Err(error)
        }
    }
}

/// Width of a component's symbols.
pub(super) fn width(component: &Component) -> Width {
    match component.array.element {
        Element::Symbol(width) => width,
        Element::Dtype(_) | Element::Opaque => Width::BYTE,
    }
}
