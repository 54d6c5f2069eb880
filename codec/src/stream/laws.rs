//! What every stream codec has to obey, checked over one bank of inputs.

use super::{Level, StreamCodec, StreamError, Width};
use crate::Scratch;

/// A small generator of pseudo-random numbers (SplitMix64), so that failures repeat.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Lengths of the bank's arrays, in symbols: around the sizes of groups and tiles.
const LENGTHS: [usize; 19] =
    [0, 1, 2, 7, 8, 9, 31, 33, 255, 256, 257, 511, 1000, 4096, 4097, 16_384, 16_390, 40_000, 70_001];

/// Shapes of the bank's arrays.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Zeros,
    Top,
    Uniform,
    /// Halving probabilities around the middle of the alphabet, as exponents have them.
    Exponents,
    /// One symbol in 500 is not zero.
    Sparse,
    Two,
    Ramp,
    /// A different distribution in every run of 3000 symbols.
    Shifting,
}

const SHAPES: [Shape; 8] = [
    Shape::Zeros,
    Shape::Top,
    Shape::Uniform,
    Shape::Exponents,
    Shape::Sparse,
    Shape::Two,
    Shape::Ramp,
    Shape::Shifting,
];

fn array(shape: Shape, width: Width, len: usize) -> Vec<u8> {
    let mut random = Random(u64::from(width.bits()) << 32 | len as u64);
    let top = (1u32 << width.bits()) - 1;
    let mut symbols = Vec::with_capacity(len * width.bytes());
    for i in 0..len {
        let r = random.next();
        let halving = (r as u32 | 1 << 12).trailing_zeros() * 2 + (r >> 63) as u32;
        let value = match shape {
            Shape::Zeros => 0,
            Shape::Top => top,
            Shape::Uniform => r as u32,
            Shape::Exponents => (top / 2).wrapping_sub(halving),
            Shape::Sparse if r.is_multiple_of(500) => (r >> 40) as u32,
            Shape::Sparse => 0,
            Shape::Two => top * u32::from(r.is_multiple_of(3)),
            Shape::Ramp => i as u32,
            Shape::Shifting => (halving >> 1) * (i / 3000) as u32,
        };
        symbols.extend_from_slice(&(value & top).to_le_bytes()[..width.bytes()]);
    }
    symbols
}

/// Checks that `codec` brings every array of the bank back, by both decoders, and that
/// the two agree about damaged streams.
pub(crate) fn check(codec: &dyn StreamCodec) {
    let mut scratch = Scratch::new();
    for width in (1..=16).map(Width::new).filter(|&width| codec.supports(width)) {
        for len in LENGTHS {
            for shape in SHAPES {
                let symbols = array(shape, width, len);
                for level in [Level::Fast, Level::Max] {
                    let what = format!("{} {width:?} {shape:?} {len} {level:?}", codec.name());
                    check_array(codec, &symbols, width, level, &mut scratch, &what);
                }
            }
        }
    }
}

/// Checks a codec of ternary symbols as [`check`] does, on arrays of 0, 1 and 2: from few zeros to nothing else.
pub(crate) fn check_ternary(codec: &dyn StreamCodec) {
    let mut scratch = Scratch::new();
    for per_mille in [100, 333, 600, 857, 886, 950, 998, 1000] {
        for len in LENGTHS {
            let symbols = ternary(per_mille, len, per_mille ^ len as u64);
            let what = format!("{}, {per_mille} zeros in a thousand, {len}", codec.name());
            check_array(codec, &symbols, Width::new(2), Level::Fast, &mut scratch, &what);
        }
    }
}

/// An array of ternary symbols, so many of a thousand of which are zeros.
pub(crate) fn ternary(per_mille: u64, len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len)
        .map(|_| {
            let r = random.next();
            if r % 1000 < per_mille { 0 } else { 1 + (r >> 63) as u8 }
        })
        .collect()
}

fn check_array(codec: &dyn StreamCodec, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, what: &str) {
    let mut stream = b"kept".to_vec();
    codec.encode(symbols, width, level, scratch, &mut stream);
    assert_eq!(stream[..4], *b"kept", "{what}");
    let mut decoded = vec![0xa5; symbols.len()];
    assert_eq!(codec.decode_naive(&stream[4..], width, &mut decoded), Ok(()), "{what}");
    assert!(decoded == symbols, "{what}: the naive decoder gives other symbols");
    decoded.fill(0xa5);
    assert_eq!(codec.decode(&stream[4..], width, scratch, &mut decoded), Ok(()), "{what}");
    assert!(decoded == symbols, "{what}: the fast decoder gives other symbols");
    let damages = if symbols.len() > 5000 { 3 } else { 20 };
    let mut random = Random(stream.len() as u64);
    for _ in 0..damages {
        let damaged = damage(&stream[4..], &mut random);
        // Now and then the caller asks for another number of symbols, too.
        let len = if random.below(8) == 0 { random.below(symbols.len() + 9) } else { symbols.len() };
        let _ = agree(codec, &damaged, width, scratch, len, what);
    }
}

/// Asserts that both decoders accept or refuse `stream` alike, with the same symbols.
pub(crate) fn agree(
    codec: &dyn StreamCodec,
    stream: &[u8],
    width: Width,
    scratch: &mut Scratch,
    byte_len: usize,
    what: &str,
) -> Result<(), StreamError> {
    let (mut fast, mut naive) = (vec![0x5a; byte_len], vec![0xa5; byte_len]);
    let fast_result = codec.decode(stream, width, scratch, &mut fast);
    let naive_result = codec.decode_naive(stream, width, &mut naive);
    assert_eq!(fast_result.is_ok(), naive_result.is_ok(), "{what}: {fast_result:?}, naive {naive_result:?}");
    assert!(fast_result.is_err() || fast == naive, "{what}: a damaged stream decodes differently");
    fast_result
}

/// `stream` with a few bits, bytes or its end changed.
pub(crate) fn damage(stream: &[u8], random: &mut Random) -> Vec<u8> {
    let mut damaged = stream.to_vec();
    for _ in 0..=random.below(3) {
        let len = damaged.len();
        match random.below(8) {
            0 => damaged.truncate(random.below(len + 1)),
            1 => damaged.extend((0..=random.below(9)).map(|_| random.next() as u8)),
            _ if len == 0 => {}
            2 => damaged[random.below(len)] = random.next() as u8,
            3 => damaged[random.below(len.min(40))] = random.next() as u8,
            4 => damaged[random.below(len.min(40))] ^= 1 << random.below(8),
            5 => damaged[len - 1 - random.below(len.min(40))] ^= 1 << random.below(8),
            6 => damaged.swap(random.below(len), random.below(len)),
            _ => damaged[random.below(len)] ^= 1 << random.below(8),
        }
    }
    damaged
}
