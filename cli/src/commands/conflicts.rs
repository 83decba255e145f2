//! `conflicts`: where both sides changed the same thing, and how it was settled.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::entry::{Extent, Winner};
use fieldbook::rows::ConflictRow;
use fieldbook::{ConflictId, Fields, FieldsJson};

use super::open_to_read;
use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{json, some, time, words};

/// What `conflicts` is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them, oldest first
    List(ListArgs),
    /// Show one: what was, mine, theirs, and what stands
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook conflicts list ann.book\n  fieldbook conflicts list ann.book --open --json"
)]
struct ListArgs {
    /// The book's file
    book: PathBuf,
    /// Only those that wait for a person
    #[arg(long)]
    open: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook conflicts show ann.book 47.2")]
struct ShowArgs {
    /// The book's file
    book: PathBuf,
    /// The conflict, as ENTRY.NUMBER
    id: ConflictId,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    match &args.verb {
        Verb::List(args) => list(args, output),
        Verb::Show(args) => show(args, output),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<(), Failure> {
    let mut conflicts = open_to_read(&args.book)?.conflicts()?;
    conflicts.retain(|(_, row)| row.open || !args.open);
    if args.json {
        return conflicts.iter().try_for_each(|(id, row)| output.json(&json::conflict(*id, row)));
    }
    if conflicts.is_empty() {
        return Ok(writeln!(output, "no conflicts{}", if args.open { " to settle" } else { "" })?);
    }
    let mut listing = Listing::new(&[">conflict", "found", "record", "about", "outcome"]);
    for (id, conflict) in &conflicts {
        listing.row([
            Text::from(id),
            time::local(conflict.at).into(),
            (&conflict.key).into(),
            about(conflict).into(),
            Text::toned(outcome(conflict), tone(conflict)),
        ]);
    }
    listing.write(output)
}

fn show(args: &ShowArgs, output: &mut Output) -> Result<(), Failure> {
    let book = open_to_read(&args.book)?;
    let found = book.conflicts()?.into_iter().find(|(id, _)| *id == args.id);
    let Some((id, conflict)) = found else {
        return Err(Failure::new(format!("there is no conflict {}", args.id))
            .hint("`fieldbook conflicts list` shows those there are"));
    };
    if args.json {
        return output.json(&json::conflict(id, &conflict));
    }
    let mut listing = Listing::new(&["conflict", ""]);
    row!(listing, "id", id);
    row!(listing, "record", &conflict.key);
    row!(listing, "found", time::local(conflict.at));
    let mine = format!(
        "{} ({}), made at {}",
        conflict.kind,
        conflict.op.place,
        time::local(conflict.edited_at.wall())
    );
    row!(listing, "mine", mine);
    let did = if conflict.extent == Extent::Deleted { "delete" } else { "update" };
    let theirs =
        format!("{did} ({}), made at {}", conflict.version, time::local(conflict.remote_edited_at.wall()));
    row!(listing, "theirs", theirs);
    row!(listing, "rule", words::policy(conflict.rule));
    row!(listing, "outcome", Text::toned(outcome(&conflict), tone(&conflict)));
    listing.write(output)?;
    let base = values(&conflict.base)?;
    let (local, remote) = (values(&conflict.local)?, values(&conflict.remote)?);
    let merged = conflict.merged.as_ref().map(values).transpose()?;
    let mut fields = Listing::new(&["field", "was", "mine", "theirs", "rule", "outcome"]);
    for (name, rule, winner) in &conflict.fields {
        let outcome = match (winner, &merged) {
            (Winner::Merged, Some(merged)) => format!("merged: {}", value(merged, name)),
            _ => words::winner(*winner).to_owned(),
        };
        let (was, mine, theirs) = (value(&base, name), value(&local, name), value(&remote, name));
        row!(fields, name, was, mine, theirs, words::policy(*rule), outcome);
    }
    if fields.len() > 0 {
        writeln!(output)?;
    }
    fields.write(output)
}

fn about(conflict: &ConflictRow) -> String {
    if conflict.fields.is_empty() {
        let remote = if conflict.extent == Extent::Deleted { "delete" } else { "change" };
        return format!("my {}, their {remote}", conflict.kind);
    }
    some(conflict.fields.iter().map(|(name, ..)| name.clone()))
}

fn outcome(conflict: &ConflictRow) -> String {
    let mut winners: Vec<Winner> = conflict.fields.iter().map(|(.., winner)| *winner).collect();
    winners.dedup();
    match winners.as_slice() {
        [] => words::winner(conflict.winner).to_owned(),
        [all] => words::winner(*all).to_owned(),
        _ => "field by field".to_owned(),
    }
}

const fn tone(conflict: &ConflictRow) -> Tone {
    if conflict.open { Tone::Bad } else { Tone::Plain }
}

fn values(fields: &FieldsJson) -> Result<Fields, Failure> {
    fields.to_fields().map_err(|fault| Failure::new("the conflict's values do not read").because(fault))
}

fn value(fields: &Fields, name: &str) -> String {
    fields.get(name).map_or_else(|| "-".to_owned(), ToString::to_string)
}
