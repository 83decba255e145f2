//! What a person asks of a device, as the product's front door does it: read what the rule needs, ask the rule, append what it
//! decides.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Control, Decision, Draft, Intent, Items, Meta, OpMeta, Verb};
use fieldbook_core::protocol::Failure;
use fieldbook_core::rows::{ConflictRow, RecordRow};
use fieldbook_core::rules::admit::SeenRecord;
use fieldbook_core::rules::belonging::{accept, candidates};
use fieldbook_core::rules::choose::{Choice, choose};
use fieldbook_core::rules::discard::{discard, given_up};
use fieldbook_core::rules::failure::{Doubted, isolate};
use fieldbook_core::rules::retry::retry;
use fieldbook_core::rules::status::Stopped;
use fieldbook_core::rules::undo::{annul, compensate};
use fieldbook_core::rules::{NotPossible, effective_fields};
use fieldbook_core::{Fields, FieldsJson, Hlc, Mutation, OpPlace, RecordKey, UnitId};

use super::{Device, Job, Moment};
use crate::walk::law::Broken;

impl Job<'_> {
    pub(super) fn row(&self, key: &RecordKey) -> RecordRow {
        self.device.tables.records.get(key).cloned().unwrap_or_default()
    }

    /// Writes an op, if it changes anything. `edited_at` is its stamp, where a rule says that.
    pub(super) fn write(&mut self, mutation: Mutation, edited_at: Option<Hlc>) -> Result<bool, Broken> {
        let row = self.row(&mutation.key);
        let mut seen =
            SeenRecord { image: row.image().cloned(), base: row.version(), read: self.read_stamp(&row)? };
        let admitted = seen.admit(self.moment.schema, mutation).map_err(|error| Broken::unsound(&error))?;
        let Some(op) = admitted else { return Ok(false) };
        let stamped = self.stamp(op.read);
        let mut items = Items::default();
        let fields = op.json.as_ref().map(|json| items.add_fields(json, &mut self.view().1));
        let op = OpMeta {
            id: self.device.next_op(),
            kind: op.mutation.kind,
            edited_at: edited_at.unwrap_or(stamped.hlc),
            clock_capped: stamped.capped,
            base: op.base,
            schema_version: op.schema_version,
            fields,
            cites: op.mutation.cites,
            key: op.mutation.key,
        };
        self.device.ops += 1;
        self.append(Draft { meta: Meta::Intent(Intent { ops: vec![op] }), items }, Hlc::ZERO)?;
        Ok(true)
    }

    /// Returns the latest stamp of a record that whoever reads it now has read.
    fn read_stamp(&self, row: &RecordRow) -> Result<Hlc, Broken> {
        let confirmed = row.confirmed.as_ref().map_or(Hlc::ZERO, |confirmed| confirmed.edited_at);
        let Some(last) = row.tail.last() else { return Ok(confirmed) };
        let made = || Ok(self.device.op(last.place)?.edited_at);
        Ok(confirmed.max(last.restamped.map_or_else(made, Ok)?))
    }

    fn decide(&mut self, word: Verb, decisions: Vec<Decision>, items: Items) -> Result<(), Broken> {
        let control = Control::Verb(word, decisions);
        self.append(Draft { meta: Meta::Control(control), items }, Hlc::ZERO)?;
        Ok(())
    }
}

impl Device {
    /// Writes what a person typed. False: it would change nothing.
    pub(in crate::walk) fn types(&mut self, moment: Moment<'_>, mutation: Mutation) -> Result<bool, Broken> {
        self.job(moment, |job| job.write(mutation, None))
    }

    /// Undoes an op whose record showed `before` before it. False: there was nothing to take back.
    pub(in crate::walk) fn undo(
        &mut self,
        moment: Moment<'_>,
        (key, place): (&RecordKey, OpPlace),
        before: Option<&Fields>,
    ) -> Result<bool, Broken> {
        if let Some(annulled) = self.annul(place) {
            self.job(moment, |job| job.decide(Verb::Undo, annulled, Items::default()))?;
            return Ok(true);
        }
        self.job(moment, |job| {
            let undone = job.device.op(place)?;
            let now = fields_of(job.row(key).image())?;
            match compensate(key, &undone, before, now.as_ref()) {
                Some(back) => job.write(back, None),
                None => Ok(false),
            }
        })
    }

    /// Returns what annuls an op, if it can be.
    pub(in crate::walk) fn annul(&self, place: OpPlace) -> Option<Vec<Decision>> {
        annul(&self.tail, &BTreeSet::new(), place)
    }

    /// Sends a dead letter again.
    pub(in crate::walk) fn retry(&mut self, moment: Moment<'_>, place: OpPlace) -> Result<(), Broken> {
        self.job(moment, |job| {
            let Some(op) = job.device.tail.op(place).map(|row| row.op) else { return Ok(()) };
            let letter = job.device.tables.dead_letters.get(&op).cloned();
            let again = retry(&job.device.tail, Stopped::default(), vec![(op, letter)]);
            let decisions = again.map_err(|error| Broken::unsound(&error))?;
            job.decide(Verb::Retry, decisions, Items::default())
        })
    }

    /// Gives a dead letter up.
    pub(in crate::walk) fn discard(&mut self, moment: Moment<'_>, place: OpPlace) -> Result<(), Broken> {
        self.job(moment, |job| {
            let Some(op) = job.device.tail.op(place).map(|row| row.op) else { return Ok(()) };
            let (tail, stopped) = (&job.device.tail, Stopped::default());
            let found = given_up(tail, &BTreeSet::new(), stopped, &[op], |_, _| Ok::<_, NotPossible>(None));
            let found = found.map_err(|error| Broken::unsound(&error))?;
            let rows: BTreeMap<_, _> = found.iter().map(|op| (op.key.clone(), job.row(&op.key))).collect();
            let decisions = discard(&found, &rows);
            let mut items = Items::default();
            let reason = items.add("no longer wanted", &mut job.view().1);
            job.decide(Verb::Discard { reason }, decisions, items)
        })
    }

    /// Chooses in an open conflict.
    pub(in crate::walk) fn choose(
        &mut self,
        moment: Moment<'_>,
        row: &ConflictRow,
        mine: bool,
    ) -> Result<(), Broken> {
        let choice = if mine { Choice::Mine } else { Choice::Theirs };
        self.job(moment, |job| {
            let record = job.row(&row.key);
            let content = job.device.op(row.op.place)?;
            let pending = record.tail.iter().find(|reference| reference.op == row.op.id);
            let effective = pending.map_or_else(Fields::new, |pending| effective_fields(&content, pending));
            let chosen = choose(row, &record, &job.device.tail, &effective, &choice);
            let decisions = chosen.map_err(|error| Broken::unsound(&error))?.decisions(row, None);
            job.decide(Verb::Resolve, decisions, Items::default())
        })
    }

    /// Gives up a unit under way of which nobody knows whether it arrived: something on the way called it too large.
    pub(in crate::walk) fn give_up(&mut self, moment: Moment<'_>, unit: UnitId) -> Result<(), Broken> {
        let Some(row) = self.tables.units.get(&unit) else { return Ok(()) };
        let doubted =
            Doubted { unit, planned: row.planned, tries: row.tries, suspicion: row.suspicion.clone() };
        self.job(moment, |job| {
            let decisions = isolate(&Failure::TooLarge, &[doubted], 1, job.moment.wall, &mut job.view().1);
            job.append(Draft::control(Control::Decided(decisions)), Hlc::ZERO)?;
            Ok(())
        })
    }

    /// Accepts the server that answered in place of the known one. False: there is none.
    pub(in crate::walk) fn accept_server(&mut self, moment: Moment<'_>) -> Result<bool, Broken> {
        let state = self.tables.state.clone();
        // The latest life of it is the last that answered.
        let Some(named) = candidates(&state).last().copied() else { return Ok(false) };
        let decisions = accept(&state, &named).map_err(|error| Broken::unsound(&error))?;
        self.job(moment, |job| job.decide(Verb::AcceptServer, decisions, Items::default()))?;
        Ok(true)
    }
}

pub(super) fn fields_of(json: Option<&FieldsJson>) -> Result<Option<Fields>, Broken> {
    json.map(FieldsJson::to_fields).transpose().map_err(|fault| Broken::unsound(&fault))
}
