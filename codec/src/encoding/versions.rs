//! Loops that are compiled once for each set of machine features.

use crate::stream::tiered::{Path, paths};

/// A set of machine features that this machine has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version(Features);

#[derive(Clone, Copy, Debug)]
pub(super) enum Features {
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
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare the versions"))]
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

    /// The features, which the machine has.
    pub(super) fn features(self) -> Features {
        self.0
    }
}

/// Defines a function that calls the version asked for of another, which must be always inlined.
macro_rules! versioned {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) is $loops:path) => {
        $(#[$doc])*
        pub(super) fn $name(version: $crate::encoding::versions::Version, $($argument: $type),*) {
            use $crate::encoding::versions::Features;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
            fn avx512($($argument: $type),*) {
                $loops($($argument),*);
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $type),*) {
                $loops($($argument),*);
            }

            match version.features() {
                // SAFETY: there is such a version only where the machine has its features.
                #[cfg(target_arch = "x86_64")]
                Features::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: likewise.
                #[cfg(target_arch = "x86_64")]
                Features::Avx2 => unsafe { avx2($($argument),*) },
                Features::Baseline => $loops($($argument),*),
            }
        }
    };
}
pub(super) use versioned;
