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
pub(in crate::walk) struct Tokens(pub(in crate::walk) Vec<Token>);

impl Tokens {
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
    let mut tokens = Tokens::default();
    tokens.0.push(Token::Head(device.head().to_bits()));
    let mut records: Vec<_> = device.tables.records.iter().collect();
    records.sort_by(|(one, _), (other, _)| one.id.as_str().cmp(other.id.as_str()));
    tokens.count(records.len());
    for (key, row) in records {
        tokens.text(key.id.as_str());
        of_record(&mut tokens, device, row);
    }
    tokens.count(device.tables.units.len());
    for (id, unit) in &device.tables.units {
        of_unit_row(&mut tokens, device, *id, unit);
    }
    let state = &device.tables.state;
    tokens.flag(state.rereading);
    tokens.flag(state.had_other_server);
    tokens.number(
        state.server.map_or(0, |(_, epoch)| epoch.as_bytes().first().copied().unwrap_or(0).into()),
    );
    let mut parks: Vec<_> =
        state.parks.iter().map(|(scope, code)| (park(scope), code.as_str())).collect();
    parks.sort_unstable();
    tokens.count(parks.len());
    for (scope, code) in parks {
        tokens.number(scope);
        tokens.text(code);
    }
    tokens.count(device.tables.parked_ops.len());
    for (op, row) in &device.tables.parked_ops {
        tokens.op(op);
        tokens.text(&row.code);
    }
    tokens.flag(device.heard.is_some());
    for row in device.tables.cursors.values() {
        tokens.cursor(&row.cursor);
    }
    tokens.number(2);
    device.others().iter().for_each(|others| tokens.cursor(others));
    for row in super::open_conflicts(device) {
        tokens.op(&row.op.id);
        for ConflictedField { name, winner, .. } in &row.fields {
            tokens.text(name);
            tokens.number(*winner as u64);
        }
    }
    tokens.0
}

fn park(scope: &ParkScope) -> u64 {
    match scope {
        ParkScope::Server(_, epoch) => {
            1_000 + u64::from(epoch.as_bytes().first().copied().unwrap_or(0))
        }
        _ => 2_000,
    }
}

fn of_record(tokens: &mut Tokens, device: &Device, row: &RecordRow) {
    of_confirmed(tokens, row.confirmed.as_ref());
    tokens.count(row.tail.len());
    for pending in &row.tail {
        of_pending(tokens, device.op(pending.place).ok().as_ref(), pending);
    }
}

fn of_confirmed(tokens: &mut Tokens, confirmed: Option<&Confirmed>) {
    tokens.flag(confirmed.is_some());
    if let Some(confirmed) = confirmed {
        tokens.version(Some(confirmed.version));
        tokens.edit(Some(confirmed.stamp()));
        tokens.writes(&confirmed.older);
        tokens.edit(confirmed.floor);
        tokens.flag(confirmed.deleted);
        tokens.json(Some(&confirmed.fields));
    }
}

fn of_sent_for(tokens: &mut Tokens, sent_for: &SentFor) {
    tokens.version(sent_for.version);
    of_confirmed(tokens, sent_for.record.as_ref());
}

fn of_pending(tokens: &mut Tokens, content: Option<&OpContent>, pending: &Pending) {
    tokens.edit(Some(pending.stamp()));
    tokens.number(pending.kind as u64);
    tokens.flag(pending.dead);
    tokens.names(pending.cleared.iter());
    tokens.edit(pending.cleared_at);
    tokens.flag(pending.emptied);
    tokens.json(pending.named.as_ref());
    tokens.count(pending.raised.len());
    for (name, edited_at) in &pending.raised {
        tokens.text(name);
        tokens.stamp(*edited_at);
    }
    tokens.json(pending.brings_back.as_ref());
    tokens.count(pending.earlier_units.len());
    pending.earlier_units.iter().for_each(|unit| tokens.unit(*unit));
    tokens.flag(pending.abandoned.is_some());
    pending.abandoned.iter().for_each(|sent_for| of_sent_for(tokens, sent_for));
    if let Some(content) = content {
        // A write is known as our own by the stamp that it was made with too.
        tokens.stamp(content.edited_at);
        tokens.json(Some(&content.fields.to_json()));
    }
}

fn of_unit_row(tokens: &mut Tokens, device: &Device, id: UnitId, unit: &UnitRow) {
    tokens.unit(id);
    tokens.count(unit.changes.len());
    for (change, record) in unit.changes.iter().zip(&unit.records) {
        tokens.text(change.key.id.as_str());
        tokens.number(change.kind as u64);
        change.ops.iter().for_each(|op| tokens.op(&op.id));
        tokens.version(change.base);
        of_confirmed(tokens, record.as_ref());
        tokens.stamp(change.edited_at);
        tokens.writes(&change.older);
        let fields = match change.fields {
            FieldsSource::Nothing => None,
            source => Log(&device.log).fields(source).ok().flatten(),
        };
        tokens.json(fields.as_ref());
    }
    unit.earlier_units.iter().for_each(|unit| tokens.unit(*unit));
    tokens.number(unit.tries.into());
}

pub(in crate::walk) fn of_request(request: &ExchangeRequest) -> Vec<Token> {
    let mut tokens = Tokens::default();
    let epoch =
        request.server_epoch.map_or(0, |epoch| epoch.as_bytes().first().copied().unwrap_or(0));
    tokens.number(epoch.into());
    tokens.number(request.page_limit.into());
    tokens.count(request.units.len());
    request.units.iter().for_each(|unit| of_unit(&mut tokens, unit));
    request.cursors.values().for_each(|cursor| tokens.cursor(cursor));
    tokens.flag(request.others.is_some());
    request.others.iter().for_each(|others| tokens.cursor(others));
    tokens.0
}

fn of_unit(tokens: &mut Tokens, unit: &Unit) {
    tokens.unit(unit.id);
    tokens.count(unit.changes.len());
    for change in &unit.changes {
        tokens.text(change.key.id.as_str());
        tokens.number(change.kind as u64);
        change.ops.iter().for_each(|op| tokens.op(op));
        tokens.version(change.base);
        tokens.stamp(change.edited_at);
        tokens.writes(&change.older);
        tokens.json(change.fields.as_ref());
    }
    unit.earlier_units.iter().for_each(|unit| tokens.unit(*unit));
}

pub(in crate::walk) fn of_answer(answer: &ExchangeAnswer) -> Vec<Token> {
    let mut tokens = Tokens::default();
    tokens.number(answer.server_epoch.as_bytes().first().copied().unwrap_or(0).into());
    tokens.count(answer.outcomes.len());
    for outcome in &answer.outcomes {
        tokens.0.push(Token::Mentioned(outcome.unit));
        match &outcome.outcome {
            Outcome::Applied { versions, current } | Outcome::Duplicate { versions, current } => {
                tokens.number(if matches!(outcome.outcome, Outcome::Applied { .. }) {
                    1
                } else {
                    2
                });
                versions.values().for_each(|version| tokens.version(Some(*version)));
                current.iter().for_each(|change| of_change(&mut tokens, change));
            }
            Outcome::Stale { current, applied } => {
                tokens.number(3);
                current.iter().for_each(|change| of_change(&mut tokens, change));
                applied.iter().for_each(|unit| tokens.0.push(Token::Mentioned(*unit)));
            }
            Outcome::Ahead => tokens.number(4),
            Outcome::Rejected { .. } => tokens.number(5),
            _ => tokens.number(6),
        }
    }
    tokens.count(answer.changes.len());
    answer.changes.iter().for_each(|change| of_change(&mut tokens, change));
    answer.cursors.values().for_each(|cursor| tokens.cursor(cursor));
    tokens.flag(answer.others.is_some());
    answer.others.iter().for_each(|others| tokens.cursor(others));
    tokens.0
}

fn of_change(tokens: &mut Tokens, change: &Change) {
    tokens.text(change.key.id.as_str());
    tokens.version(Some(change.version));
    tokens.edit(Some(EditStamp { edited_at: change.edited_at, op: change.op }));
    tokens.writes(&change.older);
    tokens.edit(change.floor);
    tokens.flag(change.deleted);
    tokens.flag(change.partial);
    tokens.json(change.fields.as_ref());
}

/// Encodes the server's state. Of the units that it knows, only those matter about which a message
/// may still arrive.
pub(in crate::walk) fn of_server(server: &Server) -> Vec<Token> {
    let mut tokens = Tokens::default();
    tokens.number(server.epochs.into());
    for authority in std::iter::once(&server.authority).chain(server.backup.as_deref()) {
        tokens.number(3);
        for (key, row) in authority.records() {
            tokens.text(key.id.as_str());
            tokens.version(Some(row.version));
            tokens.number(row.index.into());
            tokens.edit(Some(row.stamp()));
            tokens.writes(&row.older);
            tokens.edit(row.floor);
            tokens.json(row.fields.as_ref());
        }
    }
    tokens.0
}

/// Encodes the true events. `stamps` adds their stamps, which only one law needs.
pub(in crate::walk) fn of_ghosts(ghosts: &Ghosts, stamps: bool) -> Vec<Token> {
    let mut tokens = Tokens::default();
    ghosts.told.iter().for_each(|ops| tokens.number(ops.bits()));
    ghosts.made.iter().for_each(|made| tokens.number((*made).into()));
    for (slot, op) in ghosts.each() {
        tokens.count(slot);
        tokens.count(op.record);
        tokens.number(op.kind as u64);
        for said in op.said {
            tokens.number(match said {
                Said::Nothing => 1,
                Said::Null => 2,
                Said::Gone => 3,
                Said::Value(value) => 4 + value.unsigned_abs(),
            });
        }
        tokens.number(op.made_on.bits());
        tokens.number(op.met.bits());
        tokens.number(op.fate as u64);
        tokens.flag(op.undone);
        op.yielded.into_iter().for_each(|yielded| tokens.flag(yielded));
        tokens.number(op.gave_way.bits());
        if stamps {
            tokens.stamp(op.stamp);
        }
        tokens.json(op.before.as_ref().map(super::Fields::to_json).as_ref());
    }
    tokens.0
}

/// Encodes the writers of a version.
pub(in crate::walk) fn of_holding(tokens: &mut Tokens, holding: &Holding) {
    tokens.flag(holding.there);
    for writer in holding.fields.into_iter().chain([holding.life]) {
        tokens.number(writer.map_or(0, |writer| writer as u64 + 1));
    }
    tokens.number(holding.ops.bits());
}
