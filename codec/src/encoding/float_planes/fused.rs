//! Decoding and joining, or splitting and encoding, in one pass: a tile of every plane
//! at a time, so that what lies between is never further away than the first cache.

use arrayvec::ArrayVec;

use super::super::sources::{Source, Sources, Tiles};
use super::super::{Array, Encoding, MAX_COMPONENTS, StreamRef};
use super::{FloatPlanes, Layout, Version, planes};
use crate::Scratch;
use crate::prefetch::{self, LINE};
use crate::stream::tiered::{Buffers, Encoder, Path, TILE, Tiered};
use crate::stream::{StreamCodec, StreamError};

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
    let sources = match Sources::open(path, &components, streams, scratch)? {
        Ok(sources) => sources,
        Err(error) => return Some(Err(error)),
    };
    let result = scratch.with::<Buffers, _>(|buffers, scratch| {
        scratch.with::<Tiles, _>(|tiles, _| join_tiles(path, layout, &sources, buffers, tiles, data))
    });
    sources.close(scratch);
    Some(result)
}

fn join_tiles(
    path: Path,
    layout: Layout,
    sources: &Sources<'_>,
    buffers: &mut Buffers,
    tiles: &mut Tiles,
    data: &mut [u8],
) -> Result<(), StreamError> {
    let version = Version::of(path);
    for (t, data) in data.chunks_mut(TILE * layout.element_len()).enumerate() {
        let len = data.len() / layout.element_len();
        let range = TILE * t..TILE * t + len;
        if let (Layout::Bytes(2), [Source::Tiered(exponent), Source::Raw(rest)]) = (layout, &sources.all[..])
            && let (Ok(rest), Ok(data)) = (rest[range.clone()].try_into(), (&mut *data).try_into())
        {
            exponent.tile_bf16(t, buffers, rest, data)?;
            continue;
        }
        let planes = sources.tile(t, range, buffers, tiles)?;
        sources.join(&planes, layout.element_len(), data, |planes, data| {
            planes::join_by(version, layout, planes, data);
        });
    }
    Ok(())
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
    scratch.with::<Buffers, _>(|buffers, scratch| {
        scratch.with::<Tiles, _>(|tiles, _| split_tiles(path, layout, data, exponent, others, buffers, tiles));
    });
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
        if let (Layout::Bytes(2), Ok(data), [out], Some(rest)) =
            (layout, data.try_into(), &mut *others, rest.first_chunk_mut())
        {
            for at in (0..TILE).step_by(LINE) {
                prefetch::write(out, out.len() + at);
            }
            encoder.tile_bf16(data, buffers, rest);
            out.extend_from_slice(rest);
            continue;
        }
        let mut planes = ArrayVec::<&mut [u8], MAX_COMPONENTS>::new();
        planes.extend(tiles.0.iter_mut().map(|tile| &mut tile[..len]).take(1 + others.len()));
        planes::split_by(version, layout, data, &mut planes);
        encoder.tile(planes[0], buffers);
        for (plane, out) in planes[1..].iter().zip(&mut *others) {
            out.extend_from_slice(plane);
        }
    }
}
