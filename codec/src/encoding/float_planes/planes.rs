//! Elements to planes and back, in loops that a compiler turns into vector code. They
//! are inlined into one function for each set of machine features.

use super::Layout;
use crate::encoding::versions::versioned;

versioned! {
    /// Takes `data` apart into `planes`.
    split_by(layout: Layout, data: &[u8], planes: &mut [&mut [u8]]) is split
}

versioned! {
    /// Puts `data` together from `planes`.
    join_by(layout: Layout, planes: &[&[u8]], data: &mut [u8]) is join
}

/// Takes elements apart.
#[inline(always)]
fn split(layout: Layout, data: &[u8], planes: &mut [&mut [u8]]) {
    match (layout, planes) {
        (Layout::Bytes(2), planes) => split_bytes::<2>(data, planes),
        (Layout::Bytes(4), planes) => split_bytes::<4>(data, planes),
        (Layout::Bytes(_), planes) => split_bytes::<8>(data, planes),
        (Layout::Half, [exponent, rest, low]) => split_half(data, exponent, rest, low),
        (Layout::Byte { mantissa: 2 }, [exponent, rest]) => split_byte::<2>(data, exponent, rest),
        (Layout::Byte { .. }, [exponent, rest]) => split_byte::<3>(data, exponent, rest),
        _ => unreachable!("components() gave this array other components"),
    }
}

/// Puts elements together.
#[inline(always)]
fn join(layout: Layout, planes: &[&[u8]], data: &mut [u8]) {
    match (layout, planes) {
        (Layout::Bytes(2), &[e, s]) => join_2(e, s, data),
        (Layout::Bytes(4), &[e, s, m1, m0]) => join_4([e, s, m1, m0], data),
        (Layout::Bytes(_), &[e, s, m5, m4, m3, m2, m1, m0]) => join_8([e, s, m5, m4, m3, m2, m1, m0], data),
        (Layout::Half, &[exponent, rest, low]) => join_half(exponent, rest, low, data),
        (Layout::Byte { mantissa: 2 }, &[exponent, rest]) => join_byte::<2>(exponent, rest, data),
        (Layout::Byte { .. }, &[exponent, rest]) => join_byte::<3>(exponent, rest, data),
        _ => unreachable!("components() gave this array other components"),
    }
}

/// The exponent of one element, given by its bytes.
#[inline(always)]
pub(super) fn exponent(layout: Layout, element: &[u8]) -> u8 {
    match (layout, element) {
        (Layout::Bytes(_), [.., next, top]) => with_top_of(*top, *next),
        (Layout::Half, [_, top]) => top >> 2 & 0x1f,
        (Layout::Byte { mantissa }, [v]) => (v & 0x7f) >> mantissa,
        _ => unreachable!("an element of this layout has other bytes"),
    }
}

/// `a` with the top bit of `b`.
#[inline(always)]
fn with_top_of(a: u8, b: u8) -> u8 {
    a & 0x7f | b & 0x80
}

#[inline(always)]
fn split_bytes<const K: usize>(data: &[u8], planes: &mut [&mut [u8]]) {
    let (data, _) = data.as_chunks::<K>();
    let [exponent, rest, mantissas @ ..] = planes else { unreachable!("two planes at least") };
    // One loop for each plane: with several outputs compilers give up on vectors.
    for (bytes, e) in data.iter().zip(exponent.iter_mut()) {
        let v = u16::from_le_bytes([bytes[K - 2], bytes[K - 1]]);
        *e = (v >> 8 & 0x7f | v & 0x80) as u8;
    }
    for (bytes, s) in data.iter().zip(rest.iter_mut()) {
        let v = u16::from_le_bytes([bytes[K - 2], bytes[K - 1]]);
        *s = (v & 0x7f | v >> 8 & 0x80) as u8;
    }
    for (plane, at) in mantissas.iter_mut().zip((0..K - 2).rev()) {
        for (bytes, m) in data.iter().zip(plane.iter_mut()) {
            *m = bytes[at];
        }
    }
}

#[inline(always)]
fn join_2(e: &[u8], s: &[u8], data: &mut [u8]) {
    let (data, _) = data.as_chunks_mut::<2>();
    for ((out, &e), &s) in data.iter_mut().zip(e).zip(s) {
        *out = [with_top_of(s, e), with_top_of(e, s)];
    }
}

#[inline(always)]
fn join_4(planes: [&[u8]; 4], data: &mut [u8]) {
    let (data, _) = data.as_chunks_mut::<4>();
    let [e, s, m1, m0] = planes.map(|plane| &plane[..data.len()]);
    for (i, out) in data.iter_mut().enumerate() {
        let (next, top) = (with_top_of(s[i], e[i]), with_top_of(e[i], s[i]));
        *out = (u32::from(m0[i]) | u32::from(m1[i]) << 8 | u32::from(next) << 16 | u32::from(top) << 24).to_le_bytes();
    }
}

#[inline(always)]
fn join_8(planes: [&[u8]; 8], data: &mut [u8]) {
    let (data, _) = data.as_chunks_mut::<8>();
    let [e, s, m5, m4, m3, m2, m1, m0] = planes.map(|plane| &plane[..data.len()]);
    for (i, out) in data.iter_mut().enumerate() {
        let (next, top) = (with_top_of(s[i], e[i]), with_top_of(e[i], s[i]));
        let low = u32::from(m0[i]) | u32::from(m1[i]) << 8 | u32::from(m2[i]) << 16 | u32::from(m3[i]) << 24;
        let high = u32::from(m4[i]) | u32::from(m5[i]) << 8 | u32::from(next) << 16 | u32::from(top) << 24;
        *out = (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    }
}

#[inline(always)]
fn split_half(data: &[u8], exponent: &mut [u8], rest: &mut [u8], low: &mut [u8]) {
    let (data, _) = data.as_chunks::<2>();
    for (&bytes, e) in data.iter().zip(exponent) {
        *e = (u16::from_le_bytes(bytes) >> 10 & 0x1f) as u8;
    }
    for (&bytes, s) in data.iter().zip(rest) {
        let v = u16::from_le_bytes(bytes);
        *s = (v >> 13 & 4 | v >> 8 & 3) as u8;
    }
    for (&bytes, m) in data.iter().zip(low) {
        *m = (u16::from_le_bytes(bytes) & 0xff) as u8;
    }
}

#[inline(always)]
fn join_half(exponent: &[u8], rest: &[u8], low: &[u8], data: &mut [u8]) {
    let (data, _) = data.as_chunks_mut::<2>();
    for (((out, &e), &s), &m) in data.iter_mut().zip(exponent).zip(rest).zip(low) {
        *out = [m, (s & 4) << 5 | e << 2 | s & 3];
    }
}

#[inline(always)]
fn split_byte<const MANTISSA: u8>(data: &[u8], exponent: &mut [u8], rest: &mut [u8]) {
    for ((&v, e), s) in data.iter().zip(exponent).zip(rest) {
        *e = (v & 0x7f) >> MANTISSA;
        *s = (v >> 7) << MANTISSA | v & ((1 << MANTISSA) - 1);
    }
}

#[inline(always)]
fn join_byte<const MANTISSA: u8>(exponent: &[u8], rest: &[u8], data: &mut [u8]) {
    for ((out, &e), &s) in data.iter_mut().zip(exponent).zip(rest) {
        *out = (s >> MANTISSA) << 7 | e << MANTISSA | s & ((1 << MANTISSA) - 1);
    }
}
