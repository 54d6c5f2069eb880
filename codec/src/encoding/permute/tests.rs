//! Orders that are permutations, and others.

use cmz_format::Dtype;

use super::*;
use crate::encoding::testing::{join, random, split};

fn array(dtype: Dtype, elements: usize, row: usize) -> Array {
    Array::new(Element::Dtype(dtype), elements * dtype.bits() as usize / 8, row)
}

fn order(order: &[u16]) -> Vec<u8> {
    order.iter().flat_map(|place| place.to_le_bytes()).collect()
}

#[test]
fn the_example_of_the_page() {
    let array = array(Dtype::U8, 6, 3);
    let parts = [b"abcdef".to_vec(), order(&[2, 0, 1])];
    assert_eq!(join(&Permute, array, &parts).unwrap(), b"bcaefd");
}

#[test]
fn every_column_goes_where_the_order_says() {
    let mut state = 1;
    for dtype in [Dtype::F8_E4M3, Dtype::BF16, Dtype::F32, Dtype::I64] {
        let len = dtype.bits() as usize / 8;
        for row in [1, 2, 7, 300, 65_536] {
            let array = array(dtype, 3 * row, row);
            let permuted = random(&mut state, array.byte_len);
            // A multiplier that has no divisor in common with the length of a row.
            let places: Vec<u16> = (0..row).map(|i| (i * 7919 % row) as u16).collect();
            let found = join(&Permute, array, &[permuted.clone(), order(&places)]).unwrap();
            for i in 0..3 * row {
                let place = i / row * row + usize::from(places[i % row]);
                assert_eq!(found[place * len..][..len], permuted[i * len..][..len]);
            }
            assert_eq!(join(&Permute, array, &split(&Permute, array, &permuted)).unwrap(), permuted);
        }
    }
    assert!(join(&Permute, array(Dtype::F16, 0, 8), &[vec![], vec![]]).unwrap().is_empty());
}

/// Every order of three columns: those that name a column twice, or one that is not there, are refused.
#[test]
fn other_orders_are_refused() {
    let array = array(Dtype::U8, 6, 3);
    let mut taken = 0;
    for code in 0..64u16 {
        let places = [code & 3, code >> 2 & 3, code >> 4];
        let mut sorted = places;
        sorted.sort_unstable();
        let result = join(&Permute, array, &[b"abcdef".to_vec(), order(&places)]);
        assert_eq!(result.is_ok(), sorted == [0, 1, 2], "{places:?}");
        taken += u32::from(result.is_ok());
    }
    assert_eq!(taken, 6);
    assert!(join(&Permute, array, &[b"abcdef".to_vec(), order(&[0, 1, u16::MAX])]).is_err());
}

#[test]
fn arrays_are_of_whole_rows() {
    assert!(Permute.components(array(Dtype::BF16, 7, 3)).is_none());
    assert!(Permute.components(array(Dtype::BF16, 65_537, 65_537)).is_none());
    assert!(Permute.components(array(Dtype::BF16, 65_536, usize::MAX)).is_some());
    assert!(Permute.components(Array::new(Element::Dtype(Dtype::F4), 8, 4)).is_none());
    assert!(Permute.components(Array::new(Element::Opaque, 8, 4)).is_none());
}
