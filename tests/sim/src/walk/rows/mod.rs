//! The walk's knowledge of rows, entries and messages.
//!
//! `follow` keeps the true events independently of the rules: what each author had received when an
//! op was made, how each op ended, and what is recorded. `tokens` encodes a state so that two
//! states with the same future are equal.
//!
//! When the rows change, only this folder has to follow.

mod follow;
mod tokens;

use std::rc::Rc;

use fieldbook_core::authority::AuthorityRead;
use fieldbook_core::entry::ParkScope;
use fieldbook_core::rows::{ConflictRow, RecordRow};
use fieldbook_core::rules::belonging::waits_for_owner;
use fieldbook_core::{Fields, FieldsJson, Hlc, OpKind, OpPlace, RecordKey, Version};
use serde_json::Value;

use super::device::Device;
use super::server::Server;
use super::world::{FIELDS, Ground, OPS_OF_A_DEVICE};

pub(super) use follow::follow;
pub(super) use tokens::{
    Tokens, of_answer, of_device, of_ghosts, of_holding, of_request, of_server,
};

/// Some of the ops of a world, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ops(u16);

impl Ops {
    pub(super) const fn with(self, slot: usize) -> Self {
        Self(self.0 | (1 << slot))
    }

    pub(super) const fn has(self, slot: usize) -> bool {
        self.0 & (1 << slot) != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// The content of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Said {
    #[default]
    Nothing,
    Value(i64),
    /// The record exists without the field.
    Null,
    /// The record does not exist.
    Gone,
}

impl Said {
    /// Returns the content of a field of a record.
    pub(super) fn by(fields: Option<&Fields>, name: &str) -> Self {
        let Some(fields) = fields else { return Self::Gone };
        fields.get(name).and_then(Value::as_i64).map_or(Self::Null, Self::Value)
    }
}

/// How an op ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    Acked,
    Superseded,
    /// The record had the op's values already, or the op had arrived.
    NoEffect,
    /// The op created a record that was deleted, or was undone, before it left.
    Unsent,
    Discarded,
}

/// The true history of one op.
#[derive(Debug, Clone)]
pub(super) struct OpGhost {
    pub(super) record: usize,
    pub(super) place: OpPlace,
    pub(super) kind: OpKind,
    /// Its author's value of each field.
    pub(super) said: [Said; 2],
    /// The stamp that it counts with.
    pub(super) stamp: Hlc,
    /// The ops that its author had received when it was made, the author's own included.
    pub(super) made_on: Ops,
    /// The writes of others with which it is recorded.
    pub(super) met: Ops,
    pub(super) fate: Fate,
    pub(super) undone: bool,
    /// The fields that it lost by a decision of a person.
    pub(super) yielded: [bool; FIELDS.len()],
    /// The earlier ops of its device over which it has no effect, since it lost as a whole while
    /// they were no dead letters.
    pub(super) gave_way: Ops,
    /// The record before it.
    pub(super) before: Option<Fields>,
}

/// The true events.
#[derive(Debug, Clone, Default)]
pub(super) struct Ghosts {
    pub(super) ops: Vec<Option<Rc<OpGhost>>>,
    /// The ops that each device has received.
    pub(super) told: Vec<Ops>,
    /// How many ops of the script each device has made.
    pub(super) made: Vec<u8>,
}

impl Ghosts {
    pub(super) fn of(&self, slot: usize) -> Option<&OpGhost> {
        self.ops.get(slot)?.as_deref()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (usize, &OpGhost)> {
        self.ops.iter().enumerate().filter_map(|(slot, op)| Some((slot, op.as_deref()?)))
    }

    pub(super) fn says(&self, slot: usize, field: usize) -> bool {
        self.of(slot).and_then(|op| op.said.get(field)).is_some_and(|said| *said != Said::Nothing)
    }

    /// Returns the op whose value a change sends for a field. The change consists of `carried`. It
    /// is the last of these ops that wrote the field, or a later op of the same author that wrote
    /// it, or the last of these that wrote anything. The fields with which an edit brings a deleted
    /// record back are its own.
    pub(super) fn writer(
        &self,
        record: usize,
        field: usize,
        value: Said,
        carried: &[usize],
    ) -> Option<usize> {
        let said_it = |slot: &usize| {
            let op = self.of(*slot).filter(|op| op.record == record);
            op.and_then(|op| op.said.get(field)).is_some_and(|said| *said == value)
        };
        let carried = || carried.iter().copied();
        let first = carried().min().unwrap_or(0);
        let later = first..(first / OPS_OF_A_DEVICE + 1) * OPS_OF_A_DEVICE;
        let later = || later.filter(|_| matches!(value, Said::Value(_))).find(said_it);
        let last = || carried().rfind(|slot| self.says(*slot, field));
        carried().rfind(said_it).or_else(later).or_else(last)
    }

    pub(super) fn change(&mut self, slot: usize, change: impl FnOnce(&mut OpGhost)) {
        if let Some(op) = self.ops.get_mut(slot).and_then(Option::as_mut) {
            change(Rc::make_mut(op));
        }
    }
}

/// Returns the image that an app reads of a record at a device.
pub(super) fn image(device: &Device, key: &RecordKey) -> Option<Fields> {
    let row = device.tables.records.get(key);
    row.and_then(RecordRow::image).and_then(|json| json.to_fields().ok())
}

/// Returns a device's confirmed state of a record: the version, and the image.
pub(super) fn confirmed(device: &Device, key: &RecordKey) -> (Option<Version>, Option<Fields>) {
    let row = device.tables.records.get(key);
    let fields = row.and_then(RecordRow::confirmed_image).and_then(|json| json.to_fields().ok());
    (row.and_then(RecordRow::version), fields)
}

/// Returns the server's state of a record.
pub(super) fn at_server(server: &Server, key: &RecordKey) -> (Option<Version>, Option<Fields>) {
    let Ok(row) = server.authority.record(key);
    let fields =
        row.as_ref().and_then(|row| row.fields.as_ref()).and_then(|json| json.to_fields().ok());
    (row.map(|row| row.version), fields)
}

/// Returns every stamp that a device has read or made of any record.
pub(super) fn latest_stamp(device: &Device, key: &RecordKey) -> Hlc {
    let Some(row) = device.tables.records.get(key) else { return Hlc::ZERO };
    row.greatest().edited_at
}

/// Returns whether the server has something for a device: another epoch, or a record that it has
/// not read.
pub(super) fn has_news(device: &Device, server: &Server) -> bool {
    let state = &device.tables.state;
    let Ok(identity) = server.authority.identity();
    // A device that waits for the owner of its book asks for the server's identity.
    if state.server.is_some_and(|known| known != identity)
        || state.rereading
        || waits_for_owner(state)
    {
        return true;
    }
    let others = device.others();
    let cursor =
        others.as_ref().or_else(|| device.tables.cursors.values().next().map(|row| &row.cursor));
    let read =
        cursor.and_then(|cursor| cursor.as_bytes().try_into().ok()).map_or(0, u64::from_be_bytes);
    server.authority.records().any(|(_, row)| row.version.number() > read)
}

/// Returns the conflicts in which a person can choose, with where each is kept.
pub(super) fn open_conflicts(device: &Device) -> impl Iterator<Item = &ConflictRow> {
    device.tables.conflicts.values().filter(|row| row.open)
}

/// Returns whether an op waits for a person's decision: a dead letter, or a parked op.
pub(super) fn waits_for_person(device: &Device, place: OpPlace) -> bool {
    device.tail.is_dead(place)
        || device.tail.op(place).is_some_and(|row| device.tail.park_of(&row.op).is_some())
}

/// Returns the recorded conflicts of a device, in words.
pub(super) fn on_record(ground: &Ground, device: &Device) -> Vec<String> {
    let mut lines = Vec::new();
    for row in device.tables.conflicts.values() {
        let op = ground.slot(&row.op.id).map_or_else(String::new, super::tell::op_name);
        let each = row.fields.iter().map(|field| format!("{} {:?}", field.name, field.winner));
        let each = each.collect::<Vec<_>>().join(", ");
        let each = if each.is_empty() { format!("as a whole {:?}", row.winner) } else { each };
        let words = |json: &FieldsJson| words(json.to_fields().ok().as_ref());
        lines.push(format!(
            "{op} ({}) with {}: {} against {}: {each}",
            row.kind,
            row.version,
            words(&row.local),
            words(&row.remote)
        ));
    }
    lines
}

/// Returns the content of a record, in words.
pub(super) fn words(fields: Option<&Fields>) -> String {
    let Some(fields) = fields else { return "nothing".to_owned() };
    let each = FIELDS.iter().filter_map(|name| Some(format!("{name}={}", fields.get(name)?)));
    let each: Vec<_> = each.collect();
    if each.is_empty() { "no fields".to_owned() } else { each.join(" ") }
}

/// Returns whether a device waits for a person to accept the server in its present state.
pub(super) fn awaits(device: &Device, server: &Server) -> bool {
    let Ok((server, epoch)) = server.authority.identity();
    let scope = ParkScope::Server(server, epoch);
    let state = &device.tables.state;
    state.server != Some((server, epoch)) && state.parks.iter().any(|(parked, _)| *parked == scope)
}

/// Returns the value of an op for each field.
pub(super) fn said_by(kind: OpKind, fields: &Fields) -> [Said; 2] {
    FIELDS.map(|name| match (kind, fields.get(name)) {
        (OpKind::Delete, _) => Said::Gone,
        (_, Some(value)) => value.as_i64().map_or(Said::Null, Said::Value),
        (OpKind::Replace, None) => Said::Null,
        (_, None) => Said::Nothing,
    })
}
