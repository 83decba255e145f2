//! `spec FILE...`: runs spec cases and says which failed, and how.
//!
//! Exits with 0 if every line of every file is a case that passed or is of a kind that is not run, else with 1; with 2 if the
//! call makes no sense.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use fieldbook_sim::spec::{FileReport, Manner, run_file};

const USAGE: &str = "usage: spec [--reopening] FILE...\n\n  \
    FILE         spec cases, one JSON object a line (tests/spec/README.md)\n  \
    --reopening  close the book and open it again after every step, which must make no difference\n";

fn main() -> ExitCode {
    let mut manner = Manner::default();
    let mut files: Vec<PathBuf> = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--reopening") => manner.reopening = true,
            Some("--help" | "-h") => return say(&mut io::stdout(), USAGE, ExitCode::SUCCESS),
            Some(word) if word.starts_with('-') => {
                return say(&mut io::stderr(), &format!("unknown option {word}\n{USAGE}"), ExitCode::from(2));
            }
            _ => files.push(argument.into()),
        }
    }
    if files.is_empty() {
        return say(&mut io::stderr(), USAGE, ExitCode::from(2));
    }
    let (mut passed, mut failed, mut skipped, mut good) = (0, 0, 0, true);
    let mut text = String::new();
    for file in &files {
        match run_file(file, manner) {
            Ok(report) => {
                good &= report.is_good();
                passed += report.passed;
                failed += report.failed.len();
                skipped += report.skipped;
                text.push_str(&shown(&file.display().to_string(), &report));
            }
            Err(error) => {
                good = false;
                text.push_str(&format!("{}: cannot be read: {error}\n", file.display()));
            }
        }
    }
    text.push_str(&format!("{passed} passed, {failed} failed"));
    if skipped > 0 {
        text.push_str(&format!(", {skipped} skipped"));
    }
    text.push('\n');
    say(&mut io::stdout(), &text, if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown(file: &str, report: &FileReport) -> String {
    let mut text = String::new();
    for (line, fault) in &report.unreadable {
        text.push_str(&format!("{file}: line {line} does not parse: {fault}\n"));
    }
    for case in &report.failed {
        text.push_str(&format!("FAILED {} {}\n", case.id, case.title));
        for difference in &case.differences {
            text.push_str(&format!("    {difference}\n"));
        }
    }
    text
}

fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    // Whoever closed the pipe does not want to hear that it is closed.
    if to.write_all(text.as_bytes()).is_ok() { code } else { ExitCode::FAILURE }
}
