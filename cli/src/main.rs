//! The program `fieldbook`: everything a support person asks of a book, a server to sync with, and a history to play.
//!
//! ```text
//!   arguments ─► command ─► Book / server ─► show (tables, times, notation) ─► Output
//!                   └────────────── Failure ─► one line, its causes, what to do ─► exit code
//! ```
//!
//! 1. Exit codes: 0 done, 1 failed, 2 wrong usage.
//! 2. Results go to standard output, and only there; progress, notes and failures go to standard error.
//! 3. Nothing is ever asked of the terminal, and a closed pipe ends the program quietly.
//!
//! It decides nothing about a book: rules are in `fieldbook-core`, composition in `fieldbook`.

mod commands;
mod error;
mod files;
mod output;
mod panic;
mod show;
mod temporary;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    accept, conflicts, dead_letters, demo, entries, explain, play, queue, read, serve, status, sync, upkeep,
    write,
};
use crate::error::Failure;
use crate::output::Output;
use crate::show::plain;

/// Look into a fieldbook's book, write to it, sync it, and serve others that sync.
#[derive(Parser)]
#[command(
    name = "fieldbook",
    version,
    propagate_version = true,
    after_help = "Start here:
  fieldbook demo                          a fleet of devices, in under a minute
  fieldbook init ann.book
  fieldbook put ann.book lead/42 '{\"name\":\"Ann\"}'
  fieldbook serve --data crm.store        in another terminal
  fieldbook sync ann.book --server http://127.0.0.1:7070

Notation: entries 41, ops 41+3, versions r47, conflicts 47.2. Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play the shipped history against a server of its own and show what came of it
    Demo(demo::Args),
    /// Play a stream of mutations through a fleet of books
    Play(play::Args),
    /// Run a sync server
    Serve(serve::Args),
    /// Say that a server's store was restored from a backup
    Restored(serve::RestoredArgs),
    /// Make a new book
    Init(write::InitArgs),
    /// Create a record, or replace it
    Put(write::PutArgs),
    /// Change some fields of a record
    Patch(write::PatchArgs),
    /// Delete a record
    Rm(write::RmArgs),
    /// Take an op back
    Undo(write::UndoArgs),
    /// Show a record
    Get(read::GetArgs),
    /// List records, or entity types
    Ls(read::LsArgs),
    /// Show the log, or export it
    Log(entries::LogArgs),
    /// Show what happened to a record
    History(entries::HistoryArgs),
    /// Show where the book or a record stands between this device and the server
    Status(status::Args),
    /// Say in words why a record is, or is not, at the server
    Explain(explain::Args),
    /// List what is owed to the server
    Queue(queue::QueueArgs),
    /// Show what a sync would send now, and what is held and why
    Plan(queue::PlanArgs),
    /// Send what is owed and fetch what is new
    Sync(sync::Args),
    /// Say which server a book belongs to, after another one has answered
    AcceptServer(accept::Args),
    /// List and settle what the server refused for good
    DeadLetters(dead_letters::Args),
    /// List and settle where both sides changed the same thing
    Conflicts(conflicts::Args),
    /// Check every hash of a book or of an exported log
    Verify(upkeep::VerifyArgs),
    /// Throw the tables away and fold them anew from the log
    Rebuild(upkeep::RebuildArgs),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let mut output = Output::new();
    let book = arguments.command.book().map(Path::to_owned);
    let run = || run(arguments.command, &mut output).and_then(|()| output.finish());
    match panic::caught(book.clone(), run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was found before the failure still counts.
            drop(output.finish());
            failure.report(book.as_deref())
        }
    }
}

/// Says why the arguments make no sense, or the help that was asked for. What was typed is shown so that it hides nothing.
fn not_understood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let mut text = error.render().to_string();
    for word in std::env::args_os() {
        let word = word.to_string_lossy();
        if plain(&word) != word {
            text = text.replace(&*word, &plain(&word));
        }
    }
    let lines = text.lines().map(plain).collect::<Vec<_>>().join("\n");
    // If standard error is gone, the exit code still tells.
    drop(writeln!(std::io::stderr().lock(), "{lines}"));
    ExitCode::from(2)
}

impl Command {
    /// Returns the book that the command is about.
    fn book(&self) -> Option<&Path> {
        Some(match self {
            Self::Demo(_) | Self::Play(_) | Self::Serve(_) | Self::Restored(_) => return None,
            Self::Init(args) => &args.book,
            Self::Put(args) => &args.book,
            Self::Patch(args) => &args.book,
            Self::Rm(args) => &args.book,
            Self::Undo(args) => &args.book,
            Self::Get(args) => &args.book,
            Self::Ls(args) => &args.book,
            Self::Log(args) => &args.book,
            Self::History(args) => &args.book,
            Self::Status(args) => &args.book,
            Self::Explain(args) => &args.book,
            Self::Queue(args) => &args.book,
            Self::Plan(args) => &args.book,
            Self::Sync(args) => &args.book,
            Self::AcceptServer(args) => &args.book,
            Self::DeadLetters(args) => args.book(),
            Self::Conflicts(args) => args.book(),
            Self::Verify(args) => &args.file,
            Self::Rebuild(args) => &args.book,
        })
    }
}

fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, output),
        Command::Play(args) => play::run(args, output),
        Command::Serve(args) => serve::run(args, output),
        Command::Restored(args) => serve::restored(&args, output),
        Command::Init(args) => write::init(&args, output),
        Command::Put(args) => write::put(args, output),
        Command::Patch(args) => write::patch(args, output),
        Command::Rm(args) => write::rm(args, output),
        Command::Undo(args) => write::undo(&args, output),
        Command::Get(args) => read::get(&args, output),
        Command::Ls(args) => read::ls(&args, output),
        Command::Log(args) => entries::log(&args, output),
        Command::History(args) => entries::history(&args, output),
        Command::Status(args) => status::run(&args, output),
        Command::Explain(args) => explain::run(&args, output),
        Command::Queue(args) => queue::queue(&args, output),
        Command::Plan(args) => queue::plan(&args, output),
        Command::Sync(args) => sync::run(&args, output),
        Command::AcceptServer(args) => accept::run(&args, output),
        Command::DeadLetters(args) => dead_letters::run(&args, output),
        Command::Conflicts(args) => conflicts::run(&args, output),
        Command::Verify(args) => upkeep::verify(&args, output),
        Command::Rebuild(args) => upkeep::rebuild(&args, output),
    }
}
