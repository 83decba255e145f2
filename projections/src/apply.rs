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
//! 3. After every entry, `visible` is `confirmed` with the tail folded on top, for each record it touched.
//!
//! What it is not: the two tables that are folded later (`lazy`), and the tail in memory, which follows the effects.

use fieldbook_core::entry::{
    Annulled, AnnulledReason, ChangeMeta, Conflicted, Control, Decision, Entry, Extent, ItemIndex, Meta,
    OpMeta, ParkScope, PlannedChange, PlannedOp, PlannedUnit, Upstream, Winner,
};
use fieldbook_core::log::StoreError;
use fieldbook_core::rows::{
    AuthorBase, Confirmed, ConflictRow, CursorRow, DeadLetterRow, FieldReference, ROWS_FORMAT, RecordRow,
    TailRef, TailRow, UnitChangeRow, UnitRow, Upcast, Visible,
};
use fieldbook_core::rules::base::overlaid;
use fieldbook_core::rules::{Image, apply_to_text};
use fieldbook_core::{
    Fields, FieldsJson, InvalidFields, OpKind, OpPlace, RecordKey, Schema, Seq, UnitId, Version,
};

use crate::access::Tables;
use crate::effects::{Effects, TailEffect};
use crate::log_view::{LogView, op_meta};

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
        let tail_row = tail_row(self.schema, self.entry, intent.ops.len(), meta, text.as_ref())?;
        let mut row = self.tables.take_record(&meta.key)?.unwrap_or_default();
        let deleted = row.confirmed.as_ref().filter(|confirmed| confirmed.deleted);
        let before_deletion = deleted.map(|confirmed| &confirmed.fields);
        let image = apply_to_text(row.image(), before_deletion, meta.kind, text.unwrap_or_default());
        row.visible = image.map_err(|fault| self.damaged(fault))?.map_or(Visible::Absent, Visible::Own);
        // What is written in place of a dead letter is judged as that would have been.
        let corrected = row.tail.iter().find(|reference| reference.dead && Some(reference.op) == meta.cites);
        let base = corrected.and_then(|reference| reference.base.clone());
        row.tail.push(TailRef {
            op: meta.id,
            place,
            kind: meta.kind,
            stale: 0,
            dead: false,
            outdated: false,
            lost: Vec::new(),
            merged: None,
            attempts: Vec::new(),
            base,
            upcast: None,
        });
        self.effects.tail.push(TailEffect::Insert(place, tail_row));
        self.put(&meta.key, row)
    }

    fn upstream(&mut self, upstream: &Upstream) -> Result<(), StoreError> {
        for (number, change) in upstream.changes.iter().enumerate() {
            if change.kept_aside {
                self.tables.put_aside(&change.key, self.seq(), u32::try_from(number).unwrap_or(u32::MAX))?;
            } else {
                self.change(change, self.entry)?;
            }
        }
        let wall = self.entry.header.wall;
        for (entity, cursor) in &upstream.cursors {
            self.tables.put_cursor(entity, CursorRow { cursor: cursor.clone(), synced_at: wall })?;
        }
        let mut state = self.tables.state()?;
        state.server = Some((upstream.server, upstream.epoch));
        state.server_time = Some((upstream.server_time, wall));
        state.synced_at = Some(wall);
        state.anchor = upstream.receipt.or(state.anchor);
        self.put_state(state)
    }

    fn change(&mut self, change: &ChangeMeta, sent_by: &Entry) -> Result<(), StoreError> {
        let mut row = self.tables.take_record(&change.key)?.unwrap_or_default();
        row.synced_at = Some(self.entry.header.wall);
        // That there never was such a record, which has the version 0, is news of a record that a former server had.
        let is_newer = |known: Version| change.version > known || known == Version::default();
        if row.version().is_none_or(is_newer) {
            let sent = match change.fields {
                Some(index) => {
                    sent_by.fields(index).map_err(|fault| self.damaged(fault))?.unwrap_or_default()
                }
                None => FieldsJson::default(),
            };
            let fields = match change.extent {
                Extent::Whole => sent.into_image(),
                Extent::Partial => {
                    let mut image = row.confirmed_fields().map_err(|fault| self.damaged(fault))?;
                    image.apply(&sent.to_fields().map_err(|fault| self.damaged(fault))?);
                    Ok(image.to_json())
                }
                // What the record last was is kept for an edit that may survive the deletion; `put` drops it without one.
                Extent::Deleted => {
                    Ok(row.confirmed.take().map(|confirmed| confirmed.fields).unwrap_or_default())
                }
            };
            row.confirmed = Some(Confirmed {
                version: change.version,
                edited_at: change.edited_at,
                deleted: change.extent == Extent::Deleted,
                fields: fields.map_err(|fault| self.damaged(fault))?,
            });
            self.see(&mut row)?;
        }
        self.put(&change.key, row)
    }

    fn control(&mut self, control: &Control) -> Result<(), StoreError> {
        match control {
            Control::Opened(opened) => {
                let mut state = self.tables.state()?;
                state.format = ROWS_FORMAT;
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
                planned.units.iter().try_for_each(|unit| self.planned(unit))?;
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

    fn planned(&mut self, unit: &PlannedUnit) -> Result<(), StoreError> {
        for id in &unit.replaces {
            // Those that were given up are there no more.
            let Some(former) = self.tables.unit(id)? else { continue };
            self.end_unit(id)?;
            for change in &former.changes {
                self.each_ref(&change.key, &change.ops, |reference| reference.attempts.push(*id))?;
            }
        }
        let changes =
            unit.changes.iter().map(|change| self.planned_change(change)).collect::<Result<Vec<_>, _>>()?;
        let row = UnitRow {
            planned: self.seq(),
            actor: unit.actor.clone(),
            changes,
            digest: unit.digest,
            replaces: unit.replaces.clone(),
            tries: 0,
            code: String::new(),
            first_try: None,
            retry_at: None,
        };
        self.effects.tail.push(TailEffect::Unit(unit.id, row.clone()));
        self.tables.put_unit(&unit.id, Some(row))
    }

    fn planned_change(&mut self, change: &PlannedChange) -> Result<UnitChangeRow, StoreError> {
        let row = self.tables.record(&change.key)?.unwrap_or_default();
        let base = row
            .confirmed_image()
            .map(FieldsJson::to_fields)
            .transpose()
            .map_err(|fault| self.damaged(fault))?;
        let base = match (change.kind, base) {
            (OpKind::Update, Some(base)) => {
                let touched = self.log.fields(change.fields)?.unwrap_or_default();
                let touched = touched.to_fields().map_err(|fault| self.damaged(fault))?;
                let was = |name: &str| base.get(name).cloned().unwrap_or(serde_json::Value::Null);
                Some(touched.names().map(|name| (name.to_owned(), was(name))).collect())
            }
            (_, base) => base,
        };
        let absorbed = |reference: &&TailRef| change.ops.iter().any(|op| op.id == reference.op);
        let base = overlaid(base, row.tail.iter().filter(absorbed)).map_err(|fault| self.damaged(fault))?;
        let base_fields = base.map(|base: Fields| base.to_json());
        self.touched(&change.key);
        Ok(UnitChangeRow {
            key: change.key.clone(),
            kind: change.kind,
            ops: change.ops.clone(),
            base: change.base,
            base_fields,
            edited_at: change.edited_at,
            older: change.older.clone(),
            schema_version: change.schema_version,
            fields: change.fields,
        })
    }

    fn annulled(&mut self, annulled: &Annulled) -> Result<(), StoreError> {
        if matches!(annulled.reason, AnnulledReason::NoEffect | AnnulledReason::Arrived) {
            self.last_word(&annulled.key, &annulled.ops)?;
        }
        self.end(&annulled.key, &annulled.ops)
    }

    fn decision(&mut self, number: u32, decision: &Decision) -> Result<(), StoreError> {
        match decision {
            Decision::Acked { unit, versions, .. } => self.acked(unit, versions),
            Decision::Tried { unit, tries, code, retry_at, .. } => {
                let Some(mut row) = self.tables.unit(unit)? else { return Ok(()) };
                row.tries = *tries;
                row.code.clone_from(code);
                row.first_try = row.first_try.or(Some(self.entry.header.wall));
                row.retry_at = Some(*retry_at);
                for change in &row.changes {
                    self.touched(&change.key);
                }
                self.effects.tail.push(TailEffect::Unit(*unit, row.clone()));
                self.tables.put_unit(unit, Some(row))
            }
            Decision::Dissolved { unit, .. } => {
                let Some(row) = self.tables.unit(unit)? else { return Ok(()) };
                self.end_unit(unit)?;
                for change in &row.changes {
                    self.each_ref(&change.key, &change.ops, |reference| {
                        reference.stale = reference.stale.saturating_add(1);
                        // It was judged against what the server has now, conflict or not.
                        reference.base = None;
                    })?;
                }
                Ok(())
            }
            Decision::Conflicted(conflict) => self.conflicted(number, conflict),
            Decision::Superseded { key, op } => {
                self.last_word(key, &[*op])?;
                self.end(key, &[*op])
            }
            Decision::Discarded { key, op } => self.end(key, &[*op]),
            Decision::DeadLettered { unit, tries, code, message, .. } => {
                let message = message.and_then(|item| self.entry.item(item)).unwrap_or_default();
                let message = String::from_utf8_lossy(message).into_owned();
                self.dead_lettered(unit, *tries, code, &message)
            }
            Decision::Retried { key, op } => {
                self.tables.put_dead_letter(&op.id, None)?;
                self.effects.tail.push(TailEffect::Dead(op.place, false));
                self.each_ref(key, &[*op], |reference| {
                    reference.dead = false;
                    reference.stale = 0;
                })
            }
            Decision::Annulled(annulled) => self.annulled(annulled),
            Decision::Parked { scope, code } => {
                let mut state = self.tables.state()?;
                if !state.parks.iter().any(|(parked, _)| parked == scope) {
                    state.parks.push((scope.clone(), code.clone()));
                    self.put_state(state)?;
                }
                Ok(())
            }
            Decision::Resolved { key, op, winner, lost, merged } => {
                self.resolved(key, *op, *winner, lost, *merged)
            }
            Decision::TakenIn { key, seq, number } => {
                let entry = self.log.existing(*seq)?;
                self.tables.remove_aside(key, *seq, *number)?;
                let Meta::Upstream(upstream) = &entry.meta else { return Ok(()) };
                let change = usize::try_from(*number).ok().and_then(|number| upstream.changes.get(number));
                change.map_or(Ok(()), |change| self.change(change, &entry))
            }
            Decision::Upcast { key, op, schema_version, fields } => {
                self.upcast(key, *op, *schema_version, *fields)
            }
            Decision::ServerAccepted { server } => {
                // What is under way was made for versions of the former server: it is planned anew, by units that name it.
                for (id, unit) in self.tables.units()? {
                    self.end_unit(&id)?;
                    for change in &unit.changes {
                        self.each_ref(&change.key, &change.ops, |reference| reference.attempts.push(id))?;
                    }
                }
                self.tables.await_confirmation()?;
                let mut state = self.tables.state()?;
                state.server = *server;
                state.anchor = None;
                state.rereading = true;
                state.had_other_server = true;
                self.put_state(state)
            }
            Decision::ServerRead => {
                for key in self.tables.unconfirmed()? {
                    let mut row = self.tables.take_record(&key)?.unwrap_or_default();
                    if let Some(confirmed) = row.confirmed.as_mut() {
                        confirmed.deleted = true;
                    }
                    self.see(&mut row)?;
                    self.put(&key, row)?;
                }
                let mut state = self.tables.state()?;
                state.rereading = false;
                self.put_state(state)
            }
            Decision::Unparked { scope } => {
                let mut state = self.tables.state()?;
                state.parks.retain(|(parked, _)| parked != scope);
                self.put_state(state)
            }
        }
    }

    fn acked(&mut self, id: &UnitId, versions: &[(RecordKey, Version)]) -> Result<(), StoreError> {
        let Some(unit) = self.tables.unit(id)? else { return Ok(()) };
        self.end_unit(id)?;
        for change in &unit.changes {
            let mut row = self.tables.take_record(&change.key)?.unwrap_or_default();
            row.synced_at = Some(self.entry.header.wall);
            let version = versions.iter().find(|(key, _)| *key == change.key).map(|(_, version)| *version);
            if let Some(version) =
                version.filter(|version| row.version().is_none_or(|known| *version > known))
            {
                self.confirm(&mut row, change, version)?;
            }
            self.outdate(&mut row, &change.ops)?;
            row.tail.retain(|reference| !change.ops.iter().any(|op| op.id == reference.op));
            self.ended(&change.key, &change.ops)?;
            self.see(&mut row)?;
            self.put(&change.key, row)?;
        }
        Ok(())
    }

    /// Moves confirmed on to what the server has by our own change.
    fn confirm(
        &mut self,
        row: &mut RecordRow,
        change: &UnitChangeRow,
        version: Version,
    ) -> Result<(), StoreError> {
        let fields = self.log.fields(change.fields)?.unwrap_or_default();
        let fields = fields.to_fields().map_err(|fault| self.damaged(fault))?;
        let was_there = row.confirmed_image().is_some();
        let mut image = Image {
            fields: row
                .confirmed_fields()
                .map_err(|fault| self.damaged(fault))
                .map(|fields| was_there.then_some(fields))?,
            before_deletion: before_deletion(row, self.seq())?,
        };
        let (last, edited_at) = row.confirmed.take().map_or_else(
            || (FieldsJson::default(), change.edited_at),
            // As the server has it: an update that goes late leaves the stamp of what others edited after it was made.
            |known| match change.kind {
                OpKind::Update => (known.fields, change.edited_at.max(known.edited_at)),
                _ => (known.fields, change.edited_at),
            },
        );
        image.apply(change.kind, &fields);
        row.confirmed = Some(Confirmed {
            version,
            edited_at,
            deleted: image.fields.is_none(),
            fields: image.fields.map_or(last, |fields| fields.to_json()),
        });
        Ok(())
    }

    fn conflicted(&mut self, number: u32, conflict: &Conflicted) -> Result<(), StoreError> {
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
            if let Some(merged) = &merged {
                reference.merged = Some(
                    match reference.merged.take().map(|before| (before.to_fields(), merged.to_fields())) {
                        Some((Ok(mut before), Ok(more))) => {
                            before.compose(more);
                            before.to_json()
                        }
                        _ => merged.clone(),
                    },
                );
            }
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

    fn resolved(
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
            if merged.is_some() {
                reference.merged.clone_from(&merged);
            }
        })
    }

    /// Gives an op the fields that an upcaster made of what was left of it.
    fn upcast(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        schema_version: u32,
        fields: ItemIndex,
    ) -> Result<(), StoreError> {
        let fields = self.entry.fields(fields).map_err(|fault| self.damaged(fault))?.unwrap_or_default();
        let made = self.log.existing(op.place.seq)?;
        let ops = if let Meta::Intent(intent) = &made.meta { intent.ops.len() } else { 0 };
        let tail_row = tail_row(self.schema, &made, ops, op_meta(&made, op.place)?, Some(&fields))?;
        let tail_row = TailRow { upcast: Some(schema_version), ..tail_row };
        self.effects.tail.push(TailEffect::Replace(op.place, tail_row));
        self.each_ref(key, &[op], |reference| {
            reference.upcast = Some(Upcast { schema_version, fields: fields.clone() });
            reference.lost.clear();
            reference.merged = None;
        })
    }

    /// Takes fields from an op, and from the dead letters that it had come after.
    fn lose(
        &mut self,
        key: &RecordKey,
        op: PlannedOp,
        lost: &[String],
        change: impl Fn(&mut TailRef),
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        row.outdate(op.place, OpKind::Update, lost);
        for reference in row.tail.iter_mut().filter(|reference| reference.op == op.id) {
            let news = lost.iter().filter(|name| !reference.lost.contains(name));
            let news: Vec<_> = news.cloned().collect();
            reference.lost.extend(news);
            change(reference);
        }
        self.see(&mut row)?;
        self.put(key, row)
    }

    fn dead_lettered(
        &mut self,
        id: &UnitId,
        tries: u32,
        code: &str,
        message: &str,
    ) -> Result<(), StoreError> {
        let Some(unit) = self.tables.unit(id)? else { return Ok(()) };
        self.end_unit(id)?;
        let wall = self.entry.header.wall;
        for change in &unit.changes {
            for op in &change.ops {
                let kind = self.log.op(op.place)?.kind;
                let row = DeadLetterRow {
                    key: change.key.clone(),
                    op: *op,
                    kind,
                    actor: unit.actor.clone(),
                    unit: *id,
                    code: code.to_owned(),
                    message: message.to_owned(),
                    tries,
                    first_at: unit.first_try.unwrap_or(wall),
                    last_at: wall,
                    recorded: self.seq(),
                };
                self.tables.put_dead_letter(&op.id, Some(row))?;
                self.effects.tail.push(TailEffect::Dead(op.place, true));
            }
            let base = AuthorBase { version: change.base, fields: change.base_fields.clone() };
            self.each_ref(&change.key, &change.ops, |reference| {
                reference.dead = true;
                reference.base = Some(base.clone());
                reference.attempts.push(*id);
            })?;
        }
        Ok(())
    }

    fn end_unit(&mut self, id: &UnitId) -> Result<(), StoreError> {
        self.effects.tail.push(TailEffect::UnitGone(*id));
        self.tables.put_unit(id, None)
    }

    /// Ends ops of a record.
    fn end(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let mut row = self.tables.take_record(key)?.unwrap_or_default();
        let ends = |reference: &TailRef| ops.iter().any(|op| op.id == reference.op);
        for reference in row.tail.iter().filter(|reference| reference.dead && ends(reference)) {
            self.tables.put_dead_letter(&reference.op, None)?;
        }
        row.tail.retain(|reference| !ends(reference));
        self.ended(key, ops)?;
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Takes from a record's dead letters what later ops, which end now, said anew.
    fn last_word(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        self.outdate(&mut row, ops)?;
        self.see(&mut row)?;
        self.put(key, row)
    }

    fn outdate(&self, row: &mut RecordRow, ops: &[PlannedOp]) -> Result<(), StoreError> {
        if row.tail.iter().any(|reference| reference.dead) {
            for op in ops {
                let content = self.log.op(op.place)?;
                let upcast = row.tail.iter().find(|reference| reference.op == op.id);
                let upcast = upcast.and_then(|reference| reference.upcast.as_ref());
                let upcast = upcast.map(|upcast| upcast.fields.to_fields()).transpose();
                let said = upcast.map_err(|fault| self.damaged(fault))?.unwrap_or(content.fields);
                let names: Vec<_> = said.names().map(str::to_owned).collect();
                row.outdate(op.place, content.kind, &names);
            }
        }
        Ok(())
    }

    /// Notes that ops left the tail. What they were parked for is settled with them: there is nothing to choose any more.
    fn ended(&mut self, key: &RecordKey, ops: &[PlannedOp]) -> Result<(), StoreError> {
        self.effects.tail.extend(ops.iter().map(|op| TailEffect::Remove(op.place)));
        let mut state = self.tables.state()?;
        let parks = state.parks.len();
        for op in ops {
            let scope = ParkScope::Op(op.id);
            if state.parks.iter().any(|(parked, _)| *parked == scope) {
                self.tables.close_conflicts(key, &op.id, Winner::Remote, None)?;
                state.parks.retain(|(parked, _)| *parked != scope);
            }
        }
        if state.parks.len() == parks { Ok(()) } else { self.put_state(state) }
    }

    fn each_ref(
        &mut self,
        key: &RecordKey,
        ops: &[PlannedOp],
        change: impl Fn(&mut TailRef),
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.tables.take_record(key)? else { return Ok(()) };
        for reference in row.tail.iter_mut().filter(|reference| ops.iter().any(|op| op.id == reference.op)) {
            change(reference);
        }
        self.see(&mut row)?;
        self.put(key, row)
    }

    /// Folds the tail over confirmed.
    fn see(&mut self, row: &mut RecordRow) -> Result<(), StoreError> {
        if row.tail.is_empty() {
            row.visible = Visible::AsConfirmed;
            return Ok(());
        }
        let was_there = row.confirmed_image().is_some();
        let confirmed = row.confirmed_fields().map_err(|fault| self.damaged(fault))?;
        let mut image = Image {
            fields: was_there.then_some(confirmed),
            before_deletion: before_deletion(row, self.seq())?,
        };
        for reference in &row.tail {
            let content = self.log.op(reference.place)?;
            image.put(&content, reference);
        }
        row.visible = image.fields.map_or(Visible::Absent, |fields| Visible::Own(fields.to_json()));
        Ok(())
    }

    fn put(&mut self, key: &RecordKey, mut row: RecordRow) -> Result<(), StoreError> {
        if row.tail.is_empty() {
            row.visible = Visible::AsConfirmed;
            if let Some(confirmed) = row.confirmed.as_mut().filter(|confirmed| confirmed.deleted) {
                confirmed.fields = FieldsJson::default();
            }
        }
        self.effects.records.push(key.clone());
        self.tables.put_record(key, Some(row).filter(|row| !row.is_empty()))
    }

    /// Notes that a record's status changed while its row did not.
    fn touched(&mut self, key: &RecordKey) {
        self.effects.records.push(key.clone());
    }

    fn put_state(&mut self, state: fieldbook_core::rows::StateRow) -> Result<(), StoreError> {
        self.effects.state = true;
        self.tables.put_state(state)
    }

    fn damaged(&self, fault: InvalidFields) -> StoreError {
        StoreError::corrupt("stored fields", self.seq(), fault)
    }
}

fn before_deletion(row: &RecordRow, seq: Seq) -> Result<Option<Fields>, StoreError> {
    let deleted = row.confirmed.as_ref().filter(|confirmed| confirmed.deleted);
    let fields = deleted.map(|confirmed| confirmed.fields.to_fields()).transpose();
    fields.map_err(|fault| StoreError::corrupt("stored fields", seq, fault))
}

/// Returns the rows that the ops of an intent have in the tail; none for other kinds of entry.
///
/// # Errors
/// [`StoreError::Corrupt`] if an op's fields are damaged.
pub fn tail_rows(schema: &Schema, entry: &Entry) -> Result<Vec<(OpPlace, TailRow)>, StoreError> {
    let Meta::Intent(intent) = &entry.meta else { return Ok(Vec::new()) };
    let rows = intent.ops.iter().enumerate().map(|(index, meta)| {
        let place = OpPlace { seq: entry.header.seq, index: u32::try_from(index).unwrap_or(u32::MAX) };
        let text = meta.fields.map(|index| entry.fields(index)).transpose();
        let text = text.map_err(|fault| StoreError::corrupt("an op's fields", entry.header.seq, fault))?;
        Ok((place, tail_row(schema, entry, intent.ops.len(), meta, text.flatten().as_ref())?))
    });
    rows.collect()
}

fn tail_row(
    schema: &Schema,
    entry: &Entry,
    ops: usize,
    meta: &OpMeta,
    fields: Option<&FieldsJson>,
) -> Result<TailRow, StoreError> {
    let references = references(schema, &meta.key, fields);
    Ok(TailRow {
        op: meta.id,
        key: meta.key.clone(),
        kind: meta.kind,
        actor: entry.header.actor.clone(),
        edited_at: meta.edited_at,
        made_at: entry.header.wall,
        schema_version: meta.schema_version,
        upcast: None,
        transaction_ops: u32::try_from(ops).unwrap_or(u32::MAX),
        bytes: fields.map_or(0, |fields| fields.as_str().len()) as u64,
        references: references
            .map_err(|fault| StoreError::corrupt("an op's fields", entry.header.seq, fault))?,
    })
}

/// Returns the records that an op refers to, by the declared references.
fn references(
    schema: &Schema,
    key: &RecordKey,
    fields: Option<&FieldsJson>,
) -> Result<Vec<FieldReference>, InvalidFields> {
    let declared = schema.rules(&key.entity).map(|rules| rules.references.as_slice()).unwrap_or_default();
    let Some(fields) = fields.filter(|_| !declared.is_empty()) else { return Ok(Vec::new()) };
    let fields = fields.to_fields()?;
    let found = declared.iter().filter_map(|reference| {
        let id = fields.get(&reference.field)?.as_str();
        let target = id.and_then(|id| RecordKey::parse(reference.entity.as_str(), id).ok());
        Some(FieldReference { field: reference.field.clone(), target })
    });
    Ok(found.collect())
}
