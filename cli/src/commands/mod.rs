//! The commands, one file for each group, and their shared parts: the book, the actor, the notation
//! of ops.

pub(crate) mod accept;
pub(crate) mod conflicts;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod entries;
pub(crate) mod explain;
pub(crate) mod play;
pub(crate) mod queue;
pub(crate) mod read;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod upkeep;
pub(crate) mod write;

use std::path::Path;

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{Control, Meta};
use fieldbook::record::{OpId, OpPlace};
use fieldbook::{Actor, Book, BookOptions};

use crate::error::Failure;

/// The author of a change.
#[derive(Debug, clap::Args)]
pub(crate) struct Writer {
    /// The author of the change: an opaque id of a user [default: the last user of the book]
    #[arg(long, value_name = "ACTOR", env = "FIELDBOOK_ACTOR", hide_env_values = true)]
    pub(crate) actor: Option<Actor>,
}

impl Writer {
    /// Opens a book to write to it.
    pub(crate) fn open(&self, path: &Path) -> Result<Book, Failure> {
        let book = open(path)?;
        self.actor.iter().for_each(|actor| book.act_as(actor.clone()));
        Ok(book)
    }

    /// Acts as the author of an op, unless the command names an actor: a decision about an op keeps
    /// its author.
    pub(crate) fn act_for(&self, book: &Book, op: OpPlace) -> Result<(), Failure> {
        let made =
            book.audit().entries(op.seq, 1)?.pop().filter(|entry| entry.header.seq == op.seq);
        if let (None, Some(made)) = (&self.actor, made) {
            book.act_as(made.header.actor);
        }
        Ok(())
    }
}

/// The actor whose credentials decide what may be sent.
#[derive(Debug, clap::Args)]
pub(crate) struct Viewer {
    /// The actor of the next sync [default: the last user of the book]
    #[arg(long, value_name = "ACTOR", env = "FIELDBOOK_ACTOR", hide_env_values = true)]
    pub(crate) actor: Option<Actor>,
}

impl Viewer {
    /// Opens a book read-only: no byte of the file changes.
    pub(crate) fn look(&self, path: &Path) -> Result<Book, Failure> {
        let book = look(path)?;
        self.actor.iter().for_each(|actor| book.act_as(actor.clone()));
        Ok(book)
    }

    /// Opens a book to write to it.
    pub(crate) fn open(&self, path: &Path) -> Result<Book, Failure> {
        let book = open(path)?;
        self.actor.iter().for_each(|actor| book.act_as(actor.clone()));
        Ok(book)
    }
}

/// Returns the option that names the actor. An actor may begin with a hyphen.
pub(crate) fn as_actor(actor: &Actor) -> Vec<String> {
    if actor.as_str().starts_with('-') {
        return vec![format!("--actor={actor}")];
    }
    vec!["--actor".to_owned(), actor.to_string()]
}

/// Opens a book as its last user.
pub(crate) fn open(path: &Path) -> Result<Book, Failure> {
    as_last_user(Book::open(path, options("local")?)?)
}

/// Opens a book as its last user, read-only: no byte of the file changes.
pub(crate) fn look(path: &Path) -> Result<Book, Failure> {
    as_last_user(Book::open(path, options("local")?.look_only())?)
}

/// Acts as the last user. An action of a person about other users' ops is not a use of the book, so
/// it is skipped. So is an entry that cannot be read: the command may not need it.
fn as_last_user(book: Book) -> Result<Book, Failure> {
    let head = book.audit().head()?.map_or(0, |head| head.seq.number());
    let mut last = None;
    for seq in (1..=head).rev().take(LOOKS_BACK) {
        let Some(entry) =
            book.audit().entries(Seq::new(seq), 1).ok().and_then(|mut entries| entries.pop())
        else {
            continue;
        };
        let is_use = !matches!(entry.meta, Meta::Control(Control::Verb(..)));
        if is_use || last.is_none() {
            last = Some(entry.header.actor);
        }
        if is_use {
            break;
        }
    }
    last.into_iter().for_each(|actor| book.act_as(actor));
    Ok(book)
}

/// How many entries are searched for the last user.
const LOOKS_BACK: usize = 1_000;

/// Returns the options of books here: no schema, so every entity type has the default rules.
pub(crate) fn options(actor: &str) -> Result<BookOptions, Failure> {
    BookOptions::new(actor)
        .map_err(|error| Failure::usage("this actor cannot be used").because(error))
}

/// Returns the number of entries, for a progress bar.
pub(crate) fn head_of(book: &Book) -> Result<u64, Failure> {
    Ok(book.audit().head()?.map_or(0, |head| head.seq.number()))
}

/// Starts the threads that talk to the network.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::new("cannot start the network's threads").because(error))
}

/// An op on the command line: its place, `41` or `41+3`, or its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpName {
    Place(OpPlace),
    Id(OpId),
}

impl std::str::FromStr for OpName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected an op's place, such as 41 or 41+3, or its id".to_owned();
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let (seq, index) = text.split_once('+').unwrap_or((text, "0"));
        let seq = Seq::new(seq.parse().map_err(|_| wrong())?);
        Ok(Self::Place(OpPlace { seq, index: index.parse().map_err(|_| wrong())? }))
    }
}

impl std::fmt::Display for OpName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Place(place) => place.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_named_by_its_place_or_its_id() {
        let place = |seq, index| OpName::Place(OpPlace { seq: Seq::new(seq), index });
        assert_eq!("41".parse(), Ok(place(41, 0)));
        assert_eq!("41+3".parse(), Ok(place(41, 3)));
        assert!(matches!("0192f0c1-8f5e-7c3a-9b1d-2f6a3c4d5e6f".parse(), Ok(OpName::Id(_))));
        for wrong in ["", "x", "41+", "+3", "-1", "41.2"] {
            assert!(wrong.parse::<OpName>().is_err(), "{wrong}");
        }
    }
}
