//! Applies the steps of a unit: planned, tried, and then acked, requeued or dead-lettered.

use std::collections::BTreeSet;

use fieldbook_core::entry::{ItemIndex, PlannedOp, PlannedUnit};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{SentFor, TailOp, Writes, join_own};
use fieldbook_core::rows::{Confirmed, DeadLetterRow, UnitRow};
use fieldbook_core::{RecordKey, UnitId, Version, WallTime};

use super::Applying;
use super::open::Open;
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::LogView;

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn planned(&mut self, number: u32, unit: &PlannedUnit) -> Result<(), StoreError> {
        for id in &unit.earlier_units {
            // A unit that was abandoned before has no row.
            let Some(former) = self.tables.unit(id)? else { continue };
            self.abandon(*id, &former)?;
        }
        if !unit.changes.iter().any(|change| self.tables.concerns(&change.key)) {
            return Ok(());
        }
        let mut records = Vec::with_capacity(unit.changes.len());
        for change in &unit.changes {
            records.push(self.confirmed(&change.key)?);
        }
        let row = UnitRow {
            planned: self.seq(),
            number,
            actor: unit.actor.clone(),
            changes: unit.changes.clone(),
            records,
            digest: unit.digest,
            earlier_units: unit.earlier_units.clone(),
            tries: 0,
            code: String::new(),
            first_try: None,
            retry_at: None,
            suspicion: None,
        };
        self.put_unit(&unit.id, row)
    }

    fn put_unit(&mut self, id: &UnitId, row: UnitRow) -> Result<(), StoreError> {
        row.changes.iter().for_each(|change| self.touched(&change.key, true));
        self.effects.tail.push(TailEffect::Unit(*id, row.clone()));
        self.tables.put_unit(id, Some(row))
    }

    /// Changes the row of a unit, unless the unit has ended.
    pub(super) fn change_unit(
        &mut self,
        id: &UnitId,
        change: impl FnOnce(&mut UnitRow),
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.unit(id)? else { return Ok(()) };
        change(&mut row);
        self.put_unit(id, row)
    }

    pub(super) fn tried(
        &mut self,
        unit: &UnitId,
        tries: u32,
        code: &str,
        retry_at: WallTime,
    ) -> Result<(), StoreError> {
        let wall = self.entry.header.wall;
        self.change_unit(unit, |row| {
            row.tries = tries;
            code.clone_into(&mut row.code);
            row.first_try = row.first_try.or(Some(wall));
            row.retry_at = Some(retry_at);
            // The unit was answered.
            row.suspicion = None;
        })
    }

    pub(super) fn acked(
        &mut self,
        id: &UnitId,
        versions: &[(RecordKey, Version)],
    ) -> Result<(), StoreError> {
        let Some(unit) = self.tables.unit(id)? else { return Ok(()) };
        self.end_unit(id)?;
        for change in &unit.changes {
            let mut open = self.take_or_begin(&change.key)?;
            open.row.synced_at = Some(self.entry.header.wall);
            let version =
                versions.iter().find(|(key, _)| *key == change.key).map(|(_, version)| *version);
            let fields = self.log.fields(change.fields)?.unwrap_or_default();
            let fields = fields.to_fields().map_err(|fault| self.damaged(fault))?;
            if open.tail().any(|op| op.pending.abandoned.is_some()) {
                let own = writes_of(&open, &change.ops);
                self.join_own_to_abandoned(&mut open, &own)?;
            }
            if let Some(version) = version.filter(|version| open.row.is_behind(*version)) {
                let mut record = open.row.registers().map_err(|fault| self.damaged(fault))?;
                change.join_into(&mut record, fields);
                open.row.confirmed = Confirmed::of(&record, version);
            }
            self.end_in(open, &change.ops)?;
        }
        Ok(())
    }

    /// Ends ops that arrived without an ack, and joins them to the records that unanswered units
    /// were made for. These units can have been planned before that was known.
    pub(super) fn arrived(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let mut open = self.take_or_begin(key)?;
        let own = writes_of(&open, ops);
        self.join_own_to_abandoned(&mut open, &own)?;
        for (id, mut unit) in self.tables.units()? {
            let at = unit.changes.iter().position(|change| change.key == *key);
            if let Some(made_for) = at.and_then(|at| unit.records.get_mut(at)) {
                join_own(made_for, &own).map_err(|fault| self.damaged(fault))?;
                self.put_unit(&id, unit)?;
            }
        }
        self.end_in(open, ops)
    }

    /// Joins own ops to the records that abandoned units were made for: the authors of these units
    /// had read the ops. The fields that a change carried along to bring the record back do not
    /// count as read, so the writes of the ops are joined and not the change that was sent.
    fn join_own_to_abandoned(&self, open: &mut Open, own: &[Writes]) -> Result<(), StoreError> {
        let mut sent_for = open.tail_mut().filter_map(|op| op.pending.abandoned.as_mut());
        sent_for
            .try_for_each(|sent| join_own(&mut sent.record, own))
            .map_err(|fault| self.damaged(fault))
    }

    pub(super) fn requeued(&mut self, unit: &UnitId) -> Result<(), StoreError> {
        let Some(row) = self.tables.unit(unit)? else { return Ok(()) };
        self.end_unit(unit)?;
        for change in &row.changes {
            self.each_op(&change.key, &change.ops, |TailOp { pending, .. }| {
                pending.stale = pending.stale.saturating_add(1);
                // The op meets the record that the server has now, so its former base is needed no
                // longer.
                pending.abandoned = None;
            })?;
        }
        Ok(())
    }

    pub(super) fn dead_lettered(
        &mut self,
        id: &UnitId,
        tries: u32,
        code: &str,
        message: Option<ItemIndex>,
        answered: bool,
    ) -> Result<(), StoreError> {
        let Some(unit) = self.tables.unit(id)? else { return Ok(()) };
        self.abandon(*id, &unit)?;
        let wall = self.entry.header.wall;
        let message = message.and_then(|item| self.entry.text(item)).unwrap_or_default();
        let message = message.into_owned();
        for change in &unit.changes {
            if !self.tables.concerns(&change.key) {
                continue;
            }
            for op in &change.ops {
                let row = DeadLetterRow {
                    key: change.key.clone(),
                    op: *op,
                    kind: self.log.op(op.place)?.kind,
                    actor: unit.actor.clone(),
                    unit: *id,
                    code: code.to_owned(),
                    message: message.clone(),
                    tries,
                    first_at: unit.first_try.unwrap_or(wall),
                    last_at: wall,
                    recorded: self.seq(),
                };
                self.tables.put_dead_letter(&op.id, Some(row))?;
                self.effects.tail.push(TailEffect::Dead(op.place, true));
            }
            self.each_op(&change.key, &change.ops, |TailOp { pending, .. }| {
                pending.dead = true;
                if answered {
                    pending.abandoned = None;
                }
            })?;
        }
        Ok(())
    }

    pub(super) fn retried(&mut self, key: &RecordKey, op: PlannedOp) -> Result<(), StoreError> {
        self.tables.put_dead_letter(&op.id, None)?;
        self.effects.tail.push(TailEffect::Dead(op.place, false));
        self.each_op(key, &[op], |TailOp { pending, .. }| {
            pending.dead = false;
            pending.stale = 0;
        })
    }

    /// Ends a unit that is abandoned or refused. Its ops remember the unit, and the state that it
    /// was made for, since they did not meet the pages that came meanwhile.
    pub(super) fn abandon(&mut self, id: UnitId, unit: &UnitRow) -> Result<(), StoreError> {
        self.end_unit(&id)?;
        for (change, record) in unit.changes.iter().zip(&unit.records) {
            let sent_for = SentFor { version: change.base, record: record.clone() };
            self.each_op(&change.key, &change.ops, |TailOp { pending, .. }| {
                // The op's author had read the state that the first abandoned unit was made for.
                pending.abandoned.get_or_insert_with(|| sent_for.clone());
                pending.earlier_units.push(id);
            })?;
        }
        Ok(())
    }

    fn end_unit(&mut self, id: &UnitId) -> Result<(), StoreError> {
        self.effects.tail.push(TailEffect::UnitGone(*id));
        self.tables.put_unit(id, None)
    }
}

/// Returns the writes of ops of a record, oldest first.
fn writes_of(open: &Open, ops: &[PlannedOp]) -> Vec<Writes> {
    let named: BTreeSet<_> = ops.iter().map(|op| op.id).collect();
    let tail = open.tail().filter(|op| named.contains(&op.op.id));
    tail.map(|op| op.writes.clone()).collect()
}
