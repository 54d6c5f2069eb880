//! `zstd`: symbols as they lie in memory, in one zstd frame. See `SPEC.md` in this folder.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use super::{Level, StreamCodec, StreamError, Width};
use crate::Scratch;

/// The `zstd` stream codec.
#[derive(Debug)]
pub struct Zstd;

#[derive(Default)]
struct Contexts {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl StreamCodec for Zstd {
    fn id(&self) -> u16 {
        cmz_format::codec_id::ZSTD
    }

    fn name(&self) -> &'static str {
        "zstd"
    }

    fn supports(&self, width: Width) -> bool {
        width.bits() == 8 || width.bits() == 16
    }

    fn encode(&self, symbols: &[u8], _: Width, level: Level, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let start = out.len();
        let zstd_level = match level {
            Level::Fast => 3,
            Level::Max => 9,
        };
        out.resize(start + zstd_safe::compress_bound(symbols.len()), 0);
        let len = scratch.with::<Contexts, _>(|contexts, _| {
            let compressor = contexts.compressor.get_or_insert_with(Compressor::default);
            compressor.set_compression_level(zstd_level).expect("a level that zstd has");
            compressor.compress_to_buffer(symbols, &mut out[start..]).expect("the buffer has zstd's own bound")
        });
        out.truncate(start + len);
    }

    fn decode(
        &self,
        stream: &[u8],
        width: Width,
        scratch: &mut Scratch,
        symbols: &mut [u8],
    ) -> Result<(), StreamError> {
        check_frame(stream, symbols.len())?;
        let result = scratch.with::<Contexts, _>(|contexts, _| {
            let decompressor = contexts.decompressor.get_or_insert_with(Decompressor::default);
            decompressor.decompress_to_buffer(stream, symbols)
        });
        debug_assert!(self.supports(width));
        check_len(result.ok(), symbols.len())
    }

    fn decode_naive(&self, stream: &[u8], _: Width, symbols: &mut [u8]) -> Result<(), StreamError> {
        check_frame(stream, symbols.len())?;
        check_len(zstd::bulk::decompress_to_buffer(stream, symbols).ok(), symbols.len())
    }
}

/// One frame that states its content size, and nothing after it: a stream has one form.
fn check_frame(stream: &[u8], len: usize) -> Result<(), StreamError> {
    let stated = zstd_safe::get_frame_content_size(stream).ok().flatten();
    let whole = zstd_safe::find_frame_compressed_size(stream).is_ok_and(|n| n == stream.len());
    if stated == Some(len as u64) && whole { Ok(()) } else { Err(StreamError::Length) }
}

fn check_len(decoded: Option<usize>, expected: usize) -> Result<(), StreamError> {
    match decoded {
        Some(len) if len == expected => Ok(()),
        Some(_) => Err(StreamError::Length),
        None => Err(StreamError::Invalid("zstd refuses the frame")),
    }
}
