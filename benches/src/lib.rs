//! What the benchmarks share: weights, synthetic and cast, and the files they lie in.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::path::Path;

pub mod datasets;

/// A small fast generator (xorshift64*): the same seed gives the same weights everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; the seed must not be zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Normally distributed numbers by table: 65,536 of them, so that drawing is one look-up.
#[derive(Debug)]
pub struct Gaussian(Vec<f32>);

impl Default for Gaussian {
    fn default() -> Self {
        let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let table = (0..1 << 15).flat_map(|_| {
            // Box and Muller, 1958.
            let radius = (-2.0 * unit(random.next_u64()).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(random.next_u64());
            [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
        });
        Self(table.collect())
    }
}

impl Gaussian {
    /// Fills `row` with BF16 weights of this scale, little-endian.
    pub fn fill_bf16(&self, random: &mut Random, scale: f32, row: &mut [u8]) {
        for four in row.chunks_mut(8) {
            let mut bits = random.next_u64();
            for element in four.chunks_exact_mut(2) {
                let weight = self.0[(bits & 0xffff) as usize] * scale;
                element.copy_from_slice(&half::bf16::from_f32(weight).to_le_bytes());
                bits >>= 16;
            }
        }
    }
}

/// Begins a safetensors file of these tensors (name, name of the element type, shape, length
/// in bytes), whose bytes the caller writes behind it.
///
/// # Errors
/// What the file system returns.
pub fn begin_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a str, &'a [u64], usize)>,
) -> io::Result<BufWriter<std::fs::File>> {
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut start = 0;
    for (name, dtype, shape, len) in tensors {
        let end = start + len;
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header += &format!(",{}:{entry}", serde_json::json!(name));
        start = end;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    Ok(file)
}

/// Writes a checkpoint of BF16 matrices with a scale per row to `path`.
///
/// # Errors
/// What the file system returns.
pub fn write_checkpoint(path: &Path, tensors: usize, rows: usize, columns: usize) -> io::Result<()> {
    let names: Vec<String> = (0..tensors).map(|t| format!("layers.{t}.weight")).collect();
    let shape = [rows as u64, columns as u64];
    let mut file = begin_safetensors(path, names.iter().map(|name| (&**name, "BF16", &shape[..], rows * columns * 2)))?;
    let gaussian = Gaussian::default();
    let mut random = Random::new(1);
    let mut row = vec![0; columns * 2];
    for _ in 0..tensors * rows {
        let scale = 0.02 * (1.0 + (random.next_u64() >> 40) as f32 / (1 << 24) as f32);
        gaussian.fill_bf16(&mut random, scale, &mut row);
        file.write_all(&row)?;
    }
    file.flush()
}
