//! Many seeds at once: what each comes to, and what a panic said.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs so many seeds from one on, on all cores, and returns what each that came to something came to, by seed.
pub fn on_all_cores<T: Send>(from: u64, seeds: u64, run: impl Fn(u64) -> Option<T> + Sync) -> Vec<(u64, T)> {
    on_threads(thread::available_parallelism().map_or(2, usize::from), from, seeds, run)
}

/// The same on so many threads, for what waits more than it works.
pub fn on_threads<T: Send>(
    workers: usize,
    from: u64,
    seeds: u64,
    run: impl Fn(u64) -> Option<T> + Sync,
) -> Vec<(u64, T)> {
    let (next, end) = (AtomicU64::new(from), from.saturating_add(seeds));
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(came_to) = run(seed) {
                        found.lock().unwrap_or_else(PoisonError::into_inner).push((seed, came_to));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(seed, _)| *seed);
    found
}

/// Returns what a panic said.
pub fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
