//! Makes quantized tensors and what they stand for, from the pages of the layouts and in double precision, sharing nothing with the
//! decoders.

use cmz_format::Dtype;

/// A tensor: the end of its name, element type, shape and bytes.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) suffix: &'static str,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a module, and its weights.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) parts: Vec<Part>,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) dense: Vec<u8>,
}

/// Numbers that look random.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn many(&mut self, count: usize, n: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(n) as u32).collect()
    }

    /// Positive scales of many magnitudes, as bits of a type.
    fn scales(&mut self, count: usize, float: Float) -> Vec<u32> {
        (0..count)
            .map(|_| float.bits((1.0 + self.below(1000) as f64 / 997.0) * 2f64.powi(-(self.below(9) as i32))))
            .collect()
    }

    fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|i| order.swap(i, self.below(i + 1)));
        order
    }
}

/// A binary floating-point type: its name, bias and bits of mantissa.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Float(pub(crate) &'static str, i32, u32);

pub(crate) const F16: Float = Float("F16", 15, 10);
pub(crate) const BF16: Float = Float("BF16", 127, 7);
pub(crate) const F32: Float = Float("F32", 127, 23);

impl Float {
    /// The nearest number, ties to even.
    fn bits(self, x: f64) -> u32 {
        let Self(_, bias, mantissa) = self;
        let infinity = ((2 * bias + 1) as u32) << mantissa;
        if x.is_nan() {
            return infinity | 1 << (mantissa - 1);
        }
        let sign = u32::from(x.is_sign_negative()) << (if self == F32 { 31 } else { 15 });
        let exponent = (((x.to_bits() >> 52 & 2047) as i32) - 1023).max(1 - bias);
        let steps = (x.abs() / 2f64.powi(exponent - mantissa as i32)).round_ties_even();
        let bits = if steps.is_finite() && exponent <= bias {
            (((exponent + bias) as u32) << mantissa) + steps as u32 - (1 << mantissa)
        } else {
            infinity
        };
        sign | bits.min(infinity)
    }

    fn value(self, bits: u32) -> f64 {
        let Self(_, bias, mantissa) = self;
        let top = if self == F32 { 31 } else { 15 };
        let (sign, rest) = (bits >> top, bits & ((1 << top) - 1));
        let (exponent, fraction) = ((rest >> mantissa) as i32, f64::from(rest & ((1 << mantissa) - 1)));
        let unit = 2f64.powi(-(mantissa as i32));
        let magnitude = match exponent {
            0 => fraction * unit * 2f64.powi(1 - bias),
            e if e == 2 * bias + 1 => {
                if fraction == 0.0 {
                    f64::INFINITY
                } else {
                    f64::NAN
                }
            }
            e => (1.0 + fraction * unit) * 2f64.powi(e - bias),
        };
        if sign == 1 { -magnitude } else { magnitude }
    }

    fn round(self, x: f64) -> f64 {
        self.value(self.bits(x))
    }

    fn bytes(self, bits: &[u32]) -> Vec<u8> {
        bits.iter().flat_map(|bits| bits.to_le_bytes()[..if self == F32 { 4 } else { 2 }].to_vec()).collect()
    }
}

/// Codes as bits, one behind the other, in words.
fn dense(codes: &[u32], bits: usize) -> Vec<u32> {
    let mut words = vec![0; (codes.len() * bits).div_ceil(32)];
    let all = codes.iter().flat_map(|code| (0..bits).map(move |bit| code >> bit & 1));
    all.enumerate().for_each(|(i, bit)| words[i / 32] |= bit << (i % 32));
    words
}

/// As many codes as fit each word.
fn padded(codes: &[u32], bits: usize) -> Vec<u32> {
    codes.chunks(32 / bits).map(|some| dense(some, bits)[0]).collect()
}

fn part(suffix: &'static str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Part {
    Part { suffix, dtype, shape: shape.iter().map(|&n| n as u64).collect(), bytes }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn transposed<T: Copy>(rows: usize, matrix: &[T]) -> Vec<T> {
    let columns = matrix.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

fn made(parts: Vec<Part>, float: Float, shape: &[usize], values: impl IntoIterator<Item = f64>) -> Made {
    let bits: Vec<u32> = values.into_iter().map(|x| float.bits(x)).collect();
    let shape = shape.iter().map(|&n| n as u64).collect();
    Made { parts, dtype: float.0, shape, dense: float.bytes(&bits) }
}

/// GPTQ: `minus_one` for version 1; with activation order if `act_order`.
pub(crate) fn gptq(
    rng: &mut Rng,
    (n, k): (usize, usize),
    bits: usize,
    group: usize,
    minus_one: bool,
    act_order: bool,
) -> Made {
    let groups = k.div_ceil(group);
    let mut g_idx: Vec<u32> = (0..k).map(|column| (column / group) as u32).collect();
    if act_order {
        let order = rng.permutation(k);
        g_idx = order.iter().map(|&place| g_idx[place]).collect();
    }
    let (codes, zeros) = (rng.many(n * k, 1 << bits), rng.many(groups * n, 1 << bits));
    let scales = rng.scales(groups * n, F16);
    let columns: Vec<Vec<u32>> = codes.chunks(k).map(|row| dense(row, bits)).collect();
    let qweight = transposed(n, &columns.concat());
    let stored = |z: &u32| if minus_one { (z + (1 << bits) - 1) % (1 << bits) } else { *z };
    let qzeros: Vec<u32> =
        zeros.chunks(n).flat_map(|row| dense(&row.iter().map(stored).collect::<Vec<_>>(), bits)).collect();
    let value = |i: usize| {
        let at = g_idx[i % k] as usize * n + i / k;
        (f64::from(codes[i]) - f64::from(zeros[at])) * F16.value(scales[at])
    };
    let parts = vec![
        part("qweight", "I32", &[qweight.len() / n, n], words(&qweight)),
        part("qzeros", "I32", &[groups, qzeros.len() / groups], words(&qzeros)),
        part("scales", "F16", &[groups, n], F16.bytes(&scales)),
        part("g_idx", "I32", &[k], words(&g_idx)),
    ];
    made(parts, F16, &[n, k], (0..n * k).map(value))
}

/// AWQ for GEMM kernels.
pub(crate) fn awq(rng: &mut Rng, (n, k): (usize, usize), group: usize) -> Made {
    let groups = k / group;
    let (codes, zeros) = (rng.many(n * k, 16), rng.many(groups * n, 16));
    let scales = rng.scales(groups * n, F16);
    let pack = |row: &[u32]| -> Vec<u32> {
        let word = |eight: &[u32]| [0, 2, 4, 6, 1, 3, 5, 7].iter().rev().fold(0, |word, &i| word << 4 | eight[i]);
        row.chunks(8).map(word).collect()
    };
    let qweight: Vec<u32> = transposed(n, &codes).chunks(n).flat_map(pack).collect();
    let qzeros: Vec<u32> = zeros.chunks(n).flat_map(pack).collect();
    let value = |i: usize| {
        let at = i % k / group * n + i / k;
        (f64::from(codes[i]) - f64::from(zeros[at])) * F16.value(scales[at])
    };
    let parts = vec![
        part("qweight", "I32", &[k, n / 8], words(&qweight)),
        part("qzeros", "I32", &[groups, n / 8], words(&qzeros)),
        part("scales", "F16", &[groups, n], F16.bytes(&scales)),
    ];
    made(parts, F16, &[n, k], (0..n * k).map(value))
}

/// How `pack-quantized` weights differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackQuantized {
    pub(crate) bits: usize,
    pub(crate) group: usize,
    pub(crate) dense: bool,
    pub(crate) asymmetric: bool,
    pub(crate) act_order: bool,
    pub(crate) scale: Float,
}

pub(crate) fn pack_quantized(rng: &mut Rng, (n, k): (usize, usize), form: PackQuantized) -> Made {
    let PackQuantized { bits, group, scale, .. } = form;
    let groups = k.div_ceil(group);
    let pack = |codes: &[u32]| if form.dense { dense(codes, bits) } else { padded(codes, bits) };
    let mut g_idx: Vec<u32> = (0..k).map(|column| (column / group) as u32).collect();
    if form.act_order {
        let order = rng.permutation(k);
        g_idx = order.iter().map(|&place| g_idx[place]).collect();
    }
    let offset = 1i32 << (bits - 1);
    let signed =
        |rng: &mut Rng, count| -> Vec<i32> { rng.many(count, 1 << bits).iter().map(|&u| u as i32 - offset).collect() };
    let codes = signed(rng, n * k);
    let zeros = if form.asymmetric { signed(rng, n * groups) } else { vec![0; n * groups] };
    let scales = rng.scales(n * groups, scale);
    let unsigned = |all: &[i32]| -> Vec<u32> { all.iter().map(|&q| (q + offset) as u32).collect() };
    let packed: Vec<u32> = codes.chunks(k).flat_map(|row| pack(&unsigned(row))).collect();
    let mut parts = vec![
        part("weight_packed", "I32", &[n, packed.len() / n], words(&packed)),
        part("weight_scale", scale.0, &[n, groups], scale.bytes(&scales)),
        part("weight_shape", "I64", &[2], [n as u64, k as u64].iter().flat_map(|d| d.to_le_bytes()).collect()),
    ];
    if form.asymmetric {
        let columns: Vec<Vec<u32>> = transposed(n, &zeros).chunks(n).map(|column| pack(&unsigned(column))).collect();
        let zero_points = transposed(groups, &columns.concat());
        parts.push(part("weight_zero_point", "I32", &[zero_points.len() / groups, groups], words(&zero_points)));
    }
    if form.act_order {
        parts.push(part("weight_g_idx", "I32", &[k], words(&g_idx)));
    }
    let value = |i: usize| {
        let at = i / k * groups + g_idx[i % k] as usize;
        f64::from(codes[i] - zeros[at]) * scale.value(scales[at])
    };
    made(parts, scale, &[n, k], (0..n * k).map(value))
}

/// What an `F8_E4M3` is.
fn e4m3(byte: u32) -> f64 {
    let (exponent, mantissa) = ((byte >> 3 & 15) as i32, f64::from(byte & 7) / 8.0);
    let magnitude = match exponent {
        15 if byte & 7 == 7 => f64::NAN,
        0 => mantissa * 2f64.powi(-6),
        e => (1.0 + mantissa) * 2f64.powi(e - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Numbers of a byte (`F8_E4M3` or `I8`) with a scale for each block.
pub(crate) fn block_scaled(
    rng: &mut Rng,
    shape: &[usize],
    block: (usize, usize),
    codes: &'static str,
    scale: Float,
    names: (&'static str, &'static str),
) -> Made {
    let [stack @ .., n, k] = shape else { panic!("a matrix at least") };
    let (stack, n, k) = (stack.iter().product::<usize>(), *n, *k);
    let (down, across) = (n.div_ceil(block.0), k.div_ceil(block.1));
    let bytes = rng.many(stack * n * k, 256);
    let scales = rng.scales(stack * down * across, scale);
    let value = |i: usize| {
        let (matrix, row, column) = (i / (n * k), i / k % n, i % k);
        let at = (matrix * down + row / block.0) * across + column / block.1;
        let number = if codes == "I8" { f64::from(bytes[i] as u8 as i8) } else { e4m3(bytes[i]) };
        F32.round(number * scale.value(scales[at]))
    };
    let scale_shape: Vec<usize> = [&shape[..shape.len() - 2], &[down, across]].concat();
    let parts = vec![
        part(names.0, codes, shape, bytes.iter().map(|&byte| byte as u8).collect()),
        part(names.1, scale.0, &scale_shape, scale.bytes(&scales)),
    ];
    made(parts, BF16, shape, (0..stack * n * k).map(value))
}

const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn e2m1(code: u32) -> f64 {
    if code < 8 { E2M1[code as usize] } else { -E2M1[code as usize - 8] }
}

/// Two codes to a byte, the first in the low bits.
fn low_first(codes: &[u32]) -> Vec<u8> {
    codes.chunks(2).map(|pair| (pair[0] + 16 * pair[1]) as u8).collect()
}

/// NVFP4, by compressed-tensors (the scale of the tensor divides) or by ModelOpt (it multiplies).
pub(crate) fn nvfp4(rng: &mut Rng, (n, k): (usize, usize), divisor: bool) -> Made {
    let (codes, scales) = (rng.many(n * k, 16), rng.many(n * k / 16, 0x7f));
    let global = F32.round(if divisor { 2688.0 / 3.7 } else { 3.7 / 2688.0 });
    let value = |i: usize| {
        let scale = e4m3(scales[i / 16]);
        let scale = F32.round(if divisor { scale / global } else { scale * global });
        F32.round(e2m1(codes[i]) * scale)
    };
    let names = match divisor {
        true => ["weight_packed", "weight_scale", "weight_global_scale"],
        false => ["weight", "weight_scale", "weight_scale_2"],
    };
    let parts = vec![
        part(names[0], "U8", &[n, k / 2], low_first(&codes)),
        part(names[1], "F8_E4M3", &[n, k / 16], scales.iter().map(|&scale| scale as u8).collect()),
        part(names[2], "F32", if divisor { &[1] } else { &[] }, F32.bytes(&[F32.bits(global)])),
    ];
    made(parts, BF16, &[n, k], (0..n * k).map(value))
}

/// MXFP4: a matrix, or experts whose weights are transposed as gpt-oss has them.
pub(crate) fn mxfp4(rng: &mut Rng, stack: Option<usize>, (n, k): (usize, usize)) -> Made {
    let count = stack.unwrap_or(1);
    let codes = rng.many(count * n * k, 16);
    // All exponents that give numbers in range, and one that gives none.
    let exponents: Vec<u32> =
        (0..count * n * k / 32).map(|i| if i == 3 { 255 } else { rng.below(240) as u32 }).collect();
    let value = |i: usize| match exponents[i / 32] {
        255 => f64::NAN,
        exponent => e2m1(codes[i]) * 2f64.powi(exponent as i32 - 127),
    };
    let values: Vec<f64> = (0..count * n * k).map(value).collect();
    let scales: Vec<u8> = exponents.iter().map(|&exponent| exponent as u8).collect();
    match stack {
        None => {
            let parts = vec![
                part("weight_packed", "U8", &[n, k / 2], low_first(&codes)),
                part("weight_scale", "U8", &[n, k / 32], scales),
            ];
            made(parts, BF16, &[n, k], values)
        }
        Some(stack) => {
            let parts = vec![
                part("down_proj_blocks", "U8", &[stack, n, k / 32, 16], low_first(&codes)),
                part("down_proj_scales", "U8", &[stack, n, k / 32], scales),
            ];
            made(parts, BF16, &[stack, k, n], values.chunks(n * k).flat_map(|matrix| transposed(n, matrix)))
        }
    }
}

/// bitsandbytes NF4, with magnitudes that are quantized in turn if `nested`.
pub(crate) fn nf4(rng: &mut Rng, (n, k): (usize, usize), nested: bool, storage: Dtype) -> Made {
    let elements = n * k;
    let codes = rng.many(elements.next_multiple_of(2), 16);
    let table: Vec<f64> = (0..16).map(|i| F32.round(f64::from(i - 7) / 8.3)).collect();
    let blocks = elements.div_ceil(64);
    let mut state = format!(r#"{{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[{n},{k}]"#);
    let floats = |values: &[f64]| F32.bytes(&values.iter().map(|&x| F32.bits(x)).collect::<Vec<_>>());
    let codes_bytes: Vec<u8> = codes.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
    let stored = codes_bytes.len() / (storage.bits() / 8) as usize;
    let mut parts = vec![part("weight", storage.name(), &[stored, 1], codes_bytes)];
    let magnitudes: Vec<f64> = if nested {
        let bytes = rng.many(blocks, 256);
        let map: Vec<f64> = (0..256).map(|i| F32.round(f64::from(i - 128) / 131.0)).collect();
        let outer: Vec<f64> =
            (0..blocks.div_ceil(256)).map(|_| F32.round(0.1 + rng.below(100) as f64 / 77.0)).collect();
        let offset = F32.round(0.043_217);
        state += &format!(r#","nested_blocksize":256,"nested_dtype":"float32","nested_offset":{offset}"#);
        parts.push(part("weight.absmax", "U8", &[blocks], bytes.iter().map(|&byte| byte as u8).collect()));
        parts.push(part("weight.nested_absmax", "F32", &[outer.len()], floats(&outer)));
        parts.push(part("weight.nested_quant_map", "F32", &[256], floats(&map)));
        let magnitude = |i: usize| F32.round(F32.round(map[bytes[i] as usize] * outer[i / 256]) + offset);
        (0..blocks).map(magnitude).collect()
    } else {
        let magnitudes: Vec<f64> = (0..blocks).map(|_| F32.round(0.01 + rng.below(999) as f64 / 777.0)).collect();
        parts.push(part("weight.absmax", "F32", &[blocks], floats(&magnitudes)));
        magnitudes
    };
    state.push('}');
    parts.push(part("weight.quant_map", "F32", &[16], floats(&table)));
    parts.push(part("weight.quant_state.bitsandbytes__nf4", "U8", &[state.len()], state.into_bytes()));
    let value = |i: usize| F32.round(table[codes[i] as usize] * magnitudes[i / 64]);
    made(parts, BF16, &[n, k], (0..elements).map(value))
}

/// bitsandbytes LLM.int8.
pub(crate) fn int8(rng: &mut Rng, (n, k): (usize, usize)) -> Made {
    let (codes, magnitudes) = (rng.many(n * k, 256), rng.scales(n, F32));
    let step = F32.round(1.0 / 127.0);
    let value = |i: usize| {
        let product = F32.round(f64::from(codes[i] as u8 as i8) * F32.value(magnitudes[i / k]));
        F32.round(product * step)
    };
    let parts = vec![
        part("weight", "I8", &[n, k], codes.iter().map(|&code| code as u8).collect()),
        part("SCB", "F32", &[n], F32.bytes(&magnitudes)),
        part("weight_format", "U8", &[], vec![0]),
    ];
    made(parts, F16, &[n, k], (0..n * k).map(value))
}

/// SpQR for inference: outliers by tiles if `tiled`.
pub(crate) fn spqr(rng: &mut Rng, (m, n): (usize, usize), tiled: bool, permuted: bool) -> Made {
    let (down, across) = (m.div_ceil(16), n.div_ceil(16));
    let half = |x: f64| F16.round(x);
    let order = if permuted { rng.permutation(n) } else { (0..n).collect() };
    let (mut codes, mut stored) = (vec![0u64; down * across * 16], vec![0.0; m * n]);
    for tile in 0..down * across {
        // Scale of scales, scale of zero points, zero point of scales, zero point of zero points.
        let second = [0.007, 0.6, -0.5, -1.3].map(|x| F16.bits(x * (1.0 + rng.below(100) as f64 / 300.0)));
        let second_bytes: Vec<u8> = second.iter().flat_map(|bits| bits.to_le_bytes()[..2].to_vec()).collect();
        let [ss, zs, sz, zz] = second.map(|bits| F16.value(bits));
        let rows = (m - tile / across * 16).min(16);
        let columns = (n - tile % across * 16).min(16);
        for r in 0..rows {
            let (qs, qz) = (rng.below(8), rng.below(8));
            let mut word = (qs + 8 * qz) as u64 | u64::from(second_bytes[r / 2]) << 54;
            // A ragged tile lacks the bytes of the rows that are not there: readers see zeros.
            let seen = |byte: usize| if byte * 2 < rows { second_bytes[byte] } else { 0 };
            let seen = |i: usize, whole: f64| match rows {
                16 => whole,
                _ => F16.value(u32::from(seen(2 * i)) | u32::from(seen(2 * i + 1)) << 8),
            };
            let scale = half(seen(0, ss) * half(qs as f64 - seen(2, sz)));
            let zero = half(seen(1, zs) * half(qz as f64 - seen(3, zz)));
            for c in 0..columns {
                let code = rng.below(8);
                word |= (code as u64) << (6 + 3 * c);
                let (row, column) = (tile / across * 16 + r, tile % across * 16 + c);
                stored[row * n + column] = half(scale * half(code as f64 - zero));
            }
            codes[tile * 16 + r] = word;
        }
    }
    let outliers: Vec<Vec<(usize, u32)>> = (0..m)
        .map(|_| (0..rng.below(4)).map(|_| (rng.below(n), F16.bits(rng.below(400) as f64 / 100.0 - 2.0))).collect())
        .collect();
    for (row, of_row) in outliers.iter().enumerate() {
        for &(column, bits) in of_row {
            stored[row * n + column] = F32.round(stored[row * n + column] + F16.value(bits));
        }
    }
    let word = |&(column, bits): &(usize, u32)| bits << 16 | column as u32;
    let (mut offsets, mut entries) = (vec![0], Vec::new());
    for rows in outliers.chunks(if tiled { 16 } else { 1 }) {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let place = |i: usize| rows.iter().map(move |row| row.get(i).map_or(0, word));
        entries.extend((0..longest).flat_map(place));
        offsets.push(entries.len() as u32);
    }
    let mut parts = vec![
        part("dense_weights", "I64", &[codes.len()], codes.iter().flat_map(|word| word.to_le_bytes()).collect()),
        part("row_offsets", "I32", &[offsets.len()], words(&offsets)),
        part("col_vals", "I32", &[entries.len()], words(&entries)),
    ];
    if permuted {
        let bytes = order.iter().flat_map(|&column| (column as u16).to_le_bytes()).collect();
        parts.push(part("in_perm", "I32", &[n / 2], bytes));
    }
    let mut values = vec![0.0; m * n];
    for (i, &value) in stored.iter().enumerate() {
        // Padding of the tiles adds zeros to column 0, which turns −0 into +0.
        let padded = tiled
            && i % n == 0
            && outliers[i / n / 16 * 16..][..16].iter().any(|row| row.len() > outliers[i / n].len());
        values[i / n * n + order[i % n]] = if padded { value + 0.0 } else { value };
    }
    made(parts, F16, &[m, n], values)
}

/// QMoE: rows in codewords of single pairs, whose numbers the page of the dictionary tells.
pub(crate) fn qmoe(rng: &mut Rng, (m, n): (usize, usize)) -> Made {
    const PAIRS: [u16; 9] = [0, 12, 13, 14, 326, 327, 15, 328, 329];
    let (mut codewords, mut offsets, mut extremes, mut values) = (Vec::new(), vec![0u32], Vec::new(), Vec::new());
    for row in 0..m {
        let of = [0.0, if row % 3 == 1 { 0.0 } else { -0.25 - row as f64 }, 0.5 + row as f64].map(|x| BF16.bits(x));
        let symbols: Vec<usize> = (0..n).map(|_| if rng.below(8) == 0 { 1 + rng.below(2) } else { 0 }).collect();
        let pair = |pair: &[usize]| PAIRS[pair[0] + 3 * pair.get(1).copied().unwrap_or(0)];
        codewords.extend(symbols.chunks(2).map(pair));
        offsets.push(codewords.len() as u32);
        extremes.extend([of[1], of[2]]);
        values.extend(symbols.iter().map(|&symbol| BF16.value(of[symbol])));
    }
    let parts = vec![
        part("w_comp", "I16", &[codewords.len()], codewords.iter().flat_map(|word| word.to_le_bytes()).collect()),
        part("row_off", "I32", &[offsets.len()], words(&offsets)),
        part("ter_minmax", "BF16", &[2 * m], BF16.bytes(&extremes)),
        part("weight", "BF16", &[0], Vec::new()),
    ];
    made(parts, BF16, &[m, n], values)
}

/// How what SpQR's quantizer saves differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpqrGroups {
    pub(crate) group: usize,
    /// Rows that share numbers of a second level.
    pub(crate) shared: Option<usize>,
    pub(crate) float: Float,
}

/// SpQR as its quantizer saves it.
pub(crate) fn spqr_groups(rng: &mut Rng, (m, n): (usize, usize), form: SpqrGroups) -> Made {
    let SpqrGroups { group, shared, float } = form;
    let order = rng.permutation(n);
    let codes = rng.many(m * n, 8);
    let bytes = |codes: &[u32]| codes.iter().map(|&code| code as u8).collect::<Vec<_>>();
    let mut parts = vec![
        part("quant_weights", "I8", &[m, n], bytes(&codes)),
        part("perm", "I32", &[n], words(&order.iter().map(|&column| column as u32).collect::<Vec<_>>())),
    ];
    let (mut scales, mut zeros) = (Vec::new(), Vec::new());
    for g in 0..n.div_ceil(group) {
        let names = [["scale", "scale_qq_scale", "scale_qq_zero"], ["zeros", "zero_qq_scale", "zero_qq_zero"]];
        for (names, all) in names.into_iter().zip([&mut scales, &mut zeros]) {
            let name = |i: usize| &*format!("quant_layer_{}.{g}", names[i]).leak();
            let Some(shared) = shared else {
                let numbers = rng.scales(m, float);
                all.extend(numbers.iter().map(|&bits| float.value(bits)));
                parts.push(part(name(0), float.0, &[m, 1], float.bytes(&numbers)));
                continue;
            };
            let first = rng.many(m, 8);
            let second = [rng.scales(m / shared, float), rng.scales(m / shared, float)];
            let number = |row: usize| {
                let [scale, zero] = [&second[0], &second[1]].map(|of| float.value(of[row / shared]));
                float.round(scale * float.round(f64::from(first[row]) - zero))
            };
            all.extend((0..m).map(number));
            parts.push(part(name(0), "I8", &[m / shared, shared], bytes(&first)));
            parts.extend([1, 2].map(|i| part(name(i), float.0, &[m / shared, 1], float.bytes(&second[i - 1]))));
        }
    }
    let (mut rows, mut columns, mut values, mut dense) = (Vec::new(), Vec::new(), Vec::new(), vec![0.0; m * n]);
    for (i, &code) in codes.iter().enumerate() {
        let at = i % n / group * m + i / n;
        let mut x = float.round(scales[at] * float.round(f64::from(code) - zeros[at]));
        if rng.below(20) == 0 {
            let outlier = float.round(rng.below(9) as f64 / 3.0 - 1.0);
            rows.push(i / n);
            columns.push(i % n);
            values.push(float.bits(outlier));
            x = if outlier == 0.0 { x } else { outlier };
        }
        // No element is -0.
        dense[i / n * n + order[i % n]] = x + 0.0;
    }
    let places = [rows, columns].concat();
    let places = places.iter().flat_map(|&place| (place as u64).to_le_bytes()).collect();
    parts.push(part("outliers_matrix.indices", "I64", &[2, values.len()], places));
    parts.push(part("outliers_matrix.values", float.0, &[values.len()], float.bytes(&values)));
    made(parts, float, &[m, n], dense)
}
