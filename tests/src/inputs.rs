//! Deterministic inputs: random bits, bytes of trained weights in kind, and the bank of
//! symbol arrays that every stream codec is tried on.

use cmz_codec::stream::Width;

/// A small generator (SplitMix64, Steele and others 2014): the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that is determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.bits().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// About normally distributed, with standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        let sum: u64 = (0..4).map(|_| self.bits() >> 48).sum();
        (sum as f32 / 65536.0 - 2.0) * 1.732
    }
}

/// `count` little-endian BF16 values distributed like weights.
#[must_use]
pub fn bf16_weights(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).flat_map(|_| ((rng.normal() * 0.05).to_bits() >> 16).to_le_bytes()[..2].to_vec()).collect()
}

/// `count` little-endian F32 values distributed like weights.
#[must_use]
pub fn f32_weights(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).flat_map(|_| (rng.normal() * 0.05).to_le_bytes()).collect()
}

/// Bytes of which a few values are common.
#[must_use]
pub fn skewed(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len)
        .map(|_| (rng.bits().trailing_zeros() * 3) as u8 ^ (u8::from(rng.bits().is_multiple_of(61)) * 0x55))
        .collect()
}

/// Lengths of arrays around the sizes at which codecs change their ways, in symbols.
pub const LENGTHS: &[usize] =
    &[0, 1, 2, 3, 7, 8, 9, 15, 16, 31, 33, 63, 64, 65, 100, 127, 128, 255, 256, 257, 1000, 4095, 4096, 4097, 9001];

/// Arrays of `len` symbols of a width, as they lie in memory: constant, few values,
/// ramps, skewed, alternating, random.
#[must_use]
pub fn symbols(width: Width, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    let mask = (1u32 << width.bits()) - 1;
    let pack = |values: Vec<u32>| -> Vec<u8> {
        values.into_iter().flat_map(|v| (v & mask).to_le_bytes()[..width.bytes()].to_vec()).collect()
    };
    let n = len as u32;
    let skew = skewed(seed, len);
    vec![
        pack(vec![0; len]),
        pack(vec![mask; len]),
        pack((0..n).collect()),
        pack((0..n).map(|i| i / 97).collect()),
        pack((0..n).map(|i| if i % 2 == 0 { 0 } else { mask }).collect()),
        pack(skew.into_iter().map(u32::from).collect()),
        pack((0..n).map(|_| u32::from(rng.bits().is_multiple_of(50)) * rng.bits() as u32).collect()),
        pack((0..n).map(|_| rng.bits() as u32).collect()),
    ]
}

/// Every width that a symbol can have.
pub fn widths() -> impl Iterator<Item = Width> {
    (1..=16).map(Width::new)
}

/// Values of a 4-bit float, E2M1, without the sign.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The E2M1 code nearest to a number.
fn e2m1(value: f32) -> u8 {
    let distance = |code: &u8| (E2M1[usize::from(*code)] - value.abs()).abs();
    let code = (0..8).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
    u8::from(value < 0.0) << 3 | code
}

/// Two codes to a byte, the first in the low bits.
fn packed(codes: &[u8]) -> Vec<u8> {
    codes.chunks_exact(2).map(|pair| pair[1] << 4 | pair[0]).collect()
}

/// Weights in MXFP4 (OCP Microscaling Formats 1.0): packed codes, and an E8M0 scale for each 32
/// of them.
#[must_use]
pub fn mxfp4(weights: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for group in weights.chunks_exact(32) {
        let largest = group.iter().fold(f32::MIN_POSITIVE, |most, w| most.max(w.abs()));
        let exponent = ((largest.to_bits() >> 23) as i32 - 127 - 2).clamp(-126, 127);
        scales.push((exponent + 127) as u8);
        codes.extend(group.iter().map(|w| e2m1(w / (exponent as f32).exp2())));
    }
    (packed(&codes), scales)
}

/// Weights in NVFP4: packed codes, and an E4M3 scale for each 16 of them.
#[must_use]
pub fn nvfp4(weights: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let largest = |group: &[f32]| group.iter().fold(f32::MIN_POSITIVE, |most, w| most.max(w.abs()));
    let whole = largest(weights) / (6.0 * 448.0);
    // The positive E4M3 numbers below NaN.
    let e4m3: Vec<f32> = (0..127u8)
        .map(|bits| match (bits >> 3, f32::from(bits & 7)) {
            (0, mantissa) => mantissa / 512.0,
            (exponent, mantissa) => (1.0 + mantissa / 8.0) * (f32::from(exponent) - 7.0).exp2(),
        })
        .collect();
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for group in weights.chunks_exact(16) {
        let wanted = largest(group) / 6.0 / whole;
        let above = e4m3.partition_point(|&value| value < wanted).min(126);
        scales.push(above as u8);
        codes.extend(group.iter().map(|w| e2m1(w / (e4m3[above].max(1.0 / 512.0) * whole))));
    }
    (packed(&codes), scales)
}

/// Weights as integers of -7 to 7 in groups of 128, each with its own scale: codes of 4 bits, packed.
#[must_use]
pub fn int4(weights: &[f32]) -> Vec<u8> {
    let codes = weights.chunks_exact(128).flat_map(|group| {
        let largest = group.iter().fold(f32::MIN_POSITIVE, |most, w| most.max(w.abs()));
        group.iter().map(move |w| ((w / largest * 7.0).round() + 8.0) as u8)
    });
    packed(&codes.collect::<Vec<_>>())
}
