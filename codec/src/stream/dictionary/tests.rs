//! Tests of the `dictionary` codec and of QMoE's rows.

use super::*;
use crate::stream::laws;

#[test]
fn keeps_the_laws() {
    laws::check(&Dictionary);
    laws::check_ternary(&Dictionary);
}

#[test]
fn the_example_of_the_page() {
    let stream = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x0c, 0, 0, 0];
    let mut symbols = [9; 3];
    Dictionary.decode(&stream, ternary::WIDTH, &mut Scratch::new(), &mut symbols).unwrap();
    assert_eq!(symbols, [1, 0, 0]);
}

#[test]
fn both_ways_make_the_same_dictionary() {
    for (codeword, word) in naive::WORDS.iter().enumerate() {
        let mut symbols = vec![9; word.len()];
        assert_eq!(words::decode([codeword as u16].into_iter(), &mut symbols), Ok((1, 0)));
        assert_eq!(symbols, *word);
        let mut codewords = Vec::new();
        encode_row(word, &mut codewords).unwrap();
        assert_eq!(codewords, [codeword as u16]);
    }
}

/// Row of 256 weights: x = 12345, then x = (1103515245 x + 12345) mod 2^31, u = (x / 256) mod 1000.
fn row() -> Vec<u8> {
    let mut x = 12345u32;
    let next = |_| {
        x = x.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        match (x >> 8) % 1000 {
            0..885 => 0,
            885..943 => 1,
            _ => 2,
        }
    };
    (0..256).map(next).collect()
}

/// What QMoE's encoder makes of that row, and of the row without its last weight.
const CODEWORDS_OF_ROW: [u16; 13] = [54274, 32140, 8277, 54016, 8716, 7499, 14690, 52441, 60329, 25, 42994, 45478, 58];

#[test]
fn rows_are_encoded_as_qmoe_does() {
    let row = row();
    assert_eq!(row[..12], [0, 2, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    for width in [256, 255] {
        let mut codewords = Vec::new();
        encode_row(&row[..width], &mut codewords).unwrap();
        assert_eq!(codewords, CODEWORDS_OF_ROW);
        let mut decoded = vec![9; width];
        decode_row(&codewords, &mut decoded).unwrap();
        assert_eq!(decoded, row[..width]);
    }
}

#[test]
fn rows_of_any_width_come_back() {
    let mut codewords = Vec::new();
    for width in (0..70).chain(8180..8230).chain([16_383, 16_411, 50_001]) {
        for zeros in [300, 885, 995] {
            let symbols = laws::ternary(zeros, width, width as u64);
            codewords.clear();
            encode_row(&symbols, &mut codewords).unwrap();
            for len in [width, width + 1, width.saturating_sub(1), width.saturating_sub(27)] {
                let (mut decoded, mut naive) = (vec![9; len], vec![9; len]);
                let result = decode_row(&codewords, &mut decoded);
                assert_eq!(result, decode_row_naive(&codewords, &mut naive), "{len} of {width} symbols");
                assert!(len != width || result.is_ok());
                // A row of an odd number of symbols is coded with a 0 behind it.
                let row = [&symbols[..], &[0]].concat();
                assert!(result.is_err() || (decoded == naive && decoded == row[..len]), "{len} of {width} symbols");
            }
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let decode = |codewords: &[u16], width| decode_row(codewords, &mut vec![0; width]);
    assert_eq!(decode(&CODEWORDS_OF_ROW[..12], 256), Err(StreamError::Length));
    assert_eq!(decode(&[&CODEWORDS_OF_ROW[..], &[0]].concat(), 256), Err(StreamError::Length));
    assert_eq!(decode(&CODEWORDS_OF_ROW, 300), Err(StreamError::Length));
    assert_eq!(decode(&CODEWORDS_OF_ROW, 100), Err(StreamError::Length));
    assert!(decode(&[0], 0).is_err() && decode(&[], 1).is_err() && decode(&[], 0).is_ok());
    assert!(encode_row(&[0, 3], &mut Vec::new()).is_err());
    assert!(encode_row(&[1, 1, 255], &mut Vec::new()).is_err());
}

/// QMoE reports 21.1 times (arXiv 2310.16795, section 5.2): matrices of the largest model with 88.5 % zeros, 64 bits for each row included.
#[test]
fn matrices_shrink_as_qmoe_reports() {
    let ratio = |rows: usize, width: usize| {
        let mut codewords = Vec::new();
        for row in 0..rows {
            encode_row(&laws::ternary(885, width, row as u64), &mut codewords).unwrap();
        }
        (16 * rows * width) as f64 / (16 * codewords.len() + 64 * rows) as f64
    };
    // A tenth of the rows is enough.
    let mean = (ratio(208, 6144) + ratio(614, 2080)) / 2.0;
    assert!(mean >= 21.0, "{mean}");
}
