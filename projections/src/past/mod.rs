//! The tables as they were after an entry, without folding the whole log.
//!
//! ```text
//!   entries after the moment ──► the records that they touched
//!     untouched records          their present rows
//!     touched records            folded from their own entries up to the moment
//!   state, cursors               folded from the entries about the book, and the last answers
//! ```
//!
//! Invariants:
//! 1. A read returns what a fold of the log up to the entry returns, byte for byte. The exceptions
//!    are the highest version of the server and the order of parks of single ops, which no read
//!    here has.
//! 2. The cost follows what changed since the moment, or what came before it if that is less. One
//!    record costs its own entries.
//! 3. If another server was accepted after the moment, every record was touched, and all are
//!    folded.
//!
//! A fold of entries whose values were erased makes images of nothing. `erasures` tells for which
//! records and moments that is so; `follow` and `walk` leave these images out.
//!
//! `follow` tells what each entry made of a record, `seqs` finds the entries of records, `state`
//! the entries that make the state row. `walk` passes through the whole log with all tables.
//!
//! What it is not: a snapshot that can be written to.

mod erasures;
mod follow;
mod seqs;
mod state;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fieldbook_core::entry::Meta;
use fieldbook_core::log::{StoreError, entries_from};
use fieldbook_core::rows::{ConflictRow, CursorRow, DeadLetterRow, RecordRow, StateRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{ConflictId, EntityType, OpId, RecordId, RecordKey, Schema, Seq, UnitId};

pub use self::erasures::Erasures;
pub use self::follow::{follow_range, follow_record};
use self::seqs::seqs_of;
pub use self::seqs::{history_of, last_of_book};
pub use self::walk::{Step, walk};
use crate::effects::Effects;
use crate::log_view::LogView;
use crate::memory::MemoryTables;
use crate::read::Snapshot;
use crate::rebuild::{Rebuilt, fold, in_memory};
use crate::tail_on_disk::sound;
use crate::touched::touched;

/// The tables as they were after an entry: all of them, or those of some records.
pub struct Past {
    upto: Seq,
    /// The records that were folded; the others are as they are now. None if all were folded.
    folded: Option<BTreeSet<RecordKey>>,
    tables: MemoryTables,
    tail: Tail,
}

/// The records that the entries after a moment touched.
struct Since {
    keys: BTreeSet<RecordKey>,
    all: bool,
}

impl Past {
    /// Makes all tables as they were after an entry. A moment after the end of the log is its end.
    ///
    /// # Errors
    /// [`StoreError`] if an entry or a row cannot be read.
    pub fn of(snapshot: &Arc<Snapshot>, schema: &Schema, upto: Seq) -> Result<Self, StoreError> {
        let last = snapshot.last_seq()?;
        let upto = upto.min(last);
        // Fewer entries came before the moment than after it.
        if upto.number() < last.since(upto) {
            return Self::whole(snapshot, schema, upto);
        }
        let since = since(snapshot, upto)?;
        if since.all {
            return Self::whole(snapshot, schema, upto);
        }
        let seqs = seqs_of(snapshot, &since.keys, upto)?;
        let (mut tables, tail) = fold_only(snapshot, schema, since.keys.clone(), &seqs)?;
        state::take_over(&mut tables, snapshot, schema, upto, seqs)?;
        let mut past = Self { upto, folded: Some(since.keys), tables, tail };
        past.tail = past.with_present_ops(snapshot, schema)?;
        past.count_parks();
        Ok(past)
    }

    /// Makes all tables by folding the whole log up to an entry.
    ///
    /// # Errors
    /// [`StoreError`] if an entry cannot be read.
    pub fn whole(snapshot: &Snapshot, schema: &Schema, upto: Seq) -> Result<Self, StoreError> {
        let rebuilt = fold(&snapshot.entries()?, schema, upto, |_| {})?;
        let (tables, mut tail) = rebuilt.into_parts();
        tail.set_followed(upto);
        Ok(Self { upto, folded: None, tables, tail })
    }

    /// Makes the tables of one record as they were after an entry, with the records whose ops share
    /// a transaction or a unit with its own. Only their entries are folded, and those about the
    /// book. Reads of other records return their present rows.
    ///
    /// # Errors
    /// [`StoreError`] if an entry or a row cannot be read.
    pub fn of_record(
        snapshot: &Snapshot,
        schema: &Schema,
        key: &RecordKey,
        upto: Seq,
    ) -> Result<Self, StoreError> {
        let upto = upto.min(snapshot.last_seq()?);
        let mut keys = BTreeSet::from([key.clone()]);
        loop {
            let seqs = seqs_of(snapshot, &keys, upto)?;
            let (tables, tail) = fold_only(snapshot, schema, keys.clone(), &seqs)?;
            let known = keys.len();
            keys.extend(together(snapshot, &tables, &tail)?);
            if keys.len() == known {
                let mut past = Self { upto, folded: Some(keys), tables, tail };
                state::take_over(&mut past.tables, snapshot, schema, upto, seqs)?;
                past.tail.set_followed(upto);
                past.count_parks();
                return Ok(past);
            }
        }
    }

    /// Returns the row of one record as it was after an entry: the present row if no later entry
    /// touched it, else the row folded from its own entries.
    ///
    /// # Errors
    /// [`StoreError`] if an entry or a row cannot be read.
    pub fn row(
        snapshot: &Snapshot,
        schema: &Schema,
        key: &RecordKey,
        upto: Seq,
    ) -> Result<Option<RecordRow>, StoreError> {
        Ok(Self::rows(snapshot, schema, &BTreeSet::from([key.clone()]), upto)?.remove(key))
    }

    /// Returns the rows of some records as they were after an entry, as [`Self::row`] does. An
    /// entry that touches several of them is read once.
    ///
    /// # Errors
    /// [`StoreError`] if an entry or a row cannot be read.
    pub fn rows(
        snapshot: &Snapshot,
        schema: &Schema,
        keys: &BTreeSet<RecordKey>,
        upto: Seq,
    ) -> Result<BTreeMap<RecordKey, RecordRow>, StoreError> {
        let seqs = seqs_of(snapshot, keys, snapshot.last_seq()?)?;
        let row = |key: &RecordKey, row: Option<RecordRow>| Some((key.clone(), row?));
        if seqs.last().is_none_or(|touched| *touched <= upto) {
            let present = keys.iter().map(|key| Ok(row(key, snapshot.record(key)?)));
            return present.filter_map(Result::transpose).collect();
        }
        let seqs = seqs.into_iter().take_while(|seq| *seq <= upto).collect();
        let (mut tables, _) = fold_only(snapshot, schema, keys.clone(), &seqs)?;
        Ok(keys.iter().filter_map(|key| row(key, tables.records.remove(key))).collect())
    }

    /// Returns the last entry of the moment.
    pub const fn upto(&self) -> Seq {
        self.upto
    }

    /// Returns the tail as it was.
    pub const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Returns the state row as it was, but for the highest version of the server.
    pub const fn state(&self) -> &StateRow {
        &self.tables.state
    }

    /// Returns the cursor of each entity type as it was.
    pub const fn cursors(&self) -> &BTreeMap<EntityType, CursorRow> {
        &self.tables.cursors
    }

    fn is_folded(&self, key: &RecordKey) -> bool {
        self.folded.as_ref().is_none_or(|folded| folded.contains(key))
    }

    /// Returns a record's row.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn record(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
    ) -> Result<Option<RecordRow>, StoreError> {
        if self.is_folded(key) {
            return Ok(self.tables.records.get(key).cloned());
        }
        snapshot.record(key)
    }

    /// Returns the rows of one entity type in the order of their ids, deleted ones included; after
    /// an id if one is given.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn records(
        &self,
        snapshot: &Snapshot,
        entity: &EntityType,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<(RecordId, RecordRow)>, StoreError> {
        let mut folded: Vec<_> = self
            .tables
            .records
            .iter()
            .filter(|(key, _)| key.entity == *entity && after.is_none_or(|after| key.id > *after))
            .map(|(key, row)| (key.id.clone(), row.clone()))
            .collect();
        folded.sort_by(|one, other| one.0.cmp(&other.0));
        if self.folded.is_none() {
            folded.truncate(limit);
            return Ok(folded);
        }
        let (mut folded, mut rows) = (folded.into_iter().peekable(), Vec::new());
        for row in snapshot.records(entity, after)? {
            if rows.len() >= limit {
                break;
            }
            let (id, row) = row?;
            while let Some(earlier) = folded.next_if(|earlier| earlier.0 < id) {
                rows.push(earlier);
            }
            if !self.is_folded(&RecordKey::new(entity.clone(), id.clone())) {
                rows.push((id, row));
            }
        }
        rows.extend(folded);
        rows.truncate(limit);
        Ok(rows)
    }

    /// Returns every entity type with at least one row.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn entity_types(&self, snapshot: &Snapshot) -> Result<Vec<EntityType>, StoreError> {
        let folded = self.tables.records.keys().map(|key| key.entity.clone());
        let mut types: BTreeSet<_> = folded.collect();
        if self.folded.is_some() {
            for entity in snapshot.entity_types()? {
                if !types.contains(&entity) && !self.records(snapshot, &entity, None, 1)?.is_empty()
                {
                    types.insert(entity);
                }
            }
        }
        Ok(types.into_iter().collect())
    }

    /// Returns a unit without a final answer.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn unit(&self, snapshot: &Snapshot, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        let folded = self.tables.units.get(id);
        if let Some(row) = folded.filter(|row| self.is_of_folded(row)) {
            return Ok(Some(row.clone()));
        }
        let present = if self.folded.is_some() { snapshot.unit(id)? } else { None };
        Ok(present.filter(|row| row.planned <= self.upto && !self.is_of_folded(row)))
    }

    /// Returns whether every record of a unit is folded. A unit whose records are folded in part
    /// has not changed since, because each of its changes touches all of them.
    fn is_of_folded(&self, row: &UnitRow) -> bool {
        row.changes.iter().all(|change| self.is_folded(&change.key))
    }

    /// Returns all dead letters, oldest op first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn dead_letters(&self, snapshot: &Snapshot) -> Result<Vec<DeadLetterRow>, StoreError> {
        let mut rows: Vec<_> = self.tables.dead_letters.values().cloned().collect();
        if self.folded.is_some() {
            let present = snapshot.dead_letters()?.into_iter();
            rows.extend(present.filter(|row| !self.is_folded(&row.key)));
        }
        rows.sort_by_key(|row| row.op.place);
        Ok(rows)
    }

    /// Returns a dead letter.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn dead_letter(
        &self,
        snapshot: &Snapshot,
        op: &OpId,
    ) -> Result<Option<DeadLetterRow>, StoreError> {
        if let Some(row) = self.tables.dead_letters.get(op) {
            return Ok(Some(row.clone()));
        }
        let present = if self.folded.is_some() { snapshot.dead_letter(op)? } else { None };
        Ok(present.filter(|row| !self.is_folded(&row.key)))
    }

    /// Returns all conflicts, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn conflicts(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        let folded = self.tables.conflicts.iter();
        let folded = folded
            .map(|((seq, number), row)| (ConflictId { seq: *seq, number: *number }, row.clone()));
        let mut rows: Vec<_> = folded.collect();
        if self.folded.is_some() {
            let present = snapshot.conflicts()?.into_iter();
            rows.extend(present.filter(|(_, row)| !self.is_folded(&row.key)));
        }
        rows.sort_by_key(|(id, _)| (id.seq, id.number));
        Ok(rows)
    }

    /// Returns the conflicts of a record, open or resolved, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn conflicts_of(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
    ) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        if !self.is_folded(key) {
            return snapshot.conflicts_of(key);
        }
        let places = self.tables.conflicts_of.get(key).into_iter().flatten();
        let rows = places.filter_map(|(seq, number)| {
            let row = self.tables.conflicts.get(&(*seq, *number))?;
            Some((ConflictId { seq: *seq, number: *number }, row.clone()))
        });
        Ok(rows.collect())
    }

    /// Returns whether something of a record is undeclared.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub fn is_undeclared(&self, snapshot: &Snapshot, key: &RecordKey) -> Result<bool, StoreError> {
        if !self.is_folded(key) {
            return snapshot.is_undeclared(key);
        }
        Ok(self.tables.undeclared.iter().any(|(undeclared, ..)| undeclared == key))
    }

    /// Returns the folded tail with the present ops of the other records.
    fn with_present_ops(
        &self,
        snapshot: &Arc<Snapshot>,
        schema: &Schema,
    ) -> Result<Tail, StoreError> {
        let present = snapshot.tail(schema)?;
        let mut rows: BTreeMap<_, _> =
            self.tail.ops().map(|(place, row)| (place, row.clone())).collect();
        let others = present.ops().filter(|(_, row)| !self.is_folded(&row.key));
        rows.extend(others.map(|(place, row)| (place, row.clone())));
        let ids: Vec<UnitId> =
            self.tail.units().chain(present.units()).map(|(id, _)| *id).collect();
        let mut units = BTreeMap::new();
        for id in ids {
            units.extend(self.unit(snapshot, &id)?.map(|row| (id, row)));
        }
        let dead = self.dead_letters(snapshot)?.into_iter().map(|row| row.op.place);
        let is_here = |tail: &Tail, op: &OpId, is_folded: bool| {
            let row = tail.place_of(op).and_then(|place| tail.op(place));
            row.is_some_and(|row| self.is_folded(&row.key) == is_folded)
        };
        let of = |tail: &Tail, is_folded| -> Vec<_> {
            let parked = tail.parked().filter(|(op, _)| is_here(tail, op, is_folded));
            parked.map(|(op, code)| (*op, code.to_owned())).collect()
        };
        let parked = of(&self.tail, true).into_iter().chain(of(&present, false));
        // The present ops were read from their table until here.
        sound(&present)?;
        let mut tail = in_memory(rows, units.iter(), dead, parked);
        tail.set_followed(self.upto);
        Ok(tail)
    }

    fn count_parks(&mut self) {
        self.tables.state.parked_ops = self.tail.parked().len() as u64;
    }
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Past(entry {})", self.upto)
    }
}

/// Reads the entries after a moment.
fn since(snapshot: &Snapshot, upto: Seq) -> Result<Since, StoreError> {
    let log = snapshot.log()?;
    let mut since = Since { keys: BTreeSet::new(), all: false };
    for entry in entries_from(&snapshot.entries()?, upto.next()) {
        let touched = touched(&entry?, &log)?;
        since.keys.extend(touched.keys);
        since.all |= touched.all;
    }
    Ok(since)
}

/// Folds some entries, for some records.
fn fold_only(
    snapshot: &Snapshot,
    schema: &Schema,
    keys: BTreeSet<RecordKey>,
    seqs: &BTreeSet<Seq>,
) -> Result<(MemoryTables, Tail), StoreError> {
    let (log, mut rebuilt, mut effects) =
        (snapshot.log()?, Rebuilt::only(keys), Effects::default());
    for seq in seqs {
        rebuilt.take(&log, schema, &*log.existing(*seq)?, &mut effects)?;
    }
    Ok(rebuilt.into_parts())
}

/// Returns the records whose ops share a transaction or a unit with the ops of a tail.
fn together(
    snapshot: &Snapshot,
    tables: &MemoryTables,
    tail: &Tail,
) -> Result<BTreeSet<RecordKey>, StoreError> {
    let (log, mut keys) = (snapshot.log()?, BTreeSet::new());
    for (place, row) in tail.ops().filter(|(_, row)| row.transaction_ops > 1) {
        let entry = log.existing(place.seq)?;
        let Meta::Intent(intent) = &entry.meta else { continue };
        keys.extend(intent.ops.iter().map(|op| op.key.clone()));
        keys.insert(row.key.clone());
    }
    let changes = tables.units.values().flat_map(|unit| &unit.changes);
    keys.extend(changes.map(|change| change.key.clone()));
    Ok(keys)
}
