//! The names and ids in an entry: a copy of its header and its meta part with other ones.
//!
//! Invariants:
//! 1. A new variant, or a new member of one, does not compile without a decision here.
//! 2. Everything else is as it was: numbers, times, codes, places, names of types and fields.

use crate::entry::{
    Authored, Baseline, BaselineRecord, BaselineState, Cancelled, ChangeMeta, Conflicted, Control,
    Decision, Erased, ErasedRecords, Header, Intent, Meta, OpMeta, Opened, OutcomeMeta, ParkScope,
    PersonAction, Planned, PlannedChange, PlannedOp, PlannedUnit, ResolvedBy, Restamp, SignedNote,
    Upstream,
};
use crate::ids::{DeviceId, Epoch, OpId, RequestId, TenantId, UnitId};
use crate::names::{Actor, RecordKey};
use crate::numbers::{Cursor, Hash, Version};
use crate::record::{EditStamp, FieldWrites};

/// The names that take the place of those in an entry.
pub(super) trait Names {
    /// Returns the name of a record.
    fn record(&mut self, key: &RecordKey) -> RecordKey;
    /// Returns the name of an actor.
    fn actor(&mut self, actor: &Actor) -> Actor;
    /// Returns the id of an op.
    fn op(&mut self, id: OpId) -> OpId;
    /// Returns the id of a unit.
    fn unit(&mut self, id: UnitId) -> UnitId;
    /// Returns the id of a request.
    fn request(&mut self, id: RequestId) -> RequestId;
    /// Returns the id of the device.
    fn device(&mut self, id: DeviceId) -> DeviceId;
    /// Returns an epoch of the log.
    fn epoch(&mut self, id: Epoch) -> Epoch;
    /// Returns the id of a tenant.
    fn tenant(&mut self, id: TenantId) -> TenantId;
    /// Returns the hash of what a unit sends.
    fn digest(&mut self, digest: Hash) -> Hash;
    /// Returns a cursor, which has any bytes that the server chose.
    fn cursor(&mut self, cursor: &Cursor) -> Cursor;
    /// Returns text that the server chose.
    fn foreign(&mut self, text: &str) -> String;
    /// Returns a signed note, which names the device, its epoch and the signer.
    fn note(&mut self, note: &SignedNote) -> SignedNote;
}

/// Returns a header with other names.
pub(super) fn header(from: &Header, names: &mut dyn Names) -> Header {
    let Header { format, kind, epoch, seq, hlc, wall, actor } = from;
    let (epoch, actor) = (names.epoch(*epoch), names.actor(actor));
    Header { format: *format, kind: *kind, epoch, seq: *seq, hlc: *hlc, wall: *wall, actor }
}

/// Returns a meta part with other names.
pub(super) fn meta(from: &Meta, names: &mut dyn Names) -> Meta {
    match from {
        Meta::Intent(Intent { ops }) => {
            Meta::Intent(Intent { ops: ops.iter().map(|one| op(one, names)).collect() })
        }
        Meta::Upstream(one) => Meta::Upstream(upstream(one, names)),
        Meta::Control(one) => Meta::Control(control(one, names)),
    }
}

fn op(from: &OpMeta, names: &mut dyn Names) -> OpMeta {
    let OpMeta { id, key, kind, edited_at, clock_capped, base, schema_version, fields, cites } =
        from;
    OpMeta {
        id: names.op(*id),
        key: names.record(key),
        kind: *kind,
        edited_at: *edited_at,
        clock_capped: *clock_capped,
        base: *base,
        schema_version: *schema_version,
        fields: *fields,
        cites: cites.map(|id| names.op(id)),
    }
}

fn upstream(from: &Upstream, names: &mut dyn Names) -> Upstream {
    let Upstream { request, server, epoch, server_time, outcomes, changes, cursors, receipt } =
        from;
    let outcome = |one: &OutcomeMeta, names: &mut dyn Names| {
        let OutcomeMeta { unit, class, code, message, versions } = one;
        let (unit, versions) = (names.unit(*unit), versions_of(versions, names));
        OutcomeMeta { unit, class: *class, code: code.clone(), message: *message, versions }
    };
    Upstream {
        request: names.request(*request),
        server: *server,
        epoch: *epoch,
        server_time: *server_time,
        outcomes: outcomes.iter().map(|one| outcome(one, names)).collect(),
        changes: changes.iter().map(|one| change(one, names)).collect(),
        cursors: cursors.iter().map(|(of, at)| (of.clone(), names.cursor(at))).collect(),
        receipt: *receipt,
    }
}

fn change(from: &ChangeMeta, names: &mut dyn Names) -> ChangeMeta {
    let ChangeMeta { key, version, extent, edited_at, op, older, floor, fields, undeclared } = from;
    ChangeMeta {
        key: names.record(key),
        version: *version,
        extent: *extent,
        edited_at: *edited_at,
        op: names.op(*op),
        older: older_of(older, names),
        floor: floor.map(|EditStamp { edited_at, op }| EditStamp { edited_at, op: names.op(op) }),
        fields: *fields,
        undeclared: *undeclared,
    }
}

fn control(from: &Control, names: &mut dyn Names) -> Control {
    match from {
        Control::Opened(Opened { device, made_by }) => {
            Control::Opened(Opened { device: names.device(*device), made_by: made_by.clone() })
        }
        Control::Planned(Planned { units, cancelled: ended }) => Control::Planned(Planned {
            units: units.iter().map(|one| unit(one, names)).collect(),
            cancelled: ended.iter().map(|one| cancelled(one, names)).collect(),
        }),
        Control::Decided(decisions) => Control::Decided(all(decisions, names)),
        Control::PersonActed(action, decisions) => {
            let action = match action {
                PersonAction::Retry
                | PersonAction::Discard { reason: _ }
                | PersonAction::Undo
                | PersonAction::Resolve
                | PersonAction::Resume
                | PersonAction::AcceptServer
                | PersonAction::HandOver => action.clone(),
            };
            Control::PersonActed(action, all(decisions, names))
        }
        Control::EpochStarted { epoch, anchored } => {
            Control::EpochStarted { epoch: names.epoch(*epoch), anchored: *anchored }
        }
        // Programs, systems, zones, codes and times name nobody.
        Control::Session(session) => Control::Session(session.clone()),
        Control::Silence(silences) => Control::Silence(silences.clone()),
        Control::Authors(authors) => Control::Authors(
            authors
                .iter()
                .map(|Authored { actor, changes }| Authored {
                    actor: names.actor(actor),
                    changes: changes.clone(),
                })
                .collect(),
        ),
        Control::Note(note) => Control::Note(names.note(note)),
        Control::Erased(Erased { records, items }) => {
            let records = match records {
                ErasedRecords::Only(keys) => {
                    ErasedRecords::only(keys.iter().map(|key| names.record(key)))
                }
                ErasedRecords::Except(keys) => {
                    ErasedRecords::except(keys.iter().map(|key| names.record(key)))
                }
            };
            Control::Erased(Erased { records, items: *items })
        }
        Control::Baseline(Baseline { records, state }) => {
            let record = |one: &BaselineRecord, names: &mut dyn Names| {
                let BaselineRecord { change: what, synced_at } = one;
                BaselineRecord { change: change(what, names), synced_at: *synced_at }
            };
            Control::Baseline(Baseline {
                records: records.iter().map(|one| record(one, names)).collect(),
                state: state.as_ref().map(|state| baseline_state(state, names)),
            })
        }
        // Places, hashes and numbers name nobody.
        Control::Trimmed(trimmed) => Control::Trimmed(trimmed.clone()),
    }
}

fn baseline_state(from: &BaselineState, names: &mut dyn Names) -> BaselineState {
    let BaselineState {
        server,
        tenant,
        highest,
        set_aside,
        foreign_cursors,
        anchor,
        server_time,
        synced_at,
        parks,
        had_other_server,
        cursors,
    } = from;
    // A hash of a row that was set aside covers its name. A reader only compares it.
    let hidden = |(_, version): &(u64, Version)| (0, *version);
    let foreign =
        |(of, at): &(String, Cursor), names: &mut dyn Names| (names.foreign(of), names.cursor(at));
    BaselineState {
        server: *server,
        tenant: tenant.map(|tenant| names.tenant(tenant)),
        highest: *highest,
        set_aside: set_aside.iter().map(hidden).collect(),
        foreign_cursors: foreign_cursors.iter().map(|one| foreign(one, names)).collect(),
        anchor: *anchor,
        server_time: *server_time,
        synced_at: *synced_at,
        parks: parks.iter().map(|(of, code)| (scope(of, names), code.clone())).collect(),
        had_other_server: *had_other_server,
        cursors: cursors
            .iter()
            .map(|(of, at, when)| (of.clone(), names.cursor(at), *when))
            .collect(),
    }
}

fn unit(from: &PlannedUnit, names: &mut dyn Names) -> PlannedUnit {
    let PlannedUnit { id, actor, changes, digest, earlier_units } = from;
    PlannedUnit {
        id: names.unit(*id),
        actor: names.actor(actor),
        changes: changes.iter().map(|one| planned_change(one, names)).collect(),
        digest: names.digest(*digest),
        earlier_units: earlier_units.iter().map(|id| names.unit(*id)).collect(),
    }
}

fn planned_change(from: &PlannedChange, names: &mut dyn Names) -> PlannedChange {
    let PlannedChange { key, kind, ops, base, edited_at, older, schema_version, fields } = from;
    PlannedChange {
        key: names.record(key),
        kind: *kind,
        ops: ops_of(ops, names),
        base: *base,
        edited_at: *edited_at,
        older: older_of(older, names),
        schema_version: *schema_version,
        fields: *fields,
    }
}

fn cancelled(from: &Cancelled, names: &mut dyn Names) -> Cancelled {
    let Cancelled { key, ops, reason } = from;
    Cancelled { key: names.record(key), ops: ops_of(ops, names), reason: *reason }
}

fn planned_op(PlannedOp { id, place }: &PlannedOp, names: &mut dyn Names) -> PlannedOp {
    PlannedOp { id: names.op(*id), place: *place }
}

fn ops_of(ops: &[PlannedOp], names: &mut dyn Names) -> Vec<PlannedOp> {
    ops.iter().map(|one| planned_op(one, names)).collect()
}

fn older_of(older: &[FieldWrites], names: &mut dyn Names) -> Vec<FieldWrites> {
    let renamed = |FieldWrites { edited_at, op, fields }: &FieldWrites, names: &mut dyn Names| {
        FieldWrites { edited_at: *edited_at, op: names.op(*op), fields: fields.clone() }
    };
    older.iter().map(|writes| renamed(writes, names)).collect()
}

fn versions_of(
    versions: &[(RecordKey, Version)],
    names: &mut dyn Names,
) -> Vec<(RecordKey, Version)> {
    versions.iter().map(|(key, version)| (names.record(key), *version)).collect()
}

fn all(decisions: &[Decision], names: &mut dyn Names) -> Vec<Decision> {
    decisions.iter().map(|one| decision(one, names)).collect()
}

fn decision(from: &Decision, names: &mut dyn Names) -> Decision {
    let mut named = from.clone();
    match &mut named {
        Decision::Acked { unit, planned: _, versions } => {
            *unit = names.unit(*unit);
            *versions = versions_of(versions, names);
        }
        Decision::Tried { unit, planned: _, tries: _, code: _, retry_at: _ }
        | Decision::Requeued { unit, planned: _ }
        | Decision::DeadLettered { unit, planned: _, tries: _, code: _, message: _, answered: _ } => {
            *unit = names.unit(*unit)
        }
        Decision::Conflicted(conflict) => conflicted(conflict, names),
        Decision::Superseded { key, op }
        | Decision::Dropped { key, op, fields: _ }
        | Decision::Raised { key, op, fields: _, edited_at: _, values: _ }
        | Decision::BroughtBack { key, op, read: _ }
        | Decision::Retried { key, op }
        | Decision::Discarded { key, op }
        | Decision::Resolved { key, op, winner: _, merged: _ }
        | Decision::Upcast { key, op, schema_version: _, fields: _ } => {
            (*key, *op) = (names.record(key), planned_op(op, names));
        }
        Decision::Cancelled(ended) => *ended = cancelled(ended, names),
        Decision::Parked { scope: parked, code: _ } | Decision::Unparked { scope: parked } => {
            *parked = scope(parked, names);
        }
        Decision::Adopted { key, seq: _, number: _ } | Decision::LetGo { key, version: _ } => {
            *key = names.record(key);
        }
        Decision::Suspected { units, times: _, code: _, retry_at: _ } => {
            units.iter_mut().for_each(|(unit, _)| *unit = names.unit(*unit));
        }
        Decision::Restamped { server_time: _, ops } => {
            for Restamp { key, op, edited_at: _ } in ops {
                (*key, *op) = (names.record(key), planned_op(op, names));
            }
        }
        Decision::BelongsTo { tenant } => *tenant = names.tenant(*tenant),
        Decision::HandedOver { key, op, to } => {
            (*key, *op) = (names.record(key), planned_op(op, names));
            *to = names.actor(to);
        }
        Decision::ReadForeign { entity, cursor } => {
            (*entity, *cursor) = (names.foreign(entity), names.cursor(cursor));
        }
        // The fault is the program's own word for a part of a row. A server has no person's id.
        Decision::SetAside { fault: _, version: _, name: _, row: _ }
        | Decision::ServerAccepted { server: _ }
        | Decision::ServerRead => {}
    }
    named
}

fn conflicted(conflict: &mut Conflicted, names: &mut dyn Names) {
    let Conflicted {
        key,
        op,
        kind: _,
        edited_at: _,
        version: _,
        extent: _,
        remote_edited_at: _,
        fields: _,
        winner: _,
        rule: _,
        base: _,
        local: _,
        remote: _,
        merged: _,
        functions,
    } = conflict;
    (*key, *op) = (names.record(key), planned_op(op, names));
    for ResolvedBy { field: _, function: _ } in functions {
        // Names of fields and of functions are the app's.
    }
}

fn scope(from: &ParkScope, names: &mut dyn Names) -> ParkScope {
    match from {
        ParkScope::Actor(actor) => ParkScope::Actor(names.actor(actor)),
        ParkScope::Op(id) => ParkScope::Op(names.op(*id)),
        ParkScope::Tenant(id) => ParkScope::Tenant(names.tenant(*id)),
        ParkScope::Entity(_) | ParkScope::Server(..) | ParkScope::Protocol => from.clone(),
    }
}
