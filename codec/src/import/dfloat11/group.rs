//! A group: matrices whose exponents are one stream of prefix codes.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use cmz_format::Result;

use super::bad;
use super::block::{BLOCK, Fault, GAPS, WINDOW, decode_block, gap};
use super::code::PrefixCode;
use crate::io::{PlainFile, ReadAt};

/// Bytes of an element.
const ELEMENT: u64 = 2;
/// Codes of at least one bit that can begin in a block.
const MAX_SYMBOLS: u32 = BLOCK as u32 * 8;
/// Bytes that `luts` has at most: more than any sound ones.
const MAX_LUTS_LEN: u64 = 1 << 16;

/// A file of the checkpoint.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) data: PlainFile,
}

/// A tensor of a file of the checkpoint.
#[derive(Clone, Debug)]
pub(in crate::import) struct Piece {
    pub(super) file: Arc<OpenFile>,
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) range: Range<u64>,
}

impl Piece {
    pub(in crate::import) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Fills `buffer` from a byte of the tensor on.
    pub(in crate::import) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.data.read_at(self.range.start + offset, buffer).map_err(|e| self.name(e))
    }

    /// The tensor's bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len() as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Adds file and tensor to an error.
    pub(super) fn name(&self, error: cmz_format::Error) -> cmz_format::Error {
        error.in_file(&self.file.path).in_tensor(&self.name)
    }

    fn check_dtype(&self, dtype: &str, rank: usize) -> Result<()> {
        if self.dtype == dtype && self.shape.len() == rank {
            return Ok(());
        }
        Err(self.name(bad(format!("it is {} of shape {:?}, not {dtype} of {rank} dimensions", self.dtype, self.shape))))
    }
}

/// The tensors of a group, but for where its matrices end.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) luts: Piece,
    pub(super) encoded_exponent: Piece,
    pub(super) sign_mantissa: Piece,
    pub(super) gaps: Piece,
    pub(super) output_positions: Piece,
}

/// A group whose tables have been checked. The stream itself is checked as it is decoded.
#[derive(Debug)]
pub(in crate::import) struct Group {
    code: PrefixCode,
    /// Number of the first element of each block, and at the end the number of elements.
    positions: Vec<u32>,
    encoded_exponent: Piece,
    sign_mantissa: Piece,
    gaps: Piece,
}

impl Group {
    /// Reads and checks everything of a group but its stream.
    pub(super) fn open(parts: Parts) -> Result<Self> {
        let Parts { luts, encoded_exponent, sign_mantissa, gaps, output_positions } = parts;
        luts.check_dtype("U8", 2)?;
        for piece in [&encoded_exponent, &sign_mantissa, &gaps, &output_positions] {
            piece.check_dtype("U8", 1)?;
        }
        if luts.shape[1] != 256 || luts.len() > MAX_LUTS_LEN {
            return Err(luts.name(bad(format!("the shape is {:?}, not [2 to 18, 256]", luts.shape))));
        }
        let code = luts.read().and_then(|bytes| PrefixCode::new(&bytes)).map_err(|e| luts.name(e))?;
        let blocks = encoded_exponent.len().div_ceil(BLOCK as u64);
        if gaps.len() != blocks * GAPS as u64 {
            let why = format!("it has {} bytes, not {GAPS} for each of {blocks} blocks", gaps.len());
            return Err(gaps.name(bad(why)));
        }
        let positions =
            read_positions(&output_positions, blocks, sign_mantissa.len()).map_err(|e| output_positions.name(e))?;
        Ok(Self { code, positions, encoded_exponent, sign_mantissa, gaps })
    }

    /// Number of elements.
    fn elements(&self) -> u64 {
        self.sign_mantissa.len()
    }

    /// Fills `buffer` from a byte of the decoded BF16 elements on.
    pub(in crate::import) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut scratch = Box::new(Decoded::default());
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let element = (at / ELEMENT) as u32;
            // Of blocks with the same position, only the last has codes.
            let block = self.positions.partition_point(|&first| first <= element) - 1;
            self.decode(block, &mut scratch)?;
            let first = u64::from(self.positions[block]) * ELEMENT;
            let end = u64::from(self.positions[block + 1]) * ELEMENT;
            let here = rest.len().min((end - at) as usize);
            let (now, later) = rest.split_at_mut(here);
            self.join(&mut scratch, block, at - first..at - first + here as u64, now)?;
            (rest, at) = (later, end);
        }
        Ok(())
    }

    /// Decodes the exponents of a block, all of them, so that all are checked.
    fn decode(&self, block: usize, decoded: &mut Decoded) -> Result<()> {
        let (first, end) = (self.positions[block], self.positions[block + 1]);
        let start = (block * BLOCK) as u64;
        let len = WINDOW.min((self.encoded_exponent.len() - start) as usize);
        self.encoded_exponent.read_at(start, &mut decoded.window[..len])?;
        decoded.window[len..].fill(0);
        let gaps_start = (block * GAPS) as u64;
        let gaps_len = (GAPS + 1).min((self.gaps.len() - gaps_start) as usize);
        self.gaps.read_at(gaps_start, &mut decoded.gaps[..gaps_len])?;
        decoded.symbols.resize((end - first) as usize, 0);
        let last = u64::from(end) == self.elements();
        let gaps = &decoded.gaps[..gaps_len];
        if block == 0 && gap(gaps, 0) != 0 {
            return Err(self.fault(Fault::Gap, block));
        }
        let stream_end = decode_block(&self.code, &decoded.window, gaps, &mut decoded.symbols, last)
            .map_err(|fault| self.fault(fault, block))?;
        // Less than a byte of padding may follow.
        let end = start + stream_end.div_ceil(8) as u64;
        if last && end != self.encoded_exponent.len() {
            let why = format!("its codes end in byte {end} of {}", self.encoded_exponent.len());
            return Err(self.encoded_exponent.name(bad(why)));
        }
        Ok(())
    }

    fn fault(&self, fault: Fault, block: usize) -> cmz_format::Error {
        let from = block * BLOCK;
        let why = format!("{}: in bytes {from} to {} of the tensor", fault.message(), from + BLOCK);
        self.encoded_exponent.name(bad(why))
    }

    /// Joins exponents with signs and mantissas: these bytes of the elements of a block.
    fn join(&self, decoded: &mut Decoded, block: usize, range: Range<u64>, out: &mut [u8]) -> Result<()> {
        let elements = range.start / ELEMENT..range.end.div_ceil(ELEMENT);
        let others = &mut decoded.others;
        others.resize((elements.end - elements.start) as usize, 0);
        self.sign_mantissa.read_at(u64::from(self.positions[block]) + elements.start, others)?;
        let symbols = &decoded.symbols[elements.start as usize..elements.end as usize];
        if range.start.is_multiple_of(ELEMENT) && range.end.is_multiple_of(ELEMENT) {
            for ((bytes, &exponent), &other) in out.chunks_exact_mut(ELEMENT as usize).zip(symbols).zip(&*others) {
                bytes.copy_from_slice(&join(exponent, other));
            }
        } else {
            let bytes = symbols.iter().zip(&*others).flat_map(|(&exponent, &other)| join(exponent, other));
            let skipped = (range.start % ELEMENT) as usize;
            out.iter_mut().zip(bytes.skip(skipped)).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// A BF16 number from its exponent and its other bits: sign and mantissa.
#[inline]
fn join(exponent: u8, other: u8) -> [u8; 2] {
    (u16::from(other & 0x80) << 8 | u16::from(exponent) << 7 | u16::from(other & 0x7f)).to_le_bytes()
}

/// A block, decoded, and what that needs.
struct Decoded {
    window: [u8; WINDOW],
    gaps: [u8; GAPS + 1],
    symbols: Vec<u8>,
    others: Vec<u8>,
}

impl Default for Decoded {
    fn default() -> Self {
        Self { window: [0; WINDOW], gaps: [0; GAPS + 1], symbols: Vec::new(), others: Vec::new() }
    }
}

/// Reads and checks the output positions: one for each block and, at the end, the number of
/// elements.
fn read_positions(piece: &Piece, blocks: u64, elements: u64) -> Result<Vec<u32>> {
    let count = piece.len() / 4;
    // Without a code that begins in the last block, that has no position of its own.
    if !piece.len().is_multiple_of(4) || !(count == blocks + 1 || (count == blocks && blocks > 1)) {
        return Err(bad(format!("it has {} bytes, not 4 for each of {blocks} blocks and the end", piece.len())));
    }
    let bytes = piece.read()?;
    let mut positions: Vec<u32> = bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
    let (first, last) = (positions.first().copied().unwrap_or(0), positions.last().copied().unwrap_or(0));
    if first != 0 || u64::from(last) != elements {
        return Err(bad(format!("it goes from {first} to {last}, not from 0 to the {elements} elements")));
    }
    for (block, pair) in positions.windows(2).enumerate() {
        let codes = pair[1].checked_sub(pair[0]).filter(|&codes| codes <= MAX_SYMBOLS);
        // Behind a block without codes there is none with codes: every block but the last has some.
        if codes.is_none() || (codes == Some(0) && u64::from(pair[0]) != elements) {
            let why = format!("block {block} cannot have the elements {} to {}", pair[0], pair[1]);
            return Err(bad(why));
        }
    }
    if count == blocks {
        positions.push(last);
    }
    Ok(positions)
}

/// Reads where the matrices of a group end, and returns their bounds, in elements. One matrix
/// needs no tensor that says so.
pub(super) fn read_splits(piece: Option<&Piece>, matrices: usize, elements: u64) -> Result<Vec<u64>> {
    let mut bounds = vec![0];
    if let Some(piece) = piece {
        piece.check_dtype("I64", 1)?;
        if piece.shape[0] != matrices as u64 - 1 {
            let why = format!("it splits the group into {} matrices, the pattern names {matrices}", piece.shape[0] + 1);
            return Err(piece.name(bad(why)));
        }
        bounds.extend(piece.read()?.as_chunks().0.iter().map(|eight| u64::from_le_bytes(*eight)));
    }
    bounds.push(elements);
    if let (Some(piece), Some(pair)) = (piece, bounds.windows(2).find(|pair| pair[0] > pair[1])) {
        return Err(
            piece.name(bad(format!("it goes from {} to {} of {elements} elements", pair[0] as i64, pair[1] as i64)))
        );
    }
    Ok(bounds)
}
