//! Progress on standard error.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cmz_codec::convert::{Phase, Progress};
use cmz_format::Escaped;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::ProgressMode;
use crate::text::{file_name, size};

/// Time between two lines of plain progress.
const INTERVAL: Duration = Duration::from_secs(2);

const BYTES: &str = "{msg}  {wide_bar} {percent:>3}%  {decimal_bytes_per_sec}  ETA {eta}";
const ITEMS: &str = "{msg}  {wide_bar} {pos} of {len}";

/// Shows how a conversion gets on.
pub(crate) struct Bar {
    shown: Shown,
    file: Mutex<String>,
}

enum Shown {
    Off,
    Bar(ProgressBar),
    Plain { state: Mutex<Plain>, done: AtomicU64 },
}

/// What the lines of plain progress are about.
struct Plain {
    phase: Phase,
    total: u64,
    began: Instant,
    printed: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bar {
    pub(crate) fn new(mode: ProgressMode, quiet: bool) -> Self {
        let bar = || Shown::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let now = Instant::now();
        let plain = || Shown::Plain {
            state: Mutex::new(Plain { phase: Phase::Planning, total: 0, began: now, printed: now }),
            done: AtomicU64::new(0),
        };
        let shown = match mode {
            _ if quiet => Shown::Off,
            ProgressMode::Off => Shown::Off,
            ProgressMode::Plain => plain(),
            ProgressMode::Bar if std::io::stderr().is_terminal() => bar(),
            // A bar needs a terminal to draw on.
            ProgressMode::Bar => plain(),
            ProgressMode::Auto if std::io::stderr().is_terminal() => bar(),
            ProgressMode::Auto => Shown::Off,
        };
        Self { shown, file: Mutex::new(String::new()) }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// Prints something while the bar is hidden.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(print),
            _ => print(),
        }
    }

    fn print_plain(&self, plain: &mut Plain, done: u64) {
        plain.printed = Instant::now();
        let elapsed = plain.began.elapsed().as_secs_f64().max(1e-3);
        let rate = done as f64 / elapsed;
        let line = match plain.phase {
            Phase::Planning => format!("{done} of {} tensors", plain.total),
            _ => {
                let percent = (done * 100).checked_div(plain.total).unwrap_or(100);
                let eta = plain.total.saturating_sub(done) as f64 / rate.max(1.0);
                format!("{percent}% of {}, {}/s, ETA {eta:.0} s", size(plain.total), size(rate as u64))
            }
        };
        let file = lock(&self.file);
        // A closed standard error is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{}{}: {line}", verb(plain.phase), Escaped(&file));
    }
}

fn verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Planning => "planning",
        Phase::Compressing => "compressing",
        Phase::Decompressing => "decompressing",
        Phase::Verifying => "verifying",
        Phase::Hashing => "hashing",
    }
}

impl Progress for Bar {
    fn file(&self, source: &Path, number: usize, count: usize) {
        let place = if count > 1 { format!(" [{}/{count}]", number + 1) } else { String::new() };
        *lock(&self.file) = format!("{place} {}", file_name(source));
    }

    fn begin(&self, phase: Phase, total: u64) {
        match &self.shown {
            Shown::Off => {}
            Shown::Bar(bar) => {
                let template = if phase == Phase::Planning { ITEMS } else { BYTES };
                bar.set_message(format!("{}{}", verb(phase), Escaped(&lock(&self.file))));
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("█▌ "));
                }
                bar.set_length(total);
                bar.reset();
            }
            Shown::Plain { state, done } => {
                done.store(0, Ordering::Relaxed);
                let now = Instant::now();
                *lock(state) = Plain { phase, total, began: now, printed: now };
            }
        }
    }

    fn advance(&self, bytes: u64) {
        match &self.shown {
            Shown::Off => {}
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Plain { state, done } => {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                let mut plain = lock(state);
                if done == plain.total || plain.printed.elapsed() >= INTERVAL {
                    self.print_plain(&mut plain, done);
                }
            }
        }
    }
}
