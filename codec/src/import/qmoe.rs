//! Expert matrices as QMoE stores them (arXiv 2310.16795; `Sub1Linear` in `sub1.py` of IST-DASLab/qmoe): ternary weights in rows of codewords.
//!
//! A matrix `m` of `[rows, width]` weights is three tensors:
//!
//! | tensor | type and shape | what |
//! |---|---|---|
//! | `m.w_comp` | 16-bit integers `[codewords]` | the codewords of all rows, see [`dictionary`] |
//! | `m.row_off` | `I32 [rows + 1]` | where each row begins in them, and their number |
//! | `m.ter_minmax` | `BF16 [2 rows]` | of each row what its symbols 1 and 2 stand for; symbol 0 is 0 |
//!
//! The width is in none of them.

use cmz_format::{Code, Error, Result};
use half::bf16;

use crate::stream::dictionary;

/// A matrix as QMoE stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    codewords: Vec<u16>,
    /// Where each row begins, and the number of codewords.
    offsets: Vec<usize>,
    /// The bits of a row's minimum and maximum.
    extremes: Vec<[u16; 2]>,
}

fn bad(why: impl Into<String>) -> Error {
    Error::new(Code::BadSource, why)
}

fn wrong_row(row: usize, codewords: usize, width: usize) -> Error {
    bad(format!("the {codewords} codewords of row {row} are not those of {width} weights"))
}

fn little_endian<const N: usize>(name: &str, bytes: &[u8]) -> Result<Vec<[u8; N]>> {
    match bytes.as_chunks() {
        (whole, []) => Ok(whole.to_vec()),
        _ => Err(bad(format!("{name} has {} bytes, which are no whole elements of {N}", bytes.len()))),
    }
}

impl Matrix {
    /// Reads the three tensors, whose elements are little-endian.
    ///
    /// # Errors
    /// [`Code::BadSource`] if they are not those of one matrix.
    pub fn read(w_comp: &[u8], row_off: &[u8], ter_minmax: &[u8]) -> Result<Self> {
        let codewords: Vec<u16> = little_endian("w_comp", w_comp)?.into_iter().map(u16::from_le_bytes).collect();
        let offset =
            |bytes| usize::try_from(i32::from_le_bytes(bytes)).map_err(|_| bad("row_off has a negative offset"));
        let offsets = little_endian("row_off", row_off)?.into_iter().map(offset).collect::<Result<Vec<_>>>()?;
        let halves: Vec<u16> = little_endian("ter_minmax", ter_minmax)?.into_iter().map(u16::from_le_bytes).collect();
        if offsets.first() != Some(&0) || !offsets.is_sorted() || offsets.last() != Some(&codewords.len()) {
            let why = format!("row_off does not ascend from 0 to the {} codewords of w_comp", codewords.len());
            return Err(bad(why));
        }
        let rows = offsets.len() - 1;
        if halves.len() != 2 * rows {
            return Err(bad(format!("ter_minmax has {} numbers, for {rows} rows", halves.len())));
        }
        Ok(Self { codewords, offsets, extremes: halves.as_chunks().0.to_vec() })
    }

    /// The three tensors, little-endian: `w_comp`, `row_off` and `ter_minmax`.
    #[must_use]
    pub fn to_bytes(&self) -> [Vec<u8>; 3] {
        [
            self.codewords.iter().flat_map(|codeword| codeword.to_le_bytes()).collect(),
            self.offsets.iter().flat_map(|&offset| (offset as i32).to_le_bytes()).collect(),
            self.extremes.as_flattened().iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        ]
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.extremes.len()
    }

    /// The codewords of a row, and the bits of what its symbols stand for.
    pub(crate) fn row(&self, row: usize) -> (&[u16], [u16; 3]) {
        let [least, greatest] = self.extremes[row];
        (&self.codewords[self.offsets[row]..self.offsets[row + 1]], [0, least, greatest])
    }

    /// Checks that all rows have `width` weights.
    ///
    /// # Errors
    /// [`Code::BadSource`] if one has not.
    pub fn check(&self, width: usize) -> Result<()> {
        (0..self.rows()).try_for_each(|row| {
            let (codewords, _) = self.row(row);
            dictionary::check_row(codewords, width).map_err(|_| wrong_row(row, codewords.len(), width))
        })
    }

    /// Packs little-endian BF16 weights in rows of `width` as QMoE does: what equals a row's greatest weight is symbol 2, otherwise what
    /// equals its least one is symbol 1.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the weights are not whole rows of `width`, which is not 0, or a row has other weights than +0, its least and its greatest one; or
    /// if there are more codewords than `row_off` can count.
    pub fn pack(weights: &[u8], width: usize) -> Result<Self> {
        let invalid = |why: String| Error::new(Code::InvalidArgument, why);
        let (weights, rest) = weights.as_chunks::<2>();
        if width == 0 || !rest.is_empty() || !weights.len().is_multiple_of(width) {
            return Err(invalid(format!("the weights are not whole rows of {width}")));
        }
        let mut matrix = Self { codewords: Vec::new(), offsets: vec![0], extremes: Vec::new() };
        for (r, row) in weights.chunks(width).enumerate() {
            let row: Vec<bf16> = row.iter().map(|&bytes| bf16::from_le_bytes(bytes)).collect();
            let [least, greatest] = extremes(&row);
            let symbols: Vec<u8> =
                row.iter().map(|weight| if *weight == greatest { 2 } else { u8::from(*weight == least) }).collect();
            let values = [0, least.to_bits(), greatest.to_bits()];
            if row.iter().zip(&symbols).any(|(weight, &symbol)| weight.to_bits() != values[usize::from(symbol)]) {
                return Err(invalid(format!("row {r} has weights other than 0, its least and its greatest one")));
            }
            dictionary::encode_row(&symbols, &mut matrix.codewords).map_err(|e| invalid(e.to_string()))?;
            matrix.offsets.push(matrix.codewords.len());
            matrix.extremes.push([least.to_bits(), greatest.to_bits()]);
        }
        match i32::try_from(matrix.codewords.len()) {
            Ok(_) => Ok(matrix),
            Err(_) => Err(invalid("the matrix has too many codewords for offsets of 32 bits".to_owned())),
        }
    }

    /// The weights in rows of `width`, as little-endian BF16. [`Self::pack`] makes the same matrix of them, if it was packed so.
    ///
    /// # Errors
    /// [`Code::BadSource`] if a row has not so many weights.
    pub fn unpack(&self, width: usize) -> Result<Vec<u8>> {
        let mut weights = Vec::new();
        self.for_each_row(width, |symbols, [least, greatest]| {
            let values = [0, least, greatest].map(u16::to_le_bytes);
            weights.extend(symbols.iter().flat_map(|&symbol| values[usize::from(symbol)]));
        })?;
        Ok(weights)
    }

    /// The components of the encoding [`ternary`](crate::encoding::ternary) by row: symbols, minima, maxima. What is +0 is symbol 0, which is
    /// the most common one then.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn components(&self, width: usize) -> Result<[Vec<u8>; 3]> {
        let mut components: [Vec<u8>; 3] = Default::default();
        self.for_each_row(width, |symbols, extremes| {
            let [all, minima, maxima] = &mut components;
            let value = [0, extremes[0], extremes[1]];
            all.extend(symbols.iter().map(|&symbol| if value[usize::from(symbol)] == 0 { 0 } else { symbol }));
            minima.extend_from_slice(&extremes[0].to_le_bytes());
            maxima.extend_from_slice(&extremes[1].to_le_bytes());
        })?;
        Ok(components)
    }

    /// Hands out the symbols of each row, and what 1 and 2 stand for.
    fn for_each_row(&self, width: usize, mut visit: impl FnMut(&[u8], [u16; 2])) -> Result<()> {
        self.check(width)?;
        let mut symbols = vec![0; if self.rows() > 0 { width } else { 0 }];
        for row in 0..self.rows() {
            let (codewords, [_, least, greatest]) = self.row(row);
            dictionary::decode_row(codewords, &mut symbols).map_err(|_| wrong_row(row, codewords.len(), width))?;
            visit(&symbols, [least, greatest]);
        }
        Ok(())
    }
}

/// The least and the greatest weight, the first one among equals. What is not a number equals neither.
fn extremes(row: &[bf16]) -> [bf16; 2] {
    let first = row.first().copied().unwrap_or_default();
    row.iter().fold([first; 2], |[least, greatest], &weight| {
        [if weight < least { weight } else { least }, if weight > greatest { weight } else { greatest }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::ternary::BY_ROW;
    use crate::encoding::{Array, Element, Encoding};
    use crate::stream::laws;
    use cmz_format::Dtype;

    const WIDTH: usize = 301;

    /// Rows as the quantizer makes them: with both numbers, with one of them, without any.
    fn weights() -> Vec<u8> {
        let row = |r: usize| {
            let values = match r % 4 {
                0 => [0.0, -0.5, 1.25],
                1 => [0.0, 0.0, 0.75],
                2 => [0.0, -2.0, -2.0],
                _ => [0.0; 3],
            };
            let symbols = laws::ternary(800, WIDTH, r as u64);
            symbols.into_iter().flat_map(move |symbol| bf16::from_f32(values[usize::from(symbol)]).to_le_bytes())
        };
        (0..64).flat_map(row).collect()
    }

    #[test]
    fn matrices_come_back_byte_for_byte() {
        let weights = weights();
        let matrix = Matrix::pack(&weights, WIDTH).unwrap();
        assert_eq!(matrix.rows(), 64);
        let [w_comp, row_off, ter_minmax] = matrix.to_bytes();
        assert_eq!((row_off.len(), ter_minmax.len()), (65 * 4, 64 * 4));
        let read = Matrix::read(&w_comp, &row_off, &ter_minmax).unwrap();
        assert_eq!(read, matrix);
        let unpacked = read.unpack(WIDTH).unwrap();
        assert!(unpacked == weights);
        assert_eq!(Matrix::pack(&unpacked, WIDTH).unwrap().to_bytes(), [w_comp, row_off, ter_minmax]);
    }

    #[test]
    fn components_are_those_of_the_encoding() {
        let weights = weights();
        let components = Matrix::pack(&weights, WIDTH).unwrap().components(WIDTH).unwrap();
        let array = Array::new(Element::Dtype(Dtype::BF16), weights.len(), WIDTH);
        let mut joined = vec![0xa5; weights.len()];
        BY_ROW.join(array, &components.each_ref().map(Vec::as_slice), &mut joined).unwrap();
        assert!(joined == weights);
        let zeros = weights.as_chunks().0.iter().filter(|weight| **weight == [0, 0]).count();
        assert_eq!(components[0].iter().filter(|&&symbol| symbol == 0).count(), zeros);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        let matrix = Matrix::pack(&weights(), WIDTH).unwrap();
        let [w_comp, row_off, ter_minmax] = matrix.to_bytes();
        let code = |result: Result<Matrix>| result.map(|_| ()).map_err(|e| e.code());
        assert_eq!(code(Matrix::read(&w_comp[1..], &row_off, &ter_minmax)), Err(Code::BadSource));
        assert_eq!(code(Matrix::read(&w_comp[2..], &row_off, &ter_minmax)), Err(Code::BadSource));
        assert_eq!(code(Matrix::read(&w_comp, &row_off[4..], &ter_minmax)), Err(Code::BadSource));
        assert_eq!(code(Matrix::read(&w_comp, &[], &[])), Err(Code::BadSource));
        assert_eq!(code(Matrix::read(&w_comp, &row_off, &ter_minmax[4..])), Err(Code::BadSource));
        for (at, offset) in [(4, -1i32), (4, i32::MAX), (0, 1)] {
            let mut changed = row_off.clone();
            changed[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            assert_eq!(code(Matrix::read(&w_comp, &changed, &ter_minmax)), Err(Code::BadSource));
        }
        for width in [0, 1, WIDTH / 2, WIDTH + 40, usize::MAX] {
            assert!(matrix.unpack(width).is_err() && matrix.components(width).is_err());
        }
    }

    #[test]
    fn weights_that_are_not_ternary_are_refused() {
        let pack = |weights: &[f32], width| {
            let bytes: Vec<u8> = weights.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect();
            Matrix::pack(&bytes, width).map(|_| ()).map_err(|e| e.code())
        };
        assert_eq!(pack(&[0.0, 1.0, -1.0, 0.0], 2), Ok(()));
        assert_eq!(pack(&[0.0, 1.0, -1.0, 0.5], 4), Err(Code::InvalidArgument));
        assert_eq!(pack(&[0.0, -0.0, 1.0, 1.0], 4), Err(Code::InvalidArgument));
        assert_eq!(pack(&[0.0, f32::NAN, 1.0, 1.0], 4), Err(Code::InvalidArgument));
        assert_eq!(pack(&[f32::NAN, 0.0], 2), Err(Code::InvalidArgument));
        assert_eq!(pack(&[0.0, 1.0, 0.0], 2), Err(Code::InvalidArgument));
        assert_eq!(pack(&[], 0), Err(Code::InvalidArgument));
    }
}
