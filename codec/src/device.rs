//! What a device needs to know of a block to decode it there: how its streams can be read, and how their symbols are joined.
//!
//! All that is said here has been checked against the stream; what is not said (the codes themselves) the device must check.

use arrayvec::ArrayVec;

use crate::encoding::MAX_COMPONENTS;
use crate::stream::{StreamCodec, Width};

/// How a device reads the symbols of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceForm {
    /// At any index: a symbol begins every `stride` bits.
    Indexed {
        /// 8 or 16 if the symbols lie as in memory, otherwise their width.
        stride: u8,
    },
    /// All symbols are the same.
    Constant(u16),
    /// Tile by tile, by the kernel of the codec.
    Tiled(Tiles),
}

/// The tiles of a stream: `end[0..=T]`, 32-bit numbers of 32-bit words, and the payload behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// A tile has 2 to this power of symbols; the last one may be shorter.
    pub log: u8,
    /// Where `end[0]` lies in the stream, in bytes: a multiple of 4.
    pub ends_at: u32,
    /// 32-bit words of the payload.
    pub payload_words: u32,
    /// The stream's table in the form that the kernel takes: see the codec's `decode.cu`.
    pub table: Vec<u32>,
}

/// How a device puts elements together from the symbols of their components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeviceJoin {
    /// The symbols of the one component are the bytes.
    Bytes = 0,
    /// `float_planes` of BF16.
    Bf16 = 1,
    /// `float_planes` of F32.
    F32 = 2,
    /// `float_planes` of F16.
    F16 = 3,
    /// `float_planes` of F8 with two bits of mantissa.
    F8E5M2 = 4,
    /// `float_planes` of F8 with three bits of mantissa.
    F8E4M3 = 5,
    /// `float_joint` of BF16.
    JointBf16 = 6,
    /// `float_joint` of F32.
    JointF32 = 7,
    /// `float_joint` of F16.
    JointF16 = 8,
}

impl DeviceJoin {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Bytes,
        Self::Bf16,
        Self::F32,
        Self::F16,
        Self::F8E5M2,
        Self::F8E4M3,
        Self::JointBf16,
        Self::JointF32,
        Self::JointF16,
    ];

    /// Bytes of an element.
    #[must_use]
    pub const fn element_len(self) -> usize {
        match self {
            Self::Bytes | Self::F8E5M2 | Self::F8E4M3 => 1,
            Self::Bf16 | Self::F16 | Self::JointBf16 | Self::JointF16 => 2,
            Self::F32 | Self::JointF32 => 4,
        }
    }
}

/// A component of a block.
#[derive(Debug)]
pub struct DeviceComponent<'a> {
    /// The codec of its stream.
    pub codec: &'static dyn StreamCodec,
    /// Width of its symbols.
    pub width: Width,
    /// Its stream.
    pub stream: &'a [u8],
    /// How a device reads it; `None` if only the CPU decodes it.
    pub form: Option<DeviceForm>,
}

/// A block that a device can decode.
#[derive(Debug)]
pub struct DeviceBlock<'a> {
    /// How its elements are put together.
    pub join: DeviceJoin,
    /// Number of elements, which is that of the symbols of every component.
    pub elements: usize,
    /// The components, in the order of the encoding's page.
    pub components: ArrayVec<DeviceComponent<'a>, MAX_COMPONENTS>,
}
