//! Experts of a mixture, as one stack and as tensors of their own: some are decoded without the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cmz_codec::encoding::ternary::BY_ROW;
use cmz_codec::io::ReadAt;
use cmz_codec::{Archive, OpenOptions, Result};
use cmz_format::Dtype;
use cmz_gpu_decode::{GpuDecoder, Placement, Request};
use cmz_tests::cmz::{Storage, write};
use cmz_tests::source::Source;

use super::{UNTOUCHED, bank, memory, name};

const EXPERTS: u64 = 6;
const ROWS: u64 = 24;
const COLUMNS: u64 = 100;

/// A file that counts what is read of it.
struct Counted(Vec<u8>, Arc<AtomicU64>);

impl ReadAt for Counted {
    fn byte_len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buffer)
    }
}

/// A stack of experts, and as many tensors that are an expert each, in blocks of an expert.
fn archive(codec: &str) -> (Archive, Arc<AtomicU64>) {
    let elements = (EXPERTS * ROWS * COLUMNS) as usize;
    let weights = bank::ternary_weights(Dtype::BF16, 3, elements, 20);
    let mut source = Source::new().tensor("stack", "BF16", &[EXPERTS, ROWS, COLUMNS], weights);
    for expert in 0..EXPERTS {
        let weights = bank::ternary_weights(Dtype::BF16, 10 + expert, (ROWS * COLUMNS) as usize, 20);
        source = source.tensor(&format!("expert.{expert}"), "BF16", &[ROWS, COLUMNS], weights);
    }
    let storage =
        |entry: &cmz_codec::safetensors::Entry| Storage::of(&BY_ROW, &entry.dtype, &[codec, "raw"], ROWS * COLUMNS);
    let file = write(&source.build(), storage).expect("a sound file");
    let count = Arc::new(AtomicU64::new(0));
    let archive = Archive::from_reader(Box::new(Counted(file, Arc::clone(&count))), OpenOptions::default());
    (archive.expect("a sound file"), count)
}

/// A list of experts out of a stack and of separate tensors takes one launch, reads their blocks alone, and writes their bytes alone.
pub(crate) fn experts_decode_in_one_launch(decoder: &GpuDecoder) {
    let stream = decoder.new_stream().unwrap();
    for codec in ["tunstall", "dictionary", "trits"] {
        let (archive, count) = archive(codec);
        let expert = |expert: u64| Request { tensor: 0, rows: Some(expert..expert + 1) };
        let requests = [expert(4), Request::whole(3), expert(1), Request::whole(6), expert(4)];
        let blocks = [(0, 4), (3, 0), (0, 1), (6, 0), (0, 4)];

        let before = count.load(Ordering::Relaxed);
        let plan = decoder.plan(&archive, &requests, Placement::Packed, false, 1).unwrap();
        let read = count.load(Ordering::Relaxed) - before;
        let stored: u64 = blocks.iter().map(|&(tensor, block)| archive.stored_len(tensor, block) as u64).sum();
        assert_eq!(read, stored, "{codec}: bytes of other blocks");
        // Symbols and numbers come together at once: the numbers lie raw.
        assert_eq!(plan.launches(), 1, "{codec}");

        let output = memory(decoder, plan.output_len() as usize);
        // SAFETY: the output is as long as the plan says, and `check` waits.
        unsafe { plan.decode(&stream, output.address()) }.unwrap();
        plan.check(&archive, &stream).unwrap();
        let mut wanted = vec![UNTOUCHED; output.len()];
        for (request, &offset) in requests.iter().zip(plan.offsets()) {
            let tensor = name(&archive, request.tensor);
            let bytes = match &request.rows {
                Some(rows) => archive.read_rows(tensor, rows.clone()).unwrap(),
                None => archive.read(tensor).unwrap(),
            };
            assert_eq!(bytes.len() as u64, 2 * ROWS * COLUMNS);
            wanted[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        assert!(output.read(&stream).unwrap() == wanted, "{codec}");
    }
}
