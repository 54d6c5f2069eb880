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

/// Bits of a look-up of several symbols.
const RUN_BITS: usize = 12;
/// Symbols of such a look-up, at most.
const RUN_LEN: usize = 5;

/// The symbols that some bits hold, whatever follows them, in one word: the symbols, the first
/// one lowest (bits 0 to 39), where their codes begin and the last one ends (a set of offsets, from bit
/// 40 on), their number (bits 56 to 59), and the bits of their codes (60 to 63).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run(u64);

impl Run {
    fn push(&mut self, symbol: u8, len: u32) {
        let (count, bits) = (self.count(), self.bits());
        let end = bits + len as usize;
        let edges = self.0 >> 40 & 0x1fff | 1 << bits | 1 << end;
        let symbols = self.0 & 0xff_ffff_ffff | u64::from(symbol) << (8 * count);
        self.0 = symbols | edges << 40 | (count as u64 + 1) << 56 | (end as u64) << 60;
    }

    /// The symbols, and anything behind them.
    #[inline]
    pub(super) fn symbols(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Number of symbols; 0 if not even the first is certain.
    #[inline]
    pub(super) fn count(self) -> usize {
        (self.0 >> 56 & 15) as usize
    }

    /// Bits of their codes.
    #[inline]
    pub(super) fn bits(self) -> usize {
        (self.0 >> 60) as usize
    }

    /// Number and bits of the codes that begin in the first `n` bits, of which the run has no
    /// fewer.
    #[inline]
    pub(super) fn first(self, n: usize) -> (usize, usize) {
        let (edges, inside) = (self.0 >> 40 & 0x1fff, (1 << n) - 1);
        ((edges & inside).count_ones() as usize, (edges & !inside).trailing_zeros() as usize)
    }
}

/// A prefix code over bytes of exponents.
#[derive(Debug)]
pub(super) struct PrefixCode {
    tables: Vec<[u8; ROW]>,
    /// Bits of each symbol's code; 0 if it has none.
    lens: [u8; ROW],
    /// For the first byte of a code of at most 8 bits: its length and symbol; otherwise 0.
    short: [u16; ROW],
    /// For the first bits of several codes: these.
    runs: Vec<Run>,
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
        let mut code = Self { tables: tables.to_vec(), lens: *lens, short, runs: Vec::new() };
        code.runs = code.find_runs();
        Ok(code)
    }

    /// The codes at the beginning of each number of [`RUN_BITS`] bits. A symbol counts only if
    /// all bits that may follow leave it the same: the tables need not be those of a prefix
    /// code.
    fn find_runs(&self) -> Vec<Run> {
        // The code at the beginning of 12 bits, then of ever fewer.
        let first = |bits: u32| {
            let alone = |rest: u32| self.symbol(bits << 20 | rest << 16);
            let found = alone(0).filter(|&(_, len)| len as usize <= RUN_BITS);
            found.filter(|_| self.short[bits as usize >> 4] != 0 || (1..16).all(|rest| alone(rest) == found))
        };
        let mut certain = vec![(0..1 << RUN_BITS).map(first).collect::<Vec<_>>()];
        for bits in (0..RUN_BITS).rev() {
            let longer = &certain[RUN_BITS - 1 - bits];
            let same =
                |pair: &[Option<(u8, u32)>]| pair[0].filter(|&(_, len)| len as usize <= bits && pair[0] == pair[1]);
            certain.push(longer.chunks_exact(2).map(same).collect());
        }
        let run = |bits: usize| {
            let (mut run, mut left) = (Run::default(), RUN_BITS);
            while run.count() < RUN_LEN
                && let Some((symbol, len)) = certain[RUN_BITS - left][bits & ((1 << left) - 1)]
            {
                run.push(symbol, len);
                left -= len as usize;
            }
            run
        };
        (0..1 << RUN_BITS).map(run).collect()
    }

    /// The codes that these bits begin with, the most significant bit first, as far as one
    /// look-up tells.
    #[inline]
    pub(super) fn run(&self, bits: u128) -> Run {
        self.runs[(bits >> (128 - RUN_BITS)) as usize]
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
