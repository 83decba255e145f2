//! The commands, one file a group, and what they share: which book, who acts, how much is shown.

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

/// Who makes a change.
#[derive(Debug, clap::Args)]
pub(crate) struct Writer {
    /// Who makes the change: an opaque id of a user [default: whoever used the book last]
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

    /// Goes on as whoever made an op, unless someone else was named: what is done about the op stays its author's.
    pub(crate) fn act_for(&self, book: &Book, op: OpPlace) -> Result<(), Failure> {
        let made = book.audit().entries(op.seq, 1)?.pop().filter(|entry| entry.header.seq == op.seq);
        if let (None, Some(made)) = (&self.actor, made) {
            book.act_as(made.header.actor);
        }
        Ok(())
    }
}

/// Whose credentials count for what may be sent.
#[derive(Debug, clap::Args)]
pub(crate) struct Viewer {
    /// As whom the book would sync [default: whoever used it last]
    #[arg(long, value_name = "ACTOR", env = "FIELDBOOK_ACTOR", hide_env_values = true)]
    pub(crate) actor: Option<Actor>,
}

impl Viewer {
    /// Opens a book to look at it: not a byte of the file changes.
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

/// Returns the option that names who acts. An actor may begin with a hyphen.
pub(crate) fn as_actor(actor: &Actor) -> Vec<String> {
    if actor.as_str().starts_with('-') {
        return vec![format!("--actor={actor}")];
    }
    vec!["--actor".to_owned(), actor.to_string()]
}

/// Opens a book that is there, as whoever used it last.
pub(crate) fn open(path: &Path) -> Result<Book, Failure> {
    as_last_user(Book::open(path, options("local")?)?)
}

/// Opens a book that is there to look at it, as whoever used it last: not a byte of the file changes.
pub(crate) fn look(path: &Path) -> Result<Book, Failure> {
    as_last_user(Book::open(path, options("local")?.look_only())?)
}

/// Who decided something about others' changes is not who uses the book, so such entries are passed over. So is one that does
/// not read: what is asked of the book may not need it.
fn as_last_user(book: Book) -> Result<Book, Failure> {
    let head = book.audit().head()?.map_or(0, |head| head.seq.number());
    let mut last = None;
    for seq in (1..=head).rev().take(LOOKS_BACK) {
        let Some(entry) = book.audit().entries(Seq::new(seq), 1).ok().and_then(|mut entries| entries.pop())
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

/// How many entries are looked at to find who used the book last.
const LOOKS_BACK: usize = 1_000;

/// Returns what books are opened with here: no schema, so every entity type is taken under the default rules.
pub(crate) fn options(actor: &str) -> Result<BookOptions, Failure> {
    BookOptions::new(actor).map_err(|error| Failure::usage("this actor cannot be used").because(error))
}

/// Returns a place as a number that a progress bar counts to.
pub(crate) fn head_of(book: &Book) -> Result<u64, Failure> {
    Ok(book.audit().head()?.map_or(0, |head| head.seq.number()))
}

/// Starts the threads that talk to the network.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::new("cannot start the network's threads").because(error))
}

/// An op as it is named on the command line: by its place, `41` or `41+3`, or by its id.
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
