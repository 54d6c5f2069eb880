//! Views: the weights that quantized tensors stand for, computed when they are read.
//!
//! The tensors of a quantized checkpoint are stored as they are. A [view](cmz_format::View) of the manifest names some of them as
//! the parts of a layout, which says how weights come from their codes, scales and zero points. One folder here is one layout,
//! described in its `SPEC.md`; `registry` lists them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use cmz_format::{Code, Error, Result};

pub mod awq;
pub mod bitsandbytes_4bit;
pub mod bitsandbytes_8bit;
pub mod block_scaled;
pub mod compressed_tensors_int;
#[cfg(test)]
pub(crate) mod generator;
pub mod gptq;
mod integer;
pub mod mxfp4;
mod number;
pub mod nvfp4;
mod open;
mod order;
mod params;
pub mod qmoe;
mod spec;
pub mod spqr_groups;
pub mod spqr_tiles;
#[cfg(test)]
mod tests;

pub use open::OpenView;
pub use spec::{PartSpec, Spec};

/// How the elements of a view come from its parts.
pub trait Layout: fmt::Debug + Send + Sync {
    /// Name in manifests.
    fn name(&self) -> &'static str;

    /// Checks parameters, and shapes and types of the parts.
    ///
    /// # Errors
    /// [`Code::Malformed`] if the page of the layout does not allow them, [`Code::UnknownEncoding`] if this version does not know
    /// a parameter, a value of one, a part or an element type.
    fn check(&self, spec: &Spec<'_>) -> Result<()>;

    /// Checks the values of parts that are places in others, which [`Self::check`] does not see. Each is read by its role.
    ///
    /// # Errors
    /// As [`Self::open`], or what `part` returns.
    fn check_places(&self, _: &Spec<'_>, _part: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    /// A decoder of the elements.
    ///
    /// # Errors
    /// As [`Self::check`], or [`Code::Malformed`] if indices in the parts lead nowhere.
    fn open(&self, spec: &Spec<'_>, parts: Parts) -> Result<Box<dyn Decoder>>;
}

/// Decodes the elements of one view: a matrix whose columns are the view's last dimension.
pub trait Decoder: fmt::Debug + Send + Sync {
    /// Computes the elements of rows, before they are rounded to the element type. `values` has room for just these.
    fn decode(&self, rows: Range<usize>, values: &mut [f32]);

    /// Computes one element as the page has it, slowly: what [`Self::decode`] is compared with.
    fn decode_naive(&self, row: usize, column: usize) -> f32;
}

/// The bytes of a view's parts, by their roles. Their lengths are those of the types and shapes that the [`Spec`] tells.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<String, Vec<u8>>);

impl Parts {
    /// Adds the bytes of a part.
    pub fn insert(&mut self, role: &str, bytes: Vec<u8>) {
        self.0.insert(role.to_owned(), bytes);
    }

    /// The bytes of a part; none if there is no such part.
    fn take(&mut self, role: &str) -> Vec<u8> {
        self.0.remove(role).unwrap_or_default()
    }
}

fn malformed(why: impl Into<String>) -> Error {
    Error::new(Code::Malformed, why)
}

fn unknown(why: impl Into<String>) -> Error {
    Error::new(Code::UnknownEncoding, why).with_help("use a newer cmz; the tensors of the file are not concerned")
}
