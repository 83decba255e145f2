//! `accept-server`: names the server that a book belongs to from now on.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::Book;
use fieldbook::sync::ServerIdentity;

use super::{AppRules, Viewer};
use crate::error::Failure;
use crate::files::shown;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};

/// The arguments of `accept-server`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook accept-server ann.book                   the only other server that has answered
  fieldbook accept-server ann.book SERVER/EPOCH      one of several; `fieldbook status ann.book` names them

The server that the book knows needs no acceptance: when it answers again, the book continues by itself.
Records that the former server confirmed and the accepted server lacks are sent to it, never dropped.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The server to accept: SERVER/EPOCH, or SERVER/EPOCH/TENANT
    server: Option<ServerIdentity>,
    #[command(flatten)]
    viewer: Viewer,
    #[command(flatten)]
    rules: AppRules,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.open(&args.book, &args.rules)?;
    let accepted = accept(&book, args.server)?;
    writeln!(output, "{} now belongs to {accepted}; sync it", shown(&args.book))?;
    Ok(())
}

/// Accepts the named server, or the only candidate, and returns it.
pub(crate) fn accept(
    book: &Book,
    named: Option<ServerIdentity>,
) -> Result<ServerIdentity, Failure> {
    let waiting = book.servers().candidates();
    let accepted = match (named, waiting.as_slice()) {
        (_, []) => {
            return Err(Failure::new("no other server has answered, so there is none to accept")
                .hint("sync first; then accept the server that answered, if it is the right one"));
        }
        (Some(named), waiting) if !waiting.contains(&named) => {
            return Err(Failure::new(format!(
                "{named} has not answered, so it cannot be accepted"
            ))
            .hint("these have answered:")
            .advise(choices(waiting)));
        }
        (Some(named), _) => named,
        (None, [only]) => *only,
        (None, _) => {
            return Err(Failure::new("several other servers have answered: name the right one")
                .hint("one of these:")
                .advise(choices(waiting.as_slice())));
        }
    };
    book.servers().accept(accepted)?;
    Ok(accepted)
}

/// Returns the commands that accept each of the servers that have answered.
pub(crate) fn choices(waiting: &[ServerIdentity]) -> Advice {
    let commands =
        waiting.iter().map(|one| ["accept-server".to_owned(), BOOK.to_owned(), one.to_string()]);
    commands.fold(Advice::default(), Advice::choose)
}
