//! The only write path to the tables: applies an entry.
//!
//! ```text
//!   intent              each op joins its record's tail; visible moves on
//!   upstream            each change moves confirmed on, if its version is higher; cursors, anchor
//!   control: planned    units begin; ops that need not be sent end
//!   control: decided    each decision is applied
//! ```
//!
//! Invariants:
//! 1. Total and deterministic: the same entries over the same tables give the same tables, byte for
//!    byte. The fold has no clock, no randomness and no rule: the entries have all decisions.
//! 2. Confirmed never goes back: a change whose version is not higher than confirmed's is recorded
//!    and changes nothing.
//! 3. After every entry, `visible` is `confirmed` with the tail joined, for each record that the
//!    entry changed.
//!
//! This file has the kinds of entry and the kinds of decision. The other files have one subject
//! each:
//!
//! ```text
//!   open        the record that is being changed, and how its row is written
//!   upstream    the facts of an answer: changes, cursors; another server
//!   units       the steps of a unit: planned, tried, suspected, acked, requeued, dead-lettered
//!   conflicts   changes of ops: conflicts, choices, upcasts, other stamps
//!   ends        how ops leave the tail
//!   erased      records whose values were erased
//!   baseline        what trimmed entries came to
//!   tail_rows   the rows that the ops of an intent have in the tail
//! ```
//!
//! What it does not do: fold the two tables that are folded later (`lazy`), or change the tail in
//! memory, which follows the effects.

mod baseline;
mod conflicts;
mod ends;
mod erased;
mod open;
mod tail_rows;
mod units;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{
    Cancelled, CancelledReason, Control, Decision, Entry, Header, ItemIndex, Meta, OpMeta,
    ParkScope, PlannedOp,
};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{Pending, TailOp, apply_to_text};
use fieldbook_core::rows::{FOLD_VERSION, RecordRow, StateRow, Suspicion, UnitRow, Visible};
use fieldbook_core::{Fields, FieldsJson, InvalidFields, OpKind, OpPlace, RecordKey, Schema, Seq};

use crate::access::Tables;
use crate::effects::{Changed, Effects, TailEffect};
use crate::log_view::LogView;

use open::Open;
use tail_rows::Made;
pub use tail_rows::tail_rows;

/// Applies one entry to the tables and notes what changed.
///
/// # Errors
/// [`StoreError`] if a table or the log cannot be read or written, or what an entry names is
/// missing.
pub fn apply(
    tables: &mut impl Tables,
    log: &impl LogView,
    schema: &Schema,
    entry: &Entry,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut applying = Applying { tables, log, schema, entry, effects, open: None };
    match &entry.meta {
        Meta::Intent(intent) => {
            let seq = entry.header.seq;
            let mut ops = (0..).zip(&intent.ops);
            ops.try_for_each(|(index, meta)| {
                applying.op(OpPlace { seq, index }, intent.ops.len(), meta)
            })
        }
        Meta::Upstream(upstream) => applying.upstream(upstream),
        Meta::Control(control) => applying.control(control),
    }?;
    applying.close()
}

struct Applying<'a, T, L> {
    tables: &'a mut T,
    log: &'a L,
    schema: &'a Schema,
    entry: &'a Entry,
    effects: &'a mut Effects,
    /// The record that is being changed. Its row is read through [`Applying::take`] only.
    open: Option<Open>,
}

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    fn seq(&self) -> Seq {
        self.entry.header.seq
    }

    fn op(&mut self, place: OpPlace, ops: usize, meta: &OpMeta) -> Result<(), StoreError> {
        if !self.tables.concerns(&meta.key) {
            return Ok(());
        }
        let text = meta.fields.map(|index| self.entry.fields(index)).transpose();
        let text = text.map_err(|fault| self.damaged(fault))?.flatten();
        // A long tail is not read: most ops need only what the app reads.
        let (before, has_tail) = self.tables.seen(&meta.key)?;
        let made = Made { schema: self.schema, entry: self.entry, ops, meta };
        let tail_row = made.tail_row(text.as_ref(), || Ok(before.clone()))?;
        let mut pending = Pending::new(meta.id, place, meta.kind, meta.edited_at);
        if meta.kind == OpKind::Replace || (meta.kind == OpKind::Create && has_tail) {
            self.clear(&meta.key, &mut pending, text.as_ref())?;
        }
        // The op's stamp is above all that its author had read, so the op applies to the visible
        // image.
        let image = apply_to_text(before.as_ref(), meta.kind, text.unwrap_or_default());
        let visible =
            image.map_err(|fault| self.damaged(fault))?.map_or(Visible::Absent, Visible::Own);
        self.effects.tail.push(TailEffect::Insert(place, tail_row));
        self.touched(&meta.key, true);
        self.tables.push_op(&meta.key, pending, visible)
    }

    /// Sets the fields that an op removes without naming them. A replace removes the fields that
    /// its author had read, including those of earlier local ops and removed ones. A creation
    /// removes the fields that the local deletion before it covered.
    fn clear(
        &mut self,
        key: &RecordKey,
        pending: &mut Pending,
        text: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        let Some(row) = self.tables.record(key)? else { return Ok(()) };
        let deletion = row.tail.last().filter(|last| last.kind == OpKind::Delete && !last.emptied);
        let seen = match (pending.kind, deletion) {
            (OpKind::Replace, _) => row.tail.as_slice(),
            (OpKind::Create, Some(_)) => {
                row.tail.split_last().map_or(&[][..], |(_, earlier)| earlier)
            }
            _ => return Ok(()),
        };
        let named =
            text.map(FieldsJson::to_fields).transpose().map_err(|fault| self.damaged(fault))?;
        let named = named.unwrap_or_default();
        let seen = RecordRow { tail: seen.to_vec(), ..RecordRow::default() };
        let tail = seen.tail_ops(|place| self.log.op(place), |fault| self.damaged(fault))?;
        let confirmed = row.registers().map_err(|fault| self.damaged(fault))?;
        // The tail can delete and create the record more than once. No field of an earlier creation
        // comes back.
        let written = tail.iter().flat_map(|op| op.writes.fields.keys());
        let read =
            tail.iter().filter_map(|op| op.writes.brings_back.as_ref()).flat_map(BTreeMap::keys);
        let names: BTreeSet<_> = written.chain(read).chain(confirmed.fields.keys()).collect();
        pending.cleared = names.into_iter().filter(|name| !named.has(name)).cloned().collect();
        pending.cleared_at =
            deletion.filter(|_| pending.kind == OpKind::Create).map(Pending::stamp);
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), StoreError> {
        match control {
            Control::Opened(opened) => self.change_state(|state, header| {
                state.format = FOLD_VERSION;
                state.device = Some(opened.device);
                state.epoch = Some(header.epoch);
                state.epoch_from = header.seq;
            }),
            Control::EpochStarted { epoch, .. } => self.change_state(|state, header| {
                state.epoch = Some(*epoch);
                state.epoch_from = header.seq;
                state.anchor = None;
            }),
            Control::Session(session) if session.schema.is_some() => {
                self.change_state(|state, header| state.declared = Some(header.seq))
            }
            Control::Session(_)
            | Control::Silence(_)
            | Control::Authors(_)
            | Control::Note(_)
            | Control::Trimmed(_) => Ok(()),
            Control::Baseline(baseline) => self.baseline(baseline),
            Control::Erased(erased) => self.erased(&erased.records),
            Control::Planned(planned) => {
                (0..)
                    .zip(&planned.units)
                    .try_for_each(|(number, unit)| self.planned(number, unit))?;
                planned
                    .cancelled
                    .iter()
                    .try_for_each(|cancelled| self.end(&cancelled.key, &cancelled.ops))
            }
            Control::Decided(decisions) | Control::PersonActed(_, decisions) => (0..)
                .zip(decisions)
                .try_for_each(|(number, decision)| self.decision(number, decision)),
        }
    }

    fn decision(&mut self, number: u32, decision: &Decision) -> Result<(), StoreError> {
        match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions),
            Decision::Tried { unit, tries, code, retry_at, .. } => {
                self.tried(unit, *tries, code, *retry_at)
            }
            Decision::Suspected { units, times, code, retry_at } => {
                let set = (self.seq(), number);
                let what =
                    Suspicion { set, times: *times, code: code.clone(), retry_at: *retry_at };
                let suspect = |row: &mut UnitRow| row.suspicion = Some(what.clone());
                units.iter().try_for_each(|(unit, _)| self.change_unit(unit, suspect))
            }
            Decision::Requeued { unit, .. } => self.requeued(unit),
            Decision::Conflicted(conflict) => self.conflicted(number, conflict),
            Decision::Dropped { key, op, fields } => {
                self.change_op(key, *op, |op| op.drop_fields(fields))
            }
            Decision::Raised { key, op, fields, edited_at, values } => {
                let values = values.map(|index| self.values(index)).transpose()?;
                self.change_op(key, *op, |op| op.raise(fields, *edited_at, values.as_ref()))
            }
            Decision::BroughtBack { key, op, read } => {
                let read = self.values(*read)?;
                self.each_op(key, &[*op], |op| op.bring_back(read.clone()))
            }
            Decision::Superseded { key, op } | Decision::Discarded { key, op } => {
                self.end(key, &[*op])
            }
            Decision::DeadLettered { unit, tries, code, message, answered, .. } => {
                self.dead_lettered(unit, *tries, code, *message, *answered)
            }
            Decision::Retried { key, op } => self.retried(key, *op),
            Decision::Cancelled(Cancelled {
                key,
                ops,
                reason: CancelledReason::AlreadyApplied,
            }) => self.arrived(key, ops),
            Decision::Cancelled(Cancelled { key, ops, .. }) => self.end(key, ops),
            Decision::Parked { scope: ParkScope::Op(op), code } => self.park(op, Some(code)),
            Decision::Unparked { scope: ParkScope::Op(op) } => self.park(op, None),
            Decision::Parked { scope, code } => self.change_state(|state, _| {
                if !state.parks.iter().any(|(parked, _)| parked == scope) {
                    state.parks.push((scope.clone(), code.clone()));
                }
            }),
            Decision::Resolved { key, op, winner, merged } => {
                self.resolved(key, *op, *winner, *merged)
            }
            Decision::Adopted { key, seq, number } => self.adopted(key, *seq, *number),
            Decision::Upcast { key, op, schema_version, fields } => {
                let fields = self.values(*fields)?;
                self.change_op(key, *op, |op| op.turn(*schema_version, fields.clone()))
            }
            Decision::HandedOver { key, op, to } => {
                self.change_op(key, *op, |op| op.pending.sent_by = Some(to.clone()))
            }
            Decision::Restamped { ops, .. } => ops
                .iter()
                .try_for_each(|to| self.change_op(&to.key, to.op, |op| op.lower(to.edited_at))),
            Decision::ServerAccepted { server } => self.server_accepted(*server),
            Decision::ServerRead => self.server_read(),
            Decision::BelongsTo { tenant } => {
                self.change_state(|state, _| state.tenant = Some(*tenant))
            }
            Decision::SetAside { version, name, row, .. } => self.set_aside(*name, *version, *row),
            Decision::LetGo { key, .. } => self.let_go(key),
            Decision::ReadForeign { entity, cursor } => self.read_foreign(entity, cursor),
            Decision::Unparked { scope } => {
                self.change_state(|state, _| state.parks.retain(|(parked, _)| parked != scope))
            }
        }
    }

    /// Changes ops of a record's tail.
    fn each_op(
        &mut self,
        key: &RecordKey,
        ops: &[PlannedOp],
        change: impl Fn(&mut TailOp),
    ) -> Result<(), StoreError> {
        if let Some(mut open) = self.take(key)? {
            open.change(ops, change);
            self.keep(open);
        }
        Ok(())
    }

    /// Notes that a record's row or status changed.
    fn touched(&mut self, key: &RecordKey, may_have_tail: bool) {
        self.effects.records.push(Changed { key: key.clone(), may_have_tail });
    }

    fn change_state(
        &mut self,
        change: impl FnOnce(&mut StateRow, &Header),
    ) -> Result<(), StoreError> {
        let mut state = self.tables.state()?;
        change(&mut state, &self.entry.header);
        self.tables.put_state(state)
    }

    /// Reads an item with fields. The fields are empty if the item was erased.
    fn json(&self, index: ItemIndex) -> Result<FieldsJson, StoreError> {
        self.entry.fields(index).map(Option::unwrap_or_default).map_err(|fault| self.damaged(fault))
    }

    fn values(&self, index: ItemIndex) -> Result<Fields, StoreError> {
        self.json(index)?.to_fields().map_err(|fault| self.damaged(fault))
    }

    fn damaged(&self, fault: InvalidFields) -> StoreError {
        StoreError::corrupt("stored fields", self.seq(), fault)
    }
}
