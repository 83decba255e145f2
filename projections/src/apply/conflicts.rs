//! Applies conflicts and choices of a person, and changes the ops that conflicts, upcasters and
//! restamps change.

use fieldbook_core::RecordKey;
use fieldbook_core::entry::{Conflicted, ItemIndex, Meta, PlannedOp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::TailOp;
use fieldbook_core::rows::{ConflictRow, TailRow};

use super::Applying;
use super::open::Open;
use super::tail_rows::{Made, image_before};
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::{LogView, op_meta};

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn conflicted(
        &mut self,
        number: u32,
        conflict: &Conflicted,
    ) -> Result<(), StoreError> {
        if !self.tables.concerns(&conflict.key) {
            return Ok(());
        }
        let row = ConflictRow {
            key: conflict.key.clone(),
            op: conflict.op,
            kind: conflict.kind,
            edited_at: conflict.edited_at,
            version: conflict.version,
            extent: conflict.extent,
            remote_edited_at: conflict.remote_edited_at,
            fields: conflict.fields.clone(),
            winner: conflict.winner,
            rule: conflict.rule,
            base: self.json(conflict.base)?,
            local: self.json(conflict.local)?,
            remote: self.json(conflict.remote)?,
            merged: conflict.merged.map(|index| self.json(index)).transpose()?,
            functions: conflict.functions.clone(),
            at: self.entry.header.wall,
            open: conflict.winner == Winner::Undecided,
        };
        self.tables.put_conflict(self.seq(), number, row)
    }

    pub(super) fn resolved(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        winner: Winner,
        merged: Option<ItemIndex>,
    ) -> Result<(), StoreError> {
        let merged = match merged {
            Some(index) => self.entry.fields(index).map_err(|fault| self.damaged(fault))?,
            None => None,
        };
        self.tables.close_conflicts(key, &op.id, winner, merged.as_ref())
    }

    /// Changes an op, and updates its row in the tail with its references and its stamp. A
    /// reference in a dropped field must not hold the op.
    pub(super) fn change_op(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        change: impl Fn(&mut TailOp),
    ) -> Result<(), StoreError> {
        let Some(mut open) = self.take(key)? else { return Ok(()) };
        open.change(&[op], change);
        if open.op(&op).is_some() {
            self.know_anew(&open, |known| known.op.id == op.id)?;
        }
        self.keep(open);
        Ok(())
    }

    /// Updates the references of a record's ops in the tail after the server sent something new of
    /// the record. A reference below a later write of somebody else must not hold an op either.
    pub(super) fn refer_by_what_stands(&mut self, open: &Open) -> Result<(), StoreError> {
        if self.schema.rules(&open.key.entity).is_none_or(|rules| rules.references.is_empty()) {
            return Ok(());
        }
        self.know_anew(open, |_| true)
    }

    /// Updates rows of the tail from the ops of a record.
    fn know_anew(
        &mut self,
        open: &Open,
        concerned: impl Fn(&TailOp) -> bool,
    ) -> Result<(), StoreError> {
        let mut ops = open.tail().filter(|op| concerned(op)).peekable();
        if ops.peek().is_none() {
            return Ok(());
        }
        let confirmed = open.row.registers().map_err(|fault| self.damaged(fault))?;
        for op in ops {
            let (place, left) =
                (op.op.place, op.named_above(&confirmed).map(|left| left.to_json()));
            let made = self.log.existing(place.seq)?;
            let ops = if let Meta::Intent(intent) = &made.meta { intent.ops.len() } else { 0 };
            let made =
                Made { schema: self.schema, entry: &made, ops, meta: op_meta(&made, place)? };
            let before = || Ok(image_before(confirmed.clone(), open.tail(), place));
            let tail_row = made.tail_row(left.as_ref(), before)?;
            let (upcast, edited_at) = (op.pending.upcast, op.pending.greatest().edited_at);
            let actor = op.pending.sent_by.clone().unwrap_or_else(|| tail_row.actor.clone());
            let tail_row = TailRow { actor, upcast, edited_at, ..tail_row };
            self.effects.tail.push(TailEffect::Replace(place, tail_row));
        }
        Ok(())
    }
}
