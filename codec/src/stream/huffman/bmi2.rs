//! The lanes of the `huffman` decoder, compiled for machines with BMI2, whose shifts by
//! a variable take one step instead of three.

use std::ops::Range;

use super::decode::{LANE_ROOM, Lookup, SIDE_BY_SIDE};
use crate::stream::StreamError;

/// Proof that the machine has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Bmi2(());

impl Bmi2 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")).then_some(Self(()))
    }

    /// [`Lookup::decode_lanes`].
    pub(super) fn decode_lanes(
        self,
        tables: &Lookup<'_>,
        payload: &[u8],
        ranges: &[Range<usize>; SIDE_BY_SIDE],
        counts: [usize; SIDE_BY_SIDE],
        outs: &mut [[u8; LANE_ROOM]; SIDE_BY_SIDE],
    ) -> Result<(), StreamError> {
        // SAFETY: the features have been detected, or there would be no `Bmi2`.
        unsafe { decode_lanes(tables, payload, ranges, counts, outs) }
    }
}

#[target_feature(enable = "bmi1,bmi2")]
fn decode_lanes(
    tables: &Lookup<'_>,
    payload: &[u8],
    ranges: &[Range<usize>; SIDE_BY_SIDE],
    counts: [usize; SIDE_BY_SIDE],
    outs: &mut [[u8; LANE_ROOM]; SIDE_BY_SIDE],
) -> Result<(), StreamError> {
    tables.decode_lanes(payload, ranges, counts, outs)
}
