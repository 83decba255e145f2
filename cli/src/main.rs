//! The program `fieldbook`: what a support person needs to know about a book, a server to sync
//! with, and a history to play.
//!
//! ```text
//!   arguments ─► command ─► Book / server ─► show (tables, times, notation) ─► Output
//!                   └────────────── Failure ─► one line, its causes, what to do ─► exit code
//! ```
//!
//! 1. Exit codes: 0 done, 1 failed, 2 wrong usage.
//! 2. Results go to standard output. Progress, notes and failures go to standard error.
//! 3. The program never asks for input at the terminal. A closed pipe ends it silently.
//!
//! It has no rules: they are in `fieldbook-core`, and the handle of a book is in `fieldbook`.

mod commands;
mod error;
mod files;
mod output;
mod page;
mod panic;
mod show;
mod temporary;
mod view;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    accept, bundle, check, compact, conflicts, dead_letters, demo, devices, diff, doctor, entries,
    evidence, explain, failed, find, hand_over, history, overwritten, play, queue, read, reset,
    salvage, serve, show_entry, status, sync, upkeep, view as view_page, write,
};
use crate::error::Failure;
use crate::output::Output;
use crate::show::plain;

/// Read, write and sync a book, and run a sync server
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
    /// Read an archive of trimmed entries together with the book. Several: the oldest first
    #[arg(long, value_name = "FILE", global = true, hide = true)]
    with_archive: Vec<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Play the shipped history against a temporary server and show the result
    Demo(demo::Args),
    /// Play a stream of mutations through a fleet of books
    Play(play::Args),
    /// Run a sync server
    Serve(serve::Args),
    /// Mark a server's store as restored from a backup
    Restored(serve::RestoredArgs),
    /// Check the digests of a server's store against its records
    CheckStore(check::StoreArgs),
    /// List the devices of a server's store, and those that were silent for long
    Devices(devices::Args),
    /// Create a new book
    Init(write::InitArgs),
    /// Create a record, or replace it
    Put(write::PutArgs),
    /// Change some fields of a record
    Patch(write::PatchArgs),
    /// Delete a record
    Rm(write::RmArgs),
    /// Undo an op
    Undo(write::UndoArgs),
    /// Show a record
    Get(read::GetArgs),
    /// List records, or entity types
    Ls(read::LsArgs),
    /// Find the records that hold a text
    Find(find::Args),
    /// Show the log, or export it
    Log(entries::LogArgs),
    /// Tell what happened, to a record or on the device, in sentences
    History(history::Args),
    /// Show one entry whole
    Show(show_entry::Args),
    /// Show what differs between two moments
    Diff(diff::Args),
    /// Make a page of the whole history, to look at in a browser
    View(view_page::Args),
    /// Show the sync status of the book or of a record
    Status(status::Args),
    /// Explain why a record is, or is not, synced
    Explain(explain::Args),
    /// List the ops that are pending
    Queue(queue::QueueArgs),
    /// Show what the next sync sends, and what is held and why
    Plan(queue::PlanArgs),
    /// Send pending ops and fetch changes
    Sync(sync::Args),
    /// Check whether a book has the records that its server has
    Check(check::Args),
    /// Accept a different or restored server for a book
    AcceptServer(accept::Args),
    /// List the ops that no sync moves, and what to do about each
    Failed(failed::Args),
    /// List ops that the server refused, and decide about them
    DeadLetters(dead_letters::Args),
    /// Let another user send the ops that a user left behind
    HandOver(hand_over::Args),
    /// Discard every change that the server does not have
    Reset(reset::Args),
    /// List conflicts, and decide about them
    Conflicts(conflicts::Args),
    /// List the values of this device that others replaced at the server
    Overwritten(overwritten::Args),
    /// Look at everything that can be wrong with a book, and say what to do
    Doctor(doctor::Args),
    /// Check every hash of a book, of an exported log or of a bundle
    Verify(upkeep::VerifyArgs),
    /// Sign the head of a book with a key of the device
    Checkpoint(evidence::CheckpointArgs),
    /// List, make and retire the keys that sign
    Keys(evidence::KeysArgs),
    /// Make a file for support: the log without the values, unless they are asked for
    Bundle(bundle::Args),
    /// Trim the oldest entries of a log, and make the file smaller
    Compact(compact::Args),
    /// Copy a book into a new file, as its last write left it
    Backup(upkeep::BackupArgs),
    /// Make a new book of what can still be found in a damaged file
    Salvage(salvage::Args),
    /// Fold the tables anew from the log
    Rebuild(upkeep::RebuildArgs),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return print_usage(&error),
    };
    commands::read_with(arguments.with_archive);
    let mut output = Output::new();
    let book = arguments.command.book().map(Path::to_owned);
    let run = || run(arguments.command, &mut output).and_then(|()| output.finish());
    match panic::caught(book.clone(), run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Results from before the failure are still shown.
            drop(output.finish());
            failure.report(book.as_deref())
        }
    }
}

/// Prints a usage error or the requested help. Hidden characters of the arguments are escaped.
fn print_usage(error: &clap::Error) -> ExitCode {
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
    // Standard error may be closed. The exit code reports the failure too.
    drop(writeln!(std::io::stderr().lock(), "{lines}"));
    ExitCode::from(2)
}

impl Command {
    /// Returns the book that the command works on.
    fn book(&self) -> Option<&Path> {
        Some(match self {
            Self::Demo(_)
            | Self::Play(_)
            | Self::Serve(_)
            | Self::Restored(_)
            | Self::CheckStore(_)
            | Self::Devices(_)
            | Self::Salvage(_) => return None,
            Self::Keys(args) => return args.book(),
            Self::Init(args) => &args.book,
            Self::Put(args) => &args.book,
            Self::Patch(args) => &args.book,
            Self::Rm(args) => &args.book,
            Self::Undo(args) => &args.book,
            Self::Get(args) => &args.book,
            Self::Ls(args) => &args.book,
            Self::Find(args) => &args.book,
            Self::Log(args) => &args.book,
            Self::History(args) => &args.book,
            Self::Show(args) => &args.book,
            Self::Diff(args) => &args.book,
            Self::View(args) => &args.book,
            Self::Status(args) => &args.book,
            Self::Explain(args) => &args.book,
            Self::Queue(args) => &args.book,
            Self::Plan(args) => &args.book,
            Self::Sync(args) => &args.book,
            Self::Check(args) => &args.book,
            Self::AcceptServer(args) => &args.book,
            Self::Failed(args) => &args.book,
            Self::DeadLetters(args) => args.book(),
            Self::HandOver(args) => &args.book,
            Self::Reset(args) => &args.book,
            Self::Conflicts(args) => args.book(),
            Self::Overwritten(args) => &args.book,
            Self::Doctor(args) => &args.book,
            Self::Verify(args) => &args.file,
            Self::Checkpoint(args) => &args.book,
            Self::Bundle(args) => &args.book,
            Self::Compact(args) => &args.book,
            Self::Backup(args) => &args.book,
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
        Command::CheckStore(args) => check::store(&args, output),
        Command::Devices(args) => devices::run(&args, output),
        Command::Init(args) => write::init(&args, output),
        Command::Put(args) => write::put(args, output),
        Command::Patch(args) => write::patch(args, output),
        Command::Rm(args) => write::rm(args, output),
        Command::Undo(args) => write::undo(&args, output),
        Command::Get(args) => read::get(&args, output),
        Command::Ls(args) => read::ls(&args, output),
        Command::Find(args) => find::run(&args, output),
        Command::Log(args) => entries::log(&args, output),
        Command::History(args) => history::run(&args, output),
        Command::Show(args) => show_entry::run(&args, output),
        Command::Diff(args) => diff::run(&args, output),
        Command::View(args) => view_page::run(&args, output),
        Command::Status(args) => status::run(&args, output),
        Command::Explain(args) => explain::run(&args, output),
        Command::Queue(args) => queue::queue(&args, output),
        Command::Plan(args) => queue::plan(&args, output),
        Command::Sync(args) => sync::run(&args, output),
        Command::Check(args) => check::run(&args, output),
        Command::AcceptServer(args) => accept::run(&args, output),
        Command::Failed(args) => failed::run(&args, output),
        Command::DeadLetters(args) => dead_letters::run(&args, output),
        Command::HandOver(args) => hand_over::run(&args, output),
        Command::Reset(args) => reset::run(&args, output),
        Command::Conflicts(args) => conflicts::run(&args, output),
        Command::Overwritten(args) => overwritten::run(&args, output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Verify(args) => upkeep::verify(&args, output),
        Command::Checkpoint(args) => evidence::checkpoint(&args, output),
        Command::Keys(args) => evidence::keys(&args, output),
        Command::Bundle(args) => bundle::run(&args, output),
        Command::Compact(args) => compact::run(&args, output),
        Command::Backup(args) => upkeep::backup(&args, output),
        Command::Salvage(args) => salvage::run(&args, output),
        Command::Rebuild(args) => upkeep::rebuild(&args, output),
    }
}
