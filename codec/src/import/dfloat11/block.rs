//! Decoding of one block of a group's stream.

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
    let mut bit = gap(gaps, 0);
    let mut rest = symbols.iter_mut();
    for chunk in 0..CHUNKS {
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
