//! Programs over many seeds: their arguments, the result of each seed, and the text of a panic.

use std::any::Any;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The seeds that a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedRange {
    /// The first seed.
    pub from: u64,
    /// The number of seeds.
    pub seeds: u64,
}

impl SeedRange {
    /// Returns the first `seeds` seeds, from 1.
    pub const fn first(seeds: u64) -> Self {
        Self { from: 1, seeds }
    }

    /// Parses `--seeds N`, `--from N` or `--seed N`.
    ///
    /// # Errors
    /// If the option is unknown, or its value is no number.
    pub fn take(
        &mut self,
        option: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Box<dyn Error>> {
        let mut number = || -> Result<u64, Box<dyn Error>> { Ok(value(option, words)?.parse()?) };
        match option {
            "--seeds" => self.seeds = number()?,
            "--from" => self.from = number()?,
            "--seed" => (self.from, self.seeds) = (number()?, 1),
            _ => return Err(format!("{option} is no option").into()),
        }
        Ok(())
    }
}

/// Returns the value of an option: the word after it.
///
/// # Errors
/// If the option has no value.
pub fn value(
    option: &str,
    words: &mut impl Iterator<Item = String>,
) -> Result<String, Box<dyn Error>> {
    words.next().ok_or_else(|| format!("{option} needs a value").into())
}

/// Returns the exit code of a program: 0 if everything held, 1 if something did not hold, and 2,
/// after the usage, if the program could not find out.
pub fn exit_code(held: Result<bool, Box<dyn Error>>, usage: &str) -> ExitCode {
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If standard error is closed, nothing can be done about it.
            drop(writeln!(io::stderr(), "{error}\n{usage}"));
            ExitCode::from(2)
        }
    }
}

/// Runs the seeds of a range on all cores, and returns the results by seed, for the seeds with a
/// result.
pub fn on_all_cores<T: Send>(
    range: SeedRange,
    run: impl Fn(u64) -> Option<T> + Sync,
) -> Vec<(u64, T)> {
    on_threads(thread::available_parallelism().map_or(2, usize::from), range, run)
}

/// Does the same as [`on_all_cores`] on this many threads, for work that mostly waits.
pub fn on_threads<T: Send>(
    workers: usize,
    range: SeedRange,
    run: impl Fn(u64) -> Option<T> + Sync,
) -> Vec<(u64, T)> {
    let (next, end) = (AtomicU64::new(range.from), range.from.saturating_add(range.seeds));
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

/// Returns the text of a panic.
pub fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(options: &[&str]) -> Result<SeedRange, String> {
        let mut range = SeedRange::first(200);
        let mut words = options.iter().map(|word| (*word).to_owned());
        while let Some(option) = words.next() {
            range.take(&option, &mut words).map_err(|error| error.to_string())?;
        }
        Ok(range)
    }

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(taken(&[]), Ok(SeedRange { from: 1, seeds: 200 }));
        assert_eq!(taken(&["--seeds", "3", "--from", "7"]), Ok(SeedRange { from: 7, seeds: 3 }));
        assert_eq!(taken(&["--seed", "9"]), Ok(SeedRange { from: 9, seeds: 1 }));
    }

    #[test]
    fn what_is_no_option_or_no_number_is_told() {
        assert_eq!(taken(&["--sed", "9"]), Err("--sed is no option".to_owned()));
        assert_eq!(taken(&["--seeds"]), Err("--seeds needs a value".to_owned()));
        assert!(taken(&["--seeds", "many"]).is_err());
    }

    #[test]
    fn each_seed_of_a_range_runs_once() {
        let ran = on_threads(3, SeedRange { from: 5, seeds: 40 }, Some);
        assert_eq!(ran, (5..45).map(|seed| (seed, seed)).collect::<Vec<_>>());
    }
}
