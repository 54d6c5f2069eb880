//! The loops of `planes.rs`, compiled once for each set of machine features.

use super::{Layout, planes};
use crate::stream::tiered::{Path, paths};

/// A set of machine features that this machine has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version(Features);

#[derive(Clone, Copy, Debug)]
enum Features {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Version {
    /// The fastest version of this machine.
    pub(super) fn best() -> Self {
        Self::of(Path::best())
    }

    /// Every version of this machine.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests and benchmarks compare the versions"))]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        paths().map(Self::of)
    }

    /// The version that goes with a path of the `tiered` codec: it may use no more of
    /// the machine than the path does.
    pub(super) fn of(path: Path) -> Self {
        Self(match path.name() {
            #[cfg(target_arch = "x86_64")]
            "avx512" if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi") => {
                Features::Avx512
            }
            #[cfg(target_arch = "x86_64")]
            "avx512" | "avx2" if is_x86_feature_detected!("avx2") => Features::Avx2,
            _ => Features::Baseline,
        })
    }

    /// Takes `data` apart into `planes`.
    pub(super) fn split(self, layout: Layout, data: &[u8], planes: &mut [&mut [u8]]) {
        match self.0 {
            // SAFETY: `of` makes this version only where the machine has its features.
            #[cfg(target_arch = "x86_64")]
            Features::Avx512 => unsafe { split_avx512(layout, data, planes) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Features::Avx2 => unsafe { split_avx2(layout, data, planes) },
            Features::Baseline => planes::split(layout, data, planes),
        }
    }

    /// Puts `data` together from `planes`.
    pub(super) fn join(self, layout: Layout, planes: &[&[u8]], data: &mut [u8]) {
        match self.0 {
            // SAFETY: `of` makes this version only where the machine has its features.
            #[cfg(target_arch = "x86_64")]
            Features::Avx512 => unsafe { join_avx512(layout, planes, data) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Features::Avx2 => unsafe { join_avx2(layout, planes, data) },
            Features::Baseline => planes::join(layout, planes, data),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn split_avx512(layout: Layout, data: &[u8], planes: &mut [&mut [u8]]) {
    planes::split(layout, data, planes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn join_avx512(layout: Layout, planes: &[&[u8]], data: &mut [u8]) {
    planes::join(layout, planes, data);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn split_avx2(layout: Layout, data: &[u8], planes: &mut [&mut [u8]]) {
    planes::split(layout, data, planes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn join_avx2(layout: Layout, planes: &[&[u8]], data: &mut [u8]) {
    planes::join(layout, planes, data);
}
