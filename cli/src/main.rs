//! The program `fieldbook`: everything a support person asks of a book, a server to sync with, and a history to play.
//!
//! ```text
//!   arguments ─► command ─► Book / server ─► show (tables, times, notation) ─► Output
//!                   └────────────── Failure ─► one line, its causes, what to do ─► exit code
//! ```
//!
//! 1. Exit codes: 0 done, 1 failed, 2 wrong usage.
//! 2. Results go to standard output, and only there; progress, warnings and failures go to standard error.
//! 3. Nothing is ever asked of the terminal, and a closed pipe ends the program quietly.
//!
//! It decides nothing about a book: rules are in `fieldbook-core`, composition in `fieldbook`.

mod demo;
mod error;
mod output;
mod play;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Failure;
use crate::output::Output;

#[derive(Parser)]
#[command(name = "fieldbook", version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play the shipped history against a server of its own and show what came of it.
    Demo(demo::Args),
    /// Play a stream of mutations through a fleet of books.
    Play(play::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new();
    let done = run(arguments.command, &mut output).and_then(|()| output.finish());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args, output),
        Command::Play(args) => play::run(args, output),
    }
}
