//! The prefix code of a group, as its look-up tables give it.

use cmz_format::Result;

use super::bad;

/// Entries of a table.
const ROW: usize = 256;
/// Entries from here on are pointers: 256 - p is the number of the next table.
const POINTERS: u8 = 240;
/// Tables of codes, at most: the first, and those that pointers can name.
const MAX_TABLES: usize = 1 + (256 - POINTERS as usize);
/// Bits of a code, at most.
const MAX_CODE_LEN: u8 = 32;
/// Bytes of a code, at most: tables that one symbol goes through.
const MAX_LEVELS: usize = MAX_CODE_LEN as usize / 8;

/// A prefix code over bytes of exponents.
#[derive(Debug)]
pub(super) struct PrefixCode {
    tables: Vec<[u8; ROW]>,
    /// Bits of each symbol's code; 0 if it has none.
    lens: [u8; ROW],
    /// For the first byte of a code of at most 8 bits: its length and symbol; otherwise 0.
    short: [u16; ROW],
}

impl PrefixCode {
    /// Checks the tables: rows of 256 bytes, the last of which holds the lengths.
    ///
    /// # Errors
    /// [`cmz_format::Code::BadSource`] for a wrong number of rows, a pointer out of range, or a
    /// length that no code has.
    pub(super) fn new(luts: &[u8]) -> Result<Self> {
        let (rows, rest) = luts.as_chunks::<ROW>();
        let (Some((lens, tables)), []) = (rows.split_last(), rest) else {
            return Err(bad(format!("{} bytes are no tables of {ROW} bytes", luts.len())));
        };
        if tables.is_empty() || tables.len() > MAX_TABLES {
            return Err(bad(format!("there are {} rows, not 2 to {}", rows.len(), MAX_TABLES + 1)));
        }
        for (number, table) in tables.iter().enumerate() {
            if let Some(&entry) = table.iter().find(|&&e| e >= POINTERS && 256 - usize::from(e) >= tables.len()) {
                let to = 256 - usize::from(entry);
                return Err(bad(format!("table {number} points to table {to} of {}", tables.len())));
            }
        }
        if let Some(symbol) = (0..ROW).find(|&symbol| lens[symbol] > MAX_CODE_LEN) {
            return Err(bad(format!("the code of {symbol} has {} bits, more than {MAX_CODE_LEN}", lens[symbol])));
        }
        if let Some(symbol) = (usize::from(POINTERS)..ROW).find(|&symbol| lens[symbol] > 0) {
            return Err(bad(format!("the exponent {symbol} has a code, although the tables cannot hold it")));
        }
        let short = std::array::from_fn(|byte| match tables[0][byte] {
            symbol @ 0..POINTERS if (1..=8).contains(&lens[usize::from(symbol)]) => {
                u16::from(lens[usize::from(symbol)]) << 8 | u16::from(symbol)
            }
            _ => 0,
        });
        Ok(Self { tables: tables.to_vec(), lens: *lens, short })
    }

    /// The symbol whose code these bits begin with, and the code's length in bits; none if no
    /// code begins so.
    #[inline]
    pub(super) fn symbol(&self, bits: u32) -> Option<(u8, u32)> {
        let short = self.short[(bits >> 24) as usize];
        if short != 0 {
            return Some((short as u8, u32::from(short >> 8)));
        }
        self.long_symbol(bits)
    }

    fn long_symbol(&self, bits: u32) -> Option<(u8, u32)> {
        let mut table = 0;
        for (level, byte) in bits.to_be_bytes().into_iter().enumerate().take(MAX_LEVELS) {
            let entry = self.tables[table][usize::from(byte)];
            if entry < POINTERS {
                let len = self.lens[usize::from(entry)];
                // A code that ends in this byte; entries without a code are filled with anything.
                let fits = len > 0 && usize::from(len - 1) / 8 == level;
                return fits.then_some((entry, len.into()));
            }
            table = 256 - usize::from(entry);
        }
        None
    }
}
