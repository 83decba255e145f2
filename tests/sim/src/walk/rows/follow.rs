//! The true events, followed independently of the rules: from the entries that a device appends and
//! the answers that reach it.

use std::rc::Rc;

use fieldbook_core::entry::{
    Cancelled, CancelledReason, ConflictedField, Control, Decision, Entry, Extent, Meta, PlannedOp,
};
use fieldbook_core::protocol::{Change, ExchangeAnswer, Outcome};
use fieldbook_core::rows::ConflictRow;
use fieldbook_core::{OpPlace, RecordKey, Seq, UnitId, Version};

use super::{Fate, Fields, Ghosts, OpGhost, Ops, Said, said_by};
use crate::walk::device::Device;
use crate::walk::law::{Broken, Law};
use crate::walk::server::Server;
use crate::walk::world::{FIELDS, Ground, OPS_OF_A_DEVICE};

/// The place of an event: a device, in its state after the event.
struct Following<'a> {
    ground: &'a Ground,
    server: &'a Server,
    device: &'a Device,
    number: usize,
    ghosts: &'a mut Ghosts,
    /// The records before the event.
    before: &'a [Option<Fields>],
    broken: Vec<Broken>,
}

/// Follows the entries that a device appended after its first `known` entries, and the answer that
/// reached it, if there was one. Returns the broken laws.
pub(in crate::walk) fn follow(
    (ground, server): (&Ground, &Server),
    (number, device, known): (usize, &Device, usize),
    before: &[Option<Fields>],
    answer: Option<&ExchangeAnswer>,
    ghosts: &mut Ghosts,
) -> Vec<Broken> {
    let mut following =
        Following { ground, server, device, number, ghosts, before, broken: Vec::new() };
    for entry in device.log.iter().skip(known) {
        following.entry(entry);
    }
    if let Some(answer) = answer {
        following.answer(answer);
    }
    following.broken
}

impl Following<'_> {
    fn entry(&mut self, entry: &Entry) {
        match &entry.meta {
            Meta::Intent(intent) => {
                for index in 0..u32::try_from(intent.ops.len()).unwrap_or(0) {
                    self.made(OpPlace { seq: entry.header.seq, index });
                }
            }
            Meta::Control(Control::Planned(planned)) => {
                planned.cancelled.iter().for_each(|cancelled| self.cancelled(cancelled));
            }
            Meta::Control(Control::Decided(decisions) | Control::PersonActed(_, decisions)) => {
                let by_person = matches!(entry.meta, Meta::Control(Control::PersonActed(..)));
                decisions.iter().for_each(|decision| self.decision(decision, by_person));
                let seq = entry.header.seq;
                let device = self.device;
                let conflicts = device.tables.conflicts.range((seq, 0)..=(seq, u32::MAX));
                conflicts.for_each(|(_, row)| self.conflict(row, decisions));
            }
            _ => {}
        }
    }

    fn made(&mut self, place: OpPlace) {
        let (Ok(content), Some(entry)) = (self.device.op(place), self.entry_at(place.seq)) else {
            return;
        };
        let Meta::Intent(intent) = &entry.meta else { return };
        let meta = usize::try_from(place.index).ok().and_then(|index| intent.ops.get(index));
        let record = meta.and_then(|meta| self.ground.record(&meta.key));
        let (Some(record), Some(slot)) = (record, self.ground.slot(&content.id)) else {
            self.broken.push(Broken::new(Law::Sound, "there are more ops than a walk can follow"));
            return;
        };
        let told = self.ghosts.told.get(self.number).copied().unwrap_or_default();
        let first = self.number * OPS_OF_A_DEVICE;
        let own =
            (first..slot).filter(|slot| self.ghosts.of(*slot).is_some()).fold(told, Ops::with);
        let mut said = said_by(content.kind, &content.fields);
        for (field, said) in said.iter_mut().enumerate().filter(|(_, said)| **said == Said::Null) {
            // A field that its author never read is not removed by an image without it.
            let named = FIELDS.get(field).is_some_and(|name| content.fields.has(name));
            let seen = self.ground.world.given
                || self.ghosts.each().any(|(other, op)| {
                    own.has(other) && op.record == record && self.ghosts.says(other, field)
                });
            if !named && !seen {
                *said = Said::Nothing;
            }
        }
        let ghost = OpGhost {
            record,
            place,
            kind: content.kind,
            said,
            stamp: content.edited_at,
            made_on: own.with(slot),
            met: Ops::default(),
            fate: Fate::Pending,
            undone: false,
            yielded: [false; FIELDS.len()],
            gave_way: Ops::default(),
            before: self.before.get(record).cloned().flatten(),
        };
        if let Some(empty) = self.ghosts.ops.get_mut(slot) {
            *empty = Some(Rc::new(ghost));
        }
    }

    fn entry_at(&self, seq: Seq) -> Option<Rc<Entry>> {
        let place = usize::try_from(seq.number()).ok()?.checked_sub(1)?;
        self.device.log.get(place).cloned()
    }

    fn decision(&mut self, decision: &Decision, by_person: bool) {
        match decision {
            Decision::Acked { unit, planned, .. } => {
                self.ops_of(unit, *planned).into_iter().for_each(|op| self.ends(op, Fate::Acked));
            }
            Decision::Superseded { op, .. } if !by_person => self.ends(*op, Fate::Superseded),
            // An op against which a person chose ends by the person's decision.
            Decision::Superseded { op, .. } | Decision::Discarded { op, .. } => {
                self.ends(*op, Fate::Discarded);
            }
            Decision::Dropped { op, fields, .. } => self.dropped(*op, fields, by_person),
            Decision::Cancelled(cancelled) => self.cancelled(cancelled),
            Decision::Raised { op, edited_at, .. } => {
                if let Some(slot) = self.ground.slot(&op.id) {
                    self.ghosts.change(slot, |op| op.stamp = op.stamp.max(*edited_at));
                }
            }
            Decision::Restamped { ops, .. } => {
                for restamp in ops {
                    if let Some(slot) = self.ground.slot(&restamp.op.id) {
                        self.ghosts.change(slot, |op| op.stamp = restamp.edited_at);
                    }
                }
            }
            _ => {}
        }
    }

    fn dropped(&mut self, op: PlannedOp, fields: &[String], by_person: bool) {
        let Some(slot) = self.ground.slot(&op.id) else { return };
        let is_whole = fields.is_empty();
        let lost = |name: &str| is_whole || fields.iter().any(|lost| lost == name);
        // A dead letter before it goes with it. An op that a person sent again without it stays.
        let stays = |earlier: &usize| {
            let place = self.ghosts.of(*earlier).map(|op| op.place);
            is_whole && place.is_some_and(|place| !self.device.tail.is_dead(place))
        };
        let first = self.number * OPS_OF_A_DEVICE;
        let gave_way = (first..slot).filter(stays).fold(Ops::default(), Ops::with);
        self.ghosts.change(slot, |op| {
            op.gave_way = op.gave_way.and(gave_way);
            for (yielded, name) in op.yielded.iter_mut().zip(FIELDS) {
                *yielded |= by_person && lost(name);
            }
        });
    }

    fn ops_of(&self, unit: &UnitId, planned: Seq) -> Vec<PlannedOp> {
        let Some(entry) = self.entry_at(planned) else { return Vec::new() };
        let Meta::Control(Control::Planned(plan)) = &entry.meta else { return Vec::new() };
        let unit = plan.units.iter().find(|found| found.id == *unit);
        unit.into_iter()
            .flat_map(|unit| &unit.changes)
            .flat_map(|change| change.ops.clone())
            .collect()
    }

    fn cancelled(&mut self, cancelled: &Cancelled) {
        let fate = match cancelled.reason {
            CancelledReason::NoEffect | CancelledReason::AlreadyApplied => Fate::NoEffect,
            _ => Fate::Unsent,
        };
        cancelled.ops.iter().for_each(|op| self.ends(*op, fate));
    }

    fn ends(&mut self, op: PlannedOp, fate: Fate) {
        let Some(slot) = self.ground.slot(&op.id) else { return };
        let former = self.ghosts.of(slot).map_or(Fate::Pending, |op| op.fate);
        if former != Fate::Pending {
            self.broken.push(Broken::new(
                Law::Outcome,
                format!("an op ended as {former:?}, then as {fate:?}"),
            ));
        }
        self.ghosts.change(slot, |op| op.fate = fate);
    }

    /// Records the other side of an op's conflict. The conflict is false if its author had received
    /// all writes that it names.
    fn conflict(&mut self, row: &ConflictRow, decisions: &[Decision]) {
        let (Some(slot), Some(record)) =
            (self.ground.slot(&row.op.id), self.ground.record(&row.key))
        else {
            return;
        };
        let Some(made_on) = self.ghosts.of(slot).map(|op| op.made_on) else { return };
        let first = self.number * OPS_OF_A_DEVICE;
        // A discarded op whose unit was abandoned may still arrive: that is recorded.
        let is_discarded =
            |slot: &usize| self.ghosts.of(*slot).is_some_and(|op| op.fate == Fate::Discarded);
        let own = (first..first + OPS_OF_A_DEVICE).filter(|slot| !is_discarded(slot));
        let gone =
            (first..first + OPS_OF_A_DEVICE).filter(is_discarded).fold(Ops::default(), Ops::with);
        let known = own.fold(made_on.without(gone), Ops::with);
        let Some(holding) = self.server.holding(record, row.version) else { return };
        let mut news = Ops::default();
        if row.fields.is_empty() {
            news = holding.ops.without(known);
            if row.extent == Extent::Deleted {
                let life = holding.life.into_iter().fold(Ops::default(), Ops::with).without(known);
                news = if life.is_empty() { news } else { life };
            }
            if news.is_empty() {
                self.is_false(slot, "the record");
            }
        }
        for ConflictedField { name, .. } in &row.fields {
            let writer = FIELDS.iter().zip(holding.fields).find(|(field, _)| **field == name);
            match writer.and_then(|(_, writer)| writer).filter(|writer| !known.has(*writer)) {
                Some(writer) => news = news.with(writer),
                // If the record was deleted and made again, the field has no writer.
                None if holding.ops.without(known).is_empty() => self.is_false(slot, name),
                None => news = news.and(holding.ops.without(known)),
            }
        }
        self.ghosts.change(slot, |op| op.met = op.met.and(news));
        self.with_others(row, decisions, slot, news);
    }

    /// Records the other ops of a conflict. Ops that were sent as one change make one conflict. The
    /// other ops are recorded with it if their values are shown there, or if it is a conflict of
    /// the whole record and ends them too.
    fn with_others(&mut self, row: &ConflictRow, decisions: &[Decision], slot: usize, news: Ops) {
        let Ok(local) = row.local.to_fields() else { return };
        let first = self.number * OPS_OF_A_DEVICE;
        for other in (first..first + OPS_OF_A_DEVICE).filter(|other| *other != slot) {
            let id = self.ground.op_of(other);
            let ends = |decision: &Decision| match decision {
                Decision::Superseded { key, op } => *key == row.key && op.id == id,
                // A dead letter stays listed.
                Decision::Dropped { key, op, fields } => {
                    *key == row.key && op.id == id && fields.is_empty()
                }
                _ => false,
            };
            let ends_too = row.fields.is_empty() && decisions.iter().any(ends);
            let said = self.ghosts.of(other).map_or_else(Default::default, |op| op.said);
            let is_shown = FIELDS
                .iter()
                .zip(said)
                .any(|(name, said)| local.has(name) && said == Said::by(Some(&local), name));
            if is_shown || ends_too {
                self.ghosts.change(other, |op| op.met = op.met.and(news));
            }
        }
    }

    fn is_false(&mut self, slot: usize, what: &str) {
        let op = super::super::tell::op_name(slot);
        let what =
            format!("{op} is on record over {what}, of whose write its author had been told");
        self.broken.push(Broken::new(Law::NoFalse, what));
    }

    /// Records the content of an answer to a device.
    fn answer(&mut self, answer: &ExchangeAnswer) {
        let mut news = Ops::default();
        let mut told = |key: &RecordKey, version: Version| {
            let holding =
                self.ground.record(key).and_then(|record| self.server.holding(record, version));
            news = holding.map_or(news, |holding| news.and(holding.ops));
        };
        let mut changed = |change: &Change| told(&change.key, change.version);
        answer.changes.iter().for_each(&mut changed);
        for outcome in &answer.outcomes {
            if let Outcome::Stale { current, .. }
            | Outcome::Applied { current, .. }
            | Outcome::Duplicate { current, .. } = &outcome.outcome
            {
                current.iter().for_each(&mut changed);
            }
        }
        for outcome in &answer.outcomes {
            if let Outcome::Applied { versions, .. } | Outcome::Duplicate { versions, .. } =
                &outcome.outcome
            {
                versions.iter().for_each(|(key, version)| told(key, *version));
            }
        }
        if let Some(known) = self.ghosts.told.get_mut(self.number) {
            *known = known.and(news);
        }
    }
}
