//! Throws the tables away and folds them again. Everything is folded in memory first and then
//! written sorted in one transaction, at a fraction of the cost of folding row by row on disk.
//!
//! ```text
//!   one thread           reads entries, checks and decodes them ──┐ 512 at a time, at most 8 times that ahead
//!   the caller's thread                                           └─► folds them, then writes the tables
//! ```
//!
//! The history is not written: the first reader of a history folds it ([`crate::lazy`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use fieldbook_core::entry::Entry;
use fieldbook_core::log::{Appender, Head, StoreError, catch_storage_panic, entries_from};
use fieldbook_core::rows::{OPS_IN_ROW, StateRow, StoredRecord, TailRow, UnitRow};
use fieldbook_core::tail::Tail;
use fieldbook_core::{OpId, OpPlace, RecordKey, Schema, Seq, UnitId};
use redb::{ReadOnlyTable, WriteTransaction};

use crate::access::{apart_key, encode};
use crate::apply::apply;
use crate::effects::{Effects, TailEffect};
use crate::index::Indexes;
use crate::lazy::References;
use crate::log_view::{CachedLog, LogView};
use crate::memory::MemoryTables;
use crate::sorted::{SortedRow, write_sorted};
use crate::tables;
use crate::tables::Which;

type Entries = ReadOnlyTable<u64, &'static [u8]>;

/// The number of entries that are passed at a time. They are few enough to be still in the
/// processor's cache when they are folded.
const READ_TOGETHER: usize = 512;
/// The number of such groups that may wait to be folded.
const READ_AHEAD: usize = 8;

/// The result of folding the whole log, in memory.
#[derive(Default)]
pub struct Rebuilt {
    tables: MemoryTables,
    tail: BTreeMap<OpPlace, TailRow>,
}

/// Folds a log up to and including an entry, in memory. It calls `progress` for every entry.
///
/// # Errors
/// [`StoreError`] if an entry cannot be read, or names something that does not exist.
pub fn fold(
    entries: &Entries,
    schema: &Schema,
    up_to: Seq,
    mut progress: impl FnMut(Seq),
) -> Result<Rebuilt, StoreError> {
    fold_with(entries, schema, up_to, |entry, _| progress(entry.header.seq))
}

/// Does the same as [`fold`], and calls `after` with every entry and what is folded with it.
pub(crate) fn fold_with(
    entries: &Entries,
    schema: &Schema,
    up_to: Seq,
    mut after: impl FnMut(&Entry, &Rebuilt),
) -> Result<Rebuilt, StoreError> {
    let log = CachedLog::new(entries);
    let (mut rebuilt, mut effects) = (Rebuilt::default(), Effects::default());
    let mut take = |entry: Result<Entry, StoreError>| {
        let entry = entry?;
        rebuilt.take(&log, schema, &entry, &mut effects)?;
        after(&entry, &rebuilt);
        Ok::<_, StoreError>(())
    };
    if up_to.number() <= READ_TOGETHER as u64 {
        entries_up_to(entries, up_to).try_for_each(&mut take)?;
    } else {
        thread::scope(|scope| {
            let (ahead, read) = sync_channel(READ_AHEAD);
            scope.spawn(move || read_ahead(entries, up_to, &ahead));
            read.into_iter().flatten().try_for_each(&mut take)
        })?;
    }
    Ok(rebuilt)
}

/// Reads entries until there are no more, or the receiver is gone.
// Never inlined, so that a profiler shows the thread under this name.
#[inline(never)]
fn read_ahead(entries: &Entries, up_to: Seq, ahead: &SyncSender<Vec<Result<Entry, StoreError>>>) {
    let mut read = entries_up_to(entries, up_to);
    loop {
        let some: Vec<_> = read.by_ref().take(READ_TOGETHER).collect();
        if some.is_empty() || ahead.send(some).is_err() {
            return;
        }
    }
}

fn entries_up_to(entries: &Entries, up_to: Seq) -> impl Iterator<Item = Result<Entry, StoreError>> {
    let is_wanted = move |entry: &Result<Entry, StoreError>| {
        entry.as_ref().map_or(true, |entry| entry.header.seq <= up_to)
    };
    entries_from(entries, Seq::ZERO.next()).take_while(is_wanted)
}

/// Makes a tail, all of it in memory, of its ops, the unanswered units, the dead letters and the
/// parked ops.
pub(crate) fn in_memory<'r>(
    ops: BTreeMap<OpPlace, TailRow>,
    units: impl Iterator<Item = (&'r UnitId, &'r UnitRow)>,
    dead: impl Iterator<Item = OpPlace>,
    parked: impl Iterator<Item = (OpId, String)>,
) -> Tail {
    let mut tail = Tail::of(ops.into_iter().collect());
    units.for_each(|(id, row)| tail.put_unit(*id, row));
    dead.for_each(|place| tail.set_dead(place, true));
    parked.for_each(|(op, code)| tail.set_parked(op, Some(code)));
    tail
}

impl Rebuilt {
    /// Returns the tables.
    pub const fn tables(&self) -> &MemoryTables {
        &self.tables
    }

    /// Returns the tail.
    pub const fn tail(&self) -> &BTreeMap<OpPlace, TailRow> {
        &self.tail
    }

    /// Returns the tail as the rules read it, all of it in memory.
    pub fn into_tail(self) -> Tail {
        self.into_parts().1
    }

    /// Returns the tables, and the tail, all of it in memory.
    pub(crate) fn into_parts(self) -> (MemoryTables, Tail) {
        let tables = self.tables;
        let known: HashSet<OpId> = self.tail.values().map(|row| row.op).collect();
        let dead = tables.dead_letters.values().map(|row| row.op.place);
        // A fold of some records knows parks of ops of other records too.
        let parked = tables.parked_ops.iter().filter(|(op, _)| known.contains(op));
        let parked = parked.map(|(op, row)| (*op, row.code.clone()));
        let tail = in_memory(self.tail, tables.units.iter(), dead, parked);
        (tables, tail)
    }

    /// Begins a fold of some records only.
    pub(crate) fn only(keys: BTreeSet<RecordKey>) -> Self {
        let tables = MemoryTables { only: Some(keys), ..MemoryTables::default() };
        Self { tables, ..Self::default() }
    }

    /// Folds one entry.
    pub(crate) fn take(
        &mut self,
        log: &impl LogView,
        schema: &Schema,
        entry: &Entry,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        apply(&mut self.tables, log, schema, entry, effects)?;
        self.follow(effects);
        Ok(())
    }

    fn follow(&mut self, effects: &mut Effects) {
        let sum = &mut self.tables.state.tail;
        for effect in effects.tail.drain(..) {
            match effect {
                TailEffect::Insert(place, row) | TailEffect::Replace(place, row) => {
                    let before = self.tail.get(&place);
                    before.into_iter().for_each(|before| sum.remove(before));
                    sum.add(&row);
                    self.tail.insert(place, row);
                }
                TailEffect::Remove(place) => {
                    let before = self.tail.remove(&place);
                    before.iter().for_each(|before| sum.remove(before));
                }
                TailEffect::Dead(..)
                | TailEffect::Parked(..)
                | TailEffect::Unit(..)
                | TailEffect::UnitGone(_) => {}
            }
        }
        effects.records.clear();
    }

    /// Replaces all tables.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails.
    pub fn write(
        &self,
        transaction: &WriteTransaction,
        indexes: &Indexes,
        head: Seq,
    ) -> Result<StateRow, StoreError> {
        for definition in tables::ALL {
            transaction
                .delete_table(definition)
                .map_err(StoreError::during("taking a table away"))?;
        }
        let state =
            StateRow { tail_folded: head, history_folded: Seq::ZERO, ..self.tables.state.clone() };
        let memory = &self.tables;
        let mut records: Vec<_> =
            memory.records.iter().map(|(key, row)| (key.to_bytes(), key, row)).collect();
        records.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let mut index_keys = Vec::new();
        for (_, key, row) in &records {
            index_keys.extend(indexes.keys(key, row.image())?);
        }
        index_keys.sort_unstable();
        let nothing = Vec::new;
        let long = records.iter().filter(|(.., row)| row.tail.len() > OPS_IN_ROW);
        let apart =
            long.flat_map(|(key, _, row)| row.tail.iter().map(|op| (apart_key(key, op), op)));
        put_all(transaction, Which::Pending, apart.map(|(key, op)| Ok((key, encode(op)?))))?;
        let records = records.into_iter().map(|(key, _, row)| {
            let without_tail = StoredRecord::without_tail(row);
            Ok((key, without_tail.map_or_else(|| encode(row), |row| encode(&row))?))
        });
        put_all(transaction, Which::Records, records)?;
        put_all(
            transaction,
            Which::Units,
            memory.units.iter().map(|(id, row)| Ok((tables::unit_key(id).to_vec(), encode(row)?))),
        )?;
        memory.write_conflicts(transaction)?;
        let parked = memory.parked_ops.iter();
        let parked = parked.map(|(op, row)| Ok((tables::op_key(op).to_vec(), encode(row)?)));
        put_all(transaction, Which::ParkedOps, parked)?;
        let dead = memory.dead_letters.iter();
        put_all(
            transaction,
            Which::DeadLetters,
            dead.map(|(op, row)| Ok((tables::op_key(op).to_vec(), encode(row)?))),
        )?;
        let cursors = memory.cursors.iter();
        put_all(
            transaction,
            Which::Cursors,
            cursors.map(|(entity, row)| Ok((tables::cursor_key(entity).to_vec(), encode(row)?))),
        )?;
        put_all(transaction, Which::State, [Ok((nothing(), encode(&state)?))].into_iter())?;
        let tail = self.tail.iter();
        put_all(
            transaction,
            Which::Tail,
            tail.map(|(place, row)| Ok((tables::place_key(*place).to_vec(), encode(row)?))),
        )?;
        let mut references = References::default();
        self.tail.iter().for_each(|(place, row)| references.set(*place, row, true));
        put_all(transaction, Which::References, references.into_rows().map(Ok))?;
        let undeclared = memory
            .undeclared
            .iter()
            .map(|(key, seq, number)| Ok((tables::of_record_key(key, *seq, *number), nothing())));
        put_all(transaction, Which::Undeclared, undeclared)?;
        let index_keys = index_keys.into_iter().map(|key| Ok((key, nothing())));
        put_all(transaction, Which::Indexes, index_keys)?;
        Ok(state)
    }
}

impl MemoryTables {
    fn write_conflicts(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let rows = || {
            self.conflicts
                .iter()
                .map(|((seq, number), row)| (tables::conflict_key(*seq, *number), row))
        };
        let whole = rows().map(|(at, row)| Ok((at.to_vec(), encode(row)?)));
        put_all(transaction, Which::Conflicts, whole)?;
        let open = rows().filter(|(_, row)| row.open).map(|(at, _)| Ok((at.to_vec(), Vec::new())));
        put_all(transaction, Which::OpenConflicts, open)?;
        let of_record = self.conflicts.iter().map(|((seq, number), row)| {
            (tables::of_record_key(&row.key, *seq, *number), row.op.id.as_bytes().to_vec())
        });
        let mut of_record: Vec<_> = of_record.collect();
        of_record.sort_unstable();
        put_all(transaction, Which::ConflictsOf, of_record.into_iter().map(Ok))
    }
}

/// Rebuilds all tables of a book within a write transaction. `entries` is the log at the beginning
/// of the transaction, and `indexes` are those of the book. Returns the state row and the result of
/// the fold.
///
/// # Errors
/// [`StoreError`] if the log cannot be read or the disk fails.
pub fn rebuild(
    transaction: &WriteTransaction,
    entries: &Entries,
    schema: &Schema,
    indexes: &Indexes,
    head: Option<Head>,
    progress: impl FnMut(Seq),
) -> Result<(StateRow, Rebuilt), StoreError> {
    let up_to = head.map_or(Seq::ZERO, |head| head.seq);
    // The end of the log is checked, and its table is released before damaged tables are read: see
    // `catch_storage_panic`.
    drop(catch_storage_panic(|| Appender::open(transaction, head))?);
    let rebuilt = fold(entries, schema, up_to, progress)?;
    let state = catch_storage_panic(|| rebuilt.write(transaction, indexes, up_to))?;
    Ok((state, rebuilt))
}

type Row = Result<(Vec<u8>, Vec<u8>), StoreError>;

/// Fills an empty table with rows in the order of their keys.
fn put_all(
    transaction: &WriteTransaction,
    which: Which,
    rows: impl Iterator<Item = Row>,
) -> Result<(), StoreError> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction
        .open_table(which.definition())
        .map_err(StoreError::during("opening a table"))?;
    catch_storage_panic(|| {
        write_sorted(&mut table, rows.map(|row| row.map(|(key, value)| SortedRow::new(key, value))))
    })
}
