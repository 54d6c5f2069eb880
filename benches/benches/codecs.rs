//! Throughput of every stream codec and every encoding of the registry, in bytes of symbols or
//! of elements, on one thread. Each result is compared with what it must be before it is timed.
//!
//! `cargo bench -p cmz-benches --bench codecs -- tiered`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use cmz_benches::datasets::Cast;
use cmz_benches::{Gaussian, Random};
use cmz_codec::encoding::{Array, Element, Encoding, StreamRef, float_planes::FloatPlanes};
use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::registry::{ENCODINGS, STREAMS};
use cmz_codec::stream::{Level, Width};
use cmz_codec::{Scratch, safetensors};
use cmz_format::Dtype;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Elements of an array: those of a block of BF16.
const ELEMENTS: usize = 512 << 10;

/// The first elements of a BF16 model that is part of the repository.
fn model() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/minilm-layer0-bf16.safetensors");
    let file = PlainFile::open(&path).expect("the model is there");
    let header = safetensors::Header::read(&file).expect("it is a model");
    let mut largest = header.tensors;
    largest.sort_by_key(|tensor| std::cmp::Reverse((tensor.range.end - tensor.range.start, tensor.name.clone())));
    let mut data = vec![0; ELEMENTS * 2];
    let mut filled = 0;
    for tensor in largest {
        let len = (data.len() - filled).min((tensor.range.end - tensor.range.start) as usize);
        file.read_at(tensor.range.start, &mut data[filled..filled + len]).expect("the tensor is there");
        filled += len;
    }
    assert_eq!(filled, data.len(), "the model is large enough");
    data
}

fn gaussian() -> Vec<u8> {
    let mut data = vec![0; ELEMENTS * 2];
    Gaussian::default().fill_bf16(&mut Random::new(1), 0.02, &mut data);
    data
}

fn split(encoding: &dyn Encoding, array: Array, data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parts: Vec<Vec<u8>> =
        encoding.components(array)?.iter().map(|component| vec![0; component.array.byte_len]).collect();
    encoding.split(array, data, &mut parts.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    Some(parts)
}

fn streams(c: &mut Criterion) {
    let mut planes = Vec::new();
    for (name, data) in [("model", model()), ("gaussian", gaussian())] {
        let array = Array::vector(Element::Dtype(Dtype::BF16), data.len());
        let parts = split(&FloatPlanes, array, &data).expect("BF16 has planes");
        planes.extend(["exponent", "sign_mantissa"].iter().zip(parts).map(|(p, part)| (format!("{name} {p}"), part)));
    }
    let mut scratch = Scratch::new();
    for codec in STREAMS.iter().map(|entry| entry.codec).filter(|codec| codec.supports(Width::BYTE)) {
        for (plane, symbols) in &planes {
            let mut stream = Vec::new();
            let mut decoded = vec![0; symbols.len()];
            codec.encode(symbols, Width::BYTE, Level::Max, &mut scratch, &mut stream);
            codec.decode_naive(&stream, Width::BYTE, &mut decoded).expect("the stream is whole");
            assert_eq!(&decoded, symbols, "{}: {plane}, decoded naively", codec.name());
            decoded.fill(0);
            codec.decode(&stream, Width::BYTE, &mut scratch, &mut decoded).expect("the stream is whole");
            assert_eq!(&decoded, symbols, "{}: {plane}", codec.name());

            let mut group = c.benchmark_group(format!("{}/{plane}", codec.name()));
            group.throughput(Throughput::Bytes(symbols.len() as u64));
            for level in [Level::Fast, Level::Max] {
                group.bench_function(format!("encode {level:?}"), |b| {
                    b.iter(|| {
                        stream.clear();
                        codec.encode(black_box(symbols), Width::BYTE, level, &mut scratch, &mut stream);
                    });
                });
            }
            group.bench_function("decode", |b| {
                b.iter(|| codec.decode(black_box(&stream), Width::BYTE, &mut scratch, black_box(&mut decoded)));
            });
        }
    }
}

/// The name of an encoding with its parameters.
fn label(encoding: &dyn Encoding) -> String {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    encoding.params().values().fold(encoding.name().to_owned(), |label, value| format!("{label} {}", text(value)))
}

fn encodings(c: &mut Criterion) {
    let weights: Vec<f32> =
        model().as_chunks().0.iter().map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect();
    let floats = Cast::ALL.into_iter().map(|(cast, name, dtype)| (name, dtype, cast.of(&weights)));
    let integers = ["I16", "I32", "I64"].map(|dtype| (dtype, dtype, model()));
    let inputs: Vec<_> = floats.chain(integers).collect();
    for encoding in ENCODINGS.iter().map(|entry| entry.encoding) {
        for (name, dtype, data) in &inputs {
            let element = Element::Dtype(Dtype::from_name(dtype).expect("a type of safetensors files"));
            let array = Array::vector(element, data.len());
            let Some(mut parts) = split(encoding, array, data) else { continue };
            let mut joined = vec![0; data.len()];
            encoding
                .join(array, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut joined)
                .expect("sound components");
            assert!(!encoding.is_exact() || joined == *data, "{}: {name}", encoding.name());

            let mut group = c.benchmark_group(format!("{}/{name}", label(encoding)));
            group.throughput(Throughput::Bytes(data.len() as u64));
            group.bench_function("split", |b| {
                let mut slices: Vec<&mut [u8]> = parts.iter_mut().map(Vec::as_mut_slice).collect();
                b.iter(|| encoding.split(array, black_box(data), black_box(&mut slices)));
            });
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            group.bench_function("join", |b| {
                b.iter(|| encoding.join(array, black_box(&slices), black_box(&mut joined)));
            });
            bench_fused(&mut group, encoding, array, data);
        }
    }
}

/// Splitting and encoding, decoding and joining in one pass, with `tiered` exponents and the
/// other components raw, where the encoding has a way.
fn bench_fused(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    encoding: &dyn Encoding,
    array: Array,
    data: &[u8],
) {
    let count = encoding.components(array).map_or(0, |components| components.len());
    let ids: Vec<u16> = std::iter::once(2).chain(std::iter::repeat_n(0, count - 1)).collect();
    let mut scratch = Scratch::new();
    let mut streams = vec![Vec::new(); count];
    if !encoding.encode_fused(array, data, &ids, Level::Fast, &mut scratch, &mut streams) {
        return;
    }
    let coded = streams.clone();
    let refs: Vec<StreamRef<'_>> = ids.iter().copied().zip(coded.iter().map(Vec::as_slice)).collect();
    let mut decoded = vec![0; data.len()];
    let Some(result) = encoding.decode_fused(array, &refs, &mut scratch, &mut decoded) else { return };
    result.expect("the streams are whole");
    assert_eq!(decoded, data, "{}, fused", encoding.name());
    group.bench_function("split and encode", |b| {
        b.iter(|| {
            streams.iter_mut().for_each(Vec::clear);
            encoding.encode_fused(array, black_box(data), &ids, Level::Fast, &mut scratch, &mut streams)
        });
    });
    group.bench_function("decode and join", |b| {
        b.iter(|| encoding.decode_fused(array, black_box(&refs), &mut scratch, black_box(&mut decoded)));
    });
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! { name = benches; config = short(); targets = streams, encodings }
criterion_main!(benches);
