//! `status`: the sync status of the book, or of one record.

use fieldbook::audit::Seen;
use fieldbook::conflict::ConflictCount;
use fieldbook::sync::{Park, RecordStatus};
use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::RecordKey;
use serde_json::{Value, json};

use super::{Viewer, lacking};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, json, name, time, words};
use crate::view::{Then, View};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook status ann.book
  fieldbook status ann.book lead/42
  fieldbook status ann.book --at 14:05 --zone local
  fieldbook status ann.book --json | jq .pending")]
pub(crate) struct Args {
    /// The book's file
    pub(crate) book: PathBuf,
    /// A record, as ENTITY/ID; without it, the book as a whole
    key: Option<RecordKey>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    viewer: Viewer,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    match &args.key {
        Some(key) => record(&view, key, args.json, output),
        None if args.json => whole_json(&view, output),
        None => whole(&view, &args.book, output),
    }
}

fn record(
    view: &View<'_>,
    key: &RecordKey,
    as_json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let known = view.explain(key)?;
    let status = view.record_status(key)?;
    if status == RecordStatus::Unknown && known.confirmed.is_none() {
        return Err(Failure::new(format!("this book has nothing about {}", name(key)))
            .hint("this lists the records of its type:")
            .advise(Advice::default().run(["ls", BOOK, key.entity.as_str()])));
    }
    let is_there = matches!(known.seen, Seen::AsConfirmed | Seen::WithOwnChanges);
    let version = known.confirmed.map(|confirmed| confirmed.version);
    if as_json {
        return output.json(&json!({
            "key": key,
            "status": json::status(&status),
            "there": is_there,
            "version": version,
            "pending": known.ops.len(),
            "synced_at": json::moment(known.synced_at),
        }));
    }
    let mut listing = Listing::new(&["record", "status", ">version", ">pending", "last synced"]);
    let (text, tone) = words::record(&known);
    let text = if is_there { text } else { format!("{text}, deleted") };
    let version = version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let synced = time::local_or(known.synced_at, "never");
    row!(listing, Text::name(key), Text::toned(text, tone), version, known.ops.len(), synced);
    listing.write(output)
}

fn whole_json(view: &View<'_>, output: &mut Output) -> Result<(), Failure> {
    let book = view.book;
    let status = view.status()?;
    let state = view.server_state()?;
    let ConflictCount { all: conflicts, open } = view.count_conflicts()?;
    let entities: Vec<Value> = view
        .synced_at()?
        .iter()
        .map(|(entity, at)| json!({ "entity": entity, "synced_at": time::utc(*at) }))
        .collect();
    let parks: Vec<Value> = state
        .parks
        .iter()
        .map(|Park { scope, code }| json!({ "scope": json::park(scope), "code": code }))
        .collect();
    output.json(&json!({
        "device": book.audit().device(),
        "epoch": book.audit().epoch(),
        "actor": book.actor(),
        "entries": view.entries()?,
        "head": view.head()?.map(|head| head.hash),
        "used_bytes": book.audit().used_bytes()?,
        "state": words::sync_state_name(&status.state),
        "pending": status.pending,
        "dead_letters": status.dead_letters,
        "conflicts": conflicts,
        "open_conflicts": open,
        "synced_at": json::moment(status.synced_at),
        "server": state.server,
        "server_epoch": state.epoch,
        "tenant": state.tenant,
        "servers_to_accept": view.candidates()?.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "set_aside": state.set_aside,
        "anchored": state.anchored,
        "entities": entities,
        "parks": parks,
        "parked_ops": view.parked()?,
        "rules_not_run": lacking(book, None),
    }))
}

fn whole(view: &View<'_>, path: &Path, output: &mut Output) -> Result<(), Failure> {
    let book = view.book;
    let status = view.status()?;
    let mut listing = Listing::new(&["book", ""]).wrapped();
    let (text, tone) = words::book_state(&status.state, status.pending);
    row!(listing, "file", path.display());
    row!(
        listing,
        "device",
        book.audit().device().map(|device| device.to_string()).unwrap_or_default()
    );
    row!(listing, "last used by", Text::name(book.actor()));
    row!(listing, "state", Text::toned(words::of_the_book(&text), tone));
    row!(listing, "pending", number(status.pending, Tone::Waiting));
    row!(listing, "dead letters", number(status.dead_letters, Tone::Bad));
    row!(listing, "conflicts", conflicts(view.count_conflicts()?));
    row!(listing, "last synced", time::local_or(status.synced_at, "never"));
    server_rows(view, &mut listing)?;
    let lacking = lacking(book, None);
    if !lacking.is_empty() {
        let rules = lacking.join(", ");
        row!(
            listing,
            "rules not run",
            Text::toned(format!("{rules}: the app has them"), Tone::Waiting)
        );
    }
    let used = indicatif::HumanBytes(book.audit().used_bytes()?);
    row!(listing, "log", format!("{}, {used} on disk", count(view.entries()?, "entry")));
    let anchor = view.server_state()?.anchored.map_or_else(
        || "nothing yet".to_owned(),
        |anchor| format!("up to entry {}, according to this file", anchor.seq),
    );
    row!(listing, "server knows", anchor);
    listing.write(output)?;
    let cursors = view.synced_at()?;
    if !cursors.is_empty() {
        writeln!(output)?;
        let mut listing = Listing::new(&["entity", "last synced"]);
        for (entity, at) in cursors {
            row!(listing, entity, time::local(at));
        }
        listing.write(output)?;
    }
    Ok(())
}

/// Adds what is parked, the servers that can be accepted, and the records that were set aside.
fn server_rows(view: &View<'_>, listing: &mut Listing) -> Result<(), Failure> {
    let state = view.server_state()?;
    for Park { scope, code } in &state.parks {
        row!(listing, "parked", Text::toned(words::park(scope, code), Tone::Bad));
    }
    for (reason, ops) in &view.parked()? {
        let parked = format!("{}, because {}", count(*ops, "op"), words::of_the_book(reason));
        row!(listing, "parked", Text::toned(parked, Tone::Bad));
    }
    for other in view.candidates()? {
        row!(listing, "can be accepted", other);
    }
    if state.set_aside > 0 {
        let rows = count(state.set_aside, "record");
        row!(
            listing,
            "set aside",
            format!("{rows} that this program cannot hold; the log names them")
        );
    }
    Ok(())
}

fn conflicts(ConflictCount { all, open }: ConflictCount) -> Text {
    match (all, open) {
        (0, _) => Text::from("none"),
        (all, 0) => Text::from(format!("{all}, none open")),
        (all, open) => Text::toned(format!("{all}, {open} open"), Tone::Bad),
    }
}

fn number(number: u64, tone: Tone) -> Text {
    if number == 0 { Text::from("none") } else { Text::toned(number, tone) }
}
