//! Makes the power and the disk fail at every point of scripted scenarios, and prints how many
//! points and images were sound.
//!
//! `crash_points` tries every point of every scenario in three sizes; `--variants 6` in more sizes,
//! `--every 5` each fifth point, `--only NAME` one scenario.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fieldbook_sim::broken::Broken;
use fieldbook_sim::crash::{Effort, Recorded, SCENARIOS, Scenario, Tried, record};

/// The number of random images at each point.
const RANDOM: u64 = 6;
/// The number of sizes in which each scenario is played by default.
const VARIANTS: u64 = 3;
const USAGE: &str = "usage: crash_points [--every N] [--variants N] [--only NAME]";

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
    let (mut every, mut variants, mut only) = (1, VARIANTS, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--every", Some(value)) => every = value.parse::<usize>()?.max(1),
            ("--variants", Some(value)) => variants = value.parse()?,
            ("--only", Some(name)) => only = Some(name),
            _ => return Err(USAGE.into()),
        }
    }
    let scenarios =
        SCENARIOS.iter().filter(|scenario| only.as_ref().is_none_or(|only| only == scenario.name));
    let work: Vec<_> = scenarios
        .flat_map(|scenario| (0..variants).map(move |variant| (scenario, variant)))
        .collect();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "scenario          changes  points   images   double  unborn  failures  written all the same"
    )?;
    let (mut losses, mut failures) = (Tried::default(), Tried::default());
    let tried = on_all_cores(&work, every)?;
    for scenario in SCENARIOS {
        let mut sum = (0, Tried::default(), Tried::default());
        for (_, changes, lost, failed) in tried.iter().filter(|(name, ..)| *name == scenario.name) {
            sum.0 += changes;
            sum.1.add(*lost);
            sum.2.add(*failed);
        }
        let (changes, lost, failed) = sum;
        writeln!(
            out,
            "{:<16} {changes:>8} {:>7} {:>8} {:>8} {:>7} {:>9} {:>9}",
            scenario.name,
            lost.points,
            lost.images + failed.images,
            lost.double,
            lost.unborn + failed.unborn,
            failed.failures,
            failed.ambiguous
        )?;
        losses.add(lost);
        failures.add(failed);
    }
    writeln!(out, "crash points          {}", losses.points)?;
    writeln!(out, "images                {}", losses.images)?;
    writeln!(out, "double-crash images   {}", losses.double)?;
    writeln!(out, "disk failures         {} runs, {} images", failures.failures, failures.images)?;
    writeln!(out, "failed and written    {}  (the app heard `Unknown`)", failures.ambiguous)?;
    writeln!(
        out,
        "unborn images         {}  (did not open, before anything was acknowledged)",
        losses.unborn + failures.unborn
    )?;
    writeln!(out, "lost or damaged       0")?;
    writeln!(out, "written after error   0")?;
    Ok(())
}

type Line = (&'static str, usize, Tried, Tried);

/// Shares the scenarios among the cores.
fn on_all_cores(work: &[(&'static Scenario, u64)], every: usize) -> Result<Vec<Line>, Broken> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let shares: Vec<_> = thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| {
                let mut lines = Vec::new();
                while let Some((scenario, variant)) = work.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    lines.push(one(scenario, *variant, every)?);
                }
                Ok(lines)
            })
        };
        let started: Vec<_> = (0..workers).map(start).collect();
        started.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let mut lines = Vec::new();
    for share in shares {
        lines.extend(share.map_err(|_| Broken::new("panic", "the product panicked"))??);
    }
    Ok(lines)
}

fn one(scenario: &'static Scenario, variant: u64, every: usize) -> Result<Line, Broken> {
    let recorded: Recorded = record(scenario, variant)?;
    let first = usize::try_from(variant).unwrap_or(0);
    let effort = Effort { every, first, random: RANDOM };
    Ok((
        scenario.name,
        recorded.changes(),
        recorded.power_losses(effort)?,
        recorded.disk_failures(effort)?,
    ))
}
