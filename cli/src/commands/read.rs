//! `get` and `ls`: what the app reads.

use fieldbook::record::RecordRef;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::{EntityType, Record, RecordId, RecordKey};
use serde_json::json;

use super::{Viewer, look};
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, json, name, time, words};
use crate::view::Then;

/// The arguments of `get`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook get ann.book lead/42
  fieldbook get ann.book lead/42 --json | jq .fields
  fieldbook get ann.book lead/42 --at 40                  as the app read it after entry 40
  fieldbook get ann.book lead/42 --at 14:05 --zone local  and at that time

Long values are cut: --full and --json show all of them.")]
pub(crate) struct GetArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The record, as ENTITY/ID
    key: RecordKey,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    viewer: Viewer,
}

/// The arguments of `ls`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook ls ann.book                             the entity types
  fieldbook ls ann.book lead --limit 20
  fieldbook ls ann.book lead --after 61 --json      one JSON object a line
  fieldbook ls ann.book lead --at -2h               two hours before the end of the log")]
pub(crate) struct LsArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The entity type; without it the entity types are listed
    entity: Option<EntityType>,
    /// The most records to list, 0 for all
    #[arg(long, value_name = "N", default_value_t = RECORDS)]
    limit: usize,
    /// Begin after this id
    #[arg(long, value_name = "ID", requires = "entity")]
    after: Option<RecordId>,
    /// Show long records whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
}

/// Shows a record.
pub(crate) fn get(args: &GetArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let Some(record) = view.get_record(&args.key)? else {
        let then = if view.is_past() { " at that moment" } else { "" };
        return Err(Failure::new(format!("there is no {}{then}", name(&args.key)))
            .hint("these list the records of its type and its history:")
            .advise(Advice::default().run(["ls", BOOK, args.key.entity.as_str()]).run([
                "history",
                BOOK,
                &args.key.to_string(),
            ])));
    };
    if args.json {
        let status = view.record_status(&args.key)?;
        return output.json(&json::record(&record, Some(&status)));
    }
    let version =
        record.version.map_or_else(|| "not synced yet".to_owned(), |version| version.to_string());
    let status = words::record(&view.explain(&args.key)?).0;
    writeln!(output, "{}  {version}  {status}", name(&record.key))?;
    let mut fields = Listing::new(&["field", "value"]).full(args.full);
    for (field, value) in record.fields()?.iter() {
        row!(fields, Text::name(field), value);
    }
    fields.write(output)
}

/// Lists records, or entity types.
pub(crate) fn ls(args: &LsArgs, output: &mut Output) -> Result<(), Failure> {
    match &args.entity {
        Some(entity) => records(args, entity, output),
        None => entity_types(args, output),
    }
}

fn records(args: &LsArgs, entity: &EntityType, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut after = args.after.clone();
    let mut shown = 0u64;
    loop {
        let page = view.list(entity, after.as_ref(), left.min(PAGE))?;
        let mut listing = Listing::new(&["id", ">version", "pending", "fields"]).full(args.full);
        for record in page.iter().map(RecordRef::to_record) {
            if args.json {
                output.json(&json::record(&record, None))?;
            } else {
                let version =
                    record.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
                let id = Text::name(&record.key.id);
                row!(listing, id, version, pending(&record), record.json.as_str());
            }
        }
        listing.write(output)?;
        shown += page.len() as u64;
        left -= page.len();
        after = page.next;
        if left == 0 || after.is_none() {
            break;
        }
    }
    if args.json {
        return Ok(());
    }
    match after {
        Some(after) if !view.list(entity, Some(&after), 1)?.is_empty() => {
            writeln!(output, "{}; this lists more:", count(shown, "record"))?;
            let lines = further(args, entity, &after).lines(Some(&args.book));
            lines.iter().try_for_each(|line| writeln!(output, "  {line}"))?;
        }
        _ if shown == 0 => writeln!(output, "no {entity} in this book")?,
        _ => {}
    }
    Ok(())
}

/// Returns the command that lists the next records.
fn further(args: &LsArgs, entity: &EntityType, after: &RecordId) -> Advice {
    let mut call =
        vec!["ls".to_owned(), BOOK.to_owned(), entity.to_string(), format!("--after={after}")];
    if args.limit != RECORDS {
        call.push(format!("--limit={}", args.limit));
    }
    if args.full {
        call.push("--full".to_owned());
    }
    call.extend(args.then.again());
    Advice::default().run(call)
}

fn entity_types(args: &LsArgs, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let synced = view.synced_at()?;
    let mut listing = Listing::new(&["entity", ">records", "last synced"]);
    for entity in view.entity_types()? {
        let (mut records, mut after) = (0, None);
        loop {
            let page = view.list(&entity, after.as_ref(), PAGE)?;
            records += page.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let at = synced.get(&entity).copied();
        if args.json {
            output.json(
                &json!({ "entity": entity, "records": records, "synced_at": json::moment(at) }),
            )?;
        } else {
            row!(listing, entity, records, time::local_or(at, "never"));
        }
    }
    if listing.len() == 0 && !args.json {
        writeln!(output, "no records yet")?;
    }
    listing.write(output)
}

fn pending(record: &Record) -> Text {
    match record.pending {
        0 => Text::from("-"),
        ops => Text::toned(count(ops as u64, "op"), Tone::Waiting),
    }
}

/// The default number of records to list.
const RECORDS: usize = 100;
/// How many records are read at a time.
const PAGE: usize = 1_000;
