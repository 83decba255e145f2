//! What ops lose and get: by conflicts, by what a person chose in one, by upcasters, by a server that tells its time.

use fieldbook_core::entry::{Conflicted, ItemIndex, Meta, PlannedOp, Restamp, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{ConflictRow, RecordRow, TailRef, TailRow, Upcast};
use fieldbook_core::rules::{base, effective_fields};
use fieldbook_core::{FieldsJson, InvalidFields, OpKind, OpPlace, RecordKey};

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
            merged: merged.clone(),
            functions: conflict.functions.clone(),
            at: self.entry.header.wall,
            open: conflict.winner == Winner::Undecided,
        };
        self.tables.put_conflict(self.seq(), number, row)?;
        let lost = conflict.fields.iter().filter(|field| field.winner == Winner::Remote);
        let lost: Vec<_> = lost.map(|field| field.name.clone()).collect();
        self.learn(conflict)?;
        self.lose(&conflict.key, conflict.op, &lost, |reference| {
            merged.as_ref().map_or(Ok(()), |merged| reference.merge(&merged.to_fields()?))
        })
    }

    /// What theirs is has been judged: ops that go again are not judged against it a second time.
    fn learn(&mut self, conflict: &Conflicted) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(&conflict.key)? else { return Ok(()) };
        let theirs = self.entry.fields(conflict.remote).map_err(|fault| self.damaged(fault))?;
        let theirs = theirs.unwrap_or_default().to_fields().map_err(|fault| self.damaged(fault))?;
        for reference in row.tail.iter_mut().filter(|reference| !reference.dead) {
            let Some(base) = reference.base.as_mut().filter(|_| !conflict.fields.is_empty()) else {
                reference.base = None;
                continue;
            };
            let known = base.fields.as_ref().map(FieldsJson::to_fields).transpose();
            let mut known = known.map_err(|fault| self.damaged(fault))?.unwrap_or_default();
            known.compose(theirs.clone());
            base.fields = Some(known.to_json());
        }
        self.put(&conflict.key, row)
    }

    pub(super) fn resolved(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        winner: Winner,
        lost: &[String],
        merged: Option<ItemIndex>,
    ) -> Result<(), StoreError> {
        let merged = match merged {
            Some(index) => self.entry.fields(index).map_err(|fault| self.damaged(fault))?,
            None => None,
        };
        self.tables.close_conflicts(key, &op.id, winner, merged.as_ref())?;
        self.lose(key, op, lost, |reference| {
            merged.as_ref().map_or(Ok(()), |merged| reference.merge(&merged.to_fields()?))
        })
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
        if let Some(at) = row.tail.iter().position(|reference| reference.op == op.id) {
            let mut reference = row.tail.remove(at);
            let said = effective_fields(&self.log.op(op.place)?, &reference);
            let turned = fields.to_fields().map_err(|fault| self.damaged(fault))?;
            let base = base::upcast(&row, reference.kind, reference.base, &said, &turned);
            reference.base = base.map_err(|fault| self.damaged(fault))?;
            reference.upcast = Some(Upcast { schema_version, fields });
            reference.lost.clear();
            reference.merged = None;
            row.tail.insert(at, reference);
        }
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Takes fields from an op, and from the dead letters that it had come after.
    fn lose(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        lost: &[String],
        change: impl Fn(&mut TailRef) -> Result<(), InvalidFields>,
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        row.outdate(op.place, OpKind::Update, lost).map_err(|fault| self.damaged(fault))?;
        for reference in row.tail.iter_mut().filter(|reference| reference.op == op.id) {
            let news = lost.iter().filter(|name| !reference.lost.contains(name));
            let news: Vec<_> = news.cloned().collect();
            reference.lost.extend(news);
            change(reference).map_err(|fault| self.damaged(fault))?;
        }
        let concerned =
            |found: &TailRef| found.op == op.id || (found.place < op.place && found.was_given_up());
        self.refer_by_what_is_left(key, &row, concerned)?;
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Has the tail know to which records ops still refer once they lost fields, or were given others: what was taken from an
    /// op must not hold it.
    pub(super) fn refer_by_what_is_left(
        &mut self,
        key: &RecordKey,
        row: &RecordRow,
        concerned: impl Fn(&TailRef) -> bool,
    ) -> Result<(), StoreError> {
        if self.schema.rules(&key.entity).is_none_or(|rules| rules.references.is_empty()) {
            return Ok(());
        }
        self.know_anew(row, concerned)
    }

    /// Has the tail know ops as their record has them now.
    fn know_anew(&mut self, row: &RecordRow, concerned: impl Fn(&TailRef) -> bool) -> Result<(), StoreError> {
        for reference in row.tail.iter().filter(|reference| concerned(reference)) {
            let left = (!reference.outdated).then(|| self.log.op(reference.place)).transpose()?;
            let left = left.map(|content| effective_fields(&content, reference).to_json());
            let upcast = reference.upcast.as_ref().map(|upcast| upcast.schema_version);
            self.refer_anew(row, reference.place, left.as_ref(), upcast)?;
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
        let restamped = row.tail.iter().find(|reference| reference.place == place);
        let restamped = restamped.and_then(|reference| reference.restamped);
        let edited_at = restamped.unwrap_or(tail_row.edited_at);
        self.effects.tail.push(TailEffect::Replace(place, TailRow { upcast, edited_at, ..tail_row }));
        Ok(())
    }

    /// Gives an op another stamp. What the app reads is the same.
    pub(super) fn restamped(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(&restamp.key)? else { return Ok(()) };
        for reference in row.tail.iter_mut().filter(|reference| reference.op == restamp.op.id) {
            reference.restamped = Some(restamp.edited_at);
        }
        self.know_anew(&row, |reference| reference.op == restamp.op.id)?;
        self.put(&restamp.key, row)
    }
}
