//! The `.cmz` container, as `SPEC.md` defines it: file header, self-describing
//! blocks, manifest, block table and trailer.
//!
//! This crate knows the bytes of the container and nothing of codecs: a block's
//! payload is opaque here. Nothing in it panics or allocates on a number that the
//! input has not earned, whatever the input is.
//!
//! * [`Index::read`] opens a file from its end.
//! * [`Parser`] reads a file from front to back, in pieces of any size.
//! * [`Writer`] writes a file in one pass and refuses to finish an incomplete one.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod block;
mod bytes;
mod dtype;
mod error;
mod header;
mod index;
mod layout;
pub mod limits;
mod manifest;
mod parser;
mod trailer;
mod view;
mod writer;

pub use block::{
    BLOCK_MAGIC, BlockHeader, BlockKind, BlockRecord, EncodedBlock, RECORD_LEN, STREAM_ALIGNMENT, StreamEntry,
    StreamList, block_header_len,
};
pub use bytes::{ALIGNMENT, LARGE_PAYLOAD, PAGE, align_up, crc32, unpack_section};
pub use dtype::Dtype;
pub use error::{Code, Error, ErrorKind, Escaped, Result};
pub use header::{HEADER_LEN, Header, MAGIC, VERSION};
pub use index::{Index, TAIL_LEN, TensorBlocks};
pub use limits::Limits;
pub use manifest::{Component, Encoding, Lossy, Manifest, Source, Tensor, unique_map};
pub use parser::{Item, Parser, Step};
pub use trailer::{TRAILER_LEN, Trailer};
pub use view::View;
pub use writer::{LITERAL_BLOCK_LEN, Next, Plan, PlannedSegment, Writer};

/// Ids of the two stream codecs that the container itself uses, for literals,
/// descriptors and the manifest.
pub mod codec_id {
    /// Bytes as they are.
    pub const RAW: u16 = 0;
    /// A zstd frame that states its content size.
    pub const ZSTD: u16 = 1;
}
