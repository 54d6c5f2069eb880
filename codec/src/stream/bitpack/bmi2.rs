//! The loops of `groups.rs` on machines with BMI2, which moves all fields of a word at once.

use std::arch::x86_64::{_pdep_u64, _pext_u64};

use super::groups::{Fields, pack_with, places, unpack_with};
use crate::stream::Width;

/// Proof that the machine has the instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bmi2(());

impl Bmi2 {
    /// `None` if the machine lacks an instruction that is needed here.
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2")).then_some(Self(()))
    }

    /// [`super::groups::unpack`].
    pub(super) fn unpack(self, stream: &[u8], width: Width, symbols: &mut [u8]) {
        // SAFETY: the features have been detected, or there would be no `Bmi2`.
        unsafe { unpack(self, stream, width, symbols) }
    }

    /// [`super::groups::pack`].
    pub(super) fn pack(self, symbols: &[u8], width: Width, stream: &mut [u8]) {
        // SAFETY: the features have been detected, or there would be no `Bmi2`.
        unsafe { pack(self, symbols, width, stream) }
    }
}

#[target_feature(enable = "bmi1,bmi2")]
fn unpack(bmi2: Bmi2, stream: &[u8], width: Width, symbols: &mut [u8]) {
    unpack_with(bmi2, stream, width, symbols);
}

#[target_feature(enable = "bmi1,bmi2")]
fn pack(bmi2: Bmi2, symbols: &[u8], width: Width, stream: &mut [u8]) {
    pack_with(bmi2, symbols, width, stream);
}

impl Fields for Bmi2 {
    #[inline(always)]
    fn spread<const W: u32>(self, v: u64) -> u64 {
        // SAFETY: the features have been detected, or there would be no `Bmi2`.
        unsafe { _pdep_u64(v, places::<W>()) }
    }

    #[inline(always)]
    fn squeeze<const W: u32>(self, v: u64) -> u64 {
        // SAFETY: the features have been detected, or there would be no `Bmi2`.
        unsafe { _pext_u64(v, places::<W>()) }
    }
}
