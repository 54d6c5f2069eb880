//! Tensors that may lose precision: what a quantizer decides, and what is recorded of it.

use std::fmt::Debug;

use cmz_format::{Code, Encoding, Error, Lossy, Result, Tensor};

use super::Progress;
use crate::array::Parts;
use crate::encoding::reference::Reference;
use crate::io::ReadAt;
use crate::safetensors::{Entry, Header};

/// Decides which tensors of a file are rounded, and how.
pub trait Quantize: Debug + Send + Sync {
    /// Decides for each tensor of `header`, in order: how it is rounded, or `None` if it is stored
    /// exactly. The decision may depend on `source`, but is the same for any number of threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if what was asked for cannot be done, what `source` returns, or
    /// [`Code::Interrupted`].
    fn plan(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<LossyTensor>>>;
}

/// How a tensor is rounded.
#[derive(Debug)]
pub struct LossyTensor {
    /// Recipe and parameters, as the manifest will state them.
    pub recipe: String,
    /// How the rounded elements are stored; `same_as` and its like are not allowed.
    pub encoding: Encoding,
    /// Elements of a block.
    pub block_elements: u64,
    /// Blocks of a unit: what is rounded at once, and independently of the rest of the tensor. The last one may have fewer.
    pub unit_blocks: usize,
    /// Memory that rounding a unit takes, in bytes, about.
    pub unit_memory: u64,
    /// A digest of what the result depends on beside the recipe and the tensor.
    pub inputs: [u8; 32],
    /// What does it.
    pub quantizer: Box<dyn QuantizeTensor>,
}

/// Rounds one tensor, unit by unit, in any order and several at a time.
pub trait QuantizeTensor: Debug + Send + Sync {
    /// The components of each block of the unit whose bytes are given, and which begins at element `first`: the same for any number
    /// of threads.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the tensor cannot be rounded so.
    fn quantize(&self, first: u64, bytes: &[u8], threads: usize) -> Result<Vec<Parts>>;

    /// How far `decoded` is from `original`, both the bytes of a unit that begins at element `first`.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if the inputs do not fit the tensor.
    fn measure(&self, first: u64, original: &[u8], decoded: &[u8]) -> Result<Deviation>;
}

/// A squared error and the square that it is an error of. Both add up over the units of a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SquaredError {
    /// Σ(x − x̂)².
    pub error: f64,
    /// Σx².
    pub of: f64,
}

impl SquaredError {
    fn add(&mut self, other: Self) {
        self.error += other.error;
        self.of += other.of;
    }

    /// The root of the relative mean squared error: 0 where there is no error.
    fn relative(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.of).sqrt() }
    }
}

/// How far units of a tensor are from what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Of the elements.
    pub weights: SquaredError,
    /// Of the layer's outputs, where inputs are known.
    pub outputs: Option<SquaredError>,
}

impl Deviation {
    /// Adds that of another unit.
    pub fn add(&mut self, other: Self) {
        self.weights.add(other.weights);
        if let Some(outputs) = other.outputs {
            self.outputs.get_or_insert_default().add(outputs);
        }
    }

    /// The errors of the units so far.
    #[must_use]
    pub fn error(self) -> LossyError {
        LossyError { weights: self.weights.relative(), outputs: self.outputs.map(SquaredError::relative) }
    }
}

/// How far a tensor is from what it was: roots of relative mean squared errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossyError {
    /// Of the elements.
    pub weights: f64,
    /// Of the layer's outputs, if inputs are known.
    pub outputs: Option<f64>,
}

impl LossyTensor {
    /// The description of the tensor as it is stored.
    pub(super) fn tensor(&self, entry: &Entry) -> Tensor {
        Tensor {
            name: entry.name.clone(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            block_elements: self.block_elements,
            encoding: self.encoding.clone(),
        }
    }

    /// Checks that the tensor has components of its own in ordinary blocks.
    pub(super) fn check(&self, entry: &Entry) -> Result<()> {
        let tensor = self.tensor(entry);
        if self.unit_blocks == 0 {
            return Err(Error::new(Code::InvalidArgument, "units of no blocks").in_tensor(&entry.name));
        }
        if tensor.is_contiguous() || Reference::parse(&self.encoding)?.is_some() {
            let why = format!("a tensor cannot be rounded to {:?}", self.encoding.name);
            return Err(Error::new(Code::InvalidArgument, why).in_tensor(&entry.name));
        }
        Ok(())
    }

    /// What the manifest will say of the tensor of this name.
    pub(super) fn record(&self, name: &str, deviation: Deviation) -> Result<Lossy> {
        let error = deviation.error();
        let parts = |error: f64| {
            let too_large = || {
                Error::new(Code::InvalidArgument, format!("{} makes elements that are not finite", self.recipe))
                    .with_help("choose another recipe for this tensor, or none")
            };
            // Far more than 1 means that nothing is left of the tensor, but is still a number.
            if error.is_finite() { Ok((error * 1e9).round() as u64) } else { Err(too_large()) }
        };
        Ok(Lossy {
            tensor: name.to_owned(),
            recipe: self.recipe.clone(),
            error_ppb: parts(error.weights)?,
            output_error_ppb: error.outputs.map(parts).transpose()?,
        })
    }
}
