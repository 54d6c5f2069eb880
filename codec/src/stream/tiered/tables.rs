//! Byte shuffles for eight elements, by which of them are escapes.

/// Expansion: byte `j` is the rank of element `j` among the escapes; 0x80, which shuffles
/// a zero in, for other elements.
pub(super) static EXPAND: [u64; 256] = expand();

/// Compression: byte `r` is the place of the escape of rank `r`; 0x80 behind the last.
pub(super) static COMPRESS: [u64; 256] = compress();

const fn expand() -> [u64; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut j, mut rank) = (0, 0);
        while j < 8 {
            let escape = i >> j & 1 != 0;
            table[i] |= (if escape { rank } else { 0x80 }) << (8 * j);
            rank += escape as u64;
            j += 1;
        }
        i += 1;
    }
    table
}

const fn compress() -> [u64; 256] {
    let mut table = [0x8080_8080_8080_8080; 256];
    let mut i = 0;
    while i < 256 {
        let (mut j, mut rank) = (0, 0);
        while j < 8 {
            if i >> j & 1 != 0 {
                table[i] ^= (0x80 ^ j) << (8 * rank);
                rank += 1;
            }
            j += 1;
        }
        i += 1;
    }
    table
}
