//! What a device needs to know of a block to decode it there: how its streams can be read, and how their symbols are joined.
//!
//! All that is said here has been checked against the stream; what is not said (the codes themselves) the device must check.

use crate::stream::{StreamCodec, Width};

/// How a device reads the symbols of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceForm {
    /// At any index: a symbol begins every `stride` bits.
    Indexed {
        /// Where the first symbol lies in the stream, in bytes: 0, or a multiple of 4 if the stride is less than 8.
        begin: u32,
        /// 8 or 16 if the symbols lie as in memory, otherwise their width.
        stride: u8,
    },
    /// All symbols are the same.
    Constant(u16),
    /// Tile by tile, by the kernel of the codec.
    Tiled(Tiles),
}

/// The tiles of a stream: `end[0..=T]`, 32-bit numbers of 32-bit words, and the payload behind them. Of a codec whose tiles are found
/// without ends, the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// A tile has 2 to this power of symbols; the last one may be shorter.
    pub log: u8,
    /// Where `end[0]`, or else the code, lies in the stream, in bytes: a multiple of 4.
    pub ends_at: u32,
    /// 32-bit words of the payload; 0 without ends.
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

/// What a device does with the components of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceNode {
    /// Puts bits together.
    Join(DeviceJoin),
    /// Multiplies codes by the scales of their groups.
    Affine(DeviceAffine),
    /// Chooses between 0 and the two numbers of a group.
    Ternary(DeviceTernary),
}

/// The groups of an array: rectangles of elements, counted from its beginning and from that of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceGroups {
    /// Elements of a row of the array.
    pub row: u32,
    /// Rows of a group.
    pub rows: u32,
    /// Elements of a row that a group has.
    pub columns: u32,
}

impl DeviceGroups {
    /// Groups of a row.
    #[must_use]
    pub const fn of_row(&self) -> u32 {
        self.row.div_ceil(self.columns)
    }

    /// The group of an element.
    #[must_use]
    pub const fn of(&self, element: u64) -> u64 {
        let (row, column) = (element / self.row as u64, element % self.row as u64);
        row / self.rows as u64 * self.of_row() as u64 + column / self.columns as u64
    }

    /// The groups that `elements` elements lie in.
    #[must_use]
    pub const fn count(&self, elements: u32) -> u64 {
        let bands = (elements / self.row / self.rows) as u64;
        let rest = elements as u64 - bands * self.row as u64 * self.rows as u64;
        let last = if rest < self.row as u64 { rest.div_ceil(self.columns as u64) } else { self.of_row() as u64 };
        bands * self.of_row() as u64 + last
    }
}

/// A type of floating-point numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceFloat {
    /// IEEE half precision.
    F16 = 0,
    /// Brain float.
    Bf16 = 1,
    /// IEEE single precision.
    F32 = 2,
}

impl DeviceFloat {
    /// Bytes of a number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// What a code of `affine` is moved by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceShift {
    /// Half of the codes' range is taken from the code.
    Middle = 0,
    /// An integer of the group is taken from the code.
    ZeroPoint = 1,
    /// A number of the group is added in the end.
    Bias = 2,
    /// A number of the group is taken from the code.
    Zero = 3,
}

/// The parameters of `affine`, whose components are codes, scales, and zero points, zeros or biases where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAffine {
    /// What the elements are.
    pub element: DeviceFloat,
    /// What scales, zeros and biases are.
    pub scale: DeviceFloat,
    /// What codes are moved by.
    pub shift: DeviceShift,
    /// Bits of a code.
    pub bits: u8,
    /// Whether each step is rounded to half precision, and not to single precision.
    pub half: bool,
    /// The groups of the elements.
    pub groups: DeviceGroups,
}

/// The parameters of `ternary`, whose components are symbols, minima and maxima; these are brain floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTernary {
    /// What the elements are.
    pub element: DeviceFloat,
    /// The groups of the elements.
    pub groups: DeviceGroups,
}

/// A stream of an array.
#[derive(Debug)]
pub struct DeviceStream<'a> {
    /// Its codec.
    pub codec: &'static dyn StreamCodec,
    /// Width of its symbols.
    pub width: Width,
    /// Number of its symbols.
    pub symbols: usize,
    /// Its bytes.
    pub stream: &'a [u8],
    /// How a device reads it; `None` if only the CPU decodes it.
    pub form: Option<DeviceForm>,
}

/// A component of an array.
#[derive(Debug)]
pub enum DeviceComponent<'a> {
    /// A stream.
    Stream(DeviceStream<'a>),
    /// An array that is put together in turn.
    Array(DeviceArray<'a>),
}

/// An array that a device can decode: a block, or a component.
#[derive(Debug)]
pub struct DeviceArray<'a> {
    /// How its elements are put together.
    pub node: DeviceNode,
    /// Bytes of the elements.
    pub byte_len: usize,
    /// The components, in the order of the encoding's page.
    pub components: Vec<DeviceComponent<'a>>,
}

/// What can be told of a component, at any depth, before a block is read.
#[derive(Debug)]
pub struct DeviceShape<'a> {
    /// Bytes that it decodes to, at most.
    pub byte_len: usize,
    /// The codecs of its stream; none if it is an array in turn.
    pub codecs: &'a [&'static dyn StreamCodec],
    /// Whether the kernel that decodes it puts the array's elements together as well, so that it needs no place of its own.
    pub joined: bool,
}
