//! Rebase: what the server said of a record, against what this device has of it.
//!
//! ```text
//!   record named by the answer ─► has it a tail? ─► whose was the server's last edit?
//!                                     no: done        ours, under way     ─► its unit is acked
//!                                                     ours, given up      ─► its ops have arrived, and end
//!                                                     anybody else's      ─► ops that wait, ops that were stale: judged apart
//! ```
//!
//! Invariants:
//! 1. Only records that the answer names and that have a tail are looked at, each once, against the last version that came.
//! 2. What is under way is left alone: its outcome tells more, and is on its way.
//! 3. What arrived is never judged, nor what was made on top of it as if it had not.
//! 4. A version that is no higher than what is confirmed decides nothing.
//!
//! What it is not: the judgement itself ([`super::judge`]) or its policies ([`super::resolve`]).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::answer::{Reoffer, Taking, Touched};
use super::base::overlaid;
use super::judge::{Clash, Edit, EditOp, Verdict, agrees_as_a_whole, judge};
use super::resolve::RemoteEdit;
use super::{View, effective_fields};
use crate::entry::{Annulled, AnnulledReason, Conflicted, Decision, Extent, ParkScope, PlannedOp, Winner};
use crate::fields::{Fields, FieldsJson};
use crate::ids::UnitId;
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::protocol::Change;
use crate::rows::{RecordRow, TailRef};
use crate::schema::EntityRules;

impl<'a, V: View> Taking<'a, V> {
    /// Decides what becomes of the tails of all records that the answer named.
    pub(super) fn judge_all(&mut self) -> Result<(), V::Error> {
        for (key, mut touched) in std::mem::take(&mut self.touched) {
            touched.changes.sort_by_key(|change| change.version);
            let Some(row) = self.view.record(&key)? else { continue };
            self.reoffer(&key, &row, &touched);
            if row.tail.is_empty() {
                continue;
            }
            self.confirm_own(&row, &touched)?;
            let Some(rules) = self.schema.rules(&key.entity) else { continue };
            self.judge(&key, &row, &touched, rules)?;
        }
        Ok(())
    }

    /// After a restore: what the former life of the server had last is offered again if this one has something older.
    fn reoffer(&mut self, key: &RecordKey, row: &RecordRow, touched: &Touched<'a>) {
        let Some(former) = row.confirmed.as_ref().filter(|confirmed| confirmed.version.number() == 0) else {
            return;
        };
        let Some(last) = touched.changes.last().filter(|last| last.edited_at < former.edited_at) else {
            return;
        };
        if row.tail.iter().any(|reference| !reference.dead && reference.kind == OpKind::Delete) {
            // We do not want it either, and say so though the delete may end in this answer.
            return;
        }
        let image = row.confirmed_image().and_then(|fields| fields.to_fields().ok());
        if image.is_some() || !last.deleted {
            self.out.reoffers.push(Reoffer { key: key.clone(), image, edited_at: former.edited_at });
        }
    }

    /// A change whose last op is one of ours that is under way confirms the unit, if the unit is about this record only;
    /// for a transaction the outcome tells more, and it is on its way. If the unit was given up, it had reached the server
    /// before that, and its ops are not sent again. Where several units carried it, these are the ops that each of them did.
    fn confirm_own(&mut self, row: &RecordRow, touched: &Touched<'a>) -> Result<(), V::Error> {
        for change in &touched.changes {
            let Some(own) = row.tail.iter().find(|reference| reference.op == change.op) else { continue };
            let id = self.view.unit_of(&change.op)?.filter(|_| !own.dead);
            let Some(id) = id.filter(|id| !self.is_sent_in_vain(*id)) else {
                let carried_it = |unit: &UnitId, other: &TailRef| other.attempts.contains(unit);
                // What was made after it did not come with it: then that would be the last word. Another copy of this book may
                // have sent it by a unit of its own.
                let came_with_it = |other: &TailRef| {
                    other.place <= own.place && own.attempts.iter().all(|unit| carried_it(unit, other))
                };
                self.landed(&change.key, row, |other| !own.attempts.is_empty() && came_with_it(other))?;
                continue;
            };
            if self.settled.iter().any(|(settled, _)| *settled == id) {
                continue;
            }
            let Some(unit) = self.view.unit(&id)? else { continue };
            // An earlier op of it came with a unit that this one took over, whose last word the server does not have.
            let is_last_word = |ops: &[PlannedOp]| ops.last().is_some_and(|last| last.id == change.op);
            if let [only] = unit.changes.as_slice()
                && is_last_word(&only.ops)
            {
                self.acked(id, &unit, &BTreeMap::from([(change.key.clone(), change.version)]));
                self.settled.push((id, unit));
            }
        }
        Ok(())
    }

    /// Judges the ops of one record's tail that are not under way: those of a stale unit as one edit, those that wait as
    /// another.
    fn judge(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        touched: &Touched<'a>,
        rules: &EntityRules,
    ) -> Result<(), V::Error> {
        let Some(last) = touched.changes.last() else { return Ok(()) };
        let last = &*as_confirmed(row, last);
        if !touched.stale && !row.is_behind(last.version) {
            return Ok(());
        }
        let Some(before) = self.confirmed_before(key, row)? else { return Ok(()) };
        let after = remote_image(row, &touched.changes);
        let mut stale = Edit { stale: true, ..Edit::default() };
        let mut waiting = Edit { base: before, ..Edit::default() };
        let mut under_way = false;
        let is_judged = |reference: &&TailRef| {
            !reference.dead && !reference.outdated && !self.landed.contains(&reference.op)
        };
        let to_judge: Vec<_> = row.tail.iter().filter(is_judged).collect();
        let mut waits = Vec::new();
        for reference in to_judge {
            let edit = match self.standing(reference, key)? {
                Standing::Waiting => {
                    waits.push(reference);
                    &mut waiting
                }
                Standing::Stale(base) => {
                    stale.base = base;
                    &mut stale
                }
                Standing::UnderWay => {
                    under_way = true;
                    continue;
                }
                Standing::Done => continue,
            };
            let content = self.view.op(reference.place)?;
            edit.ops.push(EditOp {
                op: PlannedOp { id: reference.op, place: reference.place },
                kind: content.kind,
                edited_at: content.edited_at,
                fields: effective_fields(&content, reference),
            });
        }
        // Bases were made of what was read before; damage would have shown then.
        let waits: Vec<_> = waits.into_iter().zip(waiting.ops.iter().map(|op| op.fields.clone())).collect();
        waiting.base = overlaid(waiting.base.take(), &waits).unwrap_or_default();
        stale.base = self.with_landed(row, stale.base)?;
        waiting.base = self.with_landed(row, waiting.base)?;
        let remote = RemoteEdit {
            op: last.op,
            image: after.as_ref(),
            edited_at: last.edited_at,
            edited_at_of: &|name| last.edited_at_of(name),
        };
        if covers_and_agrees(&stale.ops, &waiting.ops, after.as_ref()) {
            // Both sides deleted it, or set it to the same. Ours ends together with all that it covers, or else that would
            // come back, or take theirs away meanwhile; it stays for as long as some of that is on its way. What it covers may
            // leave before it, and is judged.
            if under_way {
                let covers = |op: &EditOp| matches!(op.kind, OpKind::Delete | OpKind::Replace);
                let last = waiting.ops.iter().rposition(covers);
                waiting.ops.truncate(last.unwrap_or_default());
            } else {
                stale.ops.append(&mut waiting.ops);
                stale.ops.sort_by_key(|op| op.op.place);
            }
        }
        stale.hides_theirs = stale.ops.first().is_some_and(|first| {
            let is_beneath = |reference: &&TailRef| !reference.outdated && reference.place < first.op.place;
            let mut beneath = row.tail.iter().filter(is_beneath);
            first.kind == OpKind::Create && beneath.any(|reference| reference.kind == OpKind::Delete)
        });
        for edit in [waiting, stale].into_iter().filter(|edit| !edit.ops.is_empty()) {
            for verdict in judge(key, rules, edit, &remote) {
                self.follow(key, last, verdict);
            }
        }
        Ok(())
    }

    /// Returns a base with what turned out to have taken effect on top: the author of what came after had seen that.
    fn with_landed(&mut self, row: &RecordRow, base: Option<Fields>) -> Result<Option<Fields>, V::Error> {
        let mut image = super::Image { fields: base, before_deletion: None };
        for reference in row.tail.iter().filter(|reference| self.landed.contains(&reference.op)) {
            let content = self.view.op(reference.place)?;
            image.put(&content, reference);
        }
        Ok(image.fields)
    }

    fn follow(&mut self, key: &RecordKey, last: &Change, verdict: Verdict) {
        let decision = match verdict {
            Verdict::Annulled(ops, reason) => Decision::Annulled(Annulled { key: key.clone(), ops, reason }),
            Verdict::Superseded(op) => Decision::Superseded { key: key.clone(), op },
            Verdict::Conflicted(clash) => return self.conflicted(key, *clash, last),
        };
        self.out.decisions.push(decision);
    }

    fn conflicted(&mut self, key: &RecordKey, clash: Clash, last: &Change) {
        let Clash { op, kind, edited_at, settlement } = clash;
        self.out.tally.conflicts += 1;
        let items = &mut self.out.decision_items;
        let base = items.add_fields(&settlement.base.to_json(), self.random);
        let local = items.add_fields(&settlement.local.to_json(), self.random);
        let remote = items.add_fields(&settlement.remote.to_json(), self.random);
        let merged =
            settlement.merged.as_ref().map(|merged| items.add_fields(&merged.to_json(), self.random));
        let undecided = settlement.winner == Winner::Undecided;
        self.out.decisions.push(Decision::Conflicted(Conflicted {
            key: key.clone(),
            op,
            kind,
            edited_at,
            version: last.version,
            extent: if last.deleted { Extent::Deleted } else { Extent::Whole },
            remote_edited_at: last.edited_at,
            fields: settlement.fields,
            winner: settlement.winner,
            rule: settlement.rule,
            base,
            local,
            remote,
            merged,
            functions: settlement.functions,
        }));
        if undecided {
            self.park(ParkScope::Op(op.id), "conflict");
        }
    }

    /// Returns what this answer has decided on a unit.
    fn end_of(&self, id: UnitId) -> Option<UnitEnd> {
        self.out.decisions.iter().find_map(|decision| match decision {
            Decision::Acked { unit, .. } if *unit == id => Some(UnitEnd::Acked),
            Decision::Dissolved { unit, .. } if *unit == id => Some(UnitEnd::Dissolved),
            Decision::DeadLettered { unit, .. } if *unit == id => Some(UnitEnd::DeadLettered),
            _ => None,
        })
    }

    /// Ends ops of units that were given up and turn out to have been applied.
    pub(super) fn landed(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        has_landed: impl Fn(&TailRef) -> bool,
    ) -> Result<(), V::Error> {
        let mut ops = Vec::new();
        for reference in row.tail.iter().filter(|reference| has_landed(reference)) {
            let unit = self.view.unit_of(&reference.op)?;
            let under_way = unit.is_some_and(|unit| !reference.dead && !self.is_sent_in_vain(unit));
            if !under_way && self.landed.insert(reference.op) {
                ops.push(PlannedOp { id: reference.op, place: reference.place });
            }
        }
        if !ops.is_empty() {
            let reason = AnnulledReason::Arrived;
            self.out.decisions.push(Decision::Annulled(Annulled { key: key.clone(), ops, reason }));
        }
        Ok(())
    }
    /// Returns whether this answer says that a unit did not take effect; its ops may have by another one.
    fn is_sent_in_vain(&self, id: UnitId) -> bool {
        matches!(self.end_of(id), Some(UnitEnd::Dissolved | UnitEnd::DeadLettered))
    }

    fn standing(&mut self, reference: &TailRef, key: &RecordKey) -> Result<Standing, V::Error> {
        let Some(id) = self.view.unit_of(&reference.op)? else { return Ok(Standing::Waiting) };
        Ok(match self.end_of(id) {
            Some(UnitEnd::Acked | UnitEnd::DeadLettered) => Standing::Done,
            Some(UnitEnd::Dissolved) => {
                let changes = self.settled.iter().filter(|(settled, _)| *settled == id);
                let change = changes.flat_map(|(_, unit)| &unit.changes).find(|change| change.key == *key);
                let base = change.and_then(|change| change.base_fields.as_ref());
                // Base fields were built by the fold; damage would have shown when the row was read.
                Standing::Stale(base.and_then(|fields| fields.to_fields().ok()))
            }
            None => Standing::UnderWay,
        })
    }

    /// Returns what confirmed is once the units that this answer acks have been counted in; the outer `None` if stored
    /// text was damaged, in which case the fold will say so.
    fn confirmed_before(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
    ) -> Result<Option<Option<Fields>>, V::Error> {
        let mut image = super::Image { fields: None, before_deletion: None };
        if let Some(confirmed) = row.confirmed_image() {
            match confirmed.to_fields() {
                Ok(fields) => image.fields = Some(fields),
                Err(_) => return Ok(None),
            }
        }
        for decision in &self.out.decisions {
            let Decision::Acked { unit, versions, .. } = decision else { continue };
            // What a page brought since has it in it.
            if !versions.iter().any(|(of, version)| of == key && row.is_behind(*version)) {
                continue;
            }
            let Some((_, unit)) = self.settled.iter().find(|(settled, _)| settled == unit) else { continue };
            for change in unit.changes.iter().filter(|change| change.key == *key) {
                let fields = self.view.fields(change.fields)?.unwrap_or_default();
                match fields.to_fields() {
                    Ok(fields) => image.apply(change.kind, &fields),
                    Err(_) => return Ok(None),
                }
            }
        }
        Ok(Some(image.fields))
    }
}

/// Returns whether what waits comes after what was stale, covers it, and agrees with what the server has as a whole.
fn covers_and_agrees(stale: &[EditOp], waiting: &[EditOp], theirs: Option<&Fields>) -> bool {
    let (Some(sent), Some(first), Some(last)) = (stale.last(), waiting.first(), waiting.last()) else {
        return agrees_as_a_whole(waiting, theirs);
    };
    if sent.op.place < first.op.place {
        return agrees_as_a_whole(waiting, theirs);
    }
    // One that was given up, and is sent again, was made before what left meanwhile; a deletion after that covers both.
    theirs.is_none() && last.kind == OpKind::Delete && sent.op.place < last.op.place
}

/// How a unit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitEnd {
    /// The server has it.
    Acked,
    /// It was made for another version: its ops are planned anew.
    Dissolved,
    /// Its ops are dead letters.
    DeadLettered,
}

enum Standing {
    /// Not sent: it can be judged.
    Waiting,
    /// It came back stale; what the record was when it was planned.
    Stale(Option<Fields>),
    /// It was sent and has no answer yet.
    UnderWay,
    /// It is acked by this answer, or a dead letter.
    Done,
}

/// Returns the last change that an answer tells of, or what is confirmed if that is newer: an answer can come late. Of what is
/// confirmed only the record's last edit is known, which then stands for each field's.
fn as_confirmed<'c>(row: &RecordRow, last: &'c Change) -> Cow<'c, Change> {
    match row.confirmed.as_ref().filter(|confirmed| confirmed.version > last.version) {
        Some(confirmed) => Cow::Owned(Change {
            version: confirmed.version,
            edited_at: confirmed.edited_at,
            older: BTreeMap::new(),
            deleted: confirmed.deleted,
            ..last.clone()
        }),
        None => Cow::Borrowed(last),
    }
}

/// Returns the record's image after these changes, or `None` if it is deleted.
fn remote_image(row: &RecordRow, changes: &[&Change]) -> Option<Fields> {
    let mut image = row.confirmed_fields().ok().filter(|_| row.confirmed_image().is_some());
    let known = row.confirmed.as_ref().map(|confirmed| confirmed.version);
    for change in changes.iter().filter(|change| known.is_none_or(|known| change.version >= known)) {
        let fields =
            change.fields.as_ref().map(FieldsJson::to_fields).and_then(Result::ok).unwrap_or_default();
        if change.deleted {
            image = None;
        } else if change.partial {
            image.get_or_insert_with(Fields::new).apply(&fields);
        } else {
            image = Some(fields.into_image());
        }
    }
    image
}

#[cfg(test)]
mod tests;
