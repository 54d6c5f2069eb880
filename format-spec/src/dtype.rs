//! Element types of tensors.

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($name:ident $bits:literal $doc:literal,)*) => {
        /// The type of a tensor's elements, by its safetensors name.
        #[allow(non_camel_case_types, reason = "the names are the ones that safetensors files use")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Dtype {
            $(#[doc = $doc] $name,)*
        }

        impl Dtype {
            /// Every element type, in the order of SPEC.md.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Size of one element, in bits.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }

            /// The name that safetensors and `.cmz` files use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

dtypes! {
    BOOL 8 "Boolean, one byte.",
    F4 4 "4-bit float E2M1, two to a byte.",
    F6_E2M3 6 "6-bit float E2M3, four to three bytes.",
    F6_E3M2 6 "6-bit float E3M2, four to three bytes.",
    U8 8 "Unsigned 8-bit integer.",
    I8 8 "Signed 8-bit integer.",
    F8_E5M2 8 "8-bit float E5M2.",
    F8_E4M3 8 "8-bit float E4M3.",
    F8_E8M0 8 "8-bit power-of-two scale.",
    F8_E4M3FNUZ 8 "8-bit float E4M3, finite, unsigned zero.",
    F8_E5M2FNUZ 8 "8-bit float E5M2, finite, unsigned zero.",
    I16 16 "Signed 16-bit integer.",
    U16 16 "Unsigned 16-bit integer.",
    F16 16 "IEEE half precision.",
    BF16 16 "Brain float.",
    I32 32 "Signed 32-bit integer.",
    U32 32 "Unsigned 32-bit integer.",
    F32 32 "IEEE single precision.",
    C64 64 "Complex number of two F32, real part first.",
    F64 64 "IEEE double precision.",
    I64 64 "Signed 64-bit integer.",
    U64 64 "Unsigned 64-bit integer.",
}

impl Dtype {
    /// The type with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// Bytes that `elements` of this type occupy; `None` if they do not end on a
    /// byte or the size does not fit 64 bits.
    #[must_use]
    pub const fn byte_len(self, elements: u64) -> Option<u64> {
        match elements.checked_mul(self.bits()) {
            Some(bits) if bits % 8 == 0 => Some(bits / 8),
            _ => None,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
