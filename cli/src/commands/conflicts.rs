//! `conflicts`: the conflicts of a book, their results, and what a person decides about them.

use fieldbook::Error;
use fieldbook::conflict::ConflictedField;
use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::entry::{Extent, NOT_IN_BUNDLE, Winner};
use fieldbook::conflict::Conflict;
use fieldbook::conflict::{Choice, ConflictId};
use fieldbook::record::FieldsJson;
use fieldbook::{Book, Fields, Written};

use super::write::read_fields;
use super::{Writer, look};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{json, name, some, time, words};
use crate::view::Then;

/// The arguments of `conflicts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them, oldest first
    List(ListArgs),
    /// Show one: the earlier, the local and the remote values, and the result
    Show(ShowArgs),
    /// Resolve an open conflict
    Keep(KeepArgs),
    /// Let the other side of a resolved conflict win
    Flip(FlipArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook conflicts list ann.book\n  fieldbook conflicts list ann.book --open --json\n  fieldbook conflicts list ann.book --at -1d"
)]
struct ListArgs {
    /// The book's file
    book: PathBuf,
    /// Only conflicts that wait for a person
    #[arg(long)]
    open: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook conflicts show ann.book 47.2")]
struct ShowArgs {
    /// The book's file
    book: PathBuf,
    /// The conflict, as ENTRY.NUMBER
    id: ConflictId,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook conflicts keep ann.book 47.2 local
  fieldbook conflicts keep ann.book 47.2 '{\"stage\":\"warm\"}'      another value")]
struct KeepArgs {
    /// The book's file
    book: PathBuf,
    /// The conflict, as ENTRY.NUMBER
    id: ConflictId,
    /// `local`, `remote`, or values for the fields of the conflict: a JSON object, `@FILE`, or `-`
    #[arg(value_name = "CHOICE")]
    choice: String,
    #[command(flatten)]
    writer: Writer,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook conflicts flip ann.book 47.2")]
struct FlipArgs {
    /// The book's file
    book: PathBuf,
    /// The conflict, as ENTRY.NUMBER
    id: ConflictId,
    #[command(flatten)]
    writer: Writer,
}

impl Args {
    /// Returns the book that the command works on.
    pub(crate) fn book(&self) -> &Path {
        match &self.verb {
            Verb::List(args) => &args.book,
            Verb::Show(args) => &args.book,
            Verb::Keep(args) => &args.book,
            Verb::Flip(args) => &args.book,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    match &args.verb {
        Verb::List(args) => list(args, output),
        Verb::Show(args) => show(args, output),
        Verb::Keep(args) => keep(args, output),
        Verb::Flip(args) => flip(args, output),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let conflicts = args.then.of(&book, args.json, output)?.conflicts(args.open)?;
    if args.json {
        return conflicts.iter().try_for_each(|conflict| output.json(&json::conflict(conflict)));
    }
    if conflicts.is_empty() {
        return Ok(writeln!(output, "no {}conflicts", if args.open { "open " } else { "" })?);
    }
    let mut listing = Listing::new(&[">conflict", "found", "record", "about", "outcome"]);
    for conflict in &conflicts {
        listing.row([
            Text::from(conflict.id),
            time::local(conflict.at).into(),
            Text::name(&conflict.key),
            about(conflict).into(),
            Text::toned(words::outcome(conflict), tone(conflict)),
        ]);
    }
    listing.write(output)
}

fn show(args: &ShowArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let id = args.id;
    let view = args.then.of(&book, args.json, output)?;
    let Some(conflict) = view.conflict(id)? else {
        return Err(Failure::new(format!("there is no conflict {id}"))
            .hint("this lists the conflicts:")
            .advise(Advice::default().run(["conflicts", "list", BOOK])));
    };
    if args.json {
        return output.json(&json::conflict(&conflict));
    }
    about_all(&conflict, output)?;
    field_by_field(&conflict, args.full, output)?;
    let advice = choices(id, &conflict);
    if !advice.is_empty() && !view.is_past() {
        writeln!(output)?;
        advice.lines(Some(&args.book)).iter().try_for_each(|line| writeln!(output, "{line}"))?;
    }
    Ok(())
}

/// Writes what is known of a conflict as a whole.
fn about_all(conflict: &Conflict, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&["conflict", ""]).wrapped();
    row!(listing, "id", conflict.id);
    row!(listing, "record", Text::name(&conflict.key));
    row!(listing, "found", time::local(conflict.at));
    let local = format!(
        "{} ({}), made at {}",
        conflict.kind,
        conflict.place,
        time::local(conflict.edited_at.wall())
    );
    row!(listing, "local", local);
    let did = if conflict.extent == Extent::Deleted { "delete" } else { "update" };
    let by = conflict.remote_by.as_ref().map_or_else(String::new, |by| format!(" by {}", name(by)));
    let remote = format!(
        "{did} ({}), made{by} at {}",
        conflict.version,
        time::local(conflict.remote_edited_at.wall())
    );
    row!(listing, "remote", remote);
    row!(listing, "rule", words::rule(conflict.rule, conflict.function_of(None)));
    row!(listing, "outcome", Text::toned(words::outcome(conflict), tone(conflict)));
    listing.write(output)
}

/// Writes the values of both sides, field by field.
fn field_by_field(conflict: &Conflict, full: bool, output: &mut Output) -> Result<(), Failure> {
    let base = values(&conflict.base)?;
    let (local, remote) = (values(&conflict.local)?, values(&conflict.remote)?);
    let merged = conflict.merged.as_ref().map(values).transpose()?;
    let mut fields =
        Listing::new(&["field", "before", "local", "remote", "rule", "outcome"]).full(full);
    for ConflictedField { name, rule, winner } in &conflict.fields {
        let outcome = match (winner, &merged) {
            (Winner::Merged, Some(merged)) => format!("merged: {}", value(merged, name)),
            _ => words::winner(*winner).to_owned(),
        };
        let [was, here, there] = [&base, &local, &remote].map(|side| value(side, name));
        let name_shown = Text::name(name);
        row!(
            fields,
            name_shown,
            was,
            here,
            there,
            words::rule(*rule, conflict.function_of(Some(name))),
            outcome
        );
    }
    if fields.len() > 0 {
        writeln!(output)?;
    }
    fields.write(output)
}

/// Returns the decisions that are possible for a conflict, each on a line that does nothing when it
/// is pasted.
fn choices(id: ConflictId, conflict: &Conflict) -> Advice {
    let id = id.to_string();
    if conflict.open {
        return Advice::default()
            .words("decide with one of these:")
            .choose(["conflicts", "keep", BOOK, &id, "local"])
            .choose(["conflicts", "keep", BOOK, &id, "remote"]);
    }
    Advice::default()
}

fn keep(args: &KeepArgs, output: &mut Output) -> Result<(), Failure> {
    let choice = match args.choice.as_str() {
        "local" => Choice::Local,
        "remote" => Choice::Remote,
        fields => Choice::Merged(read_fields(fields, &format_args!("conflict {}", args.id))?),
    };
    let book = open_for(&args.book, args.id, &args.writer)?;
    book.conflicts().resolve(args.id, choice)?;
    let outcome = words::outcome(&book.conflicts().get(args.id)?);
    book.close()?;
    writeln!(output, "resolved {}: {outcome}", args.id)?;
    Ok(())
}

fn flip(args: &FlipArgs, output: &mut Output) -> Result<(), Failure> {
    let book = open_for(&args.book, args.id, &args.writer)?;
    let written = book.conflicts().flip(args.id)?;
    book.close()?;
    match written {
        Written::Op { place, .. } => {
            writeln!(output, "flipped {} ({place}); the next sync sends it", args.id)?
        }
        Written::Unchanged => writeln!(output, "the record is unchanged")?,
    }
    Ok(())
}

/// Opens a book to resolve one of its conflicts, as the author of the local change.
fn open_for(path: &Path, id: ConflictId, writer: &Writer) -> Result<Book, Failure> {
    let book = writer.open(path)?;
    match book.conflicts().get(id) {
        Ok(conflict) => writer.act_for(&book, conflict.place)?,
        // Resolving the conflict reports this.
        Err(Error::NotPossible(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(book)
}

fn about(conflict: &Conflict) -> String {
    if conflict.fields.is_empty() {
        let remote = if conflict.extent == Extent::Deleted { "delete" } else { "change" };
        return format!("local {}, remote {remote}", conflict.kind);
    }
    some(conflict.fields.iter().map(|field| name(&field.name)))
}

const fn tone(conflict: &Conflict) -> Tone {
    if conflict.open { Tone::Bad } else { Tone::Plain }
}

fn values(fields: &FieldsJson) -> Result<Fields, Failure> {
    fields
        .to_fields()
        .map_err(|fault| Failure::new("the conflict's values cannot be read").because(fault))
}

fn value(fields: &Fields, name: &str) -> String {
    let none = if fields.has(NOT_IN_BUNDLE) { NOT_IN_BUNDLE } else { "-" };
    fields.get(name).map_or_else(|| none.to_owned(), ToString::to_string)
}
