//! `queue` and `plan`: what is owed to the server, what would be sent now, and what is held and why.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use fieldbook::rows::TailRow;
use fieldbook::{Book, Hold, OpPlace, UnitId};
use serde_json::{Value, json};

use super::Viewer;
use crate::error::Failure;
use crate::output::Output;
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, json, some, time, words};

/// What `queue` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook queue ann.book
  fieldbook queue ann.book --json | jq -r 'select(.state == \"held\") | .key'")]
pub(crate) struct QueueArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// What `plan` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook plan ann.book

Nothing is sent or written.")]
pub(crate) struct PlanArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    viewer: Viewer,
}

/// An op that is owed to the server.
pub(crate) struct Queued {
    pub(crate) place: OpPlace,
    pub(crate) row: TailRow,
    pub(crate) state: State,
    /// The change that it waits behind and what holds that one, if anything does.
    before: Option<(OpPlace, Hold)>,
}

impl Queued {
    /// Returns where it stands, in words.
    fn words(&self) -> (String, Tone) {
        match &self.state {
            State::Held(hold) => (format!("held: {}", self.held_because(hold)), Tone::Waiting),
            state => state.words(),
        }
    }

    /// Returns why it is held, in words.
    fn held_because(&self, hold: &Hold) -> String {
        match hold {
            Hold::Behind(_) => words::behind(self.before.as_ref()),
            hold => words::hold(hold),
        }
    }
}

/// Where an op that is owed stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It would be sent now.
    Ready,
    /// It was sent, or was about to be, and will be again under the same id until there is an answer.
    UnderWay { unit: UnitId, tries: u32 },
    /// It is not sent now.
    Held(Hold),
    /// The server refused it for good.
    Dead,
}

impl State {
    /// Returns the stable name, for JSON.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::UnderWay { .. } => "under_way",
            Self::Held(_) => "held",
            Self::Dead => "dead",
        }
    }

    /// Returns the state in words.
    pub(crate) fn words(&self) -> (String, Tone) {
        match self {
            Self::Ready => ("ready to be sent".to_owned(), Tone::Good),
            Self::UnderWay { tries: 0, .. } => ("under way, no answer yet".to_owned(), Tone::Waiting),
            Self::UnderWay { tries, .. } => {
                (format!("not taken {}, due again", times(*tries)), Tone::Waiting)
            }
            Self::Held(hold) => (format!("held: {}", words::hold(hold)), Tone::Waiting),
            Self::Dead => ("refused, waits for a person".to_owned(), Tone::Bad),
        }
    }
}

/// Returns all that is owed, oldest first.
pub(crate) fn queued(book: &Book) -> Result<Vec<Queued>, Failure> {
    let tail = book.snapshot()?.tail(book.schema())?;
    let plan = book.plan();
    let state = |place| {
        if tail.is_dead(place) {
            return State::Dead;
        }
        if let Some(hold) = plan.holds.get(&place) {
            return State::Held(hold.clone());
        }
        match tail.unit_of(place) {
            Some(unit) => State::UnderWay { unit, tries: tail.unit(&unit).map_or(0, |row| row.tries) },
            None => State::Ready,
        }
    };
    let before = |place| {
        let Some(Hold::Behind(unit)) = plan.holds.get(&place) else { return None };
        tail.unit(unit)?.ops.iter().find_map(|place| Some((*place, plan.holds.get(place)?.clone())))
    };
    let queued = tail.ops().map(|(place, row)| Queued {
        place,
        row: row.clone(),
        state: state(place),
        before: before(place),
    });
    Ok(queued.collect())
}

/// Shows the queue.
pub(crate) fn queue(args: &QueueArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let queued = queued(&book)?;
    if args.json {
        return queued.iter().try_for_each(|op| output.json(&queued_json(op)));
    }
    if queued.is_empty() {
        return Ok(writeln!(output, "nothing is owed to the server")?);
    }
    let mut listing = Listing::new(&[">op", "made", "actor", "what", "record", "state"]).wrapped();
    for op in &queued {
        let (said, tone) = op.words();
        let made = time::local(op.row.made_at);
        let (actor, key) = (Text::name(&op.row.actor), Text::name(&op.row.key));
        row!(listing, op.place, made, actor, op.row.kind, key, Text::toned(said, tone));
    }
    listing.write(output)
}

/// Shows what would be sent.
pub(crate) fn plan(args: &PlanArgs, output: &mut Output) -> Result<(), Failure> {
    let book = args.viewer.look(&args.book)?;
    let queued = queued(&book)?;
    let by_place: BTreeMap<_, _> = queued.iter().map(|op| (op.place, op)).collect();
    let plan = book.plan();
    if args.json {
        let again = plan.again.iter().map(|unit| {
            let records =
                again_records(unit, &queued).into_iter().map(|(key, ops)| json!({ "key": key, "ops": ops }));
            json!({ "again": unit, "records": records.collect::<Vec<_>>() })
        });
        let groups = plan.groups.iter().map(|group| {
            let records = group.records.iter().map(|(key, ops)| json!({ "key": key, "ops": ops }));
            json!({ "again": Value::Null, "actor": group.actor, "records": records.collect::<Vec<_>>() })
        });
        let held = plan.holds.iter().map(|(place, hold)| {
            json!({ "place": place, "key": by_place.get(place).map(|op| &op.row.key), "hold": json::hold(hold) })
        });
        return output.json(&json!({
            "send": again.chain(groups).collect::<Vec<_>>(),
            "held": held.collect::<Vec<_>>(),
            "wake": json::moment(plan.wake),
        }));
    }
    let mut sending = Listing::new(&[">unit", "record", "ops", "what"]);
    let mut number = 0u64;
    for unit in &plan.again {
        number += 1;
        for (key, ops) in again_records(unit, &queued) {
            row!(sending, number, Text::name(key), places(&ops), "sent again, the same bytes");
        }
    }
    for group in &plan.groups {
        number += 1;
        for (key, ops) in &group.records {
            let kinds = ops.iter().filter_map(|place| by_place.get(place)).map(|op| op.row.kind.to_string());
            row!(sending, number, Text::name(key), places(ops), kinds.collect::<Vec<_>>().join(" + "));
        }
    }
    if sending.len() == 0 {
        writeln!(output, "nothing would be sent now")?;
    } else {
        writeln!(output, "{} would be sent now, in this order:", count(number, "unit"))?;
        sending.write(output)?;
    }
    held(&plan.holds, &by_place, output)?;
    if let Some(wake) = plan.wake {
        writeln!(output, "something of it is due at {}", time::local(wake))?;
    }
    Ok(())
}

fn held(
    holds: &BTreeMap<OpPlace, Hold>,
    by_place: &BTreeMap<OpPlace, &Queued>,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut listing = Listing::new(&[">op", "record", "held because"]).wrapped();
    for (place, hold) in holds {
        let op = by_place.get(place);
        let key = op.map(|op| op.row.key.to_string()).unwrap_or_default();
        let why = op.map_or_else(|| words::hold(hold), |op| op.held_because(hold));
        row!(listing, place, Text::name(key), Text::toned(why, Tone::Waiting));
    }
    if listing.len() > 0 {
        writeln!(
            output,
            "\n{}:",
            count(listing.len() as u64, "op") + if listing.len() == 1 { " is held" } else { " are held" }
        )?;
    }
    listing.write(output)
}

/// Returns the ops of a unit that is under way, record by record.
fn again_records(unit: &UnitId, queued: &[Queued]) -> BTreeMap<String, Vec<OpPlace>> {
    let mut records: BTreeMap<String, Vec<OpPlace>> = BTreeMap::new();
    for op in queued {
        if matches!(op.state, State::UnderWay { unit: under_way, .. } if under_way == *unit) {
            records.entry(op.row.key.to_string()).or_default().push(op.place);
        }
    }
    records
}

/// Returns an op that is owed, for JSON.
fn queued_json(op: &Queued) -> Value {
    let mut value = json!({
        "place": op.place,
        "op": op.row.op,
        "key": op.row.key,
        "kind": op.row.kind,
        "actor": op.row.actor,
        "made_at": time::utc(op.row.made_at),
        "bytes": op.row.bytes,
        "transaction_ops": op.row.transaction_ops,
        "references": op.row.targets().collect::<Vec<_>>(),
        "state": op.state.name(),
    });
    let Some(members) = value.as_object_mut() else { return value };
    match &op.state {
        State::Held(hold) => drop(members.insert("hold".to_owned(), json::hold(hold))),
        State::UnderWay { unit, tries } => {
            members.insert("unit".to_owned(), json!(unit));
            members.insert("tries".to_owned(), json!(tries));
        }
        State::Ready | State::Dead => {}
    }
    value
}

fn places(ops: &[OpPlace]) -> String {
    some(ops.iter().map(ToString::to_string))
}

fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}
