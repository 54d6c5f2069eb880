//! What every command needs to know of the options.

use std::io::Write;

use cmz_codec::{Archive, OpenOptions, Result, checkpoint};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::args::Globals;
use crate::progress::Bar;
use crate::report;

/// The options of every command, resolved.
pub(crate) struct Context {
    pub(crate) threads: usize,
    pub(crate) open: OpenOptions,
    pub(crate) json: bool,
    pub(crate) progress: Bar,
    quiet: bool,
    verbose: bool,
}

impl Context {
    pub(crate) fn new(globals: &Globals) -> Self {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: if globals.threads == 0 { all() } else { globals.threads },
            open: OpenOptions { io: globals.io.into(), ..OpenOptions::default() },
            json: globals.json,
            progress: Bar::new(globals.progress, globals.quiet),
            quiet: globals.quiet,
            verbose: globals.verbose > 0,
        }
    }

    /// Opens a `.cmz` file as the options say.
    pub(crate) fn open(&self, path: &Path) -> Result<Archive> {
        Archive::open_with(path, self.open.clone())
    }

    /// These options, and the `.cmz` files that paths stand for as bases. Each may have those
    /// before it as its own.
    pub(crate) fn open_options(&self, bases: &[PathBuf]) -> Result<OpenOptions> {
        let mut open = self.open.clone();
        for path in bases {
            for file in checkpoint::files_of(path)? {
                let base = Archive::open_with(&file, open.clone())?;
                open.bases.push(Arc::new(base));
            }
        }
        Ok(open)
    }

    /// Tells the user something on standard error.
    pub(crate) fn note(&self, note: &str) {
        if !self.quiet {
            self.progress.suspend(|| {
                // A closed standard error is no reason to stop.
                let _ = writeln!(anstream::stderr(), "{}note:{:#} {note}", report::NOTE, report::NOTE);
            });
        }
    }

    /// Tells the user something if wanted.
    pub(crate) fn detail(&self, note: &str) {
        if self.verbose {
            self.note(note);
        }
    }
}
