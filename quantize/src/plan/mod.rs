//! Plans: which tensors of a checkpoint get which recipe.

use std::sync::Arc;

use cmz_codec::array::Parts;
use cmz_codec::convert::{LossyError, LossyTensor, Progress, Quantize, QuantizeTensor};
use cmz_codec::io::ReadAt;
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::limits::MAX_BLOCK_LEN;
use cmz_format::{Dtype, Error, Result};
use globset::{GlobBuilder, GlobMatcher};

pub use statistics::StatisticsFile;
pub use target::Target;

use crate::Matrix;
use crate::recipe::{Recipe, Shape, Task, invalid};
use crate::solver::{Statistics, output_error, weight_error};

mod file;
mod statistics;
mod target;

/// Which tensors get which recipe: the first rule counts that names a tensor.
#[derive(Debug)]
pub struct Plan {
    rules: Vec<Rule>,
    statistics: Option<Arc<StatisticsFile>>,
    target: Option<Target>,
}

/// What tensors of certain names get.
#[derive(Debug)]
struct Rule {
    patterns: Vec<Pattern>,
    /// `None` if they are stored exactly.
    recipe: Option<Arc<Recipe>>,
}

/// A pattern of tensor names.
#[derive(Debug)]
struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

impl Pattern {
    fn new(text: &str) -> Result<Self> {
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build();
        let glob = glob.map_err(|e| invalid(format!("the pattern {text:?}: {}", e.kind()), None))?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }
}

impl Rule {
    fn new<S: AsRef<str>>(patterns: &[S], recipe: &str) -> Result<Self> {
        let recipe = if recipe == LOSSLESS { None } else { Some(Arc::new(Recipe::parse(recipe)?)) };
        let patterns = patterns.iter().map(|pattern| Pattern::new(pattern.as_ref())).collect::<Result<_>>()?;
        Ok(Self { patterns, recipe })
    }

    fn names(&self, tensor: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matcher.is_match(tensor))
    }
}

/// What stands in place of a recipe for tensors that are to be stored exactly.
pub const LOSSLESS: &str = "lossless";

/// What a plan does to the tensors of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Tensors that will be rounded.
    pub rounded: usize,
    /// Tensors that a rule for rounding names, but that are stored exactly: they are no matrices of floats.
    pub unsuitable: Vec<String>,
}

impl Plan {
    /// One recipe for all matrices whose names match one of the patterns.
    ///
    /// # Errors
    /// [`InvalidArgument`](cmz_format::Code::InvalidArgument) about the recipe or a pattern.
    pub fn of_recipe(recipe: &str, patterns: &[String]) -> Result<Self> {
        let rule = if patterns.is_empty() { Rule::new(&["*"], recipe) } else { Rule::new(patterns, recipe) };
        Ok(Self { rules: vec![rule?], statistics: None, target: None })
    }

    /// The same with statistics of the layers' inputs.
    #[must_use]
    pub fn with_statistics(mut self, statistics: StatisticsFile) -> Self {
        self.statistics = Some(Arc::new(statistics));
        self
    }

    /// The same with bits spread over the rounded tensors of each file: the bits in the names of recipes no longer count.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Looks at the tensors of a whole checkpoint, of which a file may have only some.
    ///
    /// # Errors
    /// [`InvalidArgument`](cmz_format::Code::InvalidArgument) if a pattern matches no tensor, if nothing is rounded, or if
    /// statistics are missing, of other shapes, or about other tensors.
    pub fn check(&self, headers: &[Header]) -> Result<Coverage> {
        let entries = || headers.iter().flat_map(|header| &header.tensors);
        for pattern in self.rules.iter().flat_map(|rule| &rule.patterns) {
            if !entries().any(|entry| pattern.matcher.is_match(&entry.name)) {
                let why = format!("the pattern {:?} matches no tensor", pattern.text);
                return Err(invalid(
                    why,
                    Some("`cmz inspect --tensors` lists the names; `*` stands for any part of one"),
                ));
            }
        }
        let mut coverage = Coverage::default();
        for entry in entries() {
            match (self.recipe(&entry.name), shape_of(entry)) {
                (Some(recipe), Some(shape)) => {
                    self.check_statistics(recipe, &entry.name, shape).map_err(|e| e.in_tensor(&entry.name))?;
                    coverage.rounded += 1;
                }
                (Some(_), None) => coverage.unsuitable.push(entry.name.clone()),
                (None, _) => {}
            }
        }
        if coverage.rounded == 0 {
            let help = "recipes are for tensors of two or more dimensions of type F16, BF16 or F32";
            return Err(invalid("the plan rounds no tensor", Some(help)));
        }
        let strange = |name: &&str| !entries().any(|entry| entry.name == *name);
        if let Some(name) = self.statistics.as_ref().and_then(|statistics| statistics.names().find(strange)) {
            return Err(invalid(format!("there are statistics for {name:?}, which is no tensor of the source"), None));
        }
        Ok(coverage)
    }

    /// Checks that there are statistics if a recipe needs them.
    fn check_statistics(&self, recipe: &Recipe, tensor: &str, shape: Shape) -> Result<()> {
        match &self.statistics {
            Some(statistics) if statistics.has(tensor) => statistics.read(tensor, shape.columns).map(drop),
            _ if recipe.method().needs_statistics() => {
                let why = format!("{recipe} needs statistics of the layer's inputs");
                Err(invalid(
                    why,
                    Some("pass --statistics with a file that has this tensor's Hessian (docs/quantize.md)"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn recipe(&self, tensor: &str) -> Option<&Arc<Recipe>> {
        self.rules.iter().find(|rule| rule.names(tensor))?.recipe.as_ref()
    }
}

/// The matrix that a tensor is: its last dimension makes the rows. `None` if it is no matrix of floats.
fn shape_of(entry: &Entry) -> Option<Shape> {
    let dtype = Dtype::from_name(&entry.dtype)?;
    let [.., _, columns] = entry.shape[..] else { return None };
    let suitable = matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) && entry.byte_len() > 0;
    let columns = usize::try_from(columns).ok().filter(|_| suitable)?;
    let elements = usize::try_from(entry.byte_len() / (dtype.bits() / 8)).ok()?;
    Some(Shape { dtype, rows: elements / columns, columns })
}

impl Quantize for Plan {
    fn plan(
        &self,
        source: &dyn ReadAt,
        header: &Header,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<LossyTensor>>> {
        let recipes = self.recipes(source, header, threads, progress)?;
        let decide = |(entry, recipe): (&Entry, Option<Arc<Recipe>>)| match (recipe, shape_of(entry)) {
            (Some(recipe), Some(shape)) => {
                self.lossy(&recipe, &entry.name, shape).map(Some).map_err(|e| e.in_tensor(&entry.name))
            }
            _ => Ok(None),
        };
        header.tensors.iter().zip(recipes).map(decide).collect()
    }
}

impl Plan {
    /// How a recipe stores a tensor of this shape.
    fn lossy(&self, recipe: &Arc<Recipe>, tensor: &str, shape: Shape) -> Result<LossyTensor> {
        self.check_statistics(recipe, tensor, shape)?;
        let block_rows = block_rows(recipe, shape)?;
        let statistics = self.statistics.clone().map(|statistics| (statistics, tensor.to_owned()));
        let digest = statistics.as_ref().map(|(statistics, tensor)| statistics.digest(tensor)).transpose()?;
        Ok(LossyTensor {
            recipe: recipe.to_string(),
            encoding: recipe.method().encoding(shape)?,
            block_elements: (block_rows * shape.columns) as u64,
            inputs: digest.unwrap_or_default(),
            quantizer: Box::new(Rounding { recipe: Arc::clone(recipe), shape, block_rows, statistics }),
        })
    }
}

/// Elements of a block, about.
const BLOCK_ELEMENTS: usize = 1 << 19;
/// Elements that blocks have a multiple of, where rows permit.
const TILE: usize = 4096;

/// Rows of a block: a multiple of what the recipe needs, and about [`BLOCK_ELEMENTS`].
fn block_rows(recipe: &Recipe, shape: Shape) -> Result<usize> {
    let unit = recipe.method().unit_rows();
    let most = MAX_BLOCK_LEN as usize / (shape.dtype.bits() as usize / 8);
    let least = unit.min(shape.rows);
    if shape.columns.checked_mul(least).is_none_or(|elements| elements > most) {
        let why = format!("a block of {least} rows of {} elements is longer than the format permits", shape.columns);
        return Err(invalid(why, Some("choose a recipe for fewer rows at once, or none")));
    }
    let whole_tiles = (1..=TILE).find(|&n| (n * unit * shape.columns).is_multiple_of(TILE)).unwrap_or(1) * unit;
    let fits = |rows: usize| rows.checked_mul(shape.columns).is_some_and(|elements| elements <= BLOCK_ELEMENTS);
    let step = if fits(whole_tiles) { whole_tiles } else { unit };
    Ok(((BLOCK_ELEMENTS / shape.columns / step).max(1) * step).min(shape.rows))
}

/// Rounds a tensor by a recipe.
#[derive(Debug)]
struct Rounding {
    recipe: Arc<Recipe>,
    shape: Shape,
    block_rows: usize,
    /// Where statistics are, and under which name.
    statistics: Option<(Arc<StatisticsFile>, String)>,
}

impl Rounding {
    fn statistics(&self) -> Result<Option<Statistics>> {
        let Some((file, tensor)) = &self.statistics else { return Ok(None) };
        file.read(tensor, self.shape.columns)
    }

    fn matrix(&self, bytes: &[u8]) -> Result<Matrix> {
        let Shape { dtype, rows, columns } = self.shape;
        Matrix::from_bytes(dtype, rows, columns, bytes).ok_or_else(|| unsuitable(dtype))
    }
}

fn unsuitable(dtype: Dtype) -> Error {
    invalid(format!("recipes are not for elements of type {dtype}"), None)
}

impl QuantizeTensor for Rounding {
    fn quantize(&self, bytes: &[u8], threads: usize) -> Result<Vec<Parts>> {
        let weights = self.matrix(bytes)?;
        if let Some(at) = weights.data().iter().position(|weight| !weight.is_finite()) {
            let (row, column) = (at / self.shape.columns, at % self.shape.columns);
            let why = format!("the weight in row {row}, column {column} is {}", weights.data()[at]);
            return Err(invalid(why, Some("give this tensor the recipe \"lossless\"")));
        }
        let statistics = self.statistics()?;
        self.recipe.method().quantize(Task {
            shape: self.shape,
            weights: &weights,
            block_rows: self.block_rows,
            statistics: statistics.as_ref(),
            threads,
        })
    }

    fn measure(&self, original: &[u8], decoded: &[u8]) -> Result<LossyError> {
        let (original, decoded) = (self.matrix(original)?, self.matrix(decoded)?);
        let outputs = |statistics: &Statistics| output_error(&original, &decoded, statistics).sqrt();
        Ok(LossyError { weights: weight_error(&original, &decoded), outputs: self.statistics()?.as_ref().map(outputs) })
    }
}
