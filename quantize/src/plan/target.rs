//! Spreading bits over tensors, so that their errors together are least.
//!
//! Each tensor is tried with every number of bits of its recipe, which tells its length and its error as they will be. From the
//! smallest of each on, the step is taken that takes away the most error for its bytes, as long as there are bytes left
//! (mixed precision by sensitivity: Dong et al., "HAWQ", 2019; Sieberling et al., "EvoPress", 2024, who search instead).

use std::sync::Arc;

use cmz_codec::convert::{Deviation, Phase, Progress, estimate};
use cmz_codec::io::ReadAt;
use cmz_codec::pipeline;
use cmz_codec::safetensors::{Entry, Header};
use cmz_codec::stream::Level;
use cmz_codec::tensor::StoredTensor;
use cmz_format::{Code, Error, Result, Tensor, block_header_len};

use super::{Plan, Shape, invalid, shape_of};
use crate::recipe::Recipe;

/// How small it shall be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits for each weight of the rounded tensors of a file, on average, at most.
    BitsPerWeight(f64),
    /// Bytes of the whole file, about.
    FileLen(u64),
}

/// What a recipe would make of a tensor.
#[derive(Clone, Debug, PartialEq)]
struct Trial<T> {
    recipe: T,
    /// Stored length, in bytes.
    len: u64,
    /// Squared relative error times the number of elements.
    error: f64,
}

/// Bytes of a block besides its streams: its header, its record and padding.
const BLOCK_OVERHEAD: u64 = 96;
/// Bytes of a file besides its blocks, and of a tensor besides its own.
const FILE_OVERHEAD: u64 = 4096;
const TENSOR_OVERHEAD: u64 = 640;

impl Plan {
    /// The recipe of each tensor, `None` for those that are stored exactly.
    pub(super) fn recipes(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<Arc<Recipe>>>> {
        let rounded = |entry: &Entry| self.recipe(&entry.name).filter(|_| shape_of(entry).is_some()).cloned();
        let mut recipes: Vec<Option<Arc<Recipe>>> = header.tensors.iter().map(rounded).collect();
        let chosen: Vec<usize> = (0..recipes.len()).filter(|&i| recipes[i].is_some()).collect();
        let Some(target) = self.target.filter(|_| !chosen.is_empty()) else { return Ok(recipes) };
        let weights: u64 = chosen.iter().filter_map(|&i| shape_of(&header.tensors[i])).map(elements).sum();
        // Bytes for the rounded tensors, and of the rest where that counts.
        let (budget, rest) = match target {
            Target::BitsPerWeight(bits) => ((bits * weights as f64 / 8.0) as u64, 0),
            Target::FileLen(len) => {
                let exact = estimate(source, &Default::default(), threads, progress)?;
                let exact = exact.iter().zip(&recipes).filter(|(_, recipe)| recipe.is_none());
                let exact: u64 = exact.map(|(estimate, _)| estimate.stored_len).sum();
                let tensors = header.tensors.len() as u64;
                let rest = exact + header.len + FILE_OVERHEAD + tensors * TENSOR_OVERHEAD;
                (len.saturating_sub(rest), rest)
            }
        };
        let total = chosen.iter().map(|&i| header.tensors[i].byte_len()).sum();
        progress.begin(Phase::Planning, total);
        let mut trials = Vec::with_capacity(chosen.len());
        for &i in &chosen {
            let Some(recipe) = &recipes[i] else { continue };
            let entry = &header.tensors[i];
            let tried = self.try_all(source, entry, recipe, threads).map_err(|e| e.in_tensor(&entry.name))?;
            trials.push(tried);
            progress.advance(entry.byte_len());
            if progress.stopped() {
                return Err(Error::new(Code::Interrupted, "the conversion was asked to stop"));
            }
        }
        let spread = spread(&trials, budget).map_err(|least| {
            let why = match target {
                Target::BitsPerWeight(bits) => {
                    let least = (least * 8000).div_ceil(weights);
                    format!(
                        "the target is {bits} bits for a weight, and the least is {}.{:03}",
                        least / 1000,
                        least % 1000
                    )
                }
                Target::FileLen(len) => format!("the target is {len} bytes, and the least is about {}", rest + least),
            };
            invalid(why, Some("raise the target, or choose recipes that need fewer bits"))
        })?;
        for ((&i, trials), choice) in chosen.iter().zip(&trials).zip(spread) {
            recipes[i] = Some(Arc::clone(&trials[choice].recipe));
        }
        Ok(recipes)
    }

    /// Tries a recipe with every number of bits.
    fn try_all(
        &self,
        source: &dyn ReadAt,
        entry: &Entry,
        recipe: &Recipe,
        threads: usize,
    ) -> Result<Vec<Trial<Arc<Recipe>>>> {
        let Some(shape) = shape_of(entry) else { return Ok(Vec::new()) };
        let tried = recipe.with_all_bits()?.into_iter().map(|recipe| {
            let recipe = Arc::new(recipe);
            let lossy = self.lossy(&recipe, entry, shape)?;
            let tensor = Tensor {
                name: entry.name.clone(),
                dtype: entry.dtype.clone(),
                shape: entry.shape.clone(),
                block_elements: lossy.block_elements,
                encoding: lossy.encoding.clone(),
            };
            let stored = StoredTensor::of_tensor(&tensor)?;
            let (mut len, mut deviation) = (0, Deviation::default());
            let unit_len = tensor.block_len() * lossy.unit_blocks as u64;
            for (start, number) in entry.range.clone().step_by(unit_len as usize).zip(0..) {
                let mut original = vec![0; unit_len.min(entry.range.end - start) as usize];
                source.read_at(start, &mut original)?;
                let first = number * lossy.block_elements * lossy.unit_blocks as u64;
                let blocks = lossy.quantizer.quantize(first, &original, threads)?;
                let mut decoded = Vec::with_capacity(original.len());
                pipeline::ordered(
                    threads,
                    blocks.into_iter().zip(original.chunks(tensor.block_len() as usize)),
                    |(parts, bytes), scratch| stored.encode_parts(bytes.len(), parts, Level::Fast, scratch),
                    |(block, bytes)| {
                        let overhead = BLOCK_OVERHEAD + block_header_len(block.streams.len()) as u64;
                        len += block.payload.len() as u64 + overhead;
                        decoded.extend(bytes);
                        Ok(())
                    },
                )?;
                deviation.add(lossy.quantizer.measure(first, &original, &decoded)?);
            }
            let error = deviation.error();
            let error = error.outputs.unwrap_or(error.weights);
            Ok(Trial { recipe, len, error: error * error * elements(shape) as f64 })
        });
        tried.collect()
    }
}

fn elements(shape: Shape) -> u64 {
    shape.rows as u64 * shape.columns as u64
}

/// The number of the trial to take for each tensor, so that all take no more than `budget` bytes; the least that they can take, if
/// that is more.
fn spread<T>(tensors: &[Vec<Trial<T>>], budget: u64) -> Result<Vec<usize>, u64> {
    let paths: Vec<Vec<usize>> = tensors.iter().map(|trials| worthwhile(trials)).collect();
    let mut at = vec![0; tensors.len()];
    let mut len: u64 = tensors.iter().zip(&paths).map(|(trials, path)| trials[path[0]].len).sum();
    if len > budget {
        return Err(len);
    }
    // The gain of a step is never greater than of the one before it, so one look at the next steps is enough.
    loop {
        let next = |i: usize| {
            let (from, to) = (&tensors[i][paths[i][at[i]]], &tensors[i][*paths[i].get(at[i] + 1)?]);
            (len + (to.len - from.len) <= budget).then(|| ((from.error - to.error) / (to.len - from.len) as f64, i))
        };
        // Of equal gains the first tensor's.
        let best = (0..tensors.len()).filter_map(next).min_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let Some((_, i)) = best else { break };
        len += tensors[i][paths[i][at[i] + 1]].len - tensors[i][paths[i][at[i]]].len;
        at[i] += 1;
    }
    Ok(at.iter().zip(&paths).map(|(&at, path)| path[at]).collect())
}

/// The trials of which none is better for its bytes, from the shortest on: the lower convex hull of errors over lengths.
fn worthwhile<T>(trials: &[Trial<T>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by(|&a, &b| trials[a].len.cmp(&trials[b].len).then(trials[a].error.total_cmp(&trials[b].error)));
    let gain =
        |from: usize, to: usize| (trials[from].error - trials[to].error) / (trials[to].len - trials[from].len) as f64;
    let mut hull: Vec<usize> = Vec::new();
    for next in order {
        if hull
            .last()
            .is_some_and(|&last| trials[next].error >= trials[last].error || trials[next].len == trials[last].len)
        {
            continue;
        }
        while let [.., before, last] = hull[..]
            && gain(last, next) >= gain(before, last)
        {
            hull.pop();
        }
        hull.push(next);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(of: &[(u64, f64)]) -> Vec<Trial<()>> {
        of.iter().map(|&(len, error)| Trial { recipe: (), len, error }).collect()
    }

    #[test]
    fn only_what_is_worth_its_bytes() {
        // The third is above the line from the second to the fourth, the last one longer and no better.
        let all = trials(&[(10, 100.0), (20, 50.0), (30, 45.0), (40, 10.0), (50, 10.0)]);
        assert_eq!(worthwhile(&all), [0, 1, 3]);
        assert_eq!(worthwhile(&trials(&[(10, 5.0), (10, 3.0), (9, 7.0)])), [2, 1]);
        assert_eq!(worthwhile(&trials(&[(7, 0.0)])), [0]);
    }

    #[test]
    fn bytes_go_where_they_take_away_the_most_error() {
        let tensors = [trials(&[(10, 100.0), (20, 10.0), (30, 5.0)]), trials(&[(10, 1.0), (20, 0.1)])];
        assert_eq!(spread(&tensors, 20), Ok(vec![0, 0]));
        assert_eq!(spread(&tensors, 30), Ok(vec![1, 0]));
        assert_eq!(spread(&tensors, 40), Ok(vec![2, 0]));
        assert_eq!(spread(&tensors, 1000), Ok(vec![2, 1]));
        assert_eq!(spread(&tensors, 19), Err(20));
    }
}
