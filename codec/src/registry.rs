//! The one list of stream codecs and encodings. Ids, names, documentation, tests, fuzz
//! targets and `cmz inspect --codecs` are all derived from it.

use crate::encoding::{self, Encoding};
use crate::stream::{self, StreamCodec};

/// A stream codec and what there is to know about it.
#[derive(Debug)]
pub struct StreamEntry {
    /// The codec.
    pub codec: &'static dyn StreamCodec,
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// Its specification, in Markdown.
    pub spec: &'static str,
    /// Name of its CUDA kernel, if it has one.
    pub cuda_kernel: Option<&'static str>,
}

/// An encoding and what there is to know about it.
#[derive(Debug)]
pub struct EncodingEntry {
    /// The encoding.
    pub encoding: &'static dyn Encoding,
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// Its specification, in Markdown.
    pub spec: &'static str,
    /// Name of its CUDA kernel, if it has one.
    pub cuda_kernel: Option<&'static str>,
}

macro_rules! registry {
    (
        streams { $($stream:ident::$stream_type:ident, since $stream_since:expr, cuda $stream_cuda:expr;)* }
        encodings { $($encoding:ident::$encoding_type:ident, since $encoding_since:expr, cuda $encoding_cuda:expr;)* }
    ) => {
        /// Every stream codec, by ascending id.
        pub static STREAMS: &[StreamEntry] = &[$(StreamEntry {
            codec: &stream::$stream::$stream_type,
            since: $stream_since,
            spec: include_str!(concat!("stream/", stringify!($stream), "/SPEC.md")),
            cuda_kernel: $stream_cuda,
        },)*];

        /// Every encoding.
        pub static ENCODINGS: &[EncodingEntry] = &[$(EncodingEntry {
            encoding: &encoding::$encoding::$encoding_type,
            since: $encoding_since,
            spec: include_str!(concat!("encoding/", stringify!($encoding), "/SPEC.md")),
            cuda_kernel: $encoding_cuda,
        },)*];
    };
}

registry! {
    streams {
        raw::Raw, since (0, 1), cuda None;
        zstd::Zstd, since (0, 1), cuda None;
        tiered::Tiered, since (0, 1), cuda None;
        bitpack::Bitpack, since (0, 1), cuda None;
        huffman::Huffman, since (0, 1), cuda None;
        rans::Rans, since (0, 1), cuda None;
    }
    encodings {
        plain::Plain, since (0, 1), cuda None;
        float_planes::FloatPlanes, since (0, 1), cuda None;
        float_joint::FloatJoint, since (0, 1), cuda None;
    }
}

/// The stream codec with this id.
#[must_use]
pub fn stream_by_id(id: u16) -> Option<&'static dyn StreamCodec> {
    STREAMS.iter().map(|entry| entry.codec).find(|codec| codec.id() == id)
}

/// The stream codec with this name.
#[must_use]
pub fn stream_by_name(name: &str) -> Option<&'static dyn StreamCodec> {
    STREAMS.iter().map(|entry| entry.codec).find(|codec| codec.name() == name)
}

/// The encoding with this name.
#[must_use]
pub fn encoding_by_name(name: &str) -> Option<&'static dyn Encoding> {
    ENCODINGS.iter().map(|entry| entry.encoding).find(|encoding| encoding.name() == name)
}
