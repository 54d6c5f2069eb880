//! Decoding and joining, or splitting and encoding, a tile at a time. The joint symbols alone are a
//! plane in between: their decoder works at several places of it at once.

use arrayvec::ArrayVec;
use cmz_format::codec_id;

use super::super::sources::{Sources, Tiles, width};
use super::super::versions::Version;
use super::super::{Array, Component, Encoding, MAX_COMPONENTS, StreamRef};
use super::{FloatJoint, Layout, loops};
use crate::stream::bitpack::{self, Bitpack};
use crate::stream::tiered::{Buffers, Path, TILE};
use crate::stream::{Level, StreamCodec, StreamError};
use crate::{Scratch, registry};

/// See [`Encoding::decode_fused`].
pub(super) fn decode(
    path: Path,
    array: Array,
    streams: &[StreamRef<'_>],
    scratch: &mut Scratch,
    data: &mut [u8],
) -> Option<Result<(), StreamError>> {
    let layout = Layout::of(array.element)?;
    let components = FloatJoint.components(array)?;
    let Layout::Split { len, .. } = layout else {
        let (&[(id, stream)], [value]) = (streams, &components[..]) else { return None };
        let codec = registry::stream_by_id(id).filter(|codec| codec.supports(width(value)))?;
        return Some(codec.decode(stream, width(value), scratch, data));
    };
    let sources = match Sources::open(path, &components, streams, scratch)? {
        Ok(sources) => sources,
        Err(error) => return Some(Err(error)),
    };
    let version = Version::of(path);
    let result = scratch.with::<Buffers, _>(|buffers, scratch| {
        scratch.with::<Tiles, _>(|tiles, _| {
            data.chunks_mut(TILE * len).enumerate().try_for_each(|(t, data)| {
                let range = TILE * t..TILE * t + data.len() / len;
                let parts = sources.tile(t, range, buffers, tiles)?;
                sources.join(&parts, len, data, |parts, data| loops::join_by(version, layout, parts, data));
                Ok(())
            })
        })
    });
    sources.close(scratch);
    Some(result)
}

/// Joint symbols, between blocks.
#[derive(Default)]
struct Joint(Vec<u8>);

/// See [`Encoding::encode_fused`]. There is a faster way if signs and low mantissa bits are packed
/// or `raw` and all bytes below them `raw`.
pub(super) fn encode(
    path: Path,
    array: Array,
    data: &[u8],
    codecs: &[u16],
    level: Level,
    scratch: &mut Scratch,
    streams: &mut [Vec<u8>],
) -> bool {
    let (Some(layout), Some(components)) = (Layout::of(array.element), FloatJoint.components(array)) else {
        return false;
    };
    if codecs.len() != components.len() || streams.len() != components.len() {
        return false;
    }
    let ([first, others @ ..], [joint, ..], [stream, outs @ ..]) = (codecs, &components[..], streams) else {
        return false;
    };
    let Some(codec) = registry::stream_by_id(*first).filter(|codec| codec.supports(width(joint))) else { return false };
    let Layout::Split { len, .. } = layout else {
        codec.encode(data, width(joint), level, scratch, stream);
        return true;
    };
    if others.iter().enumerate().any(|(i, &id)| id != codec_id::RAW && (i > 0 || id != Bitpack.id())) {
        return false;
    }
    scratch.with::<Joint, _>(|plane, scratch| {
        plane.0.resize(plane.0.len().max(joint.array.byte_len), 0);
        let symbols = &mut plane.0[..joint.array.byte_len];
        let version = Version::of(path);
        scratch.with(|tiles, _| split_tiles((version, layout, len), data, &components, others, symbols, outs, tiles));
        codec.encode(symbols, width(joint), level, scratch, stream);
    });
    true
}

/// Splits elements of `len` bytes into joint `symbols`, and appends the streams of all else to `outs`.
fn split_tiles(
    (version, layout, len): (Version, Layout, usize),
    data: &[u8],
    components: &[Component],
    others: &[u16],
    symbols: &mut [u8],
    outs: &mut [Vec<u8>],
    tiles: &mut Tiles,
) {
    outs.iter_mut().for_each(|out| out.reserve(data.len() / len));
    for (data, symbols) in data.chunks(TILE * len).zip(symbols.chunks_mut(TILE * width(&components[0]).bytes())) {
        let mut parts = ArrayVec::<&mut [u8], MAX_COMPONENTS>::new();
        parts.push(symbols);
        parts.extend(tiles.0.iter_mut().map(|tile| &mut tile[..data.len() / len]).take(outs.len()));
        loops::split_by(version, layout, data, &mut parts);
        for (((part, component), &id), out) in parts[1..].iter().zip(&components[1..]).zip(others).zip(&mut *outs) {
            if id == Bitpack.id() {
                bitpack::append(part, width(component), out);
            } else {
                out.extend_from_slice(part);
            }
        }
    }
}
