//! Does the device decode the same bits as the CPU?

use cmz_codec::{Archive, Code, Error, Result};

use crate::decoder::{GpuDecoder, Request};
use crate::load::{LoadOptions, Target};

/// Bytes of tensors that are compared together, unless one alone is longer.
const GROUP_LEN: u64 = 256 << 20;

impl GpuDecoder {
    /// Decodes every tensor on the device, with checksums of stored and decoded bytes, and compares each byte with what the CPU
    /// decodes. `progress` is told how many bytes were compared since it was told last. Returns the number of bytes.
    ///
    /// # Errors
    /// [`Code::Different`] with tensor and offset, an error of the file, or [`Code::Device`].
    pub fn verify(&self, archive: &Archive, threads: usize, progress: &mut dyn FnMut(u64)) -> Result<u64> {
        let mut total = 0;
        let mut first = 0;
        while first < archive.tensors().len() {
            let mut end = first;
            let mut len = 0;
            while end < archive.tensors().len() && (end == first || len < GROUP_LEN) {
                len += archive.index().tensor_len(end);
                end += 1;
            }
            self.verify_group(archive, first..end, threads, progress)?;
            total += len;
            first = end;
        }
        Ok(total)
    }

    fn verify_group(
        &self,
        archive: &Archive,
        tensors: std::ops::Range<usize>,
        threads: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut offsets = Vec::new();
        let mut len = 0;
        for tensor in tensors.clone() {
            offsets.push(len);
            len = (len + archive.index().tensor_len(tensor)).next_multiple_of(256);
        }
        let stream = self.new_stream()?;
        let memory = self.allocate(len as usize)?;
        let target = |(tensor, offset): (usize, &u64)| Target {
            request: Request::whole(tensor),
            address: memory.address() + offset,
        };
        let targets: Vec<Target> = tensors.clone().zip(&offsets).map(target).collect();
        let options = LoadOptions { threads, check_decoded: true, ..LoadOptions::default() };
        // SAFETY: the memory has room for all tensors at their offsets.
        unsafe { self.load(archive, &targets, &stream, &options) }?;
        let mut found = Vec::new();
        archive.for_each_block(tensors.clone(), threads, |block| {
            found.resize(block.bytes.len(), 0);
            let offset = offsets[block.tensor - tensors.start] + block.offset;
            memory.read_at(&stream, offset as usize, &mut found)?;
            if let Some(at) = found.iter().zip(block.bytes).position(|(a, b)| a != b) {
                let offset = block.offset + at as u64;
                return Err(Error::new(
                    Code::Different,
                    format!(
                        "the GPU decodes byte {offset} of the tensor to {:#04x}, the CPU to {:#04x}",
                        found[at], block.bytes[at]
                    ),
                )
                .in_tensor(&archive.tensors()[block.tensor].name));
            }
            progress(block.bytes.len() as u64);
            Ok(())
        })
    }
}
