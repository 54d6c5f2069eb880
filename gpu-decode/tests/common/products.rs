//! Products with quantized matrices against products in double precision of the weights as their encodings define them.

use cmz_codec::device::{DecodedArray, DecodedComponent, DeviceFloat, DeviceMode, DeviceNode, DeviceShift};
use cmz_codec::{Archive, Code, Scratch};
use cmz_format::{Component, Dtype, Encoding};
use cmz_gpu_decode::{DeviceMemory, GpuDecoder, QuantizedMatrix, Request, Residency};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::inputs::Rng;
use cmz_tests::raw_file::RawFile;
use cmz_tests::source::Source;

use super::{bank, open, quantized};

/// Encodings with a product, and what they are.
fn encodings() -> Vec<(String, Encoding)> {
    let mut encodings = Vec::new();
    for (bits, form, group, scale, arithmetic) in [
        (2, "symmetric", "[1,32]", "F32", "F32"),
        (3, "symmetric", "[1,24]", "F16", "F32"),
        (4, "zero_point", "[1,128]", "F16", "F32"),
        (4, "bias", "[1,64]", "BF16", "F32"),
        (8, "zero_point", "[1,16777216]", "BF16", "F16"),
        (8, "zero", "[3,5]", "F32", "F32"),
        (5, "bias", "[2,3]", "F32", "F16"),
    ] {
        let other = match form {
            "zero_point" => Some(("zero_points", Component::Stream(vec!["raw".to_owned()]))),
            "zero" => Some(("zeros", bank::plain("raw"))),
            "bias" => Some(("biases", bank::plain("raw"))),
            _ => None,
        };
        let numbers: Vec<_> = [("scales", bank::plain("raw"))].into_iter().chain(other).collect();
        let params = format!(
            r#"{{"bits":{bits},"form":"{form}","group":{group},"scale":"{scale}","arithmetic":"{arithmetic}"}}"#
        );
        encodings.push((format!("affine {params}"), bank::affine(&params, "bitpack", &numbers)));
    }
    encodings.push(("two levels".to_owned(), bank::two_levels("rans")));
    for (group, codec) in [
        ("[1,16777216]", "tunstall"),
        ("[3,16]", "tunstall"),
        ("[1,9]", "dictionary"),
        ("[1,16777216]", "trits"),
        ("[2,40]", "bitpack"),
        ("[1,16777216]", "rans"),
        ("[5,64]", "huffman"),
    ] {
        encodings.push((format!("ternary {group} over {codec}"), ternary(group, codec)));
    }
    let mut of_planes = ternary("[1,80]", "tunstall");
    for numbers in ["minima", "maxima"] {
        of_planes.components.insert(numbers.to_owned(), bank::float_planes("rans"));
    }
    encodings.push(("ternary with numbers by float_planes".to_owned(), of_planes));
    encodings
}

fn ternary(group: &str, codec: &str) -> Encoding {
    let components = [
        ("symbols".to_owned(), Component::Stream(vec![codec.to_owned()])),
        ("minima".to_owned(), bank::plain("raw")),
        ("maxima".to_owned(), bank::plain("raw")),
    ];
    let params = serde_json::from_str(&format!(r#"{{"group":{group}}}"#)).unwrap();
    Encoding { name: "ternary".to_owned(), params, components: components.into() }
}

fn number(array: &[u8], kind: DeviceFloat, i: usize, in_half: bool) -> f64 {
    let x = match kind {
        DeviceFloat::F16 => half::f16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        DeviceFloat::Bf16 => half::bf16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        DeviceFloat::F32 => f32::from_le_bytes(array.as_chunks().0[i]),
        DeviceFloat::E8M0 => (f32::from(array[i]) - 127.0).exp2(),
        DeviceFloat::E5M2 => half::f16::from_le_bytes([0, array[i]]).to_f32(),
        DeviceFloat::E4M3 => {
            let (byte, sign) = (array[i] & 0x7f, if array[i] >> 7 == 1 { -1.0 } else { 1.0 });
            let (exponent, mantissa) = (i32::from(byte >> 3), f32::from(byte & 7) / 8.0);
            sign * if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) }
        }
    };
    if in_half { half::f16::from_f32(x).to_f64() } else { x.into() }
}

/// A weight, and the magnitude that the bound is told in.
type Weight = (f64, f64);

/// Every weight in double precision, and the most outliers of a row.
fn exact(archive: &Archive, columns: usize) -> (Vec<Weight>, usize) {
    let (mut weights, mut most) = (Vec::new(), 0);
    for ordinal in 0..archive.index().tensor_len(0).div_ceil(archive.block_len(0)) as usize {
        let array = archive.read_components(0, ordinal, &mut Scratch::new()).unwrap().unwrap();
        let (block, outliers) = exact_array(&array, columns);
        assert!(block.len().is_multiple_of(columns));
        weights.extend(block);
        most = most.max(outliers);
    }
    (weights, most)
}

#[expect(clippy::too_many_lines, reason = "a case for each encoding")]
fn exact_array(array: &DecodedArray, columns: usize) -> (Vec<Weight>, usize) {
    let parts: Vec<&[u8]> = array
        .components
        .iter()
        .map(|component| match component {
            DecodedComponent::Bytes(bytes) => &bytes[..],
            DecodedComponent::Array(_) => &[],
        })
        .collect();
    let inner = || match &array.components[0] {
        DecodedComponent::Array(inner) => exact_array(inner, columns),
        DecodedComponent::Bytes(_) => panic!("an array"),
    };
    match array.node {
        DeviceNode::Affine(affine) => {
            let weight = |(i, &code): (usize, &u8)| {
                let (group, code) = (affine.groups.of(i as u64) as usize, f64::from(code));
                let float = |part: usize| number(parts[part], affine.scale, group, affine.half);
                let middle = f64::from(1u16 << (affine.bits - 1));
                let (scale, zero, bias) = match affine.shift {
                    DeviceShift::Middle => (float(1), middle, 0.0),
                    DeviceShift::ZeroPoint => (float(1), parts[2][group].into(), 0.0),
                    DeviceShift::Zero => (float(1), float(2), 0.0),
                    DeviceShift::Bias => (float(1), 0.0, float(2)),
                };
                let moved = scale * (middle - zero) + bias;
                (scale * (code - zero) + bias, (scale * (code - middle)).abs() + moved.abs())
            };
            (parts[0].iter().enumerate().map(weight).collect(), 0)
        }
        DeviceNode::Ternary(ternary) => {
            let weight = |(i, &symbol): (usize, &u8)| {
                let group = ternary.groups.of(i as u64) as usize;
                let of = |part: usize| number(parts[part], DeviceFloat::Bf16, group, false);
                let x = [0.0, of(1), of(2)][usize::from(symbol)];
                (x, x.abs())
            };
            (parts[0].iter().enumerate().map(weight).collect(), 0)
        }
        DeviceNode::Codebook(codebook) => {
            let (bits, dim) = (usize::from(codebook.bits), codebook.dim as usize);
            let of_row = columns.div_ceil(dim);
            let weight = |i: usize| {
                let (vector, within) = (i / columns * of_row + i % columns / dim, i % columns % dim);
                let (group, index) = (codebook.groups.of(vector as u64) as usize, usize::from(parts[0][vector]));
                let x = if codebook.binary {
                    let alpha = |bit: usize| number(parts[1], codebook.table, group * bits + bit, false);
                    let signed = |bit: usize| if index >> bit & 1 == 1 { alpha(bit) } else { -alpha(bit) };
                    let sum = (1..bits).fold(signed(0) as f32, |sum, bit| sum + signed(bit) as f32);
                    f64::from(sum + number(parts[2], codebook.table, group, false) as f32)
                } else {
                    number(parts[1], codebook.table, ((group << bits) + index) * dim + within, false)
                };
                (x, x.abs())
            };
            ((0..parts[0].len() / of_row * columns).map(weight).collect(), 0)
        }
        DeviceNode::BlockScale(scheme) => {
            let values: Vec<f64> = match &array.components[0] {
                DecodedComponent::Bytes(bytes) => {
                    (0..bytes.len()).map(|i| number(bytes, scheme.values, i, false)).collect()
                }
                DecodedComponent::Array(_) => {
                    let round =
                        |x: f64| if scheme.values == DeviceFloat::F16 { half::f16::from_f64(x).to_f64() } else { x };
                    inner().0.into_iter().map(|(x, _)| round(x)).collect()
                }
            };
            let weight = |(i, value): (usize, f64)| {
                let scale = number(parts[1], scheme.scale, scheme.groups.of(i as u64) as usize, false);
                let x = if scheme.divide { value / scale } else { value * scale };
                (x, x.abs())
            };
            (values.into_iter().enumerate().map(weight).collect(), 0)
        }
        DeviceNode::Sparse(sparse) => {
            let (mut weights, _) = inner();
            let mut counts = vec![0; weights.len() / columns];
            for (i, &place) in array.places.iter().enumerate() {
                let value = number(parts[parts.len() - 1], sparse.values, i, false);
                let (x, magnitude) = weights[place as usize];
                weights[place as usize] = match sparse.mode {
                    DeviceMode::Replace => (value, magnitude + (value - x).abs()),
                    _ => (x + value, magnitude + value.abs()),
                };
                counts[place as usize / columns] += 1;
            }
            (weights, counts.into_iter().max().unwrap_or(0))
        }
        DeviceNode::Permute(_) => {
            let (stored, most) = inner();
            let mut weights = stored.clone();
            for (row, stored) in weights.chunks_exact_mut(columns).zip(stored.chunks_exact(columns)) {
                for (&weight, &column) in stored.iter().zip(parts[1].as_chunks().0) {
                    row[usize::from(u16::from_le_bytes(column))] = weight;
                }
            }
            (weights, most)
        }
        DeviceNode::Join(_) | DeviceNode::LowRank(_) => unreachable!("no encoding here joins bits, or is a product"),
    }
}

/// Numbers of both signs and of many magnitudes.
fn vectors(len: usize) -> Vec<f32> {
    let mut rng = Rng::new(17);
    (0..len).map(|_| (rng.below(2001) as f32 - 1000.0) / 1000.0 * [1.0, 0.01, 30.0][rng.below(3)]).collect()
}

fn matrix(dtype: Dtype, shape: &[u64], encoding: &Encoding, block_rows: u64) -> Vec<u8> {
    let elements = shape.iter().product::<u64>() as usize;
    // Most ternary weights are zeros.
    let bytes = if encoding.name == "ternary" {
        bank::ternary_weights(dtype, 7, elements, 25)
    } else {
        bank::weights(dtype, 7, elements)
    };
    let source = Source::new().tensor("w", dtype.name(), shape, bytes).build();
    let block_elements = block_rows * shape[shape.len() - 1];
    let storage = |_: &cmz_codec::safetensors::Entry| Storage { encoding: encoding.clone(), block_elements };
    write(&source, storage).expect("a sound file")
}

/// The product with some vectors.
fn multiply(decoder: &GpuDecoder, matrix: &QuantizedMatrix, x: &[f32], batch: usize) -> Vec<f32> {
    let stream = decoder.new_stream().unwrap();
    let mut input = decoder.allocate(4 * x.len()).unwrap();
    input.write(&stream, 0, &x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let mut output: DeviceMemory = decoder.allocate(4 * batch * matrix.rows()).unwrap();
    output.write(&stream, 0, &vec![0xff; output.len()]).unwrap();
    // SAFETY: `x` and `y` are as long as the shapes say, and reading waits.
    unsafe { matrix.multiply(&stream, input.address(), output.address(), batch as u32) }.unwrap();
    output.read(&stream).unwrap().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Compares products of tensor 0 with those in double precision, for these numbers of vectors.
fn check_products(decoder: &GpuDecoder, what: &str, archive: &Archive, residency: Residency, batches: &[usize]) {
    let matrix = decoder
        .quantized_matrix(archive, &Request::whole(0), residency, 2)
        .unwrap_or_else(|e| panic!("{what}, {residency:?}: {e}"));
    let (rows, columns) = (matrix.rows(), matrix.columns());
    assert_eq!(archive.tensors()[0].shape, [rows as u64, columns as u64]);
    let (weights, outliers) = exact(archive, columns);
    let ragged = ["[3,5]", "[2,3]", "[1,9]", "ragged"].iter().any(|group| what.contains(group));
    let dim = what.strip_prefix("vectors of ").and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
    let terms = match residency {
        Residency::Packed if let Some(dim) = dim => {
            (16 + dim + columns.div_ceil(dim).div_ceil(128) + outliers.div_ceil(128)) as f64
        }
        Residency::Packed => {
            24.0 + (if ragged { 16 } else { 2 } * columns.div_ceil(1024) + outliers.div_ceil(128)) as f64
        }
        Residency::Compressed => (45 + 256.min(columns.div_ceil(32) + 1) + columns.div_ceil(57_344)) as f64,
    };
    let unit = terms * f64::from(f32::EPSILON) / 2.0;
    for &batch in batches {
        let x = vectors(batch * columns);
        for (y, found) in multiply(decoder, &matrix, &x, batch).into_iter().enumerate() {
            let (vector, row) = (&x[y / rows * columns..][..columns], &weights[y % rows * columns..][..columns]);
            let wanted: f64 = row.iter().zip(vector).map(|((w, _), &x)| w * f64::from(x)).sum();
            let magnitude: f64 = row.iter().zip(vector).map(|((_, m), &x)| m * f64::from(x.abs())).sum();
            assert!(
                (f64::from(found) - wanted).abs() <= unit / (1.0 - unit) * magnitude,
                "{what}, {residency:?}, {rows} x {columns}, batch {batch}, {y}: {found}, not {wanted}, of {magnitude}"
            );
        }
    }
    matrix.check(archive, &decoder.new_stream().unwrap()).unwrap();
}

pub(crate) fn products_are_within_their_bound(decoder: &GpuDecoder) {
    let shapes = [(1, 1), (5, 7), (9, 333), (6, 1024), (3, 33_001)];
    for (number, (what, encoding)) in encodings().into_iter().enumerate() {
        for (i, (rows, columns)) in shapes.into_iter().enumerate() {
            let dtype = [Dtype::BF16, Dtype::F16, Dtype::F32][(number + i) % 3];
            let archive = open(matrix(dtype, &[rows, columns], &encoding, if i == 2 { 6 } else { 100 }));
            // The last shape takes the emulator long.
            let batches = if columns > 32_768 { &[1, 2][..] } else { &[1, 2, 4, 5, 16] };
            check_products(decoder, &what, &archive, Residency::Packed, batches);
            if encoding.name == "ternary" {
                check_products(decoder, &what, &archive, Residency::Compressed, batches);
            }
        }
    }
}

/// SpQR whole, and codebooks with and without scales; some rows have the products that they have among all, by bits.
pub(crate) fn products_with_outliers_and_codebooks_are_within_their_bound(decoder: &GpuDecoder) {
    for (number, (what, dtype, tree, fills)) in quantized::products().into_iter().enumerate() {
        let shapes = [(1, 1), (5, 7), (9, 333), (6, 1024), (2, 33_001)];
        for (i, (rows, columns)) in shapes.into_iter().enumerate() {
            // The last shape takes the emulator long.
            if columns > 32_768 && number % 4 != 0 {
                continue;
            }
            let block_rows = if i == 2 { 6 } else { 100 };
            let archive = open(quantized::filled(dtype, [rows, columns], block_rows, &tree, &fills));
            agree_with_the_decoded(&what, dtype, &archive, columns);
            let batches = if columns > 32_768 { &[1, 2][..] } else { &[1, 2, 4, 5, 16] };
            check_products(decoder, &what, &archive, Residency::Packed, batches);
            if i == 2 {
                products_of_some_rows(decoder, &what, &archive, 2..8);
            }
        }
    }
}

/// The weights that products are compared by are those that the archive decodes to, before they were rounded.
fn agree_with_the_decoded(what: &str, dtype: Dtype, archive: &Archive, columns: usize) {
    let decoded = archive.read("w").unwrap();
    let (kind, unit) = match dtype {
        Dtype::BF16 => (DeviceFloat::Bf16, 2f64.powi(-7)),
        Dtype::F16 => (DeviceFloat::F16, 2f64.powi(-9)),
        _ => (DeviceFloat::F32, 2f64.powi(-21)),
    };
    for (i, (weight, magnitude)) in exact(archive, columns).0.into_iter().enumerate() {
        let found = number(&decoded, kind, i, false);
        assert!(
            (found - weight).abs() <= unit * magnitude + 1e-7,
            "{what}, {columns} columns, {i}: {found}, not {weight}"
        );
    }
}

fn products_of_some_rows(decoder: &GpuDecoder, what: &str, archive: &Archive, rows: std::ops::Range<u64>) {
    let of = |rows| decoder.quantized_matrix(archive, &Request { tensor: 0, rows }, Residency::Packed, 1).unwrap();
    let (all, some) = (of(None), of(Some(rows.clone())));
    let x = vectors(all.columns());
    let (y, found) = (multiply(decoder, &all, &x, 1), multiply(decoder, &some, &x, 1));
    assert_eq!(found, &y[rows.start as usize..rows.end as usize], "{what}");
}

/// Rows of many tiles, of which a thread block takes few or parts of one; and less memory than a bit a weight.
pub(crate) fn compressed_products_of_long_rows(decoder: &GpuDecoder) {
    for (rows, columns, batch) in [(41, 5003, 3), (5, 14_400, 1), (2, 66_000, 1)] {
        let archive = open(matrix(Dtype::BF16, &[rows, columns], &ternary("[1,16777216]", "tunstall"), 30));
        check_products(decoder, "long rows", &archive, Residency::Compressed, &[batch]);
        let whole = Request::whole(0);
        let matrix = decoder.quantized_matrix(&archive, &whole, Residency::Compressed, 1).unwrap();
        assert!(
            8 * matrix.device_len() as u64 <= rows * columns + 8 * 5000,
            "{rows} x {columns}: {}",
            matrix.device_len()
        );
    }
}

/// An expert of a stack has the products that it has among the others, by bits, and is read without them.
pub(crate) fn products_of_an_expert(decoder: &GpuDecoder) {
    for (codec, block_rows) in [("tunstall", 20), ("dictionary", 15)] {
        let archive = open(matrix(Dtype::BF16, &[4, 20, 333], &ternary("[1,16777216]", codec), block_rows));
        let x = vectors(2 * 333);
        for residency in [Residency::Packed, Residency::Compressed] {
            let of = |rows| decoder.quantized_matrix(&archive, &Request { tensor: 0, rows }, residency, 1).unwrap();
            let all = of(None);
            assert_eq!((all.rows(), all.columns()), (80, 333));
            let y = multiply(decoder, &all, &x, 2);
            for expert in 0..4 {
                let one = of(Some(expert..expert + 1));
                assert_eq!((one.rows(), one.columns()), (20, 333));
                if block_rows == 20 {
                    assert!(one.device_len() < all.device_len() / 3, "{residency:?}");
                }
                let found = multiply(decoder, &one, &x, 2);
                for (k, found) in found.chunks(20).enumerate() {
                    assert_eq!(found, &y[80 * k + 20 * expert as usize..][..20], "{codec}, {residency:?}, {expert}");
                }
                one.check(&archive, &decoder.new_stream().unwrap()).unwrap();
            }
        }
    }
}

/// A codeword that stands for nothing, and a tile outside its stream.
pub(crate) fn products_report_damaged_codes(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    for (codec, at, bytes) in [("tunstall", 40, 0xffff_ffffu32), ("dictionary", 8, 0x00ff_ffff), ("trits", 100, 0xf3f3)]
    {
        let file = matrix(Dtype::BF16, &[40, 500], &ternary("[1,16777216]", codec), 20);
        let mut raw = RawFile::parse(&file);
        raw.data(1).streams[0].1[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        let archive = open(raw.build());
        assert!(archive.read("w").is_err(), "{codec}");
        assert!(decoder.quantized_matrix(&archive, &Request::whole(0), Residency::Packed, 1).is_err(), "{codec}");
        let matrix = decoder.quantized_matrix(&archive, &Request::whole(0), Residency::Compressed, 1).unwrap();
        matrix.check(&archive, &stream).unwrap();
        multiply(decoder, &matrix, &vectors(500), 1);
        let e = matrix.check(&archive, &stream).unwrap_err();
        assert!(e.code() == Code::BadStream && e.to_string().contains("block 1"), "{codec}: {e}");
    }
}

/// What the CPU refuses is refused when the matrix is laid out, or reported by a product that reads all of it.
pub(crate) fn products_refuse_what_the_cpu_refuses(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    let mut rng = Rng::new(29);
    for codec in ["tunstall", "dictionary", "trits", "bitpack", "rans"] {
        let file = matrix(Dtype::BF16, &[60, 333], &ternary("[1,16777216]", codec), 60);
        let mut refused = 0;
        for number in 0..100 {
            let mut raw = RawFile::parse(&file);
            let symbols = &mut raw.data(0).streams[0].1;
            let at = if number % 4 == 0 { symbols.len() - 1 - rng.below(4) } else { rng.below(symbols.len()) };
            match number % 10 {
                9 => symbols.truncate(at),
                8 => symbols[at] = 0xff,
                _ => symbols[at] ^= 1 << rng.below(8),
            }
            let archive = open(raw.build());
            let compressed = decoder.quantized_matrix(&archive, &Request::whole(0), Residency::Compressed, 1);
            let reported = compressed.and_then(|matrix| {
                multiply(decoder, &matrix, &vectors(333), 1);
                matrix.check(&archive, &stream)
            });
            let read = archive.read("w");
            refused += u32::from(read.is_err());
            assert_eq!(reported.is_err(), read.is_err(), "{codec}, damage {number}: {reported:?}, {:?}", read.err());
        }
        assert!(refused >= 5, "{codec}: {refused} of 100 refused");
    }
}

pub(crate) fn products_that_cannot_be_are_refused(decoder: &GpuDecoder) {
    let encoding = encodings().remove(0).1;
    let archive = open(matrix(Dtype::BF16, &[8, 64], &encoding, 8));
    let packed =
        |archive: &Archive, tensor| decoder.quantized_matrix(archive, &Request::whole(tensor), Residency::Packed, 1);
    let good = packed(&archive, 0).unwrap();
    let compressed = decoder.quantized_matrix(&archive, &Request::whole(0), Residency::Compressed, 1);
    assert_eq!(compressed.unwrap_err().code(), Code::InvalidArgument);
    assert!(good.device_len() >= 8 * 64 / 4);
    let stream = decoder.new_stream().unwrap();
    for batch in [0, 17] {
        // SAFETY: refused before anything is launched.
        let e = unsafe { good.multiply(&stream, 0, 0, batch) }.unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument);
    }
    assert_eq!(packed(&archive, 1).unwrap_err().code(), Code::InvalidArgument);
    let source = Source::new()
        .tensor("vector", "BF16", &[64], bank::weights(Dtype::BF16, 1, 64))
        .tensor("none", "BF16", &[0, 64], [])
        .build();
    let by_affine = |_: &cmz_codec::safetensors::Entry| Storage { encoding: encoding.clone(), block_elements: 64 };
    let archive = open(write(&source, by_affine).expect("a sound file"));
    for tensor in 0..2 {
        let e = packed(&archive, tensor).unwrap_err();
        assert!(e.code() == Code::InvalidArgument && e.help().is_some(), "{e}");
    }
    let source = Source::new().tensor("w", "BF16", &[8, 64], bank::weights(Dtype::BF16, 1, 512)).build();
    let joined = open(write(&source, |entry| Storage::new("float_planes", &entry.dtype, &["raw"], 512)).unwrap());
    assert_eq!(packed(&joined, 0).unwrap_err().code(), Code::InvalidArgument);
    let inside =
        open(write(&source, |_| Storage { encoding: encoding.clone(), block_elements: 100 }).expect("a sound file"));
    assert_eq!(packed(&inside, 0).unwrap_err().code(), Code::InvalidArgument);
    // Vectors of a codebook with two scales, values that stand alone, and numbers of more than eight bits with scales.
    use quantized::{Fill, block_scale, codebook, filled, raw, sparse};
    let vectors = codebook(2, "table", 4, "F16", [64, 64]);
    let vectors = block_scale(["F16", "F16"], [1, 6], "multiply", &vectors, &raw());
    let vectors = (vectors, &[Fill::Symbols(2), Fill::Noise, Fill::Noise][..]);
    let alone = sparse("fill", None, &serde_json::json!([2, 4]), "F16", None);
    let wide = block_scale(["BF16", "F16"], [3, 8], "multiply", &raw(), &raw());
    for (tree, fills) in
        [vectors, (alone, &[Fill::Positions(2, 4), Fill::Values(2)][..]), (wide, &[Fill::Noise, Fill::Noise][..])]
    {
        let e = packed(&open(filled(Dtype::BF16, [8, 64], 8, &tree, fills)), 0).unwrap_err();
        assert!(e.code() == Code::InvalidArgument && e.help().is_some(), "{e}");
    }
}
