//! Elements to components and back, in loops that a compiler turns into vector code. They are
//! inlined into one function for each set of machine features.

use super::Layout;
use crate::encoding::versions::versioned;

versioned! {
    /// Takes `data` apart into `components`.
    split_by(layout: Layout, data: &[u8], components: &mut [&mut [u8]]) is split
}

versioned! {
    /// Puts `data` together from `components`.
    join_by(layout: Layout, components: &[&[u8]], data: &mut [u8]) is join
}

#[inline(always)]
fn split(layout: Layout, data: &[u8], components: &mut [&mut [u8]]) {
    match (layout, components) {
        (Layout::Whole, [value]) => value.copy_from_slice(data),
        (Layout::Split { len: 2, low: 5 }, [joint, rest]) => {
            split_top::<2, 2, 5>(data, u16::from_le_bytes, u16::to_le_bytes, joint, rest);
        }
        (Layout::Split { len: 2, .. }, [joint, rest]) => {
            split_top::<2, 1, 7>(data, u16::from_le_bytes, |joint| [joint as u8], joint, rest);
        }
        (Layout::Split { len: 4, .. }, [joint, rest, low @ ..]) => {
            split_top::<4, 2, 5>(data, top_of_four, u16::to_le_bytes, joint, rest);
            split_low::<4>(data, low);
        }
        (Layout::Split { .. }, [joint, rest, low @ ..]) => {
            split_top::<8, 2, 3>(data, top_of_eight, u16::to_le_bytes, joint, rest);
            split_low::<8>(data, low);
        }
        _ => unreachable!("components() gave this array other components"),
    }
}

#[inline(always)]
fn join(layout: Layout, components: &[&[u8]], data: &mut [u8]) {
    match (layout, components) {
        (Layout::Whole, [value]) => data.copy_from_slice(value),
        (Layout::Split { len: 2, low: 5 }, [joint, rest]) => {
            let elements = data.as_chunks_mut().0.iter_mut();
            for (element, v) in elements.zip(tops::<2, 5>(joint, rest, u16::from_le_bytes)) {
                *element = u16::to_le_bytes(v);
            }
        }
        (Layout::Split { len: 2, .. }, [joint, rest]) => {
            let elements = data.as_chunks_mut().0.iter_mut();
            for (element, v) in elements.zip(tops::<1, 7>(joint, rest, |[joint]| joint.into())) {
                *element = u16::to_le_bytes(v);
            }
        }
        (Layout::Split { len: 4, .. }, [joint, rest, high, low]) => {
            let low = high.iter().zip(*low).map(|(&high, &low)| u16::from_le_bytes([low, high]));
            let elements = data.as_chunks_mut().0.iter_mut();
            for ((element, v), low) in elements.zip(tops::<2, 5>(joint, rest, u16::from_le_bytes)).zip(low) {
                *element = u32::to_le_bytes(u32::from(v) << 16 | u32::from(low));
            }
        }
        (Layout::Split { .. }, [joint, rest, low @ ..]) => {
            let elements = data.as_chunks_mut::<8>().0;
            for (element, v) in elements.iter_mut().zip(tops::<2, 3>(joint, rest, u16::from_le_bytes)) {
                element[6..].copy_from_slice(&v.to_le_bytes());
            }
            for (plane, byte) in low.iter().zip((0..6).rev()) {
                for (element, &value) in elements.iter_mut().zip(*plane) {
                    element[byte] = value;
                }
            }
        }
        _ => unreachable!("components() gave this array other components"),
    }
}

/// Elements that are taken apart before the next component's turn: they stay in the
/// nearest cache, and every loop has one input and one output, as compilers like it.
const RUN: usize = 2048;

/// Splits the top bytes of elements of `K` bytes into joint symbols of `J` bytes and
/// `R` low bits with the sign.
#[inline(always)]
fn split_top<const K: usize, const J: usize, const R: u32>(
    data: &[u8],
    top: impl Fn([u8; K]) -> u16,
    put: impl Fn(u16) -> [u8; J],
    joint: &mut [u8],
    rest: &mut [u8],
) {
    let runs = data.as_chunks().0.chunks(RUN);
    for ((elements, joint), rest) in runs.zip(joint.as_chunks_mut().0.chunks_mut(RUN)).zip(rest.chunks_mut(RUN)) {
        for (place, &element) in joint.iter_mut().zip(elements) {
            *place = put((top(element) & 0x7fff) >> R);
        }
        for (place, &element) in rest.iter_mut().zip(elements) {
            let v = top(element);
            *place = ((v >> 15) << R | v & ((1 << R) - 1)) as u8;
        }
    }
}

/// Splits off the bytes below the top two, the highest first.
#[inline(always)]
fn split_low<const K: usize>(data: &[u8], low: &mut [&mut [u8]]) {
    for (run, elements) in data.as_chunks::<K>().0.chunks(RUN).enumerate() {
        for (plane, byte) in low.iter_mut().zip((0..K - 2).rev()) {
            for (place, element) in plane[run * RUN..].iter_mut().zip(elements) {
                *place = element[byte];
            }
        }
    }
}

/// The top bytes of elements: the inverse of [`split_top`].
#[inline(always)]
fn tops<const J: usize, const R: u32>(
    joint: &[u8],
    rest: &[u8],
    get: impl Fn([u8; J]) -> u16,
) -> impl Iterator<Item = u16> {
    joint.as_chunks().0.iter().zip(rest).map(move |(&joint, &rest)| {
        let rest = u16::from(rest);
        (rest >> R) << 15 | get(joint) << R | rest & ((1 << R) - 1)
    })
}

#[inline(always)]
fn top_of_four(element: [u8; 4]) -> u16 {
    (u32::from_le_bytes(element) >> 16) as u16
}

#[inline(always)]
fn top_of_eight(element: [u8; 8]) -> u16 {
    (u64::from_le_bytes(element) >> 48) as u16
}
