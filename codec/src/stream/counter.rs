//! Counting of symbols.

use super::Width;

/// Tables that one array is counted into, by turns: neighbours are often equal, and an
/// increment has to wait for the one before it in the same place.
const TABLES: usize = 8;

/// Counts of symbols, reused from array to array.
#[derive(Default)]
pub(super) struct Counter {
    tables: Vec<u32>,
}

impl Counter {
    /// Counts `symbols`. The counts are of all `2^width` symbols.
    pub(super) fn count(&mut self, symbols: &[u8], width: Width) -> &[u32] {
        let top = (1 << width.bits()) - 1;
        match width.bits() {
            1..=8 => self.count_into::<1, 256>(symbols, |symbol| usize::from(symbol[0])),
            9..=10 => self.count_into::<2, 1024>(symbols, |symbol| usize::from(u16::from_le_bytes(symbol))),
            11..=12 => self.count_into::<2, 4096>(symbols, |symbol| usize::from(u16::from_le_bytes(symbol))),
            _ => self.count_into::<2, 65_536>(symbols, |symbol| usize::from(u16::from_le_bytes(symbol))),
        }
        &self.tables[..=top]
    }

    fn count_into<const J: usize, const SIZE: usize>(&mut self, symbols: &[u8], value: impl Fn([u8; J]) -> usize) {
        self.tables.clear();
        self.tables.resize(TABLES * SIZE, 0);
        let (tables, _) = self.tables.as_chunks_mut::<SIZE>();
        let Ok(tables) = <&mut [_; TABLES]>::try_from(tables) else { return };
        let (eights, rest) = symbols.as_chunks::<J>().0.as_chunks::<TABLES>();
        for eight in eights {
            for (table, &symbol) in tables.iter_mut().zip(eight) {
                table[value(symbol) % SIZE] += 1;
            }
        }
        let [sums, others @ ..] = tables;
        for &symbol in rest {
            sums[value(symbol) % SIZE] += 1;
        }
        for other in others {
            for (sum, count) in sums.iter_mut().zip(other) {
                *sum += *count;
            }
        }
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
