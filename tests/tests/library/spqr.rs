//! SpQR (Dettmers et al., 2023) as encodings inside encodings: what it decodes to, and what it takes.

use cmz_codec::Scratch;
use cmz_codec::array::{Parts, StoredArray};
use cmz_codec::encoding::{Array, Element};
use cmz_codec::stream::Level;
use cmz_format::{BlockHeader, BlockKind, Dtype, EncodedBlock, Tensor, block_header_len, crc32};
use cmz_tests::inputs::Rng;
use half::f16;
use serde_json::{Value, json};

/// Codes of three bits in groups of a shape, with scales and zeros stored as said.
fn affine(group: [u32; 2], numbers: &Value) -> Value {
    json!({
        "name": "affine",
        "params": {"bits": 3, "form": "zero", "group": group, "scale": "F16", "arithmetic": "F16"},
        "components": {"codes": ["bitpack", "rans"], "scales": numbers, "zeros": numbers},
    })
}

/// Groups of 16 columns whose scales and zeros are quantized in groups of 16 rows.
fn dense() -> Value {
    affine([1, 16], &affine([16, 1], &json!({"name": "plain", "components": {"data": ["zstd", "raw"]}})))
}

/// With outliers of half precision.
fn with_outliers(mode: &str) -> Value {
    let mut params = json!({"mode": mode, "index": "bitmap", "values": "F16"});
    if mode == "add" {
        params["arithmetic"] = json!("F16");
    }
    let planes = json!({"exponent": ["rans", "raw"], "sign_mantissa": ["bitpack"], "mantissa_0": ["raw"]});
    let values = json!({"name": "float_planes", "components": planes});
    json!({"name": "sparse", "params": params, "components": {"base": dense(), "bitmap": ["rans", "raw"], "values": values}})
}

/// With columns in another order.
fn permuted(array: &Value) -> Value {
    json!({"name": "permute", "components": {"array": array, "order": ["bitpack", "raw"]}})
}

fn stored(encoding: &Value) -> StoredArray {
    let tensor = json!({"name": "t", "dtype": "F16", "shape": [16, 16], "block_elements": 256, "encoding": encoding});
    let tensor: Tensor = serde_json::from_value(tensor).unwrap();
    StoredArray::of_tensor(&tensor).unwrap()
}

fn array(elements: usize, row: usize) -> Array {
    Array::new(Element::Dtype(Dtype::F16), 2 * elements, row)
}

fn halves(numbers: &[f16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What a block decodes to from its stored bytes.
fn decoded(stored: &StoredArray, array: Array, block: &EncodedBlock) -> Vec<u8> {
    let header = BlockHeader {
        kind: BlockKind::Data,
        ordinal: 0,
        owner: 0,
        payload_distance: block_header_len(block.streams.len()) as u32,
        stored_len: block.payload.len() as u32,
        decoded_len: block.decoded_len,
        crc_stored: crc32(&block.payload),
        crc_decoded: block.crc_decoded,
        streams: block.streams,
    };
    let mut data = vec![0xAA; array.byte_len];
    stored.decode_block(array, &header, &block.payload, &mut Scratch::new(), &mut data).unwrap();
    assert_eq!(crc32(&data), block.crc_decoded);
    data
}

/// A tile of the published layout.
#[test]
fn a_tile_decodes_to_the_listed_bits() {
    let vectors = std::fs::read_to_string(cmz_tests::data_dir().join("qmoe-spqr.json")).unwrap();
    let vectors: Value = serde_json::from_str(&vectors).unwrap();
    let tile = &vectors["spqr"];
    let integers =
        |value: &Value| -> Vec<u64> { value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect() };
    let bytes = |name: &str| -> Vec<u8> { integers(&tile[name]).iter().map(|&v| v as u8).collect() };
    let second = |name: &str| {
        let bits = tile["second_order_fp16_bits"][name].as_u64().unwrap();
        Parts::Components(vec![Parts::Whole((bits as u16).to_le_bytes().to_vec())])
    };
    let numbers = |codes: &str, scale: &str, zero: &str| {
        Parts::Components(vec![Parts::Whole(bytes(codes)), second(scale), second(zero)])
    };
    let codes: Vec<u8> = (0..256).map(|i| (i / 16, i % 16)).map(|(i, j)| ((7 * i + 3 * j + i * j) % 8) as u8).collect();
    let parts = vec![Parts::Whole(codes), numbers("qs", "wss", "wsz"), numbers("qz", "wzs", "wzz")];
    let stored = stored(&dense());
    let array = array(256, 16);
    let (block, rounded) =
        stored.encode_parts(array, Parts::Components(parts), Level::Fast, &mut Scratch::new()).unwrap();
    assert_eq!(decoded(&stored, array, &block), rounded);
    let bits: Vec<u64> = rounded.chunks(2).map(|pair| u64::from(u16::from_le_bytes([pair[0], pair[1]]))).collect();
    assert_eq!(bits[..16], integers(&tile["dequant_fp16_bits_row0"]));
    assert_eq!(bits[240..], integers(&tile["dequant_fp16_bits_row15"]));
}

/// The numbers of a matrix as SpQR has them.
struct Matrix {
    columns: usize,
    codes: Vec<u8>,
    scales: Level2,
    zeros: Level2,
    outliers: Vec<bool>,
    values: Vec<f16>,
    order: Vec<u16>,
}

/// Numbers of groups, quantized: codes, scales and zeros.
struct Level2(Vec<u8>, Vec<f16>, Vec<f16>);

impl Matrix {
    /// Random weights, nearly of a normal distribution, of which the greatest, one in a hundred, are outliers;
    /// the others are rounded to the nearest code of the range of their group.
    fn random(rng: &mut Rng, rows: usize, columns: usize) -> Self {
        let mut uniform = || rng.below(1 << 20) as f32 / (1 << 20) as f32 - 0.5;
        let weights: Vec<f32> = (0..rows * columns).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.02).collect();
        let outliers: Vec<bool> = weights.iter().map(|w| w.abs() > 0.02 * 2.535).collect();
        let groups = weights.chunks(16).zip(outliers.chunks(16)).map(|(weights, outliers)| {
            let others = weights.iter().zip(outliers).filter(|(_, outlier)| !**outlier).map(|(&w, _)| w);
            let (low, high) = others.fold((f32::MAX, f32::MIN), |(low, high), w| (low.min(w), high.max(w)));
            ((high - low) / 7.0, -low / (high - low) * 7.0)
        });
        let (scales, zeros): (Vec<f32>, Vec<f32>) = groups.unzip();
        let code = |(i, w): (usize, &f32)| (w / scales[i / 16] + zeros[i / 16]).round().clamp(0.0, 7.0) as u8;
        let mut order: Vec<u16> = (0..columns as u16).collect();
        (1..columns).for_each(|i| order.swap(i, rng.below(i + 1)));
        Self {
            columns,
            codes: weights.iter().enumerate().map(code).collect(),
            values: weights.iter().zip(&outliers).filter(|(_, o)| **o).map(|(&w, _)| f16::from_f32(w)).collect(),
            scales: Level2::of(&scales, columns / 16),
            zeros: Level2::of(&zeros, columns / 16),
            outliers,
            order,
        }
    }

    fn dense(&self) -> Parts {
        Parts::Components(vec![Parts::Whole(self.codes.clone()), self.scales.parts(), self.zeros.parts()])
    }

    fn with_outliers(&self) -> Parts {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        let bitmap = self.outliers.chunks(8).map(byte).collect();
        Parts::Components(vec![self.dense(), Parts::Whole(bitmap), Parts::Whole(halves(&self.values))])
    }

    fn permuted(&self) -> Parts {
        let order = self.order.iter().flat_map(|place| place.to_le_bytes()).collect();
        Parts::Components(vec![self.with_outliers(), Parts::Whole(order)])
    }

    /// Every weight by the formula, each step in half precision.
    fn weights(&self, adds: bool) -> Vec<f16> {
        let mut values = self.values.iter();
        let mut weights = vec![f16::ZERO; self.codes.len()];
        for (i, &code) in self.codes.iter().enumerate() {
            let (row, column) = (i / self.columns, i % self.columns);
            let number = |level: &Level2| level.get(row, column / 16, self.columns / 16);
            let mut w = number(&self.scales) * (f16::from_f32(code.into()) - number(&self.zeros));
            if self.outliers[i] {
                let value = *values.next().unwrap();
                w = if adds { w + value } else { value };
            }
            weights[row * self.columns + usize::from(self.order[column])] = w;
        }
        weights
    }
}

impl Level2 {
    fn of(numbers: &[f32], columns: usize) -> Self {
        let tiles = numbers.len().div_ceil(16 * columns) * columns;
        let mut level = Self(vec![0; numbers.len()], Vec::new(), Vec::new());
        for tile in 0..tiles {
            let at = |i: usize| (tile / columns * 16 + i) * columns + tile % columns;
            let of_tile: Vec<f32> = (0..16).filter_map(|i| numbers.get(at(i)).copied()).collect();
            let (low, high) = of_tile.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
            let scale = ((high - low) / 7.0).max(1e-4);
            level.1.push(f16::from_f32(scale));
            level.2.push(f16::from_f32(-low / scale));
            for (i, x) in of_tile.iter().enumerate() {
                level.0[at(i)] = ((x - low) / scale).round().clamp(0.0, 7.0) as u8;
            }
        }
        level
    }

    fn parts(&self) -> Parts {
        let plain = |numbers: &[f16]| Parts::Components(vec![Parts::Whole(halves(numbers))]);
        Parts::Components(vec![Parts::Whole(self.0.clone()), plain(&self.1), plain(&self.2)])
    }

    fn get(&self, row: usize, column: usize, columns: usize) -> f16 {
        let tile = row / 16 * columns + column;
        self.1[tile] * (f16::from_f32(self.0[row * columns + column].into()) - self.2[tile])
    }
}

/// Both ways with outliers, on a matrix whose last tile has fewer rows.
#[test]
fn encodings_inside_encodings_follow_the_formula() {
    let matrix = Matrix::random(&mut Rng::new(1), 40, 48);
    let array = array(40 * 48, 48);
    for mode in ["replace", "add"] {
        let stored = stored(&permuted(&with_outliers(mode)));
        let (block, rounded) = stored.encode_parts(array, matrix.permuted(), Level::Max, &mut Scratch::new()).unwrap();
        assert_eq!(rounded, halves(&matrix.weights(mode == "add")));
        assert_eq!(decoded(&stored, array, &block), rounded);
    }
}

/// Bytes of the blocks of a file, with their headers and records.
fn size(encoding: &Value, array: Array, blocks: impl Iterator<Item = Parts>) -> usize {
    let (stored, mut scratch) = (stored(encoding), Scratch::new());
    let len = |parts| {
        let block = stored.encode_parts(array, parts, Level::Max, &mut scratch).unwrap().0;
        (block_header_len(block.streams.len()) + block.payload.len()).next_multiple_of(64) + 32
    };
    blocks.map(len).sum()
}

/// Four blocks of a mebibyte of a matrix of 4096 columns, one weight in a hundred an outlier: blocks of a tensor differ in nothing but chance.
#[test]
fn three_bits_take_less_than_the_bar() {
    let (rows, columns) = (128, 4096);
    let mut rng = Rng::new(2);
    let matrices: Vec<Matrix> = (0..4).map(|_| Matrix::random(&mut rng, rows, columns)).collect();
    let weights = (matrices.len() * rows * columns) as f64;
    let outliers: usize = matrices.iter().map(|matrix| matrix.values.len()).sum();
    let array = array(rows * columns, columns);
    let without = size(&dense(), array, matrices.iter().map(Matrix::dense));
    let with = size(&with_outliers("replace"), array, matrices.iter().map(Matrix::with_outliers));
    let dense_bits = 8.0 * without as f64 / weights;
    let each = 8.0 * (with - without) as f64 / outliers as f64;
    println!("{dense_bits:.4} bits a weight and {each:.2} bits an outlier");
    assert!((0.009..0.011).contains(&(outliers as f64 / weights)), "one outlier in a hundred weights");
    assert!(dense_bits <= 3.63, "{dense_bits} bits a weight without outliers");
    assert!(each <= 25.0, "{each} bits an outlier");
    assert!(8.0 * with as f64 / weights <= 3.88);
}
