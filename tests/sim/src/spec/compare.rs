//! Compares a case's expectations with the book.
//!
//! Values are compared: a null field counts as absent in a view, and nowhere else.

use std::collections::BTreeMap;

use fieldbook::audit::entry::Winner;
use fieldbook::conflict::Conflict;
use fieldbook::record::UnitId;
use fieldbook::sync::{Hold, RecordStatus};
use fieldbook::{Book, Fields, RecordKey};
use fieldbook_core::entry::ParkScope;
use serde_json::{Map, Value, json};

use super::case::Expect;
use super::fate::Fates;
use super::fault::Fault;
use super::owed::{Owed, owed};
use super::world::World;

/// Returns every difference, in words.
pub(super) fn differences(expect: &Expect, world: &World) -> Result<Vec<String>, Fault> {
    let book = world.book()?;
    let mut compare = Compare { found: Vec::new() };
    compare.sent(expect, &world.sent);
    let owed = owed(&book.snapshot()?, book.schema())?;
    if let Some(queue) = &expect.queue {
        let seen: Vec<_> = owed.iter().map(|owed| owed.shown.clone()).collect();
        let queue: Vec<_> = queue.iter().map(with_payload).collect();
        compare.equal("queue", &json!(queue), &json!(seen));
    }
    let dead = dead_letters(book, world)?;
    if let Some(tries) = &expect.tries {
        compare.tries(tries, &owed, &dead);
    }
    compare.unordered("dead", &expect.dead, dead.into_iter().map(|letter| letter.shown).collect());
    compare.unordered(
        "conflicts",
        &expect.conflicts.iter().map(with_lost).collect::<Vec<_>>(),
        lost(book)?,
    );
    compare.reads(expect, book)?;
    compare.cursor(expect.cursor, world, book)?;
    compare.settled(expect.settled.as_deref(), book)?;
    compare.record_states(expect, book)?;
    Ok(compare.found)
}

struct Compare {
    found: Vec<String>,
}

impl Compare {
    fn equal(&mut self, what: &str, expected: &Value, seen: &Value) {
        if expected != seen {
            self.found.push(format!("{what}: expected {expected}, got {seen}"));
        }
    }

    fn unordered(&mut self, what: &str, expected: &[Value], seen: Vec<Value>) {
        let mut left = seen.clone();
        let all =
            expected.iter().all(|wanted| match left.iter().position(|value| value == wanted) {
                Some(index) => {
                    left.swap_remove(index);
                    true
                }
                None => false,
            });
        if !all || !left.is_empty() {
            self.found.push(format!("{what}: expected {}, got {}", json!(expected), json!(seen)));
        }
    }

    fn sent(&mut self, expect: &Expect, seen: &[Vec<Value>]) {
        let whole = |requests: &Vec<Vec<Value>>| {
            let whole: Vec<Vec<Value>> =
                requests.iter().map(|request| request.iter().map(with_payload).collect()).collect();
            json!(whole)
        };
        let seen = json!(seen);
        if let Some(sent) = &expect.sent {
            self.equal("sent", &whole(sent), &seen);
        }
        if let Some(any) = &expect.sent_any_of {
            let any: Vec<_> = any.iter().map(whole).collect();
            if !any.contains(&seen) {
                self.found.push(format!("sent: expected one of {}, got {seen}", json!(any)));
            }
        }
    }

    /// Compares the tries. Tries are given by record, in the order of the queue, or as one number
    /// for the only op that is pending or dead.
    fn tries(&mut self, expected: &Value, owed: &[Owed], dead: &[Letter]) {
        let by_record: BTreeMap<_, _> = owed
            .iter()
            .rev()
            .map(|owed| (owed.key.to_string(), owed.tries))
            .chain(dead.iter().map(|letter| (letter.key.to_string(), letter.tries)))
            .collect();
        match expected {
            Value::Object(records) => {
                for (key, tries) in records {
                    let seen = by_record.get(key).copied().unwrap_or(0);
                    self.equal(&format!("tries of {key}"), tries, &json!(seen));
                }
            }
            Value::Array(_) => {
                let seen: Vec<_> = owed.iter().map(|owed| owed.tries).collect();
                self.equal("tries", expected, &json!(seen));
            }
            _ => {
                let mut seen = by_record.values();
                match (seen.next(), seen.next()) {
                    (Some(only), None) => self.equal("tries", expected, &json!(only)),
                    _ => self
                        .found
                        .push(format!("tries: expected one record, got {}", json!(by_record))),
                }
            }
        }
    }

    fn reads(&mut self, expect: &Expect, book: &Book) -> Result<(), Fault> {
        for (key, expected) in expect.view.iter().flatten() {
            let seen = match book.records().get(key)? {
                Some(record) => without_nulls(&json!(record.fields()?)),
                None => Value::Null,
            };
            self.equal(&format!("view of {key}"), &without_nulls(expected), &seen);
        }
        Ok(())
    }

    /// Compares the cursor. A case has one cursor, and the book has one for each entity type: all
    /// of these must equal the cursor of the case.
    fn cursor(&mut self, expected: Option<u64>, world: &World, book: &Book) -> Result<(), Fault> {
        let Some(expected) = expected else { return Ok(()) };
        let seen: BTreeMap<_, _> = book.snapshot()?.cursors()?.into_iter().collect();
        for entity in world.entities() {
            let text = seen.get(entity).map_or_else(
                || "0".to_owned(),
                |row| String::from_utf8_lossy(row.cursor.as_bytes()).into_owned(),
            );
            if text != expected.to_string() {
                self.found.push(format!("cursor of {entity}: expected {expected}, got {text}"));
            }
        }
        Ok(())
    }

    /// Compares the conflicts: of each expected conflict, the members that it names.
    fn settled(&mut self, expected: Option<&[Value]>, book: &Book) -> Result<(), Fault> {
        let Some(expected) = expected else { return Ok(()) };
        let seen: Vec<_> = book.conflicts().all()?.iter().map(conflict).collect();
        let mut left = seen.clone();
        let is_like = |seen: &Value, wanted: &Value| match wanted {
            Value::Object(wanted) => {
                wanted.iter().all(|(name, value)| seen.get(name).unwrap_or(&Value::Null) == value)
            }
            _ => false,
        };
        let all = expected.iter().all(|wanted| {
            match left.iter().position(|seen| is_like(seen, wanted)) {
                Some(index) => {
                    left.remove(index);
                    true
                }
                None => false,
            }
        });
        if !all || !left.is_empty() {
            self.found.push(format!("settled: expected {}, got {}", json!(expected), json!(seen)));
        }
        Ok(())
    }

    fn record_states(&mut self, expect: &Expect, book: &Book) -> Result<(), Fault> {
        if let Some(held) = &expect.held {
            let tail = book.snapshot()?.tail(book.schema())?;
            let plan = book.queue().plan();
            for (key, expected) in held {
                let waiting = tail.ops_of(key).filter(|place| !tail.is_dead(*place));
                let hold = waiting.filter_map(|place| plan.holds.get(&place)).map(reason).next();
                let seen = hold.unwrap_or_else(|| "not held".to_owned());
                self.equal(&format!("hold of {key}"), &json!(expected), &json!(seen));
            }
        }
        for (key, expected) in expect.status.iter().flatten() {
            let seen = status(&book.record_status(key)?);
            self.equal(&format!("status of {key}"), &json!(expected), &json!(seen));
        }
        if expect.fates.is_none() && expect.entries.is_none() {
            return Ok(());
        }
        let fates = Fates::read(book)?;
        let tail = book.snapshot()?.tail(book.schema())?;
        for (key, expected) in expect.fates.iter().flatten() {
            let seen = fates.of(key, |place| tail.is_dead(place));
            self.equal(&format!("fates of {key}"), &json!(expected), &json!(seen));
        }
        if let Some(expected) = expect.entries {
            self.equal("entries", &json!(expected), &json!(fates.entries()));
        }
        Ok(())
    }
}

/// A dead letter, in the form in which its change was sent.
struct Letter {
    key: RecordKey,
    tries: u32,
    shown: Value,
}

/// Returns the dead letters: one for each refused change, however many ops it has.
fn dead_letters(book: &Book, world: &World) -> Result<Vec<Letter>, Fault> {
    let mut letters: BTreeMap<(UnitId, RecordKey), Letter> = BTreeMap::new();
    for row in book.dead_letters().all()? {
        let unit = world.units.iter().find(|unit| unit.id == row.unit);
        let change = unit.and_then(|unit| unit.changes.iter().find(|change| change.key == row.key));
        let kind = change.map_or(row.kind, |change| change.kind);
        let shown = json!({"key": row.key, "op": kind, "code": row.code});
        let letter = Letter { key: row.key.clone(), tries: row.tries, shown };
        letters.insert((row.unit, row.key), letter);
    }
    Ok(letters.into_values().collect())
}

/// Returns the local edits that lost, one for each record and entry: the ops of one unit are one
/// edit.
fn lost(book: &Book) -> Result<Vec<Value>, Fault> {
    let mut edits: BTreeMap<(u64, RecordKey), Vec<Conflict>> = BTreeMap::new();
    for row in book.conflicts().all()? {
        if lost_fields(&row)?.is_some() {
            edits.entry((row.id.seq.number(), row.key.clone())).or_default().push(row);
        }
    }
    let mut found = Vec::new();
    for ((_, key), mut rows) in edits {
        rows.sort_by_key(|row| row.place);
        let mut lost = Fields::new();
        for row in &rows {
            lost.compose(lost_fields(row)?.unwrap_or_default());
        }
        let kind = rows.last().map(|row| row.kind);
        found.push(json!({"key": key, "op": kind, "lost": lost}));
    }
    Ok(found)
}

/// Returns the fields that an op lost, or `None` if it lost nothing.
fn lost_fields(row: &Conflict) -> Result<Option<Fields>, Fault> {
    let local = row.local.to_fields().map_err(|fault| Fault::Broken(fault.to_string()))?;
    if row.fields.is_empty() {
        return Ok((row.winner == Winner::Remote).then_some(local));
    }
    let lost: Vec<_> = row
        .fields
        .iter()
        .filter(|field| field.winner == Winner::Remote)
        .map(|field| field.name.as_str())
        .collect();
    Ok((!lost.is_empty()).then(|| local.filtered(|name| lost.contains(&name))))
}

fn conflict(row: &Conflict) -> Value {
    let fields: Map<_, _> =
        row.fields.iter().map(|field| (field.name.clone(), json!(field.winner))).collect();
    json!({
        "key": row.key, "op": row.kind, "winner": row.winner, "rule": row.rule, "fields": fields, "open": row.open,
        "base": row.base, "local": row.local, "remote": row.remote, "merged": row.merged,
        "functions": row.functions.iter().map(|by| by.function.clone()).collect::<Vec<_>>(),
    })
}

fn reason(hold: &Hold) -> String {
    match hold {
        Hold::UndoWindow { .. } => "undo_window".to_owned(),
        Hold::WaitsFor(key) => format!("waits_for {key}"),
        Hold::DeadCreate => "dead_create".to_owned(),
        Hold::BackingOff { code, .. } => format!("backing_off {code}"),
        Hold::NotLetThrough { code, .. } => format!("not_let_through {code}"),
        Hold::Behind(_) => "behind".to_owned(),
        Hold::After(_) => "after".to_owned(),
        Hold::UnmeteredNetwork => "unmetered_network".to_owned(),
        Hold::Parked { scope, code } => format!("parked {} {code}", park(scope)),
        Hold::OtherActor(actor) => format!("other_actor {actor}"),
        Hold::LocalOnly => "local_only".to_owned(),
        Hold::TargetDeleted(key) => format!("gone {key}"),
        Hold::Refused { reason } => format!("refused {reason}"),
        Hold::TooLarge { bytes } => format!("too_large {bytes}"),
        Hold::NoUpcaster { from, to } => format!("no_upcaster {from} {to}"),
        _ => "other".to_owned(),
    }
}

fn park(scope: &ParkScope) -> String {
    match scope {
        ParkScope::Actor(actor) => format!("actor {actor}"),
        ParkScope::Entity(entity) => format!("entity {entity}"),
        ParkScope::Op(_) => "op".to_owned(),
        ParkScope::Server(..) => "server".to_owned(),
        ParkScope::Protocol => "protocol".to_owned(),
        ParkScope::Tenant(_) => "tenant".to_owned(),
    }
}

fn status(status: &RecordStatus) -> String {
    match status {
        RecordStatus::Synced => "synced".to_owned(),
        RecordStatus::Pending => "pending".to_owned(),
        RecordStatus::InFlight => "in_flight".to_owned(),
        RecordStatus::WaitingForNetwork => "waiting_for_network".to_owned(),
        RecordStatus::Parked(reason) => {
            format!("parked {}", json!(reason).as_str().unwrap_or_default())
        }
        RecordStatus::Unknown => "unknown".to_owned(),
        RecordStatus::Held(hold) => format!("held {}", reason(hold)),
        RecordStatus::DeadLettered { code, .. } => format!("dead_lettered {code}"),
        RecordStatus::InConflict(_) => "in_conflict".to_owned(),
        _ => "other".to_owned(),
    }
}

/// Returns an op with its payload: a delete may leave it out.
fn with_payload(op: &Value) -> Value {
    match op {
        Value::Array(members) if members.len() == 2 => {
            Value::Array(members.iter().cloned().chain([Value::Null]).collect())
        }
        op => op.clone(),
    }
}

/// Returns a lost edit with its fields: a delete may leave them out.
fn with_lost(edit: &Value) -> Value {
    let mut edit = edit.clone();
    if let Value::Object(members) = &mut edit
        && members.get("lost").is_none_or(Value::is_null)
    {
        members.insert("lost".to_owned(), json!({}));
    }
    edit
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        value => value.clone(),
    }
}
