//! `dead-letters`: ops that the server refused, and what a person decides about them.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fieldbook::conflict::DeadLetter;
use fieldbook::record::{FieldsJson, OpId, OpKind, OpPlace};
use fieldbook::sync::{Hold, QueuedOp, UserAction};
use fieldbook::{Book, Written};
use serde::Serialize;

use super::write::read_fields;
use super::{OpName, Writer, look};
use crate::error::Failure;
use crate::files::shown;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{Visible, count, count_of, json, name, some, time};
use crate::view::Then;

/// The arguments of `dead-letters`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them, oldest first
    List(ListArgs),
    /// Show one, with its fields and the ops that wait for it
    Show(ShowArgs),
    /// Send some again, with the same op ids and no tries counted
    Retry(RetryArgs),
    /// Discard some: records lose their changes
    Discard(DiscardArgs),
    /// Correct one and send it again
    Correct(CorrectArgs),
    /// Write all of them to a file, one JSON object a line
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook dead-letters list ann.book\n  fieldbook dead-letters list ann.book --json\n  fieldbook dead-letters list ann.book --at 40"
)]
struct ListArgs {
    /// The book's file
    book: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook dead-letters show ann.book 41")]
struct ShowArgs {
    /// The book's file
    book: PathBuf,
    /// The op, by its place (41 or 41+3) or its id
    op: OpName,
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
#[command(
    after_help = "Examples:\n  fieldbook dead-letters retry ann.book 41\n  fieldbook dead-letters retry ann.book --all"
)]
struct RetryArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    writer: Writer,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook dead-letters discard ann.book 41 --reason 'entered twice'"
)]
struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    /// The reason; the log keeps it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    writer: Writer,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fieldbook dead-letters correct ann.book 41 '{\"name\":\"Ann\"}'"
)]
struct CorrectArgs {
    /// The book's file
    book: PathBuf,
    /// The op, by its place (41 or 41+3) or its id
    op: OpName,
    /// The fields to correct: a JSON object, `@FILE`, or `-`
    #[arg(value_name = "JSON")]
    fields: String,
    #[command(flatten)]
    writer: Writer,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fieldbook dead-letters export ann.book refused.jsonl")]
struct ExportArgs {
    /// The book's file
    book: PathBuf,
    /// The file to write
    file: PathBuf,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
}

/// Some dead letters of a book.
#[derive(Debug, clap::Args)]
struct Which {
    /// The book's file
    book: PathBuf,
    /// The ops, by their places (41 or 41+3) or their ids
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "OP")]
    ops: Vec<OpName>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Args {
    /// Returns the book that the command works on.
    pub(crate) fn book(&self) -> &Path {
        match &self.verb {
            Verb::List(args) => &args.book,
            Verb::Show(args) => &args.book,
            Verb::Retry(args) => &args.which.book,
            Verb::Discard(args) => &args.which.book,
            Verb::Correct(args) => &args.book,
            Verb::Export(args) => &args.book,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    match &args.verb {
        Verb::List(args) => list(args, output),
        Verb::Show(args) => show(args, output),
        Verb::Retry(args) => retry(args, output),
        Verb::Discard(args) => discard(args, output),
        Verb::Correct(args) => correct(args, output),
        Verb::Export(args) => export(args, output),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let letters = view.dead_letters()?;
    let queued = view.queue()?;
    if args.json {
        return letters
            .iter()
            .try_for_each(|letter| output.json(&as_json(&book, letter, &queued)?));
    }
    if letters.is_empty() {
        return Ok(writeln!(output, "no dead letters")?);
    }
    let mut listing =
        Listing::new(&[">op", "record", "what", "refused", "code", ">waiting", "message"]);
    for letter in &letters {
        let waiting = dependants(letter, &queued).len();
        let code = Text::toned(&letter.code, Tone::Bad);
        let at = time::local(letter.last_at);
        let key = Text::name(&letter.key);
        row!(listing, letter.place, key, letter.kind, at, code, waiting, &letter.message);
    }
    listing.write(output)
}

fn show(args: &ShowArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let letters = view.dead_letters()?;
    let letter = find(&letters, args.op)?;
    let queued = view.queue()?;
    if args.json {
        return output.json(&as_json(&book, letter, &queued)?);
    }
    let mut listing = Listing::new(&["dead letter", ""]).wrapped();
    row!(listing, "op", format!("{} ({})", letter.place, letter.op));
    row!(
        listing,
        "what",
        format!("{} {} by {}", letter.kind, name(&letter.key), name(&letter.actor))
    );
    row!(listing, "code", Text::toned(&letter.code, Tone::Bad));
    row!(listing, "message", &letter.message);
    row!(
        listing,
        "tries",
        format!(
            "{}, from {} to {}",
            letter.tries,
            time::local(letter.first_at),
            time::local(letter.last_at)
        )
    );
    row!(listing, "recorded", format!("entry {}", letter.recorded));
    let waiting = dependants(letter, &queued);
    let waiting = if waiting.is_empty() {
        "nothing".to_owned()
    } else {
        some(waiting.iter().map(ToString::to_string))
    };
    row!(listing, "waiting for it", waiting);
    listing.write(output)?;
    let mut fields = Listing::new(&["field", "value"]).full(args.full);
    for (field, value) in book.queue().op(letter.place)?.fields.iter() {
        row!(fields, Text::name(field), value);
    }
    if fields.len() > 0 {
        writeln!(output)?;
    }
    fields.write(output)?;
    if view.is_past() {
        // What was possible then may not be possible now.
        return Ok(());
    }
    writeln!(output)?;
    let advice = choices(letter, &book.queue().op(letter.place)?.fields.to_json());
    advice.lines(Some(&args.book)).iter().try_for_each(|line| writeln!(output, "{line}"))?;
    Ok(())
}

/// Returns the decisions that are possible for a dead letter, each on a line that does nothing when
/// it is pasted.
fn choices(letter: &DeadLetter, fields: &FieldsJson) -> Advice {
    let op = letter.place.to_string();
    let all = Advice::default()
        .words("decide with one of these:")
        .choose(["dead-letters", "retry", BOOK, &op])
        .choose(["dead-letters", "discard", BOOK, &op, "--reason", "not needed"]);
    if letter.kind == OpKind::Delete || fields.as_str().len() > EDITED_BYTES {
        return all;
    }
    all.words("or, with its fields corrected:").choose([
        "dead-letters",
        "correct",
        BOOK,
        &op,
        fields.as_str(),
    ])
}

fn retry(args: &RetryArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.writer.open(&args.which.book)?;
    let ops = args.which.ops(&book, UserAction::Retry)?;
    let letters = book.dead_letters().all()?;
    let all_dead = ops.iter().all(|op| letters.iter().any(|letter| letter.op == *op));
    let number = count(ops.len() as u64, if all_dead { "dead letter" } else { "op" });
    if !ops.is_empty() {
        book.dead_letters().retry(ops)?;
    }
    book.close()?;
    writeln!(output, "the next sync sends {number} again")?;
    Ok(())
}

fn discard(args: &DiscardArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.writer.open(&args.which.book)?;
    let ops = args.which.ops(&book, UserAction::Discard)?;
    let before = book.status().pending;
    if !ops.is_empty() {
        book.dead_letters().discard(ops, &args.reason)?;
    }
    let discarded = before.saturating_sub(book.status().pending);
    book.close()?;
    writeln!(output, "discarded {}; the log keeps their fields", count(discarded, "op"))?;
    Ok(())
}

fn correct(args: &CorrectArgs, output: &mut Output) -> Result<(), Failure> {
    let correction = read_fields(&args.fields, &format_args!("dead letter {}", args.op))?;
    let book = args.writer.open(&args.book)?;
    let letters = book.dead_letters().all()?;
    let (op, place) = decided_on(&book, &letters, args.op, UserAction::Correct)?;
    args.writer.act_for(&book, place)?;
    let written = book.dead_letters().correct(op, correction)?;
    book.close()?;
    match written {
        Written::Op { place, .. } => {
            writeln!(output, "corrected {} ({place}); the next sync sends it", args.op)?
        }
        Written::Unchanged => {
            writeln!(output, "nothing is left to send after the correction; {} has ended", args.op)?
        }
    }
    Ok(())
}

fn export(args: &ExportArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let letters = book.dead_letters().all()?;
    let queued = book.queue().list()?;
    crate::output::write_whole(&args.file, args.force, |file| {
        let mut writer = BufWriter::new(file);
        for letter in &letters {
            as_json(&book, letter, &queued)?
                .serialize(&mut serde_json::Serializer::with_formatter(&mut writer, Visible))
                .map_err(|error| Failure::new("cannot write the file").because(error))?;
            writer
                .write_all(b"\n")
                .map_err(|error| Failure::new("cannot write the file").because(error))?;
        }
        writer.flush().map_err(|error| Failure::new("cannot write the file").because(error))
    })?;
    writeln!(output, "{} to {}", count_of(&letters, "dead letter"), shown(&args.file))?;
    Ok(())
}

impl Which {
    fn ops(&self, book: &Book, action: UserAction) -> Result<Vec<OpId>, Failure> {
        let letters = book.dead_letters().all()?;
        if self.all {
            return Ok(letters.iter().map(|letter| letter.op).collect());
        }
        let found: Result<BTreeSet<_>, _> = self
            .ops
            .iter()
            .map(|name| decided_on(book, &letters, *name, action).map(|(op, _)| op))
            .collect();
        Ok(found?.into_iter().collect())
    }
}

/// Finds an op that a person may decide about: a dead letter, or another op for which the book
/// offers the action.
fn decided_on(
    book: &Book,
    letters: &[DeadLetter],
    name: OpName,
    action: UserAction,
) -> Result<(OpId, OpPlace), Failure> {
    let found = find(letters, name).map(|letter| (letter.op, letter.place));
    if found.is_ok() {
        return found;
    }
    let is_it = |op: &QueuedOp| name.is(op.op.place, op.op.op);
    let movable =
        book.queue().list()?.into_iter().find(|op| is_it(op) && op.op.actions.contains(&action));
    movable.map_or(found, |op| Ok((op.op.op, op.op.place)))
}

fn find(letters: &[DeadLetter], name: OpName) -> Result<&DeadLetter, Failure> {
    letters.iter().find(|letter| name.is(letter.place, letter.op)).ok_or_else(|| {
        Failure::new(format!("op {name} is not a dead letter"))
            .hint("these list the dead letters and all pending ops:")
            .advise(Advice::default().run(["dead-letters", "list", BOOK]).run(["queue", BOOK]))
    })
}

/// Returns the ops that wait for a decision about this dead letter.
fn dependants(letter: &DeadLetter, queued: &[QueuedOp]) -> Vec<OpPlace> {
    let waits = |op: &&QueuedOp| match &op.hold {
        Some(Hold::WaitsFor(key)) => *key == letter.key,
        Some(Hold::DeadCreate) => op.key == letter.key,
        _ => false,
    };
    queued.iter().filter(waits).map(|op| op.op.place).collect()
}

/// Longer fields are not printed in a command.
const EDITED_BYTES: usize = 400;

fn as_json(
    book: &Book,
    letter: &DeadLetter,
    queued: &[QueuedOp],
) -> Result<serde_json::Value, Failure> {
    let fields = book.queue().op(letter.place)?.fields;
    Ok(json::dead_letter(letter, &fields, &dependants(letter, queued)))
}
