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
//! What it is not: what is judged together ([`super::edits`]), the judgement itself ([`super::judge`]) or its policies
//! ([`super::resolve`]).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::View;
use super::answer::{Reoffer, Taking, Touched};
use super::judge::{Clash, Verdict, judge};
use super::resolve::RemoteEdit;
use crate::entry::{Annulled, AnnulledReason, Conflicted, Decision, Extent, ParkScope, PlannedOp, Winner};
use crate::fields::{Fields, FieldsJson};
use crate::ids::{OpId, UnitId};
use crate::names::RecordKey;
use crate::op::OpKind;
use crate::protocol::Change;
use crate::rows::{Confirmed, RecordRow, TailRef};
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

    /// Judges the ops of one record's tail that are not under way.
    fn judge(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        touched: &Touched<'a>,
        rules: &EntityRules,
    ) -> Result<(), V::Error> {
        let Some(last) = last_change(key, row, touched) else { return Ok(()) };
        if !touched.stale && !row.is_behind(last.version) {
            return Ok(());
        }
        let Some(mut edits) = self.edits(key, row)? else { return Ok(()) };
        let after = remote_image(row, &touched.changes);
        edits.meet(after.as_ref());
        let remote = RemoteEdit {
            op: last.op,
            image: after.as_ref(),
            edited_at: last.edited_at,
            edited_at_of: &|name| last.edited_at_of(name),
        };
        for edit in [edits.waiting, edits.stale].into_iter().filter(|edit| !edit.ops.is_empty()) {
            for verdict in judge(key, rules, edit, &remote) {
                self.follow(key, &last, verdict);
            }
        }
        Ok(())
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
}

/// Returns the last change that an answer tells of, or what is confirmed if that is newer, or if it tells of none: an answer can
/// come late. Of what is confirmed only the record's last edit is known, which then stands for each field's.
fn last_change<'c>(key: &RecordKey, row: &RecordRow, touched: &Touched<'c>) -> Option<Cow<'c, Change>> {
    let told = touched.changes.last().copied();
    let newer = |confirmed: &&Confirmed| told.is_none_or(|told| confirmed.version > told.version);
    match (row.confirmed.as_ref().filter(newer), told) {
        (Some(confirmed), _) => Some(Cow::Owned(Change {
            key: key.clone(),
            version: confirmed.version,
            edited_at: confirmed.edited_at,
            op: told.map_or(OpId::from_bytes([0; 16]), |told| told.op),
            older: BTreeMap::new(),
            deleted: confirmed.deleted,
            partial: false,
            fields: None,
        })),
        (None, told) => told.map(Cow::Borrowed),
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
