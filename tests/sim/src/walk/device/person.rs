//! A person's requests to a device, in the same steps as in the crate `fieldbook`: read the facts
//! that the rule needs, ask the rule, append its decisions.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Control, Decision, Draft, Intent, Items, Meta, OpMeta, PersonAction};
use fieldbook_core::protocol::Failure;
use fieldbook_core::record::{Registers, TailOp};
use fieldbook_core::rows::{ConflictRow, RecordRow};
use fieldbook_core::rules::NotPossible;
use fieldbook_core::rules::admit::SeenRecord;
use fieldbook_core::rules::belonging::{accept, candidates};
use fieldbook_core::rules::choose::{Choice, choose};
use fieldbook_core::rules::discard::{discard, to_discard};
use fieldbook_core::rules::failure::{Doubted, isolate};
use fieldbook_core::rules::reset::reset;
use fieldbook_core::rules::retry::retry;
use fieldbook_core::rules::status::Stopped;
use fieldbook_core::rules::undo::{cancel, compensate};
use fieldbook_core::{Fields, Hlc, Mutation, OpPlace, RecordKey, UnitId};

use super::{Device, Job, Moment};
use crate::walk::law::Broken;

impl Job<'_> {
    pub(super) fn row(&self, key: &RecordKey) -> RecordRow {
        self.device.tables.records.get(key).cloned().unwrap_or_default()
    }

    /// Writes an op, if it changes anything. `edited_at` is its stamp, if a rule sets it.
    pub(super) fn write(
        &mut self,
        mutation: Mutation,
        edited_at: Option<Hlc>,
    ) -> Result<bool, Broken> {
        let row = self.row(&mutation.key);
        let read = row.greatest().edited_at;
        let mut seen = SeenRecord { image: row.image().cloned(), base: row.version(), read };
        let admitted =
            seen.admit(self.moment.schema, mutation).map_err(|error| Broken::unsound(&error))?;
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

    /// Returns the server's known state of a record, and the pending ops on it.
    pub(super) fn tail_ops(&self, row: &RecordRow) -> Result<(Registers, Vec<TailOp>), Broken> {
        let confirmed = row.registers().map_err(|fault| Broken::unsound(&fault))?;
        let tail = row.tail_ops(|place| self.device.op(place), |fault| Broken::unsound(&fault))?;
        Ok((confirmed, tail))
    }

    fn decide(
        &mut self,
        word: PersonAction,
        decisions: Vec<Decision>,
        items: Items,
    ) -> Result<(), Broken> {
        let control = Control::PersonActed(word, decisions);
        self.append(Draft { meta: Meta::Control(control), items }, Hlc::ZERO)?;
        Ok(())
    }
}

impl Device {
    /// Writes a user's edit. False: it would change nothing.
    pub(in crate::walk) fn types(
        &mut self,
        moment: Moment<'_>,
        mutation: Mutation,
    ) -> Result<bool, Broken> {
        self.job(moment, |job| job.write(mutation, None))
    }

    /// Undoes an op whose record was `before` before it. False: the op had no effect to undo.
    pub(in crate::walk) fn undo(
        &mut self,
        moment: Moment<'_>,
        (key, place): (&RecordKey, OpPlace),
        before: Option<&Fields>,
    ) -> Result<bool, Broken> {
        if let Some(cancelled) = self.cancel(place) {
            self.job(moment, |job| job.decide(PersonAction::Undo, cancelled, Items::default()))?;
            return Ok(true);
        }
        self.job(moment, |job| {
            let undone = job.device.op(place)?;
            let (confirmed, tail) = job.tail_ops(&job.row(key))?;
            let now = confirmed.with(tail.iter().map(|op| &op.writes));
            match compensate(key, &undone, before, &now) {
                Some(back) => job.write(back, None),
                None => Ok(false),
            }
        })
    }

    /// Returns the decisions that cancel an op, if it can be cancelled.
    pub(in crate::walk) fn cancel(&self, place: OpPlace) -> Option<Vec<Decision>> {
        let together = self.tail.ops_of_entry(place.seq).map(|(_, row)| row.key.clone());
        let rows = together
            .map(|key| (key.clone(), self.tables.records.get(&key).cloned().unwrap_or_default()));
        cancel(&self.tail, &BTreeSet::new(), &rows.collect(), place)
    }

    /// Sends a dead letter again.
    pub(in crate::walk) fn retry(
        &mut self,
        moment: Moment<'_>,
        place: OpPlace,
    ) -> Result<(), Broken> {
        self.job(moment, |job| {
            let Some(op) = job.device.tail.op(place).map(|row| row.op) else { return Ok(()) };
            let letter = job.device.tables.dead_letters.get(&op).cloned();
            let again = retry(&job.device.tail, &Stopped::default(), vec![(op, letter)]);
            let decisions = again.map_err(|error| Broken::unsound(&error))?;
            job.decide(PersonAction::Retry, decisions, Items::default())
        })
    }

    /// Discards a dead letter.
    pub(in crate::walk) fn discard(
        &mut self,
        moment: Moment<'_>,
        place: OpPlace,
    ) -> Result<(), Broken> {
        self.job(moment, |job| {
            let Some(op) = job.device.tail.op(place).map(|row| row.op) else { return Ok(()) };
            let (tail, stopped) = (&job.device.tail, Stopped::default());
            let found = to_discard(tail, &BTreeSet::new(), &stopped, &[op], |_, _| {
                Ok::<_, NotPossible>(None)
            });
            let found = found.map_err(|error| Broken::unsound(&error))?;
            let rows: BTreeMap<_, _> =
                found.iter().map(|op| (op.key.clone(), job.row(&op.key))).collect();
            let decisions = discard(&found, &rows, |place| tail.unit_of(place).is_some());
            let mut items = Items::default();
            let reason = items.add("no longer wanted", &mut job.view().1);
            job.decide(PersonAction::Discard { reason }, decisions, items)
        })
    }

    /// Chooses in an open conflict.
    pub(in crate::walk) fn choose(
        &mut self,
        moment: Moment<'_>,
        row: &ConflictRow,
        mine: bool,
    ) -> Result<(), Broken> {
        let choice = if mine { Choice::Local } else { Choice::Remote };
        self.job(moment, |job| {
            let (confirmed, tail) = job.tail_ops(&job.row(&row.key))?;
            let pending = &job.device.tail;
            let in_flight = |op: &TailOp| pending.unit_of(op.op.place).is_some();
            let chosen = choose(row, &confirmed, &tail, in_flight, &choice);
            let decisions = chosen.map_err(|error| Broken::unsound(&error))?.decisions(row, None);
            job.decide(PersonAction::Resolve, decisions, Items::default())
        })
    }

    /// Takes the server's state in place of everything unsent.
    pub(in crate::walk) fn take_state(&mut self, moment: Moment<'_>) -> Result<(), Broken> {
        self.job(moment, |job| {
            let units: Vec<_> =
                job.device.tables.units.iter().map(|(id, row)| (*id, row.clone())).collect();
            let keys: BTreeSet<_> = job.device.tail.ops().map(|(_, row)| row.key.clone()).collect();
            let rows: Vec<_> = keys.iter().map(|key| (key, job.row(key))).collect();
            let decisions = reset(&units, rows.iter().map(|(key, row)| (*key, row)));
            let mut items = Items::default();
            let reason = items.add("the device starts over", &mut job.view().1);
            job.decide(PersonAction::Discard { reason }, decisions, items)
        })
    }

    /// Gives up an unanswered unit without knowing whether it arrived: something in the network
    /// called it too large.
    pub(in crate::walk) fn abandon(
        &mut self,
        moment: Moment<'_>,
        unit: UnitId,
    ) -> Result<(), Broken> {
        let Some(row) = self.tables.units.get(&unit) else { return Ok(()) };
        let doubted = Doubted {
            unit,
            planned: row.planned,
            tries: row.tries,
            suspicion: row.suspicion.clone(),
        };
        self.job(moment, |job| {
            let decisions =
                isolate(&Failure::TooLarge, &[doubted], 1, job.moment.wall, &mut job.view().1);
            job.append(Draft::control(Control::Decided(decisions)), Hlc::ZERO)?;
            Ok(())
        })
    }

    /// Accepts the server that answered in place of the known server. False: there is no such
    /// server.
    pub(in crate::walk) fn accept_server(&mut self, moment: Moment<'_>) -> Result<bool, Broken> {
        let state = self.tables.state.clone();
        // Its latest epoch is the last that answered.
        let Some(named) = candidates(&state).last().copied() else { return Ok(false) };
        let decisions = accept(&state, &named).map_err(|error| Broken::unsound(&error))?;
        self.job(moment, |job| {
            job.decide(PersonAction::AcceptServer, decisions, Items::default())
        })?;
        Ok(true)
    }
}
