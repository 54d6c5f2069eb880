//! How near streams come to the order-0 entropy of their symbols.

use cmz_format::{Error, Result};

use crate::stream::{Histogram, Width};
use crate::{Archive, pipeline};

/// The order-0 entropy of a component array of a tensor: what no code can go below that treats the symbols of
/// a block alike and each alone (C. E. Shannon, 1948, theorem 9). It is that of each block by
/// itself, since blocks decode alone, and summed over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentEntropy {
    /// Name in the manifest; that of a component of a component behind a dot.
    pub name: String,
    /// Width of the symbols.
    pub width: Width,
    /// Number of symbols.
    pub symbols: u64,
    /// How many of them are 0.
    pub zeros: u64,
    /// Entropy, in bits.
    pub bits: u64,
    /// Length of the streams, in bytes.
    pub stored_len: u64,
}

/// The entropy of a tensor's component arrays; of what sets it apart if it is stored by
/// reference to another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorEntropy {
    /// The component arrays, in stream order; none if every block is the same as the reference's.
    pub components: Vec<ComponentEntropy>,
}

impl TensorEntropy {
    /// Entropy of all components, in bits.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.components.iter().map(|component| component.bits).sum()
    }

    /// Length of all streams, in bytes.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.components.iter().map(|component| component.stored_len).sum()
    }
}

impl ComponentEntropy {
    /// The share of its symbols that are 0; `None` if there are none.
    #[must_use]
    pub fn zero_share(&self) -> Option<f64> {
        (self.symbols > 0).then(|| self.zeros as f64 / self.symbols as f64)
    }
}

impl Archive {
    /// Measures tensors, given by their numbers: reads and decodes their streams on `threads`
    /// threads. No base is needed. Returns one result for each of `tensors`.
    ///
    /// # Errors
    /// An error of the file (with tensor, block and offset), or
    /// [`cmz_format::Code::UnknownCodec`] or [`cmz_format::Code::UnknownEncoding`] if this version
    /// cannot decode a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn entropy(&self, tensors: &[usize], threads: usize) -> Result<Vec<TensorEntropy>> {
        let mut measured = vec![TensorEntropy::default(); tensors.len()];
        let blocks = |&tensor: &usize| self.index().tensor_blocks(tensor).data.len();
        let jobs = tensors
            .iter()
            .enumerate()
            .flat_map(|(place, tensor)| (0..blocks(tensor)).map(move |ordinal| (place, *tensor, ordinal)));
        pipeline::ordered(
            threads,
            jobs,
            |(place, tensor, ordinal), scratch| {
                let mut components = Vec::new();
                let (header, payload) = self.read_payload(tensor, ordinal, scratch)?;
                let visit = |name: String, width: Width, symbols: &[u8], stored: &[u8]| {
                    let histogram = Histogram::of(symbols, width);
                    components.push(ComponentEntropy {
                        name,
                        width,
                        symbols: histogram.total(),
                        zeros: histogram.counts().first().copied().unwrap_or(0).into(),
                        bits: histogram.entropy_bits(),
                        stored_len: stored.len() as u64,
                    });
                };
                self.stored(tensor)?
                    .for_each_stream(&header, &payload, scratch, visit)
                    .map_err(|e: Error| self.in_block(e, tensor, ordinal))?;
                scratch.recycle(payload);
                Ok((place, components))
            },
            |(place, components)| {
                let sums = &mut measured[place].components;
                if sums.is_empty() {
                    *sums = components;
                    return Ok(());
                }
                for (sum, more) in sums.iter_mut().zip(components) {
                    sum.symbols += more.symbols;
                    sum.zeros += more.zeros;
                    sum.bits += more.bits;
                    sum.stored_len += more.stored_len;
                }
                Ok(())
            },
        )?;
        Ok(measured)
    }
}
