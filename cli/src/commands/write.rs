//! `init`, `put`, `patch`, `rm`, `undo`: make a book and write to it. A write is durable before the
//! program reports it.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use fieldbook::conflict::Undone;
use fieldbook::error::InvalidFields;
use fieldbook::{Actor, Book, Fields, RecordKey, Written, limits};

use super::{OpName, Writer, options};
use crate::error::Failure;
use crate::files::{self, shown};
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::name;

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook init ann.book\n  fieldbook init ann.book --actor ann"
)]
pub(crate) struct InitArgs {
    /// The new book's file; its folder must exist, the file must not
    pub(crate) book: PathBuf,
    /// The user of the book: an opaque id
    #[arg(
        long,
        value_name = "ACTOR",
        env = "FIELDBOOK_ACTOR",
        default_value = "local",
        hide_env_values = true
    )]
    actor: Actor,
}

/// The arguments of `put`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook put ann.book lead/42 '{\"name\":\"Ann\",\"stage\":\"new\"}'
  fieldbook put ann.book lead/42 @lead.json --replace
  curl -s https://example.com/lead.json | fieldbook put ann.book lead/43 -")]
pub(crate) struct PutArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// Its fields: a JSON object, `@FILE`, or `-` for standard input
    #[arg(value_name = "JSON")]
    fields: String,
    /// Replace the whole record if it exists
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    writer: Writer,
}

/// The arguments of `patch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook patch ann.book lead/42 '{\"stage\":\"hot\"}'
  fieldbook patch ann.book lead/42 '{\"phone\":null}'      a null removes the field")]
pub(crate) struct PatchArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// The fields that change: a JSON object, `@FILE`, or `-` for standard input
    #[arg(value_name = "JSON")]
    fields: String,
    #[command(flatten)]
    writer: Writer,
}

/// The arguments of `rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook rm ann.book lead/42")]
pub(crate) struct RmArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    #[command(flatten)]
    writer: Writer,
}

/// The arguments of `undo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook undo ann.book 41")]
pub(crate) struct UndoArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The op, by its place: 41, or 41+3
    op: OpName,
    #[command(flatten)]
    writer: Writer,
}

/// Makes a book.
pub(crate) fn init(args: &InitArgs, output: &mut Output) -> Result<(), Failure> {
    let book = Book::create_new(&args.book, options(args.actor.as_str())?)?;
    let device = book.audit().device().map(|device| device.to_string()).unwrap_or_default();
    book.close()?;
    writeln!(output, "created {}, device {device}", shown(&args.book))?;
    Ok(())
}

/// Creates a record, or replaces it.
pub(crate) fn put(args: PutArgs, output: &mut Output) -> Result<(), Failure> {
    let fields = read_fields(&args.fields, &args.key)?;
    let book = args.writer.open(&args.book)?;
    let there = args.replace && book.records().get(&args.key)?.is_some();
    let (written, done) = if there {
        (book.records().replace(args.key.clone(), fields)?, "replaced")
    } else {
        (book.records().create(args.key.clone(), fields)?, "created")
    };
    finish(book, &args.key, written, done, output)
}

/// Changes some fields of a record.
pub(crate) fn patch(args: PatchArgs, output: &mut Output) -> Result<(), Failure> {
    let fields = read_fields(&args.fields, &args.key)?;
    let book = args.writer.open(&args.book)?;
    let written = book.records().update(args.key.clone(), fields)?;
    finish(book, &args.key, written, "updated", output)
}

/// Deletes a record.
pub(crate) fn rm(args: RmArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.writer.open(&args.book)?;
    let written = book.records().delete(args.key.clone())?;
    finish(book, &args.key, written, "deleted", output)
}

/// Undoes an op.
pub(crate) fn undo(args: &UndoArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.writer.open(&args.book)?;
    let place = match args.op {
        OpName::Place(place) => Some(place),
        OpName::Id(id) => book.queue().find(id)?,
    };
    let unknown = || {
        Failure::new(format!("op {} is not pending", args.op))
            .hint("name the op by its place; the log shows it:")
            .advise(Advice::default().run(["log", BOOK]))
    };
    let place = place.ok_or_else(unknown)?;
    args.writer.act_for(&book, place)?;
    let undone = book.queue().undo(place)?;
    let place = match undone {
        Undone::Compensated(id) => book.queue().find(id)?,
        Undone::Cancelled | Undone::Nothing => None,
    };
    book.close()?;
    match (undone, place) {
        (Undone::Cancelled, _) => writeln!(output, "undone: the op is not sent")?,
        (Undone::Nothing, _) => {
            writeln!(output, "nothing of the op is left to undo; the book is unchanged")?
        }
        (Undone::Compensated(_), Some(place)) => {
            writeln!(output, "undone by another op ({place})")?
        }
        (Undone::Compensated(id), None) => writeln!(output, "undone by another op ({id})")?,
    }
    Ok(())
}

fn finish(
    book: Book,
    key: &RecordKey,
    written: Written,
    done: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    book.close()?;
    match written {
        Written::Op { place, .. } => writeln!(output, "{done} {} ({place})", name(key))?,
        Written::Unchanged => writeln!(output, "{} is unchanged", name(key))?,
    }
    Ok(())
}

/// Reads fields from the argument, a file or standard input.
pub(crate) fn read_fields(argument: &str, of: &impl Display) -> Result<Fields, Failure> {
    let text = match (argument, argument.strip_prefix('@')) {
        ("-", _) => read_text(io::stdin().lock()).map_err(|error| {
            Failure::new("cannot read the fields from standard input").because(error)
        })?,
        (_, Some(path)) => {
            let file = files::open(path.as_ref())
                .map_err(|failure| failure.of(format!("cannot read the fields from {path}")))?;
            read_text(file).map_err(|error| {
                Failure::new(format!("cannot read the fields from {path}")).because(error)
            })?
        }
        (text, None) => text.to_owned(),
    };
    Fields::parse(&text).map_err(|fault| not_fields(fault, of))
}

/// Reads at most as many bytes as fields may have.
fn read_text(reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let most = 2 * limits::OP_BYTES as u64 + 1;
    reader.take(most).read_to_string(&mut text)?;
    Ok(text)
}

fn not_fields(fault: InvalidFields, of: &impl Display) -> Failure {
    let failure = Failure::usage(format!("these fields of {of} cannot be used"));
    match fault {
        InvalidFields::NotAnObject { line: 0, .. } => {
            failure.because("they are JSON, but not an object such as {\"name\":\"Ann\"}")
        }
        InvalidFields::NotAnObject { line, column } => failure
            .because(format!("they are not JSON at line {line}, column {column}"))
            .hint("quote the object for the shell, as in '{\"name\":\"Ann\"}', or put it in a file and pass @FILE"),
        fault => failure.because(fault),
    }
}
