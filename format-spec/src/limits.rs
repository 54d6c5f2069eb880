//! Every maximum of the format, in one place.

/// Bytes that a block may decode to, at most (SPEC.md §11).
pub const MAX_BLOCK_LEN: u32 = 16 << 20;
/// Bytes of the payload of a literal, descriptor, shared or data block, at most.
pub const MAX_STORED_LEN: u32 = 2 * MAX_BLOCK_LEN;
/// Streams in one block, at most.
pub const MAX_STREAMS: usize = 32;
/// Nested encodings of one tensor, at most.
pub const MAX_DEPTH: usize = 8;
/// Dimensions of one tensor, at most.
pub const MAX_RANK: usize = 64;
/// Tensors that one view comes from, at most.
pub const MAX_PARTS: usize = 65_536;

/// Headers that may precede one contiguous run of payloads, at most.
pub const MAX_RUN: usize = 65_536;
/// Bytes of one contiguous run of payloads, at most: the 32-bit distance from a header
/// to its payload must span the run and its headers.
pub const MAX_RUN_LEN: u64 = 0xF000_0000;
/// Window of a zstd frame of the container, as a power of two, at most.
pub const MAX_WINDOW_LOG: u32 = 24;

/// What a reader accepts. The defaults suit any checkpoint known today; lower them
/// for input that deserves less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Manifest, decoded, in bytes.
    pub manifest_len: u32,
    /// Records in the block table.
    pub blocks: u32,
    /// Tensors in the manifest, and as many views.
    pub tensors: u32,
    /// One tensor name, in bytes.
    pub name_len: u32,
    /// Literal source bytes (headers, gaps, trailing bytes) in total, in bytes.
    pub literal_len: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { manifest_len: 256 << 20, blocks: 16 << 20, tensors: 4 << 20, name_len: 64 << 10, literal_len: 1 << 30 }
    }
}
