//! The one write path: what an entry does to the tables.
//!
//! ```text
//!   intent              each op joins its record's tail; visible moves on
//!   upstream            each change moves confirmed on, if its version is higher; cursors, anchor
//!   control: planned    units begin; ops that need not be sent end
//!   control: decided    as it says
//! ```
//!
//! Invariants:
//! 1. Total and deterministic: the same entries over the same tables give the same tables, byte for byte. No clock, no
//!    randomness, no rule: what was decided is in the entries.
//! 2. Confirmed never goes back: a change whose version is not higher than confirmed's is recorded and changes nothing.
//! 3. After every entry, `visible` is `confirmed` with the tail joined, for each record it touched.
//!
//! Here are the kinds of entry and what every part needs to see a record anew; the rest by subject:
//!
//! ```text
//!   upstream    what the server said: changes, cursors, another server
//!   units       a unit's life: planned, tried, suspected, acked, dissolved, dead-lettered
//!   conflicts   what ops lose and get: conflicts, choices, upcasts, other stamps
//!   ends        how ops leave the tail
//!   tail_rows   the rows that the ops of an intent have in the tail
//! ```
//!
//! What it is not: the two tables that are folded later (`lazy`), and the tail in memory, which follows the effects.

mod conflicts;
mod ends;
mod tail_rows;
mod units;
mod upstream;

use std::collections::BTreeSet;

use fieldbook_core::entry::{Control, Decision, Entry, Meta, ParkScope, PlannedOp};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{Pending, TailOp, apply_to_text};
use fieldbook_core::rows::{FOLD_VERSION, RecordRow, Suspicion, Visible};
use fieldbook_core::{Fields, FieldsJson, InvalidFields, OpKind, OpPlace, RecordKey, Schema, Seq};

use crate::access::Tables;
use crate::effects::{Effects, TailEffect};
use crate::log_view::{LogView, op_meta};

use tail_rows::Made;
pub use tail_rows::tail_rows;

/// Applies one entry to the tables and notes what changed.
///
/// # Errors
/// [`StoreError`] if a table or the log cannot be read or written, or what an entry names is missing.
pub fn apply(
    tables: &mut impl Tables,
    log: &impl LogView,
    schema: &Schema,
    entry: &Entry,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut applying = Applying { tables, log, schema, entry, effects };
    match &entry.meta {
        Meta::Intent(intent) => {
            for index in 0..intent.ops.len() {
                applying
                    .op(OpPlace { seq: entry.header.seq, index: u32::try_from(index).unwrap_or(u32::MAX) })?;
            }
            Ok(())
        }
        Meta::Upstream(upstream) => applying.upstream(upstream),
        Meta::Control(control) => applying.control(control),
    }
}

struct Applying<'a, T, L> {
    tables: &'a mut T,
    log: &'a L,
    schema: &'a Schema,
    entry: &'a Entry,
    effects: &'a mut Effects,
}

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    fn seq(&self) -> Seq {
        self.entry.header.seq
    }

    fn op(&mut self, place: OpPlace) -> Result<(), StoreError> {
        let Meta::Intent(intent) = &self.entry.meta else { return Ok(()) };
        let meta = op_meta(self.entry, place)?;
        let text = meta.fields.map(|index| self.entry.fields(index)).transpose();
        let text = text.map_err(|fault| self.damaged(fault))?.flatten();
        let mut row = self.tables.take_record(&meta.key)?.unwrap_or_default();
        let made = Made { schema: self.schema, entry: self.entry, ops: intent.ops.len(), meta };
        let tail_row = made.tail_row(text.as_ref(), || Ok(row.image().cloned()))?;
        let mut pending = Pending::new(meta.id, place, meta.kind, meta.edited_at);
        self.clear(&row, &mut pending, text.as_ref())?;
        // Its stamp is above all that its author read, so what the app reads is that with the op on top.
        let image = apply_to_text(row.image(), meta.kind, text.unwrap_or_default());
        row.visible = image.map_err(|fault| self.damaged(fault))?.map_or(Visible::Absent, Visible::Own);
        row.tail.push(pending);
        self.effects.tail.push(TailEffect::Insert(place, tail_row));
        self.put(&meta.key, row)
    }

    /// Notes the fields that an op takes away without naming them: a replace those that its author knew of, also from ops of his own and
    /// as taken away before; a creation those that a deletion of ours beneath it had shown.
    fn clear(
        &self,
        row: &RecordRow,
        pending: &mut Pending,
        text: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        let deletion = row.tail.last().filter(|last| last.kind == OpKind::Delete && !last.emptied);
        let seen = match (pending.kind, deletion) {
            (OpKind::Replace, _) => row.tail.as_slice(),
            (OpKind::Create, Some(_)) => row.tail.split_last().map_or(&[][..], |(_, earlier)| earlier),
            _ => return Ok(()),
        };
        let said = text.map(FieldsJson::to_fields).transpose().map_err(|fault| self.damaged(fault))?;
        let said = said.unwrap_or_default();
        let tail = self.tail_ops(&RecordRow { tail: seen.to_vec(), ..RecordRow::default() })?;
        let confirmed = row.registers().map_err(|fault| self.damaged(fault))?;
        // Where the record was deleted and made anew more than once, none of it comes back.
        let written = tail.iter().flat_map(|op| op.writes.fields.keys().map(String::as_str));
        let read = tail.iter().filter_map(|op| op.writes.brings_back.as_ref()).flat_map(Fields::names);
        let known = confirmed.fields.keys().map(String::as_str);
        let names: BTreeSet<&str> = written.chain(read).chain(known).collect();
        pending.cleared = names.into_iter().filter(|name| !said.has(name)).map(str::to_owned).collect();
        pending.cleared_at = deletion.filter(|_| pending.kind == OpKind::Create).map(Pending::stamp);
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), StoreError> {
        match control {
            Control::Opened(opened) => {
                let mut state = self.tables.state()?;
                state.format = FOLD_VERSION;
                state.device = Some(opened.device);
                state.epoch = Some(self.entry.header.epoch);
                state.epoch_from = self.seq();
                self.put_state(state)
            }
            Control::EpochStarted { epoch, .. } => {
                let mut state = self.tables.state()?;
                state.epoch = Some(*epoch);
                state.epoch_from = self.seq();
                state.anchor = None;
                self.put_state(state)
            }
            Control::Planned(planned) => {
                (0..).zip(&planned.units).try_for_each(|(number, unit)| self.planned(number, unit))?;
                planned.annulled.iter().try_for_each(|annulled| self.annulled(annulled))
            }
            Control::Decided(decisions) | Control::Verb(_, decisions) => {
                for (number, decision) in decisions.iter().enumerate() {
                    self.decision(u32::try_from(number).unwrap_or(u32::MAX), decision)?;
                }
                Ok(())
            }
        }
    }

    fn decision(&mut self, number: u32, decision: &Decision) -> Result<(), StoreError> {
        match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions),
            Decision::Tried { unit, tries, code, retry_at, .. } => self.tried(unit, *tries, code, *retry_at),
            Decision::Suspected { units, times, code, retry_at } => {
                let group = (self.seq(), number);
                let what = Suspicion { group, times: *times, code: code.clone(), retry_at: *retry_at };
                self.suspected(units, &what)
            }
            Decision::Dissolved { unit, .. } => self.dissolved(unit),
            Decision::Conflicted(conflict) => self.conflicted(number, conflict),
            Decision::Dropped { key, op, fields } => self.dropped(key, *op, fields),
            Decision::Raised { key, op, fields, edited_at, values } => {
                self.raised(key, *op, fields, *edited_at, *values)
            }
            Decision::BroughtBack { key, op, read } => self.brought_back(key, *op, *read),
            Decision::Superseded { key, op } | Decision::Discarded { key, op } => self.end(key, &[*op]),
            Decision::DeadLettered { unit, tries, code, message, answered, .. } => {
                let message = message.and_then(|item| self.entry.item(item)).unwrap_or_default();
                let message = String::from_utf8_lossy(message).into_owned();
                self.dead_lettered(unit, *tries, code, &message, *answered)
            }
            Decision::Retried { key, op } => self.retried(key, *op),
            Decision::Annulled(annulled) => self.annulled(annulled),
            Decision::Parked { scope: ParkScope::Op(op), code } => self.park(op, Some(code)),
            Decision::Unparked { scope: ParkScope::Op(op) } => self.park(op, None),
            Decision::Parked { scope, code } => {
                let mut state = self.tables.state()?;
                if !state.parks.iter().any(|(parked, _)| parked == scope) {
                    state.parks.push((scope.clone(), code.clone()));
                    self.put_state(state)?;
                }
                Ok(())
            }
            Decision::Resolved { key, op, winner, merged } => self.resolved(key, *op, *winner, *merged),
            Decision::TakenIn { key, seq, number } => self.taken_in(key, *seq, *number),
            Decision::Upcast { key, op, schema_version, fields } => {
                self.upcast(key, *op, *schema_version, *fields)
            }
            Decision::Restamped { ops, .. } => ops.iter().try_for_each(|restamp| self.restamped(restamp)),
            Decision::ServerAccepted { server } => self.server_accepted(*server),
            Decision::ServerRead => self.server_read(),
            Decision::BelongsTo { tenant } => {
                let mut state = self.tables.state()?;
                state.tenant = Some(*tenant);
                self.put_state(state)
            }
            Decision::SetAside { version, name, row, .. } => self.set_aside(*name, *version, *row),
            Decision::ReadForeign { entity, cursor } => self.read_foreign(entity, cursor),
            Decision::Unparked { scope } => {
                let mut state = self.tables.state()?;
                state.parks.retain(|(parked, _)| parked != scope);
                self.put_state(state)
            }
        }
    }

    /// Changes what is known of ops of a record's tail, and sees the record anew.
    fn each_pending(
        &mut self,
        key: &RecordKey,
        ops: &[PlannedOp],
        change: impl Fn(&mut Pending) -> Result<(), InvalidFields>,
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        let mut moved = Vec::new();
        for pending in row.tail.iter_mut().filter(|pending| ops.iter().any(|op| op.id == pending.op)) {
            let before = pending.stamp();
            change(pending).map_err(|fault| self.damaged(fault))?;
            moved.push((before, pending.stamp()));
        }
        for (before, after) in moved.into_iter().filter(|(before, after)| before != after) {
            row.tail.iter_mut().for_each(|pending| pending.follow_deletion(before, after));
        }
        self.see(&mut row)?;
        self.put(key, row)
    }

    fn tail_ops(&self, row: &RecordRow) -> Result<Vec<TailOp>, StoreError> {
        row.tail_ops(|place| self.log.op(place), |fault| self.damaged(fault))
    }

    /// Joins the tail to confirmed.
    fn see(&mut self, row: &mut RecordRow) -> Result<(), StoreError> {
        if row.tail.is_empty() {
            row.visible = Visible::AsConfirmed;
            return Ok(());
        }
        let tail = self.tail_ops(row)?;
        let mut visible = row.registers().map_err(|fault| self.damaged(fault))?;
        visible.join_tail(tail.iter().map(|op| &op.writes));
        row.visible = visible.image().map_or(Visible::Absent, |fields| Visible::Own(fields.to_json()));
        Ok(())
    }

    fn put(&mut self, key: &RecordKey, mut row: RecordRow) -> Result<(), StoreError> {
        if row.tail.is_empty() {
            row.visible = Visible::AsConfirmed;
        }
        self.effects.records.push(key.clone());
        self.tables.put_record(key, Some(row).filter(|row| !row.is_empty()))
    }

    /// Notes that a record's status changed while its row did not.
    fn touched(&mut self, key: &RecordKey) {
        self.effects.records.push(key.clone());
    }

    fn put_state(&mut self, state: fieldbook_core::rows::StateRow) -> Result<(), StoreError> {
        self.tables.put_state(state)
    }

    fn damaged(&self, fault: InvalidFields) -> StoreError {
        StoreError::corrupt("stored fields", self.seq(), fault)
    }
}
