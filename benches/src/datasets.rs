//! The data sets that `benches/peers` measures on: the floats of a model, cast to several
//! types, and a Gaussian matrix.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use cmz_codec::io::{PlainFile, ReadAt};
use cmz_codec::safetensors::{Entry, Header};

/// Columns of the Gaussian matrix.
const COLUMNS: usize = 8192;

/// A type that weights are cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// As they are.
    F32,
    /// Rounded to nearest even.
    Bf16,
    /// Rounded to nearest even.
    F16,
    /// Rounded to nearest even, what is too large to the largest value.
    F8E4M3,
}

impl Cast {
    /// Every type with the name of its data set and of its elements in safetensors files.
    pub const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Bf16, "bf16", "BF16"),
        (Self::F32, "f32", "F32"),
        (Self::F16, "f16", "F16"),
        (Self::F8E4M3, "f8", "F8_E4M3"),
    ];

    /// The weights in this type, little-endian.
    #[must_use]
    pub fn of(self, weights: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
            Self::Bf16 => weights.iter().flat_map(|&w| half::bf16::from_f32(w).to_le_bytes()).collect(),
            Self::F16 => weights.iter().flat_map(|&w| half::f16::from_f32(w).to_le_bytes()).collect(),
            Self::F8E4M3 => weights.iter().map(|&w| e4m3(w)).collect(),
        }
    }
}

/// The nearest E4M3 number (the kind without infinities), ties to even, saturating.
fn e4m3(x: f32) -> u8 {
    const LARGEST: u8 = 0x7e;
    let magnitude = x.abs();
    let code = if x.is_nan() {
        0x7f
    } else if magnitude >= 448.0 {
        LARGEST
    } else {
        // Below the smallest normal number, 2^-6, steps no longer shrink.
        let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
        let steps = (magnitude / 2f32.powi(exponent - 3)).round_ties_even() as i32;
        // A carry out of the mantissa is the next exponent.
        (((exponent + 6) << 3) + steps).min(LARGEST.into()) as u8
    };
    code | u8::from(x.is_sign_negative()) << 7
}

/// Casts the float tensors of `model` to every type and writes the results and a Gaussian
/// matrix of about `gaussian_len` bytes into `folder`. Returns their names and paths.
///
/// # Errors
/// What the file system returns, or if `model` is no safetensors file.
pub fn make(model: &Path, folder: &Path, gaussian_len: usize) -> Result<Vec<(&'static str, PathBuf)>, Box<dyn Error>> {
    let source = PlainFile::open(model)?;
    let header = Header::read(&source)?;
    let floats: Vec<(&Entry, Vec<f32>)> = header
        .tensors
        .iter()
        .filter(|entry| matches!(&*entry.dtype, "F32" | "F16" | "BF16"))
        .map(|entry| read_floats(&source, entry).map(|weights| (entry, weights)))
        .collect::<Result<_, _>>()?;
    std::fs::create_dir_all(folder)?;
    let mut made = Vec::new();
    for (cast, name, dtype) in Cast::ALL {
        let path = folder.join(format!("{name}.safetensors"));
        let len = cast.of(&[0.0]).len();
        let entries = floats.iter().map(|(entry, weights)| (&*entry.name, dtype, &*entry.shape, weights.len() * len));
        let mut file = crate::begin_safetensors(&path, entries)?;
        for (_, weights) in &floats {
            file.write_all(&cast.of(weights))?;
        }
        file.flush()?;
        made.push((name, path));
    }
    let path = folder.join("gaussian.safetensors");
    crate::write_checkpoint(&path, 1, gaussian_len / (2 * COLUMNS), COLUMNS)?;
    made.insert(1, ("gaussian", path));
    Ok(made)
}

fn read_floats(source: &PlainFile, entry: &Entry) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut bytes = vec![0; (entry.range.end - entry.range.start) as usize];
    source.read_at(entry.range.start, &mut bytes)?;
    Ok(match &*entry.dtype {
        "F32" => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        "F16" => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of an E4M3 number, from its definition.
    fn value(code: u8) -> f32 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 8.0 * 2f32.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        };
        if code >> 7 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn e4m3_rounds_to_the_nearest() {
        for code in (0..=0x7e).chain(0x80..=0xfe) {
            assert_eq!(e4m3(value(code)), code);
        }
        for code in 0..0x7e {
            let (low, high) = (value(code), value(code + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(e4m3(middle), code + code % 2, "a tie goes to the even code");
            assert_eq!(e4m3(middle.next_down()), code);
            assert_eq!(e4m3(middle.next_up()), code + 1);
        }
        assert_eq!([e4m3(1e9), e4m3(f32::NEG_INFINITY), e4m3(460.0)], [0x7e, 0xfe, 0x7e]);
        assert_eq!(e4m3(f32::NAN) & 0x7f, 0x7f);
    }
}
