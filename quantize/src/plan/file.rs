//! Plan files, in TOML.

use cmz_format::Result;
use serde::Deserialize;

use super::{Plan, Rule};
use crate::recipe::invalid;

/// A plan file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    #[serde(rename = "rule")]
    rules: Vec<RuleTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    tensors: Patterns,
    recipe: String,
}

/// A pattern or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Many(Vec<String>),
}

impl Plan {
    /// Reads a plan file: `docs/quantize.md` has its reference.
    ///
    /// # Errors
    /// [`InvalidArgument`](cmz_format::Code::InvalidArgument) if it is not TOML, has other members, or names what there is not.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |e: toml::de::Error| {
            let before = e.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(String::new(), |before| format!("line {}: ", before.matches('\n').count() + 1));
            let why = format!("{line}{}", e.message().trim_end());
            invalid(why, Some("docs/quantize.md has the reference of plan files"))
        };
        let file: PlanFile = toml::from_str(text).map_err(bad)?;
        let rule = |table: &RuleTable| match &table.tensors {
            Patterns::One(pattern) => Rule::new(std::slice::from_ref(pattern), &table.recipe),
            Patterns::Many(patterns) => Rule::new(patterns, &table.recipe),
        };
        Ok(Self { rules: file.rules.iter().map(rule).collect::<Result<_>>()?, statistics: None, target: None })
    }
}
