//! `spec FILE...`: runs spec cases and reports which failed, and how.
//!
//! The exit code is 0 if every line of every file is a case that passed or is of a kind that is not
//! run, otherwise 1. It is 2 for a wrong call.

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use fieldbook_sim::seeds::{SeedRange, on_all_cores};
use fieldbook_sim::spec::{FailedCase, FileReport, Manner, run_file};

const USAGE: &str = "usage: spec [OPTION...] FILE...\n\n  \
    FILE             spec cases, one JSON object a line (tests/spec/README.md)\n\n\
    Each of these must make no difference:\n  \
    --seeds N        run every case with the seeds 0 to N-1 for ids and jitter (default: with 0)\n  \
    --seed N         run every case with this one seed\n  \
    --reopening      close the book and open it again after every step\n  \
    --lost-requests  lose a request before every push, so that everything is sent twice\n  \
    --one-shot       make every exchange in a process of its own, with nothing remembered in memory\n  \
    --every-manner   all of these, alone and together, one after the other\n";

/// The options of a run.
struct Options {
    manners: Vec<Manner>,
    seeds: Range<u64>,
    files: Vec<PathBuf>,
}

/// A text to print instead of running.
enum Instead {
    Help,
    Wrong(String),
}

fn main() -> ExitCode {
    match options(std::env::args_os().skip(1)) {
        Ok(options) => run(&options),
        Err(Instead::Help) => say(&mut io::stdout(), USAGE, ExitCode::SUCCESS),
        Err(Instead::Wrong(why)) => {
            say(&mut io::stderr(), &format!("{why}\n{USAGE}"), ExitCode::from(2))
        }
    }
}

fn options(mut arguments: impl Iterator<Item = OsString>) -> Result<Options, Instead> {
    let mut manner = Manner::default();
    let mut options = Options { manners: Vec::new(), seeds: 0..1, files: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut number = |word: &str| {
            let value = arguments.next().and_then(|value| value.to_str()?.parse::<u64>().ok());
            value.ok_or_else(|| Instead::Wrong(format!("{word} needs a number")))
        };
        match argument.to_str() {
            Some(word @ "--seeds") => options.seeds = 0..number(word)?.max(1),
            Some(word @ "--seed") => {
                let seed = number(word)?;
                options.seeds = seed..seed.saturating_add(1);
            }
            Some("--reopening") => manner.reopening = true,
            Some("--lost-requests") => manner.lost_requests = true,
            Some("--one-shot") => manner.one_shot = true,
            Some("--every-manner") => options.manners = Manner::ALL.to_vec(),
            Some("--help" | "-h") => return Err(Instead::Help),
            Some(word) if word.starts_with('-') => {
                return Err(Instead::Wrong(format!("unknown option {word}")));
            }
            _ => options.files.push(argument.into()),
        }
    }
    if options.manners.is_empty() {
        options.manners.push(manner);
    }
    if options.files.is_empty() {
        return Err(Instead::Wrong("there is no file to run".to_owned()));
    }
    Ok(options)
}

fn run(options: &Options) -> ExitCode {
    let mut is_good = true;
    let manners = SeedRange { from: 0, seeds: options.manners.len() as u64 };
    let one = |number: u64| {
        let manner = options.manners.get(usize::try_from(number).ok()?)?;
        Some(run_in(*manner, options))
    };
    for (_, (text, all_passed)) in on_all_cores(manners, one) {
        let was_said = say(&mut io::stdout(), &text, ExitCode::SUCCESS) == ExitCode::SUCCESS;
        is_good &= was_said && all_passed;
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all files in one manner. Returns the report, and whether all cases passed.
fn run_in(manner: Manner, options: &Options) -> (String, bool) {
    let (mut passed, mut failed, mut skipped, mut is_good) = (0, 0, 0, true);
    let mut text = String::new();
    for file in &options.files {
        match run_file(file, manner, options.seeds.clone()) {
            Ok(report) => {
                is_good &= report.is_good();
                passed += report.passed;
                failed += report.failed.len();
                skipped += report.skipped;
                text.push_str(&shown(&file.display().to_string(), &report, manner, options));
            }
            Err(error) => {
                is_good = false;
                text.push_str(&format!("{}: cannot be read: {error}\n", file.display()));
            }
        }
    }
    text.push_str(&format!("{passed} passed, {failed} failed"));
    if skipped > 0 {
        text.push_str(&format!(", {skipped} skipped"));
    }
    let seeds = options.seeds.end - options.seeds.start;
    if seeds > 1 || manner != Manner::default() {
        text.push_str(&format!(": spec --seeds {seeds}{manner}"));
    }
    text.push('\n');
    (text, is_good)
}

fn shown(file: &str, report: &FileReport, manner: Manner, options: &Options) -> String {
    let mut text = String::new();
    for (line, fault) in &report.unreadable {
        text.push_str(&format!("{file}: line {line} does not parse: {fault}\n"));
    }
    for case in &report.failed {
        text.push_str(&format!("FAILED {} {}\n", case.id, case.title));
        for difference in &case.differences {
            text.push_str(&format!("    {difference}\n"));
        }
        text.push_str(&again(file, case, manner, options));
    }
    text
}

/// Returns how to reproduce a failure, if the name of the file is not enough.
fn again(file: &str, case: &FailedCase, manner: Manner, options: &Options) -> String {
    let seeds = options.seeds.end - options.seeds.start;
    match case.seeds.first() {
        Some(first) if seeds > 1 => {
            format!(
                "    with {} of {seeds} seeds: spec --seed {first}{manner} {file}\n",
                case.seeds.len()
            )
        }
        _ => String::new(),
    }
}

fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    // If the pipe is closed, the failure cannot be reported.
    if to.write_all(text.as_bytes()).is_ok() { code } else { ExitCode::FAILURE }
}
