//! Counting of symbols.

use super::Width;

/// Tables that one array is counted into, by turns: neighbours are often equal, and an
/// increment has to wait for the one before it in the same place.
const TABLES: usize = 4;

/// Counts of symbols, reused from array to array.
#[derive(Default)]
pub(super) struct Counter {
    tables: Vec<u32>,
}

impl Counter {
    /// Counts `symbols`. The counts are of all `2^width` symbols.
    pub(super) fn count(&mut self, symbols: &[u8], width: Width) -> &[u32] {
        // Every value that memory can hold has a place, so that no index is out of bounds.
        let size = if width.bits() <= 8 { 256 } else { 1 << width.bits() };
        self.tables.clear();
        self.tables.resize(TABLES * size, 0);
        let (a, rest) = self.tables.split_at_mut(size);
        let (b, rest) = rest.split_at_mut(size);
        let (c, d) = rest.split_at_mut(size);
        let top = size - 1;
        let mut words = symbols.chunks_exact(8);
        for word in &mut words {
            let v = u64::from_le_bytes(word.try_into().unwrap_or_default());
            if width.bits() <= 8 {
                for (table, shift) in [(&mut *a, 0), (b, 16), (c, 32), (d, 48)] {
                    table[(v >> shift) as usize & 0xff & top] += 1;
                    table[(v >> shift) as usize >> 8 & 0xff & top] += 1;
                }
            } else {
                for (table, shift) in [(&mut *a, 0), (b, 16), (c, 32), (d, 48)] {
                    table[(v >> shift) as usize & 0xffff & top] += 1;
                }
            }
        }
        for symbol in words.remainder().chunks_exact(width.bytes()) {
            a[usize::from(value(symbol)) & top] += 1;
        }
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            *a += *b + *c + *d;
        }
        &self.tables[..1 << width.bits()]
    }
}

/// The symbol in one or two bytes.
#[inline(always)]
pub(super) fn value(symbol: &[u8]) -> u16 {
    match *symbol {
        [low] => u16::from(low),
        [low, high, ..] => u16::from_le_bytes([low, high]),
        [] => 0,
    }
}
