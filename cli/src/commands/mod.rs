//! The commands, one file for each group, and their shared parts: the book, the actor, the notation
//! of ops.

pub(crate) mod accept;
mod at_server;
pub(crate) mod bundle;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod conflicts;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod entries;
pub(crate) mod evidence;
pub(crate) mod explain;
pub(crate) mod failed;
pub(crate) mod find;
pub(crate) mod hand_over;
pub(crate) mod history;
pub(crate) mod overwritten;
pub(crate) mod play;
pub(crate) mod queue;
pub(crate) mod read;
pub(crate) mod reset;
pub(crate) mod salvage;
pub(crate) mod serve;
pub(crate) mod show_entry;
mod standing;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod upkeep;
pub(crate) mod view;
pub(crate) mod write;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fieldbook::audit::entry::{Control, Meta};
use fieldbook::audit::{Seq, read_parts};
use fieldbook::record::{OpId, OpPlace};
use fieldbook::schema::Hook;
use fieldbook::{Actor, Book, BookOptions, EntityType};
use fieldbook_core::log::Redaction;

use crate::error::{Failure, of_export};
use crate::files::Log;
use crate::show::advice::Advice;

/// The author of a change.
#[derive(Debug, clap::Args)]
pub(crate) struct Writer {
    /// The author of the change: an opaque id of a user [default: the last user of the book]
    #[arg(long, value_name = "ACTOR", env = "FIELDBOOK_ACTOR", hide_env_values = true)]
    pub(crate) actor: Option<Actor>,
    #[command(flatten)]
    rules: AppRules,
}

impl Writer {
    /// Opens a book to write to it.
    pub(crate) fn open(&self, path: &Path) -> Result<Book, Failure> {
        let book = self.rules.open(path)?;
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
    pub(crate) fn open(&self, path: &Path, rules: &AppRules) -> Result<Book, Failure> {
        let book = rules.open(path)?;
        self.actor.iter().for_each(|actor| book.act_as(actor.clone()));
        Ok(book)
    }
}

/// Whether a book is written without functions of its app.
#[derive(Debug, clap::Args)]
pub(crate) struct AppRules {
    /// Write the book although it needs rules of its app that are code, which this program lacks.
    /// What may go wrong: changes are sent that the app's validator refuses; conflicts are resolved
    /// by the declared policy, or by the later edit, instead of the app's function; changes that an
    /// older version of the app made stay held
    #[arg(long)]
    without_app_rules: bool,
}

impl AppRules {
    /// Opens a book as its last user, to write to it.
    fn open(&self, path: &Path) -> Result<Book, Failure> {
        let options = options("local")?;
        let options = if self.without_app_rules { options.without_app_rules() } else { options };
        let book = as_last_user(Book::open(path, options)?)?;
        note_lacking(&book);
        Ok(book)
    }
}

/// Returns the rules of the app that this program cannot run, for one entity type or for all.
pub(crate) fn lacking(book: &Book, entity: Option<&EntityType>) -> Vec<String> {
    let concerns = |hook: &&Hook| match (&hook.entity, entity) {
        (Some(of), Some(entity)) => of == entity,
        _ => true,
    };
    book.audit().lacking().iter().filter(concerns).map(ToString::to_string).collect()
}

/// Says on standard error which rules of the app this program cannot run.
pub(crate) fn note_lacking(book: &Book) {
    let lacking = lacking(book, None);
    if !lacking.is_empty() {
        crate::error::note(&said_of(&lacking), &Advice::default(), Path::new(""));
    }
}

/// Returns a sentence about rules of the app that this program cannot run.
pub(crate) fn said_of(lacking: &[String]) -> String {
    format!(
        "this program cannot run rules of the app, which may decide otherwise: {}",
        lacking.join(", ")
    )
}

/// Returns the option that names the actor.
pub(crate) fn as_actor(actor: &Actor) -> Vec<String> {
    as_option("--actor", actor)
}

/// Returns an option that names an actor, who may begin with a hyphen.
pub(crate) fn as_option(option: &str, actor: &Actor) -> Vec<String> {
    if actor.as_str().starts_with('-') {
        return vec![format!("{option}={actor}")];
    }
    vec![option.to_owned(), actor.to_string()]
}

/// Opens a book as its last user, read-only: no byte of the file changes.
pub(crate) fn look(path: &Path) -> Result<Book, Failure> {
    as_last_user(source(path)?)
}

/// Opens a book as [`look`] does, and says nothing about what a bundle only tells.
fn look_silently(path: &Path) -> Result<Book, Failure> {
    as_last_user(opened(path)?)
}

/// Opens a book read-only, or an exported log or a bundle as a book in memory.
fn source(path: &Path) -> Result<Book, Failure> {
    if let Some(redaction) = crate::files::redaction_of(path)? {
        note_claims(&redaction);
    }
    opened(path)
}

fn opened(path: &Path) -> Result<Book, Failure> {
    let archives = ARCHIVES.get().map_or(&[][..], Vec::as_slice);
    if archives.is_empty() && !crate::files::begins_like_an_exported_log(path) {
        return Ok(Book::open(path, options("local")?.read_only())?);
    }
    let mut parts: Vec<Log> =
        archives.iter().map(|path| crate::files::open_log(path)).collect::<Result<_, _>>()?;
    parts.push(exported(path)?);
    let mut parts: Vec<&mut Log> = parts.iter_mut().collect();
    read_parts(&mut parts, options("local")?).map_err(|error| of_export(error, path))
}

/// Returns the exported log of a source: the file, or the log of a book.
fn exported(path: &Path) -> Result<Log, Failure> {
    if crate::files::begins_like_an_exported_log(path) {
        return crate::files::open_log(path);
    }
    let mut log = Vec::new();
    Book::open(path, options("local")?.read_only())?.audit().export(&mut log)?;
    Ok(Box::new(std::io::Cursor::new(log)))
}

/// The archives that are read together with the book of the command.
static ARCHIVES: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Sets the archives that every reading command reads together with its book, once.
pub(crate) fn read_with(archives: Vec<PathBuf>) {
    drop(ARCHIVES.set(archives));
}

/// Says on standard error that nothing proves a part of a bundle.
fn note_claims(redaction: &Redaction) {
    let has_told_entries =
        redaction.ids == "hide" || !redaction.records.is_empty() || redaction.since > Seq::ZERO;
    let claimed = match (has_told_entries, redaction.shown.is_empty()) {
        (true, _) => "what it tells with pseudonyms",
        (false, false) => "a shown field beside hidden ones",
        (false, true) => return,
    };
    let text =
        format!("this is a bundle, and nothing proves {claimed}: `fieldbook verify` counts it");
    crate::error::note(&text, &Advice::default(), Path::new(""));
}

/// Acts as the last user. An action of a person about other users' ops is not a use of the book, so
/// it is skipped, with what precedes it. So is an entry that cannot be read: the command may not
/// need it.
fn as_last_user(book: Book) -> Result<Book, Failure> {
    let head = book.audit().head()?.map_or(0, |head| head.seq.number());
    let mut last = None;
    for seq in (1..=head).rev().take(LOOKS_BACK) {
        let Some(entry) =
            book.audit().entries(Seq::new(seq), 1).ok().and_then(|mut entries| entries.pop())
        else {
            continue;
        };
        let is_use = !matches!(
            entry.meta,
            Meta::Control(
                Control::PersonActed(..)
                    | Control::Session(_)
                    | Control::Silence(_)
                    | Control::Erased(_)
                    | Control::Trimmed(_)
            )
        );
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

/// Returns the options of books here: the schema is the one that the app declared, as the book has
/// recorded it.
pub(crate) fn options(actor: &str) -> Result<BookOptions, Failure> {
    let options = BookOptions::new(actor)
        .map_err(|error| Failure::usage("this actor cannot be used").because(error))?;
    Ok(options.recorded_schema().app(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")))
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

impl OpName {
    /// Returns whether it names the op with this place and this id.
    pub(crate) fn is(&self, place: OpPlace, id: OpId) -> bool {
        match self {
            Self::Place(named) => *named == place,
            Self::Id(named) => *named == id,
        }
    }
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
