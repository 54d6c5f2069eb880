//! Rates of every path beside memcpy's, in gigabytes of elements per second on one core.
//!
//! ```text
//! CMZ_BF16=weights.bf16 cargo test --release -p cmz-codec speed -- --ignored --nocapture
//! ```
//! `weights.bf16` is a raw array of elements; without one, Gaussian noise is used.
//! `CMZ_F32`, `CMZ_F16` name arrays of these types.

use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::stream::tiered::paths;

/// Elements in a block.
const BLOCK: usize = 512 << 10;
/// Rounds; the best one counts.
const ROUNDS: usize = 25;

/// Bytes that look like `len` Gaussian BF16 weights: sums of uniform numbers.
fn gaussian(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let weights = (0..len).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 0.03);
    weights.flat_map(|weight| ((weight.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

/// Rate of passing over `bytes` in `blocks` blocks. The best round counts, for each block
/// by itself: on a shared machine no pass over all of them is left alone.
fn rate(bytes: usize, blocks: usize, mut block: impl FnMut(usize)) -> f64 {
    let mut best = vec![f64::MAX; blocks];
    for _ in 0..ROUNDS {
        for (i, best) in best.iter_mut().enumerate() {
            let start = Instant::now();
            block(i);
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    bytes as f64 / best.iter().sum::<f64>() / 1e9
}

fn measure(dtype: Dtype, data: &[u8]) {
    let block_len = BLOCK * dtype.bits() as usize / 8;
    let blocks: Vec<&[u8]> = data.chunks(block_len).collect();
    let array_of = |block: &[u8]| Array { element: Element::Dtype(dtype), byte_len: block.len() };
    let count = FloatPlanes.components(array_of(&[])).unwrap().len();
    let ids: Vec<u16> = std::iter::once(2).chain(std::iter::repeat_n(0, count - 1)).collect();
    let mut scratch = Scratch::new();
    let mut out = vec![1; data.len()];
    let mut outs: Vec<&mut [u8]> = out.chunks_mut(block_len).collect();
    let memcpy = rate(data.len(), blocks.len(), |i| black_box(&mut *outs[i]).copy_from_slice(black_box(blocks[i])));
    println!("{dtype}, {} MB: memcpy {memcpy:.2}", data.len() / 1_000_000);
    for path in paths() {
        let mut streams = vec![vec![Vec::new(); count]; blocks.len()];
        let encode = rate(data.len(), blocks.len(), |i| {
            streams[i].iter_mut().for_each(Vec::clear);
            FloatPlanes::encode_fused_on(path, array_of(blocks[i]), blocks[i], &ids, &mut scratch, &mut streams[i]);
        });
        let refs: Vec<Vec<StreamRef<'_>>> =
            streams.iter().map(|s| ids.iter().copied().zip(s.iter().map(Vec::as_slice)).collect()).collect();
        let mut decode_block = |refs: &[StreamRef<'_>], out: &mut [u8]| {
            FloatPlanes::decode_fused_on(path, array_of(out), refs, &mut scratch, out).unwrap().unwrap();
        };
        let decode = rate(data.len(), blocks.len(), |i| decode_block(&refs[i], black_box(&mut *outs[i])));
        assert!(outs.iter().zip(&blocks).all(|(out, block)| out == block), "{}", path.name());
        let warm = rate(blocks[0].len(), 1, |_| decode_block(&refs[0], black_box(&mut *outs[0])));
        let mut exponents = vec![0; BLOCK];
        let plain = rate(data.len(), blocks.len(), |i| {
            let exponents = &mut exponents[..blocks[i].len() * BLOCK / block_len];
            path.decode(refs[i][0].1, Width::BYTE, &mut scratch, exponents).unwrap();
        });
        let stored: usize = streams.iter().flatten().map(Vec::len).sum();
        println!(
            "  {:8} decode {decode:5.2} ({:.2} of memcpy), one block again {warm:5.2}, exponents alone {plain:5.2}; \
             encode {encode:5.2}; ratio {:.4}",
            path.name(),
            decode / memcpy,
            stored as f64 / data.len() as f64
        );
    }
    measure_planes(dtype, data);
}

/// Splitting and joining alone, in the cache.
fn measure_planes(dtype: Dtype, data: &[u8]) {
    let len = 4096;
    let layout = Layout::of(Element::Dtype(dtype)).unwrap();
    let data = &data[..len * layout.element_len()];
    let mut planes = vec![vec![0u8; len]; layout.widths().count()];
    let mut out = data.to_vec();
    for version in Version::all() {
        let split = rate(1000 * data.len(), 1, |_| {
            for _ in 0..1000 {
                let mut slices: Vec<&mut [u8]> = planes.iter_mut().map(Vec::as_mut_slice).collect();
                version.split(layout, black_box(data), black_box(&mut slices));
            }
        });
        let join = rate(1000 * data.len(), 1, |_| {
            for _ in 0..1000 {
                let slices: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
                version.join(layout, black_box(&slices), black_box(&mut out));
            }
        });
        println!("  {version:?}: split {split:.1}, join {join:.1} from the first cache");
    }
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let file = |name: &str| std::env::var_os(name).map(|path| std::fs::read(path).unwrap());
    measure(Dtype::BF16, &file("CMZ_BF16").unwrap_or_else(|| gaussian(16 << 20)));
    for (dtype, name) in [(Dtype::F32, "CMZ_F32"), (Dtype::F16, "CMZ_F16")] {
        if let Some(data) = file(name) {
            measure(dtype, &data);
        }
    }
}
