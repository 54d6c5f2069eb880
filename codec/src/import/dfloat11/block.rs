//! Decoding of one block of a group's stream.
//!
//! Most of a block is decoded by whole chunks, several symbols at a look-up. Each chunk starts
//! where its gap says, which need not wait for the end of the one before it, and is taken only if that
//! end agrees. The rest, and whatever is not sound, is decoded symbol by symbol, and it is
//! there that errors are found.

use super::code::PrefixCode;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// Bytes that are needed to decode a block: its last code may end in the next one, and
/// codes are looked up in eight bytes at a time.
pub(super) const WINDOW: usize = BLOCK + 8;
/// Bits of a chunk, each of which has a gap.
const CHUNK_BITS: usize = 64;
/// Chunks of a block.
const CHUNKS: usize = BLOCK * 8 / CHUNK_BITS;
/// Bits of a gap.
const GAP_BITS: usize = 5;
/// Bytes of a block's gaps.
pub(super) const GAPS: usize = CHUNKS * GAP_BITS / 8;

/// Why a block cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No code begins with the bits found.
    NoCode,
    /// The first code of a chunk does not begin where the chunk's gap says.
    Gap,
    /// The block has more or fewer codes than the output positions say.
    Count,
}

impl Fault {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NoCode => "no code begins with the bits of the stream",
            Self::Gap => "a gap is not where the stream has the beginning of a code",
            Self::Count => "the stream has not as many codes as the output positions say",
        }
    }
}

/// Decodes the codes that begin in a block, as many as there are `symbols`; `last` says that
/// they are the last of the stream. Gaps are those of the block, with one byte of the next
/// block's if there is one. Returns the bit behind the last code, counted from the block's
/// beginning.
pub(super) fn decode_block(
    code: &PrefixCode,
    window: &[u8; WINDOW],
    gaps: &[u8],
    symbols: &mut [u8],
    last: bool,
) -> Result<usize, Fault> {
    let at = decode_chunks(code, window, gaps, symbols);
    decode_rest(code, window, gaps, symbols, last, at)
}

/// How far a block has been decoded: to the beginning of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decoded {
    chunk: usize,
    /// The bit behind the last code.
    bit: usize,
    symbols: usize,
}

impl Decoded {
    /// Nothing is decoded yet.
    fn nothing(gaps: &[u8]) -> Self {
        Self { chunk: 0, bit: gap(gaps, 0), symbols: 0 }
    }
}

/// Symbols for which a chunk needs room: one a bit, and what a look-up writes behind them.
const ROOM: usize = CHUNK_BITS + 8;

/// Decodes sound chunks from the front while there is room for all symbols that one can have.
fn decode_chunks(code: &PrefixCode, window: &[u8; WINDOW], gaps: &[u8], symbols: &mut [u8]) -> Decoded {
    let mut at = Decoded::nothing(gaps);
    while at.chunk < CHUNKS {
        let start = gap(gaps, at.chunk);
        let room = symbols[at.symbols..].first_chunk_mut::<ROOM>();
        let (true, Some(room)) = (at.bit == at.chunk * CHUNK_BITS + start, room) else { break };
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&window[at.chunk * CHUNK_BITS / 8..][..16]);
        let Some((end, count)) = decode_chunk(code, u128::from_be_bytes(bytes), start, room) else { break };
        at = Decoded { chunk: at.chunk + 1, bit: at.chunk * CHUNK_BITS + end, symbols: at.symbols + count };
    }
    at
}

/// Decodes the codes that begin in a chunk, the first one at bit `start`. Returns the bit behind the
/// last one, counted from the chunk's beginning, and the number of symbols; none if there is
/// no code where one must be.
#[inline]
fn decode_chunk(code: &PrefixCode, chunk: u128, start: usize, room: &mut [u8; ROOM]) -> Option<(usize, usize)> {
    let (mut bits, mut bit, mut count) = (chunk << start, start, 0);
    while bit < CHUNK_BITS {
        let run = code.run(bits);
        if run.count() == 0 {
            let (symbol, len) = code.symbol((bits >> 96) as u32)?;
            room[count] = symbol;
            (bits, bit, count) = (bits << len, bit + len as usize, count + 1);
            continue;
        }
        room[count..count + 8].copy_from_slice(&run.symbols());
        if bit + run.bits() >= CHUNK_BITS {
            // The codes that begin in the next chunk are that one's.
            let (more, end) = run.first(CHUNK_BITS - bit);
            return Some((bit + end, count + more));
        }
        (bits, bit, count) = (bits << run.bits(), bit + run.bits(), count + run.count());
    }
    Some((bit, count))
}

/// Decodes the rest of a block symbol by symbol, as [`decode_block`] says.
fn decode_rest(
    code: &PrefixCode,
    window: &[u8; WINDOW],
    gaps: &[u8],
    symbols: &mut [u8],
    last: bool,
    at: Decoded,
) -> Result<usize, Fault> {
    let mut bit = at.bit;
    let mut rest = symbols[at.symbols..].iter_mut();
    for chunk in at.chunk..CHUNKS {
        if last && rest.len() == 0 {
            return Ok(bit);
        }
        if bit != chunk * CHUNK_BITS + gap(gaps, chunk) {
            return Err(Fault::Gap);
        }
        while bit < (chunk + 1) * CHUNK_BITS {
            let Some(symbol) = rest.next() else {
                return if last { Ok(bit) } else { Err(Fault::Count) };
            };
            let (value, len) = code.symbol(bits_at(window, bit)).ok_or(Fault::NoCode)?;
            *symbol = value;
            bit += len as usize;
        }
    }
    match () {
        () if rest.len() > 0 => Err(Fault::Count),
        // Another code follows, in the next block.
        () if !last && (gaps.len() <= GAPS || bit != BLOCK * 8 + gap(gaps, CHUNKS)) => Err(Fault::Gap),
        () => Ok(bit),
    }
}

/// The 32 bits from `bit` on.
#[inline]
fn bits_at(window: &[u8; WINDOW], bit: usize) -> u32 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&window[bit / 8..][..8]);
    ((u64::from_be_bytes(bytes) << (bit % 8)) >> 32) as u32
}

/// The gap with this number: five bits, the most significant first.
pub(super) fn gap(gaps: &[u8], number: usize) -> usize {
    let bit = number * GAP_BITS;
    let byte = |at: usize| usize::from(gaps.get(at).copied().unwrap_or(0));
    let two = byte(bit / 8) << 8 | byte(bit / 8 + 1);
    two >> (16 - GAP_BITS - bit % 8) & ((1 << GAP_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::laws::Random;

    /// Both ways to decode a block, with the same arguments.
    fn compare(
        code: &PrefixCode,
        window: &[u8; WINDOW],
        gaps: &[u8],
        count: usize,
        last: bool,
    ) -> Result<usize, Fault> {
        let (mut fast, mut slow) = (vec![0xa5; count], vec![0x5a; count]);
        let found = decode_block(code, window, gaps, &mut fast, last);
        let expected = decode_rest(code, window, gaps, &mut slow, last, Decoded::nothing(gaps));
        assert_eq!(found, expected);
        assert!(found.is_err() || fast == slow);
        expected
    }

    /// The gaps that make a stream sound as far as its codes go, and the number of codes in the
    /// block.
    fn gaps_of(code: &PrefixCode, window: &[u8; WINDOW]) -> (Vec<u8>, usize) {
        let (mut gaps, mut bit, mut count) = (vec![0; GAPS + 1], 0, 0);
        for chunk in 0..=CHUNKS {
            let gap = bit - chunk * CHUNK_BITS;
            for i in 0..GAP_BITS {
                let at = chunk * GAP_BITS + i;
                gaps[at / 8] |= ((gap >> (GAP_BITS - 1 - i) & 1) << (7 - at % 8)) as u8;
            }
            while chunk < CHUNKS && bit < (chunk + 1) * CHUNK_BITS {
                bit += code.symbol(bits_at(window, bit)).map_or(1, |(_, len)| len as usize);
                count += 1;
            }
        }
        (gaps, count)
    }

    /// Tables at random are hardly ever those of a prefix code: what a look-up of several
    /// symbols says must be what the tables say all the same.
    #[test]
    fn any_tables_decode_the_same_both_ways() {
        let mut random = Random(5);
        let (mut sound, mut faults) = (0, 0);
        for round in 0..300 {
            let rows = 2 + round % 3;
            let longest = [4, 8, 13, 17][round / 3 % 4];
            let mut luts: Vec<u8> = (0..256 * rows).map(|_| (random.next() >> 32) as u8 % 40).collect();
            luts[256 * (rows - 1)..].iter_mut().enumerate().for_each(|(symbol, len)| {
                *len = if symbol < 40 { 1 + (random.next() >> 40) as u8 % longest } else { 0 };
            });
            if rows > 2 {
                luts[..256].iter_mut().step_by(9).for_each(|entry| *entry = 255);
            }
            if round % 2 == 0 {
                // The high bits decide alone: nearly a prefix code.
                (0..256).filter(|byte| byte % 16 > 0).for_each(|byte| luts[byte] = luts[byte - byte % 16]);
            }
            let code = PrefixCode::new(&luts).unwrap();
            let mut window = [0; WINDOW];
            window.iter_mut().for_each(|byte| *byte = (random.next() >> 32) as u8);
            let (gaps, count) = gaps_of(&code, &window);
            for (count, last) in
                [(count, false), (count, true), (count / 2, true), (count - 1, false), (count + 1, true)]
            {
                *if compare(&code, &window, &gaps, count, last).is_ok() { &mut sound } else { &mut faults } += 1;
            }
            let mut wrong = gaps.clone();
            wrong[(random.next() >> 32) as usize % GAPS] ^= 16;
            faults += usize::from(compare(&code, &window, &wrong, count, false).is_err());
        }
        assert!(sound > 100 && faults > 100, "{sound} sound, {faults} faults");
    }
}
