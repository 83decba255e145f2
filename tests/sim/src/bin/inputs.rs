//! Runs fuzz targets over inputs drawn from seeds, on all cores and without libFuzzer: no toolchain of its own, several
//! times as many runs, and a failure that its seed brings back.
//!
//! `inputs --target rebase --seeds 100000` runs a range of one target; without a target each has its turn; `--keep DIR` cuts
//! what fails down and keeps it as an input for the corpus; `--file FILE` runs one and lets its panic be seen; with `--case` it is
//! printed instead as a case of the simulated world, for `simulate --case`.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use fieldbook_sim::fuzz::{TARGETS, Target, drawn, small_case};

const USAGE: &str =
    "usage: inputs [--target NAME] [--seeds N] [--from N] [--keep DIR] [--file FILE [--case]]";

struct Options {
    target: Option<String>,
    from: u64,
    seeds: u64,
    keep: Option<PathBuf>,
    file: Option<PathBuf>,
    case: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // There is nothing to do about a closed standard error.
            drop(writeln!(io::stderr(), "{error}\n{USAGE}"));
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options { target: None, from: 1, seeds: 1_000, keep: None, file: None, case: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--target" => options.target = Some(value()?),
            "--seeds" => options.seeds = value()?.parse()?,
            "--from" => options.from = value()?.parse()?,
            "--keep" => options.keep = Some(value()?.into()),
            "--file" => options.file = Some(value()?.into()),
            "--case" => options.case = true,
            other => return Err(format!("{other} is no option").into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    let chosen = |name: &str| options.target.as_deref().is_none_or(|target| target == name);
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| chosen(name)).collect();
    if targets.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no such target; there are {}", names.join(", ")).into());
    }
    if let Some(path) = &options.file {
        let data = std::fs::read(path)?;
        if options.case {
            writeln!(
                out,
                "{}",
                serde_json::to_string_pretty(&small_case(&data).ok_or("the file is empty")?)?
            )?;
            return Ok(true);
        }
        targets.iter().for_each(|(_, target)| target(&data));
        writeln!(out, "holds")?;
        return Ok(true);
    }
    // What fails is told at the end, once for each input.
    panic::set_hook(Box::new(|_| {}));
    let mut holds = true;
    for (name, target) in targets {
        let failures = run_all(*target, options);
        writeln!(out, "{name:<18} {:>12} runs, {} findings", options.seeds, failures.len())?;
        for (seed, said) in &failures {
            holds = false;
            writeln!(out, "  seed {seed} FAILED  {said}")?;
            if let Some(folder) = &options.keep {
                let path = folder.join(format!("{name}-seed-{seed}"));
                let data = shrink(*target, drawn(*seed));
                std::fs::write(&path, &data)?;
                writeln!(out, "  cut down to {} bytes in {}", data.len(), path.display())?;
            }
        }
        out.flush()?;
    }
    Ok(holds)
}

/// Runs the seeds on all cores, and returns those that fail with what they said.
fn run_all(target: Target, options: &Options) -> Vec<(u64, String)> {
    let (next, end) = (AtomicU64::new(options.from), options.from.saturating_add(options.seeds));
    let failures = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(said) = failure(target, &drawn(seed)) {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push((seed, said));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    failures
}

/// Returns what a target says of an input that it fails on.
fn failure(target: Target, data: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| target(data))).err()?;
    let said = panic.downcast_ref::<String>().cloned();
    Some(said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap_or_default())
}

/// Takes bytes away, and makes others zero, as long as what is left fails in the same words up to the first figure.
fn shrink(target: Target, mut data: Vec<u8>) -> Vec<u8> {
    let kind = |said: String| said.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
    let Some(wanted) = failure(target, &data).map(kind) else { return data };
    let fails = |data: &[u8]| failure(target, data).map(kind).as_deref() == Some(wanted.as_str());
    let mut piece = data.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at + piece);
            let less = [data.get(..at), data.get(end..)].into_iter().flatten().flatten().copied();
            let less: Vec<u8> = less.collect();
            if fails(&less) {
                data = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    for at in 0..data.len() {
        let mut plainer = data.clone();
        if let Some(byte) = plainer.get_mut(at) {
            *byte = 0;
        }
        if plainer != data && fails(&plainer) {
            data = plainer;
        }
    }
    data
}
