//! The one list of stream codecs, encodings (those that refer to other tensors included) and layouts of views. Ids, names, documentation, tests, fuzz
//! targets and `cmz inspect --codecs` are all derived from it.

use crate::encoding::reference::Operation;
use crate::encoding::{self, Encoding};
use crate::stream::{self, Level, StreamCodec};
use crate::view::{self, Layout};

/// A stream codec and what there is to know about it.
#[derive(Debug)]
pub struct StreamEntry {
    /// The codec.
    pub codec: &'static dyn StreamCodec,
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// What a byte of its streams counts for at [`Level::Fast`], in percent: a codec that
    /// decodes slowly must be so much the smaller. `None` if it is not used there.
    pub fast_weight: Option<u64>,
    /// Its specification, in Markdown.
    pub spec: &'static str,
    /// Name of its CUDA kernel, if it has one.
    pub cuda_kernel: Option<&'static str>,
}

/// An encoding and what there is to know about it.
#[derive(Debug)]
pub struct EncodingEntry {
    /// The encoding; one that takes parameters, with the usual ones.
    pub encoding: &'static dyn Encoding,
    /// The encoding with these and with other parameters.
    pub variants: &'static [&'static dyn Encoding],
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// Whether it is used at [`Level::Fast`].
    pub fast: bool,
    /// Its specification, in Markdown.
    pub spec: &'static str,
    /// Whether CUDA kernels put its components together.
    pub cuda: bool,
}

/// An encoding that tells a tensor by what sets it apart from another one.
#[derive(Debug)]
pub struct ReferenceEntry {
    /// How the tensor comes from the other one.
    pub operation: Operation,
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// Its specification, in Markdown.
    pub spec: &'static str,
}

/// A layout of views: how weights come from the tensors of a quantized checkpoint.
#[derive(Debug)]
pub struct LayoutEntry {
    /// The layout.
    pub layout: &'static dyn Layout,
    /// Format version that it came with: major, minor.
    pub since: (u16, u16),
    /// Its specification, in Markdown.
    pub spec: &'static str,
}

macro_rules! registry {
    (
        streams { $($stream:ident::$stream_type:ident, since $stream_since:expr, fast $fast_weight:expr, cuda $stream_cuda:expr;)* }
        encodings { $($encoding:ident::$encoding_type:ident $(| $variant:ident)*, since $encoding_since:expr, fast $fast:expr, cuda $encoding_cuda:expr;)* }
        references { $($operation:ident, since $reference_since:expr;)* }
        layouts { $($layout:ident::$layout_type:ident, since $layout_since:expr;)* }
    ) => {
        /// Every stream codec, by ascending id.
        pub static STREAMS: &[StreamEntry] = &[$(StreamEntry {
            codec: &stream::$stream::$stream_type,
            since: $stream_since,
            fast_weight: $fast_weight,
            spec: include_str!(concat!("stream/", stringify!($stream), "/SPEC.md")),
            cuda_kernel: $stream_cuda,
        },)*];

        /// Every encoding.
        pub static ENCODINGS: &[EncodingEntry] = &[$(EncodingEntry {
            encoding: &encoding::$encoding::$encoding_type,
            variants: &[&encoding::$encoding::$encoding_type $(, &encoding::$encoding::$variant)*],
            since: $encoding_since,
            fast: $fast,
            spec: include_str!(concat!("encoding/", stringify!($encoding), "/SPEC.md")),
            cuda: $encoding_cuda,
        },)*];

        /// Every encoding that refers to another tensor: of a whole tensor only.
        pub static REFERENCES: &[ReferenceEntry] = &[$(ReferenceEntry {
            operation: Operation::$operation,
            since: $reference_since,
            spec: include_str!("encoding/reference/SPEC.md"),
        },)*];

        /// Every layout of views.
        pub static LAYOUTS: &[LayoutEntry] = &[$(LayoutEntry {
            layout: &view::$layout::$layout_type,
            since: $layout_since,
            spec: include_str!(concat!("view/", stringify!($layout), "/SPEC.md")),
        },)*];
    };
}

registry! {
    streams {
        raw::Raw, since (0, 1), fast Some(100), cuda Some("cmz_direct");
        zstd::Zstd, since (0, 1), fast Some(115), cuda None;
        tiered::Tiered, since (0, 1), fast Some(100), cuda Some("cmz_tiered");
        bitpack::Bitpack, since (0, 1), fast Some(100), cuda Some("cmz_direct");
        huffman::Huffman, since (0, 1), fast None, cuda Some("cmz_huffman");
        rans::Rans, since (0, 1), fast Some(110), cuda Some("cmz_rans");
        tunstall::Tunstall, since (0, 1), fast Some(100), cuda Some("cmz_tunstall");
        dictionary::Dictionary, since (0, 1), fast Some(100), cuda Some("cmz_dictionary");
        trits::Trits, since (0, 1), fast Some(100), cuda Some("cmz_trits");
    }
    encodings {
        affine::SYMMETRIC | ZERO_POINT | BIAS | ZERO | RECTANGLE, since (0, 1), fast true, cuda true;
        block_scale::FP8 | MX | DIVISOR | RECTANGLE, since (0, 1), fast true, cuda true;
        byte_planes::BytePlanes, since (0, 1), fast true, cuda false;
        codebook::SIXTEEN | BY_ROW | VECTORS | BINARY, since (0, 1), fast true, cuda true;
        low_rank::SIXTEEN | ONE, since (0, 1), fast true, cuda true;
        permute::Permute, since (0, 1), fast true, cuda true;
        plain::Plain, since (0, 1), fast true, cuda true;
        float_planes::FloatPlanes, since (0, 1), fast true, cuda true;
        sparse::REPLACE | ADD | TWO_OF_FOUR | THREE_OF_SEVEN, since (0, 1), fast true, cuda true;
        float_joint::FloatJoint, since (0, 1), fast false, cuda true;
        ternary::BY_ROW | GROUPED, since (0, 1), fast true, cuda true;
    }
    references {
        SameAs, since (0, 1);
        Xor, since (0, 1);
        Subtract, since (0, 1);
    }
    layouts {
        awq::Awq, since (0, 1);
        bitsandbytes_4bit::BitsAndBytes4Bit, since (0, 1);
        bitsandbytes_8bit::BitsAndBytes8Bit, since (0, 1);
        block_scaled::BlockScaled, since (0, 1);
        compressed_tensors_int::CompressedTensorsInt, since (0, 1);
        gptq::Gptq, since (0, 1);
        mxfp4::Mxfp4, since (0, 1);
        nvfp4::Nvfp4, since (0, 1);
        qmoe::Qmoe, since (0, 1);
        spqr_groups::SpqrGroups, since (0, 1);
        spqr_tiles::SpqrTiles, since (0, 1);
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

/// The layout of views with this name.
#[must_use]
pub fn layout_by_name(name: &str) -> Option<&'static dyn Layout> {
    LAYOUTS.iter().map(|entry| entry.layout).find(|layout| layout.name() == name)
}

/// The encodings that a level uses, best first among equals: none that rounds, since that is
/// done only when it is asked for.
pub fn encodings_for(level: Level) -> impl Iterator<Item = &'static dyn Encoding> {
    let used = move |entry: &&EncodingEntry| entry.encoding.is_exact() && (entry.fast || level == Level::Max);
    ENCODINGS.iter().filter(used).map(|entry| entry.encoding).rev()
}

/// The stream codecs that a level uses, each with what a byte of its streams counts for, in
/// percent.
pub fn streams_for(level: Level) -> impl Iterator<Item = (&'static dyn StreamCodec, u64)> {
    STREAMS.iter().filter_map(move |entry| {
        let weight = if level == Level::Max { Some(100) } else { entry.fast_weight };
        weight.map(|weight| (entry.codec, weight))
    })
}
