//! Plans: which tensors of a checkpoint get which recipe.

use std::sync::Arc;

use cmz_codec::array::Parts;
use cmz_codec::convert::{Deviation, LossyTensor, Progress, Quantize, QuantizeTensor};
use cmz_codec::io::ReadAt;
use cmz_codec::safetensors::{Entry, Header};
use cmz_format::{Dtype, Error, Result};
use globset::{GlobBuilder, GlobMatcher};

use cut::Cut;
pub use statistics::StatisticsFile;
use statistics::TensorStatistics;
pub use target::Target;

use crate::Matrix;
use crate::recipe::{Inputs, Recipe, Shape, Task, invalid};
use crate::solver::{squared_error, squared_output_error};

mod cut;
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
        // A name that is wrong explains statistics that are missing.
        if let Some(statistics) = &self.statistics {
            statistics.check_names(entries())?;
        }
        let mut coverage = Coverage::default();
        for entry in entries() {
            match (self.recipe(&entry.name), shape_of(entry)) {
                (Some(recipe), Some(_)) => {
                    self.statistics(recipe, entry).map_err(|e| e.in_tensor(&entry.name))?;
                    coverage.rounded += 1;
                }
                (Some(_), None) => coverage.unsuitable.push(entry.name.clone()),
                (None, _) => {}
            }
        }
        if coverage.rounded == 0 {
            let help = match self.rules.iter().any(|rule| rule.recipe.is_some()) {
                true => "recipes are for tensors of two or more dimensions, none of them 0, of type F16, BF16 or F32",
                false => "without recipe and plan everything is stored exactly",
            };
            return Err(invalid("the plan rounds no tensor", Some(help)));
        }
        Ok(coverage)
    }

    /// The statistics for a tensor; an error if a recipe needs them and there are none.
    fn statistics(&self, recipe: &Recipe, entry: &Entry) -> Result<Option<TensorStatistics>> {
        let found = match (&self.statistics, Stack::of(entry)) {
            (Some(statistics), Some(stack)) => statistics.of(&entry.name, stack)?,
            _ => None,
        };
        if found.is_none() && recipe.method().needs_statistics() {
            let why = format!("{recipe} needs statistics of the layer's inputs");
            let help = "pass --statistics with a file that has this tensor's Hessian (docs/quantize.md)";
            return Err(invalid(why, Some(help)));
        }
        Ok(found)
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

/// The matrices that a tensor is: its last two dimensions are those of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stack {
    matrices: usize,
    rows: usize,
    columns: usize,
}

impl Stack {
    /// `None` if the tensor is no matrix of floats.
    fn of(entry: &Entry) -> Option<Self> {
        let Shape { rows, columns, .. } = shape_of(entry)?;
        let [.., each, _] = entry.shape[..] else { return None };
        let each = usize::try_from(each).ok()?;
        Some(Self { matrices: rows / each, rows: each, columns })
    }
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
                self.lossy(&recipe, entry, shape).map(Some).map_err(|e| e.in_tensor(&entry.name))
            }
            _ => Ok(None),
        };
        header.tensors.iter().zip(recipes).map(decide).collect()
    }
}

impl Plan {
    /// How a recipe stores a tensor of this shape.
    fn lossy(&self, recipe: &Arc<Recipe>, entry: &Entry, shape: Shape) -> Result<LossyTensor> {
        let statistics = self.statistics(recipe, entry)?;
        let stack = Stack::of(entry).unwrap_or(Stack { matrices: 1, rows: shape.rows, columns: shape.columns });
        let cut = Cut::new(recipe, shape, stack, statistics.as_ref())?;
        Ok(LossyTensor {
            recipe: recipe.to_string(),
            encoding: recipe.method().encoding(shape)?,
            block_elements: (cut.block_rows * shape.columns) as u64,
            unit_blocks: cut.unit_rows.div_ceil(cut.block_rows),
            unit_memory: cut.memory,
            inputs: statistics.as_ref().map(TensorStatistics::check).transpose()?.unwrap_or_default(),
            quantizer: Box::new(Rounding { recipe: Arc::clone(recipe), shape, block_rows: cut.block_rows, statistics }),
        })
    }
}

/// Rounds a tensor by a recipe.
#[derive(Debug)]
struct Rounding {
    recipe: Arc<Recipe>,
    shape: Shape,
    block_rows: usize,
    statistics: Option<TensorStatistics>,
}

impl Rounding {
    /// Some rows of the tensor.
    fn matrix(&self, bytes: &[u8]) -> Result<Matrix> {
        let Shape { dtype, columns, .. } = self.shape;
        let rows = bytes.len() / (columns * dtype.bits() as usize / 8);
        Matrix::from_bytes(dtype, rows, columns, bytes).ok_or_else(|| unsuitable(dtype))
    }

    fn row(&self, element: u64) -> usize {
        element as usize / self.shape.columns
    }
}

fn unsuitable(dtype: Dtype) -> Error {
    invalid(format!("recipes are not for elements of type {dtype}"), None)
}

impl QuantizeTensor for Rounding {
    fn quantize(&self, first: u64, bytes: &[u8], threads: usize) -> Result<Vec<Parts>> {
        let weights = self.matrix(bytes)?;
        if let Some(at) = weights.data().iter().position(|weight| !weight.is_finite()) {
            let (row, column) = (self.row(first) + at / self.shape.columns, at % self.shape.columns);
            let why = format!("the weight in row {row}, column {column} is {}", weights.data()[at]);
            return Err(invalid(why, Some("give this tensor the recipe \"lossless\"")));
        }
        let inputs = self.statistics.as_ref().map(|statistics| statistics.rows_from(self.row(first)));
        self.recipe.method().quantize(Task {
            shape: Shape { rows: weights.rows(), ..self.shape },
            weights: &weights,
            block_rows: self.block_rows,
            statistics: inputs.as_ref().map(|inputs| inputs as &dyn Inputs),
            threads,
        })
    }

    fn measure(&self, first: u64, original: &[u8], decoded: &[u8]) -> Result<Deviation> {
        let (original, decoded) = (self.matrix(original)?, self.matrix(decoded)?);
        let mut deviation = Deviation { weights: squared_error(&original, &decoded), outputs: None };
        let Some(statistics) = &self.statistics else { return Ok(deviation) };
        let inputs = statistics.rows_from(self.row(first));
        let mut row = 0;
        while row < original.rows() {
            let (rows, statistics) = inputs.of_row(row)?;
            let rows = row..rows.end.min(original.rows());
            row = rows.end;
            // Where no inputs were seen there are no outputs to speak of.
            if statistics.hessian().is_some() {
                let (original, decoded) = (original.part(rows.clone()), decoded.part(rows));
                let outputs = Some(squared_output_error(&original, &decoded, &statistics));
                deviation.add(Deviation { outputs, ..Deviation::default() });
            }
        }
        Ok(deviation)
    }
}
