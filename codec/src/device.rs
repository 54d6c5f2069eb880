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
    /// Multiplies or divides values by the scales of their groups.
    BlockScale(DeviceBlockScale),
    /// Looks indices up in the tables of their groups.
    Codebook(DeviceCodebook),
    /// Puts values at some places of an array.
    Sparse(DeviceSparse),
    /// Puts columns in another order.
    Permute(DevicePermute),
    /// Adds a product of two thin matrices.
    LowRank(DeviceLowRank),
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
    /// Eight bits, four of them exponent, without infinities.
    E4M3 = 3,
    /// Eight bits, five of them exponent.
    E5M2 = 4,
    /// A power of two.
    E8M0 = 5,
}

impl DeviceFloat {
    /// Bytes of a number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::E4M3 | Self::E5M2 | Self::E8M0 => 1,
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

/// The parameters of `block_scale`, whose components are values and scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBlockScale {
    /// What the elements are.
    pub element: DeviceFloat,
    /// What the values are.
    pub values: DeviceFloat,
    /// What the scales are.
    pub scale: DeviceFloat,
    /// Whether values are divided by their scale, and not multiplied.
    pub divide: bool,
    /// The groups of the elements.
    pub groups: DeviceGroups,
}

/// The parameters of `codebook`, whose components are indices, and tables, or alphas and biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCodebook {
    /// What the elements are.
    pub element: DeviceFloat,
    /// What the stored numbers are.
    pub table: DeviceFloat,
    /// Bits of an index.
    pub bits: u8,
    /// Whether an entry is a bias and a number for each bit of the index, added or subtracted.
    pub binary: bool,
    /// Elements of an entry.
    pub dim: u32,
    /// Elements of a row.
    pub row: u32,
    /// Number of the indices.
    pub vectors: u32,
    /// The groups of the indices.
    pub groups: DeviceGroups,
}

/// What a value of `sparse` does to the element at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeviceMode {
    /// It comes in its stead.
    Replace = 0,
    /// It is added, in single precision.
    Add = 1,
    /// It is added, in half precision.
    AddHalf = 2,
    /// It is the element, and all others are zeros: there is no base.
    Fill = 3,
}

/// How the places of `sparse` are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceIndex {
    /// By a bit for each element.
    Bitmap,
    /// By distances within each piece of a row.
    Rows {
        /// Elements of a piece.
        piece: u32,
    },
    /// By positions within each run of a row.
    NOfM {
        /// Values of a run.
        n: u32,
        /// Elements of a run.
        m: u32,
    },
}

/// The parameters of `sparse`, whose components are a base, unless the mode is [`DeviceMode::Fill`], the index, and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSparse {
    /// What the elements are.
    pub element: DeviceFloat,
    /// What the values are.
    pub values: DeviceFloat,
    /// What a value does.
    pub mode: DeviceMode,
    /// How the places are told.
    pub index: DeviceIndex,
    /// Elements of a row.
    pub row: u32,
}

/// The parameters of `permute`, whose components are an array and an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePermute {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub element_len: u32,
    /// Elements of a row.
    pub row: u32,
}

/// The parameters of `low_rank`, whose components are a base, and the left and the right factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLowRank {
    /// What the elements are.
    pub element: DeviceFloat,
    /// What the factors are.
    pub factors: DeviceFloat,
    /// Columns of the left factor and rows of the right one.
    pub rank: u32,
    /// Elements of a row.
    pub row: u32,
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
    /// What the host has worked out of a component: of `sparse` by a bitmap, how many values there are before each [`PLACES_TILE`] elements, and
    /// at last; by rows, before each piece, and at last, 32 bits each; of `permute`, where each column comes from, 16 bits each.
    pub told: Vec<u8>,
}

/// Elements for which the values of a bitmap are counted: see [`DeviceArray::told`].
pub const PLACES_TILE: usize = 4096;

/// What can be told of a component, at any depth, before a block is read.
#[derive(Debug)]
pub struct DeviceShape<'a> {
    /// Bytes that it decodes to, at most.
    pub byte_len: usize,
    /// The codecs of its stream; none if it is an array in turn.
    pub codecs: &'a [&'static dyn StreamCodec],
    /// Whether the kernel that decodes it puts the array's elements together as well, so that it needs no place of its own.
    pub joined: bool,
    /// Bytes of what the host works out of it: see [`DeviceArray::told`].
    pub told: usize,
}

/// A block that the CPU has decoded, but for what a product needs apart.
#[derive(Debug)]
pub struct DecodedArray {
    /// How its elements are put together.
    pub node: DeviceNode,
    /// The components, in the order of the encoding's page.
    pub components: Vec<DecodedComponent>,
    /// The places of `sparse`, as numbers of elements, in ascending order.
    pub places: Vec<u32>,
}

/// A component of a [`DecodedArray`].
#[derive(Debug)]
pub enum DecodedComponent {
    /// As it lies in memory.
    Bytes(Vec<u8>),
    /// The array that `block_scale`, `sparse` and `permute` change, where that is no more than bits joined.
    Array(Box<DecodedArray>),
}
