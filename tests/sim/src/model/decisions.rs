//! Decisions: how ops end, and the state of pending ops.

use std::collections::BTreeMap;

use fieldbook::RecordKey;
use fieldbook::audit::Hlc;
use fieldbook::audit::entry::{
    Cancelled, CancelledReason, Conflicted, Control, Decision, Entry, Meta, ParkScope, PlannedOp,
};
use fieldbook::record::{OpId, OpKind, UnitId, Version};

use super::{End, Model, Op, Waiting, item_of};
use crate::app::turned_op;
use crate::broken::{Broken, ensure};
use crate::ledger::{Image, Ledger, Registers, changed};

/// The longest time for which a unit waits, whatever a server asks for, in milliseconds.
const LONGEST_WAIT: i64 = 3_600_000;

impl Model {
    pub(super) fn decided(
        &mut self,
        entry: &Entry,
        decision: &Decision,
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions, ledger),
            Decision::Tried { unit, retry_at, .. } => {
                ensure(self.units.contains_key(unit), "S6", || {
                    format!("unit {unit} was tried and is not unanswered")
                })?;
                let wait = retry_at.milliseconds().saturating_sub(entry.header.wall.milliseconds());
                ensure((0..=LONGEST_WAIT).contains(&wait), "L5", || {
                    format!("unit {unit} is to wait for {wait} ms")
                })
            }
            Decision::Suspected { units, retry_at, .. } => {
                self.suspected.extend(units.iter().map(|(unit, _)| *unit));
                // A unit that the decision names may have been abandoned while the request was in
                // flight. Such a unit is no unit of the model any more.
                let wait = retry_at.map_or(0, |at| {
                    at.milliseconds().saturating_sub(entry.header.wall.milliseconds())
                });
                ensure(!units.is_empty() && (0..=LONGEST_WAIT).contains(&wait), "L5", || {
                    format!("{} units are to wait for {wait} ms", units.len())
                })
            }
            Decision::Requeued { unit, .. } => {
                let epoch = self.server_epoch.filter(|epoch| !ledger.is_ambiguous(Some(*epoch)));
                // Ops that a copy of the book has sent since that answer are at the server in
                // another unit.
                let ops = self.units.get(unit).into_iter().flatten().flat_map(|(_, ops)| ops);
                let is_shared = ops.into_iter().all(|op| ledger.shared.contains(op));
                let is_new = entry.header.seq.number() > self.read_before && !is_shared;
                let landed =
                    is_new && epoch.is_some() && ledger.effects(unit, epoch).next().is_some();
                ensure(!landed, "S7", || format!("unit {unit} took effect and is planned anew"))?;
                let was = self.units.remove(unit);
                if ledger.now.applied.contains_key(unit) {
                    let ops = was.iter().flatten().flat_map(|(_, ops)| ops);
                    self.strays.extend(ops);
                }
                ensure(was.is_some(), "S6", || {
                    format!("unit {unit} was requeued and is not unanswered")
                })
            }
            Decision::Upcast { key, op, schema_version, fields } => {
                self.upcast(key, op, *schema_version, &item_of(entry, *fields)?)
            }
            Decision::Conflicted(conflict) => self.conflicted(entry, conflict),
            Decision::Superseded { key, op } => {
                // Values that an op of ours had overwritten end with that op. The conflict names
                // the last write only.
                let held = self.records.get(key);
                let own =
                    held.and_then(|held| held.tail.iter().find(|waiting| waiting.op == op.id));
                let confirmed = held.and_then(|held| held.confirmed.as_ref());
                let is_left = own
                    .zip(self.ops.get(&op.id))
                    .is_some_and(|(own, op)| own.is_left(op, confirmed));
                let lost = self.clashed.contains(key)
                    || matches!(entry.meta, Meta::Control(Control::PersonActed(..)));
                // Ops that a deletion of ours covered end with it.
                let covered = self.fallen.contains(key);
                ensure(lost || covered || !is_left, "S6", || {
                    format!(
                        "op {} of {key} was superseded without a conflict: {:?}",
                        op.place, entry.meta
                    )
                })?;
                self.check_loss(entry, key, &op.id, &[], ledger)?;
                self.end(key, op, End::Superseded)
            }
            Decision::DeadLettered { unit, .. } => self.dead_lettered(unit),
            Decision::Retried { key, op } => {
                // A retried op counts as made for the version that the device has now.
                let seen = self.records.get(key).and_then(|held| held.version);
                if let Some(op) = self.ops.get_mut(&op.id) {
                    op.base = op.base.max(seen);
                }
                let waiting = self.waiting(key, op)?;
                let was = std::mem::replace(&mut waiting.dead, false);
                let is_parked = self.parks.contains(&ParkScope::Op(op.id));
                ensure(was || is_parked, "S6", || {
                    format!("op {} was retried and is neither a dead letter nor parked", op.id)
                })
            }
            Decision::Discarded { key, op } => self.end(key, op, End::Discarded),
            Decision::Cancelled(cancelled) => self.cancelled(cancelled, false, ledger),
            Decision::Resolved { .. } => Ok(()),
            Decision::Dropped { key, op, fields } => {
                self.check_loss(entry, key, &op.id, fields, ledger)?;
                let waiting = self.waiting(key, op)?;
                waiting.emptied |= fields.is_empty();
                waiting.lost.extend(fields.iter().cloned());
                waiting.given.retain(|name, _| !fields.contains(name));
                waiting.raised.retain(|name, _| !fields.contains(name));
                Ok(())
            }
            Decision::Raised { key, op, fields, edited_at, values } => {
                let values = values.map(|item| item_of(entry, item)).transpose()?;
                if fields.is_empty() {
                    self.stamp_anew(key, op, *edited_at)?;
                }
                let waiting = self.waiting(key, op)?;
                waiting.raised.extend(fields.iter().map(|name| (name.clone(), *edited_at)));
                waiting.given.extend(values.unwrap_or_default());
                Ok(())
            }
            Decision::BroughtBack { key, op, read } => {
                self.waiting(key, op)?.brings_back = Some(item_of(entry, *read)?);
                Ok(())
            }
            Decision::ServerAccepted { .. } => {
                self.server_accepted();
                Ok(())
            }
            Decision::Restamped { ops, .. } => {
                let mut last = BTreeMap::new();
                for restamp in ops {
                    self.stamp_anew(&restamp.key, &restamp.op, restamp.edited_at)?;
                    let former = last.insert(&restamp.key, restamp.edited_at);
                    ensure(former.is_none_or(|former| former < restamp.edited_at), "S6", || {
                        format!(
                            "op {} of {} is stamped before an earlier one",
                            restamp.op.id, restamp.key
                        )
                    })?;
                }
                Ok(())
            }
            Decision::ServerRead => {
                self.server_read();
                Ok(())
            }
            Decision::Adopted { key, seq, number } => {
                // After the log was trimmed, the oldest one of the record is in the baseline.
                let place = (*seq, *number);
                let mut of_record = self.undeclared.iter().filter(|(_, kept)| kept.key == *key);
                let place = match self.undeclared.contains_key(&place) {
                    true => place,
                    false => of_record.next().map_or(place, |(place, _)| *place),
                };
                let Some(kept) = self.undeclared.remove(&place) else {
                    return Err(Broken::new(
                        "S11",
                        format!("{key} is adopted and was not undeclared"),
                    ));
                };
                ensure(kept.key == *key, "S11", || format!("{} is adopted as {key}", kept.key))?;
                self.confirm(key, kept.version, kept.registers);
                Ok(())
            }
            Decision::BelongsTo { .. }
            | Decision::SetAside { .. }
            | Decision::ReadForeign { .. } => Ok(()),
            Decision::LetGo { key, .. } => {
                let gone = self.records.get_mut(key).map(|held| {
                    (held.version, held.confirmed) = (None, None);
                });
                ensure(gone.is_some(), "S11", || format!("{key} is let go of and is unknown"))
            }
            Decision::HandedOver { key, op, to } => {
                self.waiting(key, op)?;
                let handed = self.ops.get_mut(&op.id).map(|op| op.sender = to.to_string());
                ensure(handed.is_some(), "S19", || format!("op {} of {key} is unknown", op.id))
            }
            Decision::Parked { scope, .. } => {
                self.parks.insert(scope.clone());
                Ok(())
            }
            Decision::Unparked { scope } => {
                self.parks.remove(scope);
                Ok(())
            }
        }
    }

    fn acked(
        &mut self,
        unit: &UnitId,
        versions: &[(RecordKey, Version)],
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        // Another copy of the book may have sent the same ops in its own unit: all that its last
        // write did not cover.
        let is_shared = |op: &OpId| ledger.shared.contains(op);
        let changes = self.units.get(unit);
        let by_copy = changes.into_iter().flatten().all(|(_, ops)| {
            ops.iter().all(is_shared) && ops.last().is_some_and(|last| ledger.has_landed(last))
        });
        // Its ops may have arrived in a unit that it continues.
        let former = self.earlier_units.get(unit).into_iter().flatten();
        let applied =
            former.chain([unit]).flat_map(|unit| ledger.effects(unit, self.server_epoch)).min();
        let applied = if by_copy { Some(Version::default()) } else { applied };
        let Some(applied) = applied else {
            return Err(Broken::new("S8", format!("unit {unit} is acked and never took effect")));
        };
        let Some(changes) = self.units.remove(unit) else {
            return Err(Broken::new("S6", format!("unit {unit} is acked and was not unanswered")));
        };
        for (key, ops) in changes {
            let version =
                versions.iter().find(|(named, _)| *named == key).map(|(_, version)| *version);
            let Some(version) = version.filter(|version| *version >= applied) else {
                return Err(Broken::new(
                    "S8",
                    format!("the ack of {unit} has no right version for {key}"),
                ));
            };
            // The ops leave the tail together with the change of the confirmed record, so that no
            // state in between is visible.
            for op in &ops {
                self.remove(&key, op, End::Acked)?;
            }
            let Some(written) = ledger.by_unit(unit, &key, version, self.server_epoch) else {
                return Err(Broken::new("S8", format!("{key} never had version {version}")));
            };
            self.confirm(&key, version, written.registers.clone());
        }
        Ok(())
    }

    fn dead_lettered(&mut self, unit: &UnitId) -> Result<(), Broken> {
        let Some(changes) = self.units.remove(unit) else {
            return Err(Broken::new(
                "S6",
                format!("unit {unit} is abandoned and was not unanswered"),
            ));
        };
        for (key, ops) in changes {
            let Some(held) = self.records.get_mut(&key) else { continue };
            for waiting in held.tail.iter_mut().filter(|waiting| ops.contains(&waiting.op)) {
                (waiting.dead, waiting.abandoned) = (true, true);
                if let Some(op) = self.ops.get_mut(&waiting.op) {
                    op.was_dead = true;
                }
            }
        }
        Ok(())
    }

    fn conflicted(&mut self, entry: &Entry, conflict: &Conflicted) -> Result<(), Broken> {
        self.conflicts += 1;
        let names: Vec<String> = conflict.fields.iter().map(|field| field.name.clone()).collect();
        if let Some(op) = self.ops.get_mut(&conflict.op.id) {
            op.conflicts.push((conflict.version, names));
        }
        item_of(entry, conflict.local).map(drop)
    }

    /// Gives an op another stamp. Fields that a creation removed with a deletion's stamp follow it.
    fn stamp_anew(
        &mut self,
        key: &RecordKey,
        op: &PlannedOp,
        edited_at: Hlc,
    ) -> Result<(), Broken> {
        let waiting = self.waiting(key, op)?;
        let before = waiting.stamp();
        waiting.edited_at = edited_at;
        waiting.raised.clear();
        let after = waiting.stamp();
        let tail = self.records.get_mut(key).map(|held| held.tail.iter_mut()).into_iter().flatten();
        tail.filter(|later| later.cleared_at == Some(before))
            .for_each(|later| later.cleared_at = Some(after));
        Ok(())
    }

    /// Returns the confirmed fields, with the ops before one that are unanswered.
    fn stored_before(
        &self,
        key: &RecordKey,
        op: &PlannedOp,
        confirmed: Option<&Registers>,
    ) -> Image {
        let mut stored = confirmed.and_then(Registers::image).unwrap_or_default();
        let tail = self.records.get(key).map_or(&[][..], |held| held.tail.as_slice());
        for earlier in tail.iter().take_while(|earlier| earlier.op != op.id) {
            let is_unanswered =
                self.units.values().flatten().any(|(_, ops)| ops.contains(&earlier.op));
            let made = self.ops.get(&earlier.op).filter(|_| is_unanswered);
            let said = made.map(|made| earlier.says(made)).unwrap_or_default();
            stored = changed(Some(stored), OpKind::Update, &said).unwrap_or_default();
        }
        stored
    }

    /// Checks S18: an upcast op has the result of the app's functions on its remaining fields.
    fn upcast(
        &mut self,
        key: &RecordKey,
        op: &PlannedOp,
        to: u32,
        fields: &Image,
    ) -> Result<(), Broken> {
        let unanswered = self.units.values().flatten().any(|(_, ops)| ops.contains(&op.id));
        ensure(!unanswered, "S18", || {
            format!("op {} was turned while it was unanswered", op.place)
        })?;
        let made = self.ops.get(&op.id).cloned();
        let confirmed = self.records.get(key).and_then(|held| held.confirmed.clone());
        let mut stored = self.stored_before(key, op, confirmed.as_ref());
        let waiting = self.waiting(key, op)?;
        // What the edit brings back from a deletion is there too.
        stored.extend(waiting.brings_back.clone().into_iter().flatten());
        let is_gone = confirmed.as_ref().is_some_and(|known| !known.is_there);
        let left =
            made.as_ref().map(|made| waiting.left(made, confirmed.as_ref())).unwrap_or_default();
        let met = confirmed.as_ref().is_some_and(|known| known.is_there);
        let kind = made.as_ref().map_or(OpKind::Update, |made| made.kind);
        // A creation that met a record of somebody else edits it.
        let kind = if kind == OpKind::Create && met { OpKind::Update } else { kind };
        let turn = |said: Image| turned_op(said, kind, (waiting.form, to), &stored);
        let expected = turn(left);
        // An unanswered op has not met all changes since.
        let all = made.as_ref().filter(|_| waiting.abandoned).map(|made| turn(waiting.says(made)));
        let is_among =
            |some: &Image, all: &Image| some.iter().all(|(name, it)| all.get(name) == Some(it));
        let is_right = match &all {
            None => expected == *fields,
            // Fields that had lost to a record that has gone since are not among them.
            Some(all) => (is_gone || is_among(&expected, fields)) && is_among(fields, all),
        };
        ensure(is_right && waiting.form < to, "S18", || {
            format!(
                "op {} of version {} was turned into {fields:?}, not {expected:?} (all of it: {all:?})",
                op.place, waiting.form
            )
        })?;
        waiting.form = to;
        waiting.upcast = Some(fields.clone());
        let lost = std::mem::take(&mut waiting.lost);
        waiting.cleared.retain(|name| !lost.contains(name));
        waiting.given.clear();
        waiting.raised.retain(|name, _| fields.contains_key(name));
        Ok(())
    }

    /// Returns the record that the app reads after ops ended that need not be sent. A dead letter
    /// below their deletion has no effect any more: the next entry records it.
    fn without_what_falls(&mut self, cancelled: &Cancelled) -> Option<Image> {
        let ops = || cancelled.ops.iter().filter_map(|op| self.ops.get(&op.id));
        let deletes = ops().filter(|op| op.kind == OpKind::Delete).map(|op| op.place).max();
        let Some(last) = deletes else { return self.visible(&cancelled.key) };
        let mut held = self.records.get(&cancelled.key)?.clone();
        for waiting in held.tail.iter_mut().filter(|waiting| waiting.dead && !waiting.emptied) {
            let Some(op) = self.ops.get(&waiting.op) else { continue };
            if op.place < last && op.kind != OpKind::Delete {
                waiting.emptied = true;
                self.falls.push((cancelled.key.clone(), waiting.op));
            }
        }
        held.visible(|op| self.ops.get(op))
    }

    /// Ends cancelled ops. `planned` is true if the plan ended the ops, and false if an answer of
    /// the server ended them.
    pub(super) fn cancelled(
        &mut self,
        cancelled: &Cancelled,
        planned: bool,
        ledger: &Ledger,
    ) -> Result<(), Broken> {
        let before = self.visible(&cancelled.key);
        for op in &cancelled.ops {
            self.end(&cancelled.key, op, End::Cancelled)?;
        }
        let after =
            if planned { self.without_what_falls(cancelled) } else { self.visible(&cancelled.key) };
        // Ops that were created and deleted here do not affect a record of that name that somebody
        // else made in the meantime, if the author had read nothing of it. Nor do they affect one
        // that was made after the deletion had nothing left to delete.
        let ops: Vec<_> = cancelled.ops.iter().filter_map(|op| self.ops.get(&op.id)).collect();
        let created_on = ops.first().filter(|op| op.kind == OpKind::Create).map(|op| op.base);
        let was_there = |base| {
            let mut written = ledger.at(&cancelled.key, base, None);
            written.any(|it| it.image.is_some() && !self.ever_planned.contains(&it.unit))
                && !ledger.was_deleted_by(&self.ever_planned, &cancelled.key, base)
                && !self.has_seen_gone(&cancelled.key, base, ledger)
        };
        let saw = |op: &&Op| op.base.is_some_and(was_there);
        let unseen = cancelled.reason == CancelledReason::CreatedAndDeleted
            && ops.last().is_none_or(|last| created_on == Some(last.base) || !saw(last));
        let arrived = cancelled.reason == CancelledReason::AlreadyApplied;
        let phantom = cancelled
            .ops
            .iter()
            .find(|op| arrived && !ledger.has_landed(&op.id) && !ledger.shared.contains(&op.id));
        ensure(phantom.is_none(), "S8", || {
            format!("{phantom:?} is said to have arrived and never did")
        })?;
        // A creation without a field writes nothing to an existing record: a dead deletion below it
        // becomes visible again.
        let says_nothing = |op: &&Op| op.kind == OpKind::Create && op.fields.is_empty();
        let is_bare = !ops.is_empty() && ops.iter().all(says_nothing);
        let explained = unseen || arrived || is_bare || cancelled.reason == CancelledReason::Undone;
        ensure(before == after || explained, "S6", || {
            let ops: Vec<_> = cancelled.ops.iter().filter_map(|op| self.ops.get(&op.id)).collect();
            let reason = cancelled.reason;
            format!(
                "cancelling ops changed what the app reads: {reason:?} from {before:?} to {after:?}, {ops:?}"
            )
        })
    }

    /// Returns whether this device has read, after a version, that a record was deleted.
    fn has_seen_gone(&self, key: &RecordKey, after: Version, ledger: &Ledger) -> bool {
        let seen = self.records.get(key).map(|held| held.seen.range(after..)).into_iter().flatten();
        seen.flat_map(|version| ledger.at(key, *version, None))
            .any(|written| written.image.is_none())
    }

    fn end(&mut self, key: &RecordKey, op: &PlannedOp, end: End) -> Result<(), Broken> {
        let unanswered = self.units.values().flatten().any(|(_, ops)| ops.contains(&op.id));
        ensure(!unanswered, "S6", || {
            format!("op {} ended as {end:?} while it was unanswered", op.id)
        })?;
        self.remove(key, &op.id, end)
    }

    fn remove(&mut self, key: &RecordKey, id: &OpId, end: End) -> Result<(), Broken> {
        let Some(op) = self.ops.get_mut(id) else {
            return Err(Broken::new("S6", format!("op {id} ended as {end:?} and was never made")));
        };
        if let Some(before) = op.end.replace(end) {
            return Err(Broken::new(
                "S6",
                format!("op {id} ended as {before:?} and again as {end:?}"),
            ));
        }
        if let Some(held) = self.records.get_mut(key) {
            held.tail.retain(|waiting| waiting.op != *id);
        }
        // The reason for its park is resolved with it.
        self.parks.remove(&ParkScope::Op(*id));
        Ok(())
    }

    fn waiting(&mut self, key: &RecordKey, op: &PlannedOp) -> Result<&mut Waiting, Broken> {
        let tail = self.records.get_mut(key).map(|held| &mut held.tail);
        let found = tail.and_then(|tail| tail.iter_mut().find(|waiting| waiting.op == op.id));
        found.ok_or_else(|| {
            Broken::new("S6", format!("a decision on op {}, which does not wait", op.id))
        })
    }
}
