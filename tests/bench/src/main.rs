//! `fieldbook-bench`: fieldbook beside SQLite and a bare file, interleaved in one process, printed
//! as ratios.
//!
//! It asserts no time unless `--goals` asks for it: it prints its results with the goals. It does
//! check that every peer returns the right answer, because the time of a wrong answer is no
//! measurement.

mod benchmarks;
mod check;
mod commits;
mod count;
mod fieldbook;
mod figure;
mod first_sync;
mod growth;
mod leads;
mod live;
mod peer;
mod picture;
mod race;
mod raw;
mod report;
mod sample;
mod search;
mod sqlite;
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::benchmarks::BENCHMARKS;
use crate::figure::Study;
use crate::peer::Failure;
use crate::race::Setting;
use crate::report::Line;

/// Measures fieldbook beside SQLite and prints medians and ratios.
#[derive(Debug, Parser)]
struct Arguments {
    /// Divides every size by 20, for a quick check of seconds instead of minutes.
    #[arg(long)]
    quick: bool,
    /// Prints JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Where the stores are made: a folder on a real disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Runs only the benchmarks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Prints the names of the benchmarks and ends.
    #[arg(long)]
    list: bool,
    /// Runs only the peers whose name contains this, for example for a profile.
    #[arg(long, default_value = "")]
    peer: String,
    /// Ends with an error if a result misses its goal; for an idle machine.
    #[arg(long, conflicts_with_all = ["quick", "growth", "count"])]
    goals: bool,
    /// Measures how costs grow, instead of the benchmarks.
    #[arg(long)]
    growth: bool,
    /// Draws the growth as pictures in this folder.
    #[arg(long, value_name = "FOLDER", requires = "growth")]
    pictures: Option<PathBuf>,
    /// Counts the instructions of an item instead of its time, with valgrind, which has to be
    /// installed.
    #[arg(long)]
    count: bool,
    /// Runs as the counted process: runs the one benchmark of this name and prints the number of
    /// measured items.
    #[arg(long, hide = true)]
    counted: bool,
    /// The way to rebuild, by its number.
    #[arg(long, hide = true)]
    way: Option<usize>,
    /// Runs as the child process of the first sync: syncs a new book, made at the path given as
    /// the folder, with this server.
    #[arg(long, hide = true)]
    first_sync_of: Option<String>,
}

const FIRST_SYNC: &str = "first sync of 100,000 records";
const COMMITS: &str = "server, one unit a request";
const STUDIES: [Study; 3] = [
    Study { name: check::NAME, run: check::measure },
    Study { name: search::NAME, run: search::measure },
    Study { name: live::NAME, run: live::measure },
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("error: {failure}: {:?}", std::error::Error::source(&failure)));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(url) = &arguments.first_sync_of {
        print(&serde_json::to_string(&first_sync::client(url, &arguments.folder)?)?);
        return Ok(());
    }
    if arguments.list {
        print(&names().collect::<Vec<_>>().join("\n"));
        return Ok(());
    }
    if arguments.growth {
        let divisor = if arguments.quick { 20 } else { 1 };
        print(&growth::run(divisor, arguments.pictures.as_deref())?);
        return Ok(());
    }
    if !names().any(|name| name.contains(&arguments.only)) {
        return Err(Failure::NoSuchBenchmark);
    }
    std::fs::create_dir_all(&arguments.folder)?;
    let divisor = if arguments.quick { 20 } else { 1 };
    let setting = Setting {
        folder: arguments.folder.clone(),
        divisor,
        peer: arguments.peer.clone(),
        way: arguments.way,
    };
    if arguments.counted {
        print(&count::counted(&arguments.only, &setting)?.to_string());
        return Ok(());
    }
    if arguments.count {
        return count_all(arguments, &setting);
    }
    let mut lines = Vec::new();
    for benchmark in BENCHMARKS.iter().filter(|benchmark| benchmark.name.contains(&arguments.only))
    {
        say(&format!("{} ...", benchmark.name));
        lines.push(Line { benchmark, times: (benchmark.run)(&setting)? });
    }
    let mut served = report::Served::default();
    let is_asked_for =
        |name: &str| name.contains(&arguments.only) && "fieldbook".contains(&arguments.peer);
    if is_asked_for(FIRST_SYNC) {
        say(&format!("{FIRST_SYNC} ..."));
        served.first_sync = Some(first_sync::measure(&setting)?);
    }
    if is_asked_for(COMMITS) {
        say(&format!("{COMMITS} ..."));
        served.commits = commits::measure(&setting)?;
    }
    let mut figures = Vec::new();
    for study in STUDIES.iter().filter(|study| study.name.contains(&arguments.only)) {
        say(&format!("{} ...", study.name));
        figures.extend((study.run)(&setting)?);
    }
    if arguments.quick {
        say("every size was divided by 20: a look, not a measurement");
    }
    print(&if arguments.json {
        format!("{:#}", report::json(&lines, &served, &figures))
    } else {
        report::text(&lines, &served, &figures)
    });
    let missed = report::missed(&lines, &figures);
    if arguments.goals && !missed.is_empty() { Err(Failure::Missed { missed }) } else { Ok(()) }
}

/// Returns the names of all measurements.
fn names() -> impl Iterator<Item = &'static str> {
    let benchmarks = BENCHMARKS.iter().map(|benchmark| benchmark.name);
    benchmarks.chain([FIRST_SYNC, COMMITS]).chain(STUDIES.iter().map(|study| study.name))
}

/// Counts instead of measuring.
fn count_all(arguments: &Arguments, setting: &Setting) -> Result<(), Failure> {
    let mut lines = Vec::new();
    for benchmark in BENCHMARKS.iter().filter(|benchmark| benchmark.name.contains(&arguments.only))
    {
        say(&format!("{} ...", benchmark.name));
        lines.push((benchmark, count::count(benchmark, setting)?));
    }
    print(&if arguments.json {
        format!("{:#}", report::counts_json(&lines))
    } else {
        report::counts(&lines)
    });
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a program")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress and errors of a program, apart from its result")]
fn say(text: &str) {
    eprintln!("{text}");
}
