//! Writes `.cmz` files with stated encodings, so that golden files do not depend on what
//! an encoder would choose today.

use cmz_codec::array::{StoredArray, array_of};
use cmz_codec::encoding::plain::Plain;
use cmz_codec::encoding::reference::{BaseId, Operation, Reference};
use cmz_codec::encoding::{Array, Element, Encoding as CmzEncoding};
use cmz_codec::registry::{encoding_by_name, stream_by_name};
use cmz_codec::safetensors::{Entry, Header};
use cmz_codec::stream::Level;
use cmz_codec::tensor::StoredTensor;
use cmz_codec::{Archive, Result, Scratch};
use cmz_format::{
    Component, Dtype, Encoding, Header as FileHeader, Next, Plan, PlannedSegment, Source, Tensor, Writer, crc32,
};
use sha2::{Digest, Sha256};

/// How a tensor is to be stored.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Its encoding.
    pub encoding: Encoding,
    /// Elements in a block.
    pub block_elements: u64,
}

impl Storage {
    /// By the named encoding, every stream by the codecs of the list that can code it, or raw.
    ///
    /// # Panics
    /// If the registry has no such encoding for this element type.
    #[must_use]
    pub fn new(encoding: &str, dtype: &str, codecs: &[&str], block_elements: u64) -> Self {
        Self::of(encoding_by_name(encoding).expect("an encoding of the registry"), dtype, codecs, block_elements)
    }

    /// As [`Self::new`], by an encoding with its parameters.
    ///
    /// # Panics
    /// If the encoding is not defined for this element type.
    #[must_use]
    pub fn of(encoding: &dyn CmzEncoding, dtype: &str, codecs: &[&str], block_elements: u64) -> Self {
        let element = Dtype::from_name(dtype).map_or(Element::Opaque, Element::Dtype);
        Self { encoding: encoding_of(encoding, element, codecs), block_elements }
    }

    /// By reference to an earlier tensor of the file, with the difference in bytes, if there is one.
    #[must_use]
    pub fn by_reference(operation: Operation, tensor: &str, codecs: &[&str], block_elements: u64) -> Self {
        let difference = encoding_of(&Plain, Element::Opaque, codecs);
        let difference = (operation != Operation::SameAs).then_some(difference);
        let reference = Reference { operation, tensor: tensor.to_owned(), base: None };
        Self { encoding: reference.to_manifest(difference), block_elements }
    }

    /// By reference to a tensor of another file instead.
    ///
    /// # Panics
    /// If it is stored by no reference.
    #[must_use]
    pub fn of_base(mut self, base: &Archive) -> Self {
        let (reference, difference) = Reference::parse(&self.encoding).ok().flatten().expect("a reference");
        let reference = Reference { base: Some(BaseId::of(base.index())), ..reference };
        self.encoding = reference.to_manifest(difference.cloned());
        self
    }

    /// As bytes that a mapped file shows in place.
    #[must_use]
    pub fn raw(dtype: &str, block_elements: u64) -> Self {
        Self::new("plain", dtype, &["raw"], block_elements)
    }
}

fn encoding_of(encoding: &dyn CmzEncoding, element: Element, codecs: &[&str]) -> Encoding {
    let components = encoding.components(Array::vector(element, 0)).expect("an encoding for this element type");
    let stored = components.iter().map(|component| {
        let value = match component.array.element {
            Element::Symbol(width) => {
                let can = |codec: &&&str| stream_by_name(codec).is_none_or(|codec| codec.supports(width));
                let mut able: Vec<String> = codecs.iter().filter(can).map(|&codec| codec.to_owned()).collect();
                if able.is_empty() {
                    able.push("raw".to_owned());
                }
                Component::Stream(able)
            }
            inner => Component::Encoded(encoding_of(&Plain, inner, codecs)),
        };
        (component.name.to_owned(), value)
    });
    Encoding { name: encoding.name().to_owned(), params: encoding.params(), components: stored.collect() }
}

/// The `.cmz` form of a safetensors file whose tensors are stored as `storage` says.
///
/// # Errors
/// What the writer or the header's parser raises.
///
/// # Panics
/// If the source is shorter than its header says.
pub fn write(source: &[u8], storage: impl Fn(&Entry) -> Storage) -> Result<Vec<u8>> {
    write_with(source, None, Level::Fast, true, &storage)
}

/// As [`write()`], with the streams that a level makes.
///
/// # Errors
/// As [`write()`].
pub fn write_at(level: Level, source: &[u8], storage: impl Fn(&Entry) -> Storage) -> Result<Vec<u8>> {
    write_with(source, None, level, true, &storage)
}

/// The tensors of a safetensors file as a `.cmz` file that does not say where they came from.
///
/// # Errors
/// As [`write()`].
pub fn write_without_source(source: &[u8], storage: impl Fn(&Entry) -> Storage) -> Result<Vec<u8>> {
    write_with(source, None, Level::Fast, false, &storage)
}

/// The same as [`write()`] for a file some of whose tensors refer to ones of `base`.
///
/// # Errors
/// As [`write()`], or what reading the base raises.
pub fn write_against(source: &[u8], base: &Archive, storage: impl Fn(&Entry) -> Storage) -> Result<Vec<u8>> {
    write_with(source, Some(base), Level::Fast, true, &storage)
}

fn write_with(
    source: &[u8],
    base: Option<&Archive>,
    level: Level,
    named: bool,
    storage: &dyn Fn(&Entry) -> Storage,
) -> Result<Vec<u8>> {
    let header = Header::read(&source.to_vec())?;
    let (plan, ranges) = plan(source, &header, named, storage);
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&blake3::hash(source).as_bytes()[..16]);
    let mut writer = Writer::new(Vec::new(), &FileHeader { optional_features: 0, fingerprint }, plan.clone())?;
    for (segment, range) in plan.iter().zip(ranges) {
        match segment {
            PlannedSegment::Literal(_) => {
                for bytes in source[range].chunks(cmz_format::LITERAL_BLOCK_LEN as usize) {
                    writer.literal(bytes)?;
                }
            }
            PlannedSegment::Tensor { tensor, .. } => {
                let reference = match (Reference::parse(&tensor.encoding)?, base) {
                    (Some((Reference { tensor, base: Some(_), .. }, _)), Some(base)) => base.read(&tensor)?,
                    (Some((Reference { tensor, .. }, _)), _) => {
                        let entry = header.tensors.iter().find(|entry| tensor == entry.name).expect("its reference");
                        source[entry.range.start as usize..entry.range.end as usize].to_vec()
                    }
                    (None, _) => Vec::new(),
                };
                write_tensor(&mut writer, tensor, &source[range], &reference, level)?;
            }
        }
    }
    let decoded = decoded(source, storage)?;
    let manifest_source =
        Source { kind: "safetensors".to_owned(), len: decoded.len() as u64, sha256: sha256(&decoded) };
    writer.finish("cmz golden", named.then_some(manifest_source), header.metadata)
}

/// What the `.cmz` form of a safetensors file decodes to: the same, but for tensors whose
/// encoding rounds.
///
/// # Errors
/// What the header's parser raises.
///
/// # Panics
/// If the source is shorter than its header says.
pub fn decoded(source: &[u8], storage: &dyn Fn(&Entry) -> Storage) -> Result<Vec<u8>> {
    let mut decoded = source.to_vec();
    let (plan, ranges) = plan(source, &Header::read(&source.to_vec())?, true, storage);
    for (segment, range) in plan.iter().zip(ranges) {
        let PlannedSegment::Tensor { tensor, .. } = segment else { continue };
        if Reference::parse(&tensor.encoding)?.is_some() || range.is_empty() {
            continue;
        }
        let stored = StoredArray::of_tensor(tensor)?;
        let len = tensor.block_len() as usize;
        for (block, rounded) in source[range.clone()].chunks(len).zip(decoded[range].chunks_mut(len)) {
            stored.round(array_of(tensor, block.len()), block, &mut Scratch::new(), rounded);
        }
    }
    Ok(decoded)
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plan(
    source: &[u8],
    header: &Header,
    literals: bool,
    storage: &dyn Fn(&Entry) -> Storage,
) -> (Plan, Vec<std::ops::Range<usize>>) {
    let (mut plan, mut ranges, mut end) = (Plan::new(), Vec::new(), 0);
    let literal = |plan: &mut Plan, ranges: &mut Vec<_>, range: std::ops::Range<usize>| {
        if literals && !range.is_empty() {
            plan.push(PlannedSegment::Literal(range.len() as u64));
            ranges.push(range);
        }
    };
    for entry in &header.tensors {
        let range = entry.range.start as usize..entry.range.end as usize;
        literal(&mut plan, &mut ranges, end..range.start);
        end = range.end;
        let Storage { encoding, block_elements } = storage(entry);
        let tensor = Tensor {
            name: entry.name.clone(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            block_elements,
            encoding,
        };
        plan.push(PlannedSegment::Tensor { tensor, byte_len: range.len() as u64, shared: false });
        ranges.push(range);
    }
    literal(&mut plan, &mut ranges, end..source.len());
    (plan, ranges)
}

fn write_tensor(
    writer: &mut Writer<Vec<u8>>,
    tensor: &Tensor,
    bytes: &[u8],
    reference: &[u8],
    level: Level,
) -> Result<()> {
    writer.descriptor()?;
    let blocks = bytes.chunks(tensor.block_len() as usize);
    if bytes.is_empty() {
        return Ok(());
    }
    if tensor.is_contiguous() {
        let checksums: Vec<u32> = blocks.clone().map(crc32).collect();
        writer.contiguous(&checksums)?;
        for block in blocks {
            debug_assert!(matches!(writer.next(), Next::Payload(_)));
            writer.payload(block)?;
        }
        return Ok(());
    }
    let stored = StoredTensor::of_tensor(tensor)?;
    let mut scratch = Scratch::new();
    let mut start = 0;
    for block in blocks {
        let read_reference = |_: &mut Scratch, bytes: &mut [u8]| {
            bytes.copy_from_slice(&reference[start..start + bytes.len()]);
            Ok(())
        };
        writer.data(&stored.encode_block(block, level, &mut scratch, read_reference)?)?;
        start += block.len();
    }
    Ok(())
}
