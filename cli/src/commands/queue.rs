//! `queue` and `plan`: the pending ops, what the next sync sends, and what is held and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::record::{OpPlace, UnitId};
use fieldbook::sync::{Hold, OpState, QueuedOp};
use serde_json::{Value, json};

use super::{Viewer, lacking, note_lacking};
use crate::error::Failure;
use crate::files::is_part;
use crate::output::Output;
use crate::show::table::{Listing, Text, row};
use crate::show::{count, json, some, time, words};
use crate::view::Then;

/// The arguments of `queue`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook queue ann.book
  fieldbook queue ann.book --at @-3
  fieldbook queue ann.book --json | jq -r 'select(.state == \"held\") | .key'")]
pub(crate) struct QueueArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    viewer: Viewer,
}

/// The arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook plan ann.book
  fieldbook plan ann.book --at -2h

Nothing is sent or written.")]
pub(crate) struct PlanArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    then: Then,
    #[command(flatten)]
    viewer: Viewer,
}

/// Shows the queue.
pub(crate) fn queue(args: &QueueArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let queued = view.queue()?;
    note_lacking(&book);
    if args.json {
        let is_part = is_part(&args.book)?;
        return queued.iter().try_for_each(|op| {
            let mut value = queued_json(op);
            if let Some(members) = value.as_object_mut().filter(|_| is_part) {
                // The size of what a bundle left out is not known.
                members.remove("bytes");
            }
            output.json(&value)
        });
    }
    if queued.is_empty() {
        return Ok(writeln!(output, "no pending ops")?);
    }
    let mut listing = Listing::new(&[">op", "made", "actor", "what", "record", "state"]).wrapped();
    for op in &queued {
        let (text, tone) = words::op(&op.op);
        let made = time::local(op.op.made_at);
        let (actor, key) = (Text::name(&op.op.actor), Text::name(&op.key));
        row!(listing, op.op.place, made, actor, op.op.kind, key, Text::toned(text, tone));
    }
    listing.write(output)
}

/// Shows what the next sync sends.
pub(crate) fn plan(args: &PlanArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let view = args.then.of(&book, args.json, output)?;
    let queued = view.queue()?;
    let by_place: BTreeMap<_, _> = queued.iter().map(|op| (op.op.place, op)).collect();
    let plan = view.plan()?;
    note_lacking(&book);
    if args.json {
        let again = plan.again.iter().map(|unit| {
            let records = again_records(unit, &queued)
                .into_iter()
                .map(|(key, ops)| json!({ "key": key, "ops": ops }));
            json!({ "again": unit, "records": records.collect::<Vec<_>>() })
        });
        let groups = plan.groups.iter().map(|group| {
            let records = group.records.iter().map(|(key, ops)| json!({ "key": key, "ops": ops }));
            json!({ "again": Value::Null, "actor": group.actor, "records": records.collect::<Vec<_>>() })
        });
        let held = plan.holds.iter().map(|(place, hold)| {
            json!({ "place": place, "key": by_place.get(place).map(|op| &op.key), "hold": json::hold(hold) })
        });
        return output.json(&json!({
            "send": again.chain(groups).collect::<Vec<_>>(),
            "held": held.collect::<Vec<_>>(),
            "wake": json::moment(plan.wake),
            "rules_not_run": lacking(&book, None),
        }));
    }
    let mut sending = Listing::new(&[">unit", "record", "ops", "what"]);
    let mut number = 0u64;
    for unit in &plan.again {
        number += 1;
        for (key, ops) in again_records(unit, &queued) {
            row!(sending, number, Text::name(key), places(&ops), "the same bytes again");
        }
    }
    for group in &plan.groups {
        number += 1;
        for (key, ops) in &group.records {
            let kinds =
                ops.iter().filter_map(|place| by_place.get(place)).map(|op| op.op.kind.to_string());
            row!(
                sending,
                number,
                Text::name(key),
                places(ops),
                kinds.collect::<Vec<_>>().join(" + ")
            );
        }
    }
    if sending.len() == 0 {
        writeln!(output, "the next sync sends nothing")?;
    } else {
        writeln!(output, "the next sync sends {}, in this order:", count(number, "unit"))?;
        sending.write(output)?;
    }
    held(&plan.holds, &by_place, output)?;
    if let Some(wake) = plan.wake {
        writeln!(output, "the next sync is due at {}", time::local(wake))?;
    }
    Ok(())
}

fn held(
    holds: &BTreeMap<OpPlace, Hold>,
    by_place: &BTreeMap<OpPlace, &QueuedOp>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut listing = Listing::new(&[">op", "record", "held because"]).wrapped();
    for op in holds.keys().filter_map(|place| by_place.get(place)) {
        let (why, tone) = words::op(&op.op);
        row!(listing, op.op.place, Text::name(&op.key), Text::toned(why, tone));
    }
    if listing.len() > 0 {
        writeln!(
            output,
            "\n{}:",
            count(listing.len() as u64, "op")
                + if listing.len() == 1 { " is held" } else { " are held" }
        )?;
    }
    listing.write(output)
}

/// Returns the ops of an unanswered unit, by record.
fn again_records(unit: &UnitId, queued: &[QueuedOp]) -> BTreeMap<String, Vec<OpPlace>> {
    let mut records: BTreeMap<String, Vec<OpPlace>> = BTreeMap::new();
    for op in queued {
        if op.unit == Some(*unit) {
            records.entry(op.key.to_string()).or_default().push(op.op.place);
        }
    }
    records
}

/// Returns a pending op, for JSON.
fn queued_json(op: &QueuedOp) -> Value {
    let mut value = json!({
        "place": op.op.place,
        "op": op.op.op,
        "key": op.key,
        "kind": op.op.kind,
        "actor": op.op.actor,
        "made_at": time::utc(op.op.made_at),
        "bytes": op.bytes,
        "transaction_ops": op.transaction_ops,
        "references": op.references,
        "state": words::op_state_name(&op.op.state),
    });
    let Some(members) = value.as_object_mut() else { return value };
    let is_dead = matches!(op.op.state, OpState::DeadLettered { .. });
    match (&op.hold, op.unit) {
        (Some(hold), _) if !is_dead => drop(members.insert("hold".to_owned(), json::hold(hold))),
        (None, Some(unit)) => {
            members.insert("unit".to_owned(), json!(unit));
            members.insert("tries".to_owned(), json!(op.tries));
        }
        _ => {}
    }
    value
}

fn places(ops: &[OpPlace]) -> String {
    some(ops.iter().map(ToString::to_string))
}
