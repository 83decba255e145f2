//! `show`: one entry whole: its facts, its hashes, what it made of the records, and its bytes.

use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::entry::{Entry, Item};
use fieldbook::audit::{Effect, Seq, changes};
use serde_json::{Value, json};

use super::look;
use crate::error::Failure;
use crate::output::Output;
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, row};
use crate::show::{entry as show, json, time, value_or_dash};
use crate::view::Then;

/// The arguments of `show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook show ann.book 12
  fieldbook show ann.book 12 --json
  fieldbook show ann.book @-1 --bytes      the last entry but one, as it is stored")]
pub(crate) struct Args {
    /// The book's file, or an exported log
    pub(crate) book: PathBuf,
    /// The entry, or a moment: its last entry
    #[arg(value_name = "ENTRY", allow_hyphen_values = true)]
    entry: fieldbook::audit::When,
    /// Show the values of its items whole, byte by byte
    #[arg(long)]
    bytes: bool,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The zone of times: utc, local, or an offset such as +01:00
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    zone: Option<fieldbook::audit::Zone>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let then = Then { at: None, zone: args.zone };
    then.of(&book, args.json, output)?;
    let seq = then.at(&book, &args.entry)?.found().seq;
    let mut found: Option<(Entry, Vec<Effect>)> = None;
    if seq > Seq::ZERO {
        book.audit().follow(None, seq, seq, |entry, effects| {
            found = Some((entry.clone(), effects.to_vec()));
        })?;
    }
    let Some((entry, effects)) = found else {
        return Err(Failure::new("there is no entry at that moment")
            .hint("this lists the first entries:")
            .advise(Advice::default().run(["log", BOOK, "--from", "1"])));
    };
    if args.json {
        return output.json(&whole(&entry, &effects));
    }
    facts(&entry, args.full, output)?;
    effects_of(&effects, args.full, output)?;
    items(&entry, args.bytes, output)
}

fn whole(entry: &Entry, effects: &[Effect]) -> Value {
    let mut value = json::entry(entry);
    let images =
        |one: &fieldbook::audit::Change| json!({ "before": one.before, "after": one.after });
    let effects = effects.iter().map(|effect| {
        json!({ "key": effect.key, "seen": images(&effect.seen), "confirmed": images(&effect.confirmed) })
    });
    let items = entry.items.iter().map(|item| {
        let state = state(item);
        json!({ "state": state, "commitment": item.commitment(), "bytes": item.bytes().map(<[u8]>::len) })
    });
    if let Value::Object(members) = &mut value {
        members.insert("content".to_owned(), json!(entry.content));
        members.insert("effects".to_owned(), effects.collect());
        members.insert("items".to_owned(), items.collect());
    }
    value
}

fn state(item: &Item) -> &'static str {
    match item {
        Item::Present { .. } => "present",
        Item::Erased { .. } => "erased",
        Item::Hidden { .. } => "hidden",
    }
}

fn facts(entry: &Entry, full: bool, output: &mut Output) -> Result<(), Failure> {
    let header = &entry.header;
    let mut listing = Listing::new(&["entry", ""]).wrapped().full(full);
    row!(listing, "entry", header.seq);
    row!(listing, "kind", header.kind.as_str());
    row!(listing, "device's clock", time::local(header.wall));
    row!(listing, "log's clock", header.hlc);
    row!(listing, "actor", Text::name(&header.actor));
    row!(listing, "epoch", header.epoch);
    row!(listing, "what", show::summary(entry));
    if entry.told {
        row!(listing, "told", "by the maker of the bundle; only its place is proven");
    }
    row!(listing, "content", entry.content);
    row!(listing, "hash", entry.hash);
    listing.write(output)
}

/// Writes the fields of each record before and after the entry.
fn effects_of(effects: &[Effect], full: bool, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&["record", "whose", "field", "before", "after"]).full(full);
    let shown = |value: Option<&Value>| value_or_dash(value, full);
    for effect in effects {
        for (whose, change) in [("screen", &effect.seen), ("server", &effect.confirmed)] {
            for one in changes(change.before.as_ref(), change.after.as_ref()) {
                let (old, new) = (shown(one.old.as_ref()), shown(one.new.as_ref()));
                row!(listing, Text::name(&effect.key), whose, Text::name(&one.field), old, new);
            }
        }
    }
    if listing.len() > 0 {
        writeln!(output)?;
    }
    listing.write(output)
}

/// Writes the items: how large each is, its commitment, and its bytes if they are asked for.
fn items(entry: &Entry, bytes: bool, output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&[">item", ">bytes", "commitment"]);
    for (number, item) in entry.items.iter().enumerate() {
        let size =
            item.bytes().map_or_else(|| "(erased)".to_owned(), |bytes| bytes.len().to_string());
        row!(listing, number, size, item.commitment());
    }
    if listing.len() > 0 {
        writeln!(output)?;
    }
    listing.write(output)?;
    if !bytes {
        return Ok(());
    }
    for (number, item) in entry.items.iter().enumerate() {
        let Some(stored) = item.bytes() else { continue };
        writeln!(output, "\nitem {number}")?;
        for (at, line) in stored.chunks(16).enumerate() {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String =
                line.iter()
                    .map(|byte| {
                        if byte.is_ascii_graphic() || *byte == b' ' {
                            char::from(*byte)
                        } else {
                            '.'
                        }
                    })
                    .collect();
            writeln!(output, "{:08x}  {:<47}  {text}", at * 16, hex.join(" "))?;
        }
    }
    Ok(())
}
