//! What ops lose and get: by conflicts, by what a person chose in one, by upcasters, by a server that tells its time.

use fieldbook_core::entry::{Conflicted, ItemIndex, Meta, PlannedOp, Restamp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::{Pending, Upcast};
use fieldbook_core::rows::{ConflictRow, RecordRow, TailRow};
use fieldbook_core::{Fields, FieldsJson, Hlc, OpPlace, RecordKey};

use super::Applying;
use super::tail_rows::{Made, image_before};
use crate::access::Tables;
use crate::effects::TailEffect;
use crate::log_view::{LogView, op_meta};

impl<T: Tables, L: LogView> Applying<'_, T, L> {
    pub(super) fn conflicted(&mut self, number: u32, conflict: &Conflicted) -> Result<(), StoreError> {
        let values = |index| {
            self.entry.fields(index).map(Option::unwrap_or_default).map_err(|fault| self.damaged(fault))
        };
        let merged = conflict.merged.map(values).transpose()?;
        let row = ConflictRow {
            key: conflict.key.clone(),
            op: conflict.op,
            kind: conflict.kind,
            edited_at: conflict.edited_at,
            version: conflict.version,
            extent: conflict.extent,
            remote_edited_at: conflict.remote_edited_at,
            fields: conflict
                .fields
                .iter()
                .map(|field| (field.name.clone(), field.rule, field.winner))
                .collect(),
            winner: conflict.winner,
            rule: conflict.rule,
            base: values(conflict.base)?,
            local: values(conflict.local)?,
            remote: values(conflict.remote)?,
            merged,
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

    pub(super) fn dropped(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        fields: &[String],
    ) -> Result<(), StoreError> {
        self.each_pending(key, &[op], |pending| {
            if fields.is_empty() {
                pending.empty();
                return Ok(());
            }
            pending.drop_fields(fields)
        })?;
        self.refer_by_what_is_left(key, op)
    }

    pub(super) fn raised(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        fields: &[String],
        edited_at: Hlc,
        values: Option<ItemIndex>,
    ) -> Result<(), StoreError> {
        let values = values.map(|index| self.values(index)).transpose()?;
        self.each_pending(key, &[op], |pending| pending.raise(fields, edited_at, values.as_ref()))?;
        self.refer_by_what_is_left(key, op)
    }

    pub(super) fn brought_back(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        read: ItemIndex,
    ) -> Result<(), StoreError> {
        let read = self.values(read)?.to_json();
        self.each_pending(key, &[op], |pending| {
            pending.brings_back = Some(read.clone());
            Ok(())
        })
    }

    fn values(&self, index: ItemIndex) -> Result<Fields, StoreError> {
        let fields = self.entry.fields(index).map(Option::unwrap_or_default);
        fields.and_then(|fields| fields.to_fields()).map_err(|fault| self.damaged(fault))
    }

    /// Gives an op the fields that an upcaster made of what was left of it.
    pub(super) fn upcast(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        schema_version: u32,
        fields: ItemIndex,
    ) -> Result<(), StoreError> {
        let fields = self.entry.fields(fields).map_err(|fault| self.damaged(fault))?.unwrap_or_default();
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        self.refer_anew(&row, op.place, Some(&fields), Some(schema_version))?;
        for pending in row.tail.iter_mut().filter(|pending| pending.op == op.id) {
            let turned = pending.turn(Upcast { schema_version, fields: fields.clone() });
            turned.map_err(|fault| self.damaged(fault))?;
        }
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Has the tail know to which records an op still refers once it lost fields, or was given
    /// others, and its stamp: what was taken from an op must not hold it.
    pub(super) fn refer_by_what_is_left(&mut self, key: &RecordKey, op: PlannedOp) -> Result<(), StoreError> {
        let Some(row) = self.tables.record(key)? else { return Ok(()) };
        self.know_anew(&row, |pending| pending.op == op.id)
    }

    /// Has the tail know to which records the ops of a record still refer once the server told
    /// something new of it: what is below a later write of somebody else must not hold an op
    /// either.
    pub(super) fn refer_by_what_stands(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
    ) -> Result<(), StoreError> {
        if self.schema.rules(&key.entity).is_none_or(|rules| rules.references.is_empty()) {
            return Ok(());
        }
        self.know_anew(row, |_| true)
    }

    /// Has the tail know ops as their record has them now.
    fn know_anew(&mut self, row: &RecordRow, concerned: impl Fn(&Pending) -> bool) -> Result<(), StoreError> {
        if !row.tail.iter().any(&concerned) {
            return Ok(());
        }
        let confirmed = row.registers().map_err(|fault| self.damaged(fault))?;
        for op in self.tail_ops(row)?.iter().filter(|op| concerned(&op.pending)) {
            let left = op.named_above(&confirmed).map(|left| left.to_json());
            let upcast = op.pending.upcast.as_ref().map(|upcast| upcast.schema_version);
            self.refer_anew(row, op.op.place, left.as_ref(), upcast)?;
        }
        Ok(())
    }

    /// Has the tail know an op as it is with other fields.
    fn refer_anew(
        &mut self,
        row: &RecordRow,
        place: OpPlace,
        fields: Option<&FieldsJson>,
        upcast: Option<u32>,
    ) -> Result<(), StoreError> {
        let made = self.log.existing(place.seq)?;
        let ops = if let Meta::Intent(intent) = &made.meta { intent.ops.len() } else { 0 };
        let made = Made { schema: self.schema, entry: &made, ops, meta: op_meta(&made, place)? };
        let tail_row = made.tail_row(fields, || image_before(row, self.log, place))?;
        let pending = row.tail.iter().find(|pending| pending.place == place);
        let edited_at = pending.map_or(tail_row.edited_at, |pending| pending.greatest().edited_at);
        self.effects.tail.push(TailEffect::Replace(place, TailRow { upcast, edited_at, ..tail_row }));
        Ok(())
    }

    /// Gives an op another stamp. What the app reads is the same.
    pub(super) fn restamped(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.each_pending(&restamp.key, &[restamp.op], |pending| {
            pending.lower(restamp.edited_at);
            Ok(())
        })?;
        self.refer_by_what_is_left(&restamp.key, restamp.op)
    }
}
