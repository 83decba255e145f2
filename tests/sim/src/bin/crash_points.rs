//! Lets the power go, and the disk fail, at every point of a scripted workload, and prints how many points and images held.
//!
//! `crash_points` tries everything; `crash_points --every 5` each fifth point.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use fieldbook_sim::broken::Broken;
use fieldbook_sim::crash::{Effort, Recorded, Tried, record};

/// How many random images there are at each point.
const RANDOM: u64 = 6;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let every = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => 1,
        (Some("--every"), Some(every)) => every.parse::<usize>()?.max(1),
        _ => return Err("usage: crash_points [--every N]".into()),
    };
    let recorded = record()?;
    let losses = on_all_cores(&recorded, every, Recorded::power_losses)?;
    let failures = on_all_cores(&recorded, every, Recorded::disk_failures)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "workload              {} changes of the disk, {} entries",
        recorded.changes(),
        recorded.entries()
    )?;
    writeln!(out, "crash points          {}", losses.points)?;
    writeln!(out, "images                {}", losses.images)?;
    writeln!(out, "double-crash images   {}", losses.double)?;
    writeln!(
        out,
        "unborn images         {}  (did not open, before anything was acknowledged)",
        losses.unborn
    )?;
    writeln!(out, "disk failures         {} runs, {} images", failures.failures, failures.images)?;
    writeln!(out, "lost or damaged       0")?;
    Ok(())
}

/// Shares the points among the cores.
fn on_all_cores(
    recorded: &Recorded,
    every: usize,
    work: impl Fn(&Recorded, Effort) -> Result<Tried, Broken> + Sync,
) -> Result<Tried, Broken> {
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let shares: Vec<_> = thread::scope(|scope| {
        let start = |worker: usize| {
            let effort = Effort { every: every * workers, first: worker * every, random: RANDOM };
            let work = &work;
            scope.spawn(move || work(recorded, effort))
        };
        let started: Vec<_> = (0..workers).map(start).collect();
        started.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut sum = Tried::default();
    for share in shares {
        sum.add(share.map_err(|_| Broken::new("panic", "the product panicked"))??);
    }
    Ok(sum)
}
