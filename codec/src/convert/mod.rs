//! Conversion of safetensors files to `.cmz` and back, byte for byte.

use std::path::Path;
use std::thread;

use cmz_format::{Code, Error, Item, Limits, Parser, Result, Step};
use sha2::{Digest, Sha256};

use crate::import::torch;
use crate::io::ReadAt;
use crate::safetensors::Header;

mod blocks;
mod compress;
mod decompress;
mod estimate;
mod lossy;
mod plan;
mod recover;
mod rounding;
mod scan;
mod target;
mod verify;

pub(crate) use compress::is_made_from;
pub use compress::{CompressOptions, Compressed, compress, compress_source, compress_torch, compress_with_views};
pub use decompress::{DecompressOptions, Decompressed, decompress};
pub use estimate::{TensorEstimate, estimate};
pub use lossy::{Deviation, LossyError, LossyTensor, Quantize, QuantizeTensor, SquaredError};
pub use recover::{Lost, Recovered, recover};
pub use target::{Target, partial_path};
pub use verify::{Verified, VerifyDepth, VerifyOptions, verify};

/// Forms of files that hold tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceKind {
    /// safetensors.
    #[default]
    Safetensors,
    /// What `torch.save` writes, read by [`torch`].
    Torch,
}

impl SourceKind {
    /// Its name in manifests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "torch",
        }
    }

    /// The extension of its files' names.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Torch => "pt",
        }
    }

    /// What tensors a file holds, and where.
    ///
    /// # Errors
    /// As [`Header::read`] and [`torch::read`].
    pub fn header(self, file: &dyn ReadAt) -> Result<Header> {
        match self {
            Self::Safetensors => Header::read(file),
            Self::Torch => torch::read(file).map(|contents| contents.header),
        }
    }
}

/// A stage of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sampling tensors to choose how each is stored.
    Planning,
    /// Reading, encoding and writing.
    Compressing,
    /// Reading, decoding and writing.
    Decompressing,
    /// Decoding and comparing.
    Verifying,
    /// Hashing a file to see whether it has been converted already.
    Hashing,
}

/// Is told how a conversion gets on. The unit type ignores it.
pub trait Progress: Sync {
    /// File `number` (from 0) of `count` is next.
    fn file(&self, source: &Path, number: usize, count: usize) {
        let _ = (source, number, count);
    }

    /// A phase of `total` bytes of uncompressed data begins.
    fn begin(&self, phase: Phase, total: u64) {
        let _ = (phase, total);
    }

    /// So many bytes more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether to stop: the conversion then ends soon, with [`Code::Interrupted`].
    fn stopped(&self) -> bool {
        false
    }
}

impl Progress for () {}

/// Shows nothing, and stops when the one inside does.
struct Silent<'a>(&'a dyn Progress);

impl Progress for Silent<'_> {
    fn stopped(&self) -> bool {
        self.0.stopped()
    }
}

/// Tells of `bytes` more that are done.
///
/// # Errors
/// [`Code::Interrupted`] if that is to be the end.
fn advance(progress: &dyn Progress, bytes: u64) -> Result<()> {
    progress.advance(bytes);
    if progress.stopped() { Err(Error::new(Code::Interrupted, "the conversion was asked to stop")) } else { Ok(()) }
}

/// What goes into a file's `generator`.
const GENERATOR: &str = concat!("cmz ", env!("CARGO_PKG_VERSION"));

/// Bytes read at a time by sequential passes.
const CHUNK: usize = 1 << 20;

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a whole file, read front to back, in lower-case hexadecimal.
pub(crate) fn sha256_of(file: &dyn ReadAt, progress: &dyn Progress) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < file.byte_len() {
        let len = (file.byte_len() - offset).min(CHUNK as u64) as usize;
        file.read_at(offset, &mut buffer[..len])?;
        hasher.update(&buffer[..len]);
        advance(progress, len as u64)?;
        offset += len as u64;
    }
    Ok(hex(&hasher.finalize()))
}

/// Runs `produce`, which feeds bytes to the hash, and returns their SHA-256. The hash runs
/// on a thread of its own: it is several times slower than decoding.
fn with_sha256<R>(produce: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<R>) -> Result<(R, String)> {
    let (full, to_hash) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
    let (empty, reuse) = std::sync::mpsc::channel::<Vec<u8>>();
    thread::scope(|scope| {
        let digest = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for bytes in to_hash {
                hasher.update(&bytes);
                // Nobody waits for buffers at the end.
                let _ = empty.send(bytes);
            }
            hex(&hasher.finalize())
        });
        let mut feed = |bytes: &[u8]| {
            let mut buffer = reuse.try_recv().unwrap_or_default();
            buffer.clear();
            buffer.extend_from_slice(bytes);
            // The hashing thread ends only when this sender is dropped.
            let _ = full.send(buffer);
        };
        let result = produce(&mut feed);
        drop(full);
        let digest = digest.join().map_err(|_| Error::new(Code::Io, "the hashing thread failed"))?;
        Ok((result?, digest))
    })
}

/// Parses a file front to back and hands out its items, until `consume` returns false.
///
/// # Errors
/// What the parser, the file or `consume` raises.
fn parse_items(file: &dyn ReadAt, limits: Limits, mut consume: impl FnMut(&Item<'_>) -> Result<bool>) -> Result<()> {
    let mut parser = Parser::new(limits);
    let mut buffer = Vec::new();
    let (mut used, mut read) = (0, 0);
    loop {
        match parser.parse(&buffer[used..], read == file.byte_len())? {
            Step::Parsed { item: Item::End, .. } => return Ok(()),
            Step::Parsed { consumed, item } => {
                used += consumed;
                if !consume(&item)? {
                    return Ok(());
                }
            }
            Step::NeedMore(wanted) => {
                buffer.drain(..used);
                used = 0;
                let have = buffer.len();
                let more = (wanted.saturating_sub(have)).max(CHUNK).min((file.byte_len() - read) as usize);
                buffer.resize(have + more, 0);
                file.read_at(read, &mut buffer[have..])?;
                read += more as u64;
            }
        }
    }
}
