//! `accept-server`: names the server that a book belongs to from now on.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::Book;
use fieldbook::sync::ServerIdentity;

use super::Viewer;
use crate::error::Failure;
use crate::files::shown;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};

/// What `accept-server` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook accept-server ann.book                   the only other server that has answered
  fieldbook accept-server ann.book SERVER/EPOCH      one of several; `fieldbook status ann.book` names them

Nothing has to be accepted for the server that the book knows: when that answers again, the book goes on by itself.
What the former server had confirmed and the accepted one lacks is offered to it, never dropped.")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Which one: SERVER/EPOCH, or SERVER/EPOCH/TENANT
    server: Option<ServerIdentity>,
    #[command(flatten)]
    viewer: Viewer,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.open(&args.book)?;
    let accepted = accept(&book, args.server)?;
    writeln!(output, "{} belongs to {accepted} from now on; sync it", shown(&args.book))?;
    Ok(())
}

/// Accepts the server that is named, or the only one there is to accept, and returns which.
pub(crate) fn accept(book: &Book, named: Option<ServerIdentity>) -> Result<ServerIdentity, Failure> {
    let waiting = book.servers().candidates();
    let accepted = match (named, waiting.as_slice()) {
        (_, []) => {
            return Err(Failure::new("no other server has answered, so there is none to accept")
                .hint("sync first; then accept what answered, if it is meant"));
        }
        (Some(named), waiting) if !waiting.contains(&named) => {
            return Err(Failure::new(format!("{named} has not answered, so it cannot be accepted"))
                .hint("these have:")
                .advise(choices(waiting)));
        }
        (Some(named), _) => named,
        (None, [only]) => *only,
        (None, _) => {
            return Err(Failure::new("several other servers have answered: name the one that is meant")
                .hint("one of these:")
                .advise(choices(waiting.as_slice())));
        }
    };
    book.servers().accept(accepted)?;
    Ok(accepted)
}

/// Returns the commands by which each of those that have answered is accepted.
pub(crate) fn choices(waiting: &[ServerIdentity]) -> Advice {
    let commands = waiting.iter().map(|one| ["accept-server".to_owned(), BOOK.to_owned(), one.to_string()]);
    commands.fold(Advice::default(), Advice::choose)
}
