//! A state as a list of tokens: stamps, versions and unit ids as themselves, so that they can be
//! ranked; everything else as a number.
//!
//! Left out are facts that no rule reads any more (resolved conflicts except for their other side,
//! entries of ended ops, times for people), the count of stale answers (it goes to twenty, and a
//! small world is at rest before), and hashes.

use fieldbook_core::entry::{ConflictedField, FieldsSource, ParkScope};
use fieldbook_core::protocol::{Change, ExchangeAnswer, ExchangeRequest, Outcome, Unit};
use fieldbook_core::record::{EditStamp, FieldWrites, Pending, SentFor};
use fieldbook_core::rows::{Confirmed, RecordRow, UnitRow};
use fieldbook_core::rules::OpContent;
use fieldbook_core::{Cursor, FieldsJson, Hlc, OpId, UnitId, Version};
use fieldbook_projections::LogView;

use super::{Ghosts, Said};
use crate::walk::device::{Device, Log};
use crate::walk::name::Token;
use crate::walk::server::{Holding, Server};

/// A list of tokens that is being made.
#[derive(Debug, Default)]
pub(in crate::walk) struct Told(pub(in crate::walk) Vec<Token>);

impl Told {
    pub(in crate::walk) fn number(&mut self, number: u64) {
        self.0.push(Token::Number(number));
    }

    fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    fn text(&mut self, text: &str) {
        let mixed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.number(mixed);
    }

    fn json(&mut self, json: Option<&FieldsJson>) {
        match json {
            Some(json) => self.text(json.as_str()),
            None => self.number(0),
        }
    }

    fn stamp(&mut self, stamp: Hlc) {
        self.0.push(if stamp == Hlc::ZERO {
            Token::Number(0)
        } else {
            Token::Stamp(stamp.to_bits())
        });
    }

    fn edit(&mut self, stamp: Option<EditStamp>) {
        let stamp = stamp.unwrap_or_default();
        self.stamp(stamp.edited_at);
        self.op(&stamp.op);
    }

    fn names<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a String>) {
        self.count(names.len());
        names.for_each(|name| self.text(name));
    }

    fn writes(&mut self, older: &[FieldWrites]) {
        self.count(older.len());
        for writes in older {
            self.edit(Some(writes.stamp()));
            self.names(writes.fields.iter());
        }
    }

    fn version(&mut self, version: Option<Version>) {
        match version {
            Some(version) if version > Version::default() => {
                self.0.push(Token::Version(version.number()))
            }
            Some(_) => self.number(1),
            None => self.number(0),
        }
    }

    fn cursor(&mut self, cursor: &Cursor) {
        let read = cursor.as_bytes().try_into().map_or(0, u64::from_be_bytes);
        self.version((read > 0).then(|| Version::new(read)));
    }

    fn op(&mut self, op: &OpId) {
        self.number(op.as_bytes().last().copied().unwrap_or(0).into());
    }

    fn unit(&mut self, unit: UnitId) {
        self.0.push(Token::Unit(unit));
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }
}

pub(in crate::walk) fn of_device(device: &Device) -> Vec<Token> {
    let mut told = Told::default();
    told.0.push(Token::Head(device.head().to_bits()));
    let mut records: Vec<_> = device.tables.records.iter().collect();
    records.sort_by(|(one, _), (other, _)| one.id.as_str().cmp(other.id.as_str()));
    told.count(records.len());
    for (key, row) in records {
        told.text(key.id.as_str());
        of_record(&mut told, device, row);
    }
    told.count(device.tables.units.len());
    for (id, unit) in &device.tables.units {
        of_unit_row(&mut told, device, *id, unit);
    }
    let state = &device.tables.state;
    told.flag(state.rereading);
    told.flag(state.had_other_server);
    told.number(
        state.server.map_or(0, |(_, epoch)| epoch.as_bytes().first().copied().unwrap_or(0).into()),
    );
    let mut parks: Vec<_> =
        state.parks.iter().map(|(scope, code)| (park(scope), code.as_str())).collect();
    parks.sort_unstable();
    told.count(parks.len());
    for (scope, code) in parks {
        told.number(scope);
        told.text(code);
    }
    told.count(device.tables.parked_ops.len());
    for (op, row) in &device.tables.parked_ops {
        told.op(op);
        told.text(&row.code);
    }
    told.flag(device.heard.is_some());
    for row in device.tables.cursors.values() {
        told.cursor(&row.cursor);
    }
    told.number(2);
    device.others().iter().for_each(|others| told.cursor(others));
    for row in super::open_conflicts(device) {
        told.op(&row.op.id);
        for ConflictedField { name, winner, .. } in &row.fields {
            told.text(name);
            told.number(*winner as u64);
        }
    }
    told.0
}

fn park(scope: &ParkScope) -> u64 {
    match scope {
        ParkScope::Server(_, epoch) => {
            1_000 + u64::from(epoch.as_bytes().first().copied().unwrap_or(0))
        }
        _ => 2_000,
    }
}

fn of_record(told: &mut Told, device: &Device, row: &RecordRow) {
    of_confirmed(told, row.confirmed.as_ref());
    told.count(row.tail.len());
    for pending in &row.tail {
        of_pending(told, device.op(pending.place).ok().as_ref(), pending);
    }
}

fn of_confirmed(told: &mut Told, confirmed: Option<&Confirmed>) {
    told.flag(confirmed.is_some());
    if let Some(confirmed) = confirmed {
        told.version(Some(confirmed.version));
        told.edit(Some(confirmed.stamp()));
        told.writes(&confirmed.older);
        told.edit(confirmed.floor);
        told.flag(confirmed.deleted);
        told.json(Some(&confirmed.fields));
    }
}

fn of_sent_for(told: &mut Told, sent_for: &SentFor) {
    told.version(sent_for.version);
    of_confirmed(told, sent_for.record.as_ref());
}

fn of_pending(told: &mut Told, content: Option<&OpContent>, pending: &Pending) {
    told.edit(Some(pending.stamp()));
    told.number(pending.kind as u64);
    told.flag(pending.dead);
    told.names(pending.cleared.iter());
    told.edit(pending.cleared_at);
    told.flag(pending.emptied);
    told.json(pending.named.as_ref());
    told.count(pending.raised.len());
    for (name, edited_at) in &pending.raised {
        told.text(name);
        told.stamp(*edited_at);
    }
    told.json(pending.brings_back.as_ref());
    told.count(pending.attempts.len());
    pending.attempts.iter().for_each(|unit| told.unit(*unit));
    told.flag(pending.given_up.is_some());
    pending.given_up.iter().for_each(|sent_for| of_sent_for(told, sent_for));
    if let Some(content) = content {
        // A write is known as our own by the stamp that it was made with too.
        told.stamp(content.edited_at);
        told.json(Some(&content.fields.to_json()));
    }
}

fn of_unit_row(told: &mut Told, device: &Device, id: UnitId, unit: &UnitRow) {
    told.unit(id);
    told.count(unit.changes.len());
    for (change, record) in unit.changes.iter().zip(&unit.records) {
        told.text(change.key.id.as_str());
        told.number(change.kind as u64);
        change.ops.iter().for_each(|op| told.op(&op.id));
        told.version(change.base);
        of_confirmed(told, record.as_ref());
        told.stamp(change.edited_at);
        told.writes(&change.older);
        let fields = match change.fields {
            FieldsSource::Nothing => None,
            source => Log(&device.log).fields(source).ok().flatten(),
        };
        told.json(fields.as_ref());
    }
    unit.replaces.iter().for_each(|unit| told.unit(*unit));
    told.number(unit.tries.into());
}

pub(in crate::walk) fn of_request(request: &ExchangeRequest) -> Vec<Token> {
    let mut told = Told::default();
    let epoch =
        request.server_epoch.map_or(0, |epoch| epoch.as_bytes().first().copied().unwrap_or(0));
    told.number(epoch.into());
    told.number(request.page_limit.into());
    told.count(request.units.len());
    request.units.iter().for_each(|unit| of_unit(&mut told, unit));
    request.cursors.values().for_each(|cursor| told.cursor(cursor));
    told.flag(request.others.is_some());
    request.others.iter().for_each(|others| told.cursor(others));
    told.0
}

fn of_unit(told: &mut Told, unit: &Unit) {
    told.unit(unit.id);
    told.count(unit.changes.len());
    for change in &unit.changes {
        told.text(change.key.id.as_str());
        told.number(change.kind as u64);
        change.ops.iter().for_each(|op| told.op(op));
        told.version(change.base);
        told.stamp(change.edited_at);
        told.writes(&change.older);
        told.json(change.fields.as_ref());
    }
    unit.replaces.iter().for_each(|unit| told.unit(*unit));
}

pub(in crate::walk) fn of_answer(answer: &ExchangeAnswer) -> Vec<Token> {
    let mut told = Told::default();
    told.number(answer.server_epoch.as_bytes().first().copied().unwrap_or(0).into());
    told.count(answer.outcomes.len());
    for outcome in &answer.outcomes {
        told.0.push(Token::Mentioned(outcome.unit));
        match &outcome.outcome {
            Outcome::Applied { versions, current } | Outcome::Duplicate { versions, current } => {
                told.number(if matches!(outcome.outcome, Outcome::Applied { .. }) { 1 } else { 2 });
                versions.values().for_each(|version| told.version(Some(*version)));
                current.iter().for_each(|change| of_change(&mut told, change));
            }
            Outcome::Stale { current, applied } => {
                told.number(3);
                current.iter().for_each(|change| of_change(&mut told, change));
                applied.iter().for_each(|unit| told.0.push(Token::Mentioned(*unit)));
            }
            Outcome::Ahead => told.number(4),
            Outcome::Rejected { .. } => told.number(5),
            _ => told.number(6),
        }
    }
    told.count(answer.changes.len());
    answer.changes.iter().for_each(|change| of_change(&mut told, change));
    answer.cursors.values().for_each(|cursor| told.cursor(cursor));
    told.flag(answer.others.is_some());
    answer.others.iter().for_each(|others| told.cursor(others));
    told.0
}

fn of_change(told: &mut Told, change: &Change) {
    told.text(change.key.id.as_str());
    told.version(Some(change.version));
    told.edit(Some(EditStamp { edited_at: change.edited_at, op: change.op }));
    told.writes(&change.older);
    told.edit(change.floor);
    told.flag(change.deleted);
    told.flag(change.partial);
    told.json(change.fields.as_ref());
}

/// Encodes the server's state. Of the units that it knows, only those matter about which a message
/// may still arrive.
pub(in crate::walk) fn of_server(server: &Server) -> Vec<Token> {
    let mut told = Told::default();
    told.number(server.lives.into());
    for authority in std::iter::once(&server.authority).chain(server.backup.as_deref()) {
        told.number(3);
        for (key, row) in authority.records() {
            told.text(key.id.as_str());
            told.version(Some(row.version));
            told.number(row.index.into());
            told.edit(Some(row.stamp()));
            told.writes(&row.older);
            told.edit(row.floor);
            told.json(row.fields.as_ref());
        }
    }
    told.0
}

/// Encodes the true events. `stamps` adds their stamps, which only one law needs.
pub(in crate::walk) fn of_ghosts(ghosts: &Ghosts, stamps: bool) -> Vec<Token> {
    let mut told = Told::default();
    ghosts.told.iter().for_each(|ops| told.number(ops.bits()));
    ghosts.made.iter().for_each(|made| told.number((*made).into()));
    for (slot, op) in ghosts.each() {
        told.count(slot);
        told.count(op.record);
        told.number(op.kind as u64);
        for said in op.said {
            told.number(match said {
                Said::Nothing => 1,
                Said::Null => 2,
                Said::Gone => 3,
                Said::Value(value) => 4 + value.unsigned_abs(),
            });
        }
        told.number(op.made_on.bits());
        told.number(op.met.bits());
        told.number(op.fate as u64);
        told.flag(op.undone);
        op.yielded.into_iter().for_each(|yielded| told.flag(yielded));
        if stamps {
            told.stamp(op.stamp);
        }
        told.json(op.before.as_ref().map(super::Fields::to_json).as_ref());
    }
    told.0
}

/// Encodes the writers of a version.
pub(in crate::walk) fn of_holding(told: &mut Told, holding: &Holding) {
    told.flag(holding.there);
    for writer in holding.fields.into_iter().chain([holding.life]) {
        told.number(writer.map_or(0, |writer| writer as u64 + 1));
    }
    told.number(holding.ops.bits());
}
