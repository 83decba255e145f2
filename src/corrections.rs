//! What a person corrects: undo an op, flip a conflict, choose in an open one, edit a dead letter. Nothing is erased: a
//! correction is an entry of its own that cites what it corrects.

use fieldbook_core::entry::{
    Annulled, AnnulledReason, Control, Decision, Draft, Items, Meta, ParkScope, PlannedOp, Verb, Winner,
};
use fieldbook_core::rows::{ConflictRow, RecordRow, TailRef};
use fieldbook_core::rules::admit::Rejected;
use fieldbook_core::rules::coalesce::Step;
use fieldbook_core::rules::verbs::{
    Choice, Compensation, Correction, FlipFields, TailOp, choose, compensate, correct, flip,
};
use fieldbook_core::rules::{Image, OpContent, effective_fields};
use fieldbook_core::{ConflictId, Fields, FieldsJson, Hlc, Mutation, OpId, OpKind, OpPlace, RecordKey, Seq};
use fieldbook_projections::{CachedLog, Effects, LogView, MemoryTables, Tables, apply};

use crate::book::Book;
use crate::error::Error;
use crate::write::{Written, write_in, write_on};
use crate::writer::Session;

/// What undoing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// The op, with the rest of its transaction, never leaves the device.
    Annulled,
    /// It had left, or others stand on it: this op takes back what it did.
    Compensated(OpId),
    /// There was nothing left to take back: the same fields were changed since. An op that is held until someone corrects it
    /// stays held: give it up with [`Book::discard`].
    Nothing,
}

impl Book {
    /// Undoes an op. What has not left yet is annulled; what may have left is taken back by an op that cites it. A
    /// transaction is annulled as a whole, and compensated op by op.
    ///
    /// # Errors
    /// [`Error::Misuse`] if there is no such op in the log; [`Error::Store`] if the book does not read.
    pub fn undo(&self, op: OpPlace) -> Result<Undone, Error> {
        let key = self.key_of(op)?;
        let before = self.image_before(&key, op.seq)?;
        self.shared.write_in_turn(move |session| {
            if let Some(decisions) = annul(session, op)? {
                verb(session, Verb::Undo, decisions, Items::default())?;
                return Ok(Undone::Annulled);
            }
            let content = session.log_view().op(op)?;
            let now = visible(&session.tables.record(&key)?.unwrap_or_default())?;
            match compensate(&key, content.kind, &content.fields, before.as_ref(), now.as_ref()) {
                Compensation::Nothing => Ok(Undone::Nothing),
                Compensation::Op(mutation) => {
                    let written = write_in(session, Mutation { cites: Some(content.id), ..mutation })?;
                    Ok(written.op().map_or(Undone::Nothing, Undone::Compensated))
                }
            }
        })
    }

    /// Makes the other side of a settled conflict win, by an op that cites the one that was in it.
    ///
    /// # Errors
    /// [`Error::Misuse`] if there is no such conflict, it is still open, or a rule merged both sides.
    pub fn flip(&self, conflict: ConflictId) -> Result<Written, Error> {
        let row = self.conflict(conflict)?;
        let last = self.image_before(&row.key, conflict.seq)?.unwrap_or_default();
        let read = |fields: &FieldsJson| fields.to_fields().map_err(Error::damaged);
        let values = FlipFields { local: read(&row.local)?, remote: read(&row.remote)?, last };
        self.shared.write_in_turn(move |session| {
            let now = visible(&session.tables.record(&row.key)?.unwrap_or_default())?;
            match flip(&row, &values, now.as_ref()).map_err(Error::NotFlippable)? {
                Some(mutation) => write_in(session, Mutation { cites: Some(row.op.id), ..mutation }),
                None => Ok(Written::Unchanged),
            }
        })
    }

    /// Settles a conflict that was left open for a person. What waited is sent, or given up, accordingly.
    ///
    /// # Errors
    /// [`Error::Misuse`] if there is no such conflict, or it is settled already.
    pub fn resolve(&self, conflict: ConflictId, choice: Choice) -> Result<(), Error> {
        let row = self.conflict(conflict)?;
        self.shared.write_in_turn(move |session| {
            let record = session.tables.record(&row.key)?.unwrap_or_default();
            let content = session.log_view().op(row.op.place)?;
            let reference = record.tail.iter().find(|reference| reference.op == row.op.id);
            let effective =
                reference.map_or_else(Fields::new, |reference| effective_fields(&content, reference));
            let chosen = choose(&row, &effective, &choice).map_err(Error::NotFlippable)?;
            let mut items = Items::default();
            let merged = chosen.merged.as_ref().map(Fields::checked).transpose();
            let merged = merged.map_err(|fault| Rejected::Fields { key: row.key.clone(), fault })?;
            let merged = merged.map(|merged| items.add_fields(&merged, session.randomness));
            let winner = match choice {
                Choice::Mine => Winner::Local,
                Choice::Theirs => Winner::Remote,
                Choice::Merged(_) => Winner::Merged,
            };
            let (key, op) = (row.key.clone(), row.op);
            let mut decisions = vec![
                Decision::Resolved { key: key.clone(), op, winner, lost: chosen.lost, merged },
                Decision::Unparked { scope: ParkScope::Op(op.id) },
            ];
            if chosen.superseded {
                // Where the whole record was in question, what would have been one change with the op is lost with it.
                let goes_along = |reference: &&TailRef| {
                    row.fields.is_empty()
                        && reference.place < op.place
                        && !reference.dead
                        && session.tail.unit_of(reference.place).is_none()
                };
                for earlier in record.tail.iter().filter(goes_along) {
                    let op = PlannedOp { id: earlier.op, place: earlier.place };
                    decisions.push(Decision::Superseded { key: key.clone(), op });
                }
                decisions.push(Decision::Superseded { key, op });
            }
            verb(session, Verb::Resolve, decisions, items)
        })
    }

    /// Corrects a dead letter and sends it again: a new op with the dead one's fields and these on top, which cites and
    /// supersedes it. Ops that waited for a dead creation become part of the new one. What a later op of the record set anew
    /// is not brought back. What does not get through while others do can be corrected in the same way: it becomes a dead
    /// letter first, and stays one if the correction is not valid.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the op is neither, or one that deletes; [`Error::Rejected`] if the corrected op is not valid.
    /// Then nothing is done to a dead letter.
    pub fn edit_and_retry(&self, op: OpId, correction: Fields) -> Result<Written, Error> {
        self.give_up_isolated(op)?;
        self.shared.write_in_turn(move |session| {
            let Some(letter) = session.tables.dead_letter(&op)? else {
                return Err(Error::Misuse("this op is not a dead letter"));
            };
            if letter.kind == OpKind::Delete {
                return Err(Error::Misuse("a dead deletion has nothing to correct: retry or discard it"));
            }
            let record = session.tables.record(&letter.key)?.unwrap_or_default();
            let mut tail = Vec::with_capacity(record.tail.len());
            for reference in &record.tail {
                let content: OpContent = session.log_view().op(reference.place)?;
                let fields = effective_fields(&content, reference);
                tail.push(TailOp {
                    op: PlannedOp { id: reference.op, place: reference.place },
                    step: Step { kind: content.kind, fields, edited_at: reference.edited_at(&content) },
                    under_way: session.tail.unit_of(reference.place).is_some(),
                });
            }
            let Some(Correction { change, taken }) = correct(&tail, op, correction) else {
                return Err(Error::Misuse("this op is not a dead letter"));
            };
            // A job decides before it writes: whether the corrected op fits what will be there without the dead one.
            let image = image_without(session, &record, |found| taken.iter().any(|op| op.id == *found))?;
            let kind = match (change.kind, &image) {
                (OpKind::Create | OpKind::Replace, Some(_)) => OpKind::Update,
                (OpKind::Update | OpKind::Replace, None) => OpKind::Create,
                (kind, _) => kind,
            };
            let ended = |op| Decision::Superseded { key: letter.key.clone(), op };
            let decisions = taken.into_iter().map(ended).collect();
            let mutation = Mutation { key: letter.key, kind, fields: change.fields, cites: Some(op) };
            // The new op comes first, so that it takes over what the author of the dead one had seen.
            let image = image.as_ref().map(Fields::to_json);
            let written = write_on(session, image, mutation)?;
            verb(session, Verb::Retry, decisions, Items::default())?;
            Ok(written)
        })
    }

    fn conflict(&self, id: ConflictId) -> Result<ConflictRow, Error> {
        let found = self.conflicts()?.into_iter().find(|(found, _)| *found == id);
        found.map(|(_, row)| row).ok_or(Error::Misuse("there is no such conflict"))
    }

    fn key_of(&self, op: OpPlace) -> Result<RecordKey, Error> {
        let entry = self.entries(op.seq, 1)?.into_iter().next().filter(|entry| entry.header.seq == op.seq);
        let Some(Meta::Intent(intent)) = entry.map(|entry| entry.meta) else {
            return Err(Error::Misuse("there is no such op"));
        };
        let meta = usize::try_from(op.index).ok().and_then(|index| intent.ops.into_iter().nth(index));
        meta.map(|meta| meta.key).ok_or(Error::Misuse("there is no such op"))
    }

    /// Folds only the entries that touched a record, up to but not including one: what the app read of it then.
    fn image_before(&self, key: &RecordKey, seq: Seq) -> Result<Option<Fields>, Error> {
        let timeline = self.timeline(key)?;
        let snapshot = self.snapshot()?;
        let log: CachedLog<_> = snapshot.log()?;
        let (mut tables, mut effects) = (MemoryTables::default(), Effects::default());
        for entry in timeline.iter().take_while(|entry| entry.header.seq < seq) {
            apply(&mut tables, &log, self.schema(), entry, &mut effects)?;
        }
        tables.records.get(key).map_or(Ok(None), visible)
    }
}

/// Returns what annuls an op with the rest of its transaction, if none of it was planned and nothing newer stands on it.
fn annul(session: &Session<'_>, op: OpPlace) -> Result<Option<Vec<Decision>>, Error> {
    let tail = session.tail;
    let Some(row) = tail.op(op) else { return Ok(None) };
    let ops: Vec<_> = tail.ops_of_entry(op.seq).collect();
    let whole = u32::try_from(ops.len()).is_ok_and(|count| count == row.transaction_ops);
    let last = |place: OpPlace, key: &RecordKey| {
        tail.ops_of(key).next_back().is_some_and(|newest| newest.seq == place.seq)
    };
    let free =
        |place: OpPlace| tail.unit_of(place).is_none() && !tail.is_dead(place) && !session.has_touched(place);
    if !whole || !ops.iter().all(|(place, row)| free(*place) && last(*place, &row.key)) {
        return Ok(None);
    }
    let annulled = ops.into_iter().map(|(place, row)| {
        let ops = vec![PlannedOp { id: row.op, place }];
        Decision::Annulled(Annulled { key: row.key.clone(), ops, reason: AnnulledReason::Undone })
    });
    Ok(Some(annulled.collect()))
}

/// Returns what the app would read of a record without some ops of its tail.
fn image_without(
    session: &Session<'_>,
    row: &RecordRow,
    without: impl Fn(&OpId) -> bool,
) -> Result<Option<Fields>, Error> {
    let confirmed = row.confirmed_image().map(FieldsJson::to_fields).transpose().map_err(Error::damaged)?;
    let mut image = Image { fields: confirmed, before_deletion: None };
    for reference in row.tail.iter().filter(|reference| !without(&reference.op)) {
        let content = session.log_view().op(reference.place)?;
        image.put(&content, reference);
    }
    Ok(image.fields)
}

fn visible(row: &RecordRow) -> Result<Option<Fields>, Error> {
    row.image().map(FieldsJson::to_fields).transpose().map_err(Error::damaged)
}

/// Appends what a person decided.
pub(crate) fn verb(
    session: &mut Session<'_>,
    word: Verb,
    decisions: Vec<Decision>,
    items: Items,
) -> Result<(), Error> {
    session.append(Draft { meta: Meta::Control(Control::Verb(word, decisions)), items }, Hlc::ZERO)?;
    Ok(())
}
