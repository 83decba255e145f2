//! `diff`: what differs between two moments: the fields of records, their states, the numbers of
//! pending ops and of conflicts.
//!
//! 1. Only the records that an entry between the two moments touched are compared.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::audit::{At, FieldChange, Seq, When, changes};
use fieldbook::{Book, RecordKey};
use serde_json::json;

use super::look;
use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, row};
use crate::show::{name, plain, time, value_or_dash, words};
use crate::view::{Then, say, understood};

/// The arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook diff ann.book 3 12
  fieldbook diff ann.book 14:00 15:00 --zone local
  fieldbook diff ann.book -2h @ lead/42             from two hours before the end to the end
  fieldbook diff ann.book 3 12 --exit-code          1 if anything differs")]
pub(crate) struct Args {
    /// The book's file, or an exported log
    pub(crate) book: PathBuf,
    /// The first moment
    #[arg(value_name = "WHEN", allow_hyphen_values = true)]
    from: When,
    /// The second moment; `@` is the end of the log
    #[arg(value_name = "WHEN", allow_hyphen_values = true)]
    to: When,
    /// Only this record, as ENTITY/ID
    key: Option<RecordKey>,
    /// Fail if anything differs
    #[arg(long)]
    exit_code: bool,
    /// Show long values whole
    #[arg(long)]
    full: bool,
    /// Print one JSON object a record, then one for the book
    #[arg(long)]
    json: bool,
    /// The zone of times, read and shown: utc, local, or an offset such as +01:00
    #[arg(long, value_name = "ZONE", allow_hyphen_values = true)]
    zone: Option<fieldbook::audit::Zone>,
}

/// What differs of one record.
struct Differs {
    key: RecordKey,
    fields: Vec<FieldChange>,
    /// The state before and after, in words.
    states: (String, String),
}

/// The numbers of the book at a moment.
#[derive(Debug, PartialEq, Eq)]
struct Numbers {
    pending: u64,
    dead_letters: u64,
    conflicts: u64,
    open: u64,
    entries: u64,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let book = look(&args.book)?;
    let then = Then { at: None, zone: args.zone };
    let (before, after) = (then.at(&book, &args.from)?, then.at(&book, &args.to)?);
    let clocks = then.clocks(&book, after.found().seq)?;
    time::show_in(clocks);
    for at in [&before, &after] {
        say(&understood(at.found(), clocks), args.json, output)?;
    }
    let mut differing = Vec::new();
    for key in concerned(&book, &before, &after, args.key.as_ref())? {
        differing.extend(compared(&before, &after, key)?);
    }
    let numbers = (numbers(&before)?, numbers(&after)?);
    let differs = !differing.is_empty() || numbers.0 != numbers.1;
    if args.json {
        as_json(&differing, &numbers, output)?;
    } else {
        table(&differing, &numbers, args, output)?;
    }
    if differs && args.exit_code {
        output.finish()?;
        return Err(Failure::new("the two moments differ"));
    }
    Ok(())
}

/// Returns the records that the entries between two moments touched.
fn concerned(
    book: &Book,
    before: &At<'_>,
    after: &At<'_>,
    only: Option<&RecordKey>,
) -> Result<BTreeSet<RecordKey>, Failure> {
    if let Some(only) = only {
        return Ok(BTreeSet::from([only.clone()]));
    }
    let (one, other) = (before.found().seq, after.found().seq);
    let (from, upto): (Seq, Seq) = (one.min(other).next(), one.max(other));
    let mut keys = BTreeSet::new();
    book.audit().follow(None, from, upto, |_, effects| {
        keys.extend(effects.iter().map(|effect| effect.key.clone()));
    })?;
    Ok(keys)
}

fn compared(before: &At<'_>, after: &At<'_>, key: RecordKey) -> Result<Option<Differs>, Failure> {
    let image = |at: &At<'_>| Ok::<_, Failure>(at.get_record(&key)?.map(|record| record.json));
    let fields = changes(image(before)?.as_ref(), image(after)?.as_ref());
    let states = (words::record(&before.explain(&key)?).0, words::record(&after.explain(&key)?).0);
    let differs = !fields.is_empty() || states.0 != states.1;
    Ok(differs.then_some(Differs { key, fields, states }))
}

fn numbers(at: &At<'_>) -> Result<Numbers, Failure> {
    let (status, conflicts) = (at.status()?, at.count_conflicts()?);
    Ok(Numbers {
        pending: status.pending,
        dead_letters: status.dead_letters,
        conflicts: conflicts.all,
        open: conflicts.open,
        entries: at.found().seq.number(),
    })
}

fn table(
    differing: &[Differs],
    (before, after): &(Numbers, Numbers),
    args: &Args,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut listing = Listing::new(&["record", "what", "before", "after"]).full(args.full);
    for one in differing {
        let shown = |value: Option<&_>| value_or_dash(value, args.full);
        for field in &one.fields {
            let (old, new) = (shown(field.old.as_ref()), shown(field.new.as_ref()));
            row!(listing, Text::name(&one.key), Text::name(&field.field), old, new);
        }
        if one.states.0 != one.states.1 {
            row!(listing, Text::name(&one.key), "(status)", &one.states.0, &one.states.1);
        }
    }
    if listing.len() == 0 {
        let of =
            args.key.as_ref().map_or_else(|| "no record".to_owned(), |key| name(key).to_string());
        writeln!(output, "{} differs", plain(&of))?;
    }
    listing.write(output)?;
    let pairs = [
        ("pending", before.pending, after.pending),
        ("dead letters", before.dead_letters, after.dead_letters),
        ("conflicts", before.conflicts, after.conflicts),
        ("open conflicts", before.open, after.open),
        ("entries", before.entries, after.entries),
    ];
    let changed = pairs.iter().filter(|(_, before, after)| before != after);
    let changed: Vec<_> =
        changed.map(|(what, before, after)| format!("{what} {before} → {after}")).collect();
    if !changed.is_empty() {
        writeln!(output, "{}", changed.join(" · "))?;
    }
    Ok(())
}

fn as_json(
    differing: &[Differs],
    (before, after): &(Numbers, Numbers),
    output: &mut Output,
) -> Result<(), Failure> {
    for one in differing {
        output.json(&json!({
            "key": one.key,
            "fields": one.fields,
            "status": { "before": one.states.0, "after": one.states.1 },
        }))?;
    }
    let of = |numbers: &Numbers| {
        json!({
            "entries": numbers.entries,
            "pending": numbers.pending,
            "dead_letters": numbers.dead_letters,
            "conflicts": numbers.conflicts,
            "open_conflicts": numbers.open,
        })
    };
    output.json(&json!({ "before": of(before), "after": of(after) }))
}
