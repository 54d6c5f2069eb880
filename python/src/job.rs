//! Work of the library in a thread of its own, while the caller's thread answers signals and tells
//! a callback how far it is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cmz_codec::convert::{Phase, Progress};
use cmz_codec::{Code, Error, Result};
use pyo3::prelude::*;

use crate::error::exception;

/// How often signals are answered and the callback is called.
const TICK: Duration = Duration::from_millis(50);

/// How far the work is.
#[derive(Default)]
pub(crate) struct State {
    place: Mutex<Place>,
    done: AtomicU64,
    stop: AtomicBool,
    ended: Mutex<bool>,
    end: Condvar,
}

#[derive(Clone, Default)]
struct Place {
    phase: &'static str,
    total: u64,
    file: Option<PathBuf>,
    number: usize,
    count: usize,
}

impl Progress for State {
    fn file(&self, source: &Path, number: usize, count: usize) {
        let mut place = lock(&self.place);
        (place.file, place.number, place.count) = (Some(source.to_owned()), number, count);
    }

    fn begin(&self, phase: Phase, total: u64) {
        let mut place = lock(&self.place);
        place.phase = match phase {
            Phase::Planning => "planning",
            Phase::Compressing => "compressing",
            Phase::Decompressing => "decompressing",
            Phase::Verifying => "verifying",
            Phase::Hashing => "hashing",
        };
        place.total = total;
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl State {
    /// The number of the file in work.
    pub(crate) fn number(&self) -> usize {
        lock(&self.place).number
    }

    /// Becomes true when the work is to be stopped.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Waits for the end of the work, a tick at most. Returns whether it has come.
    fn wait(&self) -> bool {
        let ended = lock(&self.ended);
        let waited = self.end.wait_timeout_while(ended, TICK, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Tells the callback how far the work is.
    fn report(&self, py: Python<'_>, callback: Option<&Py<PyAny>>) -> PyResult<()> {
        let Some(callback) = callback else { return Ok(()) };
        let place = lock(&self.place).clone();
        let done = self.done.load(Ordering::Relaxed);
        let file = place.file.map(PathBuf::into_os_string);
        callback.call1(py, (place.phase, done, place.total, file, place.number, place.count)).map(drop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that the work has ended, however it has.
struct Ending<'a>(&'a State);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        *lock(&self.0.ended) = true;
        self.0.end.notify_all();
    }
}

/// Runs `work` without the interpreter's lock. A signal's exception, or one of the callback, stops
/// it and is raised once it has ended.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    callback: Option<&Py<PyAny>>,
    work: impl FnOnce(&State) -> Result<T> + Send,
) -> PyResult<T> {
    let state = State::default();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _ending = Ending(&state);
            work(&state)
        });
        let mut raised = None;
        while !py.detach(|| state.wait()) {
            if raised.is_none()
                && let Err(error) = py.check_signals().and_then(|()| state.report(py, callback))
            {
                state.stop.store(true, Ordering::Relaxed);
                raised = Some(error);
            }
        }
        let result = py.detach(|| worker.join());
        let result = result.unwrap_or_else(|_| Err(Error::new(Code::Io, "a working thread failed")));
        match raised {
            Some(error) => Err(error),
            None => {
                let result = result.map_err(|e| exception(py, &e))?;
                state.report(py, callback)?;
                Ok(result)
            }
        }
    })
}
