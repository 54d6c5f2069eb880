//! Stream codecs: small unsigned integers in, bytes out, and back.
//!
//! A stream codec knows nothing of tensors. It codes an array of *symbols* of a stated
//! width; the encodings of [`crate::encoding`] turn tensors into such arrays. One
//! folder here is one codec, with its bytes described in its `SPEC.md`.

use std::fmt;

pub use histogram::Histogram;

use crate::Scratch;
use crate::device::DeviceForm;

pub mod bitpack;
mod counter;
pub mod dictionary;
mod histogram;
pub mod huffman;
#[cfg(test)]
pub(crate) mod laws;
pub mod rans;
pub mod raw;
pub(crate) mod repeats;
mod symbol_set;
mod ternary;
pub mod tiered;
pub mod trits;
pub mod tunstall;
pub mod zstd;

/// Width of the symbols of an array, in bits: 1 to 16. A symbol of up to 8 bits takes
/// one byte in memory, a wider one two bytes, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Width(u8);

impl Width {
    /// Eight bits: symbols are bytes.
    pub const BYTE: Self = Self(8);

    /// A width of `bits` bits.
    ///
    /// # Panics
    /// If `bits` is not 1 to 16.
    #[must_use]
    pub const fn new(bits: u8) -> Self {
        assert!(bits >= 1 && bits <= 16, "a symbol has 1 to 16 bits");
        Self(bits)
    }

    /// Bits of a symbol.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Bytes that a symbol takes in memory: 1 or 2.
    #[must_use]
    pub const fn bytes(self) -> usize {
        if self.0 <= 8 { 1 } else { 2 }
    }
}

/// How much time an encoder may spend for smaller streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Codecs that decode at the speed of memory.
    #[default]
    Fast,
    /// The smallest streams.
    Max,
}

/// A stream that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The stream ends too early or is too long for the symbols asked for.
    Length,
    /// The stream breaks a rule of its codec.
    Invalid(&'static str),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("the stream's length does not fit its symbols"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

/// A lossless code for arrays of symbols.
///
/// Implementations are stateless; tables and buffers live in the caller's [`Scratch`].
pub trait StreamCodec: fmt::Debug + Send + Sync {
    /// Id in block headers; never reused.
    fn id(&self) -> u16;

    /// Name in manifests and on the command line.
    fn name(&self) -> &'static str;

    /// Whether symbols of this width can be coded.
    fn supports(&self, width: Width) -> bool;

    /// Appends the code of `symbols` to `out`.
    ///
    /// Every array of symbols of a supported width, an empty one too, can be coded. The
    /// bytes depend on the arguments alone. Bits above `width` must be zero.
    fn encode(&self, symbols: &[u8], width: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>);

    /// About how long the stream of an array with these counts is, in bytes; `None` if only
    /// encoding tells.
    fn estimate(&self, histogram: &Histogram) -> Option<u64> {
        let _ = histogram;
        None
    }

    /// Decodes `stream` into exactly `symbols`, whose length is known to the caller.
    ///
    /// # Errors
    /// If `stream` is not the code of an array of this length and width. `symbols` then
    /// holds unspecified values. No stream makes the decoder panic or read or write
    /// outside its arguments.
    fn decode(&self, stream: &[u8], width: Width, scratch: &mut Scratch, symbols: &mut [u8])
    -> Result<(), StreamError>;

    /// How a device reads `stream`, the code of `symbols` symbols; `None` if only the CPU can. Checks whatever the device
    /// relies on, which is not all that [`Self::decode`] checks.
    ///
    /// # Errors
    /// If `stream` is not the code of so many symbols of this width.
    fn device_form(&self, stream: &[u8], width: Width, symbols: usize) -> Result<Option<DeviceForm>, StreamError> {
        let _ = (stream, width, symbols);
        Ok(None)
    }

    /// The slow, obvious decoder, which every other path is compared with.
    ///
    /// # Errors
    /// As [`Self::decode`]: both refuse the same streams.
    fn decode_naive(&self, stream: &[u8], width: Width, symbols: &mut [u8]) -> Result<(), StreamError>;
}
