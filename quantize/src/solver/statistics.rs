//! What is known of a layer's inputs.

use cmz_format::{Code, Error, Result};

/// Second-order statistics of the inputs of a layer: its Hessian, H = 2/N · Σ x·xᵀ over N input vectors x, or any positive
/// multiple of that. The error of a layer's output that weights W − Ŵ make is tr((W − Ŵ) · H · (W − Ŵ)ᵀ).
///
/// A column of the weights whose input was always 0 is **dead**: its diagonal element is 0. The solver stores its weights as 0
/// and leaves it out of everything else.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    columns: usize,
    /// Row by row; `None` is the identity.
    hessian: Option<Vec<f32>>,
}

/// How far `h[i][j]` and `h[j][i]` may be apart, relative to the greatest value that both could have.
const ASYMMETRY: f32 = 1e-3;

impl Statistics {
    /// Statistics of inputs that are all alike and independent. A solver with them rounds to nearest.
    #[must_use]
    pub const fn identity(columns: usize) -> Self {
        Self { columns, hessian: None }
    }

    /// The Hessian of a layer of `columns` inputs: `columns` × `columns` elements, row by row.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if there are not that many; [`Code::BadSource`] if an element is not finite, if one of the diagonal
    /// is negative, or if the matrix is not symmetric (to a thousandth of √(hᵢᵢ·hⱼⱼ)).
    pub fn new(columns: usize, hessian: Vec<f32>) -> Result<Self> {
        if columns.checked_mul(columns) != Some(hessian.len()) {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("a Hessian of {} elements for a layer of {columns} inputs", hessian.len()),
            )
            .with_help("give the K × K matrix of a layer whose weights have K columns"));
        }
        check(columns, &hessian)?;
        Ok(Self { columns, hessian: Some(hessian) })
    }

    /// The Hessian of a layer of `columns` inputs, stored as little-endian `F32` of shape `shape`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the shape is not `[columns, columns]`, or the bytes are not as many as it says; otherwise as
    /// [`new`](Self::new).
    pub fn from_bytes(columns: usize, shape: &[u64], bytes: &[u8]) -> Result<Self> {
        if shape != [columns as u64; 2] {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("a Hessian of shape {shape:?} for a layer of {columns} inputs"),
            )
            .with_help(format!("its shape must be [{columns}, {columns}]")));
        }
        let (elements, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(Error::new(Code::InvalidArgument, format!("{} bytes are not elements of F32", bytes.len())));
        }
        Self::new(columns, elements.iter().map(|&four| f32::from_le_bytes(four)).collect())
    }

    /// Number of inputs of the layer: columns of its weights.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// The Hessian, row by row; `None` if it is the identity.
    #[must_use]
    pub fn hessian(&self) -> Option<&[f32]> {
        self.hessian.as_deref()
    }

    /// The element of the diagonal for a column.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn diagonal(&self, column: usize) -> f32 {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        self.hessian.as_ref().map_or(1.0, |hessian| hessian[column * self.columns + column])
    }

    /// Whether a column's input was always 0.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn is_dead(&self, column: usize) -> bool {
        self.diagonal(column) == 0.0
    }
}

fn check(columns: usize, hessian: &[f32]) -> Result<()> {
    let bad = |i: usize, j: usize, what: &str| {
        let value = hessian[i * columns + j];
        let message = format!("element [{i}, {j}] of a Hessian is {value}, which {what}");
        Err(Error::new(Code::BadSource, message).with_help("collect the statistics again"))
    };
    if let Some(at) = hessian.iter().position(|value| !value.is_finite()) {
        return bad(at / columns, at % columns, "is no number to compute with");
    }
    let diagonal = || hessian.iter().step_by(columns + 1);
    if let Some(i) = diagonal().position(|&value| value < 0.0) {
        return bad(i, i, "no sum of squares can be");
    }
    let roots: Vec<f32> = diagonal().map(|value| value.sqrt()).collect();
    for i in 0..columns {
        for j in 0..i {
            let (below, above) = (hessian[i * columns + j], hessian[j * columns + i]);
            // Twice halves, because the difference of two finite numbers may not be finite.
            if (below / 2.0 - above / 2.0).abs() > ASYMMETRY / 2.0 * roots[i] * roots[j] {
                return bad(i, j, &format!("differs from {above} at [{j}, {i}]"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(columns: usize, hessian: &[f32]) -> (Code, String) {
        let error = Statistics::new(columns, hessian.to_vec()).unwrap_err();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn what_is_no_hessian_is_refused() {
        assert_eq!(error(2, &[1.0; 3]).0, Code::InvalidArgument);
        assert_eq!(error(usize::MAX, &[1.0; 3]).0, Code::InvalidArgument);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (code, message) = error(2, &[1.0, 0.0, value, 1.0]);
            assert_eq!(code, Code::BadSource);
            assert!(message.contains("[1, 0]"), "{message}");
        }
        let (code, message) = error(2, &[1.0, 0.0, 0.0, -0.5]);
        assert_eq!(code, Code::BadSource);
        assert!(message.contains("[1, 1]") && message.contains("-0.5"), "{message}");
        let (code, message) = error(2, &[1.0, 0.25, 0.5, 1.0]);
        assert_eq!(code, Code::BadSource);
        assert!(message.contains("differs"), "{message}");
        assert_eq!(error(2, &[1.0, f32::MAX, f32::MIN, 1.0]).0, Code::BadSource);
    }

    #[test]
    fn bytes_must_have_the_shape() {
        let bytes: Vec<u8> = [2.0f32, 1.0, 1.0, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let statistics = Statistics::from_bytes(2, &[2, 2], &bytes).unwrap();
        assert_eq!(statistics.hessian(), Some(&[2.0, 1.0, 1.0, 3.0][..]));
        assert_eq!((statistics.columns(), statistics.diagonal(1)), (2, 3.0));
        for shape in [&[4][..], &[2, 3], &[2, 2, 1], &[1, 4], &[]] {
            let error = Statistics::from_bytes(2, shape, &bytes).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
        }
        assert_eq!(Statistics::from_bytes(2, &[2, 2], &bytes[..15]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(Statistics::from_bytes(2, &[2, 2], &bytes[..12]).unwrap_err().code(), Code::InvalidArgument);
        assert!(Statistics::from_bytes(0, &[0, 0], &[]).is_ok());
    }

    #[test]
    fn rounding_may_break_symmetry_a_little() {
        assert!(Statistics::new(2, vec![1.0, 0.5, 0.5001, 1.0]).is_ok());
        assert!(Statistics::new(2, vec![1e-8, 0.0, 1e-7, 1.0]).is_ok());
    }

    #[test]
    fn dead_columns_are_those_without_inputs() {
        let statistics = Statistics::new(2, vec![1.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!([statistics.is_dead(0), statistics.is_dead(1)], [false, true]);
        assert!(!Statistics::identity(3).is_dead(2));
    }
}
