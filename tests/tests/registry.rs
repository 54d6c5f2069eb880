//! Laws of every stream codec and every encoding of the registry.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use cmz_codec::array::{StoredArray, StoredComponent};
use cmz_codec::encoding::{Array, Components, Element, Encoding};
use cmz_codec::registry::{ENCODINGS, STREAMS, encoding_by_name, stream_by_id, stream_by_name};
use cmz_codec::stream::{Level, StreamCodec, Width};
use cmz_codec::{Code, Scratch};
use cmz_format::{BlockHeader, BlockKind, Dtype, EncodedBlock, crc32};
use cmz_tests::fuzz::compare_decoders;
use cmz_tests::inputs::{LENGTHS, Rng, bf16_weights, skewed, symbols, widths};

fn codecs() -> impl Iterator<Item = &'static dyn StreamCodec> {
    STREAMS.iter().map(|entry| entry.codec)
}

/// Every encoding, those that take parameters with several.
fn encodings() -> impl Iterator<Item = &'static dyn Encoding> {
    ENCODINGS.iter().flat_map(|entry| entry.variants).copied()
}

/// Everything that a tensor's elements can be.
fn elements() -> impl Iterator<Item = Element> {
    Dtype::ALL.iter().map(|&dtype| Element::Dtype(dtype)).chain([Element::Opaque])
}

fn encode(codec: &dyn StreamCodec, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch) -> Vec<u8> {
    let mut stream = Vec::new();
    codec.encode(symbols, width, level, scratch, &mut stream);
    stream
}

#[test]
fn ids_and_names_are_unique_and_found() {
    let ids: HashSet<u16> = codecs().map(StreamCodec::id).collect();
    let names: HashSet<&str> = codecs().map(StreamCodec::name).chain(encodings().map(Encoding::name)).collect();
    assert_eq!(ids.len(), STREAMS.len());
    assert_eq!(names.len(), STREAMS.len() + ENCODINGS.len());
    assert!(STREAMS.windows(2).all(|pair| pair[0].codec.id() < pair[1].codec.id()), "by ascending id");
    for codec in codecs() {
        assert_eq!(stream_by_id(codec.id()).unwrap().name(), codec.name());
        assert_eq!(stream_by_name(codec.name()).unwrap().id(), codec.id());
        assert!(codec.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)));
        assert!(widths().any(|width| codec.supports(width)), "{codec:?} codes something");
    }
    for encoding in encodings() {
        assert_eq!(encoding_by_name(encoding.name()).unwrap().name(), encoding.name());
        assert!(elements().any(|element| encoding.components(Array::vector(element, 0)).is_some()));
    }
    assert!(stream_by_id(u16::MAX).is_none() && stream_by_name("").is_none() && encoding_by_name("").is_none());
}

#[test]
fn every_page_names_its_subject() {
    for entry in STREAMS {
        let title = format!("# Stream codec {}: `{}`", entry.codec.id(), entry.codec.name());
        assert!(entry.spec.starts_with(&title), "{:?}: the page begins with {title}", entry.codec);
    }
    for entry in ENCODINGS {
        let title = format!("# Encoding `{}`", entry.encoding.name());
        assert!(entry.spec.starts_with(&title), "{:?}: the page begins with {title}", entry.encoding);
    }
}

#[test]
fn streams_decode_to_what_was_encoded() {
    let mut scratch = Scratch::new();
    for codec in codecs() {
        for width in widths().filter(|&width| codec.supports(width)) {
            for (i, &len) in LENGTHS.iter().enumerate() {
                for (j, array) in symbols(width, len, i as u64).iter().enumerate() {
                    let level = if (i + j) % 4 == 0 { Level::Max } else { Level::Fast };
                    check_stream(codec, array, width, level, &mut scratch);
                }
            }
        }
    }
}

fn check_stream(codec: &dyn StreamCodec, array: &[u8], width: Width, level: Level, scratch: &mut Scratch) {
    let len = array.len() / width.bytes();
    let stream = encode(codec, array, width, level, scratch);
    assert!(stream == encode(codec, array, width, level, &mut Scratch::new()), "{codec:?}: the same bytes each time");
    // A used scratch and a used buffer change nothing.
    let mut decoded = vec![0xAA; array.len()];
    codec.decode(&stream, width, scratch, &mut decoded).unwrap();
    assert!(decoded == array, "{codec:?}, {width:?}, {len} symbols");
    assert!(compare_decoders(codec, &stream, width, len).unwrap() == array);
}

#[test]
fn long_streams_decode_to_what_was_encoded() {
    for codec in codecs() {
        for bits in [4, 8, 12, 16] {
            let width = Width::new(bits);
            if codec.supports(width) {
                for array in symbols(width, 150_001, 1) {
                    check_stream(codec, &array, width, Level::Fast, &mut Scratch::new());
                }
            }
        }
    }
}

/// Changes a stream as damage or malice would.
fn mutate(stream: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(stream.len().max(1));
        match rng.below(8) {
            0 => stream.truncate(at),
            1 => stream.extend(rng.bits().to_le_bytes()),
            2 if at + 4 <= stream.len() => stream[at..at + 4].copy_from_slice(&(rng.bits() as u32).to_le_bytes()),
            3 if at + 4 <= stream.len() => stream[at..at + 4].fill([0, 0xff][rng.below(2)]),
            4 if at < stream.len() => drop(stream.remove(at)),
            5 => stream.insert(at.min(stream.len()), rng.bits() as u8),
            // Most decisions are made by the bytes at the start.
            6 if !stream.is_empty() => {
                let at = at % stream.len().min(48);
                stream[at] = rng.bits() as u8;
            }
            _ if !stream.is_empty() => stream[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
}

#[test]
fn decoders_agree_on_mutated_streams() {
    let mut rng = Rng::new(2);
    let (mut refused, mut taken) = (0, 0);
    for codec in codecs() {
        for width in widths().filter(|&width| codec.supports(width)) {
            for len in [0, 1, 60, 500, 5000] {
                for array in symbols(width, len, rng.bits()) {
                    let stream = encode(codec, &array, width, Level::Fast, &mut Scratch::new());
                    for _ in 0..if len < 1000 { 25 } else { 4 } {
                        let mut changed = stream.clone();
                        mutate(&mut changed, &mut rng);
                        match compare_decoders(codec, &changed, width, len) {
                            None => refused += 1,
                            Some(_) => taken += 1,
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 10_000 && taken > 1000, "{refused} refused, {taken} taken");
}

/// A stream of another number of symbols, or of another width, is no reason to panic.
#[test]
fn decoders_agree_on_streams_of_something_else() {
    let mut rng = Rng::new(3);
    for codec in codecs() {
        for width in widths().filter(|&width| codec.supports(width)) {
            let array = symbols(width, 300, 1).swap_remove(5);
            let stream = encode(codec, &array, width, Level::Fast, &mut Scratch::new());
            for len in [0, 1, 150, 299, 301, 600, 5000] {
                compare_decoders(codec, &stream, width, len);
            }
            for other in widths().filter(|&other| codec.supports(other)) {
                compare_decoders(codec, &stream, other, 300);
            }
            for len in 0..80 {
                compare_decoders(codec, &rng.bytes(len), width, len / 2);
                compare_decoders(codec, &vec![0; len], width, len);
                compare_decoders(codec, &vec![0xff; len], width, len);
            }
        }
    }
}

/// Lengths of the components that an encoding wants.
fn parts(components: &Components) -> Vec<Vec<u8>> {
    components.iter().map(|component| vec![0xCC; component.array.byte_len]).collect()
}

#[test]
fn encodings_join_what_they_split() {
    for encoding in encodings() {
        for element in elements() {
            for (i, len) in [0, 24, 48, 96, 1008, 12_288, 60_000].into_iter().enumerate() {
                let array = Array::new(element, len, 24);
                let Some(components) = encoding.components(array) else { continue };
                let data = Rng::new(i as u64).bytes(len);
                let mut split = parts(&components);
                let mut slices: Vec<&mut [u8]> = split.iter_mut().map(Vec::as_mut_slice).collect();
                encoding.split(array, &data, &mut slices);
                check_widths(encoding, &components, &split);
                let mut joined = vec![0xAA; len];
                let slices: Vec<&[u8]> = split.iter().map(Vec::as_slice).collect();
                encoding.join(array, &slices, &mut joined).unwrap();
                let mut again = vec![0x55; len];
                encoding.join(array, &slices, &mut again).unwrap();
                assert!(joined == again, "{encoding:?} of {len} bytes of {element:?}: not all is written");
                assert!(!encoding.is_exact() || joined == data, "{encoding:?} of {len} bytes of {element:?}");
            }
        }
    }
}

fn check_widths(encoding: &dyn Encoding, components: &Components, split: &[Vec<u8>]) {
    for (component, part) in components.iter().zip(split) {
        let Element::Symbol(width) = component.array.element else { continue };
        let spare = |s: &[u8]| s.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b)) >> width.bits() != 0;
        assert!(!part.chunks(width.bytes()).any(spare), "{encoding:?}, {}: bits above the width", component.name);
    }
}

/// An encoding's components are the same for every length, but for theirs.
#[test]
fn components_do_not_depend_on_the_length() {
    for encoding in encodings() {
        for element in elements() {
            let Some(empty) = encoding.components(Array::vector(element, 0)) else {
                assert!(encoding.components(Array::vector(element, 48)).is_none());
                continue;
            };
            let full = encoding.components(Array::vector(element, 48)).unwrap();
            let names =
                |components: &Components| components.iter().map(|c| (c.name, c.array.element)).collect::<Vec<_>>();
            assert_eq!(names(&empty), names(&full));
            assert_eq!(names(&full).iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), full.len());
            assert!(empty.iter().all(|component| component.array.byte_len == 0));
        }
    }
}

/// What the registry says of devices is what the encodings say.
#[test]
fn encodings_have_a_device_node_where_the_registry_says_so() {
    for entry in ENCODINGS {
        let on_device = entry
            .variants
            .iter()
            .all(|encoding| elements().any(|element| encoding.device_node(Array::vector(element, 4096)).is_some()));
        assert_eq!(on_device, entry.cuda, "{:?}", entry.encoding);
    }
}

/// An array stored by an encoding with one codec wherever that can code, else raw; components
/// that are no symbols are `plain`.
fn stored_by(
    encoding: &'static dyn Encoding,
    element: Element,
    codec: &'static dyn StreamCodec,
) -> Option<StoredArray> {
    let components = encoding.components(Array::vector(element, 0))?;
    let streams = components.iter().map(|component| match component.array.element {
        Element::Symbol(width) if codec.supports(width) => StoredComponent::Stream(vec![codec]),
        Element::Symbol(_) => StoredComponent::Stream(vec![stream_by_name("raw").unwrap()]),
        inner => StoredComponent::Encoded(stored_by(encoding_by_name("plain").unwrap(), inner, codec).unwrap()),
    });
    Some(StoredArray::new(encoding, streams.collect()))
}

fn header_of(block: &EncodedBlock) -> BlockHeader {
    BlockHeader {
        kind: BlockKind::Data,
        ordinal: 0,
        owner: 0,
        payload_distance: cmz_format::block_header_len(block.streams.len()) as u32,
        stored_len: block.payload.len() as u32,
        decoded_len: block.decoded_len,
        crc_stored: crc32(&block.payload),
        crc_decoded: block.crc_decoded,
        streams: block.streams,
    }
}

/// The slow, obvious way to decode a block: every stream on its own by the naive decoder,
/// then joined.
fn decode_naively(encoding: &dyn Encoding, array: Array, header: &BlockHeader, payload: &[u8]) -> Option<Vec<u8>> {
    let streams = header.split(payload).ok()?;
    let mut split: Vec<Vec<u8>> = Vec::new();
    for (number, (entry, bytes)) in header.streams.iter().zip(streams).enumerate() {
        let before: Vec<&[u8]> = split.iter().map(Vec::as_slice).collect();
        let component = encoding.component_array(array, number, &before).ok()?;
        // What is no symbols is `plain`: bytes.
        let width = if let Element::Symbol(width) = component.element { width } else { Width::BYTE };
        let mut part = vec![0xCC; component.byte_len];
        stream_by_id(entry.codec)?.decode_naive(bytes, width, &mut part).ok()?;
        split.push(part);
    }
    let mut data = vec![0; array.byte_len];
    encoding.join(array, &split.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut data).ok()?;
    Some(data)
}

/// Whole blocks, sound and damaged: the production path, fused or not, and the naive one
/// agree by bits.
#[test]
fn blocks_decode_as_the_naive_way_does() {
    let mut rng = Rng::new(4);
    let mut scratch = Scratch::new();
    for encoding in encodings() {
        for element in elements() {
            for codec in codecs() {
                let Some(stored) = stored_by(encoding, element, codec) else { continue };
                for len in [0, 24, 4096 + 48, 20_160] {
                    let data = if len % 48 == 0 { skewed(rng.bits(), len) } else { bf16_weights(rng.bits(), len / 2) };
                    let array = Array::new(element, len, 24);
                    if encoding.components(array).is_none() {
                        continue;
                    }
                    let block = stored.encode_block(array, &data, Level::Fast, &mut scratch);
                    let header = header_of(&block);
                    let mut rounded = vec![0xAA; len];
                    stored.round(array, &data, &mut scratch, &mut rounded);
                    assert!(!encoding.is_exact() || rounded == data, "{encoding:?}");
                    assert!(decode_naively(encoding, array, &header, &block.payload).unwrap() == rounded);
                    assert_eq!(header.crc_decoded, crc32(&rounded), "{encoding:?}");
                    for round in 0..12 {
                        let mut payload = block.payload.clone();
                        if round > 0 && !payload.is_empty() {
                            let at = rng.below(payload.len());
                            payload[at] ^= 1 << rng.below(8);
                        }
                        let expected = decode_naively(encoding, array, &header, &payload);
                        let mut found = vec![0xAA; len];
                        let result = stored.decode_block(array, &header, &payload, &mut scratch, &mut found);
                        assert_eq!(
                            result.is_ok(),
                            expected.is_some(),
                            "{encoding:?}, {element:?}, {codec:?}: {result:?}"
                        );
                        assert!(
                            expected.is_none_or(|expected| expected == found),
                            "{encoding:?}, {element:?}, {codec:?}"
                        );
                    }
                }
            }
        }
    }
}

/// A manifest names encodings with their parameters, and no others.
#[test]
fn encodings_are_found_with_their_parameters() {
    for encoding in encodings() {
        for element in elements() {
            let Some(stored) = stored_by(encoding, element, stream_by_name("raw").unwrap()) else { continue };
            let mut tensor = cmz_format::Tensor {
                name: "t".to_owned(),
                dtype: if let Element::Dtype(dtype) = element { dtype.name() } else { "unknown" }.to_owned(),
                shape: vec![64],
                block_elements: 64,
                encoding: stored.to_manifest(element),
            };
            assert_eq!(tensor.encoding.params, encoding.params());
            assert_eq!(StoredArray::of_tensor(&tensor).unwrap().to_manifest(element), tensor.encoding);
            tensor.encoding.params.insert("of a newer version".to_owned(), 1.into());
            assert_eq!(StoredArray::of_tensor(&tensor).unwrap_err().code(), Code::UnknownEncoding, "{encoding:?}");
        }
    }
}

/// What a manifest must not say.
#[test]
fn codecs_are_refused_where_they_cannot_code() {
    for codec in codecs() {
        let unable = Dtype::ALL.iter().find_map(|&dtype| {
            let components = encoding_by_name("float_planes")?.components(Array::vector(Element::Dtype(dtype), 0))?;
            let component = components.into_iter().find(|component| match component.array.element {
                Element::Symbol(width) => !codec.supports(width),
                _ => false,
            })?;
            Some((dtype, component.name))
        });
        let Some((dtype, name)) = unable else { continue };
        let mut storage = cmz_tests::cmz::Storage::new("float_planes", dtype.name(), &["raw"], 64);
        storage
            .encoding
            .components
            .insert(name.to_owned(), cmz_format::Component::Stream(vec![codec.name().to_owned()]));
        let tensor = cmz_format::Tensor {
            name: "t".to_owned(),
            dtype: dtype.name().to_owned(),
            shape: vec![64],
            block_elements: 64,
            encoding: storage.encoding,
        };
        assert_eq!(StoredArray::of_tensor(&tensor).unwrap_err().code(), Code::Malformed, "{codec:?}");
    }
}
