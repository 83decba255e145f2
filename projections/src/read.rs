//! Reads the tables on one snapshot.

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, OnceLock};

use fieldbook_core::index::Span;
use fieldbook_core::log::{StoreError, entries, entries_from};
use fieldbook_core::record::Pending;
use fieldbook_core::rows::{
    ConflictRow, CursorRow, DeadLetterRow, ParkedOpRow, RecordRow, RecordView, StateRow,
    StoredRecord, UnitRow,
};
use fieldbook_core::tail::{Tail, TailSum};
use fieldbook_core::{
    ConflictId, DeviceKey, EntityType, OpId, OpPlace, RecordId, RecordKey, Schema, Seq, UnitId,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use crate::access::{decode, ops_apart, view};
use crate::index::IndexesOnFile;
use crate::log_view::CachedLog;
use crate::tables;
use crate::tables::Which;
use crate::tail_on_disk::TailOnDisk;

type Bytes = &'static [u8];
pub(crate) type BytesTable = ReadOnlyTable<Bytes, Bytes>;

/// One snapshot of a book. Keep it no longer than needed: while it exists, overwritten data keeps
/// its space in the file.
pub struct Snapshot {
    pub(crate) transaction: ReadTransaction,
    /// The tables after their first use: opening one costs more than reading a row.
    tables: [OnceLock<BytesTable>; Which::ALL.len()],
}

/// All stored rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDump {
    /// The name of the table.
    pub name: &'static str,
    /// Keys and values, in the order of keys.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Snapshot {
    /// Makes a snapshot of this transaction.
    pub const fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: [const { OnceLock::new() }; Which::ALL.len()] }
    }

    /// Returns the log as this snapshot has it.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be opened.
    pub fn log(&self) -> Result<CachedLog<ReadOnlyTable<u64, Bytes>>, StoreError> {
        Ok(CachedLog::new(entries(&self.transaction)?))
    }

    /// Returns the table of entries.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be opened.
    pub fn entries(&self) -> Result<ReadOnlyTable<u64, Bytes>, StoreError> {
        entries(&self.transaction)
    }

    /// Returns the seq of the last entry; zero if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub fn last_seq(&self) -> Result<Seq, StoreError> {
        let entries = self.entries()?;
        let last = entries.last().map_err(StoreError::during("reading the log"))?;
        Ok(last.map_or(Seq::ZERO, |(seq, _)| Seq::new(seq.value())))
    }

    /// Returns the key by which a server recognises this device; none in a book from before there
    /// were keys.
    ///
    /// # Errors
    /// [`StoreError`] if the key cannot be read.
    pub fn device_key(&self) -> Result<Option<DeviceKey>, StoreError> {
        let table = match self.transaction.open_table(tables::DEVICE_KEY) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(StoreError::during("opening a table")(error)),
        };
        let nothing: &[u8] = &[];
        let stored = table.get(nothing).map_err(StoreError::during("reading a row"))?;
        let Some(stored) = stored else { return Ok(None) };
        let bytes = stored.value().try_into().map_err(|_| StoreError::Corrupt {
            what: "the device's key does not read",
            seq: None,
            source: None,
        })?;
        Ok(Some(DeviceKey::from_bytes(bytes)))
    }

    pub(crate) fn table(&self, which: Which) -> Result<Option<&BytesTable>, StoreError> {
        let Some(kept) = self.tables.get(which as usize) else { return Ok(None) };
        if let Some(table) = kept.get() {
            return Ok(Some(table));
        }
        match self.transaction.open_table(which.definition()) {
            Ok(table) => Ok(Some(kept.get_or_init(|| table))),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::during("opening a table")(error)),
        }
    }

    pub(crate) fn row<T: fieldbook_core::codec::Stored>(
        &self,
        which: Which,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let Some(table) = self.table(which)? else { return Ok(None) };
        let stored = table.get(key).map_err(StoreError::during("reading a row"))?;
        stored.map(|stored| decode(stored.value())).transpose()
    }

    fn rows<T: fieldbook_core::codec::Stored>(
        &self,
        which: Which,
    ) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let Some(table) = self.table(which)? else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for row in table.iter().map_err(StoreError::during("reading rows"))? {
            let (key, stored) = row.map_err(StoreError::during("reading rows"))?;
            rows.push((key.value().to_vec(), decode(stored.value())?));
        }
        Ok(rows)
    }

    /// Passes to `read` the part of a record's row that an app reads, in place.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn record_as<T>(
        &self,
        key: &RecordKey,
        read: impl FnOnce(&RecordView<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let Some(table) = self.table(Which::Records)? else { return Ok(None) };
        let stored =
            key.with_bytes(|key| table.get(key)).map_err(StoreError::during("reading a row"))?;
        stored.map(|stored| Ok(read(&view(stored.value())?))).transpose()
    }

    /// Returns a record's row.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn record(&self, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        let bytes = key.to_bytes();
        let stored = self.row(Which::Records, &bytes)?;
        stored.map(|stored| self.whole(stored, &bytes)).transpose()
    }

    /// Reads the rest of a row whose ops are apart.
    fn whole(&self, stored: StoredRecord, key: &[u8]) -> Result<RecordRow, StoreError> {
        stored.whole(|| {
            let table = self.table(Which::Pending)?;
            table.map_or_else(|| Ok(Vec::new()), |table| ops_apart(table, key))
        })
    }

    /// Returns the ops of a record that have not ended, oldest first, with the rest of the row left
    /// unread.
    pub(crate) fn pending(&self, key: &RecordKey) -> Result<Vec<Pending>, StoreError> {
        let bytes = key.to_bytes();
        let Some(table) = self.table(Which::Records)? else { return Ok(Vec::new()) };
        let stored = table.get(bytes.as_slice()).map_err(StoreError::during("reading a row"))?;
        let Some(stored) = stored else { return Ok(Vec::new()) };
        // After an answer, most rows have no tail any more, and are not decoded.
        if view(stored.value())?.pending == 0 {
            return Ok(Vec::new());
        }
        Ok(self.whole(decode(stored.value())?, &bytes)?.tail)
    }

    /// Returns an op of a record that has not ended, by its place.
    pub(crate) fn pending_at(
        &self,
        key: &RecordKey,
        place: OpPlace,
    ) -> Result<Option<Pending>, StoreError> {
        let bytes = key.to_bytes();
        let Some(stored) = self.row::<StoredRecord>(Which::Records, &bytes)? else {
            return Ok(None);
        };
        if stored.is_apart() {
            return self.row(Which::Pending, &tables::of_record_key(key, place.seq, place.index));
        }
        Ok(stored.ops_in_row().iter().find(|op| op.place == place).cloned())
    }

    /// Returns rows of one entity type in the order of their ids, deleted ones included; after an
    /// id if one is given.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn records<'s>(
        &'s self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<impl Iterator<Item = Result<(RecordId, RecordRow), StoreError>> + use<'s>, StoreError>
    {
        let skip = entity.as_str().len() + 1;
        let rows = self.stored_records(entity, after)?;
        Ok(rows.into_iter().flatten().map(move |row| {
            let (key, stored) = row.map_err(StoreError::during(READING_ROWS))?;
            let id = RecordId::parse(id_of(key.value(), skip)?).map_err(|_| damaged_key())?;
            Ok((id, self.whole(decode(stored.value())?, key.value())?))
        }))
    }

    /// Passes to `read` the same part of these rows with their ids, in place, until `read` stops.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn records_as(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
        mut read: impl FnMut(&str, &RecordView<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let skip = entity.as_str().len() + 1;
        for row in self.stored_records(entity, after)?.into_iter().flatten() {
            let (key, stored) = row.map_err(StoreError::during(READING_ROWS))?;
            if read(id_of(key.value(), skip)?, &view(stored.value())?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn stored_records(
        &self,
        entity: &EntityType,
        after: Option<&RecordId>,
    ) -> Result<Option<redb::Range<'static, Bytes, Bytes>>, StoreError> {
        let Some(table) = self.table(Which::Records)? else { return Ok(None) };
        let prefix = [entity.as_str().as_bytes(), &[0]].concat();
        let to = tables::after_prefix(&prefix).unwrap_or_default();
        let from = match after {
            Some(after) => [prefix.as_slice(), after.as_str().as_bytes(), &[0]].concat(),
            None => prefix,
        };
        table
            .range(from.as_slice()..to.as_slice())
            .map(Some)
            .map_err(StoreError::during(READING_ROWS))
    }

    /// Returns the live records that an accepted server has not confirmed yet. It reads all records.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn unconfirmed(&self) -> Result<Vec<RecordKey>, StoreError> {
        let mut keys = Vec::new();
        for entity in self.entity_types()? {
            for row in self.records(&entity, None)? {
                let (id, row) = row?;
                if row.awaits_confirmation() {
                    keys.push(RecordKey::new(entity.clone(), id));
                }
            }
        }
        Ok(keys)
    }

    /// Returns every entity type with at least one row.
    ///
    /// # Errors
    /// [`StoreError`] if a key cannot be read.
    pub fn entity_types(&self) -> Result<Vec<EntityType>, StoreError> {
        self.table(Which::Records)?.map_or_else(|| Ok(Vec::new()), entity_types)
    }

    /// Returns the indexes that the book has on record.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn index_shapes(&self) -> Result<IndexesOnFile, StoreError> {
        match self.transaction.open_table(tables::INDEX_SHAPES) {
            Ok(table) => IndexesOnFile::read(&table),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(IndexesOnFile::default()),
            Err(error) => Err(StoreError::during("opening a table")(error)),
        }
    }

    /// Passes the keys of a part of an index to `read`, each with the id in it, from either end and
    /// behind a key if one is given, until `read` breaks off.
    ///
    /// # Errors
    /// [`StoreError`] if a key cannot be read; those of `read`.
    pub fn index_keys(
        &self,
        span: &Span<'_>,
        after: Option<&[u8]>,
        reversed: bool,
        mut read: impl FnMut(&[u8], &str) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(table) = self.table(Which::Indexes)? else { return Ok(()) };
        let (mut from, mut to) = span.bounds();
        let mut from_is_read = true;
        match after {
            Some(after) if reversed => to = to.min(after),
            Some(after) if after >= from => (from, from_is_read) = (after, false),
            _ => {}
        }
        if from >= to {
            return Ok(());
        }
        let from = if from_is_read { Bound::Included(from) } else { Bound::Excluded(from) };
        let mut keys = table
            .range::<&[u8]>((from, Bound::Excluded(to)))
            .map_err(StoreError::during(READING_INDEX))?;
        while let Some(row) = if reversed { keys.next_back() } else { keys.next() } {
            let (key, _) = row.map_err(StoreError::during(READING_INDEX))?;
            let id = span.rule().id_of(span.entity(), key.value()).ok_or_else(damaged_key)?;
            if read(key.value(), id)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Returns a unit without a final answer.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn unit(&self, id: &UnitId) -> Result<Option<UnitRow>, StoreError> {
        self.row(Which::Units, &tables::unit_key(id))
    }

    /// Returns a dead letter.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn dead_letter(&self, op: &OpId) -> Result<Option<DeadLetterRow>, StoreError> {
        self.row(Which::DeadLetters, &tables::op_key(op))
    }

    /// Returns all dead letters, oldest op first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetterRow>, StoreError> {
        let mut rows: Vec<DeadLetterRow> =
            self.rows(Which::DeadLetters)?.into_iter().map(|(_, row)| row).collect();
        rows.sort_by_key(|row| row.op.place);
        Ok(rows)
    }

    /// Returns at most `limit` dead letters in the order of their ops' ids, which is nearly the
    /// order in which they were made; after an op if one is given.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn dead_letters_after(
        &self,
        after: Option<OpId>,
        limit: usize,
    ) -> Result<Vec<DeadLetterRow>, StoreError> {
        let Some(table) = self.table(Which::DeadLetters)? else { return Ok(Vec::new()) };
        let key = after.map(|op| tables::op_key(&op));
        let from = key.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let rows = table.range::<&[u8]>((from, Bound::Unbounded));
        let rows = rows.map_err(StoreError::during("reading dead letters"))?.take(limit);
        rows.map(|row| decode(row.map_err(StoreError::during("reading dead letters"))?.1.value()))
            .collect()
    }

    /// Returns the single ops that are parked, each with its code, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn parked_ops(&self) -> Result<Vec<(OpId, String)>, StoreError> {
        let rows = self.rows::<ParkedOpRow>(Which::ParkedOps)?.into_iter();
        rows.map(|(key, row)| {
            let op = key.as_slice().try_into().map(OpId::from_bytes).map_err(|_| damaged_key())?;
            Ok((op, row.code))
        })
        .collect()
    }

    /// Returns a conflict.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRow>, StoreError> {
        self.row(Which::Conflicts, &tables::conflict_key(id.seq, id.number))
    }

    /// Returns the conflicts of a record, open or resolved, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn conflicts_of(
        &self,
        key: &RecordKey,
    ) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        let Some(table) = self.table(Which::ConflictsOf)? else { return Ok(Vec::new()) };
        let from = tables::history_prefix(key);
        let to = tables::after_prefix(&from).unwrap_or_default();
        let rows = table.range(from.as_slice()..to.as_slice());
        let mut found = Vec::new();
        for row in rows.map_err(StoreError::during("reading conflicts"))? {
            let (at, _) = row.map_err(StoreError::during("reading conflicts"))?;
            let (_, seq, number) =
                tables::of_record_from_key(at.value()).ok_or_else(damaged_key)?;
            let id = ConflictId { seq, number };
            found.push((id, self.conflict(id)?.ok_or_else(damaged_key)?));
        }
        Ok(found)
    }

    /// Returns at most `limit` conflicts, oldest first, after the conflict `after` if there is one.
    /// With `only_open` they are the conflicts in which a person has to choose.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn conflicts_after(
        &self,
        after: Option<ConflictId>,
        limit: usize,
        only_open: bool,
    ) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        let which = if only_open { Which::OpenConflicts } else { Which::Conflicts };
        let Some(table) = self.table(which)? else { return Ok(Vec::new()) };
        let key = after.map(|id| tables::conflict_key(id.seq, id.number));
        let from = key.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let rows = table.range::<&[u8]>((from, Bound::Unbounded));
        let mut found = Vec::new();
        for row in rows.map_err(StoreError::during("reading conflicts"))?.take(limit) {
            let (at, stored) = row.map_err(StoreError::during("reading conflicts"))?;
            let (seq, number) = tables::numbers(at.value()).ok_or_else(damaged_key)?;
            let id = ConflictId { seq, number };
            let row = if only_open {
                self.conflict(id)?.ok_or_else(damaged_key)?
            } else {
                decode(stored.value())?
            };
            found.push((id, row));
        }
        Ok(found)
    }

    /// Returns the number of conflicts, and the number of those in which a person has to choose.
    ///
    /// # Errors
    /// [`StoreError`] if the tables cannot be read.
    pub fn count_conflicts(&self) -> Result<(u64, u64), StoreError> {
        Ok((self.count(Which::Conflicts)?, self.count(Which::OpenConflicts)?))
    }

    pub(crate) fn count(&self, which: Which) -> Result<u64, StoreError> {
        let Some(table) = self.table(which)? else { return Ok(0) };
        table.len().map_err(StoreError::during("counting rows"))
    }

    /// Returns all conflicts, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn conflicts(&self) -> Result<Vec<(ConflictId, ConflictRow)>, StoreError> {
        let rows = self.rows(Which::Conflicts)?;
        rows.into_iter()
            .map(|(key, row)| {
                let (seq, number) = tables::numbers(&key).ok_or_else(damaged_key)?;
                Ok((ConflictId { seq, number }, row))
            })
            .collect()
    }

    /// Returns the undeclared records, each with the entry that brought it and the index
    /// of the change in that entry.
    ///
    /// # Errors
    /// [`StoreError`] if a key cannot be read.
    pub fn undeclared(&self) -> Result<Vec<(RecordKey, Seq, u32)>, StoreError> {
        let Some(table) = self.table(Which::Undeclared)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for row in table.iter().map_err(StoreError::during("reading rows"))? {
            let (key, _) = row.map_err(StoreError::during("reading rows"))?;
            found.push(tables::of_record_from_key(key.value()).ok_or_else(damaged_key)?);
        }
        Ok(found)
    }

    /// Returns whether something of a record is undeclared.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub fn is_undeclared(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let Some(table) = self.table(Which::Undeclared)? else { return Ok(false) };
        let from = tables::history_prefix(key);
        let to = tables::after_prefix(&from).unwrap_or_default();
        let mut rows = table
            .range(from.as_slice()..to.as_slice())
            .map_err(StoreError::during("reading rows"))?;
        Ok(rows.next().is_some())
    }

    /// Returns the cursor of each entity type.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn cursors(&self) -> Result<Vec<(EntityType, CursorRow)>, StoreError> {
        let rows = self.rows(Which::Cursors)?;
        rows.into_iter()
            .map(|(key, row)| {
                let entity = std::str::from_utf8(&key)
                    .ok()
                    .and_then(|entity| EntityType::parse(entity).ok());
                Ok((entity.ok_or_else(damaged_key)?, row))
            })
            .collect()
    }

    /// Returns the entries that touched a record, oldest first, as far as the history is folded.
    ///
    /// # Errors
    /// [`StoreError`] if a key cannot be read.
    pub fn history(&self, key: &RecordKey) -> Result<Vec<Seq>, StoreError> {
        self.history_under(&tables::history_prefix(key))
    }

    /// Returns the entries that concern the book as a whole, oldest first, as far as the history is
    /// folded.
    ///
    /// # Errors
    /// [`StoreError`] if a key cannot be read.
    pub fn history_of_book(&self) -> Result<Vec<Seq>, StoreError> {
        self.history_under(tables::BOOK_HISTORY)
    }

    fn history_under(&self, prefix: &[u8]) -> Result<Vec<Seq>, StoreError> {
        let Some(table) = self.table(Which::History)? else { return Ok(Vec::new()) };
        let to = tables::after_prefix(prefix).unwrap_or_default();
        let rows = table.range(prefix..to.as_slice());
        let rows = rows.map_err(StoreError::during("reading a history"))?;
        let seqs = rows.map(|row| {
            let (stored, _) = row.map_err(StoreError::during("reading a history"))?;
            tables::history_from_key(stored.value()).ok_or_else(damaged_key)
        });
        seqs.collect()
    }

    /// Returns the book's state row.
    ///
    /// # Errors
    /// [`StoreError`] if the row cannot be read.
    pub fn state(&self) -> Result<StateRow, StoreError> {
        Ok(self.row(Which::State, &[])?.unwrap_or_default())
    }

    /// Returns the tail. It reads the entries above the mark of the tail's table, and the units;
    /// the rest is read when a question needs it.
    ///
    /// # Errors
    /// [`StoreError`] if a row or an entry cannot be read.
    pub fn tail(self: &Arc<Self>, schema: &Schema) -> Result<Tail, StoreError> {
        let (state, log) = (self.state()?, self.log()?);
        let stored = Arc::new(TailOnDisk::new(Arc::clone(self)));
        let mut tail = Tail::stored(Arc::clone(&stored) as _, state.tail_folded, state.tail);
        let mut last = state.tail_folded;
        for entry in entries_from(&self.entries()?, last.next()) {
            let entry = entry?;
            last = entry.header.seq;
            for (place, row) in
                crate::apply::tail_rows(schema, &entry, &log, |key| self.record(key))?
            {
                tail.insert(place, row);
            }
        }
        for (key, row) in self.rows::<UnitRow>(Which::Units)? {
            let id = key.as_slice().try_into().map(UnitId::from_bytes);
            tail.put_unit(id.map_err(|_| damaged_key())?, &row);
        }
        for (op, code) in self.parked_ops()? {
            tail.keep_parked(op, code);
        }
        tail.follow(stored, state.tail_folded, &TailSum::default(), last);
        Ok(tail)
    }

    /// Returns all stored rows of all tables, by table, to compare two folds.
    ///
    /// # Errors
    /// [`StoreError`] if a table cannot be read.
    pub fn dump(&self) -> Result<Vec<TableDump>, StoreError> {
        let mut all = Vec::new();
        for which in Which::ALL {
            let mut rows = Vec::new();
            if let Some(table) = self.table(which)? {
                for row in table.iter().map_err(StoreError::during("reading rows"))? {
                    let (key, value) = row.map_err(StoreError::during("reading rows"))?;
                    rows.push((key.value().to_vec(), value.value().to_vec()));
                }
            }
            all.push(TableDump { name: which.name(), rows });
        }
        Ok(all)
    }
}

/// Returns every entity type with at least one row in the table of records.
pub(crate) fn entity_types(
    records: &impl ReadableTable<Bytes, Bytes>,
) -> Result<Vec<EntityType>, StoreError> {
    let (mut found, mut from) = (Vec::new(), Vec::new());
    loop {
        let rows = records.range::<&[u8]>(from.as_slice()..);
        let Some(row) = rows.map_err(StoreError::during(READING_ROWS))?.next() else {
            return Ok(found);
        };
        let (key, _) = row.map_err(StoreError::during(READING_ROWS))?;
        let key = RecordKey::from_bytes(key.value()).ok_or_else(damaged_key)?;
        from = tables::after_prefix(&[key.entity.as_str().as_bytes(), &[0]].concat())
            .unwrap_or_default();
        found.push(key.entity);
    }
}

/// Returns the id in a record's key, after the first `skip` bytes.
pub(crate) fn id_of(key: &[u8], skip: usize) -> Result<&str, StoreError> {
    let id = key.get(skip..).and_then(|id| std::str::from_utf8(id).ok());
    id.filter(|id| RecordId::check(id).is_ok()).ok_or_else(damaged_key)
}

pub(crate) fn damaged_key() -> StoreError {
    StoreError::Corrupt {
        what: "a key of a table that is folded from the log",
        seq: None,
        source: None,
    }
}

const READING_ROWS: &str = "reading rows";
const READING_INDEX: &str = "reading an index";
