//! The oracle: the whole stream of a group, front to back, exactly as the layout defines it.
//! It looks at one table after the other and knows nothing of gaps and blocks. Only for sound
//! groups.

/// The BF16 elements of a group.
pub(super) fn decode(luts: &[u8], encoded_exponent: &[u8], sign_mantissa: &[u8]) -> Vec<u16> {
    let rows = luts.len() / 256;
    let lut = |row: usize, entry: u8| luts[256 * row + usize::from(entry)];
    // The byte whose most significant bit is this bit of the stream.
    let byte_at = |bit: usize| {
        (0..8).fold(0, |byte, i| {
            let at = bit + i;
            let set = encoded_exponent.get(at / 8).is_some_and(|b| b >> (7 - at % 8) & 1 == 1);
            byte << 1 | u8::from(set)
        })
    };
    let mut bit = 0;
    let element = |&other: &u8| {
        let mut value = lut(0, byte_at(bit));
        let mut level = 0;
        while value >= 240 {
            level += 1;
            value = lut(256 - usize::from(value), byte_at(bit + 8 * level));
        }
        bit += usize::from(lut(rows - 1, value));
        u16::from(other & 0x80) << 8 | u16::from(value) << 7 | u16::from(other & 0x7f)
    };
    sign_mantissa.iter().map(element).collect()
}
