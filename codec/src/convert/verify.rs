//! Proof that a file is whole.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use cmz_format::{
    BlockHeader, BlockKind, BlockRecord, Code, Error, ErrorKind, Item, Limits, Result, Tensor, unpack_section,
};

use super::decompress::check_source;
use super::{Phase, Progress, parse_items, with_sha256};
use crate::io::{self, IoMode};
use crate::{Archive, OpenOptions, Verify, pipeline};

/// How much is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum VerifyDepth {
    /// Header, index, every block header and every stored byte, padding included.
    Stored,
    /// Also that every block decodes to bytes with the right checksum, and that the source
    /// has the right SHA-256.
    #[default]
    Decoded,
}

/// How a file is verified.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// How much.
    pub depth: VerifyDepth,
    /// Threads that decode.
    pub threads: usize,
    /// How the file is read: as [`IoMode::for_one_pass`] says.
    pub io: IoMode,
    /// Files that tensors may be stored against.
    pub bases: Vec<Arc<Archive>>,
}

/// What was found to be whole.
#[derive(Debug)]
pub struct Verified {
    /// Blocks of the file.
    pub blocks: usize,
    /// Tensors of the file.
    pub tensors: usize,
    /// SHA-256 of the source, if it was computed and is right.
    pub sha256: Option<String>,
    /// Damaged blocks, if the index is sound: each once, with tensor, block and offset.
    pub damage: Vec<Error>,
    /// Tensors that refer to damaged ones, of this file or of a base, without being damaged
    /// themselves.
    pub dependants: Vec<String>,
    /// Tensors that this version cannot decode.
    pub unsupported: Vec<Error>,
}

/// Verifies a file. Damage to single blocks is collected in the result.
///
/// # Errors
/// The first error that concerns the file as a whole; to decode it, its bases are needed.
pub fn verify(path: &Path, options: &VerifyOptions, progress: &dyn Progress) -> Result<Verified> {
    let VerifyOptions { depth, threads, io, ref bases } = *options;
    let io = io.for_one_pass();
    let open = OpenOptions { io, verify: Verify::Full, bases: bases.clone(), ..OpenOptions::default() };
    let archive = Archive::open_with(path, open)?;
    if depth == VerifyDepth::Decoded {
        archive.check_bases()?;
    }
    let mut verified = Verified {
        blocks: archive.index().table().len(),
        tensors: archive.tensors().len(),
        sha256: None,
        damage: Vec::new(),
        dependants: Vec::new(),
        unsupported: Vec::new(),
    };
    let supported = check_supported(&archive, &mut verified);
    let (len, sha256) = check_content(&archive, &supported, depth, threads, progress, &mut verified)?;
    if verified.damage.is_empty() {
        check_every_byte(path, io, &archive).map_err(|e| e.in_file(path))?;
    }
    verified.dependants = dependants(&archive, &verified.damage);
    let whole = verified.damage.is_empty() && verified.unsupported.is_empty();
    if whole && depth == VerifyDepth::Decoded && archive.source().is_ok() {
        check_source(&archive, len, &sha256).map_err(|e| e.in_file(path))?;
        verified.sha256 = Some(sha256);
    }
    Ok(verified)
}

/// Which tensors this version can decode.
fn check_supported(archive: &Archive, verified: &mut Verified) -> Vec<bool> {
    (0..archive.tensors().len())
        .map(|tensor| match archive.check_supported(tensor) {
            Ok(()) => true,
            Err(e) => {
                let unsupported = e.kind() == ErrorKind::Unsupported;
                if unsupported { &mut verified.unsupported } else { &mut verified.damage }.push(e);
                false
            }
        })
        .collect()
}

/// Checks every block of content, and returns length and SHA-256 of what it decodes to.
fn check_content(
    archive: &Archive,
    supported: &[bool],
    depth: VerifyDepth,
    threads: usize,
    progress: &dyn Progress,
    verified: &mut Verified,
) -> Result<(u64, String)> {
    // A tensor that refers to a damaged one raises the same error again.
    let mut seen = HashSet::new();
    progress.begin(Phase::Verifying, archive.content_blocks().last().map_or(0, |block| block.range.end));
    with_sha256(|hash| {
        let mut len = 0;
        pipeline::ordered(
            threads,
            archive.content_blocks(),
            |block, scratch| {
                let mut bytes = Vec::new();
                let decode = depth == VerifyDepth::Decoded && block.tensor().is_none_or(|tensor| supported[tensor]);
                let result = match decode {
                    true => archive.read_content(&block, scratch, &mut bytes),
                    false => archive.check_content(&block, scratch),
                };
                Ok((block.range, result.map(|()| bytes)))
            },
            |(range, result)| {
                match result {
                    Ok(bytes) => hash(&bytes),
                    Err(e) if seen.insert(e.to_string()) => verified.damage.push(e),
                    Err(_) => {}
                }
                progress.advance(range.end - range.start);
                len = range.end;
                Ok(())
            },
        )?;
        Ok(len)
    })
}

/// The names of the tensors that refer to damaged ones and are not damaged themselves.
fn dependants(archive: &Archive, damage: &[Error]) -> Vec<String> {
    let damaged: HashSet<_> = damage.iter().map(|error| (error.file(), error.tensor())).collect();
    let is_damaged =
        |archive: &Archive, tensor: usize| damaged.contains(&(archive.path(), Some(&*archive.tensors()[tensor].name)));
    let depends = |&tensor: &usize| {
        let mut referred = archive.referred(tensor);
        while let Some((archive, tensor)) = referred {
            if is_damaged(archive, tensor) {
                return true;
            }
            referred = archive.referred(tensor);
        }
        false
    };
    let whole = (0..archive.tensors().len()).filter(|&tensor| !is_damaged(archive, tensor));
    whole.filter(depends).map(|tensor| archive.tensors()[tensor].name.clone()).collect()
}

/// Parses the file front to back, which looks at every byte, and compares what it finds
/// with the index.
fn check_every_byte(path: &Path, mode: IoMode, archive: &Archive) -> Result<()> {
    let file = io::open(path, mode)?;
    let table = archive.index().table();
    let (mut block, mut tensor) = (0, 0);
    parse_items(file.as_ref(), Limits::default(), |item| {
        match item {
            Item::Block { offset, header } if block < table.len() => {
                if BlockRecord::of(header, *offset) != table[block] {
                    return Err(
                        Error::new(Code::Disagreement, "the block header and the block table disagree").at(*offset)
                    );
                }
                block += 1;
            }
            Item::Payload { block_offset, header, bytes } if header.kind == BlockKind::Descriptor => {
                check_descriptor(header.streams[0].codec, bytes, header, archive.tensors().get(tensor))
                    .map_err(|e| e.at(*block_offset))?;
                tensor += 1;
            }
            _ => {}
        }
        Ok(true)
    })
}

/// Compares a descriptor block with the manifest.
fn check_descriptor(codec: u16, bytes: &[u8], header: &BlockHeader, expected: Option<&Tensor>) -> Result<()> {
    let json = unpack_section(codec, bytes, header.decoded_len)?;
    header.check_decoded(&json)?;
    let found = Tensor::parse(&json, &Limits::default())?;
    match expected {
        Some(tensor) if *tensor == found && tensor.owner() == header.owner => Ok(()),
        _ => {
            Err(Error::new(Code::Disagreement, "a tensor's descriptor and the manifest disagree")
                .in_tensor(&found.name))
        }
    }
}
