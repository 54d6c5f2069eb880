//! Every version of the loops against the specification's formulas, and the fused
//! passes against the plain ones.

use proptest::prelude::*;

use super::*;
use crate::registry::stream_by_name;

/// Types of every layout.
const DTYPES: [Dtype; 6] = [Dtype::BF16, Dtype::F32, Dtype::F64, Dtype::F16, Dtype::F8_E5M2, Dtype::F8_E4M3];

fn array(dtype: Dtype, len: usize) -> Array {
    Array::vector(Element::Dtype(dtype), len * element_len(dtype))
}

fn element_len(dtype: Dtype) -> usize {
    dtype.bits() as usize / 8
}

/// The components of one element, as `SPEC.md` has them.
fn specified(dtype: Dtype, v: &[u8]) -> Vec<u8> {
    let wide = u16::from_le_bytes([v[0], *v.get(1).unwrap_or(&0)]);
    match (dtype, v) {
        (Dtype::F16, _) => vec![(wide >> 10 & 0x1f) as u8, ((wide >> 15) << 2 | (wide >> 8 & 3)) as u8, v[0]],
        (Dtype::F8_E5M2, &[v]) => vec![v >> 2 & 0x1f, (v >> 7) << 2 | (v & 3)],
        (Dtype::F8_E4M3, &[v]) => vec![v >> 3 & 0x0f, (v >> 7) << 3 | (v & 7)],
        (_, [mantissas @ .., next, top]) => {
            let mut planes = vec![top & 0x7f | next & 0x80, top & 0x80 | next & 0x7f];
            planes.extend(mantissas.iter().rev());
            planes
        }
        _ => unreachable!("no such type in these tests"),
    }
}

/// Bytes that look like weights: few exponents, all the rest noise.
fn weights(dtype: Dtype, len: usize) -> Vec<u8> {
    let mut state = 77u64;
    let mut data: Vec<u8> = (0..len * element_len(dtype))
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    for element in data.chunks_exact_mut(element_len(dtype)) {
        let top = element.len() - 1;
        element[top] = element[top] & 0x80 | 0x3c | (element[top] & 0x11).count_ones() as u8;
    }
    data
}

fn split(version: Version, array: Array, data: &[u8]) -> Vec<Vec<u8>> {
    let components = FloatPlanes.components(array).unwrap();
    let mut planes: Vec<Vec<u8>> = components.iter().map(|c| vec![0; c.array.byte_len]).collect();
    let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(Vec::as_mut_slice).collect();
    planes::split_by(version, Layout::of(array.element).unwrap(), data, &mut slices);
    planes
}

fn check_versions(dtype: Dtype, data: &[u8]) {
    let array = Array::vector(Element::Dtype(dtype), data.len());
    let elements: Vec<Vec<u8>> = data.chunks_exact(element_len(dtype)).map(|v| specified(dtype, v)).collect();
    for version in Version::all() {
        let planes = split(version, array, data);
        for (c, plane) in planes.iter().enumerate() {
            assert!(elements.iter().map(|e| e[c]).eq(plane.iter().copied()), "{dtype}, {version:?}, component {c}");
        }
        let slices: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
        let mut joined = vec![0; data.len() + 1];
        planes::join_by(version, Layout::of(array.element).unwrap(), &slices, &mut joined[1..]);
        assert!(joined[1..] == *data, "{dtype}, {version:?}");
    }
}

/// Codes `data` with these codecs, one pass after the other.
fn encode(array: Array, data: &[u8], codecs: &[&str]) -> Vec<(u16, Vec<u8>)> {
    let components = FloatPlanes.components(array).unwrap();
    let planes = split(Version::best(), array, data);
    let mut scratch = Scratch::new();
    let streams = components.iter().zip(&planes).zip(codecs).map(|((component, plane), name)| {
        let (codec, mut out) = (stream_by_name(name).unwrap(), Vec::new());
        let Element::Symbol(width) = component.array.element else { unreachable!("components are symbols") };
        codec.encode(plane, width, Level::Fast, &mut scratch, &mut out);
        (codec.id(), out)
    });
    streams.collect()
}

/// Decodes on every path, into an output that nothing may be written outside of; all
/// agree on whether it works.
fn decode(array: Array, streams: &[(u16, Vec<u8>)]) -> Result<Vec<u8>, ()> {
    let refs: Vec<StreamRef<'_>> = streams.iter().map(|(id, stream)| (*id, &stream[..])).collect();
    let mut scratch = Scratch::new();
    let mut results = crate::stream::tiered::paths().flat_map(|path| {
        let mut once = |margin: usize| {
            let mut window = vec![0xee; array.byte_len + 2 * margin];
            let data = &mut window[margin..margin + array.byte_len];
            let result = FloatPlanes::decode_fused_on(path, array, &refs, &mut scratch, data).unwrap();
            let data = data.to_vec();
            assert!(window[..margin].iter().chain(&window[margin + data.len()..]).all(|&b| b == 0xee));
            result.map(|()| data).map_err(|_| ())
        };
        [once(0), once(3)]
    });
    let first = results.next().unwrap();
    assert!(results.all(|result| result == first));
    first
}

/// `tiered` for the exponent, `others` for all else.
fn codecs(dtype: Dtype, others: &'static str) -> Vec<&'static str> {
    let count = FloatPlanes.components(array(dtype, 0)).unwrap().len();
    std::iter::once("tiered").chain(std::iter::repeat_n(others, count - 1)).collect()
}

#[test]
fn all_patterns_of_16_and_8_bits() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    check_versions(Dtype::BF16, &all);
    check_versions(Dtype::F16, &all);
    let bytes: Vec<u8> = (0..=255).collect();
    check_versions(Dtype::F8_E5M2, &bytes);
    check_versions(Dtype::F8_E4M3, &bytes);
    for dtype in [Dtype::BF16, Dtype::F16] {
        let array = array(dtype, 1 << 16);
        assert!(decode(array, &encode(array, &all, &codecs(dtype, "raw"))).as_ref() == Ok(&all));
    }
}

#[test]
fn ragged_lengths_of_every_type() {
    for dtype in DTYPES {
        for len in (0..140).chain([4095, 4096, 4097, 8192, 8200]) {
            check_versions(dtype, &weights(dtype, len));
        }
    }
}

#[test]
fn fused_passes_do_what_plain_ones_do() {
    for dtype in DTYPES {
        for len in (0..70).chain([4095, 4096, 4097, 8191, 8192, 12345, 50_000]) {
            let (array, data) = (array(dtype, len), weights(dtype, len));
            let narrow = matches!(dtype, Dtype::F16 | Dtype::F8_E5M2 | Dtype::F8_E4M3);
            for others in ["raw", "tiered", "zstd"].into_iter().filter(|&name| !narrow || name != "zstd") {
                let streams = encode(array, &data, &codecs(dtype, others));
                assert!(decode(array, &streams).as_ref() == Ok(&data), "{dtype}, {len}, {others}");
            }
            let streams = encode(array, &data, &codecs(dtype, "raw"));
            let ids: Vec<u16> = streams.iter().map(|(id, _)| *id).collect();
            for path in crate::stream::tiered::paths() {
                let mut out = vec![Vec::new(); ids.len()];
                assert!(FloatPlanes::encode_fused_on(path, array, &data, &ids, &mut Scratch::new(), &mut out));
                assert!(streams.iter().map(|(_, stream)| stream).eq(&out), "{dtype}, {len}, {}", path.name());
            }
        }
    }
}

#[test]
fn damaged_streams_meet_the_same_verdict() {
    for dtype in DTYPES {
        let (array, data) = (array(dtype, 5000), weights(dtype, 5000));
        let good = encode(array, &data, &codecs(dtype, "raw"));
        for c in 0..good.len() {
            for at in (0..good[c].1.len()).step_by(211) {
                let mut streams = good.clone();
                streams[c].1[at] ^= 0x11;
                let _ = decode(array, &streams);
                streams[c].1.truncate(at);
                assert!(decode(array, &streams).is_err(), "{dtype}, component {c} cut at {at}");
            }
        }
    }
}

#[test]
fn raw_symbols_keep_to_their_width() {
    let (array, data) = (array(Dtype::F16, 100), weights(Dtype::F16, 100));
    let mut streams = encode(array, &data, &codecs(Dtype::F16, "raw"));
    streams[1].1[99] = 8;
    assert!(decode(array, &streams).is_err());
}

#[test]
fn unknown_codecs_are_not_for_this_encoding() {
    let mut data = [0; 4];
    let streams = [(60_000, &[][..]), (0, &[0, 0])];
    assert!(FloatPlanes.decode_fused(array(Dtype::BF16, 2), &streams, &mut Scratch::new(), &mut data).is_none());
    let mut out = [Vec::new(), Vec::new()];
    let codecs = [60_000, 0];
    let array = array(Dtype::BF16, 2);
    assert!(!FloatPlanes.encode_fused(array, &data, &codecs, Level::Fast, &mut Scratch::new(), &mut out));
}

proptest! {
    #[test]
    fn random_elements(data in prop::collection::vec(any::<u8>(), 0..20_000), kind in 0..DTYPES.len()) {
        let dtype = DTYPES[kind];
        let data = &data[..data.len() / 8 * 8];
        check_versions(dtype, data);
        let array = Array::vector(Element::Dtype(dtype), data.len());
        let streams = encode(array, data, &codecs(dtype, "raw"));
        prop_assert!(decode(array, &streams).as_deref() == Ok(data));
    }
}
