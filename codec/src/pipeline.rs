//! Work on many threads with the results in order and the memory bounded.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use cmz_format::Result;

use crate::{Scratch, lock};

/// Results that may wait for an earlier one, per thread.
const AHEAD: usize = 4;

struct Shared<I, T> {
    jobs: I,
    /// Number of the next job to be taken, and of the next result to be consumed.
    next_job: usize,
    next_result: usize,
    results: BTreeMap<usize, Result<T>>,
    /// No job is left, or somebody failed.
    stopped: bool,
    workers: usize,
}

/// Runs `work` on every job, on `threads` threads, and hands the results to `consume`
/// in the order of the jobs, on the calling thread. At most a few results per thread
/// exist at a time. Stops at the first error in that order.
///
/// # Errors
/// The first error of a job, of `work` or of `consume`.
pub fn ordered<J, T: Send>(
    threads: usize,
    jobs: impl Iterator<Item = J> + Send,
    work: impl Fn(J, &mut Scratch) -> Result<T> + Sync,
    mut consume: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    if threads <= 1 {
        let mut scratch = Scratch::new();
        for job in jobs {
            consume(work(job, &mut scratch)?)?;
        }
        return Ok(());
    }
    let shared = Mutex::new(Shared {
        jobs,
        next_job: 0,
        next_result: 0,
        results: BTreeMap::new(),
        stopped: false,
        workers: threads,
    });
    let (room, ready) = (Condvar::new(), Condvar::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| run_worker(&shared, &room, &ready, threads * AHEAD, &work));
        }
        let stop = StopOnDrop { shared: &shared, room: &room };
        let result = consume_in_order(&shared, &room, &ready, &mut consume);
        drop(stop);
        result
    })
}

fn run_worker<I: Iterator, T>(
    shared: &Mutex<Shared<I, T>>,
    room: &Condvar,
    ready: &Condvar,
    window: usize,
    work: &(impl Fn(I::Item, &mut Scratch) -> Result<T> + Sync),
) {
    let _leave = LeaveOnDrop { shared, ready };
    let mut scratch = Scratch::new();
    loop {
        let (number, job) = {
            let mut state = lock(shared);
            while !state.stopped && state.next_job >= state.next_result + window {
                state = room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopped {
                return;
            }
            let Some(job) = state.jobs.next() else {
                state.stopped = true;
                return;
            };
            state.next_job += 1;
            (state.next_job - 1, job)
        };
        let result = work(job, &mut scratch);
        let failed = result.is_err();
        let mut state = lock(shared);
        state.stopped |= failed;
        state.results.insert(number, result);
        drop(state);
        ready.notify_one();
        if failed {
            return;
        }
    }
}

fn consume_in_order<I, T>(
    shared: &Mutex<Shared<I, T>>,
    room: &Condvar,
    ready: &Condvar,
    consume: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    loop {
        let mut state = lock(shared);
        let result = loop {
            let number = state.next_result;
            if let Some(result) = state.results.remove(&number) {
                state.next_result += 1;
                break result;
            }
            if state.workers == 0 {
                // Only a panic leaves a gap; the scope passes it on.
                return Ok(());
            }
            state = ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        room.notify_all();
        consume(result?)?;
    }
}

/// Lets the workers go when the consumer leaves, however it leaves.
struct StopOnDrop<'a, I, T> {
    shared: &'a Mutex<Shared<I, T>>,
    room: &'a Condvar,
}

impl<I, T> Drop for StopOnDrop<'_, I, T> {
    fn drop(&mut self) {
        lock(self.shared).stopped = true;
        self.room.notify_all();
    }
}

/// Tells the consumer that a worker has gone, however it went.
struct LeaveOnDrop<'a, I, T> {
    shared: &'a Mutex<Shared<I, T>>,
    ready: &'a Condvar,
}

impl<I, T> Drop for LeaveOnDrop<'_, I, T> {
    fn drop(&mut self) {
        lock(self.shared).workers -= 1;
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmz_format::{Code, Error};

    #[test]
    fn results_come_in_order_for_any_thread_count() {
        for threads in [1, 2, 3, 8] {
            let mut seen = Vec::new();
            let work = |n: u64, _: &mut Scratch| {
                thread::sleep(std::time::Duration::from_micros((n * 7919) % 300));
                Ok(n * n)
            };
            ordered(threads, 0..300, work, |n| {
                seen.push(n);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, (0..300).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_in_order_wins() {
        for threads in [1, 4] {
            let mut seen = 0;
            let work = |n: u32, _: &mut Scratch| match n {
                20 | 21 => Err(Error::new(Code::InvalidArgument, n.to_string())),
                _ => Ok(n),
            };
            let error = ordered(threads, 0.., work, |_| {
                seen += 1;
                Ok(())
            })
            .unwrap_err();
            assert_eq!((error.message(), seen), ("20", 20));
        }
    }

    #[test]
    fn a_failing_consumer_stops_the_workers() {
        let error = ordered(
            4,
            0u64..,
            |n, _| Ok(n),
            |n| match n {
                50 => Err(Error::new(Code::InvalidArgument, "enough")),
                _ => Ok(()),
            },
        );
        assert_eq!(error.unwrap_err().message(), "enough");
    }
}
