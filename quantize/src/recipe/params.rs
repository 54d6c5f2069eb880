//! Parameters of recipes.

use std::fmt;

use cmz_format::Result;

use super::invalid;

/// A parameter.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// The value that it has if none is given, as text.
    pub default: &'static str,
    /// The values that it may have.
    pub kind: Kind,
    /// What it is, in a few words.
    pub about: &'static str,
}

/// The values that a parameter may have.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Integers, from the least to the greatest.
    Integer(u32, u32),
    /// Numbers, likewise.
    Number(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(u32),
    /// A number.
    Number(f64),
    /// A word.
    Word(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(least, most) => write!(f, "{least} to {most}"),
            Self::Number(least, most) => write!(f, "{least} to {most}"),
            Self::Word(words) => f.write_str(&words.join(", ")),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Word(value) => f.write_str(value),
        }
    }
}

impl Kind {
    /// What goes before its values in a sentence.
    fn article(self) -> &'static str {
        match self {
            Self::Integer(..) => "a whole number from ",
            Self::Number(..) => "a number from ",
            Self::Word(..) => "one of ",
        }
    }

    fn value(self, text: &str) -> Option<Value> {
        match self {
            Self::Integer(least, most) => {
                text.parse().ok().filter(|value| (least..=most).contains(value)).map(Value::Integer)
            }
            Self::Number(least, most) => {
                text.parse().ok().filter(|value| (least..=most).contains(value)).map(Value::Number)
            }
            Self::Word(words) => words.iter().find(|word| **word == text).map(|word| Value::Word(word)),
        }
    }
}

/// Reads `name=value,name=value`, and returns a value for each parameter.
pub(super) fn parse(params: &'static [Param], text: &str) -> Result<Vec<Value>> {
    let mut given: Vec<Option<Value>> = vec![None; params.len()];
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| invalid(format!("{pair:?} is not of the form name=value"), None))?;
        let (name, value) = (name.trim(), value.trim());
        let Some(number) = params.iter().position(|param| param.name == name) else {
            let help = match closest(name, params.iter().map(|param| param.name)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("it has {}", params.iter().map(|param| param.name).collect::<Vec<_>>().join(", ")),
            };
            return Err(invalid(format!("there is no parameter {name:?}"), Some(&help)));
        };
        let kind = params[number].kind;
        let value = kind.value(value).ok_or_else(|| {
            invalid(format!("{name} cannot be {value:?}"), Some(&format!("it is {}{kind}", kind.article())))
        })?;
        if given[number].replace(value).is_some() {
            return Err(invalid(format!("{name} is given twice"), None));
        }
    }
    let default = |param: &Param| param.kind.value(param.default).expect("a default is a value");
    Ok(params.iter().zip(given).map(|(param, value)| value.unwrap_or_else(|| default(param))).collect())
}

/// Checked parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<'a> {
    pub(super) params: &'static [Param],
    pub(super) values: &'a [Value],
}

impl Params<'_> {
    fn get(&self, name: &str) -> &Value {
        let number = self.params.iter().position(|param| param.name == name);
        &self.values[number.expect("a recipe asks for its own parameters")]
    }

    /// An integer.
    pub(super) fn integer(&self, name: &str) -> u32 {
        match self.get(name) {
            Value::Integer(value) => *value,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Value::Number(value) => *value,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    /// A word.
    pub(super) fn word(&self, name: &str) -> &'static str {
        match self.get(name) {
            Value::Word(value) => value,
            other => unreachable!("{name} is {other:?}"),
        }
    }
}

/// The name that is most like `text`, if one is.
pub(super) fn closest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = names.map(|name| (distance(text, name), name)).min_by_key(|(distance, _)| *distance);
    nearest.filter(|(distance, name)| *distance <= name.len().min(text.len()).div_ceil(2)).map(|(_, name)| name)
}

/// Edits that make one text of another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(a != *b)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
