//! Runs simulated worlds, many seeds or one, and reports broken invariants.
//!
//! `simulate --seeds 500 --from 1` runs a range on all cores. `simulate --seed 7 --trace` shows one
//! run. `--keep DIR` shrinks a failing run and keeps it as a case. `--case FILE` plays a kept case.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use fieldbook_sim::seeds::{SeedRange, exit_code, on_all_cores, value};
use fieldbook_sim::{Ran, Stats, play, run_seed, shrink};

const USAGE: &str =
    "usage: simulate [--seeds N] [--from N] [--seed N] [--trace] [--keep DIR] [--case FILE]";
/// One seed in this many is run twice, to check that the seed determines the run.
const TWICE_EVERY: u64 = 20;
const SHOWN_ACTIONS: usize = 12;

struct Options {
    range: SeedRange,
    trace: bool,
    keep: Option<PathBuf>,
    case: Option<PathBuf>,
}

fn main() -> ExitCode {
    exit_code(options().and_then(|options| run(&options)), USAGE)
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options =
        Options { range: SeedRange::first(200), trace: false, keep: None, case: None };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        match option.as_str() {
            "--keep" => options.keep = Some(value(&option, &mut words)?.into()),
            "--case" => options.case = Some(value(&option, &mut words)?.into()),
            "--trace" => options.trace = true,
            _ => options.range.take(&option, &mut words)?,
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    if let Some(path) = &options.case {
        let case: fieldbook_sim::action::Case = serde_json::from_slice(&std::fs::read(path)?)?;
        let ran = play(&case.setup, &case.actions);
        show_actions(&mut out, &ran, usize::MAX)?;
        write!(out, "{}", ran.logs)?;
        if ran.broken.is_some() {
            keep(&mut out, options, &ran, path.file_name().unwrap_or_default())?;
        }
        writeln!(
            out,
            "{}",
            ran.broken.as_ref().map_or_else(|| "holds".to_owned(), ToString::to_string)
        )?;
        return Ok(ran.broken.is_none());
    }
    let (stats, failures) = run_all(options);
    for (seed, ran) in &failures {
        let what = ran.broken.as_ref().map_or_else(String::new, ToString::to_string);
        writeln!(out, "seed {seed} FAILED  {what}")?;
        show_actions(&mut out, ran, SHOWN_ACTIONS)?;
        keep(&mut out, options, ran, format!("seed-{seed}.json").as_ref())?;
    }
    if options.trace && options.range.seeds == 1 && failures.is_empty() {
        let ran = run_seed(options.range.from);
        show_actions(&mut out, &ran, usize::MAX)?;
        writeln!(out, "trace {:016x}", ran.trace)?;
    }
    show_stats(&mut out, options.range.seeds, &stats)?;
    writeln!(out, "failures              {}", failures.len())?;
    Ok(failures.is_empty())
}

/// Shrinks a failing run and keeps it as a case, if that was asked for.
fn keep(
    out: &mut impl Write,
    options: &Options,
    ran: &Ran,
    name: &OsStr,
) -> Result<(), Box<dyn std::error::Error>> {
    let Some(folder) = &options.keep else { return Ok(()) };
    let path = folder.join(name);
    let case = shrink(ran);
    std::fs::write(&path, serde_json::to_vec_pretty(&case)?)?;
    writeln!(out, "  cut down to {} actions in {}", case.actions.len(), path.display())?;
    Ok(())
}

/// Runs the seeds on all cores.
fn run_all(options: &Options) -> (Stats, Vec<(u64, Ran)>) {
    let stats = Mutex::new(Stats::default());
    let failures = on_all_cores(options.range, |seed| {
        let mut ran = run_seed(seed);
        if seed.is_multiple_of(TWICE_EVERY) && ran.broken.is_none() {
            check_same(&mut ran, &run_seed(seed));
        }
        stats.lock().unwrap_or_else(PoisonError::into_inner).add(&ran.stats);
        ran.broken.is_some().then_some(ran)
    });
    (stats.into_inner().unwrap_or_else(PoisonError::into_inner), failures)
}

fn check_same(ran: &mut Ran, again: &Ran) {
    if ran.trace != again.trace {
        ran.broken = Some(fieldbook_sim::broken::Broken::new(
            "determinism",
            "the same seed ran differently",
        ));
    }
}

fn show_actions(out: &mut impl Write, ran: &Ran, most: usize) -> io::Result<()> {
    let skipped = ran.actions.len().saturating_sub(most);
    for (number, action) in ran.actions.iter().enumerate().skip(skipped) {
        writeln!(out, "  {number:>4}  {}", serde_json::to_string(action).unwrap_or_default())?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "hours, for people")]
fn show_stats(out: &mut impl Write, seeds: u64, stats: &Stats) -> io::Result<()> {
    writeln!(out, "seeds                 {seeds}")?;
    writeln!(out, "device-hours          {:.0}", stats.device_milliseconds as f64 / 3_600_000.0)?;
    writeln!(out, "ops                   {}", stats.ops)?;
    writeln!(out, "exchanges             {}", stats.exchanges)?;
    writeln!(out, "conflicts             {}", stats.conflicts)?;
    writeln!(out, "recoveries            {}", stats.recoveries)?;
    writeln!(out, "logs trimmed          {}", stats.trimmed)?;
    let (checks, differences) = (stats.checks, stats.differences);
    writeln!(
        out,
        "checks                {checks}: {differences} differences, {} mended",
        stats.mended
    )?;
    for (kind, count) in &stats.faults {
        writeln!(out, "fault: {kind:<22} {count}")?;
    }
    Ok(())
}
