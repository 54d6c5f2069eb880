//! `qmoe`: ternary weights in rows of codewords. See `SPEC.md` in this folder.

use std::ops::Range;

use cmz_format::{Dtype, Result};

use super::spec::{Dims, Spec};
use super::{Decoder, Layout, Parts, malformed};
use crate::import::qmoe::Matrix;
use crate::stream::dictionary;

/// The `qmoe` layout.
#[derive(Clone, Copy, Debug)]
pub struct Qmoe;

const PARTS: [&str; 3] = ["codewords", "row_offsets", "extremes"];

fn dims(spec: &Spec<'_>) -> Result<Dims> {
    spec.roles(&PARTS, &[], &[])?;
    spec.float()?;
    let dims = spec.matrix()?;
    spec.part("codewords", &[Dtype::I16, Dtype::U16], &[spec.count("codewords")?])?;
    spec.part("row_offsets", &[Dtype::I32], &[dims.rows + 1])?;
    spec.part("extremes", &[Dtype::BF16], &[2 * dims.rows])?;
    Ok(dims)
}

/// The matrix whose arrays these are, checked.
fn read([codewords, offsets, extremes]: [Vec<u8>; 3], columns: usize) -> Result<Matrix> {
    let matrix = Matrix::read(&codewords, &offsets, &extremes).and_then(|matrix| {
        matrix.check(columns)?;
        Ok(matrix)
    });
    matrix.map_err(|e| malformed(e.message().to_owned()))
}

#[derive(Debug)]
struct Rows {
    matrix: Matrix,
    columns: usize,
}

impl Rows {
    fn decode_row(&self, row: usize, symbols: &mut [u8], decode: Decode) -> [f32; 3] {
        let (codewords, values) = self.matrix.row(row);
        // Opening has checked all rows.
        let decoded = decode(codewords, symbols);
        debug_assert!(decoded.is_ok(), "row {row} was checked");
        values.map(|bits| half::bf16::from_bits(bits).to_f32())
    }
}

type Decode = fn(&[u16], &mut [u8]) -> std::result::Result<(), crate::stream::StreamError>;

impl Decoder for Rows {
    fn decode(&self, rows: Range<usize>, values: &mut [f32]) {
        let mut symbols = vec![0; self.columns];
        for (row, out) in rows.zip(values.chunks_exact_mut(self.columns)) {
            let values = self.decode_row(row, &mut symbols, dictionary::decode_row);
            out.iter_mut().zip(&symbols).for_each(|(out, &symbol)| *out = values[usize::from(symbol)]);
        }
    }

    fn decode_naive(&self, row: usize, column: usize) -> f32 {
        let mut symbols = vec![0; self.columns];
        let values = self.decode_row(row, &mut symbols, dictionary::decode_row_naive);
        values[usize::from(symbols[column])]
    }
}

impl Layout for Qmoe {
    fn name(&self) -> &'static str {
        "qmoe"
    }

    fn check(&self, spec: &Spec<'_>) -> Result<()> {
        dims(spec).map(drop)
    }

    /// Where a row ends is told by its codewords alone.
    fn check_places(&self, spec: &Spec<'_>, part: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        let Dims { columns, .. } = dims(spec)?;
        read([part(PARTS[0])?, part(PARTS[1])?, part(PARTS[2])?], columns).map(drop)
    }

    fn open(&self, spec: &Spec<'_>, mut parts: Parts) -> Result<Box<dyn Decoder>> {
        let Dims { columns, .. } = dims(spec)?;
        let matrix = read(PARTS.map(|role| parts.take(role)), columns)?;
        Ok(Box::new(Rows { matrix, columns }))
    }
}
