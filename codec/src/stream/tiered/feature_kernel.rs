//! Kernels that are compiled for features which a machine may lack.

/// Implements [`super::kernel::Kernel`] for a type that exists only where the machine has the features that
/// the functions `escapes`, `decode_tier`, `decode_bf16`, `encode_tier` and `encode_bf16` of
/// the calling module are compiled for.
macro_rules! feature_kernel {
    ($kernel:ty, $name:literal) => {
        impl Kernel for $kernel {
            fn name(&self) -> &'static str {
                $name
            }

            fn escapes(&self, low: &[u8], high: &[u8]) -> usize {
                // SAFETY: `self` exists, so the machine has the features.
                unsafe { escapes(low, high) }
            }

            fn decode_tier(&self, planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]) {
                // SAFETY: `self` exists, so the machine has the features.
                unsafe { decode_tier(planes, named, below, out) }
            }

            fn decode_bf16(
                &self,
                planes: Planes<'_>,
                named: [u8; 3],
                below: &TierBuffer,
                sign_mantissa: &[u8; TILE],
                out: &mut [u8; 2 * TILE],
            ) {
                // SAFETY: `self` exists, so the machine has the features.
                unsafe { decode_bf16(planes, named, below, sign_mantissa, out) }
            }

            fn encode_tier(
                &self,
                symbols: &[u8],
                elements: usize,
                named: [u8; 3],
                planes: &mut PlaneWords,
                escaped: &mut TierBuffer,
            ) -> usize {
                // SAFETY: `self` exists, so the machine has the features.
                unsafe { encode_tier(symbols, elements, named, planes, escaped) }
            }

            fn encode_bf16(
                &self,
                data: &[u8; 2 * TILE],
                named: [u8; 3],
                planes: &mut PlaneWords,
                escaped: &mut TierBuffer,
                sign_mantissa: &mut [u8; TILE],
            ) -> usize {
                // SAFETY: `self` exists, so the machine has the features.
                unsafe { encode_bf16(data, named, planes, escaped, sign_mantissa) }
            }
        }
    };
}
pub(super) use feature_kernel;
