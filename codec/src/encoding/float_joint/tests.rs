//! The encoding against its specification, and the fused passes against the plain ones.

use super::*;

fn components_of(array: Array, data: &[u8]) -> Option<Vec<(Component, Vec<u8>)>> {
    let components = FloatJoint.components(array)?;
    let mut parts: Vec<Vec<u8>> = components.iter().map(|c| vec![0xa5; c.array.byte_len]).collect();
    FloatJoint.split(array, data, &mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>());
    Some(components.into_iter().zip(parts).collect())
}

#[test]
fn every_bit_pattern_comes_back() {
    let mut random = crate::stream::laws::Random(1);
    // All values of the top two bytes, and of all bytes of the small types.
    let all: Vec<[u8; 8]> = (0..=u16::MAX).map(|v| (u64::from(v) << 48 | random.next() >> 16).to_le_bytes()).collect();
    for &dtype in Dtype::ALL {
        let k = (dtype.bits() as usize / 8).clamp(1, 8);
        let half = if dtype == Dtype::C64 { 4 } else { k };
        let data: Vec<u8> = all.iter().flat_map(|v| v[8 - half..].repeat(k / half)).collect();
        let array = Array::vector(Element::Dtype(dtype), data.len());
        let Some(parts) = components_of(array, &data) else { continue };
        for (component, part) in &parts {
            let Element::Symbol(width) = component.array.element else { panic!("symbols") };
            let fits =
                |s: &[u8]| u32::from(s.iter().rev().fold(0u16, |v, &b| v << 8 | u16::from(b))) >> width.bits() == 0;
            assert!(part.chunks(width.bytes()).all(fits), "{dtype} {}", component.name);
        }
        let mut joined = vec![0x5a; data.len()];
        let refs: Vec<&[u8]> = parts.iter().map(|(_, part)| &part[..]).collect();
        FloatJoint.join(array, &refs, &mut joined).unwrap();
        assert!(joined == data, "{dtype}");
    }
}

#[test]
fn components_are_those_of_the_specification() {
    let parts = |dtype, data: &[u8]| {
        let array = Array::vector(Element::Dtype(dtype), data.len());
        components_of(array, data).unwrap().into_iter().map(|(c, part)| (c.name, part)).collect::<Vec<_>>()
    };
    // -1.40625: sign 1, exponent 127, mantissa 0110100.
    let expected = [("exponent_mantissa", vec![0xfd, 1]), ("sign_mantissa", vec![0x34])];
    assert_eq!(parts(Dtype::BF16, &0xbfb4u16.to_le_bytes()), expected);
    // sign 1, exponent 01111, mantissa 0110100001.
    let expected = [("exponent_mantissa", vec![0x7b]), ("sign_mantissa", vec![0x80 | 0x21])];
    assert_eq!(parts(Dtype::F16, &0xbda1u16.to_le_bytes()), expected);
    assert_eq!(parts(Dtype::F8_E4M3, &[0x9c]), [("value", vec![0x9c])]);
    assert_eq!(FloatJoint.components(Array::vector(Element::Dtype(Dtype::F32), 6)), None);
    assert_eq!(FloatJoint.components(Array::vector(Element::Opaque, 6)), None);
}

const DTYPES: [Dtype; 6] = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8_E5M2, Dtype::F8_E4M3];

/// Bytes that look like weights: few exponents, all the rest noise.
fn weights(dtype: Dtype, len: usize) -> (Array, Vec<u8>) {
    let mut random = crate::stream::laws::Random(9);
    let element_len = dtype.bits() as usize / 8;
    let mut data: Vec<u8> = (0..len * element_len).map(|_| random.next() as u8).collect();
    for element in data.chunks_exact_mut(element_len) {
        element[element_len - 1] = element[element_len - 1] & 0x81 | 0x3c;
    }
    (Array::vector(Element::Dtype(dtype), data.len()), data)
}

/// Codes `data` with these codecs, one pass after the other; the last codec is that of all further components.
fn encode(array: Array, data: &[u8], codecs: &[&str]) -> Vec<(u16, Vec<u8>)> {
    let parts = components_of(array, data).unwrap();
    let mut scratch = Scratch::new();
    let codecs = codecs.iter().chain(std::iter::repeat(codecs.last().unwrap()));
    let streams = parts.iter().zip(codecs).map(|((component, part), name)| {
        let (codec, mut out) = (crate::registry::stream_by_name(name).unwrap(), Vec::new());
        codec.encode(part, super::super::sources::width(component), Level::Max, &mut scratch, &mut out);
        (codec.id(), out)
    });
    streams.collect()
}

/// Decodes on every path; all agree on whether it works.
fn decode(array: Array, streams: &[(u16, Vec<u8>)]) -> Result<Vec<u8>, ()> {
    let refs: Vec<StreamRef<'_>> = streams.iter().map(|(id, stream)| (*id, &stream[..])).collect();
    let mut scratch = Scratch::new();
    let mut results = crate::stream::tiered::paths().map(|path| {
        let mut data = vec![0xee; array.byte_len];
        let result = fused::decode(path, array, &refs, &mut scratch, &mut data).unwrap();
        result.map(|()| data).map_err(|_| ())
    });
    let first = results.next().unwrap();
    assert!(results.all(|result| result == first));
    first
}

#[test]
fn fused_passes_do_what_plain_ones_do() {
    for dtype in DTYPES {
        for len in [0, 1, 7, 64, 255, 4095, 4096, 4097, 12_345, 70_000] {
            let (array, data) = weights(dtype, len);
            for codecs in [&["rans", "bitpack", "raw"][..], &["rans", "raw"], &["bitpack", "tiered", "raw"], &["rans"]]
            {
                let width = |(c, _): &(Component, Vec<u8>)| super::super::sources::width(c);
                let widths: Vec<Width> = components_of(array, &data).unwrap().iter().map(width).collect();
                let supported = |(i, width): (usize, &Width)| {
                    crate::registry::stream_by_name(codecs[i.min(codecs.len() - 1)]).unwrap().supports(*width)
                };
                if !widths.iter().enumerate().all(supported) {
                    continue;
                }
                let streams = encode(array, &data, codecs);
                assert!(decode(array, &streams).as_ref() == Ok(&data), "{dtype}, {len}, {codecs:?}");
                let ids: Vec<u16> = streams.iter().map(|(id, _)| *id).collect();
                for path in crate::stream::tiered::paths() {
                    let mut out = vec![Vec::new(); ids.len()];
                    if fused::encode(path, array, &data, &ids, Level::Max, &mut Scratch::new(), &mut out) {
                        assert!(streams.iter().map(|(_, s)| s).eq(&out), "{dtype}, {len}, {codecs:?}, {}", path.name());
                    } else {
                        let others = &ids[1..];
                        assert!(others.iter().enumerate().any(|(i, &id)| id != 0 && (i > 0 || id != 3)), "{dtype}");
                        assert!(out.iter().all(Vec::is_empty));
                    }
                }
            }
        }
    }
}

#[test]
fn damaged_streams_are_refused_as_by_the_plain_passes() {
    let mut random = crate::stream::laws::Random(4);
    for dtype in DTYPES {
        let (array, data) = weights(dtype, 9000);
        let good = encode(array, &data, &["rans", "bitpack", "raw"]);
        let components = FloatJoint.components(array).unwrap();
        for round in 0..60 {
            let mut streams = good.clone();
            let c = round % streams.len();
            streams[c].1 = crate::stream::laws::damage(&good[c].1, &mut random);
            let width = super::super::sources::width(&components[c]);
            let codec = crate::registry::stream_by_id(streams[c].0).unwrap();
            let mut part = vec![0; components[c].array.byte_len];
            let plain = codec.decode_naive(&streams[c].1, width, &mut part);
            assert_eq!(decode(array, &streams).is_ok(), plain.is_ok(), "{dtype}, component {c}, {plain:?}");
        }
    }
}

#[test]
fn unknown_codecs_are_not_for_this_encoding() {
    let (array, data) = weights(Dtype::BF16, 2);
    let mut out = [Vec::new(), Vec::new()];
    let streams = [(60_000, &[][..]), (0, &[0, 0])];
    assert!(FloatJoint.decode_fused(array, &streams, &mut Scratch::new(), &mut [0; 4]).is_none());
    assert!(!FloatJoint.encode_fused(array, &data, &[60_000, 0], Level::Fast, &mut Scratch::new(), &mut out));
}
