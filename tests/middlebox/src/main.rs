//! `middlebox`: runs seeds of the real client and server with a box between them, and reports
//! broken promises.
//!
//! `middlebox --seeds 200 --from 1` runs a range; `middlebox --seed 7` runs one seed. With
//! `--program PATH` every write and every sync is a process of that program, which is `fieldbook`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use fieldbook_middlebox::{Counts, processes, script};
use fieldbook_sim::seeds::{SeedRange, exit_code, on_threads, value};

const USAGE: &str = "usage: middlebox [--seeds N] [--from N] [--seed N] [--program PATH]";
/// The number of seeds that run at a time. Most of a run is waiting.
const THREADS: usize = 6;

struct Options {
    range: SeedRange,
    program: Option<PathBuf>,
}

fn main() -> ExitCode {
    exit_code(options().and_then(|options| run(&options)), USAGE)
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options { range: SeedRange::first(200), program: None };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        match option.as_str() {
            "--program" => options.program = Some(value(&option, &mut words)?.into()),
            _ => options.range.take(&option, &mut words)?,
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let counts = Mutex::new(Counts::default());
    let failures = on_threads(THREADS, options.range, |seed| {
        let (counted, broken) = match &options.program {
            Some(program) => processes::run_seed(program, seed),
            None => script::run_seed(seed),
        };
        counts.lock().unwrap_or_else(PoisonError::into_inner).add(&counted);
        broken
    });
    let mut out = io::stdout().lock();
    let program = options.program.as_ref().map(|path| format!(" --program {}", path.display()));
    let program = program.unwrap_or_default();
    for (seed, broken) in &failures {
        writeln!(out, "seed {seed} FAILED  {broken}")?;
        writeln!(
            out,
            "  again: cargo run --release -p fieldbook-middlebox -- --seed {seed}{program}"
        )?;
    }
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    show(&mut out, options.range.seeds, &counts)?;
    writeln!(out, "failures              {}", failures.len())?;
    Ok(failures.is_empty())
}

fn show(out: &mut impl Write, seeds: u64, counts: &Counts) -> io::Result<()> {
    writeln!(out, "seeds                 {seeds}")?;
    writeln!(out, "ops                   {}", counts.ops)?;
    writeln!(out, "exchanges             {}", counts.exchanges)?;
    writeln!(out, "answered              {}", counts.answered)?;
    writeln!(out, "refused in truth      {}", counts.refused)?;
    writeln!(out, "reopenings            {}", counts.reopenings)?;
    for (kind, count) in &counts.faults {
        writeln!(out, "fault: {kind:<22} {count}")?;
    }
    Ok(())
}
