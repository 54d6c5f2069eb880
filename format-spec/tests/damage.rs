//! Cut files and changed bits.

mod common;

use cmz_format::{Code, ErrorKind};
use common::{codes, small_plan, verify, write_file};

#[test]
fn every_cut_is_truncated() {
    let file = write_file(&small_plan());
    for len in 0..file.len() {
        assert_eq!(codes(&file[..len]), (Some(Code::Truncated), Some(Code::Truncated)), "{len} bytes");
    }
}

/// The exception that SPEC.md §14 states: a payload that ends like a trailer.
#[test]
fn a_cut_behind_a_trailer_inside_a_payload_is_refused() {
    let file = write_file(&small_plan());
    for end in [file.clone(), [&[0; 56], &file[..8]].concat()] {
        let mut cut = file[..64].to_vec();
        cut.extend_from_slice(&end);
        let (index, parser) = codes(&cut);
        assert_eq!(index.unwrap().kind(), ErrorKind::Corrupt);
        assert!(parser.is_some());
    }
}

#[test]
fn every_changed_bit_is_found() {
    let mut file = write_file(&small_plan());
    verify(&file).unwrap();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(common::parse_all(&file, |_| Ok(())).is_err(), "bit {bit} of byte {at}, from the front");
            assert!(verify(&file).is_err(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
}

/// What an index alone must find: all bits of what it reads.
#[test]
fn every_changed_bit_of_the_index_is_found_on_opening() {
    let mut file = write_file(&small_plan());
    let manifest = u64::from_le_bytes(file[file.len() - 64..file.len() - 56].try_into().unwrap()) as usize;
    for at in (0..64).chain(manifest..file.len()) {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(common::open(&file).is_err(), "bit {bit} of byte {at}");
            file[at] ^= 1 << bit;
        }
    }
}

#[test]
fn bytes_behind_the_trailer_are_refused() {
    let mut file = write_file(&small_plan());
    for more in [1, 63, 64, 1000] {
        let len = file.len();
        file.resize(len + more, 0);
        assert_eq!(codes(&file), (Some(Code::Truncated), Some(Code::Malformed)));
        file.truncate(len);
    }
}
