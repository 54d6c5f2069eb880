//! How fast 4-bit weights become BF16 on one core, beside memcpy in the same minutes: the whole way of a reader, that is reading stored blocks from
//! memory, their checksums, decoding and joining. `cargo run --release -p cmz-benches --bin int4 -- [MODEL]`: MODEL is a BF16 safetensors file in
//! place of the slice in the repository. Times are the shortest of many for each block, so that other work on the machine counts little.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmz_benches::{Gaussian, Random, begin_safetensors};
use cmz_codec::convert::{CompressOptions, LossyTensor, Progress, Quantize, compress};
use cmz_codec::io::ReadAt;
use cmz_codec::safetensors::Header;
use cmz_codec::{Archive, OpenOptions, Scratch};
use cmz_format::Component;
use cmz_quantize::plan::Plan;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RECIPES: [&str; 4] = ["int4", "int4:form=zero_point", "int4:form=bias", "int4:group=32"];
/// Codecs of the codes; the first list is that of the recipes.
const CODECS: [&[&str]; 4] = [&["rans", "bitpack", "raw"], &["bitpack"], &["huffman"], &["tiered"]];
const RUNS: usize = 40;

/// A plan whose codes are stored by other codecs.
#[derive(Debug)]
struct Forced(Plan, &'static [&'static str]);

impl Quantize for Forced {
    fn plan(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        threads: usize,
        progress: &dyn Progress,
    ) -> cmz_codec::Result<Vec<Option<LossyTensor>>> {
        let mut planned = self.0.plan(source, header, threads, progress)?;
        for tensor in planned.iter_mut().flatten() {
            let codecs = self.1.iter().map(|codec| (*codec).to_owned()).collect();
            tensor.encoding.components.insert("codes".to_owned(), Component::Stream(codecs));
        }
        Ok(planned)
    }
}

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("cmz-int4-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    result
}

fn measure(folder: &Path) -> Result<()> {
    let model = std::env::args_os().nth(1).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/minilm-layer0-bf16.safetensors"),
        PathBuf::from,
    );
    let gaussian = folder.join("gaussian.safetensors");
    write_gaussian(&gaussian)?;
    println!("| weights | recipe | codes | bits a weight | GB/s of BF16 | of memcpy |\n|---|---|---|---|---|---|");
    for (name, source) in [("model", &model), ("Gaussian", &gaussian)] {
        for recipe in RECIPES {
            let mut expected: Option<Vec<Vec<u8>>> = None;
            for codecs in CODECS {
                let archive = made(source, &folder.join("int4.cmz"), recipe, codecs)?;
                let Measured { decoded, bits, rate, share } = decode(&archive)?;
                let same = expected.get_or_insert_with(|| decoded.clone());
                assert!(*same == decoded, "{recipe}: other weights by {codecs:?}");
                println!("| {name} | {recipe} | {} | {bits:.3} | {rate:.2} | {share:.2} |", codecs[0]);
            }
        }
    }
    Ok(())
}

fn write_gaussian(path: &Path) -> Result<()> {
    let mut data = vec![0; 2048 * 4096 * 2];
    Gaussian::default().fill_bf16(&mut Random::new(1), 0.02, &mut data);
    let mut file = begin_safetensors(path, [("weight", "BF16", &[2048, 4096][..], data.len())].into_iter())?;
    std::io::Write::write_all(&mut file, &data)?;
    Ok(std::io::Write::flush(&mut file)?)
}

fn made(source: &Path, target: &Path, recipe: &str, codecs: &'static [&'static str]) -> Result<Archive> {
    let options = CompressOptions {
        encode: Default::default(),
        threads: 1,
        io: Default::default(),
        replace: true,
        verify: true,
        bases: Vec::new(),
        quantizer: Some(Arc::new(Forced(Plan::of_recipe(recipe, &[])?, codecs))),
    };
    compress(source, target, &options, &())?;
    Ok(Archive::from_reader(Box::new(std::fs::read(target)?), OpenOptions::default())?)
}

struct Measured {
    decoded: Vec<Vec<u8>>,
    bits: f64,
    /// GB/s.
    rate: f64,
    share: f64,
}

/// Decodes the blocks of the matrices that were rounded.
fn decode(archive: &Archive) -> Result<Measured> {
    let lossy = &archive.index().manifest().lossy;
    let tensors = lossy.iter().map(|lossy| archive.find(&lossy.tensor)).collect::<cmz_codec::Result<Vec<_>>>()?;
    let blocks: Vec<(usize, usize)> = tensors
        .iter()
        .flat_map(|&tensor| (0..archive.index().tensor_blocks(tensor).data.len()).map(move |block| (tensor, block)))
        .collect();
    let mut scratch = Scratch::new();
    let mut decoded: Vec<Vec<u8>> = Vec::new();
    let (mut stored, mut total) = (0, 0);
    for &(tensor, block) in &blocks {
        let header = archive.block_header(tensor, block)?;
        (stored, total) = (stored + u64::from(header.stored_len), total + u64::from(header.decoded_len));
        decoded.push(vec![0; header.decoded_len as usize]);
    }
    let mut copies = decoded.clone();
    let mut times = vec![[Duration::MAX; 2]; blocks.len()];
    for _ in 0..RUNS {
        for (i, &(tensor, block)) in blocks.iter().enumerate() {
            let start = Instant::now();
            archive.read_block(tensor, block, &mut scratch, &mut decoded[i])?;
            let middle = Instant::now();
            copies[i].copy_from_slice(std::hint::black_box(&decoded[i]));
            std::hint::black_box(&mut copies);
            times[i] = [times[i][0].min(middle - start), times[i][1].min(middle.elapsed())];
        }
    }
    let [decoding, copying] = [0, 1].map(|which| times.iter().map(|times| times[which]).sum::<Duration>());
    Ok(Measured {
        bits: 16.0 * stored as f64 / total as f64,
        rate: total as f64 / decoding.as_secs_f64() / 1e9,
        share: copying.as_secs_f64() / decoding.as_secs_f64(),
        decoded,
    })
}
