//! JSON for machines. The names are promised: `cli/README.md` lists every shape, and members are
//! only ever added.

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{
    ChangeMeta, Conflicted, Control, Decision, Entry, Extent, ItemIndex, Meta, OpMeta, OutcomeMeta,
    ParkScope, PlannedOp, PlannedUnit, Receipt, Restamp, SettledBy, Upstream, Verb,
};
use fieldbook::conflict::{Conflict, DeadLetter};
use fieldbook::host::WallTime;
use fieldbook::record::{OpPlace, UnitId, Version};
use fieldbook::sync::{Hold, ParkReason, RecordStatus};
use fieldbook::{Fields, Record, RecordKey};
use serde_json::{Map, Value, json};

use super::{entry as show, time, words};

/// Returns a record with its status.
pub(crate) fn record(record: &Record, status: Option<&RecordStatus>) -> Value {
    let mut value = json!({
        "key": record.key,
        "entity": record.key.entity,
        "id": record.key.id,
        "version": record.version,
        "pending": record.pending,
        "synced_at": moment(record.synced_at),
        "fields": record.json,
    });
    if let (Some(status), Some(members)) = (status, value.as_object_mut()) {
        members.insert("status".to_owned(), self::status(status));
    }
    value
}

/// Returns a record's status: `state`, with its details.
pub(crate) fn status(status: &RecordStatus) -> Value {
    let state = status.state().as_str();
    match status {
        RecordStatus::Held(why) => json!({ "state": state, "hold": hold(why) }),
        RecordStatus::DeadLettered { code, message } => {
            json!({ "state": state, "code": code, "message": message })
        }
        RecordStatus::InConflict(id) => json!({ "state": state, "conflict": id.to_string() }),
        RecordStatus::Parked(reason) => json!({ "state": state, "reason": reason }),
        _ => json!({ "state": state }),
    }
}

/// Returns a hold: `reason`, with its details.
pub(crate) fn hold(hold: &Hold) -> Value {
    let reason = words::hold_name(hold);
    match hold {
        Hold::UndoWindow { until } => json!({ "reason": reason, "until": time::utc(*until) }),
        Hold::BackingOff { until, code } => {
            json!({ "reason": reason, "until": time::utc(*until), "code": code })
        }
        Hold::NotLetThrough { until, code, times } => {
            json!({ "reason": reason, "until": until.map(time::utc), "code": code, "times": times })
        }
        Hold::WaitsFor(key) | Hold::Gone(key) => json!({ "reason": reason, "key": key }),
        Hold::TooLarge { bytes } => json!({ "reason": reason, "bytes": bytes }),
        Hold::Refused { reason: words } => json!({ "reason": reason, "words": words }),
        Hold::Behind(unit) => json!({ "reason": reason, "unit": unit }),
        Hold::After(place) => json!({ "reason": reason, "op": place }),
        Hold::Parked { scope, code } => json!({
            "reason": reason, "scope": park(scope), "code": code, "why": ParkReason::of(scope, code),
        }),
        Hold::OtherActor(actor) => json!({ "reason": reason, "actor": actor }),
        Hold::NoUpcaster { from, to } => json!({ "reason": reason, "from": from, "to": to }),
        _ => json!({ "reason": reason }),
    }
}

/// Returns what is parked.
pub(crate) fn park(scope: &ParkScope) -> Value {
    let what = words::park_name(scope);
    match scope {
        ParkScope::Actor(actor) => json!({ "what": what, "actor": actor }),
        ParkScope::Entity(entity) => json!({ "what": what, "entity": entity }),
        ParkScope::Op(op) => json!({ "what": what, "op": op }),
        ParkScope::Server(server, epoch) => {
            json!({ "what": what, "server": server, "server_epoch": epoch })
        }
        ParkScope::Protocol => json!({ "what": what }),
        ParkScope::Tenant(tenant) => json!({ "what": what, "tenant": tenant }),
    }
}

/// Returns a time, or null.
pub(crate) fn moment(time: Option<WallTime>) -> Value {
    time.map_or(Value::Null, |time| Value::String(time::utc(time)))
}

/// Returns an entry.
pub(crate) fn entry(entry: &Entry) -> Value {
    let mut value = json!({
        "seq": entry.header.seq,
        "kind": entry.header.kind.as_str(),
        "at": time::utc(entry.header.wall),
        "actor": entry.header.actor,
        "epoch": entry.header.epoch,
        "hlc": entry.header.hlc,
        "hash": entry.hash,
    });
    let says = match &entry.meta {
        Meta::Intent(intent) => {
            json!({ "ops": show::placed(entry, intent).map(|(place, meta)| op(entry, place, meta)).collect::<Vec<_>>() })
        }
        Meta::Upstream(said) => upstream(entry, said),
        Meta::Control(decided) => control(entry, decided),
    };
    if let (Value::Object(members), Value::Object(says)) = (&mut value, says) {
        members.extend(says);
    }
    value
}

/// Returns a dead letter. `fields` are those of its op, `dependants` are the ops that wait for it.
pub(crate) fn dead_letter(row: &DeadLetter, fields: &Fields, dependants: &[OpPlace]) -> Value {
    json!({
        "place": row.place,
        "op": row.op,
        "key": row.key,
        "kind": row.kind,
        "actor": row.actor,
        "unit": row.unit,
        "code": row.code,
        "message": row.message,
        "tries": row.tries,
        "first_at": time::utc(row.first_at),
        "last_at": time::utc(row.last_at),
        "recorded": row.recorded,
        "fields": fields,
        "dependants": dependants,
    })
}

/// Returns a conflict.
pub(crate) fn conflict(row: &Conflict) -> Value {
    let fields: Vec<_> = row
        .fields
        .iter()
        .map(|field| json!({ "name": field.name, "rule": field.rule.as_str(), "winner": field.winner }))
        .collect();
    json!({
        "id": row.id.to_string(),
        "key": row.key,
        "place": row.place,
        "op": row.op,
        "kind": row.kind,
        "at": time::utc(row.at),
        "edited_at": time::utc(row.edited_at.wall()),
        "version": row.version,
        "remote": extent(row.extent),
        "remote_edited_at": time::utc(row.remote_edited_at.wall()),
        "fields": fields,
        "winner": row.winner,
        "rule": row.rule.as_str(),
        "functions": functions(&row.functions),
        "open": row.open,
        "base": row.base,
        "mine": row.local,
        "theirs": row.remote,
        "merged": row.merged,
    })
}

fn op(entry: &Entry, place: OpPlace, meta: &OpMeta) -> Value {
    json!({
        "place": place,
        "op": meta.id,
        "key": meta.key,
        "kind": meta.kind,
        "fields": meta.fields.map(|index| item(entry, index)),
        "base": meta.base,
        "edited_at": time::utc(meta.edited_at.wall()),
        "clock_capped": meta.clock_capped,
        "schema_version": meta.schema_version,
        "cites": meta.cites,
    })
}

fn upstream(entry: &Entry, said: &Upstream) -> Value {
    let cursors: Map<String, Value> =
        said.cursors.iter().map(|(entity, cursor)| (entity.to_string(), json!(cursor))).collect();
    json!({
        "request": said.request,
        "server": said.server,
        "server_epoch": said.epoch,
        "server_time": time::utc(said.server_time),
        "outcomes": said.outcomes.iter().map(|one| outcome(entry, one)).collect::<Vec<_>>(),
        "changes": said.changes.iter().map(|one| change(entry, one)).collect::<Vec<_>>(),
        "cursors": cursors,
        "receipt": said.receipt,
    })
}

fn outcome(entry: &Entry, one: &OutcomeMeta) -> Value {
    json!({
        "unit": one.unit,
        "class": show::class(one.class),
        "code": one.code,
        "message": one.message.map(|index| show::item(entry, index)),
        "versions": versions(&one.versions),
    })
}

fn change(entry: &Entry, one: &ChangeMeta) -> Value {
    json!({
        "key": one.key,
        "version": one.version,
        "extent": extent(one.extent),
        "op": one.op,
        "edited_at": time::utc(one.edited_at.wall()),
        "fields": one.fields.map(|index| item(entry, index)),
        "kept_aside": one.kept_aside,
    })
}

fn control(entry: &Entry, decided: &Control) -> Value {
    let all = |decisions: &[Decision]| {
        (0u32..)
            .zip(decisions)
            .map(|(number, one)| decision(entry, number, one))
            .collect::<Vec<_>>()
    };
    match decided {
        Control::Opened(opened) => {
            json!({ "control": "opened", "device": opened.device, "made_by": opened.made_by })
        }
        Control::Planned(planned) => json!({
            "control": "planned",
            "units": planned.units.iter().map(unit).collect::<Vec<_>>(),
            "annulled": planned.annulled.iter().map(|one| json!({
                "key": one.key, "ops": ops(&one.ops), "reason": words::annulled(one.reason),
            })).collect::<Vec<_>>(),
        }),
        Control::Decided(decisions) => json!({ "control": "decided", "decisions": all(decisions) }),
        Control::Verb(word, decisions) => {
            let reason = match word {
                Verb::Discard { reason } => Some(show::item(entry, *reason)),
                _ => None,
            };
            json!({ "control": "verb", "verb": show::verb(word), "reason": reason, "decisions": all(decisions) })
        }
        Control::EpochStarted { epoch, anchored } => {
            json!({ "control": "epoch_started", "started": epoch, "anchored": anchored.map(receipt) })
        }
    }
}

fn unit(unit: &PlannedUnit) -> Value {
    let changes: Vec<_> = unit
        .changes
        .iter()
        .map(|one| json!({ "key": one.key, "kind": one.kind, "ops": ops(&one.ops), "base": one.base }))
        .collect();
    json!({ "unit": unit.id, "actor": unit.actor, "digest": unit.digest, "replaces": unit.replaces, "changes": changes })
}

fn decision(entry: &Entry, number: u32, decision: &Decision) -> Value {
    match decision {
        Decision::Acked { unit, versions: got, .. } => {
            json!({ "decision": "acked", "unit": unit, "versions": versions(got) })
        }
        Decision::Tried { unit, tries, code, retry_at, .. } => json!({
            "decision": "tried", "unit": unit, "tries": tries, "code": code, "retry_at": time::utc(*retry_at),
        }),
        Decision::Suspected { units, times, code, retry_at } => {
            suspected(units, *times, code, *retry_at)
        }
        Decision::Dissolved { unit, .. } => json!({ "decision": "dissolved", "unit": unit }),
        Decision::Conflicted(conflict) => conflicted(entry, number, conflict),
        Decision::Superseded { key, op } => of_op("superseded", key, op),
        Decision::Dropped { key, op, fields } => json!({
            "decision": "dropped", "key": key, "place": op.place, "op": op.id, "fields": fields,
        }),
        Decision::Raised { key, op, fields, edited_at, values } => json!({
            "decision": "raised", "key": key, "place": op.place, "op": op.id, "fields": fields,
            "edited_at": time::utc(edited_at.wall()), "values": values.map(|index| item(entry, index)),
        }),
        Decision::BroughtBack { key, op, read } => json!({
            "decision": "brought_back", "key": key, "place": op.place, "op": op.id, "read": item(entry, *read),
        }),
        Decision::DeadLettered { unit, tries, code, message, answered, .. } => json!({
            "decision": "dead_lettered", "unit": unit, "tries": tries, "code": code,
            "message": message.map(|index| show::item(entry, index)), "answered": answered,
        }),
        Decision::Retried { key, op } => of_op("retried", key, op),
        Decision::Discarded { key, op } => of_op("discarded", key, op),
        Decision::Annulled(one) => json!({
            "decision": "annulled", "key": one.key, "ops": ops(&one.ops), "reason": words::annulled(one.reason),
        }),
        Decision::Parked { scope, code } => {
            json!({ "decision": "parked", "scope": park(scope), "code": code })
        }
        Decision::Unparked { scope } => json!({ "decision": "unparked", "scope": park(scope) }),
        Decision::Resolved { key, op, winner, merged } => json!({
            "decision": "resolved", "key": key, "place": op.place, "op": op.id, "winner": winner,
            "merged": merged.map(|index| item(entry, index)),
        }),
        Decision::ServerAccepted { server } => json!({
            "decision": "server_accepted",
            "server": server.map(|(server, _)| server), "server_epoch": server.map(|(_, epoch)| epoch),
        }),
        Decision::ServerRead => json!({ "decision": "server_read" }),
        Decision::Restamped { server_time, ops } => restamped(*server_time, ops),
        Decision::Upcast { key, op, schema_version, fields } => json!({
            "decision": "upcast", "key": key, "place": op.place, "op": op.id, "schema_version": schema_version,
            "fields": item(entry, *fields),
        }),
        Decision::TakenIn { key, seq, .. } => {
            json!({ "decision": "taken_in", "key": key, "seq": seq })
        }
        Decision::BelongsTo { tenant } => json!({ "decision": "belongs_to", "tenant": tenant }),
        Decision::SetAside { fault, version, name, row } => json!({
            "decision": "set_aside", "name": show::item(entry, *name), "version": version, "fault": fault,
            "row": row.map(|index| show::item(entry, index)),
        }),
        Decision::ReadForeign { entity, cursor } => {
            json!({ "decision": "read_foreign", "entity": entity, "cursor": cursor })
        }
    }
}

fn suspected(units: &[(UnitId, Seq)], times: u32, code: &str, retry_at: Option<WallTime>) -> Value {
    json!({
        "decision": "suspected", "units": units.iter().map(|(unit, _)| unit).collect::<Vec<_>>(), "times": times,
        "code": code, "retry_at": retry_at.map(time::utc),
    })
}

fn restamped(server_time: WallTime, ops: &[Restamp]) -> Value {
    let ops = ops.iter().map(|restamp| {
        json!({
            "key": restamp.key, "place": restamp.op.place, "op": restamp.op.id,
            "edited_at": time::utc(restamp.edited_at.wall()),
        })
    });
    json!({
        "decision": "restamped", "server_time": time::utc(server_time), "ops": ops.collect::<Vec<_>>(),
    })
}

fn conflicted(entry: &Entry, number: u32, conflict: &Conflicted) -> Value {
    json!({
        "decision": "conflicted",
        "id": format!("{}.{number}", entry.header.seq),
        "key": conflict.key,
        "place": conflict.op.place,
        "version": conflict.version,
        "winner": conflict.winner,
        "rule": conflict.rule.as_str(),
        "functions": functions(&conflict.functions),
        "fields": conflict.fields.iter().map(|field| json!({
            "name": field.name, "rule": field.rule.as_str(), "winner": field.winner,
        })).collect::<Vec<_>>(),
        "base": item(entry, conflict.base),
        "mine": item(entry, conflict.local),
        "theirs": item(entry, conflict.remote),
        "merged": conflict.merged.map(|index| item(entry, index)),
    })
}

/// Returns the functions of the app that settled a conflict. The field is null for the whole
/// record.
fn functions(functions: &[SettledBy]) -> Value {
    let each =
        functions.iter().map(|settled| json!({ "field": settled.field, "name": settled.function }));
    each.collect()
}

fn of_op(word: &str, key: &RecordKey, op: &PlannedOp) -> Value {
    json!({ "decision": word, "key": key, "place": op.place, "op": op.id })
}

/// Returns an item as JSON, or null if it was erased or is not JSON.
fn item(entry: &Entry, index: ItemIndex) -> Value {
    entry.item(index).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or(Value::Null)
}

fn ops(ops: &[PlannedOp]) -> Vec<OpPlace> {
    ops.iter().map(|op| op.place).collect()
}

fn versions(versions: &[(RecordKey, Version)]) -> Vec<Value> {
    versions.iter().map(|(key, version)| json!({ "key": key, "version": version })).collect()
}

fn receipt(receipt: Receipt) -> Value {
    json!({ "seq": receipt.seq, "hash": receipt.hash })
}

const fn extent(extent: Extent) -> &'static str {
    match extent {
        Extent::Whole => "whole",
        Extent::Partial => "partial",
        Extent::Deleted => "deleted",
    }
}
