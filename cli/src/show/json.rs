//! JSON for machines. The names are promised: `cli/README.md` lists every shape, and members are
//! only ever added.

use fieldbook::audit::Seq;
use fieldbook::audit::entry::{
    Baseline, BaselineRecord, ChangeMeta, Conflicted, Control, Decision, Entry, Erased,
    ErasedRecords, Extent, Item, ItemIndex, LastStop, Meta, OpMeta, OutcomeMeta, ParkScope,
    PersonAction, PlannedOp, PlannedUnit, Receipt, ResolvedBy, Restamp, Session, Silence, Trimmed,
    Upstream,
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
        Hold::WaitsFor(key) | Hold::TargetDeleted(key) => json!({ "reason": reason, "key": key }),
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
        Meta::Upstream(found) => upstream(entry, found),
        Meta::Control(decided) => control(entry, decided),
    };
    if let (Value::Object(members), Value::Object(says)) = (&mut value, says) {
        members.extend(says);
        if entry.told {
            members.insert("told".to_owned(), json!(true));
        }
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
        "remote_extent": extent(row.extent),
        "remote_edited_at": time::utc(row.remote_edited_at.wall()),
        "remote_by": row.remote_by,
        "fields": fields,
        "winner": row.winner,
        "rule": row.rule.as_str(),
        "functions": functions(&row.functions),
        "open": row.open,
        "base": row.base,
        "local": row.local,
        "remote": row.remote,
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

fn upstream(entry: &Entry, upstream: &Upstream) -> Value {
    let cursors: Map<String, Value> = upstream
        .cursors
        .iter()
        .map(|(entity, cursor)| (entity.to_string(), json!(cursor)))
        .collect();
    json!({
        "request": upstream.request,
        "server": upstream.server,
        "server_epoch": upstream.epoch,
        "server_time": time::utc(upstream.server_time),
        "outcomes": upstream.outcomes.iter().map(|one| outcome(entry, one)).collect::<Vec<_>>(),
        "changes": upstream.changes.iter().map(|one| change(entry, one)).collect::<Vec<_>>(),
        "cursors": cursors,
        "receipt": upstream.receipt,
    })
}

fn outcome(entry: &Entry, one: &OutcomeMeta) -> Value {
    json!({
        "unit": one.unit,
        "class": show::class(one.class),
        "code": one.code,
        "message": one.message.map(|index| text(entry, index)),
        "versions": versions(&one.versions),
    })
}

fn baseline_record(entry: &Entry, one: &BaselineRecord) -> Value {
    json!({
        "change": change(entry, &one.change),
        "synced_at": one.synced_at.map(time::utc),
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
        "undeclared": one.undeclared,
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
            "cancelled": planned.cancelled.iter().map(|one| json!({
                "key": one.key, "ops": ops(&one.ops), "reason": words::cancelled(one.reason),
            })).collect::<Vec<_>>(),
        }),
        Control::Decided(decisions) => json!({ "control": "decided", "decisions": all(decisions) }),
        Control::PersonActed(action, decisions) => {
            let reason = match action {
                PersonAction::Discard { reason } => Some(text(entry, *reason)),
                _ => None,
            };
            json!({ "control": "person_acted", "action": show::action(action), "reason": reason, "decisions": all(decisions) })
        }
        Control::EpochStarted { epoch, anchored } => {
            json!({ "control": "epoch_started", "started": epoch, "anchored": anchored.map(receipt) })
        }
        Control::Session(opened) => session(entry, opened),
        Control::Silence(silences) => json!({
            "control": "silence", "silences": silences.iter().map(silence).collect::<Vec<_>>(),
        }),
        Control::Note(signed) => json!({
            "control": "note", "note": signed.note, "keys": signed.keys,
        }),
        Control::Erased(Erased { records, items }) => {
            let (which, keys) = match records {
                ErasedRecords::Only(keys) => ("only", keys),
                ErasedRecords::Except(keys) => ("except", keys),
            };
            json!({ "control": "erased", "items": items, "records": { which: keys } })
        }
        Control::Baseline(Baseline { records, state }) => json!({
            "control": "baseline",
            "records": records.iter().map(|one| baseline_record(entry, one)).collect::<Vec<_>>(),
            "is_joint": state.is_some(),
        }),
        Control::Trimmed(Trimmed { upto, baseline, entries, archive }) => json!({
            "control": "trimmed",
            "upto": receipt(*upto),
            "baseline": baseline,
            "entries": entries,
            "archive": archive,
        }),
        Control::Authors(authors) => json!({
            "control": "authors",
            "authors": authors
                .iter()
                .map(|one| json!({ "actor": one.actor, "changes": one.changes }))
                .collect::<Vec<_>>(),
        }),
    }
}

fn session(entry: &Entry, opened: &Session) -> Value {
    json!({
        "control": "session",
        "program": opened.program,
        "app": opened.app.as_ref().map(|app| json!({ "name": app.name, "version": app.version })),
        "system": opened.system,
        "utc_offset_minutes": opened.utc_offset,
        "last_stop": match opened.last_stop {
            LastStop::None => Value::Null,
            LastStop::Clean => json!("clean"),
            LastStop::Unclean => json!("unclean"),
        },
        "schema_digest": opened.schema_digest,
        "schema": opened.schema.map(|index| item(entry, index)),
    })
}

fn silence(silence: &Silence) -> Value {
    let codes = silence.codes.iter().map(|(code, times)| (code.clone(), json!(times)));
    json!({
        "from": time::utc(silence.from),
        "to": time::utc(silence.to),
        "attempts": silence.attempts,
        "codes": codes.collect::<Map<_, _>>(),
        "answers": silence.answers,
    })
}

fn unit(unit: &PlannedUnit) -> Value {
    let changes: Vec<_> = unit
        .changes
        .iter()
        .map(|one| json!({ "key": one.key, "kind": one.kind, "ops": ops(&one.ops), "base": one.base }))
        .collect();
    json!({ "unit": unit.id, "actor": unit.actor, "digest": unit.digest, "earlier_units": unit.earlier_units, "changes": changes })
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
        Decision::Requeued { unit, .. } => json!({ "decision": "requeued", "unit": unit }),
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
            "message": message.map(|index| text(entry, index)), "answered": answered,
        }),
        Decision::Retried { key, op } => of_op("retried", key, op),
        Decision::Discarded { key, op } => of_op("discarded", key, op),
        Decision::Cancelled(one) => json!({
            "decision": "cancelled", "key": one.key, "ops": ops(&one.ops), "reason": words::cancelled(one.reason),
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
        Decision::Adopted { key, seq, .. } => {
            json!({ "decision": "adopted", "key": key, "seq": seq })
        }
        Decision::BelongsTo { tenant } => json!({ "decision": "belongs_to", "tenant": tenant }),
        Decision::SetAside { fault, version, name, row } => json!({
            "decision": "set_aside", "name": text(entry, *name), "version": version, "fault": fault,
            "row": row.map(|index| text(entry, index)),
        }),
        Decision::HandedOver { key, op, to } => json!({
            "decision": "handed_over", "key": key, "place": op.place, "op": op.id, "to": to,
        }),
        Decision::LetGo { key, version } => {
            json!({ "decision": "let_go", "key": key, "version": version })
        }
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
        "local": item(entry, conflict.local),
        "remote": item(entry, conflict.remote),
        "merged": conflict.merged.map(|index| item(entry, index)),
    })
}

/// Returns the functions of the app that resolved a conflict. The field is null for the whole
/// record.
fn functions(functions: &[ResolvedBy]) -> Value {
    let each = functions
        .iter()
        .map(|resolution| json!({ "field": resolution.field, "name": resolution.function }));
    each.collect()
}

fn of_op(word: &str, key: &RecordKey, op: &PlannedOp) -> Value {
    json!({ "decision": word, "key": key, "place": op.place, "op": op.id })
}

/// Returns an item with fields. In the place of an object there is a text for fields that were
/// erased or do not read, so that both differ from each other and from no fields, which are null.
fn item(entry: &Entry, index: ItemIndex) -> Value {
    let item = usize::try_from(index).ok().and_then(|index| entry.items.get(index));
    if item.is_some_and(Item::is_hidden) {
        return hidden(entry, index);
    }
    match item.map(Item::bytes) {
        Some(Some(bytes)) => serde_json::from_slice(bytes).unwrap_or_else(|_| json!(UNREADABLE)),
        Some(None) => json!(ERASED),
        None => json!(UNREADABLE),
    }
}

/// Returns an item with text. In the place of a text there is an object for a text that was erased
/// or does not read.
fn text(entry: &Entry, index: ItemIndex) -> Value {
    let item = usize::try_from(index).ok().and_then(|index| entry.items.get(index));
    if item.is_some_and(Item::is_hidden) {
        return json!({ HIDDEN: true });
    }
    match item.map(|item| item.bytes().map(std::str::from_utf8)) {
        Some(Some(Ok(text))) => json!(text),
        Some(None) => json!({ ERASED: true }),
        Some(Some(Err(_))) | None => json!({ UNREADABLE: true }),
    }
}

/// Returns what a bundle tells of a hidden item: an object with the told fields, and the one that
/// stands for all others. A text stands for fields of which nothing is told.
fn hidden(entry: &Entry, index: ItemIndex) -> Value {
    let told = entry.fields(index).ok().flatten().and_then(|fields| fields.to_fields().ok());
    match told {
        Some(told) if told.len() > 1 => json!(told),
        _ => json!(HIDDEN),
    }
}

/// Stands for what a bundle left out.
const HIDDEN: &str = "hidden";
/// Stands for fields that were erased.
const ERASED: &str = "erased";
/// Stands for fields that do not read.
const UNREADABLE: &str = "unreadable";

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

#[cfg(test)]
mod tests {
    use fieldbook::audit::entry::ItemValue;

    use super::*;

    #[test]
    fn what_was_erased_what_does_not_read_and_nothing_are_told_apart() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/format-2/example.log");
        let bytes = std::fs::read(golden).unwrap();
        let at = b"fieldbook-log 1\n".len();
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let end = at + 4 + usize::try_from(length).unwrap();
        let mut entry = Entry::decode(&bytes[at + 4..end]).unwrap();
        let present =
            |bytes: &[u8]| Item::Present { salt: [0; 16], value: ItemValue::Bytes(bytes.to_vec()) };
        let whole = present(br#"{"a":null}"#);
        let erased = Item::Erased { commitment: whole.commitment() };
        entry.items = vec![whole, erased, present(b"\xff{"), present(b"erased")];
        assert_eq!(item(&entry, 0), json!({ "a": null }));
        assert_eq!((item(&entry, 1), item(&entry, 2)), (json!("erased"), json!("unreadable")));
        assert_eq!(item(&entry, 9), json!("unreadable"), "the item is missing");
        assert_eq!(text(&entry, 3), json!("erased"), "somebody wrote so");
        assert_eq!(text(&entry, 1), json!({ "erased": true }));
        assert_eq!(text(&entry, 2), json!({ "unreadable": true }));
        let commitment = entry.items[0].commitment();
        let hidden = |told: &[u8]| Item::Hidden { commitment, told: told.to_vec() };
        entry.items = vec![hidden(b""), hidden(br#"{"a":1}"#)];
        assert_eq!(item(&entry, 0), json!("hidden"));
        let told = json!({ "(not in this bundle)": "values of entry 1", "a": 1 });
        assert_eq!(item(&entry, 1), told);
        assert_eq!(text(&entry, 0), json!({ "hidden": true }));
    }
}
