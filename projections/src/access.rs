//! Typed access to the tables, on disk or in memory. Folding is written once, over [`Tables`].
//!
//! A transaction keeps changed record rows in memory. [`DiskTables::flush`] writes them at its end:
//! each once, however often it changed, in the order of their keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use fieldbook_core::codec::{self, Stored};
use fieldbook_core::entry::{ErasedRecords, Winner};
use fieldbook_core::log::StoreError;
use fieldbook_core::record::Pending;
use fieldbook_core::rows::{
    Confirmed, ConflictRow, CursorRow, DeadLetterRow, OPS_IN_ROW, ParkedOpRow, RecordRow,
    RecordView, StateRow, StoredRecord, UnitRow, Visible,
};
use fieldbook_core::{ConflictId, DeviceKey, EntityType, FieldsJson, OpId, RecordKey, Seq, UnitId};
use foldhash::{HashMap, HashMapExt};
use redb::{ReadableTable, WriteTransaction};

use crate::effects::RecordEffect;
use crate::gap::{Absent, gap_around};
use crate::index::{Indexes, Turned};
use crate::sorted::{BytesTable, SortedRow, write_sorted};
use crate::sum;
use crate::tables::{self, Which};

/// The tables that [`crate::apply`] reads and writes. `None` in place of a row removes the row.
///
/// `take_record` moves a row out for a change. The caller puts it back, or rolls the whole
/// transaction back.
#[expect(missing_docs, reason = "each pair reads and writes one table, described in `tables`")]
pub trait Tables {
    /// Returns whether the fold of this record is wanted. Only a fold of some records leaves out
    /// others.
    fn concerns(&self, _: &RecordKey) -> bool {
        true
    }
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError>;
    fn take_record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError>;
    fn put_record(&mut self, key: &RecordKey, row: Option<RecordRow>) -> Result<(), StoreError>;
    /// Returns the confirmed record. It does not read a long tail.
    fn confirmed(&mut self, key: &RecordKey) -> Result<Option<Confirmed>, StoreError>;
    /// Returns the image that the app reads of a record, and whether the record has a tail. It does
    /// not read a long tail.
    fn seen(&mut self, key: &RecordKey) -> Result<(Option<FieldsJson>, bool), StoreError>;
    /// Adds an op at the end of a record's tail, and sets what the app reads. It does not read a
    /// long tail.
    fn push_op(&mut self, key: &RecordKey, op: Pending, visible: Visible)
    -> Result<(), StoreError>;
    fn unit(&mut self, id: &UnitId) -> Result<Option<UnitRow>, StoreError>;
    fn put_unit(&mut self, id: &UnitId, row: Option<UnitRow>) -> Result<(), StoreError>;
    /// Returns all unanswered units, in the order of ids.
    fn units(&mut self) -> Result<Vec<(UnitId, UnitRow)>, StoreError>;
    fn put_conflict(&mut self, seq: Seq, number: u32, row: ConflictRow) -> Result<(), StoreError>;
    /// Closes the open conflicts of an op with a winner.
    fn close_conflicts(
        &mut self,
        key: &RecordKey,
        op: &OpId,
        winner: Winner,
        merged: Option<&FieldsJson>,
    ) -> Result<(), StoreError>;
    fn park_of(&mut self, op: &OpId) -> Result<Option<ParkedOpRow>, StoreError>;
    fn put_park_of(&mut self, op: &OpId, row: Option<ParkedOpRow>) -> Result<(), StoreError>;
    fn dead_letter(&mut self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError>;
    fn put_dead_letter(&mut self, op: &OpId, row: Option<DeadLetterRow>) -> Result<(), StoreError>;
    fn put_cursor(&mut self, entity: &EntityType, row: CursorRow) -> Result<(), StoreError>;
    fn put_undeclared(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError>;
    fn remove_undeclared(
        &mut self,
        key: &RecordKey,
        seq: Seq,
        number: u32,
    ) -> Result<(), StoreError>;
    /// Removes all cursors and all undeclared records. Gives every confirmed record the
    /// version 0, below any version of a server.
    fn await_confirmation(&mut self) -> Result<(), StoreError>;
    /// Removes records without an op in the tail, with their conflicts and what is undeclared of
    /// them. If these are all records except some, it removes all cursors too.
    fn erase(&mut self, records: &ErasedRecords) -> Result<(), StoreError>;
    /// Returns the live records whose confirmed version is still 0.
    fn unconfirmed(&mut self) -> Result<Vec<RecordKey>, StoreError>;
    fn state(&mut self) -> Result<StateRow, StoreError>;
    fn put_state(&mut self, row: StateRow) -> Result<(), StoreError>;
}

/// The tables of a write transaction, each opened when it is first needed: an append of the app
/// opens records only.
///
/// Changed records are written only by [`Self::flush`].
pub struct DiskTables<'t> {
    transaction: &'t WriteTransaction,
    open: BTreeMap<Which, BytesTable<'t>>,
    state: Option<StateRow>,
    /// The records in the order of their first use, which for a page of the server is close to the
    /// order of their keys.
    records: Vec<HeldRecord>,
    /// The index of each record in that list.
    places: HashMap<RecordKey, usize>,
    absent: Absent,
}

/// What a caller of [`DiskTables::flush`] asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The changes for the app's projections.
    pub effects: bool,
    /// The new keys, for live lists.
    pub new_keys: bool,
}

/// What a flush returns.
#[derive(Debug, Clone, Default)]
pub struct Flushed {
    /// The changes for the app's projections.
    pub effects: Vec<RecordEffect>,
    /// The keys that records have in the indexes and did not have before. `None` if nobody asked,
    /// or if more than [`KEYS_KEPT_OF`] records changed.
    pub new_keys: Option<Vec<Vec<u8>>>,
}

/// The most records of a commit whose new keys are kept for live lists.
pub const KEYS_KEPT_OF: usize = 256;

/// The number of records in memory at a time while the whole table is read.
const ROWS_AT_ONCE: usize = 1_000;

/// A record's row as this transaction has it.
struct HeldRecord {
    key: RecordKey,
    /// The stored key.
    bytes: Vec<u8>,
    row: Option<StoredRecord>,
    /// The ops that were added to a tail that is apart and was not read.
    added: Vec<Pending>,
    is_stored: bool,
    /// Whether the table of pending ops has the ops of the stored row.
    was_apart: bool,
    changed: bool,
}

impl<'t> DiskTables<'t> {
    /// Makes the tables of this transaction.
    pub fn new(transaction: &'t WriteTransaction) -> Self {
        Self::of(transaction, None)
    }

    /// Makes the tables of this transaction, whose state row is known.
    pub fn with_state(transaction: &'t WriteTransaction, state: StateRow) -> Self {
        Self::of(transaction, Some(state))
    }

    fn of(transaction: &'t WriteTransaction, state: Option<StateRow>) -> Self {
        Self {
            transaction,
            open: BTreeMap::new(),
            state,
            records: Vec::new(),
            places: HashMap::new(),
            absent: Absent::default(),
        }
    }

    /// Returns the book's state row if this transaction has it.
    pub const fn known_state(&self) -> Option<&StateRow> {
        self.state.as_ref()
    }

    /// Stores the key by which a server recognises this device.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be written.
    pub fn set_device_key(&mut self, key: &DeviceKey) -> Result<(), StoreError> {
        let table = self.transaction.open_table(tables::DEVICE_KEY);
        let mut table = table.map_err(StoreError::during("opening a table"))?;
        let nothing: &[u8] = &[];
        table
            .insert(nothing, key.as_bytes().as_slice())
            .map_err(StoreError::during("writing a row"))?;
        Ok(())
    }

    /// Reserves memory for this many records.
    pub fn reserve(&mut self, records: usize) {
        self.records.reserve(records);
        self.places.reserve(records);
    }

    /// Returns what the table of records has of a record, without copying it.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub fn look(&mut self, key: &RecordKey) -> Result<Option<&StoredRecord>, StoreError> {
        Ok(self.held(key)?.row.as_ref())
    }

    /// Takes a record's row with its whole tail.
    fn take_whole(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        let held = self.held(key)?;
        let Some(row) = held.row.take() else { return Ok(None) };
        if !row.is_apart() {
            return row.whole(|| Ok(Vec::new())).map(Some);
        }
        let (mut added, bytes) = (std::mem::take(&mut held.added), held.bytes.clone());
        let read = || {
            let mut ops = ops_apart(self.which(Which::Pending)?, &bytes)?;
            ops.append(&mut added);
            Ok(ops)
        };
        row.whole(read).map(Some)
    }

    fn held(&mut self, key: &RecordKey) -> Result<&mut HeldRecord, StoreError> {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => {
                let bytes = key.to_bytes();
                let row = self.stored_record(&bytes)?;
                self.records.push(HeldRecord {
                    key: key.clone(),
                    bytes,
                    added: Vec::new(),
                    is_stored: row.is_some(),
                    was_apart: row.as_ref().is_some_and(StoredRecord::is_apart),
                    row,
                    changed: false,
                });
                self.places.insert(key.clone(), self.records.len() - 1);
                self.records.len() - 1
            }
        };
        Ok(self
            .records
            .get_mut(place)
            .unwrap_or_else(|| unreachable!("BUG: a record's place is where it was put")))
    }

    fn stored_record(&mut self, key: &[u8]) -> Result<Option<StoredRecord>, StoreError> {
        if self.absent.has(key) {
            return Ok(None);
        }
        let row: Option<StoredRecord> = self.get(Which::Records, key)?;
        let missed = std::mem::replace(&mut self.absent.missed, row.is_none());
        if row.is_none() && missed {
            self.absent.gap = Some(gap_around(self.which(Which::Records)?, key)?);
        }
        Ok(row)
    }

    /// Writes the changed records and their keys in the book's indexes. It is called once, before
    /// the commit. Returns what `wanted` asks for.
    ///
    /// # Errors
    /// [`StoreError`] if a table cannot be written.
    pub fn flush(&mut self, indexes: &Indexes, wanted: Wanted) -> Result<Flushed, StoreError> {
        self.places.clear();
        self.absent = Absent::default();
        let mut changed = std::mem::take(&mut self.records);
        changed.retain(|held| held.changed && (held.is_stored || held.row.is_some()));
        changed.sort_by(|one, other| one.bytes.cmp(&other.bytes));
        let keeps_keys = wanted.new_keys && changed.len() <= KEYS_KEPT_OF;
        let new_keys = self.flush_indexes(indexes, &changed, keeps_keys)?;
        let effects = if wanted.effects { self.effects(&changed)? } else { Vec::new() };
        changed.iter_mut().try_for_each(|held| self.flush_apart(held))?;
        let rows = changed.into_iter().map(|held| {
            let value = held.row.as_ref().map(encode).transpose()?;
            Ok(SortedRow { key: held.bytes, value, is_new: !held.is_stored })
        });
        write_sorted(self.which(Which::Records)?, rows)?;
        Ok(Flushed { effects, new_keys })
    }

    /// Writes the ops of a record that are apart, and leaves the row without them.
    fn flush_apart(&mut self, held: &mut HeldRecord) -> Result<(), StoreError> {
        let HeldRecord { bytes, row, added, was_apart, .. } = held;
        if row.as_ref().is_some_and(StoredRecord::is_apart) {
            let added = added.iter().map(|op| Ok((apart_key(bytes, op), Some(encode(op)?))));
            return self.write_apart(added.collect::<Result<_, StoreError>>()?, true);
        }
        let long = row.as_ref().and_then(StoredRecord::as_whole);
        let long = long.filter(|row| row.tail.len() > OPS_IN_ROW);
        let mut ops = BTreeMap::new();
        for op in long.iter().flat_map(|row| &row.tail) {
            ops.insert(apart_key(bytes, op), Some(encode(op)?));
        }
        if *was_apart {
            let table = self.which(Which::Pending)?;
            for stored in range_of(table, bytes)? {
                let (key, stored) = stored.map_err(StoreError::during("reading rows"))?;
                match ops.get(key.value()) {
                    Some(Some(op)) if op == stored.value() => drop(ops.remove(key.value())),
                    Some(_) => {}
                    None => drop(ops.insert(key.value().to_vec(), None)),
                }
            }
        }
        if let Some(long) = long {
            *row = StoredRecord::without_tail(long);
        }
        self.write_apart(ops, !*was_apart)
    }

    fn write_apart(
        &mut self,
        ops: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
        are_new: bool,
    ) -> Result<(), StoreError> {
        if ops.is_empty() {
            return Ok(());
        }
        let rows =
            ops.into_iter().map(|(key, value)| Ok(SortedRow { key, value, is_new: are_new }));
        write_sorted(self.which(Which::Pending)?, rows)
    }

    fn effects(&mut self, changed: &[HeldRecord]) -> Result<Vec<RecordEffect>, StoreError> {
        let mut effects = Vec::with_capacity(changed.len());
        for held in changed {
            let before = self.stored(held)?.and_then(|row| row.image().cloned());
            let after = held.row.as_ref().and_then(StoredRecord::image).cloned();
            effects.push(RecordEffect { key: held.key.clone(), before, after });
        }
        Ok(effects)
    }

    /// Returns a record's row from before this transaction.
    fn stored(&mut self, held: &HeldRecord) -> Result<Option<StoredRecord>, StoreError> {
        if held.is_stored { self.get(Which::Records, &held.bytes) } else { Ok(None) }
    }

    fn flush_indexes(
        &mut self,
        indexes: &Indexes,
        changed: &[HeldRecord],
        keeps_keys: bool,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let mut turned = Turned::default();
        for held in changed {
            let of_type = indexes.of(&held.key.entity);
            if !of_type.is_empty() {
                let before = self.stored(held)?;
                let before = before.as_ref().and_then(StoredRecord::image);
                let after = held.row.as_ref().and_then(StoredRecord::image);
                turned.add(of_type, &held.key, before, after)?;
            }
        }
        let new_keys = keeps_keys.then(|| turned.new_keys());
        if !turned.is_empty() {
            turned.write(self.which(Which::Indexes)?)?;
        }
        Ok(new_keys)
    }

    /// Changes the ops that are apart as [`Tables::await_confirmation`] says, some at a time.
    fn await_confirmation_apart(&mut self) -> Result<(), StoreError> {
        let mut after = Vec::new();
        loop {
            let rows = self.which(Which::Pending)?;
            let rows = rows.range::<&[u8]>((Bound::Excluded(after.as_slice()), Bound::Unbounded));
            let rows = rows.map_err(StoreError::during("reading rows"))?.take(ROWS_AT_ONCE);
            let mut changed = Vec::new();
            for row in rows {
                let (key, stored) = row.map_err(StoreError::during("reading rows"))?;
                let mut op: Pending = decode(stored.value())?;
                op.await_confirmation();
                changed.push((key.value().to_vec(), encode(&op)?));
            }
            let Some((last, _)) = changed.last() else { return Ok(()) };
            after.clone_from(last);
            for (key, op) in changed {
                self.note(Which::Pending, &key, &op)?;
            }
        }
    }

    /// Returns the transaction, for tables that are not among those that an entry changes.
    pub const fn transaction(&self) -> &'t WriteTransaction {
        self.transaction
    }

    pub(crate) fn which(&mut self, which: Which) -> Result<&mut BytesTable<'t>, StoreError> {
        match self.open.entry(which) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let table = self.transaction.open_table(which.definition());
                Ok(vacant.insert(table.map_err(StoreError::during("opening a table"))?))
            }
        }
    }

    /// Returns the next records of the table after a key, in the order of keys, at most
    /// [`ROWS_AT_ONCE`]. Changes of this transaction are not included.
    fn stored_after(&mut self, after: &[u8]) -> Result<Vec<(Vec<u8>, StoredRecord)>, StoreError> {
        let after = (Bound::Excluded(after), Bound::Unbounded);
        let rows = self.which(Which::Records)?.range::<&[u8]>(after);
        let rows = rows.map_err(StoreError::during("reading rows"))?.take(ROWS_AT_ONCE);
        let rows = rows.map(|row| {
            let (key, stored) = row.map_err(StoreError::during("reading rows"))?;
            Ok((key.value().to_vec(), decode(stored.value())?))
        });
        rows.collect()
    }

    fn get<T: Stored>(&mut self, which: Which, key: &[u8]) -> Result<Option<T>, StoreError> {
        let table = self.which(which)?;
        let stored = table.get(key).map_err(StoreError::during("reading a row"))?;
        stored.map(|stored| decode(stored.value())).transpose()
    }

    fn put<T: Stored>(
        &mut self,
        which: Which,
        key: &[u8],
        row: Option<&T>,
    ) -> Result<(), StoreError> {
        match row.map(encode).transpose()? {
            Some(bytes) => self.note(which, key, &bytes),
            None => self.forget(which, key),
        }
    }

    /// Writes bytes that need no decoding.
    fn note(&mut self, which: Which, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let table = self.which(which)?;
        drop(table.insert(key, value).map_err(StoreError::during("writing a row"))?);
        Ok(())
    }

    fn forget(&mut self, which: Which, key: &[u8]) -> Result<(), StoreError> {
        let table = self.which(which)?;
        drop(table.remove(key).map_err(StoreError::during("taking a row away"))?);
        Ok(())
    }

    /// Returns the keys of the conflicts that an op of a record was in, oldest first.
    fn conflicts_of(&mut self, key: &RecordKey, op: &OpId) -> Result<Vec<Vec<u8>>, StoreError> {
        let from = tables::history_prefix(key);
        let to = tables::after_prefix(&from).unwrap_or_default();
        let during = StoreError::during::<redb::StorageError>;
        let mut found = Vec::new();
        let table = self.which(Which::ConflictsOf)?;
        for row in
            table.range(from.as_slice()..to.as_slice()).map_err(during("reading conflicts"))?
        {
            let (at, of) = row.map_err(during("reading conflicts"))?;
            if of.value() == op.as_bytes() {
                found.extend(at.value().get(from.len()..).map(<[u8]>::to_vec));
            }
        }
        Ok(found)
    }

    /// Returns the newest open conflict of an op of a record.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn open_conflict(
        &mut self,
        key: &RecordKey,
        op: &OpId,
    ) -> Result<Option<ConflictId>, StoreError> {
        for at in self.conflicts_of(key, op)?.into_iter().rev() {
            if self.get::<ConflictRow>(Which::Conflicts, &at)?.is_some_and(|row| row.open) {
                return Ok(tables::numbers(&at).map(|(seq, number)| ConflictId { seq, number }));
            }
        }
        Ok(None)
    }
}

impl Tables for DiskTables<'_> {
    fn record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        let row = self.take_whole(key)?;
        self.held(key)?.row = row.clone().map(StoredRecord::from);
        Ok(row)
    }

    fn take_record(&mut self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        self.take_whole(key)
    }

    fn put_record(&mut self, key: &RecordKey, row: Option<RecordRow>) -> Result<(), StoreError> {
        let held = self.held(key)?;
        held.row = row.map(StoredRecord::from);
        held.changed = true;
        Ok(())
    }

    fn confirmed(&mut self, key: &RecordKey) -> Result<Option<Confirmed>, StoreError> {
        Ok(self.held(key)?.row.as_ref().and_then(StoredRecord::confirmed).cloned())
    }

    fn seen(&mut self, key: &RecordKey) -> Result<(Option<FieldsJson>, bool), StoreError> {
        let row = self.held(key)?.row.as_ref();
        let has_tail = row.is_some_and(|row| row.pending() > 0);
        Ok((row.and_then(StoredRecord::image).cloned(), has_tail))
    }

    fn push_op(
        &mut self,
        key: &RecordKey,
        op: Pending,
        visible: Visible,
    ) -> Result<(), StoreError> {
        let held = self.held(key)?;
        let row = held.row.get_or_insert_default();
        held.added.extend(row.push(op, visible));
        held.changed = true;
        Ok(())
    }

    fn unit(&mut self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.get(Which::Units, &tables::unit_key(id))
    }

    fn put_unit(&mut self, id: &UnitId, row: Option<UnitRow>) -> Result<(), StoreError> {
        self.put(Which::Units, &tables::unit_key(id), row.as_ref())
    }

    fn units(&mut self) -> Result<Vec<(UnitId, UnitRow)>, StoreError> {
        let table = self.which(Which::Units)?;
        let mut units = Vec::new();
        for row in table.iter().map_err(StoreError::during("reading units"))? {
            let (id, stored) = row.map_err(StoreError::during("reading units"))?;
            let id =
                id.value().try_into().map(UnitId::from_bytes).map_err(|_| StoreError::Corrupt {
                    what: "a key of a table that is folded from the log",
                    seq: None,
                    source: None,
                })?;
            units.push((id, decode(stored.value())?));
        }
        Ok(units)
    }

    fn put_conflict(&mut self, seq: Seq, number: u32, row: ConflictRow) -> Result<(), StoreError> {
        let at = tables::conflict_key(seq, number);
        self.put(Which::Conflicts, &at, Some(&row))?;
        self.note(
            Which::ConflictsOf,
            &tables::of_record_key(&row.key, seq, number),
            row.op.id.as_bytes(),
        )?;
        if row.open { self.note(Which::OpenConflicts, &at, &[]) } else { Ok(()) }
    }

    fn close_conflicts(
        &mut self,
        key: &RecordKey,
        op: &OpId,
        winner: Winner,
        merged: Option<&FieldsJson>,
    ) -> Result<(), StoreError> {
        for at in self.conflicts_of(key, op)? {
            let Some(mut row) =
                self.get::<ConflictRow>(Which::Conflicts, &at)?.filter(|row| row.open)
            else {
                continue;
            };
            row.close(winner, merged);
            self.put(Which::Conflicts, &at, Some(&row))?;
            self.forget(Which::OpenConflicts, &at)?;
        }
        Ok(())
    }

    fn park_of(&mut self, op: &OpId) -> Result<Option<ParkedOpRow>, StoreError> {
        if self.state()?.parked_ops == 0 {
            return Ok(None);
        }
        self.get(Which::ParkedOps, &tables::op_key(op))
    }

    fn put_park_of(&mut self, op: &OpId, row: Option<ParkedOpRow>) -> Result<(), StoreError> {
        self.put(Which::ParkedOps, &tables::op_key(op), row.as_ref())
    }

    fn dead_letter(&mut self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        self.get(Which::DeadLetters, &tables::op_key(op))
    }

    fn put_dead_letter(&mut self, op: &OpId, row: Option<DeadLetterRow>) -> Result<(), StoreError> {
        self.put(Which::DeadLetters, &tables::op_key(op), row.as_ref())
    }

    fn put_cursor(&mut self, entity: &EntityType, row: CursorRow) -> Result<(), StoreError> {
        self.put(Which::Cursors, tables::cursor_key(entity), Some(&row))
    }

    fn put_undeclared(&mut self, key: &RecordKey, seq: Seq, number: u32) -> Result<(), StoreError> {
        self.note(Which::Undeclared, &tables::of_record_key(key, seq, number), &[])
    }

    fn remove_undeclared(
        &mut self,
        key: &RecordKey,
        seq: Seq,
        number: u32,
    ) -> Result<(), StoreError> {
        self.forget(Which::Undeclared, &tables::of_record_key(key, seq, number))
    }

    fn await_confirmation(&mut self) -> Result<(), StoreError> {
        let during = StoreError::during::<redb::StorageError>;
        self.which(Which::Cursors)?.retain(|_, _| false).map_err(during("forgetting cursors"))?;
        self.which(Which::Undeclared)?
            .retain(|_, _| false)
            .map_err(during("forgetting what is undeclared"))?;
        // This changes the whole book, with only a part of it in memory at a time. It is one
        // commit, so it happens whole or not at all.
        let mut after = Vec::new();
        loop {
            let mut rows = self.stored_after(&after)?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            rows.iter_mut().for_each(|(_, row)| row.await_confirmation());
            let rows = rows.iter().map(|(key, row)| {
                Ok(SortedRow { key: key.clone(), value: Some(encode(row)?), is_new: false })
            });
            write_sorted(self.which(Which::Records)?, rows)?;
        }
        self.await_confirmation_apart()?;
        let held = self.records.iter_mut().filter_map(|held| held.row.as_mut());
        held.for_each(StoredRecord::await_confirmation);
        Ok(())
    }

    // Every erased record is in memory. That is fine: an erasing makes a new file, and folds it in
    // memory. So nobody folds this entry into tables that are on disk already.
    fn erase(&mut self, erased: &ErasedRecords) -> Result<(), StoreError> {
        let during = StoreError::during::<redb::StorageError>;
        let mut keys: Vec<_> = self.records.iter().map(|held| held.key.clone()).collect();
        let mut after = Vec::new();
        loop {
            let rows = self.stored_after(&after)?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            keys.extend(rows.iter().filter_map(|(key, _)| RecordKey::from_bytes(key)));
        }
        keys.retain(|key| erased.has(key));
        for key in keys {
            let held = self.held(&key)?;
            if held.row.as_ref().is_some_and(|row| row.pending() == 0) {
                held.row = None;
                held.changed = true;
            }
        }
        let mut gone = Vec::new();
        let table = self.which(Which::ConflictsOf)?;
        for row in table.iter().map_err(during("reading conflicts"))? {
            let (at, _) = row.map_err(during("reading conflicts"))?;
            gone.extend(tables::of_record_from_key(at.value()));
        }
        gone.retain(|(key, ..)| erased.has(key));
        for (key, seq, number) in gone {
            if self.record(&key)?.is_none() {
                self.forget(Which::ConflictsOf, &tables::of_record_key(&key, seq, number))?;
                self.forget(Which::Conflicts, &tables::conflict_key(seq, number))?;
                self.forget(Which::OpenConflicts, &tables::conflict_key(seq, number))?;
            }
        }
        let is_erased =
            |at: &[u8]| tables::of_record_from_key(at).is_some_and(|(key, ..)| erased.has(&key));
        self.which(Which::Undeclared)?
            .retain(|at, _| !is_erased(at))
            .map_err(during("forgetting what is undeclared"))?;
        if matches!(erased, ErasedRecords::Except(_)) {
            self.which(Which::Cursors)?
                .retain(|_, _| false)
                .map_err(during("forgetting cursors"))?;
        }
        Ok(())
    }

    fn unconfirmed(&mut self) -> Result<Vec<RecordKey>, StoreError> {
        let mut waiting = Vec::new();
        let mut after = Vec::new();
        loop {
            let rows = self.stored_after(&after)?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (key, _) in rows.iter().filter(|(_, row)| row.awaits_confirmation()) {
                waiting.push(RecordKey::from_bytes(key).ok_or(StoreError::Corrupt {
                    what: "a key of a table that is folded from the log",
                    seq: None,
                    source: None,
                })?);
            }
        }
        // Changes of this transaction override the table.
        waiting.retain(|key| !self.places.contains_key(key));
        let awaits =
            |held: &&HeldRecord| held.row.as_ref().is_some_and(StoredRecord::awaits_confirmation);
        waiting.extend(self.records.iter().filter(awaits).map(|held| held.key.clone()));
        waiting.sort_unstable();
        Ok(waiting)
    }

    fn state(&mut self) -> Result<StateRow, StoreError> {
        if self.state.is_none() {
            self.state = Some(self.get(Which::State, &[])?.unwrap_or_default());
        }
        Ok(self.state.clone().unwrap_or_default())
    }

    fn put_state(&mut self, row: StateRow) -> Result<(), StoreError> {
        self.put(Which::State, &[], Some(&row))?;
        self.state = Some(row);
        Ok(())
    }
}

/// Returns the rows of a table whose keys begin with a record and a place in the log.
fn range_of<'t>(
    table: &'t impl ReadableTable<&'static [u8], &'static [u8]>,
    record: &[u8],
) -> Result<redb::Range<'t, &'static [u8], &'static [u8]>, StoreError> {
    let from = [record, &[0]].concat();
    let to = tables::after_prefix(&from).unwrap_or_default();
    table.range(from.as_slice()..to.as_slice()).map_err(StoreError::during("reading rows"))
}

/// Reads the ops of a tail that is apart, oldest first.
pub(crate) fn ops_apart(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    record: &[u8],
) -> Result<Vec<Pending>, StoreError> {
    let rows = range_of(table, record)?.map(|row| {
        let (_, stored) = row.map_err(StoreError::during("reading rows"))?;
        decode(stored.value())
    });
    rows.collect()
}

/// Returns the key of an op of a tail that is apart.
pub(crate) fn apart_key(record: &[u8], op: &Pending) -> Vec<u8> {
    [record, &[0], &tables::place_key(op.place)].concat()
}

/// Reads a stored row that fits its sum.
pub(crate) fn decode<T: Stored>(stored: &[u8]) -> Result<T, StoreError> {
    codec::decode(summed(stored)?).map_err(|fault| StoreError::corrupt(DAMAGED_ROW, None, fault))
}

/// Decodes the part of a stored record that an app reads, in place, after checking its sum.
pub(crate) fn view(stored: &[u8]) -> Result<RecordView<'_>, StoreError> {
    RecordView::read(summed(stored)?).map_err(|fault| StoreError::corrupt(DAMAGED_ROW, None, fault))
}

/// Returns the stored form of a row.
pub(crate) fn encode<T: Stored>(row: &T) -> Result<Vec<u8>, StoreError> {
    let row = codec::encode(row);
    row.map(sum::put)
        .map_err(|fault| StoreError::corrupt("a row is too large to be stored", None, fault))
}

fn summed(stored: &[u8]) -> Result<&[u8], StoreError> {
    let damaged =
        || StoreError::corrupt(DAMAGED_ROW, None, "its bytes are not those that were written");
    sum::take(stored).ok_or_else(damaged)
}

const DAMAGED_ROW: &str = "a row that is folded from the log";

#[cfg(test)]
mod tests {
    use fieldbook_core::{Hlc, OpId, Version};
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database};

    use super::*;

    fn key(number: usize) -> RecordKey {
        format!("lead/{number:05}").parse().unwrap()
    }

    fn confirmed(version: u64) -> RecordRow {
        let confirmed = Confirmed {
            version: Version::new(version),
            edited_at: Hlc::from_bits(1),
            op: OpId::from_bytes([1; 16]),
            older: Vec::new(),
            floor: None,
            deleted: false,
            fields: FieldsJson::default(),
        };
        RecordRow { confirmed: Some(confirmed), ..RecordRow::default() }
    }

    fn database(records: usize) -> Database {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut tables = DiskTables::new(&transaction);
        for number in 0..records {
            tables.put_record(&key(number), Some(confirmed(7))).unwrap();
        }
        tables.flush(&Indexes::default(), Wanted::default()).unwrap();
        drop(tables);
        transaction.commit().unwrap();
        database
    }

    /// Accepting a server held all rows of the book in memory and changed all of them.
    #[test]
    fn a_book_of_any_size_awaits_confirmation_without_being_held() {
        for records in [2_500, 25_000] {
            let database = database(records);
            let transaction = database.begin_write().unwrap();
            let mut tables = DiskTables::new(&transaction);
            // One record is read, one is changed, and one is new in this transaction.
            assert!(tables.record(&key(3)).unwrap().is_some());
            tables.put_record(&key(4), Some(confirmed(9))).unwrap();
            tables.put_record(&key(records), Some(confirmed(9))).unwrap();
            tables.await_confirmation().unwrap();
            assert_eq!(tables.records.len(), 3);
            let waiting: Vec<_> = (0..=records).map(key).collect();
            assert_eq!(tables.unconfirmed().unwrap(), waiting);
            // A record that is confirmed by now waits no longer, and neither does a removed one.
            tables.put_record(&key(4), Some(confirmed(2))).unwrap();
            tables.put_record(&key(5), None).unwrap();
            assert_eq!(tables.unconfirmed().unwrap().len(), records - 1);
            assert_eq!(tables.record(&key(3)).unwrap(), Some(confirmed(0)));
            tables.flush(&Indexes::default(), Wanted::default()).unwrap();
            for (number, version) in [(0, Some(0)), (4, Some(2)), (5, None), (records, Some(0))] {
                let row = tables.stored_record(&key(number).to_bytes()).unwrap();
                assert_eq!(row.and_then(|row| row.version()).map(Version::number), version);
            }
        }
    }
}
