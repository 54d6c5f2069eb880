//! `dfloat11_config`: how a DFloat11 checkpoint says what its groups hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use cmz_format::{Code, Error, Escaped, Result, unique_map};
use regex::RegexBuilder;
use serde::Deserialize;

use super::bad;
use crate::io::{PlainFile, ReadAt};

/// Bytes that a `config.json` may have.
const MAX_CONFIG_LEN: u64 = 16 << 20;
/// Bytes that a compiled pattern may take.
const MAX_PATTERN_LEN: usize = 1 << 20;
/// The versions that share the layout read here.
const VERSIONS: [&str; 4] = ["0.2.0", "0.3.1", "0.3.2", "0.5.0"];
/// Bytes of a group's stream that a GPU thread decodes, and threads that share a block.
const BYTES_PER_THREAD: u64 = 8;
const THREADS_PER_BLOCK: u64 = 512;

/// What is in the groups.
#[derive(Debug)]
pub(super) struct Config {
    /// For each regular expression of a module's path, the matrices of the group: paths below
    /// the module, or none if the module is the matrix.
    patterns: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct File {
    dfloat11_config: Json,
}

#[derive(Deserialize)]
struct Json {
    version: String,
    threads_per_block: OneOrMany,
    bytes_per_thread: u64,
    #[serde(deserialize_with = "unique_map")]
    pattern_dict: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u64),
    Many(Vec<u64>),
}

impl Config {
    /// Reads a `config.json`, or a file that is its `dfloat11_config` alone.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = PlainFile::open(path)?;
        if file.byte_len() > MAX_CONFIG_LEN {
            let why = format!("the configuration has {} bytes, more than {MAX_CONFIG_LEN}", file.byte_len());
            return Err(bad(why).in_file(path));
        }
        let mut bytes = vec![0; file.byte_len() as usize];
        file.read_at(0, &mut bytes).and_then(|()| Self::parse(&bytes)).map_err(|e| e.in_file(path))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let json = serde_json::from_slice::<File>(bytes)
            .map(|file| file.dfloat11_config)
            .or_else(|first| serde_json::from_slice::<Json>(bytes).map_err(|_| first))
            .map_err(|e| {
                bad(format!("the configuration: {e}"))
                    .with_help("pass the file that holds the dfloat11_config of this checkpoint with --config")
            })?;
        let Json { version, threads_per_block, bytes_per_thread, pattern_dict } = json;
        if !VERSIONS.contains(&version.as_str()) {
            let why = format!("version {} of DFloat11 is not known", Escaped(&version));
            return Err(Error::new(Code::Version, why).with_help(format!("known are {}", VERSIONS.join(", "))));
        }
        let threads = match &threads_per_block {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        };
        if bytes_per_thread != BYTES_PER_THREAD || threads != [THREADS_PER_BLOCK] {
            let why = format!("{bytes_per_thread} bytes a thread and {threads:?} threads a block are not supported");
            return Err(bad(why).with_help(format!("only {BYTES_PER_THREAD} and [{THREADS_PER_BLOCK}] are known")));
        }
        Ok(Self { patterns: pattern_dict })
    }

    /// The matrices of each of these modules that a pattern matches: their full names.
    pub(super) fn matrices<'a>(&self, modules: &BTreeSet<&'a str>) -> Result<HashMap<&'a str, Vec<String>>> {
        let mut found: HashMap<&str, (&str, &[String])> = HashMap::new();
        for (pattern, paths) in &self.patterns {
            let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_PATTERN_LEN).build();
            // Alone it must be an expression, too: not "a)|(b".
            let regex = build(pattern).and_then(|_| build(&format!("\\A(?:{pattern})\\z"))).map_err(|e| {
                let what = e.to_string().lines().last().unwrap_or_default().to_owned();
                bad(format!("the pattern \"{}\" cannot be read: {what}", Escaped(pattern)))
            })?;
            for &module in modules.iter().filter(|module| regex.is_match(module)) {
                match found.insert(module, (pattern, paths)) {
                    Some((other, others)) if others != paths => {
                        let (one, two) = (Escaped(other), Escaped(pattern));
                        let why = format!("the patterns \"{one}\" and \"{two}\" say different things of this module");
                        return Err(bad(why).in_tensor(module));
                    }
                    _ => {}
                }
            }
        }
        Ok(found.into_iter().map(|(module, (_, paths))| (module, names(module, paths))).collect())
    }
}

fn names(module: &str, paths: &[String]) -> Vec<String> {
    if paths.is_empty() {
        return vec![join(module, "weight")];
    }
    paths.iter().map(|path| join(module, &format!("{path}.weight"))).collect()
}

/// The path of something below a module; the model itself has no name.
pub(super) fn join(module: &str, path: &str) -> String {
    if module.is_empty() { path.to_owned() } else { format!("{module}.{path}") }
}
