//! Checkpoints of GPTQ (AutoGPTQ, GPTQModel) and AWQ (AutoAWQ).

use regex::RegexBuilder;
use serde_json::{Value, json};

use super::{Candidate, File, OTHER_FILE, Quantization, count};
use crate::safetensors::Entry;

/// Bytes that a compiled pattern may take.
const MAX_PATTERN_LEN: usize = 1 << 20;

/// How one module differs from the others: `dynamic` of GPTQModel.
struct Dynamic<'a> {
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    /// Of the beginning of the module's name.
    pattern: regex::Regex,
    /// Whether it leaves the module out.
    excluded: bool,
    changes: Option<&'a serde_json::Map<String, Value>>,
}

impl<'a> Dynamic<'a> {
    fn new(config: &'a Quantization) -> Option<Self> {
        let mut rules = Vec::new();
        for (key, changes) in config.config.get("dynamic").and_then(Value::as_object).into_iter().flatten() {
            let excluded = key.starts_with("-:");
            let pattern = key.strip_prefix("+:").or(key.strip_prefix("-:")).unwrap_or(key);
            let regex = RegexBuilder::new(&format!("\\A(?:{pattern})")).size_limit(MAX_PATTERN_LEN).build().ok()?;
            rules.push(Rule { pattern: regex, excluded, changes: changes.as_object() });
        }
        Some(Self { rules })
    }

    /// A parameter of a module, by the one rule that concerns it, or by what holds for all. `None` if rules differ: their order,
    /// which decides, is not kept here.
    fn integer(&self, config: &Quantization, module: &str, key: &str) -> Option<i64> {
        let all = config.config.get(key).and_then(Value::as_i64);
        let matching = self.rules.iter().filter(|rule| rule.pattern.is_match(module));
        let mut values = matching.map(|rule| match rule.excluded {
            true => None,
            false => rule.changes.and_then(|changes| changes.get(key)?.as_i64()).or(all),
        });
        match values.next() {
            None => all,
            Some(first) => values.all(|other| other == first).then_some(first).flatten(),
        }
    }
}

/// The group size that a configuration means: −1 is the whole row.
fn group_size(size: Option<i64>, columns: u64) -> u64 {
    match size {
        Some(size @ 1..) => size.unsigned_abs(),
        Some(-1) => columns,
        _ => 0,
    }
}

pub(super) fn gptq(config: &Quantization, file: &mut File<'_>) {
    // GPTQModel writes it under either name, or both.
    let format = ["checkpoint_format", "format"].iter().find_map(|key| config.text(key));
    let format = format.unwrap_or_else(|| "gptq".to_owned());
    let zero_points = match format.as_str() {
        "gptq" => "minus_one",
        "gptq_v2" => "stored",
        _ => "",
    };
    let dynamic = Dynamic::new(config);
    let packed_in_words = config.text("pack_dtype").is_none_or(|dtype| dtype == "int32");
    for module in file.modules("qweight") {
        let name = format!("{module}.weight");
        let of = |tensor: &str| file.of(module, tensor);
        let (Some(codes), Some(scales), Some(zeros)) = (of("qweight"), of("scales"), of("qzeros")) else {
            file.unclear(&name, OTHER_FILE);
            continue;
        };
        // Some programs write an empty one where there is no activation order.
        let index = of("g_idx").filter(|index| count(index) > 0);
        if zero_points.is_empty() {
            file.unclear(&name, format!("checkpoint_format {format:?} is not known"));
        } else if !packed_in_words {
            file.unclear(&name, "it is not packed in words of 32 bits");
        } else if index.is_none() && config.flag("desc_act") {
            file.unclear(&name, "it has activation order, but no g_idx");
        } else if let Some(dynamic) = &dynamic {
            let bits = dynamic.integer(config, module, "bits").and_then(|bits| u64::try_from(bits).ok());
            let size = dynamic.integer(config, module, "group_size");
            let found = candidate(codes, scales, zeros, index, bits.unwrap_or(0), size, zero_points);
            file.add(&name, found);
        } else {
            file.unclear(&name, "a pattern of dynamic cannot be read");
        }
    }
}

fn candidate(
    codes: &Entry,
    scales: &Entry,
    zeros: &Entry,
    index: Option<&Entry>,
    bits: u64,
    size: Option<i64>,
    zero_points: &str,
) -> Option<Candidate> {
    let (&words, &rows) = (codes.shape.first()?, scales.shape.last()?);
    let columns = match index {
        Some(index) => *index.shape.first()?,
        // Programs that write no index pack 32 columns at a time. Otherwise the last word could have room for more than there are.
        None if bits > 0 && words.is_multiple_of(bits) => (words / bits).checked_mul(32)?,
        None => return None,
    };
    let mut params = json!({"bits": bits, "zero_points": zero_points});
    if index.is_none() {
        params["group_size"] = group_size(size, columns).into();
    }
    let view = Candidate::new("gptq", &scales.dtype, &[rows, columns], params);
    let view = view.part("codes", codes).part("scales", scales).part("zero_points", zeros);
    Some(match index {
        Some(index) => view.part("groups", index),
        None => view,
    })
}

pub(super) fn awq(config: &Quantization, file: &mut File<'_>) {
    let version = ["version", "checkpoint_format", "format"].iter().find_map(|key| config.text(key));
    let version = version.unwrap_or_else(|| "gemm".to_owned());
    let integer = |keys: [&str; 2]| keys.iter().find_map(|key| config.config.get(*key)?.as_i64());
    let (bits, size) = (integer(["bits", "w_bit"]), integer(["group_size", "q_group_size"]));
    let without_zeros = config.config.get("zero_point").and_then(Value::as_bool) == Some(false);
    for module in file.modules("qweight") {
        let name = format!("{module}.weight");
        let of = |tensor: &str| file.of(module, tensor);
        let (Some(codes), Some(scales), Some(zeros)) = (of("qweight"), of("scales"), of("qzeros")) else {
            file.unclear(&name, OTHER_FILE);
            continue;
        };
        if version != "gemm" || without_zeros {
            file.unclear(&name, format!("AWQ of version {version:?}, or without zero points, is not known"));
            continue;
        }
        let shape = [scales.shape.last().copied().unwrap_or(0), codes.shape.first().copied().unwrap_or(0)];
        let params = json!({"bits": bits, "group_size": group_size(size, shape[1])});
        let view = Candidate::new("awq", &scales.dtype, &shape, params);
        file.add(&name, Some(view.part("codes", codes).part("scales", scales).part("zero_points", zeros)));
    }
}
